// SPDX-License-Identifier: MIT OR Apache-2.0

//! The generation and the hypervisor's ID, mapped.

use std::fmt;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::atomic::compiler_fence;
use std::sync::atomic::fence;
use std::time::Duration;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::io::pread;
use rustix::thread::ClockId;
use rustix::thread::NanosleepRelativeResult;
use rustix::thread::clock_nanosleep_relative;
use rustix::time::Timespec;
use zeroize::Zeroize as _;

use crate::Error;
use crate::Fresh;
use crate::Freshness;
use crate::GENERATION_NODE;
use crate::Generation;
use crate::Guard;
use crate::ID_NODE;
use crate::Result;
use crate::VmId;
use crate::cached::ATTEMPTS;
use crate::overseer::milliseconds;
use crate::process;
use crate::process::Process;
use crate::sys;
use crate::sys::Reseeded;
use crate::watcher::Node;

/// How long [`SysGenId::settle`] sleeps in all, unless [`Options::limit`] says otherwise.
///
/// The change follows the resume by some tens of milliseconds. Where nobody notifies the kernel, the
/// driver looks for itself every four seconds.
const LIMIT: Duration = Duration::from_secs(5);

/// How long to sleep between two looks: an eighth of what was slept already, in these bounds. So the
/// answer is seen soon after it is there, and whoever waits for long wakes up rarely.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// The generation and, where it may be seen, the hypervisor's ID: both mapped, so that a look is
/// a few loads and no system call.
///
/// It is cheap to clone and to share between threads, and goes on working in a forked process, after
/// `chroot()`, and after privileges were dropped. It holds mappings and no descriptor, except where
/// [`SysGenId::id_page`] is [`IdPage::Read`].
///
/// What it does is the protocol of `Documentation/userspace-api/vmgenid.rst`. Once it is open it makes
/// no system call but `clock_nanosleep()` and `getrandom()`, takes no lock, and needs no `/proc`.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use sysgenid::SysGenId;
///
/// let sysgenid = SysGenId::open()?;
/// // Before the first secret is made:
/// let mut seen = sysgenid.settle().seen();
/// for _ in 0..3 {
///     // Before each use of what must be unique:
///     if sysgenid.look() != seen {
///         let fresh = sysgenid.settle();
///         // … rebuild it from fresh.fill() …
///         seen = fresh.seen();
///     }
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct SysGenId(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    page: sys::GenerationPage,
    process: Process,
    id: Option<Id>,
    id_page: IdPage,
    limit: Duration,
    /// The node by which to hasten, if that is wanted.
    hasten: Option<PathBuf>,
}

/// The hypervisor's ID, and the driver's answer to it.
#[derive(Debug)]
struct Id {
    place: Place,
    answer: sys::AnswerPage,
}

/// Where the ID is looked at.
#[derive(Debug)]
enum Place {
    Mapped(sys::IdPage),
    Read(Reader),
}

impl Id {
    /// The ID at this moment; `None` if it cannot be read any more.
    #[inline]
    fn load(&self) -> Option<VmId> {
        match &self.place {
            Place::Mapped(page) => Some(page.load()),
            Place::Read(reader) => reader.read(),
        }
    }
}

/// The node, kept open because its page cannot be mapped.
#[derive(Debug)]
struct Reader {
    fd: OwnedFd,
    file: FileNumber,
}

/// What tells a file from others: its device and its inode.
type FileNumber = (u64, u64);

impl Reader {
    fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        file_number(&fd).map(|file| Self { fd, file })
    }

    #[cold]
    fn read(&self) -> Option<VmId> {
        // A daemon closes descriptors that it did not open, and the number is another file's then.
        if file_number(&self.fd) != Ok(self.file) {
            return None;
        }
        let mut bytes = [0; 16];
        loop {
            match pread(&self.fd, &mut bytes, 0) {
                Ok(16) => return Some(VmId::new(bytes)),
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

fn file_number(fd: &OwnedFd) -> rustix::io::Result<FileNumber> {
    fstat(fd).map(|status| (status.st_dev, status.st_ino))
}

/// Whether the hypervisor's page can be looked at.
#[non_exhaustive]
#[derive(Debug)]
pub enum IdPage {
    /// It is mapped: a clone is noticed at the first look after its resume.
    Mapped,
    /// It is not safe to map it, so that each look reads the ID by two system calls, from a descriptor
    /// that is kept. A clone is noticed as soon as where it is mapped.
    Read,
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

/// In words for an operator.
impl fmt::Display for IdPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Mapped => "the hypervisor's page is mapped",
            Self::Read => "the hypervisor's page cannot be mapped, and the ID is read at each look",
            Self::Absent => "there is no /dev/vmgenid: a clone is noticed late",
            Self::Forbidden(error) | Self::Failed(error) => {
                return write!(f, "{error}: a clone is noticed late");
            }
            Self::NotWanted => "the ID was not asked for: a clone is noticed late",
        };
        f.write_str(text)
    }
}

/// What was seen in one look: the generation, the epoch and, where it can be looked at, the
/// hypervisor's ID; and in which of several forked processes.
///
/// Two looks that are equal mean that the machine was not cloned between them, and the process not
/// forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    id: Option<VmId>,
    generation: Generation,
    epoch: u64,
    process: u32,
}

impl Seen {
    /// What there is to see without a device: whether this process was forked, and nothing else.
    ///
    /// ```
    /// let seen = sysgenid::Seen::without_device();
    /// assert_eq!(seen.generation().get(), 0);
    /// assert_eq!(seen, sysgenid::Seen::without_device());
    /// ```
    #[must_use]
    pub fn without_device() -> Self {
        Self::new(Generation::new(0), 0, None, process::number())
    }

    /// What was seen in a look that an interface for another language has carried.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Seen;
    ///
    /// let seen = sysgenid::SysGenId::open()?.look();
    /// let carried = Seen::new(seen.generation(), seen.epoch(), seen.id(), seen.process());
    /// assert_eq!(carried, seen);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn new(generation: Generation, epoch: u64, id: Option<VmId>, process: u32) -> Self {
        Self {
            id,
            generation,
            epoch,
            process,
        }
    }

    /// The generation.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let seen = sysgenid::SysGenId::open()?.look();
    /// println!("generation {}", seen.generation());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The epoch: the number of changes since the driver was loaded, which never comes back. 0 from an
    /// older driver, and on machines with 32 bits, which would load it in two halves.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let before = sysgenid.look().epoch();
    /// sysgenid::Overseer::open()?.trigger(0)?;
    /// assert_eq!(sysgenid.look().epoch(), before + 1);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The hypervisor's ID, where it can be looked at.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let seen = sysgenid::Options::new().without_id().open()?.look();
    /// assert_eq!(seen.id(), None);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn id(&self) -> Option<VmId> {
        self.id
    }

    /// A number that a forked process has not in common with those that it comes from. It says
    /// nothing else.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// assert_eq!(sysgenid.look().process(), sysgenid.look().process());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn process(&self) -> u32 {
        self.process
    }
}

/// How to open: other nodes, another limit. [`SysGenId::open`] does it with none of that.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use std::time::Duration;
///
/// use sysgenid::Options;
///
/// let sysgenid = Options::new().limit(Duration::from_secs(1)).open()?;
/// # drop(sysgenid);
/// # Ok(())
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    generation_node: PathBuf,
    id_node: Option<PathBuf>,
    limit: Duration,
    hasten: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generation_node: GENERATION_NODE.into(),
            id_node: Some(ID_NODE.into()),
            limit: LIMIT,
            hasten: false,
        }
    }
}

impl Options {
    /// The usual ones: `/dev/sysgenid`, `/dev/vmgenid`, and a limit of five seconds.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another place for the node `/dev/sysgenid`, as a container may have.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().generation_node("/dev/sysgenid").open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn generation_node(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.generation_node);
        self
    }

    /// Another place for the node `/dev/vmgenid`.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().id_node("/no/such/node").open()?;
    /// assert!(matches!(sysgenid.id_page(), sysgenid::IdPage::Absent));
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn id_node(mut self, path: impl AsRef<Path>) -> Self {
        self.id_node = Some(path.as_ref().to_owned());
        self
    }

    /// Looks at the generation only, and not at the hypervisor's ID.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().without_id().open()?;
    /// assert!(matches!(sysgenid.id_page(), sysgenid::IdPage::NotWanted));
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn without_id(mut self) -> Self {
        self.id_node = None;
        self
    }

    /// How long [`SysGenId::settle`] sleeps in all before it goes on without the kernel's answer [five
    /// seconds].
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use std::time::Duration;
    ///
    /// let sysgenid = sysgenid::Options::new().limit(Duration::from_secs(2)).open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Asks the driver for its answer where it is not there yet, instead of sleeping until the driver
    /// has heard of the new ID, or looks for itself, which can take seconds.
    ///
    /// [`SysGenId::settle`] opens `/dev/sysgenid` for that, by its path, and makes one ioctl
    /// (`SYSGENID_SETTLE`). Where it cannot, it sleeps as without this option. A program that is
    /// confined to few system calls does without.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().hasten().open()?;
    /// assert!(sysgenid.settle().is_confirmed());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn hasten(mut self) -> Self {
        self.hasten = true;
        self
    }

    /// Opens and maps the nodes.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::Options::new().open()?;
    /// # drop(sysgenid);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] where there is no `/dev/sysgenid`, [`Error::Forbidden`] where this process
    /// may not open it, [`Error::NotTheDevice`] where it is something else. What keeps the
    /// hypervisor's page from being mapped is no error: [`SysGenId::id_page`] says it.
    pub fn open(self) -> Result<SysGenId> {
        let node = &self.generation_node;
        let fd = Node::GENERATION.open(node, false)?;
        let page = sys::GenerationPage::map(fd.as_fd()).map_err(Error::io("map", node))?;
        let process = Process::new().map_err(Error::io("allocate a page for", node))?;
        let (id, id_page) = match self.id_node.as_deref().map(open_id) {
            None => (None, IdPage::NotWanted),
            Some(Ok((id, id_page))) => (Some(id), id_page),
            Some(Err(Error::NoDevice { .. })) => (None, IdPage::Absent),
            Some(Err(error @ Error::Forbidden { .. })) => (None, IdPage::Forbidden(error)),
            Some(Err(error)) => (None, IdPage::Failed(error)),
        };
        Ok(SysGenId(Arc::new(Inner {
            page,
            process,
            id,
            id_page,
            limit: self.limit,
            hasten: self.hasten.then_some(self.generation_node),
        })))
    }
}

fn open_id(node: &Path) -> Result<(Id, IdPage)> {
    let fd = Node::ID.open(node, false)?;
    let io = |action| Error::io(action, node);
    let answer = rustix::param::page_size();
    let answer = sys::AnswerPage::map(fd.as_fd(), answer).map_err(io("map the answer in"))?;
    let offset = sys::id_offset(fd.as_fd()).map_err(io("ask for the offset in"))?;
    let (place, id_page) = match sys::IdPage::map(fd.as_fd(), offset) {
        Ok(page) => (Place::Mapped(page), IdPage::Mapped),
        // The driver shows the ID, and not what else there is in its page.
        Err(Errno::NODEV) => {
            let reader = Reader::new(fd).map_err(io("look at"))?;
            (Place::Read(reader), IdPage::Read)
        }
        Err(errno) => return Err(io("map")(errno)),
    };
    Ok((Id { place, answer }, id_page))
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
    /// # fn main() -> Result<(), Error> {
    /// let sysgenid = match SysGenId::open() {
    ///     Ok(sysgenid) => Some(sysgenid),
    ///     Err(Error::NoDevice { .. }) => None,
    ///     // A node that is there and cannot be used is worth a message.
    ///     Err(error) => return Err(error),
    /// };
    /// # assert_eq!(sysgenid.is_some(), std::path::Path::new(sysgenid::GENERATION_NODE).exists());
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

    /// Looks: a few loads, and no system call (unless [`SysGenId::id_page`] is [`IdPage::Read`]).
    ///
    /// If it is not equal to what was seen when a secret was made, then that secret must not be used
    /// any more: see [`SysGenId::settle`]. Look again before what was made with the secret leaves the
    /// program.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// assert_eq!(sysgenid.look(), sysgenid.look());
    /// # Ok(())
    /// # });
    /// ```
    #[inline]
    #[must_use]
    pub fn look(&self) -> Seen {
        // What was made before is made when this looks: for the compiler, and for the processor. A
        // snapshot stops whole processors, so that on x86 nothing more is needed.
        compiler_fence(Ordering::SeqCst);
        fence(Ordering::AcqRel);
        let inner = &*self.0;
        let id = inner.id.as_ref().and_then(Id::load);
        let process = inner.process.number();
        // The driver stores the epoch last: whoever sees a new one sees the generation of it.
        let epoch = inner.page.epoch();
        fence(Ordering::Acquire);
        let generation = Generation::new(inner.page.generation());
        // What is used or drawn after this look is that of what was seen, or newer. If the machine is
        // cloned between the loads, then what is seen is a mixture, which differs from what was
        // remembered, or from the next look.
        fence(Ordering::Acquire);
        Seen {
            id,
            generation,
            epoch,
            process,
        }
    }

    /// The generation at this moment: one load.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// println!("generation {}", sysgenid.generation());
    /// # Ok(())
    /// # });
    /// ```
    #[inline]
    #[must_use]
    pub fn generation(&self) -> Generation {
        let generation = self.0.page.generation();
        // What is drawn after this is not from before the change to that generation.
        fence(Ordering::Acquire);
        Generation::new(generation)
    }

    /// Whether the hypervisor's ID is looked at. Where it is not, a clone is noticed some milliseconds
    /// after its resume (seconds, where the hypervisor notifies nobody), and the random bytes that it
    /// has drawn until then are those of its sisters.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::IdPage;
    ///
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// if !matches!(sysgenid.id_page(), IdPage::Mapped | IdPage::Read) {
    ///     eprintln!("{}", sysgenid.id_page());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn id_page(&self) -> &IdPage {
        &self.0.id_page
    }

    /// Before anything is derived for the first time, and after a look that differs from what was
    /// seen: sleeps until the driver has answered the hypervisor's ID, which says that the kernel has
    /// reseeded its random number generator for the machine that this is now. Returns what is needed
    /// to build anew.
    ///
    /// A program that has just been started may have been started in a clone that has just been
    /// resumed. So this comes before its first secret as well.
    ///
    /// It returns at once where the ID is answered already, and where the ID cannot be seen. It never
    /// fails: if there is no answer within [`Options::limit`] then [`Fresh::freshness`] says so, and
    /// [`Fresh::fill`] mixes in what tells this machine from its clones.
    ///
    /// Throw away what was derived from the old state before calling this.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let mut key = [0; 32];
    /// let fresh = sysgenid.settle();
    /// fresh.fill(&mut key)?;
    /// # assert_ne!(key, [0; 32]);
    /// # assert_eq!(fresh.seen(), sysgenid.look());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn settle(&self) -> Fresh {
        let limit = self.0.limit;
        let mut hasten = self.0.hasten.as_deref();
        let mut slept = Duration::ZERO;
        loop {
            if let Some(fresh) = self.try_settle() {
                return fresh;
            }
            let left = limit.saturating_sub(slept);
            if left.is_zero() {
                return Fresh::new(self.look(), Freshness::TimedOut);
            }
            if let Some(node) = hasten.take() {
                if settle_by_ioctl(node, left) == Err(Errno::TIME) {
                    slept = limit;
                }
                continue;
            }
            // What was slept is counted, so that no clock has to be asked.
            let nap = (slept / 8).clamp(SHORTEST, LONGEST).min(left);
            sleep(nap);
            slept += nap;
        }
    }

    /// [`SysGenId::settle`] for who must not sleep, such as an event loop: what is needed to build anew if
    /// the ID that is seen is answered, or if none can be seen, and nothing if it is too early for that.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// match sysgenid.try_settle() {
    ///     Some(fresh) => println!("build anew: {:?}", fresh.freshness()),
    ///     None => println!("serve nobody, and look again in a millisecond"),
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn try_settle(&self) -> Option<Fresh> {
        let seen = self.look();
        let inner = &*self.0;
        let (Some(id), Some(seen_id)) = (&inner.id, seen.id) else {
            let freshness = match inner.page.reseeded() {
                Reseeded::Yes => Freshness::Reseeded,
                Reseeded::No => Freshness::NotReseeded,
                Reseeded::NotSaid => Freshness::NotSaid,
            };
            return Some(Fresh::new(seen, freshness));
        };
        let answer = id.answer.load()?;
        let is_settled = answer.id == seen_id
            && answer.generation == seen.generation.get()
            && answer.epoch == seen.epoch;
        let freshness = if answer.reseeded {
            Freshness::Reseeded
        } else {
            Freshness::NotReseeded
        };
        is_settled.then(|| Fresh::new(seen, freshness))
    }

    /// Fills `bytes` with random bytes that no other clone has, for a program that needs some now and then:
    /// settles, draws, and looks again; what was drawn while the machine was cloned is wiped, and drawn
    /// anew. It costs two system calls.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let mut key = [0; 32];
    /// let fresh = sysgenid.random(&mut key)?;
    /// // … use it …
    /// if sysgenid.look() != fresh.seen() {
    ///     // … nothing that was made with it may leave …
    /// }
    /// # assert_ne!(key, [0; 32]);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Fresh::fill`], and [`Error::Unsettled`] if the generation changes all the time. Then `bytes`
    /// holds zeroes.
    pub fn random(&self, bytes: &mut [u8]) -> Result<Fresh> {
        self.random_from(Fresh::fill, bytes)
    }

    fn random_from(
        &self,
        fill: impl Fn(&Fresh, &mut [u8]) -> Result<()>,
        bytes: &mut [u8],
    ) -> Result<Fresh> {
        for _ in 0..ATTEMPTS {
            let fresh = self.settle();
            fill(&fresh, bytes)?;
            if self.look() == fresh.seen() {
                return Ok(fresh);
            }
            bytes.zeroize();
        }
        Err(Error::Unsettled { attempts: ATTEMPTS })
    }

    /// The number of this process.
    pub(crate) fn process(&self) -> u32 {
        self.0.process.number()
    }

    /// Remembers what is seen now, for work that must not cross a change.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let guard = sysgenid.guard();
    /// // … prepare a transaction …
    /// guard.check()?;
    /// // … commit it …
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(self.clone())
    }
}

/// Has the driver see now to what is due, for so long at most.
fn settle_by_ioctl(node: &Path, limit: Duration) -> rustix::io::Result<()> {
    // An older driver does not know the ioctl.
    let fd = Node::GENERATION
        .open(node, false)
        .map_err(|_| Errno::NODEV)?;
    sys::settle(fd.as_fd(), milliseconds(limit))
}

/// Sleeps for so long.
fn sleep(length: Duration) {
    let Ok(mut left) = Timespec::try_from(length) else {
        return;
    };
    while let NanosleepRelativeResult::Interrupted(rest) =
        clock_nanosleep_relative(ClockId::Monotonic, &left)
    {
        left = rest;
    }
}

#[cfg(any(test, feature = "__stand-in"))]
#[doc(hidden)]
pub mod stand_in {
    //! Files instead of the device, for what can be tested without it.

    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::Id;
    use super::IdPage;
    use super::Inner;
    use super::Place;
    use super::Process;
    use super::Reader;
    use super::SysGenId;
    use super::sys;

    /// The offset that QEMU uses.
    const OFFSET: u64 = 40;

    /// `SYSGENID_FLAG_FIELDS`
    pub const FIELDS: u32 = 1;
    /// `SYSGENID_FLAG_RESEEDED`
    pub const RESEEDED: u32 = 2;

    /// A machine with the driver: at first, generation 0, and an ID of zeroes that is answered.
    #[derive(Debug)]
    pub struct StandIn {
        generation: File,
        id: File,
        /// The same ID, as the node shows it to who reads.
        readable: File,
        answer: File,
        sequence: Mutex<u32>,
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
            let device = Self {
                generation: file(),
                id: file(),
                readable: file(),
                answer: file(),
                sequence: Mutex::default(),
            };
            device.set_generation(0);
            device
        }

        /// A change as the driver makes it, which has reseeded the kernel: the ID that is there is
        /// answered.
        pub fn set_generation(&self, generation: u32) {
            self.change(generation, RESEEDED);
        }

        /// The same, but the flag says whether it has.
        pub fn change(&self, generation: u32, flags: u32) {
            let mut id = [0; 16];
            self.readable
                .read_exact_at(&mut id, 0)
                .expect("the file is there");
            self.publish(generation, flags, &id);
        }

        /// A change by an overseer: what is answered stays so.
        pub fn trigger(&self, generation: u32) {
            let mut id = [0; 16];
            self.answer
                .read_exact_at(&mut id, 16)
                .expect("the file is there");
            self.publish(generation, RESEEDED, &id);
        }

        fn publish(&self, generation: u32, flags: u32, id: &[u8; 16]) {
            let mut sequence = self.sequence.lock().expect("no test panics here");
            write(&self.answer, 0, &(*sequence + 1).to_ne_bytes());
            self.set_page(FIELDS | flags, generation, generation.into());
            write(&self.answer, 4, &flags.to_ne_bytes());
            write(&self.answer, 8, &generation.to_ne_bytes());
            write(&self.answer, 16, id);
            write(&self.answer, 32, &u64::from(generation).to_ne_bytes());
            *sequence += 2;
            write(&self.answer, 0, &sequence.to_ne_bytes());
        }

        /// Writes the generation page alone. An older driver has flags and an epoch of 0.
        pub fn set_page(&self, flags: u32, generation: u32, epoch: u64) {
            write(&self.generation, 4, &flags.to_ne_bytes());
            write(&self.generation, 0, &generation.to_ne_bytes());
            write(&self.generation, 8, &epoch.to_ne_bytes());
        }

        /// Writes a number in the answer page alone.
        pub fn set_answer(&self, offset: u64, number: u32) {
            write(&self.answer, offset, &number.to_ne_bytes());
        }

        /// What the hypervisor does.
        pub fn set_id(&self, id: u8) {
            write(&self.readable, 0, &[id; 16]);
            write(&self.id, OFFSET, &[id; 16]);
        }

        /// Opens it as a process that may map all pages.
        #[must_use]
        pub fn open(&self, limit: Duration) -> SysGenId {
            let page = sys::IdPage::map(self.id.as_fd(), 40).expect("a mapping");
            self.open_with(Some(Place::Mapped(page)), IdPage::Mapped, limit, None)
        }

        /// The same, and hastens by a node.
        #[must_use]
        pub fn open_hastening(&self, limit: Duration, node: impl Into<PathBuf>) -> SysGenId {
            let page = sys::IdPage::map(self.id.as_fd(), 40).expect("a mapping");
            let place = Some(Place::Mapped(page));
            self.open_with(place, IdPage::Mapped, limit, Some(node.into()))
        }

        /// Opens it where the hypervisor's page cannot be mapped.
        #[must_use]
        pub fn open_to_read(&self, limit: Duration) -> SysGenId {
            let fd = self.readable.try_clone().expect("a descriptor").into();
            let reader = Reader::new(fd).expect("a file");
            self.open_with(Some(Place::Read(reader)), IdPage::Read, limit, None)
        }

        /// Opens it without `/dev/vmgenid`.
        #[must_use]
        pub fn open_without_id(&self, limit: Duration) -> SysGenId {
            self.open_with(None, IdPage::Absent, limit, None)
        }

        fn open_with(
            &self,
            place: Option<Place>,
            id_page: IdPage,
            limit: Duration,
            hasten: Option<PathBuf>,
        ) -> SysGenId {
            let answer = || sys::AnswerPage::map(self.answer.as_fd(), 0).expect("a mapping");
            SysGenId(Arc::new(Inner {
                page: sys::GenerationPage::map(self.generation.as_fd()).expect("a mapping"),
                process: Process::new().expect("a page"),
                id: place.map(|place| Id {
                    place,
                    answer: answer(),
                }),
                id_page,
                limit,
                hasten,
            }))
        }
    }

    fn write(file: &File, offset: u64, bytes: &[u8]) {
        file.write_all_at(bytes, offset).expect("the file is there");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::Instant;

    use super::stand_in::FIELDS;
    use super::stand_in::RESEEDED;
    use super::stand_in::StandIn;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn equal_looks_mean_no_change() {
        let device = StandIn::new();
        for sysgenid in [device.open(LONG), device.open_to_read(LONG)] {
            let seen = sysgenid.look();
            assert_eq!(sysgenid.look(), seen);
            device.set_generation(1);
            assert_ne!(sysgenid.look(), seen);
            device.set_generation(0);
            assert_eq!(sysgenid.look(), seen);
            device.set_id(1);
            assert_ne!(sysgenid.look(), seen);
            device.set_id(0);
        }
    }

    /// The generation can come back, as after 2^32 changes.
    #[test]
    fn the_epoch_alone_is_a_change() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let seen = sysgenid.look();
        device.set_page(FIELDS | RESEEDED, 0, 1 << 32);
        assert_ne!(sysgenid.look(), seen);
        assert_eq!(sysgenid.look().epoch(), 1 << 32);
    }

    #[test]
    fn every_byte_of_the_id_counts() {
        let device = StandIn::new();
        for sysgenid in [device.open(LONG), device.open_to_read(LONG)] {
            device.set_id(7);
            let id = sysgenid.look().id().expect("it can be seen");
            assert_eq!(id.as_bytes(), &[7; 16]);
            assert_eq!(id.to_string(), "07".repeat(16));
        }
    }

    #[test]
    fn an_overseers_change_is_settled_at_once() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        device.trigger(1);
        let fresh = sysgenid.settle();
        assert_eq!(fresh.freshness(), Freshness::Reseeded);
        assert_eq!(fresh.seen().generation(), Generation::new(1));
    }

    /// Settles while the kernel is not heard of, then has it answer, and checks that this was waited
    /// for.
    fn check_it_waits(sysgenid: &SysGenId, answer: impl Fn()) {
        thread::scope(|scope| {
            let settling = scope.spawn(|| sysgenid.settle());
            thread::sleep(SHORT);
            assert!(!settling.is_finished(), "the kernel has not been heard");
            answer();
            let fresh = settling.join().expect("no panic");
            assert_eq!(fresh.freshness(), Freshness::Reseeded);
            assert_eq!(fresh.seen(), sysgenid.look());
        });
    }

    #[test]
    fn a_new_id_waits_for_the_answer() {
        let device = StandIn::new();
        for sysgenid in [device.open(LONG), device.open_to_read(LONG)] {
            let generation = sysgenid.generation().get() + 1;
            device.set_id(sysgenid.look().id().expect("it is seen").as_bytes()[0] + 1);
            check_it_waits(&sysgenid, || device.set_generation(generation));
        }
    }

    /// A process that is started in the window remembers nothing that it could compare with.
    #[test]
    fn a_process_that_has_just_been_started_waits_for_the_answer() {
        let device = StandIn::new();
        device.set_id(1);
        let sysgenid = device.open(LONG);
        check_it_waits(&sysgenid, || device.set_generation(1));
    }

    /// It changes the generation, and has seen no ID.
    #[test]
    fn an_overseer_in_the_window_is_no_answer() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        device.set_id(1);
        device.trigger(1);
        check_it_waits(&sysgenid, || device.set_generation(2));
    }

    /// Each of these is another answer than that to what is seen.
    #[test]
    fn an_answer_is_to_all_that_is_seen() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        let settled = || sysgenid.settle().freshness();
        assert_eq!(settled(), Freshness::Reseeded);
        for (what, offset) in [("generation", 8), ("ID", 16), ("ID", 28), ("epoch", 32)] {
            device.set_answer(offset, 9);
            assert_eq!(settled(), Freshness::TimedOut, "another {what}");
            device.set_answer(offset, 0);
            assert_eq!(settled(), Freshness::Reseeded);
        }
    }

    #[test]
    fn an_answer_that_is_being_written_is_none() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        // Whoever writes it is stuck.
        device.set_answer(0, 3);
        assert_eq!(sysgenid.settle().freshness(), Freshness::TimedOut);
        let sysgenid = device.open(LONG);
        check_it_waits(&sysgenid, || device.set_answer(0, 4));
    }

    #[test]
    fn an_answer_that_is_written_meanwhile_is_none() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let answer = &sysgenid.0.id.as_ref().expect("it can be seen").answer;
        assert!(answer.load_while(|| {}).is_some());
        assert_eq!(answer.load_while(|| device.set_generation(1)), None);
        assert_eq!(answer.load().map(|answer| answer.generation), Some(1));
    }

    /// What is remembered is what was compared, however often the answer changes meanwhile.
    #[test]
    fn answers_are_never_mixed_up() {
        const LAST: u8 = 200;
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=LAST {
                    device.set_id(number);
                    device.set_generation(number.into());
                }
            });
            loop {
                let fresh = sysgenid.settle();
                let seen = fresh.seen();
                let number = seen.generation().get();
                assert_eq!(fresh.freshness(), Freshness::Reseeded);
                assert_eq!(seen.epoch(), u64::from(number));
                let id = seen.id().expect("it is mapped");
                assert!(id.as_bytes().iter().all(|byte| u32::from(*byte) == number));
                if number == u32::from(LAST) {
                    break;
                }
            }
        });
    }

    #[test]
    fn a_silent_kernel_is_waited_for_up_to_the_limit() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        device.set_id(1);
        let start = Instant::now();
        let fresh = sysgenid.settle();
        assert!(start.elapsed() >= SHORT);
        assert_eq!(fresh.freshness(), Freshness::TimedOut);
        assert!(!fresh.is_confirmed());
        assert_eq!(fresh.seen(), sysgenid.look());
    }

    /// Whoever confines himself after that is not killed by the next change, nor by the second one, for
    /// which nobody waits.
    #[test]
    fn once_it_is_open_two_system_calls_are_enough() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        let mut bytes = [0; 64];
        let mut seen = sysgenid.look();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=2 {
                    thread::sleep(SHORT);
                    device.set_id(number);
                    thread::sleep(SHORT / 4);
                    device.set_generation(number.into());
                }
                thread::sleep(SHORT);
                device.set_id(3);
            });
            assert!(sys::holds_in_child(|| {
                sys::confine();
                // However late this process is: nobody answers the last ID, so it meets that one.
                loop {
                    sleep(Duration::from_millis(1));
                    if sysgenid.look() != seen {
                        let fresh = sysgenid.settle();
                        let filled = fresh.fill(&mut bytes).is_ok();
                        if !filled || sysgenid.random(&mut bytes).is_err() {
                            return false;
                        }
                        seen = fresh.seen();
                        if seen.id() == Some(VmId::new([3; 16])) {
                            return fresh.freshness() == Freshness::TimedOut;
                        }
                    }
                }
            }));
        });
    }

    #[test]
    fn random_bytes_are_of_the_machine_that_is_there() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let (mut one, mut other) = ([0; 32], [0; 32]);
        let fresh = sysgenid.random(&mut one).expect("the kernel has some");
        assert_eq!(fresh.seen(), sysgenid.look());
        sysgenid.random(&mut other).expect("the kernel has some");
        assert!(one != other && one != [0; 32]);
    }

    /// What was drawn while the machine was cloned does not leave, and is not left behind.
    #[test]
    fn random_bytes_are_drawn_anew_after_a_change() {
        for changes in [1, u32::MAX] {
            let device = StandIn::new();
            let sysgenid = device.open(LONG);
            let count = AtomicU32::new(0);
            let fill = |_: &Fresh, bytes: &mut [u8]| {
                assert_eq!(bytes, [0; 8], "what is drawn upon");
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                bytes.fill(u8::try_from(number).expect("it is small"));
                if number <= changes {
                    device.set_generation(number);
                }
                Ok(())
            };
            let mut bytes = [0; 8];
            let drawn = sysgenid.random_from(fill, &mut bytes);
            if changes == 1 {
                assert_eq!(drawn.expect("it is quiet").seen(), sysgenid.look());
                assert_eq!(bytes, [2; 8]);
            } else {
                assert!(matches!(drawn, Err(Error::Unsettled { attempts: 16 })));
                assert_eq!(bytes, [0; 8]);
            }
        }
    }

    /// An overseer that changes the generation has nothing to say of the hypervisor's ID.
    #[test]
    fn a_trigger_confirms_nothing_that_is_not_answered() {
        let device = StandIn::new();
        let sysgenid = device.open(SHORT);
        device.set_id(1);
        assert!(!sysgenid.settle().is_confirmed());
        device.trigger(1);
        assert_eq!(sysgenid.settle().freshness(), Freshness::TimedOut);
        device.set_generation(2);
        assert!(sysgenid.settle().is_confirmed());
    }

    #[test]
    fn there_may_be_no_limit() {
        let device = StandIn::new();
        let forever = Duration::MAX;
        for (number, sysgenid) in [
            (1, device.open(forever)),
            (2, device.open_hastening(forever, "/no/such/node")),
        ] {
            device.set_id(number);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    device.set_generation(number.into());
                });
                assert!(sysgenid.settle().is_confirmed());
            });
        }
    }

    #[test]
    fn a_kernel_that_was_not_reseeded_is_not_confirmed() {
        let device = StandIn::new();
        device.change(1, 0);
        let all = [
            device.open(LONG),
            device.open_to_read(LONG),
            device.open_without_id(LONG),
        ];
        for sysgenid in &all {
            let fresh = sysgenid.settle();
            assert_eq!(fresh.freshness(), Freshness::NotReseeded);
            assert!(!fresh.is_confirmed());
        }
        device.set_generation(2);
        for sysgenid in &all {
            assert_eq!(sysgenid.settle().freshness(), Freshness::Reseeded);
        }
    }

    #[test]
    fn without_the_id_only_the_generation_is_looked_at() {
        let device = StandIn::new();
        let sysgenid = device.open_without_id(LONG);
        let seen = sysgenid.look();
        assert_eq!(seen.id(), None);
        device.set_id(1);
        assert_eq!(sysgenid.look(), seen);
        // There is nothing to wait for.
        assert_eq!(sysgenid.settle().seen(), seen);
        device.set_generation(1);
        assert_ne!(sysgenid.look(), seen);
        assert!(sysgenid.settle().is_confirmed());
    }

    /// It has a generation, and zeroes after it.
    #[test]
    fn an_older_driver_does_not_say_whether_the_kernel_was_reseeded() {
        let device = StandIn::new();
        device.set_page(0, 7, 0);
        let sysgenid = device.open_without_id(LONG);
        let fresh = sysgenid.settle();
        assert_eq!(fresh.freshness(), Freshness::NotSaid);
        assert!(!fresh.is_confirmed());
        let expected = Seen::new(Generation::new(7), 0, None, fresh.seen().process());
        assert_eq!(fresh.seen(), expected);
        assert_eq!(sysgenid.look(), expected);
        device.set_page(0, 8, 0);
        assert_ne!(sysgenid.look(), expected);
    }

    /// Another file has the number of the descriptor now: what is in there is no ID.
    #[test]
    fn a_descriptor_that_is_another_files_is_not_read() {
        let device = StandIn::new();
        let mut sysgenid = device.open_to_read(LONG);
        let seen = sysgenid.look();
        let other = tempfile::tempfile().expect("a temporary file");
        other.set_len(100).expect("there is room");
        let inner = Arc::get_mut(&mut sysgenid.0).expect("it is the only one");
        match &mut inner.id {
            Some(Id {
                place: Place::Read(reader),
                ..
            }) => reader.fd = other.into(),
            other => panic!("it is read: {other:?}"),
        }
        let now = sysgenid.look();
        assert_ne!(now, seen);
        assert_eq!(now.id(), None);
        // As where there is no ID.
        assert!(sysgenid.settle().is_confirmed());
    }

    #[test]
    fn a_node_that_cannot_hasten_delays_nothing() {
        for node in ["/no/such/node", "/dev/null"] {
            let device = StandIn::new();
            let sysgenid = device.open_hastening(LONG, node);
            device.set_id(1);
            check_it_waits(&sysgenid, || device.set_generation(1));
        }
    }

    #[test]
    fn a_forked_process_is_another_one() {
        let device = StandIn::new();
        let sysgenid = device.open(LONG);
        let seen = sysgenid.look();
        sysgenid.0.process.forked();
        assert_ne!(sysgenid.look(), seen);
        let fresh = sysgenid.settle();
        assert_ne!(fresh.seen(), seen);
        assert_eq!(fresh.seen(), sysgenid.look());
    }

    #[test]
    fn an_offset_outside_of_the_page_is_refused() {
        let file = tempfile::tempfile().expect("a temporary file");
        for offset in [4, rustix::param::page_size() - 8, usize::MAX - 7] {
            assert!(sys::IdPage::map(file.as_fd(), offset).is_err(), "{offset}");
        }
    }
}
