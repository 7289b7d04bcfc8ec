// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the service does to the machine, each by itself. The order is the engine's.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::refusal::Refusal;
use super::request::Expect;
use super::state::Frozen;
use super::state::State;
use super::token::Point;
use crate::table::Watchers;

/// Which hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Those in pre.d.
    Pre,
    /// Those in thaw.d.
    Thaw,
    /// Those in post.d.
    Post,
}

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Where that process is, if it is one of this machine's.
    pub cgroup: Option<PathBuf>,
}

/// What there is to see of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which moment it is.
    pub point: Point,
    /// Whether a change is due. `None` where the driver cannot see the ID.
    pub pending: Option<bool>,
    /// How many tracked watchers are outdated.
    pub outdated: u64,
}

/// What came of something that takes long: more of it, and whether it was late or has failed.
#[derive(Debug)]
pub struct Attempt {
    /// What there is to tell of it.
    pub detail: Value,
    /// Why it was not done.
    pub failed: Option<Refusal>,
}

impl Attempt {
    /// It was done.
    pub fn done(detail: Value) -> Self {
        Self {
            detail,
            failed: None,
        }
    }
}

/// The machine. The unit tests have one that is killed at each of these.
pub trait World: Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Duration;

    /// Notes where the service is, for the one that is started when this one was killed.
    fn save(&self, state: &State) -> Result<(), Refusal>;

    /// Looks at the device.
    fn look(&self) -> Result<Seen, Refusal>;

    /// Refuses what would keep a hook from being run, and whoever else has quiesced the machine.
    fn check(&self) -> Result<(), Refusal>;

    /// Finds what is to stand still, and refuses what must not.
    fn find(&self, names: &[String], caller: &Caller) -> Result<Vec<Frozen>, Refusal>;

    /// Runs the hooks of a stage, for this phase, with these generations.
    fn hooks(
        &self,
        stage: Stage,
        phase: &str,
        now: Point,
        before: Point,
        limit: Duration,
    ) -> Attempt;

    /// Makes a control group stand still.
    fn freeze(&self, cgroup: &Path, limit: Duration) -> Result<(), Refusal>;

    /// Lets it go on.
    fn thaw(&self, cgroup: &Path) -> Result<(), Refusal>;

    /// Mixes that into the kernel's random number generator, and has it reseed.
    fn mix(&self, entropy: &[u8]) -> Result<(), Refusal>;

    /// Sets the clock to that long after 1970.
    fn set_clock(&self, time: Duration) -> Result<(), Refusal>;

    /// Has the change made that is due or, where none has come since then, one of ours.
    fn change(
        &self,
        before: Point,
        least: u32,
        expect: Expect,
        limit: Duration,
    ) -> Result<(), Refusal>;

    /// Waits for the units that follow a change.
    fn identity(&self, limit: Duration) -> Attempt;

    /// Waits for the tracked watchers in a control group or, without one, for those in none of these.
    fn watchers(&self, inside: Option<&Path>, outside: &[Frozen], limit: Duration) -> Attempt;

    /// Whether the machine is thawed though not all have acknowledged in time.
    fn thaws_late(&self) -> bool;

    /// As `sysgenctl status`.
    fn status(&self) -> Result<Value, Refusal>;

    /// The watchers that can be seen.
    fn survey(&self) -> Result<Watchers, Refusal>;

    /// How many changes have come since the service was started, by their source.
    fn changes(&self) -> BTreeMap<String, u64>;

    /// Tells whoever listens.
    fn tell(&self, event: Value);
}
