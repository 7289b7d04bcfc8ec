// SPDX-License-Identifier: MIT OR Apache-2.0

//! The generation and the hypervisor's ID, mapped.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::Error;
use crate::Fresh;
use crate::GENERATION_NODE;
use crate::Generation;
use crate::Guard;
use crate::ID_NODE;
use crate::Result;
use crate::VmId;
use crate::sys;
use crate::watcher::Node;
use crate::watcher::Watcher;

/// How long [`SysGenId::settle`] waits for the kernel, unless [`Options::limit`] says otherwise.
///
/// The change follows the resume by some tens of milliseconds, by 170 ms where it was slowest.
const LIMIT: Duration = Duration::from_secs(5);

/// A wait is cut into pieces of this length. Nothing depends on it while descriptors behave; a
/// descriptor that is shared with a forked process can be acknowledged by that one.
const PIECE: Duration = Duration::from_millis(100);

/// How long to sleep where nothing can wake this program up.
const NAP: Duration = Duration::from_millis(1);

/// The generation and, where it may be seen, the hypervisor's ID: both mapped, so that a look is
/// three loads and no system call.
///
/// It is cheap to clone and to share between threads, and goes on working in a forked process, after
/// `chroot()`, and after privileges were dropped. It holds a descriptor of each node.
///
/// ```
/// # fn main() -> Result<(), sysgenid::Error> {
/// use sysgenid::SysGenId;
///
/// let sysgenid = SysGenId::open()?;
/// let mut seen = sysgenid.look();
/// for _ in 0..3 {
///     // Before each use of what must be unique:
///     if sysgenid.look() != seen {
///         let fresh = sysgenid.settle(seen);
///         // … rebuild it from fresh.fill() …
///         seen = fresh.seen();
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SysGenId(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    page: sys::GenerationPage,
    /// To sleep on until the generation changes. Untracked: nobody waits for it.
    watcher: Option<Watcher>,
    /// Where to open one when there is something to wait for, if none is held.
    node: Option<PathBuf>,
    id: Option<sys::IdPage>,
    id_page: IdPage,
    limit: Duration,
}

/// Whether the hypervisor's page can be looked at.
#[non_exhaustive]
#[derive(Debug)]
pub enum IdPage {
    /// It is mapped: a clone is noticed at the first look after its resume.
    Mapped,
    /// There is none: no such device in this machine, or one whose page user space may not see.
    Absent,
    /// The node is there, and this process may not open it. Its mode is 0400 unless the administrator
    /// (or a package's udev rule) has opened it to others.
    Forbidden(Error),
    /// The node can be opened, but not mapped.
    Failed(Error),
    /// [`Options::without_id`] said not to look.
    NotWanted,
}

/// What was seen in one look: the generation and, where the page is mapped, the hypervisor's ID.
///
/// Two looks that are equal mean that the machine was not cloned between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    id: Option<VmId>,
    generation: Generation,
}

impl Seen {
    /// What there is to see without a device: always the same.
    pub(crate) const NOTHING: Self = Self::new(Generation::new(0), None);

    /// What was seen in a look that was remembered outside of this program, or on the other side of an
    /// interface for another language.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use sysgenid::Seen;
    ///
    /// let seen = sysgenid::SysGenId::open()?.look();
    /// assert_eq!(Seen::new(seen.generation(), seen.id()), seen);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn new(generation: Generation, id: Option<VmId>) -> Self {
        Self { id, generation }
    }

    /// The generation.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let seen = sysgenid::SysGenId::open()?.look();
    /// println!("generation {}", seen.generation());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The hypervisor's ID, where its page is mapped.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let seen = sysgenid::Options::new().without_id().open()?.look();
    /// assert_eq!(seen.id(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn id(&self) -> Option<VmId> {
        self.id
    }
}

/// How to open: other nodes, another limit. [`SysGenId::open`] does it with none of that.
///
/// ```
/// # fn main() -> Result<(), sysgenid::Error> {
/// use std::time::Duration;
///
/// use sysgenid::Options;
///
/// let sysgenid = Options::new().limit(Duration::from_secs(1)).open()?;
/// # drop(sysgenid);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    generation_node: PathBuf,
    id_node: Option<PathBuf>,
    descriptor: bool,
    limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generation_node: GENERATION_NODE.into(),
            id_node: Some(ID_NODE.into()),
            descriptor: true,
            limit: LIMIT,
        }
    }
}

impl Options {
    /// The usual ones: `/dev/sysgenid`, `/dev/vmgenid`, and a limit of five seconds.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another place for the node `/dev/sysgenid`, as a container may have.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().generation_node("/dev/sysgenid").open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn generation_node(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.generation_node);
        self
    }

    /// Another place for the node `/dev/vmgenid`.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().id_node("/no/such/node").open()?;
    /// assert!(matches!(sysgenid.id_page(), sysgenid::IdPage::Absent));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id_node(mut self, path: impl AsRef<Path>) -> Self {
        self.id_node = Some(path.as_ref().to_owned());
        self
    }

    /// Looks at the generation only, and not at the hypervisor's ID.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().without_id().open()?;
    /// assert!(matches!(sysgenid.id_page(), sysgenid::IdPage::NotWanted));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn without_id(mut self) -> Self {
        self.id_node = None;
        self
    }

    /// Holds no descriptor, only the mappings: `/dev/sysgenid` is opened again when there is a change to
    /// wait for. If it cannot be opened then, waiting is less exact.
    ///
    /// For a library inside a program that it knows nothing of. Daemons close descriptors that they did
    /// not open, and the number may then belong to a file of the program.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().without_descriptor().open()?;
    /// let seen = sysgenid.look();
    /// assert!(sysgenid.settle(seen).is_confirmed());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn without_descriptor(mut self) -> Self {
        self.descriptor = false;
        self
    }

    /// How long [`SysGenId::settle`] waits for the kernel before it goes on without.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use std::time::Duration;
    ///
    /// let sysgenid = sysgenid::Options::new().limit(Duration::from_secs(2)).open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Opens and maps the nodes.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::Options::new().open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] where there is no `/dev/sysgenid`, [`Error::Forbidden`] where this process
    /// may not open it, [`Error::NotTheDevice`] where it is something else. What keeps the
    /// hypervisor's page from being mapped is no error: [`SysGenId::id_page`] says it.
    pub fn open(self) -> Result<SysGenId> {
        let watcher = watcher(&self.generation_node)?;
        let page = watcher.map()?;
        let (id, id_page) = match self.id_node.as_deref().map(map_id) {
            None => (None, IdPage::NotWanted),
            Some(Ok(id)) => (Some(id), IdPage::Mapped),
            Some(Err(Error::NoDevice { .. })) => (None, IdPage::Absent),
            Some(Err(error @ Error::Forbidden { .. })) => (None, IdPage::Forbidden(error)),
            Some(Err(error)) => (None, IdPage::Failed(error)),
        };
        Ok(SysGenId(Arc::new(Inner {
            page,
            watcher: self.descriptor.then_some(watcher),
            node: (!self.descriptor).then_some(self.generation_node),
            id,
            id_page,
            limit: self.limit,
        })))
    }
}

/// A watcher to sleep on.
fn watcher(node: &Path) -> Result<Watcher> {
    // For writing where that is allowed: to acknowledge, so that it can be slept on again.
    match Node::GENERATION.open(node, true) {
        Err(Error::Forbidden { .. }) => Node::GENERATION.open(node, false),
        other => other,
    }
    .map(|fd| Watcher::new(fd, node))
}

fn map_id(node: &Path) -> Result<sys::IdPage> {
    use std::os::fd::AsFd as _;

    let fd = Node::ID.open(node, false)?;
    let io = |action| Error::io(action, node);
    let offset = sys::id_offset(fd.as_fd()).map_err(io("ask for the offset in"))?;
    sys::IdPage::map(fd.as_fd(), offset).map_err(io("map"))
}

impl SysGenId {
    /// Opens and maps `/dev/sysgenid` and, where this process may, `/dev/vmgenid`.
    ///
    /// A program that also runs where there is no device tells that apart, and goes on without:
    ///
    /// ```
    /// use sysgenid::Error;
    /// use sysgenid::SysGenId;
    ///
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = match SysGenId::open() {
    ///     Ok(sysgenid) => Some(sysgenid),
    ///     Err(Error::NoDevice { .. }) => None,
    ///     // A node that is there and cannot be used is worth a message.
    ///     Err(error) => return Err(error),
    /// };
    /// # assert!(sysgenid.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open() -> Result<Self> {
        Options::new().open()
    }

    /// Looks: three loads, and no system call.
    ///
    /// If it is not equal to what was seen when a secret was made, then that secret must not be used
    /// any more: see [`SysGenId::settle`]. Look again before what was made with the secret leaves the
    /// program.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// assert_eq!(sysgenid.look(), sysgenid.look());
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    #[must_use]
    pub fn look(&self) -> Seen {
        // In whatever order: if the machine is cloned between the loads, then what is seen is a
        // mixture, which differs from what was remembered, or from the next look.
        let id = self.0.id.as_ref().map(sys::IdPage::load);
        Seen {
            id,
            generation: self.generation(),
        }
    }

    /// The generation at this moment: one load.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// println!("generation {}", sysgenid.generation());
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::new(self.0.page.load())
    }

    /// Whether the hypervisor's page is looked at. Where it is not, a clone is noticed some
    /// milliseconds after its resume, and the random bytes that it has drawn until then are those of
    /// its sisters.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use sysgenid::IdPage;
    ///
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// if !matches!(sysgenid.id_page(), IdPage::Mapped) {
    ///     eprintln!("clones are noticed late: {:?}", sysgenid.id_page());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id_page(&self) -> &IdPage {
        &self.0.id_page
    }

    /// After a look that differs from `known`: waits until the kernel has reseeded its random number
    /// generator for the machine that this is now, and returns what is needed to build anew.
    ///
    /// It returns at once where there is nothing to wait for: the ID is the one of `known` (then an
    /// overseer has changed the generation, or nothing has happened), or the generation has followed
    /// the ID already. It never fails: if the hypervisor wrote a new ID and the kernel does not say,
    /// within [`Options::limit`], that it has heard of it, then [`Fresh::is_confirmed`] is `false`,
    /// and [`Fresh::fill`] mixes in what tells this machine from its clones.
    ///
    /// Throw away what was derived from the old state before calling this.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let seen = sysgenid.look();
    /// // Nothing has happened: it returns at once.
    /// let fresh = sysgenid.settle(seen);
    /// assert_eq!(fresh.seen(), seen);
    /// assert!(fresh.is_confirmed());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn settle(&self, known: Seen) -> Fresh {
        self.settle_when(|seen, watcher| {
            if seen.id == known.id {
                // The hypervisor has said nothing new. What an overseer changes is no clone of which
                // the kernel has yet to hear.
                return true;
            }
            // The generation may have been changed by an overseer before the snapshot: whether the
            // change for this ID is still due is for the driver to say. Where it cannot be asked
            // (no /proc), another generation is all there is.
            match pending(watcher) {
                Some(pending) => !pending,
                None => seen.generation != known.generation,
            }
        })
    }

    /// What is needed to build something for the first time: as [`SysGenId::settle`], for a program
    /// that has not seen anything yet, and may have been started in a clone that has just been
    /// resumed.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let mut key = [0; 32];
    /// let fresh = sysgenid.fresh();
    /// fresh.fill(&mut key)?;
    /// # assert_ne!(key, [0; 32]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fresh(&self) -> Fresh {
        self.settle_when(|_, watcher| pending(watcher) != Some(true))
    }

    /// Remembers what is seen now, for work that must not cross a change.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let guard = sysgenid.guard();
    /// // … prepare a transaction …
    /// guard.check()?;
    /// // … commit it …
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(self.clone())
    }

    fn settle_when(&self, is_settled: impl Fn(Seen, Option<&Watcher>) -> bool) -> Fresh {
        let node = self.0.node.as_deref();
        let opened = node.and_then(|node| watcher(node).ok());
        let watcher = self.0.watcher.as_ref().or(opened.as_ref());
        let deadline = Instant::now() + self.0.limit;
        loop {
            let seen = self.look();
            if is_settled(seen, watcher) {
                // Settled for what was seen, and not for what has come since.
                if self.look() == seen {
                    return Fresh::new(seen, true);
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Fresh::new(seen, false);
            }
            sleep(watcher, seen.generation, left.min(PIECE));
        }
    }
}

/// Whether the driver says that a change is due. `None` where it cannot be asked.
fn pending(watcher: Option<&Watcher>) -> Option<bool> {
    watcher?.status().ok()?.pending()
}

/// Sleeps for so long, or until the generation is another one.
fn sleep(watcher: Option<&Watcher>, generation: Generation, length: Duration) {
    let Some(watcher) = watcher else {
        thread::sleep(NAP.min(length));
        return;
    };
    // A watcher that has not acknowledged an earlier change is ready all the time.
    match watcher.wait_timeout(Duration::ZERO) {
        Ok(None) => {}
        Ok(Some(_)) if watcher.ack(generation).is_ok() => {}
        // The generation has changed just now, or this descriptor cannot acknowledge.
        Ok(Some(_)) | Err(_) => {
            thread::sleep(NAP.min(length));
            return;
        }
    }
    if watcher.wait_timeout(length).is_err() {
        thread::sleep(NAP.min(length));
    }
}

#[cfg(any(test, feature = "stand-in"))]
#[doc(hidden)]
pub mod stand_in {
    //! Files instead of the device, for what can be tested without it.

    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;
    use std::time::Duration;

    use super::IdPage;
    use super::Inner;
    use super::SysGenId;
    use super::sys;

    /// The offset that QEMU uses.
    const OFFSET: u64 = 40;

    #[derive(Debug)]
    pub struct StandIn {
        generation: File,
        id: File,
    }

    impl Default for StandIn {
        fn default() -> Self {
            Self::new()
        }
    }

    impl StandIn {
        #[must_use]
        pub fn new() -> Self {
            let file = || {
                let file = tempfile::tempfile().expect("a temporary file");
                file.set_len(rustix::param::page_size() as u64)
                    .expect("a page");
                file
            };
            Self {
                generation: file(),
                id: file(),
            }
        }

        pub fn set_generation(&self, generation: u32) {
            self.generation
                .write_all_at(&generation.to_ne_bytes(), 0)
                .expect("the file is there");
        }

        pub fn set_id(&self, id: u8) {
            self.id
                .write_all_at(&[id; 16], OFFSET)
                .expect("the file is there");
        }

        #[must_use]
        pub fn open(&self, limit: Duration) -> SysGenId {
            let page = sys::GenerationPage::map(self.generation.as_fd()).expect("a mapping");
            let id = sys::IdPage::map(self.id.as_fd(), 40).expect("a mapping");
            SysGenId(Arc::new(Inner {
                page,
                watcher: None,
                node: None,
                id: Some(id),
                id_page: IdPage::Mapped,
                limit,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stand_in::StandIn;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn equal_looks_mean_no_change() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let seen = sysgenid.look();
        assert_eq!(sysgenid.look(), seen);
        device.set_generation(1);
        assert_ne!(sysgenid.look(), seen);
        device.set_generation(0);
        assert_eq!(sysgenid.look(), seen);
        device.set_id(1);
        assert_ne!(sysgenid.look(), seen);
    }

    #[test]
    fn every_byte_of_the_id_counts() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        device.set_id(7);
        let id = sysgenid.look().id().expect("it is mapped");
        assert_eq!(id.as_bytes(), &[7; 16]);
        assert_eq!(id.to_string(), "07".repeat(16));
    }

    #[test]
    fn an_overseers_change_is_settled_at_once() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let known = sysgenid.look();
        device.set_generation(1);
        let fresh = sysgenid.settle(known);
        assert!(fresh.is_confirmed());
        assert_eq!(fresh.seen().generation(), Generation::new(1));
    }

    #[test]
    fn a_new_id_waits_for_the_generation() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let known = sysgenid.look();
        device.set_id(1);
        thread::scope(|scope| {
            let settling = scope.spawn(|| sysgenid.settle(known));
            thread::sleep(Duration::from_millis(20));
            assert!(!settling.is_finished(), "the kernel has not been heard");
            device.set_generation(1);
            let fresh = settling.join().expect("no panic");
            assert!(fresh.is_confirmed());
            assert_eq!(fresh.seen(), sysgenid.look());
        });
    }

    #[test]
    fn a_silent_kernel_is_waited_for_up_to_the_limit() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        let known = sysgenid.look();
        device.set_id(1);
        let start = Instant::now();
        let fresh = sysgenid.settle(known);
        assert!(start.elapsed() >= SHORT);
        assert!(!fresh.is_confirmed());
        assert_eq!(fresh.seen(), sysgenid.look());
    }

    #[test]
    fn an_offset_outside_of_the_page_is_refused() {
        use std::os::fd::AsFd as _;

        let file = tempfile::tempfile().expect("a temporary file");
        for offset in [4, rustix::param::page_size() - 8, usize::MAX - 7] {
            assert!(sys::IdPage::map(file.as_fd(), offset).is_err(), "{offset}");
        }
    }
}
