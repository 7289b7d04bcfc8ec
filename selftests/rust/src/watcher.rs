// SPDX-License-Identifier: MIT OR Apache-2.0

//! A watcher: one open `/dev/sysgenid`, and every call that can be made on it.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{self, Errno, ReadWriteFlags, preadv2, read, write};
use rustix::thread::{Pid, gettid};

use crate::sys;

/// Where the driver's node is.
pub const NODE: &str = "/dev/sysgenid";

/// Long enough for a guest without hardware virtualization on a loaded host. It makes a failure of
/// a hang, and asserts nothing about speed.
pub const LIMIT: Duration = Duration::from_secs(20);

/// One open file description of the node.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl Watcher {
    /// Opens the node for reading and writing, blocking.
    ///
    /// # Errors
    ///
    /// Whatever `open` answers.
    pub fn open() -> io::Result<Self> {
        Self::open_with(OFlags::RDWR)
    }

    /// Opens the node with these flags.
    ///
    /// # Errors
    ///
    /// Whatever `open` answers.
    pub fn open_with(flags: OFlags) -> io::Result<Self> {
        open(NODE, flags | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// The current generation; sleeps while this watcher is acked.
    ///
    /// # Errors
    ///
    /// Whatever `read` answers, and `EIO` where it is not four bytes.
    pub fn read(&self) -> io::Result<u32> {
        let mut word = [0; 4];
        match read(&self.0, &mut word)? {
            4 => Ok(u32::from_ne_bytes(word)),
            _ => Err(Errno::IO),
        }
    }

    /// As [`Watcher::read`], but `EAGAIN` where that would sleep.
    ///
    /// # Errors
    ///
    /// Whatever `preadv2` answers, and `EIO` where it is not four bytes.
    pub fn read_nowait(&self) -> io::Result<u32> {
        let mut word = [0; 4];
        // The offset -1 asks for no position at all, as read() does.
        let len = preadv2(
            &self.0,
            &mut [IoSliceMut::new(&mut word)],
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        )?;
        match len {
            4 => Ok(u32::from_ne_bytes(word)),
            _ => Err(Errno::IO),
        }
    }

    /// Confirms `generation`.
    ///
    /// # Errors
    ///
    /// Whatever `write` answers: `EINVAL` where this is not the current generation.
    pub fn ack(&self, generation: u32) -> io::Result<()> {
        match write(&self.0, &generation.to_ne_bytes())? {
            4 => Ok(()),
            _ => Err(Errno::IO),
        }
    }

    /// The events there are, after a wait of at most `timeout` (`None` for no limit).
    ///
    /// # Errors
    ///
    /// Whatever `poll` answers.
    pub fn poll(&self, timeout: Option<Duration>) -> io::Result<PollFlags> {
        let wanted = PollFlags::IN | PollFlags::RDNORM | PollFlags::OUT | PollFlags::PRI;
        let mut fds = [PollFd::new(&self.0, wanted)];
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| Errno::INVAL)?;
        poll(&mut fds, timeout.as_ref())?;
        Ok(fds[0].revents())
    }

    /// Whether this watcher is outdated at this moment, as `poll` tells.
    ///
    /// # Errors
    ///
    /// Whatever `poll` answers, and `EIO` for events that the contract does not know.
    pub fn is_outdated(&self) -> io::Result<bool> {
        let events = self.poll(Some(Duration::ZERO))?;
        if events.is_empty() {
            Ok(false)
        } else if events == PollFlags::IN | PollFlags::RDNORM {
            Ok(true)
        } else {
            Err(Errno::IO)
        }
    }

    /// Maps the page with the generation.
    ///
    /// # Errors
    ///
    /// Whatever `mmap` answers.
    pub fn map(&self) -> io::Result<sys::Page> {
        sys::Page::map(self.0.as_fd())
    }

    /// Asks to be waited for, or no longer.
    ///
    /// # Errors
    ///
    /// Whatever the ioctl answers.
    pub fn set_tracking(&self, on: bool) -> io::Result<()> {
        sys::ioctl_by_value::<{ sys::SET_WATCHER_TRACKING }>(self.0.as_fd(), usize::from(on))
    }

    /// Waits until no tracked watcher is outdated, for at most `timeout_ms` (0 for no limit).
    ///
    /// # Errors
    ///
    /// `ETIME` at the timeout; `EINTR` on a signal, and where this watcher is outdated or becomes
    /// so.
    pub fn wait_watchers(&self, timeout_ms: usize) -> io::Result<()> {
        sys::ioctl_by_value::<{ sys::WAIT_WATCHERS }>(self.0.as_fd(), timeout_ms)
    }

    /// Changes the generation to `least` or, where that is not greater, to the next one.
    ///
    /// # Errors
    ///
    /// `EACCES` without the privilege; `EINVAL` for more than 32 bits.
    pub fn trigger(&self, least: usize) -> io::Result<()> {
        sys::ioctl_by_value::<{ sys::TRIGGER_GEN_UPDATE }>(self.0.as_fd(), least)
    }

    /// What `/proc` says about this watcher.
    ///
    /// # Errors
    ///
    /// An `EIO` where a line is missing, or is not as the contract has it.
    pub fn fdinfo(&self) -> io::Result<FdInfo> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        FdInfo::parse(&text).ok_or(Errno::IO)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The generation that a change with no wish of its own leads to.
pub fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// The lines of `fdinfo` that belong to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdInfo {
    /// The current generation.
    pub generation: u32,
    /// The generation that this watcher acked last.
    pub acked: u32,
    /// Whether this watcher is outdated.
    pub outdated: bool,
    /// Whether this watcher is tracked.
    pub tracked: bool,
    /// Tracked watchers, in all.
    pub watchers: u64,
    /// Tracked and outdated watchers, in all.
    pub outdated_watchers: u64,
    /// What caused the last change.
    pub source: String,
    /// The number of changes since the driver was loaded.
    pub epoch: u64,
    /// Whether the random number generator was reseeded with the answered ID in it.
    pub reseeded: bool,
    /// Whether the hypervisor has asked for another change.
    pub pending: bool,
}

impl FdInfo {
    /// Reads `key:\tvalue` lines, and accepts each key once, in any order.
    fn parse(text: &str) -> Option<Self> {
        let field = |key: &str| {
            let mut values = text
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            let value = values.next()?;
            values.next().is_none().then_some(value)
        };
        let flag = |key| match field(key)? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        Some(Self {
            generation: field("sysgenid-generation")?.parse().ok()?,
            acked: field("sysgenid-acked")?.parse().ok()?,
            outdated: flag("sysgenid-outdated")?,
            tracked: flag("sysgenid-tracked")?,
            watchers: field("sysgenid-watchers")?.parse().ok()?,
            outdated_watchers: field("sysgenid-outdated-watchers")?.parse().ok()?,
            source: field("sysgenid-source")?.to_owned(),
            epoch: field("sysgenid-epoch")?.parse().ok()?,
            reseeded: flag("sysgenid-reseeded")?,
            pending: flag("sysgenid-pending")?,
        })
    }
}

/// Waits until `ready` says so; `false` at the limit.
pub fn wait_for(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tells which thread this is, to one that wants to see it asleep.
pub fn this_thread() -> Pid {
    gettid()
}

/// Whether the thread sleeps in a system call at this moment, as `/proc` tells.
pub fn is_asleep(thread: Pid) -> bool {
    // "running" while it runs, else the number of the call first; -1 is a page fault.
    let path = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pos:\t0\nflags:\t02\nsysgenid-generation:\t7\nsysgenid-acked:\t6\n\
        sysgenid-outdated:\t1\nsysgenid-tracked:\t0\nsysgenid-watchers:\t3\n\
        sysgenid-outdated-watchers:\t2\nsysgenid-source:\tvmfork\n\
        sysgenid-epoch:\t9\nsysgenid-reseeded:\t1\nsysgenid-pending:\t1\n";

    #[test]
    fn fdinfo_as_the_contract_has_it() {
        let info = FdInfo::parse(TEXT).expect("all keys are there");
        assert_eq!(info.generation, 7);
        assert_eq!(info.acked, 6);
        assert!(info.outdated);
        assert!(!info.tracked);
        assert_eq!(info.watchers, 3);
        assert_eq!(info.outdated_watchers, 2);
        assert_eq!(info.source, "vmfork");
        assert_eq!(info.epoch, 9);
        assert!(info.reseeded);
        assert!(info.pending);
    }

    #[test]
    fn fdinfo_with_a_key_missing_or_twice() {
        assert_eq!(
            FdInfo::parse(&TEXT.replace("sysgenid-acked", "acked")),
            None
        );
        assert_eq!(
            FdInfo::parse(&format!("{TEXT}sysgenid-tracked:\t0\n")),
            None
        );
    }

    #[test]
    fn generation_never_goes_back_to_zero() {
        assert_eq!(next_generation(0), 1);
        assert_eq!(next_generation(u32::MAX), 1);
    }
}
