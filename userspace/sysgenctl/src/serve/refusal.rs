// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why something that was asked for is not done, or has failed, in a word for programs.

use std::fmt;
use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

/// Such a word. They are part of the interface: the description of it lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is no JSON.
    MalformedJson,
    /// It has something that nobody knows.
    UnknownField,
    /// It lacks something.
    MissingField,
    /// Something in it is of another type, or has a value that is none.
    InvalidField,
    /// The entropy is too short, or too long.
    EntropySize,
    /// There has to be entropy, and there is none.
    EntropyMissing,
    /// The time is before this was written, or absurd.
    TimeRange,
    /// The deadline is not more than 0, or more than a day.
    DeadlineRange,
    /// The token was never one.
    MalformedToken,
    /// The name is of no unit, or no control group.
    NoSuchCgroup,
    /// It is one that must not stand still.
    ProtectedCgroup,
    /// There is no such path.
    NoSuchPath,
    /// There is such a path, and it is asked for in another way.
    MethodNotAllowed,
    /// The body is too long.
    BodyTooLarge,
    /// The body did not come.
    BodyIncomplete,
    /// Events are told over HTTP only.
    HttpOnly,
    /// Something else goes on.
    Busy,
    /// The machine is quiesced already.
    AlreadyPrepared,
    /// Somebody else has quiesced it.
    QuiescedElsewhere,
    /// Somebody else has made it stand still.
    AlreadyFrozen,
    /// Nothing is quiesced.
    NotPrepared,
    /// What the token is for is over.
    TokenSpent,
    /// The token is of another snapshot.
    TokenOfAnotherSnapshot,
    /// It was to be the same machine, and is a clone.
    IsAClone,
    /// A hook would not be run that somebody relies on.
    HookRefused,
    /// A hook has failed.
    HookFailed,
    /// A control group does not stand still, or cannot go on.
    FreezeFailed,
    /// The kernel has not taken the entropy.
    EntropyFailed,
    /// The clock was not set.
    ClockFailed,
    /// The generation was not changed.
    ChangeFailed,
    /// It has changed again meanwhile.
    ChangedAgain,
    /// A unit that follows the change has failed.
    IdentityFailed,
    /// The service was killed before it had what it cannot do without.
    Interrupted,
    /// The driver does not say what it has to.
    DeviceFailed,
    /// What is done could not be noted.
    StateFailed,
    /// The change has not come in time.
    ChangeLate,
    /// What follows it has not ended in time.
    IdentityLate,
    /// Not all have acknowledged in time.
    WatchersLate,
    /// The deadline was over before all was done.
    DeadlineOver,
    /// Something is quiesced, or tracked watchers are outdated.
    NotReady,
}

impl Code {
    /// The status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedJson
            | Self::UnknownField
            | Self::MissingField
            | Self::InvalidField
            | Self::EntropySize
            | Self::EntropyMissing
            | Self::TimeRange
            | Self::DeadlineRange
            | Self::MalformedToken
            | Self::NoSuchCgroup
            | Self::BodyIncomplete => 400,
            Self::ProtectedCgroup => 403,
            Self::NoSuchPath => 404,
            Self::MethodNotAllowed => 405,
            Self::HttpOnly => 406,
            Self::Busy
            | Self::AlreadyPrepared
            | Self::QuiescedElsewhere
            | Self::AlreadyFrozen
            | Self::NotPrepared
            | Self::TokenSpent
            | Self::TokenOfAnotherSnapshot
            | Self::IsAClone => 409,
            Self::BodyTooLarge => 413,
            Self::HookRefused
            | Self::HookFailed
            | Self::FreezeFailed
            | Self::EntropyFailed
            | Self::ClockFailed
            | Self::ChangeFailed
            | Self::ChangedAgain
            | Self::IdentityFailed
            | Self::Interrupted
            | Self::DeviceFailed
            | Self::StateFailed => 500,
            Self::NotReady => 503,
            Self::ChangeLate | Self::IdentityLate | Self::WatchersLate | Self::DeadlineOver => 504,
        }
    }
}

/// Why it is not done.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// In a word.
    pub code: Code,
    /// In more of them.
    pub message: String,
    /// What was done until then, if anything was.
    pub report: Option<Value>,
}

impl Refusal {
    /// With nothing done.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            report: None,
        }
    }

    /// For `map_err`.
    pub fn of<E: Display>(code: Code) -> impl Fn(E) -> Self {
        move |error| Self::new(code, error.to_string())
    }

    /// The same, with what was done.
    pub fn with(self, report: &impl Serialize) -> Self {
        Self {
            report: serde_json::to_value(report).ok(),
            ..self
        }
    }

    /// What is answered.
    pub fn body(&self) -> Value {
        let mut body = json!({ "error": { "code": self.code, "message": self.message } });
        if let Some(report) = &self.report {
            body["report"] = report.clone();
        }
        body
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
