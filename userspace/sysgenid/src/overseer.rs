// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bringing a clone back into service.

use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::open;
use rustix::io::Errno;
use rustix::io::write;

use crate::Error;
use crate::GENERATION_NODE;
use crate::Generation;
use crate::Result;
use crate::Status;
use crate::Survey;
use crate::Watcher;
use crate::fresh::processor_random;
use crate::sys;

/// A program that changes the generation, and waits until every tracked watcher has acknowledged.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use std::time::Duration;
///
/// use sysgenid::Error;
/// use sysgenid::Overseer;
///
/// let overseer = Overseer::open()?;
/// overseer.trigger(0)?;
/// match overseer.wait_watchers(Some(Duration::from_secs(10))) {
///     Ok(()) => println!("all have acknowledged"),
///     Err(Error::TimedOut { .. }) => {
///         for entry in overseer.survey()?.outdated() {
///             println!("still to acknowledge: {} ({})", entry.command(), entry.pid());
///         }
///     }
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Overseer {
    watcher: Watcher,
    page: sys::GenerationPage,
}

impl Overseer {
    /// Opens `/dev/sysgenid`. Any process may: only [`Overseer::trigger`] needs a privilege.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// println!("generation {}", overseer.generation());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::open`].
    pub fn open() -> Result<Self> {
        Self::open_at(GENERATION_NODE)
    }

    /// Opens the node at another place, as a container may have it.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open_at("/dev/sysgenid")?;
    /// # drop(overseer);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::open`].
    pub fn open_at(node: impl AsRef<Path>) -> Result<Self> {
        let watcher = Watcher::open_at(node)?;
        let page = watcher.map()?;
        Ok(Self { watcher, page })
    }

    /// The generation at this moment.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// assert_eq!(overseer.generation(), overseer.status()?.generation());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::new(self.page.generation())
    }

    /// Waits until no change is due that the hypervisor has caused, for so long at most (`None`: without
    /// a limit), and has the driver make it now: it does not wait for the kernel to be notified. It
    /// takes no privilege. Nothing is due where the driver cannot see the hypervisor's ID.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use std::time::Duration;
    ///
    /// let overseer = sysgenid::Overseer::open()?;
    /// overseer.settle(Some(Duration::from_secs(10)))?;
    /// assert_ne!(overseer.status()?.pending(), Some(true));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotSettled`] if a change is still due when the time is over.
    pub fn settle(&self, limit: Option<Duration>) -> Result<()> {
        let deadline = Deadline::after(limit);
        loop {
            match sys::settle(self.watcher.as_fd(), deadline.milliseconds()) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) if !deadline.is_over() => {}
                Err(Errno::TIME | Errno::INTR) => {
                    return Err(Error::NotSettled {
                        limit: limit.unwrap_or_default(),
                    });
                }
                Err(errno) => return Err(Error::io("settle", GENERATION_NODE)(errno)),
            }
        }
    }

    /// Changes the generation: to `least` if that is greater than the current one plus 1, and to the
    /// current one plus 1 otherwise; 0 asks for nothing in particular. A change that is due comes first,
    /// and the kernel's random number generator is made to reseed. Returns the generation after
    /// that, which may be a later one if others change it at the same time.
    ///
    /// The kernel reseeds from what it has, and so two clones that the hypervisor has given no ID draw
    /// the same afterwards: [`Overseer::trigger_with_entropy`] is for them.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// let old = overseer.generation();
    /// let new = overseer.trigger(old.get() + 10)?;
    /// assert_eq!(new.get(), old.get() + 10);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotPrivileged`] without `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` in the initial
    /// user namespace.
    pub fn trigger(&self, least: u32) -> Result<Generation> {
        loop {
            return match sys::trigger(self.watcher.as_fd(), least) {
                Ok(()) => Ok(self.generation()),
                // A signal came before the driver had begun.
                Err(Errno::INTR) => continue,
                Err(Errno::ACCESS | Errno::PERM) => Err(Error::NotPrivileged),
                Err(errno) => Err(Error::io("change the generation of", GENERATION_NODE)(
                    errno,
                )),
            };
        }
    }

    /// Changes the generation as [`Overseer::trigger`] does, after the kernel's random number generator
    /// was given what tells this machine from its clones: `entropy`, and numbers of the processor's own
    /// generator (where there is one).
    ///
    /// That is the overseer's duty wherever no hypervisor gives the machine an ID: two machines that are
    /// resumed from one snapshot, and only triggered, draw the same bytes from the kernel, until it
    /// happens to have gathered something else. `entropy` are random bytes from outside that no other
    /// machine gets, 32 of them for example; they count as such.
    ///
    /// The order is: the kernel mixes them in, it reseeds, and the generation changes. So whoever sees
    /// the new generation draws what no clone draws.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// // In truth they come from outside of the machine.
    /// let mut entropy = [0; 32];
    /// sysgenid::Fresh::without_device().fill(&mut entropy)?;
    /// let old = overseer.generation();
    /// let new = overseer.trigger_with_entropy(0, &entropy)?;
    /// assert_ne!(new, old);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Overseer::trigger`], and [`Error::Io`] where there is no `/dev/urandom`: nothing was changed
    /// then.
    pub fn trigger_with_entropy(&self, least: u32, entropy: &[u8]) -> Result<Generation> {
        let node = Random::open()?;
        // Without CAP_SYS_ADMIN it can be mixed in as well, and does not count.
        node.feed(entropy, |block| node.mix_in(block))?;
        match sys::reseed(node.0.as_fd()) {
            // The driver does it as well, before the change. Where there is no data yet, nobody has drawn
            // any: what was mixed in comes first.
            Ok(()) | Err(Errno::PERM | Errno::NODATA) => self.trigger(least),
            Err(errno) => Err(Random::error("reseed")(errno)),
        }
    }

    /// Gives the kernel's random number generator what [`Overseer::trigger_with_entropy`] gives it, has
    /// it reseed, and changes nothing else: for an overseer that has more to do before anybody is told.
    ///
    /// It does all of that or fails: what does not count as random, or is not in use at once, is no
    /// success here.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// // In truth they come from outside of the machine.
    /// let mut entropy = [0; 32];
    /// sysgenid::Fresh::without_device().fill(&mut entropy)?;
    /// overseer.reseed(&entropy)?;
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] without `CAP_SYS_ADMIN`, and where there is no `/dev/urandom`.
    pub fn reseed(&self, entropy: &[u8]) -> Result<()> {
        let node = Random::open()?;
        node.feed(entropy, |_| Err(Errno::PERM))?;
        sys::reseed(node.0.as_fd()).map_err(Random::error("reseed"))
    }

    /// Waits until no tracked watcher is outdated, for so long at most (`None`: without a limit).
    ///
    /// A change that comes meanwhile is waited for as well. The overseer's own watcher does not count:
    /// it acknowledges by itself. A signal does not end the wait.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use std::time::Duration;
    ///
    /// use sysgenid::Error;
    /// use sysgenid::Overseer;
    /// use sysgenid::Watcher;
    ///
    /// let (overseer, watcher) = (Overseer::open()?, Watcher::open()?);
    /// watcher.set_tracked(true)?;
    /// let generation = overseer.trigger(0)?;
    /// let limit = Some(Duration::from_millis(10));
    /// assert!(matches!(overseer.wait_watchers(limit), Err(Error::TimedOut { .. })));
    /// watcher.ack(generation)?;
    /// overseer.wait_watchers(limit)?;
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if there still is one when the time is over: [`Overseer::survey`] tells
    /// which.
    pub fn wait_watchers(&self, limit: Option<Duration>) -> Result<()> {
        let deadline = Deadline::after(limit);
        loop {
            match sys::wait_watchers(self.watcher.as_fd(), deadline.milliseconds()) {
                Ok(()) => return Ok(()),
                // Either our own watcher is outdated, or it is a signal.
                Err(Errno::INTR) if self.ack()? || !deadline.is_over() => {}
                Err(Errno::TIME | Errno::INTR) => {
                    return Err(Error::TimedOut {
                        limit: limit.unwrap_or_default(),
                    });
                }
                Err(errno) => return Err(Error::io("wait on", GENERATION_NODE)(errno)),
            }
        }
    }

    /// Acknowledges on the own watcher, until that has held; says whether there was something to
    /// acknowledge.
    fn ack(&self) -> Result<bool> {
        let mut was_outdated = false;
        while let Some(generation) = self.watcher.outdated()? {
            was_outdated = true;
            match self.watcher.ack(generation) {
                Ok(()) | Err(Error::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(was_outdated)
    }

    /// What the driver says: the generation, what changed it last, how many watchers are tracked, and
    /// how many of those are outdated.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Overseer::open()?.status()?;
    /// println!("{} of {} are outdated", status.outdated_watchers(), status.watchers());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::status`].
    pub fn status(&self) -> Result<Status> {
        self.watcher.status()
    }

    /// Who watches: every descriptor of `/dev/sysgenid` in every process that this one may look at,
    /// but for the overseer's own.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Overseer;
    /// use sysgenid::Watcher;
    ///
    /// let watcher = Watcher::open()?;
    /// watcher.set_tracked(true)?;
    /// let survey = Overseer::open()?.survey()?;
    /// let mine = survey.entries().iter().find(|entry| entry.pid() == std::process::id());
    /// assert!(mine.is_some_and(|entry| entry.status().tracked()));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where there is no `/proc`.
    pub fn survey(&self) -> Result<Survey> {
        Survey::take(&self.watcher)
    }
}

/// The kernel's random number generator, to be given something.
struct Random(OwnedFd);

impl Random {
    const NODE: &str = "/dev/urandom";

    fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let node = open(Self::NODE, flags, Mode::empty());
        node.map(Self).map_err(Self::error("open"))
    }

    fn error(action: &'static str) -> impl FnOnce(Errno) -> Error {
        Error::io(action, Self::NODE)
    }

    /// Gives it these bytes, which count, and the processor's, which do not; where that is not permitted,
    /// `otherwise` is done with them.
    fn feed(
        &self,
        entropy: &[u8],
        otherwise: impl Fn(&[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        let of_processor = processor_random();
        let blocks = entropy
            .chunks(sys::ENTROPY_BLOCK)
            .map(|block| (block, true));
        for (block, counts) in blocks.chain([(&of_processor[..], false)]) {
            match sys::add_entropy(self.0.as_fd(), block, counts) {
                Err(Errno::PERM) => otherwise(block),
                added => added,
            }
            .map_err(Self::error("add entropy to"))?;
        }
        Ok(())
    }

    fn mix_in(&self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        while !bytes.is_empty() {
            match write(&self.0, bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// When a wait ends, if ever.
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(limit: Option<Duration>) -> Self {
        // A time that no clock reaches is none.
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// Whether the time is over. Whoever is woken by signals all the time sees it by this only: what
    /// the driver waits is a millisecond at least.
    fn is_over(&self) -> bool {
        self.0.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// What is left, as the driver wants it: 0 is no limit.
    fn milliseconds(&self) -> usize {
        self.0.map_or(0, |deadline| {
            milliseconds(deadline.saturating_duration_since(Instant::now()))
        })
    }
}

/// As the driver wants it: at least one, because 0 is no limit; a fraction counts as a whole one.
pub(crate) fn milliseconds(time: Duration) -> usize {
    let whole = time.as_nanos().div_ceil(1_000_000);
    usize::try_from(whole).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_clock_reaches_is_no_limit() {
        for limit in [None, Some(Duration::MAX)] {
            let deadline = Deadline::after(limit);
            assert!(!deadline.is_over());
            assert_eq!(deadline.milliseconds(), 0);
        }
        let deadline = Deadline::after(Some(Duration::ZERO));
        assert!(deadline.is_over());
        assert_eq!(deadline.milliseconds(), 1);
    }

    #[test]
    fn a_limit_is_never_passed_on_as_none() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(1001)), 2);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000);
        assert_eq!(milliseconds(Duration::MAX), usize::MAX);
    }
}
