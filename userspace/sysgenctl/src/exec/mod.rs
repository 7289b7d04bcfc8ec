// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl exec`

mod child;
#[cfg(test)]
mod exec_tests;
mod notify;
mod received;

pub use self::received::PASSED_ON;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use sd_notify::NotifyState;
use signal_hook::consts::SIGCHLD;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::signal_name;
use sysgenid::Error;
use sysgenid::Generation;
use sysgenid::Overseer;
use sysgenid::Watcher;

use self::child::Child;
use self::child::status_of;
use self::notify::Message;
use self::notify::Socket;
use self::received::Received;
use crate::cli::ExecArguments;
use crate::command::End;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::output::plain;
use crate::wait::SLICE;
use crate::watch::Change;
use crate::watch::Changes;

/// How often is looked whether what was killed has ended.
const NAP: Duration = Duration::from_millis(50);

/// Runs the program until it ends. Returns what to exit with.
pub fn run(arguments: &ExecArguments) -> Result<u8, Failure> {
    if let Some(parent) = arguments.child_of {
        return child::become_program(parent, &arguments.command);
    }
    let driver = Driver::open()?;
    Exec::new(arguments, driver, child::through_self(&arguments.command))?.run()
}

/// What there is to know of the generation. The unit tests have one without a kernel.
trait Device {
    /// Readable when there may be something to look for.
    fn fd(&self) -> BorrowedFd<'_>;
    /// The generation that was told last.
    fn told(&self) -> Generation;
    /// The change that has not been told.
    fn look(&mut self) -> Result<Option<(Change, Generation)>, Failure>;
    /// Whether no change is due, or none any more within that time.
    fn settle(&self, limit: Duration) -> Result<bool, Failure>;
    /// Acknowledges, unless the generation has changed again.
    fn ack(&self, generation: Generation) -> Result<bool, Failure>;
}

struct Driver {
    changes: Changes,
    overseer: Overseer,
}

impl Driver {
    /// From here on, it is waited for.
    fn open() -> Result<Self, Failure> {
        let changes = Changes::new(Watcher::open()?)?;
        changes.track()?;
        Ok(Self {
            changes,
            overseer: Overseer::open()?,
        })
    }
}

impl Device for Driver {
    fn fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    fn told(&self) -> Generation {
        self.changes.told()
    }

    fn look(&mut self) -> Result<Option<(Change, Generation)>, Failure> {
        self.changes.look()
    }

    fn settle(&self, limit: Duration) -> Result<bool, Failure> {
        match self.overseer.settle(Some(limit)) {
            Ok(()) => Ok(true),
            Err(Error::NotSettled { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn ack(&self, generation: Generation) -> Result<bool, Failure> {
        self.changes.ack(generation)
    }
}

/// How far the program is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// It is not known to be up, by what it does for this generation.
    Coming {
        generation: Generation,
        until: Instant,
        /// It was sent a signal, and has not said that it acts upon it.
        unheard: Option<Sent>,
    },
    Up,
    /// It is to end, and is killed then.
    Stopping {
        why: Why,
        until: Instant,
    },
}

/// When a signal was sent, by the monotonic clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sent(u64);

/// Why it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Change,
    /// It was not up in time.
    Late,
}

struct Exec<'a, D> {
    arguments: &'a ExecArguments,
    device: D,
    /// How the program is started.
    command: Vec<OsString>,
    signals: Received,
    socket: Option<Socket>,
    child: Option<Child>,
    phase: Phase,
    /// The last one that was acknowledged.
    acked: Generation,
    /// Somebody wants it to end.
    is_ending: bool,
    /// Nobody has been told yet that it is up.
    is_new: bool,
}

impl<'a, D: Device> Exec<'a, D> {
    fn new(
        arguments: &'a ExecArguments,
        device: D,
        command: Vec<OsString>,
    ) -> Result<Self, Failure> {
        let socket = arguments.notify.then(Socket::new).transpose();
        Ok(Self {
            arguments,
            command,
            signals: Received::new().map_err(Failure::io("take signals"))?,
            socket: socket.map_err(Failure::io("listen to the program"))?,
            child: None,
            phase: Phase::Up,
            acked: device.told(),
            device,
            is_ending: false,
            is_new: true,
        })
    }

    fn run(&mut self) -> Result<u8, Failure> {
        if let Some(status) = self.start()? {
            return Ok(status);
        }
        loop {
            self.sleep()?;
            if let Some(status) = self.step()? {
                return Ok(status);
            }
        }
    }

    /// Does what there is to do. Returns what to exit with, if that is all.
    fn step(&mut self) -> Result<Option<u8>, Failure> {
        for signal in self.signals.pending() {
            self.take(signal);
        }
        // What it said before it ended, and before the generation changed, comes first.
        self.hear()?;
        if let Some(end) = self.ended()? {
            return self.after(&end);
        }
        if let Some((change, generation)) = self.device.look()? {
            anstream::eprintln!("sysgenctl: {change}");
            self.changed(generation);
        }
        self.look_at_the_clock()?;
        Ok(None)
    }

    /// Sleeps until there is something to do.
    fn sleep(&self) -> Result<(), Failure> {
        let until = match self.phase {
            Phase::Up => None,
            Phase::Coming { until, .. } | Phase::Stopping { until, .. } => Some(until),
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // It may not be more than the kernel can count.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![self.signals.as_fd(), self.device.fd()];
        fds.extend(self.socket.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Failure::io("wait for a change")(errno.into())),
        }
    }

    /// Starts the program, after what is due. Returns what to exit with, if it is not wanted any more.
    fn start(&mut self) -> Result<Option<u8>, Failure> {
        let until = later(self.arguments.start_timeout);
        while !self.device.settle(SLICE)? {
            for signal in self.signals.pending() {
                self.take(signal);
                if self.is_ending {
                    return Ok(Some(status_of(&End::Killed(signal))));
                }
            }
            if until <= Instant::now() {
                return Err(Failure::TimedOut(format!(
                    "a change of the generation is due, and has not come in time: {} is not started",
                    self.name()
                )));
            }
        }
        self.device.look()?;
        let name = self.socket.as_ref().map(Socket::name);
        let child = Child::start(&self.command, name);
        self.child = Some(child.map_err(Failure::io(format!("start {}", self.name())))?);
        self.comes(None);
        Ok(None)
    }

    fn comes(&mut self, unheard: Option<Sent>) {
        let limit = if self.socket.is_some() {
            self.arguments.start_timeout
        } else {
            self.arguments.up_after
        };
        self.phase = Phase::Coming {
            generation: self.device.told(),
            until: later(limit),
            unheard,
        };
    }

    /// Somebody has sent us a signal.
    fn take(&mut self, signal: i32) {
        // Where nothing can be told to end, nothing is started any more.
        let is_stopping = matches!(self.phase, Phase::Stopping { .. }) || self.child.is_none();
        let asks_to_end = signal == SIGTERM || (is_stopping && matches!(signal, SIGINT | SIGQUIT));
        self.is_ending |= asks_to_end;
        if signal != SIGCHLD {
            self.send(signal);
        }
    }

    fn send(&self, signal: i32) {
        if let (Some(child), Some(signal)) = (&self.child, Signal::from_named_raw(signal)) {
            child.signal(signal);
        }
    }

    /// What the program says.
    fn hear(&mut self) -> Result<(), Failure> {
        while let (Some(socket), Some(child)) = (&self.socket, &self.child) {
            let message = socket.receive(child.pid());
            match message.map_err(Failure::io("hear what the program says"))? {
                Some(message) => self.heard(&message)?,
                None => break,
            }
        }
        Ok(())
    }

    fn heard(&mut self, message: &Message) -> Result<(), Failure> {
        if let Phase::Coming { unheard, .. } = &mut self.phase {
            let is_for = |sent: Sent| message.at.is_none_or(|at| at >= sent.0);
            if message.is_reloading && unheard.is_some_and(is_for) {
                *unheard = None;
            } else if message.is_ready && unheard.is_none() {
                self.is_up()?;
            }
        }
        message.pass_on();
        Ok(())
    }

    /// The generation has changed.
    fn changed(&mut self, generation: Generation) {
        let name = self.name();
        match (self.phase, self.arguments.signal) {
            (Phase::Up, Some(signal)) => self.reload(signal),
            // It is told of this one when it has done with the one before.
            (Phase::Coming { .. }, Some(_)) | (Phase::Stopping { .. }, _) => {}
            (Phase::Up | Phase::Coming { .. }, None) => {
                anstream::eprintln!("sysgenctl: restarting {name} for generation {generation}");
                self.stop(Why::Change);
            }
        }
    }

    fn reload(&mut self, signal: i32) {
        if self.is_ending {
            return;
        }
        anstream::eprintln!(
            "sysgenctl: sending {} to {} for generation {}",
            signal_name(signal).unwrap_or("a signal"),
            self.name(),
            self.device.told()
        );
        // What it says before it has got that is no answer.
        let sent = self.socket.is_some().then(now);
        self.comes(sent);
        self.send(signal);
    }

    fn stop(&mut self, why: Why) {
        self.send(self.arguments.stop_signal);
        self.phase = Phase::Stopping {
            why,
            until: later(self.arguments.stop_timeout),
        };
    }

    /// The program is up.
    fn is_up(&mut self) -> Result<(), Failure> {
        let Phase::Coming { generation, .. } = self.phase else {
            return Ok(());
        };
        self.phase = Phase::Up;
        if generation != self.device.told() {
            if let Some(signal) = self.arguments.signal {
                self.reload(signal);
            }
            return Ok(());
        }
        // Whoever is waiting for that goes on at once, so this is said before it.
        if self.acked != generation {
            anstream::eprintln!(
                "sysgenctl: {} is up, and generation {generation} is acknowledged",
                self.name()
            );
        }
        // Where it has changed again, there is more to do.
        if self.device.ack(generation)? {
            self.acked = generation;
        }
        if self.is_new && self.socket.is_none() {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
        self.is_new = false;
        Ok(())
    }

    /// The time may be over.
    fn look_at_the_clock(&mut self) -> Result<(), Failure> {
        match self.phase {
            Phase::Coming { until, .. } if until <= Instant::now() => {
                if self.socket.is_none() {
                    return self.is_up();
                }
                anstream::eprintln!(
                    "sysgenctl: {}: it is made to end",
                    self.late(self.device.told())
                );
                self.stop(Why::Late);
            }
            Phase::Stopping { why, until } if until <= Instant::now() => {
                if let Some(child) = &self.child {
                    child.kill_all();
                }
                let until = later(NAP);
                self.phase = Phase::Stopping { why, until };
            }
            _ => {}
        }
        Ok(())
    }

    /// How the program has ended, if it has, and nothing is left of what was to end.
    fn ended(&mut self) -> Result<Option<End>, Failure> {
        let Some(child) = self.child.take() else {
            return Ok(None);
        };
        let failed = || Failure::io("wait for the program");
        if !child.has_ended().map_err(failed())? {
            child.reap_others();
            self.child = Some(child);
            return Ok(None);
        }
        if let Phase::Stopping { why, .. } = self.phase {
            // What it has left running is of the old generation as well.
            if child.has_others() {
                child.kill_all();
                self.child = Some(child);
                let until = later(NAP);
                self.phase = Phase::Stopping { why, until };
                return Ok(None);
            }
        }
        child.reap().map(Some).map_err(failed())
    }

    /// What to do when it has ended.
    fn after(&mut self, end: &End) -> Result<Option<u8>, Failure> {
        let status = status_of(end);
        let generation = self.device.told();
        match self.phase {
            Phase::Stopping { why: Why::Late, .. } => Err(Failure::TimedOut(self.late(generation))),
            Phase::Stopping { .. } if !self.is_ending => self.start(),
            Phase::Coming { .. } if self.acked != generation && !self.is_ending => {
                let failure = format!(
                    "{} has ended before it was up ({end}), and generation {generation} is not \
                     acknowledged",
                    self.name()
                );
                anstream::eprintln!("sysgenctl: {failure}");
                Ok(Some(status.max(Exit::Failure as u8)))
            }
            _ => Ok(Some(status)),
        }
    }

    fn late(&self, generation: Generation) -> String {
        let limit = humantime::format_duration(self.arguments.start_timeout);
        let acked = if self.acked == generation {
            String::new()
        } else {
            format!(", and generation {generation} is not acknowledged")
        };
        format!(
            "{} has not said within {limit} that it is up{acked}",
            self.name()
        )
    }

    /// The program, for people.
    fn name(&self) -> String {
        let program = Path::new(&self.arguments.command[0]);
        let name = program.file_name().unwrap_or(program.as_os_str());
        plain(&name.to_string_lossy())
    }
}

fn later(limit: Duration) -> Instant {
    // Beyond any clock is a year.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + limit.min(YEAR)
}

/// The clock that programs say times by.
fn now() -> Sent {
    let time = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    Sent(u64::try_from(time.as_micros()).unwrap_or_default())
}
