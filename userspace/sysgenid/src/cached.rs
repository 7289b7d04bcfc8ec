// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values that are built anew when the machine was cloned.

use std::fmt;
use std::sync::Mutex;

use crate::BuildError;
use crate::Error;
use crate::Fresh;
use crate::Freshness;
use crate::Result;
use crate::Seen;
use crate::SysGenId;

/// How often work is done again because the generation has changed meanwhile.
const ATTEMPTS: u32 = 16;

type Build<T> = dyn Fn(&Fresh) -> std::result::Result<T, BuildError> + Send + Sync;

/// A value that must not be shared with a clone of this machine: the state of a random number
/// generator, a UUID node, a token. It is built when it is used first, and built anew when the machine
/// was cloned, the generation was changed, or the process was forked.
///
/// Threads take turns. While nothing has changed, a use makes no system call (unless threads meet).
///
/// ```
/// # fn main() -> Result<(), sysgenid::Error> {
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
/// # }
/// ```
pub struct Cached<T> {
    sysgenid: Option<SysGenId>,
    build: Box<Build<T>>,
    built: Mutex<Built<T>>,
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
    /// Without a device (`None`) it is built once, and kept, in forked processes too.
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
        Self {
            sysgenid: sysgenid.into(),
            build: Box::new(build),
            built: Mutex::new(Built {
                value: None,
                seen: None,
            }),
        }
    }

    /// Uses the value, and returns what the closure makes of it.
    ///
    /// It looks before the use and after it. If the machine was cloned before or while the closure
    /// ran, then the value and what the closure returned are thrown away, the value is built anew,
    /// and the closure runs again. So the closure should have no effect besides what it returns: what
    /// it sends, writes or prints may be sent by a clone as well.
    ///
    /// A closure that panics costs the value: it is built anew at the next use.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use sysgenid::Cached;
    /// use sysgenid::SysGenId;
    ///
    /// let counter = Cached::new(SysGenId::open()?, |_| Ok(0));
    /// counter.with(|count| *count += 1)?;
    /// assert_eq!(counter.with(|count| *count)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Build`] with what the closure that builds said; the next use tries again.
    /// [`Error::Unsettled`] if the generation changes all the time.
    pub fn with<R>(&self, mut use_it: impl FnMut(&mut T) -> R) -> Result<R> {
        let mut built = self.built.lock().unwrap_or_else(|poisoned| {
            // A use has panicked half way, and may have left the value inconsistent.
            let mut built = poisoned.into_inner();
            built.value = None;
            self.built.clear_poison();
            built
        });
        let built = &mut *built;
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
        self.sysgenid.as_ref().map_or(Seen::NOTHING, SysGenId::look)
    }

    fn settle(&self) -> Fresh {
        self.sysgenid.as_ref().map_or(
            Fresh::new(Seen::NOTHING, Freshness::NoDevice),
            SysGenId::settle,
        )
    }
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
/// # fn main() -> Result<(), sysgenid::Error> {
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
/// # }
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
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// assert_eq!(sysgenid.guard().seen(), sysgenid.look());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Looks whether anything has changed since the guard was made. It makes no system call.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let guard = sysgenid::SysGenId::open()?.guard();
    /// guard.check()?;
    /// # Ok(())
    /// # }
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
    fn a_guard_notices() {
        let device = StandIn::new();
        let guard = device.open(Duration::from_secs(60)).guard();
        assert!(guard.check().is_ok());
        device.set_id(1);
        assert!(matches!(guard.check(), Err(Error::Changed)));
    }
}
