// SPDX-License-Identifier: MIT OR Apache-2.0

//! What has to be known when the service was killed and is started again.
//!
//! It is in a file in memory, below `/run`. It is saved with the machine, and found in each clone; it
//! can be written while the file systems of disks are frozen; and a machine that boots has nothing that
//! is quiesced, and no such file.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::request::Expect;
use super::token::Point;
use super::token::Token;
use crate::exit::Failure;
use crate::replace;

/// How many tokens are remembered of which all is over.
const SPENT: usize = 64;

/// Where the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It serves.
    #[default]
    Idle,
    /// It is being quiesced.
    Preparing,
    /// It is quiesced: a snapshot can be taken.
    Prepared,
    /// It is being brought back.
    Resuming,
    /// That has failed, and it stays quiesced.
    Held,
    /// What quiesced it is being undone.
    Undoing,
}

impl Phase {
    /// What that is to somebody else.
    fn words(self) -> &'static str {
        match self {
            Self::Idle => "serves",
            Self::Preparing => "is quiescing this machine",
            Self::Prepared => "has quiesced this machine",
            Self::Resuming => "is bringing this machine back",
            Self::Held => "holds this machine quiesced",
            Self::Undoing => "is thawing this machine",
        }
    }
}

/// What is done in `resumed`, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The entropy is mixed in, and the kernel reseeded.
    Entropy,
    /// The clock is set.
    Clock,
    /// The generation changes.
    Change,
    /// The units that follow a change end.
    Identity,
    /// The hooks in thaw.d are run.
    ThawHooks,
    /// All acknowledge who do not stand still.
    Watchers,
    /// One control group after the other goes on, and all acknowledge who are in it.
    Thaw,
    /// The hooks in post.d are run.
    PostHooks,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Entropy,
        Self::Clock,
        Self::Change,
        Self::Identity,
        Self::ThawHooks,
        Self::Watchers,
        Self::Thaw,
        Self::PostHooks,
    ];
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// There was nothing to do.
    Skipped,
    /// It was not done in time, and the policy is to go on.
    Late,
    /// It has failed.
    Failed,
}

/// A step that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which one.
    #[serde(rename = "step")]
    pub name: Name,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// More of it.
    pub detail: Value,
}

/// What came of `resumed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The machine serves, and all have acknowledged.
    Ready,
    /// It serves, and not all have, as the policy says.
    Late,
    /// It stays quiesced.
    Held,
}

/// The same, with how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// For which snapshot.
    pub token: Token,
    /// What the machine was said to be.
    pub expect: Expect,
    /// What came of it.
    pub outcome: Ended,
    /// The generation when the machine was quiesced.
    pub generation_before: u32,
    /// The generation now.
    pub generation: u32,
    /// The epoch now.
    pub epoch: u64,
    /// How long all of it took.
    pub seconds: f64,
    /// Each step.
    pub steps: Vec<Step>,
}

/// A control group that stands still, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// As it was named.
    pub name: String,
    /// Where it is.
    pub cgroup: PathBuf,
}

/// What `resumed` was called with. The entropy is kept nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// What the machine is.
    pub expect: Expect,
    /// What time it was when the call came.
    pub time: Option<Duration>,
    /// The least generation.
    pub least: u32,
    /// Whether there was entropy.
    pub has_entropy: bool,
    /// When the call came, by the monotonic clock.
    pub began: Duration,
    /// Until when it may take, by the same.
    pub ends: Duration,
    /// To where the generation has changed.
    pub reached: Option<Point>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where the machine is.
    pub phase: Phase,
    /// What `prepare` answered, while it is not over.
    pub token: Option<Token>,
    /// The last moment before the snapshot that is known.
    pub before: Point,
    /// What stands still, or may.
    pub frozen: Vec<Frozen>,
    /// What `resumed` is to do.
    pub resume: Option<Resume>,
    /// What it has done.
    pub steps: Vec<Step>,
    /// What it is doing.
    pub doing: Option<Name>,
    /// What came of it the last time.
    pub last: Option<Report>,
    /// Of what all is over, the newest last.
    pub spent: Vec<Token>,
}

impl State {
    /// What keeps others from quiescing the machine, or from thawing it, if anything does.
    pub fn holds(&self) -> Option<&'static str> {
        (self.phase != Phase::Idle).then(|| self.phase.words())
    }

    /// What was for the token is over.
    pub fn spend(&mut self) {
        self.phase = Phase::Idle;
        self.spent.extend(self.token.take());
        let old = self.spent.len().saturating_sub(SPENT);
        self.spent.drain(..old);
        self.frozen.clear();
        self.resume = None;
        self.steps.clear();
        self.doing = None;
    }
}

/// Where it is.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// In this directory, which is made.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)
            .map_err(Failure::io(format!("make {}", directory.display())))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// In this directory, which need not be there: for who only looks.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// What was written last.
    pub fn load(&self) -> Result<State, Failure> {
        let path = self.path();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            read => read.map_err(Failure::io(format!("read {}", path.display())))?,
        };
        serde_json::from_slice(&text).map_err(|error| {
            Failure::Refused(format!(
                "{} is not understood ({error}): if nothing is quiesced, remove it",
                path.display()
            ))
        })
    }

    /// Writes it, so that whoever reads it, at any moment, finds the old one or the new one.
    pub fn save(&self, state: &State) -> io::Result<()> {
        replace::put(&self.path(), &serde_json::to_vec(state)?, 0o600)
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("there is room");
        let store = Store::new(&directory.path().join("serve")).expect("there is room");
        (directory, store)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_directory, store) = store();
        assert_eq!(store.load().expect("there is none"), State::default());
        let mut state = State {
            phase: Phase::Prepared,
            token: Some(Token::numbered(Point::default(), 1)),
            ..State::default()
        };
        store.save(&state).expect("there is room");
        assert_eq!(store.load().expect("it is there"), state);
        assert_eq!(state.holds(), Some("has quiesced this machine"));
        state.spend();
        assert_eq!(state.holds(), None);
        store.save(&state).expect("there is room");
        assert_eq!(store.load().expect("it is there"), state);
        let files = fs::read_dir(&store.directory).expect("it is there");
        assert_eq!(files.count(), 1, "something is left behind");
    }

    #[test]
    fn what_is_not_understood_is_not_forgotten() {
        let (_directory, store) = store();
        for text in ["", "{", r#"{"phase": "later"}"#] {
            fs::write(store.path(), text).expect("there is room");
            let failure = store.load().expect_err("it is no state").to_string();
            assert!(failure.contains("is not understood"), "{failure}");
        }
    }

    #[test]
    fn old_tokens_are_forgotten_first() {
        let mut state = State::default();
        for number in 0..100 {
            state.token = Some(Token::numbered(Point::default(), number));
            state.spend();
        }
        assert_eq!(state.spent.len(), SPENT);
        assert_eq!(state.spent[0], Token::numbered(Point::default(), 36));
    }
}
