// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine that this runs on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use rustix::time::ClockId;
use rustix::time::Timespec;
use rustix::time::clock_gettime;
use rustix::time::clock_settime;
use serde_json::Value;
use serde_json::json;
use sysgenid::Error;
use sysgenid::Generation;
use sysgenid::Overseer;
use sysgenid::Watcher;
use tokio::sync::broadcast;

use super::refusal::Code;
use super::refusal::Refusal;
use super::request::Expect;
use super::state::Frozen;
use super::state::State;
use super::state::Store;
use super::token::Point;
use super::world::Attempt;
use super::world::Caller;
use super::world::Seen;
use super::world::Stage;
use super::world::World;
use crate::cgroup;
use crate::cli::HookArguments;
use crate::cli::OnTimeout;
use crate::cli::ServeArguments;
use crate::deadline::Deadline;
use crate::exit::Failure;
use crate::followers::Followers;
use crate::hooks;
use crate::hooks::Hooks;
use crate::hooks::OnFailure;
use crate::status;
use crate::supervised::Limits;
use crate::supervised::Supervisor;
use crate::table::Watchers;
use crate::unit;
use crate::wait::Place;
use crate::wait::Waited;
use crate::wait::Whom;
use crate::watch::Changes;

/// Another file for each instance of the driver.
const INSTANCE: &str = "/sys/class/misc/sysgenid";
/// There while `sysgenctl snapshot-hooks` has quiesced the machine.
const NOTE: &str = "/run/sysgenid/snapshot";
/// How many events are kept for who listens slowly.
const EVENTS: usize = 256;

/// The machine.
pub struct Machine {
    overseer: Overseer,
    store: Store,
    hooks: HookArguments,
    whom: Whom,
    with_units: bool,
    thaws_late: bool,
    events: broadcast::Sender<String>,
    changes: Mutex<BTreeMap<String, u64>>,
}

impl Machine {
    /// As the command line says.
    pub fn new(arguments: &ServeArguments, store: Store) -> Result<Self, Failure> {
        Ok(Self {
            overseer: Overseer::open()?,
            store,
            hooks: arguments.hooks.clone(),
            whom: Whom::of(arguments.privileged_only, &arguments.user)?,
            with_units: !arguments.no_units,
            thaws_late: arguments.on_timeout == OnTimeout::Thaw,
            events: broadcast::Sender::new(EVENTS),
            changes: Mutex::default(),
        })
    }

    /// What is told from now on.
    pub fn events(&self) -> broadcast::Sender<String> {
        self.events.clone()
    }

    /// Tells of each change, until the device fails.
    pub fn watch(&self) -> Result<(), Failure> {
        let mut changes = Changes::new(Watcher::open()?)?;
        loop {
            let (change, generation) = changes.next()?;
            let mut counted = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            *counted.entry(change.source.clone()).or_default() += 1;
            drop(counted);
            self.tell(serde_json::to_value(&change).unwrap_or_default());
            changes.ack(generation)?;
        }
    }

    /// What must not stand still, but for who calls.
    fn protected() -> Result<[PathBuf; 2], Refusal> {
        let of = |pid| {
            cgroup::of(pid).ok_or_else(|| {
                let message = "there are no control groups of version 2: nothing can be frozen";
                Refusal::new(Code::NoSuchCgroup, message)
            })
        };
        Ok([of(std::process::id())?, of(1)?])
    }

    fn place_of(name: &str) -> Result<PathBuf, Refusal> {
        let no_such = |why: &str| {
            let message = format!("{name} cannot be frozen: {why}");
            Refusal::new(Code::NoSuchCgroup, message)
        };
        let path = if name.starts_with('/') {
            PathBuf::from(name)
        } else {
            cgroup::of_unit(name)
                .ok_or_else(|| no_such("there is no such unit, or nothing of it runs"))?
        };
        if !cgroup::is_well_formed(&path) {
            return Err(no_such("this is no path of a control group below the root"));
        }
        if !cgroup::can_freeze(&path) {
            return Err(no_such("there is no such control group"));
        }
        Ok(path)
    }
}

/// Refuses a control group that must not stand still.
fn check_place(place: &Path, name: &str, protected: &[PathBuf]) -> Result<(), Refusal> {
    match protected.iter().find(|inner| inner.starts_with(place)) {
        None => Ok(()),
        Some(inner) => Err(Refusal::new(
            Code::ProtectedCgroup,
            format!(
                "{name} is not frozen: this service, the system's first process, or who calls is in {}",
                inner.display()
            ),
        )),
    }
}

/// Refuses a control group that stands still: whoever has seen to that does not expect it to go on, and
/// who is in it cannot acknowledge until it does.
fn check_running(group: &Frozen) -> Result<(), Refusal> {
    let failed = |error| {
        let message = format!(
            "whether {} stands still cannot be read: {error}",
            group.name
        );
        Refusal::new(Code::FreezeFailed, message)
    };
    if cgroup::stands_still(&group.cgroup).map_err(failed)? {
        let message = format!(
            "{} stands still already: whoever has frozen it has to thaw it first",
            group.name
        );
        return Err(Refusal::new(Code::AlreadyFrozen, message));
    }
    Ok(())
}

/// Refuses two of which one is in the other: neither could go on by itself.
fn check_nesting(frozen: &[Frozen]) -> Result<(), Refusal> {
    for (index, outer) in frozen.iter().enumerate() {
        let others = frozen.iter().enumerate();
        let inner = others
            .filter(|(other, _)| *other != index)
            .find(|(_, inner)| inner.cgroup.starts_with(&outer.cgroup));
        if let Some((_, inner)) = inner {
            let message = format!("{} is in {}: name one of them", inner.name, outer.name);
            return Err(Refusal::new(Code::InvalidField, message));
        }
    }
    Ok(())
}

/// By name, who holds it up.
fn names(watchers: &Watchers) -> String {
    let seen = watchers
        .watchers
        .iter()
        .map(|watcher| format!("process {} ({})", watcher.pid, watcher.command));
    let unseen = (watchers.unseen_watchers > 0)
        .then(|| format!("{} that cannot be seen", watchers.unseen_watchers));
    seen.chain(unseen).collect::<Vec<_>>().join(", ")
}

impl World for Machine {
    fn now(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }

    fn save(&self, state: &State) -> Result<(), Refusal> {
        self.store.save(state).map_err(|error| {
            let message = format!("what is done cannot be noted: {error}");
            Refusal::new(Code::StateFailed, message)
        })
    }

    fn look(&self) -> Result<Seen, Refusal> {
        let failed = Refusal::of(Code::DeviceFailed);
        let status = self.overseer.status().map_err(failed)?;
        let failed = Refusal::of::<io::Error>(Code::DeviceFailed);
        Ok(Seen {
            point: Point {
                instance: fs::metadata(INSTANCE).map_err(failed)?.ino(),
                epoch: status.epoch(),
                generation: status.generation().get(),
            },
            pending: status.pending(),
            outdated: status.outdated_watchers(),
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        if fs::symlink_metadata(NOTE).is_ok() {
            let message = "sysgenctl snapshot-hooks pre has quiesced the machine: sysgenctl \
                           snapshot-hooks post thaws it";
            return Err(Refusal::new(Code::QuiescedElsewhere, message));
        }
        let hooks = Hooks::list(&self.hooks.hooks_dir).and_then(|hooks| hooks.check());
        hooks.map_err(Refusal::of(Code::HookRefused))
    }

    fn find(&self, names: &[String], caller: &Caller) -> Result<Vec<Frozen>, Refusal> {
        let directory = self.hooks.hooks_dir.join(unit::FREEZE);
        let configured = unit::to_freeze(&directory).map_err(|error| {
            let message = format!("{} cannot be read: {error}", directory.display());
            Refusal::new(Code::FreezeFailed, message)
        })?;
        if names.is_empty() && configured.is_empty() {
            return Ok(Vec::new());
        }
        let mut protected = Self::protected()?.to_vec();
        protected.extend(caller.cgroup.clone());
        let mut frozen = Vec::new();
        for name in names {
            let cgroup = Self::place_of(name)?;
            check_place(&cgroup, name, &protected)?;
            frozen.push(Frozen {
                name: name.clone(),
                cgroup,
            });
        }
        for name in configured {
            // It need not run, or the caller has named it, or what it is in.
            let Ok(cgroup) = Self::place_of(&name) else {
                continue;
            };
            if frozen.iter().any(|group| cgroup.starts_with(&group.cgroup)) {
                continue;
            }
            check_place(&cgroup, &name, &protected)?;
            frozen.push(Frozen { name, cgroup });
        }
        check_nesting(&frozen)?;
        frozen.iter().try_for_each(check_running)?;
        Ok(frozen)
    }

    fn hooks(
        &self,
        stage: Stage,
        phase: &str,
        now: Point,
        before: Point,
        limit: Duration,
    ) -> Attempt {
        let directory = &self.hooks.hooks_dir;
        let (all, limits, on_failure) = match stage {
            Stage::Pre => {
                let all = Hooks::list(directory).map(|hooks| hooks.pre);
                let each = self.hooks.hook_timeout.min(limit);
                let all_of_them = self.hooks.hooks_timeout.min(limit);
                let limits = Limits {
                    each,
                    all: all_of_them,
                    least: Duration::ZERO,
                };
                (all, limits, OnFailure::Stop)
            }
            Stage::Thaw | Stage::Post => {
                let hooks = Hooks::of_post(directory);
                let all = if stage == Stage::Thaw {
                    hooks.thaw
                } else {
                    hooks.post
                };
                let limits = hooks::limits_of_post(&self.hooks);
                (Ok(all), limits, OnFailure::GoOn)
            }
        };
        let all = match all {
            Ok(all) => all,
            Err(failure) => {
                return Err(Refusal::new(Code::HookRefused, failure.to_string())).into();
            }
        };
        let before = (stage != Stage::Pre).then(|| Generation::new(before.generation));
        let environment = hooks::environment(phase, Some(Generation::new(now.generation)), before);
        let supervisor = Supervisor::new(limits, None);
        let outcomes = hooks::run(&all, &environment, on_failure, &supervisor);
        let failed = hooks::failed(&outcomes).join(", ");
        Attempt {
            detail: json!(outcomes),
            failed: (!failed.is_empty()).then(|| {
                let message = format!("the hook {failed} failed: the report has what it said");
                Refusal::new(Code::HookFailed, message)
            }),
        }
    }

    fn freeze(&self, place: &Path, limit: Duration) -> Result<(), Refusal> {
        cgroup::freeze(place, &Deadline::after(Some(limit))).map_err(|error| {
            let message = format!("{} is not frozen: {error}", place.display());
            Refusal::new(Code::FreezeFailed, message)
        })
    }

    fn thaw(&self, place: &Path) -> Result<(), Refusal> {
        cgroup::thaw(place).map_err(|error| {
            let message = format!("{} is not thawed: {error}", place.display());
            Refusal::new(Code::FreezeFailed, message)
        })
    }

    fn mix(&self, entropy: &[u8]) -> Result<(), Refusal> {
        let mixed = self.overseer.reseed(entropy);
        mixed.map_err(Refusal::of(Code::EntropyFailed))
    }

    fn set_clock(&self, time: Duration) -> Result<(), Refusal> {
        let time = Timespec::try_from(time).map_err(|_| {
            let message = "there is no such time";
            Refusal::new(Code::ClockFailed, message)
        })?;
        clock_settime(ClockId::Realtime, time).map_err(|errno| {
            let message = format!("the clock is not set: {errno}");
            Refusal::new(Code::ClockFailed, message)
        })
    }

    fn change(
        &self,
        before: Point,
        least: u32,
        expect: Expect,
        limit: Duration,
    ) -> Result<(), Refusal> {
        match self.overseer.settle(Some(limit)) {
            Ok(()) => {}
            Err(error @ Error::NotSettled { .. }) => {
                return Err(Refusal::new(Code::ChangeLate, error.to_string()));
            }
            Err(error) => return Err(Refusal::new(Code::DeviceFailed, error.to_string())),
        }
        let now = self.look()?.point;
        let is_enough = now.epoch != before.epoch && now.generation >= least;
        if expect == Expect::Same || is_enough {
            return Ok(());
        }
        let changed = self.overseer.trigger(least);
        changed.map(drop).map_err(Refusal::of(Code::ChangeFailed))
    }

    fn identity(&self, limit: Duration) -> Attempt {
        if !self.with_units {
            return Attempt::done(Value::Null);
        }
        let deadline = Deadline::after(Some(limit));
        let followers = match Followers::wait(&self.overseer, &deadline, || false) {
            Ok(followers) => followers,
            Err(failure) => {
                return Err(Refusal::new(Code::DeviceFailed, failure.to_string())).into();
            }
        };
        let late = followers.in_time(Some(limit)).err();
        let late = late.map(|failure| Refusal::new(Code::IdentityLate, failure.to_string()));
        let failed = followers.succeeded().err();
        let failed = failed.map(|failure| Refusal::new(Code::IdentityFailed, failure.to_string()));
        Attempt {
            detail: json!({ "units": followers.units }),
            failed: late.or(failed),
        }
    }

    fn watchers(&self, inside: Option<&Path>, outside: &[Frozen], limit: Duration) -> Attempt {
        let place = match inside {
            Some(place) => Some(Place::Inside(place.to_owned())),
            None if outside.is_empty() => None,
            None => Some(Place::Outside(
                outside.iter().map(|group| group.cgroup.clone()).collect(),
            )),
        };
        let whom = match place {
            Some(place) => Whom::In(Box::new(self.whom.clone()), place),
            None => self.whom.clone(),
        };
        let deadline = Deadline::after(Some(limit));
        match Waited::wait_for(&self.overseer, &whom, &deadline, || false) {
            Err(failure) => Err(Refusal::new(Code::DeviceFailed, failure.to_string())).into(),
            Ok(waited) => Attempt {
                detail: json!(waited),
                failed: waited.result(Some(limit)).err().map(|failure| {
                    let message = format!("{failure}: {}", names(&waited.watchers));
                    Refusal::new(Code::WatchersLate, message)
                }),
            },
        }
    }

    fn thaws_late(&self) -> bool {
        self.thaws_late
    }

    fn status(&self) -> Result<Value, Refusal> {
        let state = status::State::find(&self.overseer);
        state
            .map(|state| json!(state))
            .map_err(Refusal::of(Code::DeviceFailed))
    }

    fn survey(&self) -> Result<Watchers, Refusal> {
        let look = || Ok((self.overseer.status()?, self.overseer.survey()?));
        let (status, survey) = look().map_err(Refusal::of::<Error>(Code::DeviceFailed))?;
        Ok(Watchers::new(&status, &survey))
    }

    fn changes(&self) -> BTreeMap<String, u64> {
        let changes = self.changes.lock();
        changes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, event: Value) {
        // Nobody may listen.
        let _ = self.events.send(event.to_string());
    }
}

/// Has a thread of its own do it, for as long as the service runs.
pub fn spawn(what: impl FnOnce() + Send + 'static) {
    drop(thread::spawn(what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_go_on_is_not_frozen() {
        let protected = ["/system.slice/sysgenid-serve.service", "/init.scope"].map(PathBuf::from);
        let code = |place: &str| {
            let checked = check_place(Path::new(place), "x", &protected);
            checked.err().map(|refusal| refusal.code)
        };
        for place in [
            "/system.slice/sysgenid-serve.service",
            "/system.slice",
            "/init.scope",
        ] {
            assert_eq!(code(place), Some(Code::ProtectedCgroup), "{place}");
        }
        for place in ["/system.slice/nginx.service", "/system", "/user.slice"] {
            assert_eq!(code(place), None, "{place}");
        }
    }

    #[test]
    fn one_in_the_other_is_refused() {
        let frozen = |places: &[&str]| -> Vec<_> {
            let of = |place: &&str| Frozen {
                name: (*place).to_owned(),
                cgroup: place.into(),
            };
            places.iter().map(of).collect()
        };
        assert!(check_nesting(&frozen(&["/a", "/b", "/ab"])).is_ok());
        for places in [["/a", "/a/b"], ["/a/b", "/a"], ["/a", "/a"]] {
            assert!(check_nesting(&frozen(&places)).is_err(), "{places:?}");
        }
    }

    #[test]
    fn paths_and_units_that_are_none_are_refused() {
        for name in ["/", "/../..", "/no/such/group", "no-such-unit.service"] {
            let refusal = Machine::place_of(name).expect_err("there is none");
            assert_eq!(refusal.code, Code::NoSuchCgroup, "{name}");
        }
    }
}
