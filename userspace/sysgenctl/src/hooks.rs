// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hooks in a directory.

use std::fs;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;
use serde::Serialize;
use sysgenid::Generation;

use crate::cli::HookArguments;
use crate::command::Ended;
use crate::exit::Failure;
use crate::output::BAD;
use crate::output::GOOD;
use crate::output::NOTABLE;
use crate::output::plain;
use crate::supervised::Limits;
use crate::supervised::Ran;
use crate::supervised::Supervisor;

/// What each hook may take that thaws, whatever others have taken: it has to be run.
const LEAST: Duration = Duration::from_secs(10);

/// What the names of files end with that editors and package managers leave behind.
const LEFTOVERS: [&str; 8] = [
    "~",
    ".bak",
    ".disabled",
    ".orig",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
    ".swp",
];

/// What a name of theirs has in it: dpkg's endings are many.
const OF_DPKG: &str = ".dpkg-";

/// The bits of the mode by which others than the owner write.
const WRITABLE: u32 = 0o022;
/// In such a directory, nobody replaces what belongs to others.
const STICKY: u32 = 0o1000;

/// A file in the directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its path.
    pub path: PathBuf,
    /// Where that led when it was looked at.
    real: PathBuf,
    name: String,
    not_run: Option<NotRun>,
}

/// Why it is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NotRun {
    /// It is no hook.
    Skipped(&'static str),
    /// It could be one: somebody may think that it is run.
    Refused(String),
}

impl Hook {
    /// In the place of all hooks of a directory that cannot be listed.
    pub fn none_of(directory: &Path, why: &Failure) -> Self {
        let name = directory.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            path: directory.to_owned(),
            real: directory.to_owned(),
            not_run: Some(NotRun::Refused(why.to_string())),
        }
    }

    /// Why somebody who thinks that it is run would be wrong.
    pub fn refusal(&self) -> Option<&str> {
        match &self.not_run {
            Some(NotRun::Refused(reason)) => Some(reason),
            _ => None,
        }
    }
}

/// All hooks.
#[derive(Debug)]
pub struct Hooks {
    /// What quiesces the system.
    pub pre: Vec<Hook>,
    /// What gives back to programs what they need in order to renew their state.
    pub thaw: Vec<Hook>,
    /// What lets the system serve others again.
    pub post: Vec<Hook>,
}

impl Hooks {
    /// Those below a directory.
    ///
    /// # Errors
    ///
    /// As [`list`].
    pub fn list(directory: &Path) -> Result<Self, Failure> {
        let list = |name, order| list(&directory.join(name), order);
        Ok(Self {
            pre: list("pre.d", Order::ByName)?,
            thaw: list("thaw.d", Order::Reversed)?,
            post: list("post.d", Order::Reversed)?,
        })
    }

    /// Those that thaw. A directory that cannot be listed keeps the other one's from being run no more
    /// than a hook does.
    pub fn of_post(directory: &Path) -> Self {
        let list = |name| {
            let directory = directory.join(name);
            list(&directory, Order::Reversed)
                .unwrap_or_else(|failure| vec![Hook::none_of(&directory, &failure)])
        };
        Self {
            pre: Vec::new(),
            thaw: list("thaw.d"),
            post: list("post.d"),
        }
    }

    /// A failure if there is one that somebody may think is run, and that is not.
    pub fn check(&self) -> Result<(), Failure> {
        let all = self.pre.iter().chain(&self.thaw).chain(&self.post);
        for hook in all {
            if let Some(reason) = hook.refusal() {
                return Err(Failure::Refused(format!(
                    "take no snapshot: the hook {} would not be run: {reason}",
                    hook.path.display()
                )));
            }
        }
        Ok(())
    }
}

/// What a hook finds in its environment.
pub fn environment(
    phase: &str,
    generation: Option<Generation>,
    before: Option<Generation>,
) -> Vec<(&'static str, String)> {
    let mut environment = vec![("SYSGENID_PHASE", phase.to_owned())];
    environment.extend(generation.map(|generation| ("SYSGENID", generation.to_string())));
    environment.extend(before.map(|before| ("SYSGENID_BEFORE", before.to_string())));
    environment
}

/// How long those may take that thaw: they have to be run, whatever others have taken.
pub fn limits_of_post(arguments: &HookArguments) -> Limits {
    Limits {
        each: arguments.hook_timeout,
        all: arguments.hooks_timeout,
        least: LEAST.min(arguments.hook_timeout),
    }
}

/// In what order they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By name, as in the C locale.
    ByName,
    /// The other way round: what was quiesced last is thawed first.
    Reversed,
}

/// What happens when a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Those after it are not run.
    Stop,
    /// Those after it are run all the same.
    GoOn,
}

/// What came of a file in the directory.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Why it was not run, if it was not.
    pub skipped: Option<String>,
    /// Whether that is a failure.
    #[serde(skip)]
    is_refused: bool,
    /// How it ended, if it was run.
    #[serde(flatten)]
    pub ran: Option<Done>,
}

/// What came of a hook that was run.
#[derive(Debug, Serialize)]
pub struct Done {
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// The beginning of what it said.
    pub output: String,
    /// The same as `ended`, in words.
    #[serde(skip)]
    end: String,
    #[serde(skip)]
    lives_on: bool,
}

impl From<Ran> for Done {
    fn from(ran: Ran) -> Self {
        Self {
            ended: ran.end.ended(ran.took),
            output: ran.said,
            end: ran.end.to_string(),
            lives_on: ran.end.lives_on(),
        }
    }
}

impl Outcome {
    /// Whether it was run.
    pub fn was_run(&self) -> bool {
        self.ran.is_some()
    }

    /// Whether something of it may still run that was to end.
    pub fn lives_on(&self) -> bool {
        self.ran.as_ref().is_some_and(|done| done.lives_on)
    }

    fn has_failed(&self) -> bool {
        let ended_badly = |done: &Done| !done.ended.succeeded;
        self.is_refused || self.ran.as_ref().is_some_and(ended_badly)
    }
}

/// The files of a directory. One that is not there has none.
///
/// # Errors
///
/// The directory cannot be read, or others can put files there.
pub fn list(directory: &Path, order: Order) -> Result<Vec<Hook>, Failure> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io(format!("read {shown}"))(error)),
        Ok(metadata) => {
            let danger = danger_of(&metadata).or_else(|| danger_above(directory));
            if let Some(reason) = danger {
                return Err(Failure::Refused(format!(
                    "no hook of {shown} is run: {reason}"
                )));
            }
        }
    }
    let read = || -> io::Result<Vec<Hook>> {
        let mut hooks = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            hooks.push(Hook {
                not_run: why_not(&name, &real),
                name,
                real,
                path,
            });
        }
        hooks.sort_by(|a, b| a.path.cmp(&b.path));
        if order == Order::Reversed {
            hooks.reverse();
        }
        Ok(hooks)
    };
    read().map_err(Failure::io(format!("read {shown}")))
}

fn why_not(name: &str, real: &Path) -> Option<NotRun> {
    let metadata = match fs::metadata(real) {
        Err(_) => return Some(NotRun::Skipped("it is a link to nothing")),
        Ok(metadata) if !metadata.is_file() => return Some(NotRun::Skipped("it is no file")),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            return Some(NotRun::Skipped("it is not executable"));
        }
        Ok(metadata) => metadata,
    };
    if is_leftover(name) {
        let reason = "it is executable, and by its name a leftover: remove it, or rename it";
        return Some(NotRun::Refused(reason.into()));
    }
    let danger = danger_of(&metadata).or_else(|| danger_above(real));
    danger.map(NotRun::Refused)
}

fn is_leftover(name: &str) -> bool {
    name.starts_with('.')
        || name.contains(OF_DPKG)
        || LEFTOVERS.iter().any(|ending| name.ends_with(ending))
}

/// Who else than root, and who runs this, can write it.
fn danger_of(metadata: &Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!(
            "it belongs to the user with the number {owner}, who can change what would be run: chown it"
        ));
    }
    (mode & WRITABLE != 0).then(|| {
        format!(
            "others than its owner can write it (mode {:04o}): chmod go-w",
            mode & 0o7777
        )
    })
}

/// The directories that lead there: who can rename one puts another in its place.
fn danger_above(path: &Path) -> Option<String> {
    let Ok(real) = fs::canonicalize(path) else {
        return Some("it cannot be looked at".into());
    };
    real.ancestors().skip(1).find_map(|directory| {
        let metadata = fs::metadata(directory).ok()?;
        if metadata.mode() & STICKY != 0 && metadata.uid() == 0 {
            return None;
        }
        danger_of(&metadata).map(|reason| format!("of {}: {reason}", directory.display()))
    })
}

/// Runs the hooks one after the other.
pub fn run(
    hooks: &[Hook],
    environment: &[(&str, String)],
    on_failure: OnFailure,
    supervisor: &Supervisor<'_>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for hook in hooks {
        let ran = hook.not_run.is_none().then(|| {
            let environment = environment.iter().map(|(key, value)| (key, value));
            // What was looked at is run, wherever a link leads by now.
            let mut command = Command::new(&hook.real);
            supervisor.run(command.arg0(&hook.path).envs(environment))
        });
        let outcome = Outcome {
            name: hook.name.clone(),
            skipped: hook.not_run.as_ref().map(|why| match why {
                NotRun::Skipped(reason) => (*reason).to_owned(),
                NotRun::Refused(reason) => reason.clone(),
            }),
            is_refused: hook.refusal().is_some(),
            ran: ran.map(Done::from),
        };
        let failed = outcome.has_failed();
        outcomes.push(outcome);
        if failed && on_failure == OnFailure::Stop {
            break;
        }
    }
    outcomes
}

/// Those that failed, and those that were not run although they could be.
pub fn failed(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes
        .iter()
        .filter(|outcome| outcome.has_failed())
        .map(|outcome| outcome.name.as_str())
        .collect()
}

/// What came of them, for people: a line for each, and what it said.
pub fn lines(outcomes: &[Outcome]) -> Vec<String> {
    let width = outcomes
        .iter()
        .map(|outcome| plain(&outcome.name).chars().count())
        .max();
    let width = width.unwrap_or_default();
    let mut lines = Vec::new();
    for outcome in outcomes {
        let name = plain(&outcome.name);
        let Some(Done {
            ended, output, end, ..
        }) = &outcome.ran
        else {
            let reason = plain(outcome.skipped.as_deref().unwrap_or_default());
            lines.push(format!(
                "  {name:width$}  {NOTABLE}not run{NOTABLE:#}: {reason}"
            ));
            continue;
        };
        let seconds = ended.seconds;
        lines.push(if ended.succeeded {
            format!("  {name:width$}  {GOOD}ok{GOOD:#} in {seconds:.1} s")
        } else {
            format!("  {name:width$}  {BAD}failed{BAD:#} after {seconds:.1} s: {end}")
        });
        lines.extend(output.lines().map(|line| format!("    {}", plain(line))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;

    use super::*;

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

    fn run_all(hooks: &[Hook], on_failure: OnFailure) -> Vec<Outcome> {
        let limit = Duration::from_secs(60);
        let limits = Limits::each(limit);
        run(hooks, &[], on_failure, &Supervisor::new(limits, None))
    }

    fn names(outcomes: &[Outcome]) -> Vec<(&str, bool)> {
        let ran = |outcome: &Outcome| outcome.was_run();
        outcomes.iter().map(|o| (o.name.as_str(), ran(o))).collect()
    }

    #[test]
    fn they_run_by_name() {
        let directory = directory(&[("20-b", TRUE), ("100", TRUE), ("10-c.sh", TRUE)]);
        let hooks = list(directory.path(), Order::ByName).expect("it is there");
        let outcomes = run_all(&hooks, OnFailure::Stop);
        assert_eq!(
            names(&outcomes),
            [("10-c.sh", true), ("100", true), ("20-b", true)]
        );
        let hooks = list(directory.path(), Order::Reversed).expect("it is there");
        let outcomes = run_all(&hooks, OnFailure::Stop);
        assert_eq!(names(&outcomes)[0], ("20-b", true));
    }

    #[test]
    fn what_is_no_hook_is_not_run_and_named() {
        let directory = directory(&[("a.dpkg-old", TRUE), ("b", TRUE)]);
        let path = directory.path();
        fs::write(path.join("c"), "").expect("there is room");
        fs::create_dir(path.join("d")).expect("there is room");
        symlink("nothing", path.join("e")).expect("there is room");
        let hooks = list(path, Order::ByName).expect("it is there");
        let refused: Vec<_> = hooks.iter().map(|hook| hook.refusal().is_some()).collect();
        assert_eq!(refused, [true, false, false, false, false]);
        let outcomes = run_all(&hooks, OnFailure::GoOn);
        let leftover = "it is executable, and by its name a leftover: remove it, or rename it";
        let expected = [
            ("a.dpkg-old", Some(leftover)),
            ("b", None),
            ("c", Some("it is not executable")),
            ("d", Some("it is no file")),
            ("e", Some("it is a link to nothing")),
        ];
        let found: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.name.as_str(), outcome.skipped.as_deref()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(names(&outcomes)[1], ("b", true));
        assert_eq!(failed(&outcomes), ["a.dpkg-old"]);
    }

    #[test]
    fn leftovers_are_known_by_their_names() {
        for name in [
            "x~",
            ".x",
            "x.dpkg-new",
            "x.dpkg-old.1",
            "x.rpmsave",
            "x.bak",
            "x.swp",
            "x.disabled",
        ] {
            assert!(is_leftover(name), "{name}");
        }
        for name in [
            "10-db.sh",
            "10-db.py",
            "a.b",
            "dpkg-hook",
            "bak",
            "x.old2",
            "ä",
        ] {
            assert!(!is_leftover(name), "{name}");
        }
    }

    #[test]
    fn what_others_can_write_is_not_run() {
        let ours = directory(&[]);
        let path = ours.path();
        let file = path.join("a");
        fs::write(&file, "").expect("there is room");
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        };
        for (mode, is_refused) in [(0o755, false), (0o775, true), (0o757, true)] {
            allow(&file, mode);
            let hooks = list(path, Order::ByName).expect("it is ours alone");
            assert_eq!(hooks[0].refusal().is_some(), is_refused, "{mode:o}");
        }
        allow(&file, 0o755);
        for mode in [0o775, 0o777, 0o1777] {
            allow(path, mode);
            let refusal = list(path, Order::ByName).expect_err("anybody can put a hook there");
            assert!(refusal.to_string().contains("chmod go-w"), "{refusal}");
        }
        // By a link, from elsewhere. In the last of these directories, only its owner could replace it.
        allow(path, 0o777);
        let other = directory(&[("b", &file.to_string_lossy())]);
        let hooks = list(other.path(), Order::ByName).expect("it is ours alone");
        let reason = hooks[0].refusal().expect("the file can be replaced");
        assert!(reason.starts_with("of /"), "{reason}");
    }

    #[test]
    fn a_failure_stops_them_or_not() {
        let directory = directory(&[("1", TRUE), ("2", FALSE), ("3", TRUE)]);
        let hooks = list(directory.path(), Order::ByName).expect("it is there");
        let stopped = run_all(&hooks, OnFailure::Stop);
        assert_eq!(names(&stopped), [("1", true), ("2", true)]);
        assert_eq!(failed(&stopped), ["2"]);
        let all = run_all(&hooks, OnFailure::GoOn);
        assert_eq!(all.len(), 3);
        assert_eq!(failed(&all), ["2"]);
    }

    #[test]
    fn no_directory_has_no_hooks() {
        let hooks = list(Path::new("/no/such/directory"), Order::ByName).expect("it is none");
        assert_eq!(hooks, []);
    }
}
