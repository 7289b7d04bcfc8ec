// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program's process: how it is started, and how it has ended.
//!
//! It is started by way of this very program, which asks the kernel to kill it when the one that started
//! it has ended, and then becomes it. That is before the program has run, and takes no code between
//! fork(2) and execve(2).

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitId;
use rustix::process::WaitIdOptions;
use rustix::process::getpid;
use rustix::process::getppid;
use rustix::process::kill_process;
use rustix::process::kill_process_group;
use rustix::process::set_parent_process_death_signal;
use rustix::process::waitid;

use crate::command::End;
use crate::exit::Failure;
use crate::output::plain;
use crate::supervised::is_alive;

/// This program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";
/// What env(1), nice(1) and shells exit with.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What systemd says to a process by its number.
const BY_NUMBER: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];
/// What it says of the process that it has started, which is another one.
const OF_ANOTHER: [&str; 2] = ["LISTEN_PIDFDID", "MAINPID"];
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A process that was started here, and whose end has not been taken note of. So its number is no other
/// process's.
#[derive(Debug)]
pub struct Child(Pid);

/// The command line by which a program is started.
pub fn through_self(command: &[OsString]) -> Vec<OsString> {
    let number = getpid().as_raw_pid().to_string();
    let own = [SELF, "exec", "--child-of", &number, "--"].map(OsString::from);
    own.into_iter().chain(command.iter().cloned()).collect()
}

/// Becomes the program, or says why not. Returns what to exit with.
pub fn become_program(parent: i32, command: &[OsString]) -> Result<u8, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::io("have the kernel watch over the program")(errno.into()))?;
    // It may have ended before that.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(Failure::Refused(
            "what started this is gone, or never was".into(),
        ));
    }
    let program = &command[0];
    let mut becomes = Command::new(program);
    becomes.args(&command[1..]);
    let own = getpid().as_raw_pid().to_string();
    for variable in BY_NUMBER {
        if env::var(variable).is_ok_and(|number| number == parent.to_string()) {
            becomes.env(variable, &own);
        }
    }
    for variable in OF_ANOTHER {
        becomes.env_remove(variable);
    }
    let error = becomes.exec();
    anstream::eprintln!(
        "sysgenctl: {} cannot be run: {error}",
        plain(&program.to_string_lossy())
    );
    Ok(if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_RUN
    })
}

impl Child {
    /// Starts it in a process group of its own.
    pub fn start(command: &[OsString], notify_socket: Option<&OsStr>) -> io::Result<Self> {
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).process_group(0);
        match notify_socket {
            Some(name) => started.env(NOTIFY_SOCKET, name),
            // Whoever asked to be told hears it from us.
            None => started.env_remove(NOTIFY_SOCKET),
        };
        let number = i32::try_from(started.spawn()?.id()).ok();
        let pid = number.and_then(Pid::from_raw);
        pid.map(Self)
            .ok_or_else(|| io::Error::other("it has no number"))
    }

    pub fn pid(&self) -> Pid {
        self.0
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // One that has ended needs none.
        if kill_process(self.0, signal) == Err(Errno::PERM) {
            anstream::eprintln!(
                "sysgenctl: the program cannot be sent signals: it is another user's"
            );
        }
    }

    /// Kills it, and what is left in its process group.
    pub fn kill_all(&self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }

    /// Whether something of its process group runs.
    pub fn has_others(&self) -> bool {
        is_alive(self.0)
    }

    /// Whether it has ended. Its number stays its own.
    pub fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.0), flags)?.is_some())
    }

    /// Takes note of its end.
    pub fn reap(self) -> io::Result<End> {
        loop {
            match waitid(WaitId::Pid(self.0), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(None) => return Err(io::Error::other("it has not ended")),
                Ok(Some(status)) => {
                    return Ok(match status.exit_status() {
                        Some(code) => End::Exited(code),
                        None => End::Killed(status.terminating_signal().unwrap_or_default()),
                    });
                }
            }
        }
    }

    /// Takes note of the end of others, which come to the first process of a container.
    pub fn reap_others(&self) {
        // The kernel tells of the children of this thread.
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let numbers = children
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        for other in numbers
            .filter_map(Pid::from_raw)
            .filter(|pid| *pid != self.0)
        {
            let _ = waitid(
                WaitId::Pid(other),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

/// What a shell exits with.
pub fn status_of(end: &End) -> u8 {
    let number = match end {
        End::Exited(status) => *status,
        End::Killed(signal) => 128 + signal,
        _ => i32::from(NOT_RUN),
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn start(script: &str) -> Child {
        let command = ["sh", "-c", script].map(OsString::from);
        Child::start(&command, None).expect("there is a shell")
    }

    fn wait(child: &Child) {
        while !child.has_ended().expect("it is ours") {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn ends_are_what_shells_say() {
        for (script, status) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
            let end = start(script).reap().expect("it is ours");
            assert_eq!(status_of(&end), status, "{script}");
        }
    }

    #[test]
    fn what_it_leaves_behind_is_found_and_killed() {
        let child = start("sleep 1000 & sleep 1000 & exit 0");
        wait(&child);
        assert!(child.has_others());
        child.kill_all();
        while child.has_others() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(child.reap().expect("it is ours"), End::Exited(0));
    }

    #[test]
    fn the_end_of_others_is_taken_note_of_and_its_own_is_not() {
        let (child, other) = (start("exit 3"), start("exit 4"));
        wait(&child);
        wait(&other);
        child.reap_others();
        assert!(other.has_ended().is_err());
        assert_eq!(child.reap().expect("it is ours"), End::Exited(3));
    }

    #[test]
    fn nobody_becomes_the_program_of_another() {
        // Which would not go unnoticed in the place of this test.
        let command = ["false"].map(OsString::from);
        assert!(become_program(i32::MAX, &command).is_err());
        // Which the kernel would have killed with the thread that runs this.
        set_parent_process_death_signal(None).expect("it can be unset");
    }
}
