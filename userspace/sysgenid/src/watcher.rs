// SPDX-License-Identifier: MIT OR Apache-2.0

//! A descriptor that becomes readable when the generation changes.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::io::read;
use rustix::io::write;

use crate::Error;
use crate::GENERATION_NODE;
use crate::Generation;
use crate::Result;
use crate::Status;
use crate::sys;

impl Error {
    /// Turns what the kernel said into an error that names the file and what was tried.
    pub(crate) fn io(action: &'static str, node: impl AsRef<Path>) -> impl Fn(Errno) -> Self {
        let node = node.as_ref().to_owned();
        move |errno| Self::Io {
            action,
            node: node.clone(),
            source: errno.into(),
        }
    }
}

/// One of the driver's two nodes.
pub(crate) struct Node {
    /// A call that only its driver knows, and that changes nothing.
    probe: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
}

impl Node {
    pub(crate) const GENERATION: Self = Self {
        // A watcher is untracked when it is opened.
        probe: |fd| sys::set_tracked(fd, false),
    };
    pub(crate) const ID: Self = Self {
        probe: |fd| sys::id_offset(fd).map(drop),
    };

    /// Opens the node at `path`.
    pub(crate) fn open(&self, path: &Path, writable: bool) -> Result<OwnedFd> {
        let access = if writable {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        let io = |action| Error::io(action, path);
        let fd = match open(path, access) {
            Ok(fd) => fd,
            // A node without its driver is one that is not there.
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::NOTDIR) => {
                return Err(Error::NoDevice { node: path.into() });
            }
            // The other node may be read only, whoever it is that asks.
            Err(Errno::ACCESS) if writable && self.is_another(path) => {
                return Err(not_the_device(path));
            }
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                return Err(Error::Forbidden {
                    node: path.into(),
                    source: errno.into(),
                });
            }
            Err(errno) => return Err(io("open")(errno)),
        };
        match (self.probe)(fd.as_fd()) {
            Ok(()) => Ok(fd),
            Err(Errno::NOTTY | Errno::INVAL) => Err(not_the_device(path)),
            Err(errno) => Err(io("look at")(errno)),
        }
    }

    /// Whether the node at `path` can be read, and is another one.
    fn is_another(&self, path: &Path) -> bool {
        let probed = open(path, OFlags::RDONLY).and_then(|fd| (self.probe)(fd.as_fd()));
        matches!(probed, Err(Errno::NOTTY | Errno::INVAL))
    }
}

fn open(path: &Path, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty())
}

fn not_the_device(path: &Path) -> Error {
    Error::NotTheDevice {
        node: path.into(),
        what: "does not know the driver's ioctls",
    }
}

/// One open `/dev/sysgenid`, for a program that wants to be told.
///
/// It is *acked* when it is opened. When the generation changes it becomes *outdated*: readable, for
/// `poll()` and the like, until the program has acknowledged. The order is:
///
/// 1. [`wait`](Watcher::wait), or an event loop with [`AsFd`], and then
///    [`outdated`](Watcher::outdated), which returns the generation;
/// 2. build anew what must be unique;
/// 3. [`ack`](Watcher::ack) that generation. If it has changed again, start again.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use std::time::Duration;
///
/// use sysgenid::Error;
/// use sysgenid::Watcher;
///
/// let watcher = Watcher::open()?;
/// # sysgenid::Overseer::open()?.trigger(0)?;
/// let mut generation = watcher.wait()?;
/// loop {
///     // … rebuild …
///     match watcher.ack(generation) {
///         Ok(()) => break,
///         Err(Error::Superseded { .. }) => generation = watcher.wait()?,
///         Err(error) => return Err(error),
///     }
/// }
/// assert_eq!(watcher.wait_timeout(Duration::ZERO)?, None);
/// # Ok(())
/// # });
/// ```
///
/// The descriptor is non-blocking and closed on `exec()`. Copies of it, and those in forked
/// processes, share one watcher: who acknowledges, does so for all of them.
#[derive(Debug)]
pub struct Watcher {
    fd: OwnedFd,
    node: PathBuf,
}

impl Watcher {
    /// Opens `/dev/sysgenid`.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// assert_eq!(watcher.outdated()?, None);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] where there is no `/dev/sysgenid`, [`Error::Forbidden`] where this process
    /// may not open it, [`Error::NotTheDevice`] where it is something else.
    pub fn open() -> Result<Self> {
        Self::open_at(GENERATION_NODE)
    }

    /// Opens the node at another place, as a container may have.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open_at("/dev/sysgenid")?;
    /// # drop(watcher);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::open`].
    pub fn open_at(node: impl AsRef<Path>) -> Result<Self> {
        let node = node.as_ref();
        Node::GENERATION
            .open(node, true)
            .map(|fd| Self::new(fd, node))
    }

    /// Of a descriptor that [`Node::open`] has returned.
    pub(crate) fn new(fd: OwnedFd, node: &Path) -> Self {
        Self {
            fd,
            node: node.to_owned(),
        }
    }

    fn io(&self, action: &'static str) -> impl Fn(Errno) -> Error {
        Error::io(action, &self.node)
    }

    pub(crate) fn map(&self) -> Result<sys::GenerationPage> {
        sys::GenerationPage::map(self.fd.as_fd()).map_err(self.io("map"))
    }

    /// The current generation if this watcher is outdated, and `None` if it is acked. Does not wait,
    /// and does not acknowledge.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// let new = sysgenid::Overseer::open()?.trigger(0)?;
    /// assert_eq!(watcher.outdated()?, Some(new));
    /// assert_eq!(watcher.outdated()?, Some(new), "until it is acknowledged");
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for what cannot happen on the device.
    pub fn outdated(&self) -> Result<Option<Generation>> {
        loop {
            let mut word = [0; 4];
            return match read(&self.fd, &mut word) {
                Ok(4) => Ok(Some(Generation::new(u32::from_ne_bytes(word)))),
                Ok(_) => Err(self.io("read")(Errno::IO)),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => Err(self.io("read")(errno)),
            };
        }
    }

    /// Sleeps until this watcher is outdated, and returns the generation.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// # let new = sysgenid::Overseer::open()?.trigger(0)?;
    /// let generation = watcher.wait()?;
    /// # assert_eq!(generation, new);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for what cannot happen on the device. A signal does not end the wait.
    pub fn wait(&self) -> Result<Generation> {
        loop {
            if let Some(generation) = self.wait_until(None)? {
                return Ok(generation);
            }
        }
    }

    /// As [`Watcher::wait`], for so long at most; `None` when the time is over.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use std::time::Duration;
    ///
    /// let watcher = sysgenid::Watcher::open()?;
    /// assert_eq!(watcher.wait_timeout(Duration::from_millis(10))?, None);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Generation>> {
        // A time that no clock reaches is none.
        self.wait_until(Instant::now().checked_add(limit))
    }

    /// `None` when the time is over.
    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<Generation>> {
        loop {
            if let Some(generation) = self.outdated()? {
                return Ok(Some(generation));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            // A length that the kernel's type does not hold is no limit either.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.io("wait for")(errno)),
            }
        }
    }

    /// Acknowledges `generation`: everything that depends on it has been rebuilt.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Error;
    /// use sysgenid::Generation;
    ///
    /// let watcher = sysgenid::Watcher::open()?;
    /// let new = sysgenid::Overseer::open()?.trigger(0)?;
    /// watcher.ack(new)?;
    /// let old = Generation::new(new.get() - 1);
    /// assert!(matches!(watcher.ack(old), Err(Error::Superseded { .. })));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] if it is not the current generation: nothing was acknowledged.
    pub fn ack(&self, generation: Generation) -> Result<()> {
        loop {
            return match write(&self.fd, &generation.get().to_ne_bytes()) {
                Ok(_) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::INVAL) => Err(Error::Superseded { acked: generation }),
                Err(errno) => Err(self.io("acknowledge on")(errno)),
            };
        }
    }

    /// Asks overseers to wait for this watcher, or no longer to do so. A watcher is always open for
    /// writing, without which the driver would refuse.
    ///
    /// A program that does so must acknowledge each change soon: the system may be held up until it
    /// has. Closing the watcher ends it.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// watcher.set_tracked(true)?;
    /// assert!(watcher.status()?.tracked());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for what cannot happen on the device.
    pub fn set_tracked(&self, tracked: bool) -> Result<()> {
        sys::set_tracked(self.fd.as_fd(), tracked).map_err(self.io("set the tracking of"))
    }

    /// What the driver says of this watcher and of the generation, from `/proc/thread-self/fdinfo`: a thread
    /// may have a table of descriptors of its own.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// println!("generation {}, by {}", status.generation(), status.source());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where there is no `/proc`; [`Error::OldDriver`] where the driver is one that does
    /// not say this.
    pub fn status(&self) -> Result<Status> {
        let path = format!("/proc/thread-self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            action: "read",
            node: path.into(),
            source,
        })?;
        Status::parse(&text)
    }
}

impl AsFd for Watcher {
    /// For any event loop: it polls readable while this watcher is outdated.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Watcher> for OwnedFd {
    /// For who reads and acknowledges by himself.
    fn from(watcher: Watcher) -> Self {
        watcher.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_there_is_told_from_one_that_is_something_else() {
        let error = Watcher::open_at("/no/such/node").expect_err("it is not there");
        assert!(matches!(error, Error::NoDevice { .. }), "{error}");
        assert!(error.to_string().contains("modprobe"), "{error}");
        for other in ["/dev/null", "/dev/zero"] {
            let error = Watcher::open_at(other).expect_err("it is another device");
            assert!(matches!(error, Error::NotTheDevice { .. }), "{error}");
        }
    }
}
