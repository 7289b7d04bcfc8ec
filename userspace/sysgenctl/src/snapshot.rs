// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl snapshot-hooks`
//!
//! First what has to be done is done, and then it is told: between the first hook and the last one,
//! nothing is written to standard output, which may be full, closed, or a file in a file system that a
//! hook has frozen.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde::Serialize;
use sysgenid::Error;
use sysgenid::Generation;
use sysgenid::Overseer;
use sysgenid::Watcher;

use crate::cli::Cli;
use crate::cli::HOOKS_DIR;
use crate::cli::OnTimeout;
use crate::cli::Phase;
use crate::cli::SERVE_DIR;
use crate::cli::SnapshotArguments;
use crate::deadline::Deadline;
use crate::exit::Failure;
use crate::followers::Unit;
use crate::hooks;
use crate::hooks::Hook;
use crate::hooks::Hooks;
use crate::hooks::OnFailure;
use crate::hooks::Outcome;
use crate::hooks::environment;
use crate::lock::Lock;
use crate::output::Output;
use crate::output::count;
use crate::serve::Store;
use crate::supervised::Limits;
use crate::supervised::Signals;
use crate::supervised::Supervisor;
use crate::wait::AllWaited;
use crate::wait::Ends;
use crate::wait::Limit;
use crate::wait::SLICE;
use crate::wait::Waited;
use crate::wait::Whom;

/// How long `post` waits where nobody says it.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What `pre` did.
#[derive(Debug, Serialize)]
#[serde(tag = "phase", rename = "pre")]
struct Quiesced {
    generation: u32,
    hooks: Vec<Outcome>,
    /// What was run to thaw the system again because something failed.
    undone: Vec<Outcome>,
}

/// What `post` did.
#[derive(Debug, Serialize)]
#[serde(tag = "phase", rename = "post")]
struct Thawed {
    /// `None` where there is no device.
    generation: Option<u32>,
    /// The generation that `pre` noted.
    generation_before: Option<u32>,
    /// What was run before the watchers were waited for.
    early: Vec<Outcome>,
    /// What came of waiting for the watchers, if that was possible.
    waited: Option<Waited>,
    /// What came of waiting for the units that follow a change, if that was possible and there are any.
    units: Option<Vec<Unit>>,
    hooks: Vec<Outcome>,
}

/// Runs what belongs to the phase.
pub fn run(arguments: &SnapshotArguments, output: Output) -> Result<(), Failure> {
    let of_post = [
        ("--timeout", arguments.timeout.is_some()),
        ("--on-timeout", arguments.on_timeout.is_some()),
        ("--privileged-only", arguments.privileged_only),
        ("--no-units", arguments.no_units),
    ];
    if arguments.phase == Phase::Pre {
        if let Some((option, _)) = of_post.iter().find(|(_, is_given)| *is_given) {
            let text = format!("{option} is for post: pre waits for nothing but its hooks");
            Cli::command()
                .error(ErrorKind::ArgumentConflict, text)
                .exit()
        }
    }
    let directory = &arguments.hooks.hooks_dir;
    if directory != Path::new(HOOKS_DIR) && !directory.is_dir() {
        return Err(Failure::Refused(format!(
            "there is no directory {}: no hook was run",
            directory.display()
        )));
    }
    let signals = Signals::take().map_err(Failure::io("take signals"))?;
    match arguments.phase {
        Phase::Pre => quiesce(arguments, &signals, output),
        Phase::Post => thaw(arguments, &signals, output),
    }
}

fn quiesce(
    arguments: &SnapshotArguments,
    signals: &Signals,
    output: Output,
) -> Result<(), Failure> {
    let watcher = Watcher::open()?;
    let _lock = Lock::take(&arguments.state)?;
    let state = arguments.state.display();
    // Who has quiesced it counts on that.
    if fs::symlink_metadata(&arguments.state).is_ok() {
        return Err(Failure::Refused(format!(
            "the system is quiesced already, as {state} notes: sysgenctl snapshot-hooks post thaws it, and \
             removes that"
        )));
    }
    let served = Store::at(Path::new(SERVE_DIR));
    not_served(&served)?;
    // All that can be wrong is found before anything is quiesced.
    let hooks = Hooks::list(&arguments.hooks.hooks_dir)?;
    hooks.check()?;
    let generation = watcher.status()?.generation();
    note(&arguments.state, generation)?;
    // The service may have begun meanwhile. It looks for our note when it has made its own.
    if let Err(failure) = not_served(&served) {
        forget(&arguments.state)?;
        return Err(failure);
    }

    let limits = Limits {
        each: arguments.hooks.hook_timeout,
        all: arguments.hooks.hooks_timeout,
        least: Duration::ZERO,
    };
    let ran = hooks::run(
        &hooks.pre,
        &environment("pre", Some(generation), None),
        OnFailure::Stop,
        &Supervisor::new(limits, Some(signals)),
    );
    let note_again = || -> Result<Generation, Failure> {
        // The newest before the snapshot: an overseer may have changed it meanwhile.
        let generation = watcher.status()?.generation();
        note(&arguments.state, generation)?;
        Ok(generation)
    };
    let no_signal = || match signals.came() {
        Some(signal) => Err(Failure::Interrupted(format!(
            "take no snapshot: signal {signal} has come"
        ))),
        None => Ok(()),
    };
    let failed = hooks::failed(&ran).join(", ");
    let quiesced = no_signal().and_then(|()| {
        if failed.is_empty() {
            return note_again();
        }
        Err(Failure::Command(format!(
            "take no snapshot: the hook {failed} failed"
        )))
    });
    let mut lines = vec![format!("quiescing, generation {generation}")];
    lines.extend(hooks::lines(&ran));
    let mut report = Quiesced {
        generation: generation.get(),
        hooks: ran,
        undone: Vec::new(),
    };
    let quiesced = quiesced.and_then(|generation| {
        let ran = report.hooks.iter().filter(|outcome| outcome.was_run());
        let by = count(ran.count(), "hook", "hooks");
        report.generation = generation.get();
        let said = [&*lines, &[format!("quiesced by {by}")]].concat();
        output.deliver(&said, &report);
        // Whoever has sent one meanwhile thinks that this was ended.
        no_signal()
    });
    let Err(failure) = quiesced else {
        return Ok(());
    };
    report.undone = undo(arguments, &hooks, generation);
    let forgotten = forget(&arguments.state);
    lines.push("thawing again".into());
    lines.extend(hooks::lines(&report.undone));
    output.deliver(&lines, &report);
    forgotten?;
    Err(failure.and(&undone(&report)))
}

/// Refuses while `sysgenctl serve` does something with the machine.
fn not_served(served: &Store) -> Result<(), Failure> {
    match served.load()?.holds() {
        None => Ok(()),
        Some(words) => Err(Failure::Refused(format!(
            "take no snapshot: {}",
            held(served, words)
        ))),
    }
}

/// The same for who would thaw what that one has quiesced. A file that cannot be read keeps nobody from
/// thawing.
fn not_thawed_for(served: &Store, lines: &mut Vec<String>) -> Result<(), Failure> {
    match served.load().map(|state| state.holds()) {
        Ok(None) => Ok(()),
        Ok(Some(words)) => Err(Failure::Refused(format!(
            "no hook was run: {}",
            held(served, words)
        ))),
        Err(failure) => {
            lines.push(format!(
                "what sysgenctl serve notes is not heeded: {failure}"
            ));
            Ok(())
        }
    }
}

fn held(served: &Store, words: &str) -> String {
    format!(
        "sysgenctl serve {words}, as {} notes: who called it brings it back, by /v1/resumed or /v1/cancel",
        served.path().display()
    )
}

/// What there is to say of having thawed again.
fn undone(report: &Quiesced) -> String {
    let not_undone = hooks::failed(&report.undone).join(", ");
    let mut said = if not_undone.is_empty() {
        "; the system was thawed again".to_owned()
    } else {
        format!("; thawing again, so did: {not_undone}")
    };
    for outcome in report.hooks.iter().filter(|outcome| outcome.lives_on()) {
        // It may quiesce something after all.
        said.push_str("; but something of the hook ");
        said.push_str(&outcome.name);
        said.push_str(" goes on: when that has ended, run sysgenctl snapshot-hooks post");
    }
    said
}

/// Runs all hooks of a directory that thaws, whichever fails.
fn run_all(
    arguments: &SnapshotArguments,
    hooks: &[Hook],
    environment: &[(&str, String)],
) -> Vec<Outcome> {
    let supervisor = Supervisor::new(hooks::limits_of_post(&arguments.hooks), None);
    hooks::run(hooks, environment, OnFailure::GoOn, &supervisor)
}

/// Runs all that thaws, whatever comes.
fn undo(arguments: &SnapshotArguments, hooks: &Hooks, generation: Generation) -> Vec<Outcome> {
    let environment = environment("undo", Some(generation), None);
    let run = |hooks: &Vec<Hook>| run_all(arguments, hooks, &environment);
    [&hooks.thaw, &hooks.post]
        .into_iter()
        .flat_map(run)
        .collect()
}

fn thaw(arguments: &SnapshotArguments, signals: &Signals, output: Output) -> Result<(), Failure> {
    let timeout = arguments.timeout.or(Some(TIMEOUT));
    let opened = Overseer::open();
    let _lock = Lock::take(&arguments.state)?;
    let mut lines = Vec::new();
    let before = noted(&arguments.state, &mut lines);
    if before.is_none() {
        not_thawed_for(&Store::at(Path::new(SERVE_DIR)), &mut lines)?;
    }
    let hooks = Hooks::of_post(&arguments.hooks.hooks_dir);
    let mut waiting = Waiting {
        arguments,
        signals,
        limit: Limit {
            timeout,
            deadline: Deadline::after(timeout),
        },
        lines,
    };

    // Without the device, nobody knows whether a change is due.
    let (overseer, settled) = match opened {
        Ok(overseer) => {
            let settled = waiting.settle(&overseer);
            waiting.say_generation(&overseer, before);
            (Some(overseer), settled)
        }
        Err(error) => (None, Err(error.into())),
    };
    let generation = overseer.as_ref().map(Overseer::generation);
    // Where the change has not come, nothing may go on, but on the administrator's word.
    let goes_on = arguments.on_timeout == Some(OnTimeout::Thaw);
    let run = |hooks, phase| run_all(arguments, hooks, &environment(phase, generation, before));
    let start = Instant::now();
    let early = run(&hooks.thaw, "thaw");
    // It has limits of its own.
    waiting.limit.deadline = waiting.limit.deadline.later(start.elapsed());
    waiting.lines.extend(hooks::lines(&early));
    let waited = settled.and_then(|()| {
        overseer
            .as_ref()
            .map(|overseer| waiting.for_all(overseer))
            .transpose()
    });
    // A unit that has failed keeps nobody from thawing, since it may never succeed.
    let (waited, units, in_time, succeeded) = match waited {
        Ok(Some((
            AllWaited {
                watchers, units, ..
            },
            ends,
        ))) => (Some(watchers), units, ends.in_time, ends.succeeded),
        Ok(None) => (None, None, Ok(()), Ok(())),
        Err(failure) => (None, None, Err(failure), Ok(())),
    };
    let mut late = Vec::new();
    if in_time.is_ok() || goes_on {
        late = run(&hooks.post, "post");
        waiting.lines.extend(hooks::lines(&late));
    }
    let is_thawed = in_time.is_ok() || goes_on;
    let mut result = match in_time {
        Err(failure) if goes_on => {
            Err(failure.and("; the system was thawed all the same, as --on-timeout says"))
        }
        Err(failure) => {
            Err(failure.and("; no hook of post.d was run, and the system stays quiesced"))
        }
        Ok(()) => succeeded,
    };
    let failed = [hooks::failed(&early), hooks::failed(&late)].concat();
    if !failed.is_empty() {
        let text = format!("the hook {} failed", failed.join(", "));
        result = match result {
            Ok(()) => Err(Failure::Command(text + ": all others were run")),
            Err(failure) => Err(failure.and(&format!("; {text}"))),
        };
    }
    if is_thawed {
        result = result.and(forget(&arguments.state));
    }
    if result.is_ok() {
        let all = early.iter().chain(&late);
        let number = all.filter(|outcome| outcome.was_run()).count();
        let by = count(number, "hook", "hooks");
        waiting.lines.push(format!("thawed by {by}"));
    }
    let report = Thawed {
        generation: generation.map(Generation::get),
        generation_before: before.map(Generation::get),
        early,
        waited,
        units,
        hooks: late,
    };
    output.deliver(&waiting.lines, &report);
    result
}

/// What `post` waits for, until its time is over or a signal comes.
struct Waiting<'a> {
    arguments: &'a SnapshotArguments,
    signals: &'a Signals,
    limit: Limit,
    /// What there is to say of it.
    lines: Vec<String>,
}

impl Waiting<'_> {
    /// Has the driver make the change that is due. Where the machine was not cloned, none is.
    fn settle(&mut self, overseer: &Overseer) -> Result<(), Failure> {
        if overseer.status()?.pending().is_none() {
            let text =
                "the driver cannot see an ID of the hypervisor's: only the generation is looked at";
            self.lines.push(text.into());
        }
        loop {
            match overseer.settle(Some(self.limit.deadline.slice(SLICE))) {
                Ok(()) => return Ok(()),
                Err(Error::NotSettled { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if self.limit.deadline.is_over() || self.signals.came().is_some() {
                let text = "a change of the generation is due, and has not come in time";
                let late = Err(Failure::TimedOut(text.into()));
                return self.or_signal(late, "a change of the generation was due");
            }
        }
    }

    fn say_generation(&mut self, overseer: &Overseer, before: Option<Generation>) {
        let generation = overseer.generation();
        self.lines.push(match before {
            Some(before) if before == generation => {
                format!("generation {generation}, as before the snapshot: this is no clone")
            }
            Some(before) => match overseer.status() {
                Ok(status) => {
                    format!(
                        "generation {before} -> {generation}, source {}",
                        status.source()
                    )
                }
                Err(_) => format!("generation {before} -> {generation}"),
            },
            None => format!("generation {generation}, with no note of the one before the snapshot"),
        });
    }

    /// Waits for the watchers and the units.
    fn for_all(&mut self, overseer: &Overseer) -> Result<(AllWaited, Ends), Failure> {
        let Self {
            arguments, signals, ..
        } = *self;
        let whom = Whom::of(arguments.privileged_only, &arguments.user)?;
        let has_come = || signals.came().is_some();
        let with_units = !arguments.no_units;
        let (waited, mut ends) =
            AllWaited::wait(overseer, &whom, &self.limit, with_units, has_come)?;
        self.lines
            .extend(waited.to_string().lines().map(str::to_owned));
        ends.in_time = self.or_signal(
            ends.in_time,
            if waited.watchers.all_acked {
                "what follows the change had not ended"
            } else {
                "not all tracked watchers had acknowledged"
            },
        );
        Ok((waited, ends))
    }

    /// Where a signal came, it is the reason for what did not come in time.
    fn or_signal(&self, in_time: Result<(), Failure>, what: &str) -> Result<(), Failure> {
        match self.signals.came() {
            Some(signal) if in_time.is_err() => Err(Failure::Interrupted(format!(
                "signal {signal} has come while {what}"
            ))),
            _ => in_time,
        }
    }
}

/// Notes the generation for `post`.
fn note(state: &Path, generation: Generation) -> Result<(), Failure> {
    fs::write(state, format!("{generation}\n"))
        .map_err(Failure::io(format!("write {}", state.display())))
}

/// What was noted. Whatever else stands there keeps nobody from thawing.
fn noted(state: &Path, lines: &mut Vec<String>) -> Option<Generation> {
    let why = match fs::read_to_string(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
        Ok(text) => match text.trim_end().parse() {
            Ok(number) => return Some(Generation::new(number)),
            Err(_) => "it is no generation".into(),
        },
    };
    lines.push(format!(
        "what {} notes is not heeded: {why}",
        state.display()
    ));
    None
}

fn forget(state: &Path) -> Result<(), Failure> {
    match fs::remove_file(state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("remove {}", state.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followers::Result::Done;
    use crate::followers::tests::unit;
    use crate::hooks::Order;
    use crate::wait::tests::waited;

    #[test]
    fn what_is_noted_can_be_read() {
        let directory = tempfile::tempdir().expect("there is room");
        let state = directory.path().join("snapshot");
        let mut lines = Vec::new();
        assert_eq!(noted(&state, &mut lines), None);
        note(&state, Generation::new(7)).expect("there is room");
        assert_eq!(noted(&state, &mut lines), Some(Generation::new(7)));
        forget(&state).expect("it is there");
        forget(&state).expect("it need not be there");
        assert_eq!(noted(&state, &mut lines), None);
        assert_eq!(lines, [""; 0]);
        // Neither of these keeps anybody from thawing.
        fs::write(&state, "seven").expect("there is room");
        assert_eq!(noted(&state, &mut lines), None);
        assert!(lines[0].ends_with("it is no generation"), "{lines:?}");
        assert_eq!(noted(directory.path(), &mut lines), None);
        assert!(lines[1].contains("is not heeded"), "{lines:?}");
    }

    #[test]
    fn what_is_served_is_left_alone() {
        let directory = tempfile::tempdir().expect("there is room");
        let served = Store::at(directory.path());
        let mut lines = Vec::new();
        not_served(&served).expect("nobody serves");
        not_thawed_for(&served, &mut lines).expect("nobody serves");
        let path = directory.path().join("state");
        let write = |text: &str| fs::write(&path, text).expect("there is room");
        let state = |phase: &str| {
            let before = r#"{"instance": 1, "epoch": 2, "generation": 3}"#;
            format!(
                r#"{{"phase": "{phase}", "token": null, "before": {before}, "frozen": [], "resume": null,
                "steps": [], "doing": null, "last": null, "spent": []}}"#
            )
        };
        write(&state("idle"));
        not_served(&served).expect("it is idle");
        not_thawed_for(&served, &mut lines).expect("it is idle");
        for phase in ["preparing", "prepared", "resuming", "held", "undoing"] {
            write(&state(phase));
            let refused = not_served(&served).expect_err("it is not idle").to_string();
            assert!(
                refused.starts_with("take no snapshot: sysgenctl serve "),
                "{refused}"
            );
            let refused = not_thawed_for(&served, &mut lines).expect_err("it is not idle");
            assert!(refused.to_string().contains("/v1/cancel"), "{refused}");
        }
        assert_eq!(lines, [""; 0]);
        write("idle");
        not_served(&served).expect_err("nobody knows");
        not_thawed_for(&served, &mut lines).expect("somebody has to thaw");
        assert!(lines[0].contains("is not heeded"), "{lines:?}");
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let limits = Limits::each(TIMEOUT);
        let outcomes = |directory: &Path| {
            let hooks = hooks::list(directory, Order::ByName).expect("it is there");
            hooks::run(&hooks, &[], OnFailure::GoOn, &Supervisor::new(limits, None))
        };
        let (failing, skipping) = (tempfile::tempdir(), tempfile::tempdir());
        let (failing, skipping) = (failing.expect("room"), skipping.expect("room"));
        std::os::unix::fs::symlink("/bin/false", failing.path().join("10-one")).expect("room");
        fs::write(skipping.path().join("10-one"), "").expect("room");
        let quiesced = Quiesced {
            generation: 7,
            hooks: outcomes(failing.path()),
            undone: outcomes(skipping.path()),
        };
        let seconds = quiesced.hooks[0]
            .ran
            .as_ref()
            .map(|done| done.ended.seconds);
        let ran = serde_json::json!({
            "name": "10-one",
            "skipped": null,
            "succeeded": false,
            "status": 1,
            "signal": null,
            "error": null,
            "seconds": seconds,
            "output": "",
        });
        let not_run = serde_json::json!({ "name": "10-one", "skipped": "it is not executable" });
        let expected = serde_json::json!({
            "phase": "pre",
            "generation": 7,
            "hooks": [ran],
            "undone": [not_run],
        });
        let json = serde_json::to_value(quiesced).expect("it is plain data");
        assert_eq!(json, expected);
        let thawed = Thawed {
            generation: Some(8),
            generation_before: Some(7),
            early: Vec::new(),
            waited: Some(waited(true)),
            units: Some(vec![unit("a.service", Done, None)]),
            hooks: Vec::new(),
        };
        let expected = serde_json::json!({
            "phase": "post",
            "generation": 8,
            "generation_before": 7,
            "early": [],
            "waited": waited(true),
            "units": [{ "name": "a.service", "result": "done", "reason": null }],
            "hooks": [],
        });
        let json = serde_json::to_value(thawed).expect("it is plain data");
        assert_eq!(json, expected);
    }
}
