// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hooks in a directory, which run like those of run-parts(8).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

use crate::command;
use crate::command::End;
use crate::command::Ended;
use crate::exit::Failure;
use crate::output::BAD;
use crate::output::GOOD;
use crate::output::NOTABLE;
use crate::output::Output;
use crate::output::plain;

/// A file in the directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    name: String,
    path: PathBuf,
    /// Why it is not run, if it is not.
    skipped: Option<&'static str>,
}

/// What came of a file in the directory.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Why it was not run, if it was not.
    pub skipped: Option<&'static str>,
    /// How it ended, if it was run.
    #[serde(flatten)]
    pub ended: Option<Ended>,
}

/// What happens when a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Those after it are not run.
    Stop,
    /// Those after it are run all the same.
    GoOn,
}

/// The files of a directory, by name. A directory that is not there has none.
///
/// # Errors
///
/// The directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Hook>, Failure> {
    let read = || -> io::Result<Vec<Hook>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut hooks = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            hooks.push(Hook {
                skipped: reason_to_skip(&name, &path),
                name,
                path,
            });
        }
        // As in the C locale.
        hooks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(hooks)
    };
    read().map_err(Failure::io(format!("read {}", directory.display())))
}

fn reason_to_skip(name: &str, path: &Path) -> Option<&'static str> {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.chars().all(fit) {
        return Some("its name has other characters than letters, digits, - and _");
    }
    match fs::metadata(path) {
        Err(_) => Some("it is a link to nothing"),
        Ok(metadata) if !metadata.is_file() => Some("it is no file"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Some("it is not executable"),
        Ok(_) => None,
    }
}

/// Runs the hooks one after the other, and shows what comes of each.
///
/// # Errors
///
/// What comes of them cannot be shown.
pub fn run(
    hooks: &[Hook],
    environment: &[(&str, String)],
    on_failure: OnFailure,
    output: Output,
) -> Result<Vec<Outcome>, Failure> {
    let width = hooks
        .iter()
        .map(|hook| plain(&hook.name).chars().count())
        .max();
    let width = width.unwrap_or_default();
    let mut outcomes = Vec::new();
    for hook in hooks {
        let name = plain(&hook.name);
        let ended = if let Some(reason) = hook.skipped {
            output.text(format!(
                "  {name:width$}  {NOTABLE}not run{NOTABLE:#}: {reason}"
            ))?;
            None
        } else {
            let environment = environment.iter().map(|(key, value)| (key, value));
            let (end, took) = command::run(Command::new(&hook.path).envs(environment), output);
            let seconds = took.as_secs_f32();
            output.text(if end.succeeded() {
                format!("  {name:width$}  {GOOD}ok{GOOD:#} in {seconds:.1} s")
            } else {
                format!("  {name:width$}  {BAD}failed{BAD:#} after {seconds:.1} s: {end}")
            })?;
            Some((end, took))
        };
        let failed = ended.as_ref().is_some_and(|(end, _)| !end.succeeded());
        outcomes.push(Outcome {
            name: hook.name.clone(),
            skipped: hook.skipped,
            ended: ended.map(|(end, took)| End::ended(&end, took)),
        });
        if failed && on_failure == OnFailure::Stop {
            break;
        }
    }
    Ok(outcomes)
}

/// Those that failed.
pub fn failed(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes
        .iter()
        .filter(|outcome| outcome.ended.as_ref().is_some_and(|ended| !ended.succeeded))
        .map(|outcome| outcome.name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const QUIET: Output = Output { json: true };
    const TRUE: &str = "/bin/true";
    const FALSE: &str = "/bin/false";

    /// Links, because a file that was just written cannot be executed while another thread starts a
    /// program.
    fn directory(hooks: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("there is room");
        for (name, program) in hooks {
            symlink(program, directory.path().join(name)).expect("there is room");
        }
        directory
    }

    fn names(outcomes: &[Outcome]) -> Vec<(&str, bool)> {
        let ran = |outcome: &Outcome| outcome.ended.is_some();
        outcomes.iter().map(|o| (o.name.as_str(), ran(o))).collect()
    }

    #[test]
    fn they_run_by_name() {
        let directory = directory(&[("20-b", TRUE), ("100", TRUE), ("10-c", TRUE)]);
        let hooks = list(directory.path()).expect("it is there");
        let outcomes = run(&hooks, &[], OnFailure::Stop, QUIET).expect("nothing is printed");
        assert_eq!(
            names(&outcomes),
            [("10-c", true), ("100", true), ("20-b", true)]
        );
    }

    #[test]
    fn what_is_no_hook_is_not_run_and_named() {
        let directory = directory(&[("a.dpkg-old", TRUE), ("b", TRUE)]);
        let path = directory.path();
        fs::write(path.join("c"), "").expect("there is room");
        fs::create_dir(path.join("d")).expect("there is room");
        symlink("nothing", path.join("e")).expect("there is room");
        let hooks = list(path).expect("it is there");
        let outcomes = run(&hooks, &[], OnFailure::Stop, QUIET).expect("nothing is printed");
        let expected = [
            (
                "a.dpkg-old",
                Some("its name has other characters than letters, digits, - and _"),
            ),
            ("b", None),
            ("c", Some("it is not executable")),
            ("d", Some("it is no file")),
            ("e", Some("it is a link to nothing")),
        ];
        let found: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.name.as_str(), outcome.skipped))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(names(&outcomes)[1], ("b", true));
        assert!(failed(&outcomes).is_empty());
    }

    #[test]
    fn a_failure_stops_them_or_not() {
        let directory = directory(&[("1", TRUE), ("2", FALSE), ("3", TRUE)]);
        let hooks = list(directory.path()).expect("it is there");
        let stopped = run(&hooks, &[], OnFailure::Stop, QUIET).expect("nothing is printed");
        assert_eq!(names(&stopped), [("1", true), ("2", true)]);
        assert_eq!(failed(&stopped), ["2"]);
        let all = run(&hooks, &[], OnFailure::GoOn, QUIET).expect("nothing is printed");
        assert_eq!(all.len(), 3);
        assert_eq!(failed(&all), ["2"]);
    }

    #[test]
    fn no_directory_has_no_hooks() {
        assert_eq!(
            list(Path::new("/no/such/directory")).expect("it is none"),
            []
        );
    }
}
