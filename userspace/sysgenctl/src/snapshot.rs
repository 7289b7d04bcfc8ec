// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl snapshot-hooks`

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
use crate::cli::Phase;
use crate::cli::SnapshotArguments;
use crate::exit::Failure;
use crate::hooks;
use crate::hooks::Hook;
use crate::hooks::OnFailure;
use crate::hooks::Outcome;
use crate::output::Output;
use crate::output::count;
use crate::wait::Waited;

/// How long `post` waits where nobody says it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What `pre` did.
#[derive(Debug, Serialize)]
#[serde(tag = "phase", rename = "pre")]
struct Quiesced {
    generation: u32,
    hooks: Vec<Outcome>,
    /// What was run to thaw the system again because a hook failed.
    undone: Vec<Outcome>,
}

/// What `post` did.
#[derive(Debug, Serialize)]
#[serde(tag = "phase", rename = "post")]
struct Thawed {
    generation: u32,
    /// The generation that `pre` noted.
    generation_before: Option<u32>,
    /// What came of waiting for the watchers.
    waited: Waited,
    hooks: Vec<Outcome>,
}

/// Runs what belongs to the phase.
pub fn run(arguments: &SnapshotArguments, output: Output) -> Result<(), Failure> {
    match (arguments.phase, arguments.timeout) {
        (Phase::Pre, Some(_)) => Cli::command()
            .error(
                ErrorKind::ArgumentConflict,
                "--timeout is for post: pre waits for nothing but its hooks",
            )
            .exit(),
        (Phase::Pre, None) => quiesce(arguments, output),
        (Phase::Post, timeout) => thaw(arguments, timeout.unwrap_or(TIMEOUT), output),
    }
}

fn pre_d(arguments: &SnapshotArguments) -> Result<Vec<Hook>, Failure> {
    hooks::list(&arguments.hooks_dir.join("pre.d"))
}

fn post_d(arguments: &SnapshotArguments) -> Result<Vec<Hook>, Failure> {
    hooks::list(&arguments.hooks_dir.join("post.d"))
}

fn quiesce(arguments: &SnapshotArguments, output: Output) -> Result<(), Failure> {
    let watcher = Watcher::open()?;
    // All that can be wrong is found before anything is quiesced.
    let (pre, post) = (pre_d(arguments)?, post_d(arguments)?);
    let generation = watcher.status()?.generation();
    note(&arguments.state, generation)?;
    output.text(format!("quiescing, generation {generation}"))?;
    let hooks = hooks::run(
        &pre,
        &environment("pre", generation, None),
        OnFailure::Stop,
        output,
    )?;
    let failed = hooks::failed(&hooks).join(", ");
    if failed.is_empty() {
        // The newest before the snapshot: an overseer may have changed it meanwhile.
        let generation = watcher.status()?.generation();
        note(&arguments.state, generation)?;
        let ran = hooks.iter().filter(|hook| hook.ended.is_some()).count();
        output.text(format!("quiesced by {}", count(ran, "hook", "hooks")))?;
        return output.json(&Quiesced {
            generation: generation.get(),
            hooks,
            undone: Vec::new(),
        });
    }
    output.text(format!("{failed} failed: thawing again"))?;
    let undone = hooks::run(
        &post,
        &environment("undo", generation, None),
        OnFailure::GoOn,
        output,
    )?;
    forget(&arguments.state)?;
    let not_undone = hooks::failed(&undone).join(", ");
    output.json(&Quiesced {
        generation: generation.get(),
        hooks,
        undone,
    })?;
    Err(Failure::Command(if not_undone.is_empty() {
        format!("take no snapshot: the hook {failed} failed; the system was thawed again")
    } else {
        format!("take no snapshot: the hook {failed} failed; thawing again, so did: {not_undone}")
    }))
}

fn thaw(arguments: &SnapshotArguments, timeout: Duration, output: Output) -> Result<(), Failure> {
    let start = Instant::now();
    let left = || timeout.saturating_sub(start.elapsed());
    let overseer = Overseer::open()?;
    let post = post_d(arguments)?;
    let before = noted(&arguments.state)?;
    if overseer.status()?.pending().is_none() {
        output.text(
            "the driver cannot see an ID of the hypervisor's: only the generation is looked at",
        )?;
    }
    settle(&overseer, timeout)?;
    let status = overseer.status()?;
    let generation = status.generation();
    output.text(match before {
        Some(before) if before == generation => {
            format!("generation {generation}, as before the snapshot: this is no clone")
        }
        Some(before) => format!(
            "generation {before} -> {generation}, source {}",
            status.source()
        ),
        None => format!("generation {generation}, with no note of the one before the snapshot"),
    })?;
    let waited = Waited::wait(&overseer, Some(left()))?;
    output.text(&waited)?;
    let in_time = waited.result(Some(timeout));
    let hooks = if in_time.is_ok() {
        hooks::run(
            &post,
            &environment("post", generation, before),
            OnFailure::Stop,
            output,
        )?
    } else {
        Vec::new()
    };
    let failed = hooks::failed(&hooks).join(", ");
    let ran = hooks.iter().filter(|hook| hook.ended.is_some()).count();
    output.json(&Thawed {
        generation: generation.get(),
        generation_before: before.map(Generation::get),
        waited,
        hooks,
    })?;
    if let Err(failure) = in_time {
        return Err(Failure::TimedOut(format!(
            "no hook was run, the system stays quiesced: {failure}"
        )));
    }
    if !failed.is_empty() {
        return Err(Failure::Command(format!(
            "the hook {failed} failed: those after it were not run, and the system is not thawed"
        )));
    }
    forget(&arguments.state)?;
    output.text(format!("thawed by {}", count(ran, "hook", "hooks")))
}

/// Has the driver make the change that is due. Where the machine was not cloned, none is.
fn settle(overseer: &Overseer, timeout: Duration) -> Result<(), Failure> {
    match overseer.settle(Some(timeout)) {
        Err(error @ Error::NotSettled { .. }) => Err(Failure::TimedOut(format!(
            "no hook was run, the system stays quiesced: {error}"
        ))),
        other => Ok(other?),
    }
}

fn environment(
    phase: &str,
    generation: Generation,
    before: Option<Generation>,
) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("SYSGENID_PHASE", phase.to_owned()),
        ("SYSGENID", generation.to_string()),
    ];
    environment.extend(before.map(|before| ("SYSGENID_BEFORE", before.to_string())));
    environment
}

/// Notes the generation for `post`.
fn note(state: &Path, generation: Generation) -> Result<(), Failure> {
    let write = || {
        if let Some(directory) = state.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(state, format!("{generation}\n"))
    };
    write().map_err(Failure::io(format!("write {}", state.display())))
}

/// What was noted.
fn noted(state: &Path) -> Result<Option<Generation>, Failure> {
    let read = || match fs::read_to_string(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(text) => match text.trim_end().parse() {
            Ok(number) => Ok(Some(Generation::new(number))),
            Err(_) => Err(io::Error::other("it is no generation; remove it")),
        },
    };
    read().map_err(Failure::io(format!("read {}", state.display())))
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
    use crate::command::End;
    use crate::wait::tests::waited;

    #[test]
    fn what_is_noted_can_be_read() {
        let directory = tempfile::tempdir().expect("there is room");
        let state = directory.path().join("run/snapshot");
        assert_eq!(noted(&state).expect("it is not there"), None);
        note(&state, Generation::new(7)).expect("there is room");
        assert_eq!(
            noted(&state).expect("it is there"),
            Some(Generation::new(7))
        );
        forget(&state).expect("it is there");
        forget(&state).expect("it need not be there");
        assert_eq!(noted(&state).expect("it is not there"), None);
        fs::write(&state, "seven").expect("there is room");
        let error = noted(&state).expect_err("it is no number");
        assert!(error.to_string().contains("no generation"), "{error}");
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let hook = |end: Option<End>| Outcome {
            name: "10-one".into(),
            skipped: end.is_none().then_some("it is no file"),
            ended: end.map(|end| end.ended(Duration::from_millis(500))),
        };
        let quiesced = Quiesced {
            generation: 7,
            hooks: vec![hook(Some(End::Exited(1)))],
            undone: vec![hook(None)],
        };
        let ran = serde_json::json!({
            "name": "10-one",
            "skipped": null,
            "succeeded": false,
            "status": 1,
            "signal": null,
            "error": null,
            "seconds": 0.5,
        });
        let not_run = serde_json::json!({ "name": "10-one", "skipped": "it is no file" });
        let expected = serde_json::json!({
            "phase": "pre",
            "generation": 7,
            "hooks": [ran],
            "undone": [not_run],
        });
        let json = serde_json::to_value(quiesced).expect("it is plain data");
        assert_eq!(json, expected);
        let thawed = Thawed {
            generation: 8,
            generation_before: Some(7),
            waited: waited(true),
            hooks: Vec::new(),
        };
        let expected = serde_json::json!({
            "phase": "post",
            "generation": 8,
            "generation_before": 7,
            "waited": waited(true),
            "hooks": [],
        });
        let json = serde_json::to_value(thawed).expect("it is plain data");
        assert_eq!(json, expected);
    }
}
