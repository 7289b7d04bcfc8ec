// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs commands that must not stand in the way: each may take so long and no longer, none outlives
//! what it was run for, and none writes to where we do.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::pipe::PipeFlags;
use rustix::pipe::pipe_with;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use rustix::process::kill_process_group;
use rustix::process::pidfd_open;
use rustix::process::test_kill_process_group;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

use crate::command::End;
use crate::process::Stat;

/// How much of what a command says is kept: its beginning.
const KEPT: usize = 64 << 10;

/// How long a command may take to end when it is asked to, and when it is made to.
const GRACE: Duration = Duration::from_secs(2);

/// For how long what a command has said last is waited for, once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often signals are looked for, if one comes just before somebody sleeps.
const NAP: Duration = Duration::from_millis(100);

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// What it said on standard output and on standard error.
    pub said: String,
}

/// The signals that ask us to end. From when this was made, they only set it.
#[derive(Clone, Debug)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Takes them.
    pub fn take() -> io::Result<Self> {
        let came = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or(usize::MAX);
            flag::register_usize(signal, Arc::clone(&came), number)?;
        }
        Ok(Self(came))
    }

    /// The last one that has come.
    pub fn came(&self) -> Option<i32> {
        let number = self.0.load(Ordering::SeqCst);
        (number != 0).then(|| i32::try_from(number).unwrap_or_default())
    }
}

/// How long commands may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Each of them.
    pub each: Duration,
    /// All of them, from the first one's start.
    pub all: Duration,
    /// Each of them has that at least, whatever others have taken.
    pub least: Duration,
}

impl Limits {
    /// For each of them alone.
    pub fn each(each: Duration) -> Self {
        Self {
            each,
            all: each,
            least: each,
        }
    }
}

/// Who runs commands, one after the other.
pub struct Supervisor<'a> {
    limits: Limits,
    started: Instant,
    /// What ends the one that runs, and keeps others from being run.
    signals: Option<&'a Signals>,
}

impl<'a> Supervisor<'a> {
    /// From now on.
    pub fn new(limits: Limits, signals: Option<&'a Signals>) -> Self {
        Self {
            limits,
            started: Instant::now(),
            signals,
        }
    }

    /// Runs one to its end, which is never an error of ours.
    pub fn run(&self, command: &mut Command) -> Ran {
        let start = Instant::now();
        let (end, said) = match start_in_group(command) {
            Ok((child, output)) => {
                let end = self.wait(child, start);
                (end, output.taken())
            }
            Err(error) => (End::NotStarted(error.to_string()), String::new()),
        };
        Ran {
            end,
            took: start.elapsed(),
            said,
        }
    }

    fn wait(&self, mut child: Child, start: Instant) -> End {
        let Limits { each, all, least } = self.limits;
        let left_of_all = all.saturating_sub(self.started.elapsed()).max(least);
        // What is told is what was asked for.
        let (within, limit) = if each <= left_of_all {
            (each, each)
        } else {
            (left_of_all, all)
        };
        loop {
            if let Some(signal) = self.signals.and_then(Signals::came) {
                let was_ended = end_group(&mut child);
                return End::Interrupted { signal, was_ended };
            }
            let left = within.saturating_sub(start.elapsed());
            match ended(&mut child, left.min(NAP)) {
                Some(status) => return End::of(status),
                None if left.is_zero() => {
                    let was_ended = end_group(&mut child);
                    return End::TimedOut { limit, was_ended };
                }
                None => {}
            }
        }
    }
}

/// Starts it in a process group of its own, with nothing to read.
fn start_in_group(command: &mut Command) -> io::Result<(Child, Said)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn();
    // Or the pipe would have a writer for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child?, Said::by(reader)))
}

/// The exit status, if it ends within that time.
fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    let sleep = || -> Option<()> {
        let fd = pidfd_open(pid_of(child)?, PidfdFlags::empty()).ok()?;
        let within = Timespec::try_from(within).ok()?;
        // A signal ends it as well.
        let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&within));
        Some(())
    };
    if sleep().is_none() {
        thread::sleep(within.min(Duration::from_millis(10)));
    }
    child.try_wait().ok().flatten()
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Ends it, and all that it has started in its process group; says whether all of that has ended. What
/// the kernel does not let go (it writes to a frozen file system) ends when it can.
fn end_group(child: &mut Child) -> bool {
    let Some(group) = pid_of(child) else {
        return false;
    };
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = kill_process_group(group, signal);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            // The first one of it often ends at once, as a shell does. While there are others, its number
            // is no other process's.
            let leader = ended(child, NAP);
            if leader.is_some() && !is_alive(group) {
                return true;
            }
            if leader.is_some() {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    false
}

/// Whether somebody of that process group runs. In a container, those that have ended may stay for good,
/// because nobody asks how.
pub fn is_alive(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    processes.flatten().any(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        runs_in(&stat, group)
    })
}

/// Whether the process is of that group, and has not ended, by its stat in /proc.
fn runs_in(stat: &str, group: Pid) -> bool {
    Stat::of(stat)
        .is_some_and(|stat| stat.group == group.as_raw_pid() && !matches!(stat.state, "Z" | "X"))
}

/// What a command says.
struct Said(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    is_whole: bool,
}

impl Said {
    /// Nobody who writes has to wait for us; what is too much is dropped.
    fn by(reader: OwnedFd) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut reader = std::fs::File::from(reader);
            loop {
                let length = match io::Read::read(&mut reader, &mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => break,
                    Ok(length) => length,
                };
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = KEPT.saturating_sub(kept.bytes.len()).min(length);
                kept.bytes.extend_from_slice(&buffer[..room]);
            }
            shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_whole = true;
        });
        Self(kept)
    }

    /// What there is. What the command has left running may say more, and nobody waits for that.
    fn taken(&self) -> String {
        let start = Instant::now();
        loop {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.is_whole || start.elapsed() >= LAST_WORDS {
                return String::from_utf8_lossy(&kept.bytes).into_owned();
            }
            drop(kept);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn limits(each: u64) -> Limits {
        Limits {
            each: Duration::from_millis(each),
            all: LONG,
            least: Duration::ZERO,
        }
    }

    fn run(limits: Limits, script: &str) -> Ran {
        let mut command = Command::new("sh");
        Supervisor::new(limits, None).run(command.args(["-c", script]))
    }

    #[test]
    fn what_it_says_is_kept() {
        let ran = run(limits(60_000), "echo out; echo err >&2; read line; exit 3");
        assert_eq!((ran.end, ran.said.as_str()), (End::Exited(3), "out\nerr\n"));
        let ran = run(limits(60_000), "yes | head -c 1000000");
        assert_eq!((ran.end, ran.said.len()), (End::Exited(0), KEPT));
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for() {
        let start = Instant::now();
        let ran = run(limits(60_000), "echo said; sleep 30 &");
        assert_eq!((ran.end, ran.said.as_str()), (End::Exited(0), "said\n"));
        assert!(start.elapsed() < LONG / 4);
    }

    #[test]
    fn it_ends_with_all_that_it_started() {
        let directory = tempfile::tempdir().expect("there is room");
        let file = directory.path().join("late");
        // It does not heed the first signal.
        let script = format!(
            "trap '' TERM; (sleep 4; touch {0}) & sleep 4; touch {0}",
            file.display()
        );
        let ran = run(limits(100), &script);
        let expected = End::TimedOut {
            limit: Duration::from_millis(100),
            was_ended: true,
        };
        assert_eq!(ran.end, expected);
        thread::sleep(Duration::from_secs(5).saturating_sub(ran.took));
        assert!(!file.exists(), "something of it has lived on");
    }

    #[test]
    fn what_it_started_has_time_to_end_as_well() {
        let directory = tempfile::tempdir().expect("there is room");
        let file = directory.path().join("cleaned");
        // The shell ends at once, and what it has started cleans up.
        let script = format!(
            "(trap 'sleep 0.3; touch {}; exit' TERM; while :; do sleep 0.05; done) & sleep 50",
            file.display()
        );
        let ran = run(limits(300), &script);
        assert!(matches!(
            ran.end,
            End::TimedOut {
                was_ended: true,
                ..
            }
        ));
        assert!(file.exists(), "it had no time to end");
    }

    #[test]
    fn who_has_ended_does_not_run() {
        let group = Pid::from_raw(71).expect("it is one");
        let runs = |state: &str, number: u32| {
            runs_in(
                &format!("72 (a) Z 1 71 (b) {state} 1 {number} 1 0 -1"),
                group,
            )
        };
        assert!(runs("S", 71) && runs("D", 71) && runs("T", 71));
        assert!(!runs("Z", 71) && !runs("S", 7) && !runs_in("", group));
    }

    #[test]
    fn all_have_a_limit_as_well() {
        let limits = Limits {
            each: LONG,
            all: Duration::from_millis(200),
            least: Duration::ZERO,
        };
        let supervisor = Supervisor::new(limits, None);
        let start = Instant::now();
        for _ in 0..3 {
            supervisor.run(Command::new("sleep").arg("50"));
        }
        assert!(start.elapsed() < LONG / 4);
        // What others have taken is not taken from those that must be run.
        let least = LONG / 2;
        let supervisor = Supervisor::new(Limits { least, ..limits }, None);
        thread::sleep(limits.all);
        let ran = supervisor.run(Command::new("sleep").arg("0.2"));
        assert_eq!(ran.end, End::Exited(0));
    }
}
