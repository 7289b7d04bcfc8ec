// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs a command, and says how that ended.

use std::fmt;
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::output::Output;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It was never started.
    NotStarted(String),
    /// It took longer than this, and was made to end, or could not be.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// Whether it has ended.
        was_ended: bool,
    },
    /// A signal came for us, and it was made to end, or could not be.
    Interrupted {
        /// The signal.
        signal: i32,
        /// Whether it has ended.
        was_ended: bool,
    },
}

/// The same, for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// Whether the exit status was 0.
    pub succeeded: bool,
    /// The exit status.
    pub status: Option<i32>,
    /// The number of the signal.
    pub signal: Option<i32>,
    /// Why it was not started, or was made to end.
    pub error: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Runs it to its end, which is never an error of ours.
pub fn run(command: &mut Command, output: Output) -> (End, Duration) {
    let start = Instant::now();
    let end = match command.stdout(output.of_commands()).status() {
        Ok(status) => End::of(status),
        Err(error) => End::NotStarted(error.to_string()),
    };
    (end, start.elapsed())
}

impl End {
    /// By what the kernel says of it.
    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }

    /// Whether something of it may still run that was to end.
    pub fn lives_on(&self) -> bool {
        matches!(
            self,
            Self::TimedOut {
                was_ended: false,
                ..
            } | Self::Interrupted {
                was_ended: false,
                ..
            }
        )
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The same, for programs.
    pub fn ended(&self, took: Duration) -> Ended {
        let (status, signal, error) = match self {
            Self::Exited(status) => (Some(*status), None, None),
            Self::Killed(signal) => (None, Some(*signal), None),
            Self::NotStarted(error) => (None, None, Some(error.clone())),
            Self::TimedOut { .. } | Self::Interrupted { .. } => {
                (None, None, Some(self.to_string()))
            }
        };
        Ended {
            succeeded: self.succeeded(),
            status,
            signal,
            error,
            seconds: took.as_secs_f64(),
        }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
            Self::TimedOut { limit, was_ended } => {
                let limit = humantime::format_duration(*limit);
                write!(f, "not done after {limit}, and {}", end_of(*was_ended))
            }
            Self::Interrupted { signal, was_ended } => {
                write!(f, "signal {signal} has come, and {}", end_of(*was_ended))
            }
        }
    }
}

fn end_of(was_ended: bool) -> &'static str {
    if was_ended {
        "made to end"
    } else {
        "the kernel does not let all of it end"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(script: &str) -> End {
        let mut command = Command::new("sh");
        run(command.args(["-c", script]), Output { json: false }).0
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(end_of("true"), End::Exited(0));
        assert_eq!(end_of("exit 3").to_string(), "exit status 3");
        assert_eq!(end_of("kill -9 $$").to_string(), "killed by signal 9");
        let (end, _) = run(
            &mut Command::new("/no/such/command"),
            Output { json: false },
        );
        assert!(end.to_string().starts_with("cannot be started: "), "{end}");
        assert!(!end.succeeded());
    }
}
