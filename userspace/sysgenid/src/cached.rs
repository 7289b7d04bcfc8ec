// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values that are built anew when the machine was cloned.

use std::fmt;
use std::ptr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use once_cell::race::OnceBox;

use crate::BuildError;
use crate::Error;
use crate::Fresh;
use crate::Result;
use crate::Seen;
use crate::SysGenId;

/// How often work is done again because the generation has changed meanwhile.
pub(crate) const ATTEMPTS: u32 = 16;

type Build<T> = dyn Fn(&Fresh) -> std::result::Result<T, BuildError> + Send + Sync;

/// A value that must not be shared with a clone of this machine: the state of a random number
/// generator, a UUID node, a token. It is built when it is used first, and built anew when the machine
/// was cloned, the generation was changed, or the process was forked.
///
/// Threads take turns. While nothing has changed, a use makes no system call (unless threads meet). A
/// forked process has a value of its own, and never waits for a thread of the one that it comes from.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use sysgenid::Cached;
/// use sysgenid::SysGenId;
///
/// // A counter under a random prefix: unique as long as no two machines have the prefix.
/// let ids = Cached::new(SysGenId::open()?, |fresh| {
///     let mut prefix = [0; 8];
///     fresh.fill(&mut prefix)?;
///     Ok((u64::from_ne_bytes(prefix), 0u64))
/// });
/// let id = ids.with(|(prefix, count)| {
///     *count += 1;
///     format!("{prefix:016x}-{count}")
/// })?;
/// assert!(id.ends_with("-1"));
/// # Ok(())
/// # });
/// ```
pub struct Cached<T> {
    sysgenid: Option<SysGenId>,
    build: Box<Build<T>>,
    /// The first of a list.
    slot: Slot<T>,
}

/// Where one process of a line of forked ones has its value. Who is forked while a thread uses the
/// value finds it locked for ever, and takes the next slot.
struct Slot<T> {
    /// Its [`Seen::process`].
    process: u32,
    built: Mutex<Built<T>>,
    /// The thread that has it locked, or 0.
    user: AtomicUsize,
    /// No lock guards this: that could be held at a fork as well.
    next: OnceBox<Slot<T>>,
}

impl<T> Slot<T> {
    fn new(process: u32) -> Self {
        Self {
            process,
            built: Mutex::new(Built {
                value: None,
                seen: None,
            }),
            user: AtomicUsize::new(0),
            next: OnceBox::new(),
        }
    }

    /// The slot of that process, which is this one. There are as many before it as this process has
    /// ancestors that used the value.
    fn of(&self, process: u32) -> &Self {
        let mut slot = self;
        while slot.process != process {
            slot = slot.next.get_or_init(|| {
                slot.forget();
                Box::new(Self::new(process))
            });
        }
        slot
    }

    /// Drops what a process has left to its children, if no thread of it was at it.
    fn forget(&self) {
        if let Ok(mut built) = self.built.try_lock() {
            built.value = None;
        }
    }

    fn lock(&self) -> Result<Locked<'_, T>> {
        let thread = this_thread();
        if self.user.load(Ordering::Relaxed) == thread {
            return Err(Error::Nested);
        }
        let built = self.built.lock().unwrap_or_else(|poisoned| {
            // A use has panicked half way, and may have left the value inconsistent.
            let mut built = poisoned.into_inner();
            built.value = None;
            self.built.clear_poison();
            built
        });
        self.user.store(thread, Ordering::Relaxed);
        Ok(Locked {
            user: &self.user,
            built,
        })
    }
}

/// A number that this thread has, and no other one that runs. It is not 0.
fn this_thread() -> usize {
    thread_local! {
        static PLACE: u8 = const { 0 };
    }
    PLACE.with(|place| ptr::from_ref(place).addr())
}

/// A slot that is locked.
struct Locked<'a, T> {
    user: &'a AtomicUsize,
    built: MutexGuard<'a, Built<T>>,
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        // The lock goes after this.
        self.user.store(0, Ordering::Relaxed);
    }
}

/// The value, and what was seen when it was built.
struct Built<T> {
    value: Option<T>,
    seen: Option<Seen>,
}

impl<T> Cached<T> {
    /// A value that `build` makes. The closure draws what it needs from the [`Fresh`] that it is
    /// given, or from `getrandom()`, which is fresh by then; not from a generator that was seeded
    /// earlier.
    ///
    /// Without a device (`None`) it is built once in each process.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use sysgenid::Cached;
    ///
    /// let kept = Cached::new(None, |_| Ok(42));
    /// assert_eq!(kept.with(|value| *value)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(
        sysgenid: impl Into<Option<SysGenId>>,
        build: impl Fn(&Fresh) -> std::result::Result<T, BuildError> + Send + Sync + 'static,
    ) -> Self {
        let sysgenid = sysgenid.into();
        let process = process_of(sysgenid.as_ref());
        Self {
            sysgenid,
            build: Box::new(build),
            slot: Slot::new(process),
        }
    }

    /// Uses the value, and returns what the closure makes of it.
    ///
    /// It looks before the use and after it. If the machine was cloned before or while the closure
    /// ran, then the value and what the closure returned are thrown away, the value is built anew,
    /// and the closure runs again. So the closure should have no effect besides what it returns: what
    /// it sends, writes or prints may be sent by a clone as well.
    ///
    /// A closure that panics costs the value: it is built anew at the next use. Neither closure can use
    /// the same value once more: it would wait for itself.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Cached;
    /// use sysgenid::SysGenId;
    ///
    /// let counter = Cached::new(SysGenId::open()?, |_| Ok(0));
    /// counter.with(|count| *count += 1)?;
    /// assert_eq!(counter.with(|count| *count)?, 1);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Build`] with what the closure that builds said; the next use tries again.
    /// [`Error::Unsettled`] if the generation changes all the time. [`Error::Nested`] inside of one of
    /// the closures.
    pub fn with<R>(&self, mut use_it: impl FnMut(&mut T) -> R) -> Result<R> {
        let process = process_of(self.sysgenid.as_ref());
        let mut locked = self.slot.of(process).lock()?;
        let built = &mut *locked.built;
        for _ in 0..ATTEMPTS {
            if let Some(value) = &mut built.value {
                if built.seen == Some(self.look()) {
                    let result = use_it(value);
                    if built.seen == Some(self.look()) {
                        return Ok(result);
                    }
                }
            }
            // The old value goes first: nothing may come of it any more.
            built.value = None;
            let fresh = self.settle();
            built.seen = Some(fresh.seen());
            built.value = Some((self.build)(&fresh).map_err(Error::Build)?);
            // Whether the machine was cloned while the value was built shows at the next look.
        }
        Err(Error::Unsettled { attempts: ATTEMPTS })
    }

    fn look(&self) -> Seen {
        self.sysgenid
            .as_ref()
            .map_or_else(Seen::without_device, SysGenId::look)
    }

    fn settle(&self) -> Fresh {
        self.sysgenid
            .as_ref()
            .map_or_else(Fresh::without_device, SysGenId::settle)
    }
}

/// The number of this process.
fn process_of(sysgenid: Option<&SysGenId>) -> u32 {
    sysgenid.map_or_else(|| Seen::without_device().process(), SysGenId::process)
}

/// Does not show the value, which may be a secret.
impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("sysgenid", &self.sysgenid)
            .finish_non_exhaustive()
    }
}

/// Work that must not cross a change: it remembers what was seen when it was made.
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use sysgenid::Error;
/// use sysgenid::SysGenId;
///
/// let sysgenid = SysGenId::open()?;
/// loop {
///     let guard = sysgenid.guard();
///     // … submit the transaction …
///     match guard.check() {
///         // … confirm it …
///         Ok(()) => break,
///         // … revert it, and start again with a new ID …
///         Err(Error::Changed) => continue,
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Guard {
    sysgenid: SysGenId,
    seen: Seen,
}

impl Guard {
    pub(crate) fn new(sysgenid: SysGenId) -> Self {
        let seen = sysgenid.look();
        Self { sysgenid, seen }
    }

    /// What was seen when the guard was made.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// assert_eq!(sysgenid.guard().seen(), sysgenid.look());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Looks whether anything has changed since the guard was made. It makes no system call.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let guard = sysgenid::SysGenId::open()?.guard();
    /// guard.check()?;
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if it has, or if this is a process that was forked since.
    /// [`SysGenId::settle`] tells when the kernel's random bytes can be trusted again.
    pub fn check(&self) -> Result<()> {
        if self.sysgenid.look() == self.seen {
            Ok(())
        } else {
            Err(Error::Changed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::sys::holds_in_child;
    use crate::sysgenid::stand_in::StandIn;

    /// A value that counts how often it was built.
    fn counted(device: &StandIn) -> Cached<u32> {
        let builds = AtomicU32::new(0);
        Cached::new(device.open(Duration::from_secs(60)), move |_| {
            Ok(builds.fetch_add(1, Ordering::Relaxed) + 1)
        })
    }

    #[test]
    fn built_once_while_nothing_changes() {
        let device = StandIn::new();
        let cached = counted(&device);
        for _ in 0..3 {
            assert_eq!(cached.with(|build| *build).expect("no change"), 1);
        }
    }

    #[test]
    fn built_once_for_each_change() {
        let device = StandIn::new();
        let cached = counted(&device);
        for generation in 0..3 {
            device.set_generation(generation);
            for _ in 0..2 {
                let build = cached.with(|build| *build).expect("no change");
                assert_eq!(build, generation + 1);
            }
        }
    }

    #[test]
    fn what_was_made_across_a_change_is_thrown_away() {
        let device = StandIn::new();
        let cached = counted(&device);
        let mut uses = Vec::new();
        let result = cached.with(|build| {
            uses.push(*build);
            if uses.len() == 1 {
                device.set_generation(1);
            }
            *build
        });
        assert_eq!(result.expect("it settles"), 2);
        assert_eq!(uses, [1, 2]);
    }

    #[test]
    fn built_again_if_the_machine_was_cloned_while_it_was_built() {
        let device = Arc::new(StandIn::new());
        let builds = AtomicU32::new(0);
        let sysgenid = device.open(Duration::from_secs(60));
        let changed = Arc::clone(&device);
        let cached = Cached::new(sysgenid, move |_| {
            let build = builds.fetch_add(1, Ordering::Relaxed) + 1;
            if build == 1 {
                changed.set_id(9);
                changed.set_generation(1);
            }
            Ok(build)
        });
        assert_eq!(cached.with(|build| *build).expect("it settles"), 2);
    }

    #[test]
    fn a_generation_that_never_rests_is_an_error() {
        let device = StandIn::new();
        let cached = counted(&device);
        let mut generation = 0;
        let result = cached.with(|_| {
            generation += 1;
            device.set_generation(generation);
        });
        assert!(matches!(result, Err(Error::Unsettled { .. })), "{result:?}");
        assert!(cached.with(|_| ()).is_ok());
    }

    #[test]
    fn a_build_that_fails_is_tried_again() {
        let device = StandIn::new();
        let builds = AtomicU32::new(0);
        let sysgenid = device.open(Duration::from_secs(60));
        let cached = Cached::new(sysgenid, move |_| {
            match builds.fetch_add(1, Ordering::Relaxed) {
                0 => Err("not today".into()),
                build => Ok(build),
            }
        });
        let error = cached.with(|_| ()).expect_err("the first build fails");
        assert!(error.to_string().contains("not today"), "{error}");
        assert_eq!(cached.with(|build| *build).expect("the second one"), 1);
    }

    #[test]
    fn a_panic_costs_the_value() {
        let device = StandIn::new();
        let cached = counted(&device);
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| cached.with::<()>(|_| panic!("on purpose")))
                .join()
        });
        assert!(panicked.is_err());
        assert_eq!(cached.with(|build| *build).expect("no change"), 2);
    }

    #[test]
    fn a_use_in_a_use_is_an_error() {
        let device = StandIn::new();
        let cached = counted(&device);
        let inner = cached.with(|_| cached.with(|build| *build));
        let inner = inner.expect("the outer use is one");
        assert!(matches!(inner, Err(Error::Nested)), "{inner:?}");
        assert_eq!(cached.with(|build| *build).expect("no change"), 1);
    }

    #[test]
    fn a_use_while_it_is_built_is_an_error() {
        let device = StandIn::new();
        let sysgenid = device.open(Duration::from_secs(60));
        let cached = Arc::new_cyclic(|cached: &std::sync::Weak<Cached<u32>>| {
            let cached = cached.clone();
            Cached::new(sysgenid, move |_| {
                let cached = cached.upgrade().expect("it is in use");
                cached.with(|value| *value).map_err(Into::into)
            })
        });
        let error = cached.with(|_| ()).expect_err("it can never be built");
        assert!(
            error.to_string().contains("in use by this thread"),
            "{error}"
        );
    }

    /// One whose values all differ, with a device or without.
    fn random(device: Option<&StandIn>) -> Cached<[u8; 16]> {
        let sysgenid = device.map(|device| device.open(Duration::from_secs(60)));
        Cached::new(sysgenid, |fresh| {
            let mut value = [0; 16];
            fresh.fill(&mut value)?;
            Ok(value)
        })
    }

    #[test]
    fn a_forked_process_has_a_value_of_its_own() {
        let device = StandIn::new();
        for device in [None, Some(&device)] {
            let cached = random(device);
            let value = || cached.with(|value| *value).expect("no change");
            let parents = value();
            assert!(holds_in_child(|| {
                let childs = value();
                let has_its_own = childs != parents && value() == childs;
                has_its_own && holds_in_child(|| ![parents, childs].contains(&value()))
            }));
            assert_eq!(value(), parents);
        }
    }

    /// The other thread is not there in the child, and never unlocks anything.
    #[test]
    fn a_fork_while_another_thread_uses_the_value() {
        use std::sync::Barrier;

        let device = StandIn::new();
        for device in [None, Some(&device)] {
            let cached = random(device);
            let (begun, end) = (Barrier::new(2), Barrier::new(2));
            let parents = cached.with(|value| *value).expect("no change");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    cached.with(|_| {
                        begun.wait();
                        end.wait();
                    })
                });
                begun.wait();
                let held = holds_in_child(|| {
                    let childs = cached.with(|value| *value);
                    childs.is_ok_and(|childs| childs != parents)
                });
                end.wait();
                assert!(held);
            });
        }
    }

    /// A value may hold what nobody else shall find.
    #[test]
    fn what_a_child_inherits_is_dropped() {
        struct Counted(Arc<AtomicU32>);

        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let device = StandIn::new();
        let drops = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&drops);
        let cached = Cached::new(device.open(Duration::from_secs(60)), move |_| {
            Ok(Counted(Arc::clone(&counter)))
        });
        cached.with(|_| ()).expect("no change");
        assert!(holds_in_child(|| {
            cached.with(|_| ()).is_ok() && drops.load(Ordering::Relaxed) == 1
        }));
        assert_eq!(drops.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_guard_notices() {
        let device = StandIn::new();
        let guard = device.open(Duration::from_secs(60)).guard();
        assert!(guard.check().is_ok());
        device.set_id(1);
        assert!(matches!(guard.check(), Err(Error::Changed)));
    }
}
