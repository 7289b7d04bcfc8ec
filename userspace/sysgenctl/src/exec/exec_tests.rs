// SPDX-License-Identifier: MIT OR Apache-2.0

//! With programs that are run, and a device that is not there.

use std::cell::Cell;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;

use clap::Parser;
use rustix::pipe::PipeFlags;
use rustix::pipe::pipe_with;

use super::*;
use crate::cli::Cli;
use crate::cli::Verb;

/// How long something may take that comes at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the tests do to the device, and see of it.
#[derive(Default)]
struct Shared {
    generation: Cell<u32>,
    acked: Cell<u32>,
    settles: Cell<bool>,
}

struct Fake {
    shared: Rc<Shared>,
    told: u32,
    never: OwnedFd,
}

impl Fake {
    /// One that nothing has become of, and what keeps its descriptor from being readable.
    fn new() -> (Self, OwnedFd) {
        let (never, quiet) = pipe_with(PipeFlags::CLOEXEC).expect("there is room");
        let shared = Rc::default();
        let fake = Self {
            shared,
            told: 0,
            never,
        };
        (fake, quiet)
    }
}

impl Device for Fake {
    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }

    fn told(&self) -> Generation {
        Generation::new(self.told)
    }

    fn look(&mut self) -> Result<Option<(Change, Generation)>, Failure> {
        let (old, new) = (self.told, self.shared.generation.get());
        self.told = new;
        Ok((old != new).then(|| (Change::for_tests(old, new), Generation::new(new))))
    }

    fn settle(&self, _: Duration) -> Result<bool, Failure> {
        Ok(self.shared.settles.get())
    }

    fn ack(&self, generation: Generation) -> Result<bool, Failure> {
        let is_now = generation.get() == self.shared.generation.get();
        if is_now {
            self.shared.acked.set(generation.get());
        }
        Ok(is_now)
    }
}

fn arguments(options: &[&str], script: &str) -> ExecArguments {
    let words = [&["sysgenctl", "exec"], options, &["--", "sh", "-c", script]].concat();
    match Cli::try_parse_from(words).expect("it is right").verb {
        Verb::Exec(arguments) => arguments,
        _ => panic!("another verb"),
    }
}

/// A program that runs, and what becomes of it.
struct Play<'a> {
    exec: Exec<'a, Fake>,
    shared: Rc<Shared>,
    /// Keeps the device's descriptor from being readable.
    _quiet: OwnedFd,
    /// What was exited with.
    status: Option<Result<u8, Failure>>,
}

impl<'a> Play<'a> {
    fn start(arguments: &'a ExecArguments) -> Self {
        let (device, quiet) = Fake::new();
        let shared = Rc::clone(&device.shared);
        shared.settles.set(true);
        let exec = Exec::new(arguments, device, arguments.command.clone());
        let mut exec = exec.expect("there is room");
        let started = exec.start().expect("it can be started");
        assert_eq!(started, None);
        Self {
            exec,
            shared,
            _quiet: quiet,
            status: None,
        }
    }

    fn change(&self) {
        self.shared.generation.set(self.shared.generation.get() + 1);
    }

    fn acked(&self) -> u32 {
        self.shared.acked.get()
    }

    fn pid(&self) -> Option<i32> {
        let child = self.exec.child.as_ref()?;
        Some(child.pid().as_raw_pid())
    }

    fn step(&mut self) {
        if self.status.is_none() {
            self.status = self.exec.step().transpose();
        }
        thread::sleep(Duration::from_millis(5));
    }

    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "in vain waited for: {what}");
            self.step();
        }
    }

    fn go_on(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.step();
        }
    }

    /// Until another one runs than that.
    fn until_another(&mut self, than: Option<i32>) {
        self.until("another one", |play| {
            play.pid().is_some() && play.pid() != than
        });
    }

    fn until_up(&mut self) {
        self.until("it is up", |play| play.exec.phase == Phase::Up);
    }

    /// What it is exited with in the end.
    fn end(&mut self) -> Result<u8, Failure> {
        self.until("the end", |play| play.status.is_some());
        self.status.take().expect("it has ended")
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.exec.child.take() {
            child.kill_all();
            let _ = child.reap();
        }
    }
}

/// Says something as the program would, from a process of its that goes when it was heard, as
/// systemd-notify(1) does.
const SAY: &str = r#"say() { python3 -c 'import os,socket,sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
s.send(sys.argv[1].encode())
r, w = os.pipe()
socket.send_fds(s, [b"BARRIER=1"], [w])
os.close(w)
os.read(r, 1)' "$1"; }
"#;

fn script_of(rest: &str) -> String {
    [SAY, rest].concat()
}

#[test]
fn it_exits_with_the_programs_status() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let arguments = arguments(&[], script);
        let end = Play::start(&arguments).end();
        assert_eq!(end.expect("it has a status"), status, "{script}");
    }
}

#[test]
fn nothing_is_started_while_a_change_is_due() {
    let arguments = arguments(&["--start-timeout", "50ms"], "exit 0");
    let (device, _quiet) = Fake::new();
    let exec = Exec::new(&arguments, device, arguments.command.clone());
    let mut exec = exec.expect("there is room");
    let failure = exec.start().expect_err("it is not settled");
    assert_eq!(failure.exit(), Exit::TimedOut);
    assert!(exec.child.is_none());
}

#[test]
fn a_change_restarts_it_and_is_acknowledged_when_it_is_up() {
    let arguments = arguments(&["--up-after", "300ms"], "exec sleep 1000");
    let mut play = Play::start(&arguments);
    play.until_up();
    let first = play.pid();
    play.change();
    play.until_another(first);
    assert_eq!(play.acked(), 0);
    play.until_up();
    assert_eq!(play.acked(), 1);
}

#[test]
fn a_change_while_it_comes_up_restarts_it_again() {
    let directory = tempfile::tempdir().expect("there is room");
    let go = directory.path().join("go");
    let script = ready_when_there_is(&go);
    let arguments = arguments(&["--notify"], &script);
    let mut play = Play::start(&arguments);
    for _ in 0..2 {
        let before = play.pid();
        play.change();
        play.until_another(before);
        assert_eq!(play.acked(), 0);
    }
    fs::write(&go, "").expect("there is room");
    play.until_up();
    assert_eq!(play.acked(), 2);
}

/// Has a program restarted that leaves another one running, and notes its number where `LEFT` stands:
/// that one has ended by then.
fn nothing_is_left(options: &[&str], script: &str) {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("left");
    let script = script.replace("LEFT", &path.display().to_string());
    let arguments = arguments(options, &script);
    let mut play = Play::start(&arguments);
    let left = || fs::read_to_string(&path).unwrap_or_default();
    play.until("it runs", |_| left().ends_with('\n'));
    let first = play.pid();
    play.change();
    play.until_another(first);
    let left = left();
    let stat = fs::read_to_string(format!("/proc/{}/stat", left.lines().next().expect("one")));
    assert!(!stat.is_ok_and(|stat| !stat.contains(") Z ")), "it lives");
}

#[test]
fn who_does_not_end_is_killed_with_all_that_is_left() {
    nothing_is_left(
        &["--stop-timeout", "200ms", "--up-after", "1ms"],
        "trap '' TERM; sleep 1000 & echo $! >>LEFT; while :; do sleep 0.05; done",
    );
}

#[test]
fn what_it_leaves_running_ends_before_it_is_started_again() {
    nothing_is_left(&["--up-after", "1ms"], "sleep 1000 & echo $! >>LEFT; wait");
}

#[test]
fn ready_is_what_counts_where_it_says_it() {
    let directory = tempfile::tempdir().expect("there is room");
    let go = directory.path().join("go");
    let script = ready_when_there_is(&go);
    let arguments = arguments(&["--notify"], &script);
    let mut play = Play::start(&arguments);
    play.change();
    play.go_on(Duration::from_millis(500));
    assert_eq!(play.acked(), 0);
    fs::write(&go, "").expect("there is room");
    play.until("it is acknowledged", |play| play.acked() == 1);
}

#[test]
fn who_never_gets_ready_is_ended_and_nothing_is_acknowledged() {
    let arguments = arguments(&["--notify", "--start-timeout", "300ms"], "exec sleep 1000");
    let mut play = Play::start(&arguments);
    play.change();
    let failure = play.end().expect_err("it is late");
    assert_eq!(failure.exit(), Exit::TimedOut);
    assert!(
        failure
            .to_string()
            .contains("generation 1 is not acknowledged"),
        "{failure}"
    );
    assert_eq!((play.acked(), play.pid()), (0, None));
}

#[test]
fn who_ends_before_it_is_up_has_failed() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("once");
    let script = format!(
        "[ -e {0} ] && exit 0; : >{0}; exec sleep 1000",
        path.display()
    );
    let arguments = arguments(&["--up-after", "2s"], &script);
    let mut play = Play::start(&arguments);
    play.until("it runs", |_| path.exists());
    play.change();
    assert_eq!(play.end().expect("it has a status"), Exit::Failure as u8);
    assert_eq!(play.acked(), 0);
}

/// A program that is up as soon as there is that file.
fn ready_when_there_is(go: &Path) -> String {
    script_of(&format!(
        "until [ -e {} ]; do sleep 0.02; done; say READY=1; exec sleep 1000",
        go.display()
    ))
}

#[test]
fn a_signal_is_sent_instead_and_again_for_a_change_meanwhile() {
    let directory = tempfile::tempdir().expect("there is room");
    let (path, go) = (directory.path().join("log"), directory.path().join("go"));
    let script = script_of(&format!(
        "trap 'echo hup >>{}; say RELOADING=1; until [ -e {} ]; do sleep 0.02; done; say READY=1' HUP
         say READY=1; while :; do sleep 0.02; done",
        path.display(),
        go.display()
    ));
    let arguments = arguments(&["--notify", "--signal", "HUP"], &script);
    let mut play = Play::start(&arguments);
    play.until_up();
    let log = || fs::read_to_string(&path).unwrap_or_default();
    let first = play.pid();
    play.change();
    play.until("it is reloading", |_| !log().is_empty());
    play.change();
    play.go_on(Duration::from_millis(100));
    assert_eq!(log(), "hup\n");
    fs::write(&go, "").expect("there is room");
    play.until("it is acknowledged", |play| play.acked() != 0);
    assert_eq!((play.acked(), log().as_str()), (2, "hup\nhup\n"));
    assert_eq!(play.pid(), first);
}

#[test]
fn ready_of_before_the_signal_is_no_answer() {
    let arguments = arguments(&["--notify", "--signal", "URG"], "exec sleep 1000");
    let mut play = Play::start(&arguments);
    let message = |is_ready, at| Message::for_tests(is_ready, at);
    play.exec.heard(&message(true, None)).expect("it is up");
    play.change();
    play.step();
    let is_coming = |play: &Play| matches!(play.exec.phase, Phase::Coming { .. });
    assert!(is_coming(&play));
    for (is_ready, at) in [(true, None), (false, Some(1)), (true, None)] {
        play.exec
            .heard(&message(is_ready, at))
            .expect("it is heard");
        assert!(is_coming(&play), "{is_ready} {at:?}");
    }
    let Sent(now) = now();
    play.exec
        .heard(&message(false, Some(now)))
        .expect("it is heard");
    assert_eq!(play.acked(), 0);
    play.exec.heard(&message(true, None)).expect("it is heard");
    assert_eq!(play.acked(), 1);
}

#[test]
fn signals_are_passed_on() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("trapped");
    let script = format!(
        "trap 'exit 9' TERM; trap 'echo usr1 >{0}' USR1; : >{0}; while :; do sleep 0.02; done",
        path.display()
    );
    let arguments = arguments(&[], &script);
    let mut play = Play::start(&arguments);
    play.until("it runs", |_| path.exists());
    play.exec.take(signal_hook::consts::SIGUSR1);
    let log = || fs::read_to_string(&path).unwrap_or_default();
    play.until("it got the signal", |_| log() == "usr1\n");
    play.exec.take(SIGTERM);
    assert_eq!(play.end().expect("it has a status"), 9);
}

#[test]
fn who_is_to_end_is_not_started_again() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("trapped");
    // It ends when it has been killed, and not before.
    let script = format!(
        "trap '' TERM INT; : >{}; while :; do sleep 0.02; done",
        path.display()
    );
    let arguments = arguments(&["--stop-timeout", "300ms", "--up-after", "1ms"], &script);
    for (signal, first) in [(SIGTERM, true), (SIGTERM, false), (SIGINT, false)] {
        let mut play = Play::start(&arguments);
        play.until_up();
        play.until("it runs", |_| path.exists());
        fs::remove_file(&path).expect("it is there");
        if first {
            play.exec.take(signal);
        }
        play.change();
        play.step();
        if !first {
            play.exec.take(signal);
        }
        assert_eq!(play.end().expect("it has a status"), 137);
        assert_eq!(play.acked(), 0);
    }
}

#[test]
fn nothing_waits_where_there_is_something_to_do() {
    let arguments = arguments(&["--up-after", "50ms"], "exec sleep 1000");
    let mut play = Play::start(&arguments);
    let start = Instant::now();
    while play.exec.phase != Phase::Up {
        play.exec.sleep().expect("it can sleep");
        play.step();
    }
    assert!(start.elapsed() < PATIENCE);
    // The end of the program wakes it, also when that was before.
    play.exec.send(SIGTERM);
    thread::sleep(Duration::from_millis(500));
    while play.status.is_none() {
        play.exec.sleep().expect("it can sleep");
        play.step();
    }
    assert_eq!(play.end().expect("it has a status"), 143);
}

#[test]
fn the_device_wakes_it() {
    let arguments = arguments(&["--up-after", "1ms"], "exec sleep 1000");
    let mut play = Play::start(&arguments);
    play.until_up();
    let (readable, writer) = pipe_with(PipeFlags::CLOEXEC).expect("there is room");
    play.exec.device.never = readable;
    File::from(writer).write_all(b"x").expect("there is room");
    play.exec.sleep().expect("it can sleep");
}
