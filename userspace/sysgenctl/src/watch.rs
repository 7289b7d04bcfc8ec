// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl watch`

use std::fmt;
use std::fmt::Display;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::io::Errno;
use serde::Serialize;
use sysgenid::Error;
use sysgenid::Generation;
use sysgenid::Watcher;

use crate::cli::WatchArguments;
use crate::command;
use crate::command::End;
use crate::command::Ended;
use crate::exit::Failure;
use crate::output::Output;
use crate::output::plain;
use crate::output::time;

/// The generation has changed.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename = "change")]
pub struct Change {
    time: String,
    old: u32,
    new: u32,
    /// What changed it.
    pub source: String,
    /// Whether the kernel was reseeded with the hypervisor's present ID in it.
    reseeded: bool,
}

#[cfg(test)]
impl Change {
    /// One of no importance.
    pub fn for_tests(old: u32, new: u32) -> Self {
        Self {
            time: String::new(),
            old,
            new,
            source: String::new(),
            reseeded: true,
        }
    }
}

/// The command for a generation has ended.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename = "command")]
struct CommandEnded {
    generation: u32,
    /// Whether this watcher has acknowledged it.
    acked: bool,
    #[serde(flatten)]
    ended: Ended,
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            old,
            new,
            source,
            reseeded,
        } = self;
        let not = if *reseeded { "" } else { "not " };
        write!(
            f,
            "{time} generation {old} -> {new}, source {source}, {not}reseeded"
        )
    }
}

/// Tells of each change, once.
///
/// A watcher that has not acknowledged stays readable. So that one whose command has failed can
/// still sleep until the next change, this waits for edges: there is one for each change.
pub struct Changes {
    watcher: Watcher,
    epoll: OwnedFd,
    /// The generation that was told last.
    told: Generation,
}

impl Changes {
    /// Tells of those that come from when the watcher was opened.
    pub fn new(watcher: Watcher) -> Result<Self, Failure> {
        // What the watcher acked when it was opened.
        let told = watcher.status()?.acked();
        let new = || -> Result<_, Errno> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, &watcher, epoll::EventData::new_u64(0), flags)?;
            Ok(epoll)
        };
        let epoll = new().map_err(|errno| Failure::io("watch /dev/sysgenid")(errno.into()))?;
        Ok(Self {
            watcher,
            epoll,
            told,
        })
    }

    /// Acknowledges on its watcher, unless the generation has changed again.
    pub fn ack(&self, generation: Generation) -> Result<bool, Failure> {
        ack(&self.watcher, generation)
    }

    /// Asks that it be waited for.
    pub fn track(&self) -> Result<(), Failure> {
        Ok(self.watcher.set_tracked(true)?)
    }

    /// The generation that was told last, or that of when the watcher was opened.
    pub fn told(&self) -> Generation {
        self.told
    }

    /// Sleeps until there is a change that has not been told.
    pub fn next(&mut self) -> Result<(Change, Generation), Failure> {
        loop {
            self.wait(None)?;
            if let Some(change) = self.untold()? {
                return Ok(change);
            }
        }
    }

    /// The change that has not been told, if there is one.
    pub fn look(&mut self) -> Result<Option<(Change, Generation)>, Failure> {
        self.wait(Some(&Timespec::default()))?;
        self.untold()
    }

    /// Takes the edge, if there is one within that time.
    fn wait(&self, limit: Option<&Timespec>) -> Result<(), Failure> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        match epoll::wait(&self.epoll, &mut events, limit) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Failure::io("wait for a change")(errno.into())),
        }
    }

    fn untold(&mut self) -> Result<Option<(Change, Generation)>, Failure> {
        let status = self.watcher.status()?;
        let (old, new) = (self.told, status.generation());
        // Of changes that come together, the last one is seen, and the edge of the others is
        // left over.
        if old == new {
            return Ok(None);
        }
        self.told = new;
        let change = Change {
            time: time(SystemTime::now()),
            old: old.get(),
            new: new.get(),
            source: status.source().to_owned(),
            reseeded: status.reseeded(),
        };
        Ok(Some((change, new)))
    }
}

/// Readable when there may be a change.
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Watches, until the first change is dealt with or for ever.
pub fn run(arguments: &WatchArguments, output: Output) -> Result<(), Failure> {
    let watcher = Watcher::open()?;
    watcher.set_tracked(arguments.track)?;
    let mut changes = Changes::new(watcher)?;
    let mut acked = changes.told;
    loop {
        let (change, generation) = changes.next()?;
        output.show(&change)?;
        let ended = execute(arguments, acked, generation, output);
        let succeeded = ended.as_ref().is_none_or(|(end, _)| end.succeeded());
        let is_acked = succeeded && ack(&changes.watcher, generation)?;
        if is_acked {
            acked = generation;
        }
        if let Some((end, took)) = ended {
            output.json(&CommandEnded {
                generation: generation.get(),
                acked: is_acked,
                ended: end.ended(took),
            })?;
            if !succeeded {
                let failure = Failure::Command(format!(
                    "the command {} failed for generation {generation}: {end}",
                    plain(&arguments.exec[0].to_string_lossy())
                ));
                if arguments.once {
                    return Err(failure);
                }
                anstream::eprintln!(
                    "sysgenctl: {failure}; this watcher stays outdated until the command succeeds \
                     for a later one"
                );
            }
        }
        if arguments.once && is_acked {
            return Ok(());
        }
    }
}

/// Runs the command, if there is one.
fn execute(
    arguments: &WatchArguments,
    acked: Generation,
    generation: Generation,
    output: Output,
) -> Option<(End, Duration)> {
    let (program, rest) = arguments.exec.split_first()?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("SYSGENID_OLD", acked.to_string())
        .env("SYSGENID_NEW", generation.to_string());
    Some(command::run(&mut command, output))
}

/// Acknowledges, unless the generation has changed again: then that change is next.
fn ack(watcher: &Watcher, generation: Generation) -> Result<bool, Failure> {
    match watcher.ack(generation) {
        Ok(()) => Ok(true),
        Err(Error::Superseded { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        Change {
            time: "2026-11-25T10:20:30Z".into(),
            old: 3,
            new: 5,
            source: "vmfork".into(),
            reseeded: true,
        }
    }

    #[test]
    fn a_change_is_a_line() {
        assert_eq!(
            change().to_string(),
            "2026-11-25T10:20:30Z generation 3 -> 5, source vmfork, reseeded"
        );
        let mut change = change();
        change.reseeded = false;
        let text = change.to_string();
        assert!(text.ends_with(", source vmfork, not reseeded"), "{text}");
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = serde_json::to_value(change()).expect("it is plain data");
        let expected = serde_json::json!({
            "event": "change",
            "time": "2026-11-25T10:20:30Z",
            "old": 3,
            "new": 5,
            "source": "vmfork",
            "reseeded": true,
        });
        assert_eq!(json, expected);
        let ended = CommandEnded {
            generation: 5,
            acked: false,
            ended: End::Killed(9).ended(Duration::from_millis(250)),
        };
        let json = serde_json::to_value(ended).expect("it is plain data");
        let expected = serde_json::json!({
            "event": "command",
            "generation": 5,
            "acked": false,
            "succeeded": false,
            "status": null,
            "signal": 9,
            "error": null,
            "seconds": 0.25,
        });
        assert_eq!(json, expected);
    }
}
