// SPDX-License-Identifier: MIT OR Apache-2.0

//! The protocol of a library that keeps secrets: look, draw, look again.
//!
//! Nothing here takes a lock, because a process may fork while another of its threads holds one.

use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use sysgenid::Fresh;
use sysgenid::Seen;
use sysgenid::SysGenId;
use zeroize::Zeroizing;

/// How often bytes are drawn again because the machine was cloned, or the generation was changed,
/// meanwhile. After that they leave all the same: drawing never fails on our account.
const ATTEMPTS: u32 = 16;

/// How many bytes from the kernel a generator is reseeded with, if it takes that many: its key (256 bits)
/// and its counter (128 bits).
const ENTROPY: usize = 48;

/// A generator that is seeded once, and draws from its state.
pub(crate) trait Generator {
    /// The least and the greatest length of what `reseed` takes.
    fn entropy_length(&self) -> RangeInclusive<usize>;

    /// Reseeds it with these bytes, and from its own source; from that alone if there are none.
    fn reseed(&self, entropy: &[u8]) -> bool;
}

/// What a generator has been seeded for. Several threads may use it at once.
#[derive(Debug)]
pub(crate) struct Known(
    /// The number of an entry of [`Heed::history`].
    AtomicUsize,
);

impl Known {
    /// Of a generator that was not seeded yet.
    pub(crate) const fn nothing() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

/// Looks for all generators of a library context.
#[derive(Debug)]
pub(crate) struct Heed {
    /// Without a device there is nothing to look at, and the generators are OpenSSL's plain ones.
    sysgenid: Option<SysGenId>,
    /// What the generators were seeded for, oldest first. It grows by some bytes with each change that
    /// comes between two draws; an entry is never removed, so that it can be read without a lock.
    history: boxcar::Vec<Fresh>,
    /// How often a generator was reseeded because of a change.
    reseeds: AtomicU64,
    /// How often the kernel did not say in time that it was reseeded.
    unconfirmed: AtomicU64,
}

impl Heed {
    pub(crate) fn new(sysgenid: Option<SysGenId>) -> Self {
        Self {
            sysgenid,
            history: boxcar::Vec::new(),
            reseeds: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
        }
    }

    /// Whether there is something to look at.
    pub(crate) fn is_on(&self) -> bool {
        self.sysgenid.is_some()
    }

    pub(crate) fn reseeds(&self) -> u64 {
        self.reseeds.load(Ordering::Relaxed)
    }

    pub(crate) fn unconfirmed(&self) -> u64 {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    /// Seeds a generator for the first time, by `instantiate`.
    ///
    /// What it is seeded from may be older than the last change: another generator, which somebody
    /// else made. So it counts as seeded for what was seen first of all; if there was a change since,
    /// it is reseeded before it gives its first byte.
    pub(crate) fn seed(
        &self,
        known: &Known,
        generator: &impl Generator,
        instantiate: impl FnOnce() -> bool,
    ) -> bool {
        let Some(sysgenid) = &self.sysgenid else {
            return instantiate();
        };
        // Before that: this process may have been started in a clone whose kernel does not yet know.
        let first = match self.history.get(0) {
            Some(_) => 0,
            None => self.remember(sysgenid.fresh()),
        };
        let instantiated = instantiate();
        known.0.store(first, Ordering::Release);
        if let Some(fresh) = self.history.get(first).filter(|it| !it.is_confirmed()) {
            if instantiated {
                reseed(generator, fresh);
            }
        }
        instantiated
    }

    /// Draws by `draw`, from a generator that is reseeded first if there was a change. What was drawn
    /// while there was one goes to `discard`.
    ///
    /// While nothing has changed, this makes no system call.
    #[inline]
    pub(crate) fn draw<T>(
        &self,
        known: &Known,
        generator: &impl Generator,
        draw: impl Fn() -> T,
        discard: impl Fn(T),
    ) -> T {
        let Some(sysgenid) = &self.sysgenid else {
            return draw();
        };
        for _ in 0..ATTEMPTS {
            // Kept until the second look: another thread may reseed the same generator meanwhile, but
            // not what is drawn here.
            let seen = match self.seen(known) {
                Some(seen) if seen == sysgenid.look() => seen,
                _ => self.renew(sysgenid, known, generator),
            };
            let drawn = draw();
            if sysgenid.look() == seen {
                return drawn;
            }
            discard(drawn);
        }
        self.renew(sysgenid, known, generator);
        draw()
    }

    #[inline]
    fn seen(&self, known: &Known) -> Option<Seen> {
        self.history
            .get(known.0.load(Ordering::Acquire))
            .map(Fresh::seen)
    }

    /// Waits until the kernel has been reseeded, and reseeds the generator from it. Returns what was
    /// seen then.
    #[cold]
    fn renew(&self, sysgenid: &SysGenId, known: &Known, generator: &impl Generator) -> Seen {
        let renewed = catch_unwind(AssertUnwindSafe(|| {
            let number = self.settled(sysgenid, known);
            let fresh = self.history.get(number)?;
            // A generator that has failed is started anew by the next attempt.
            let reseeded = reseed(generator, fresh) || reseed(generator, fresh);
            if reseeded {
                self.reseeds.fetch_add(1, Ordering::Relaxed);
            }
            known.0.store(number, Ordering::Release);
            Some(fresh.seen())
        }));
        renewed.ok().flatten().unwrap_or_else(|| {
            // A mistake in what this is built of must not end somebody's program: what OpenSSL
            // itself can do is left.
            generator.reseed(&[]);
            sysgenid.look()
        })
    }

    /// The number of what is seen now, once the kernel was reseeded for it.
    fn settled(&self, sysgenid: &SysGenId, known: &Known) -> usize {
        let newest = self.history.count().checked_sub(1);
        let newest = newest.and_then(|number| Some((number, self.history.get(number)?)));
        match (newest, self.seen(known)) {
            // Another generator has waited for it already.
            (Some((number, fresh)), _) if fresh.seen() == sysgenid.look() => number,
            (_, Some(seen)) => self.remember(sysgenid.settle(seen)),
            (_, None) => self.remember(sysgenid.fresh()),
        }
    }

    fn remember(&self, fresh: Fresh) -> usize {
        if !fresh.is_confirmed() {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
            crate::message::tell(
                "the hypervisor has given this machine a new ID, and the kernel does not say that it \
                 was reseeded; the new ID and the processor's random numbers are mixed in instead",
            );
        }
        self.history.push(fresh)
    }
}

/// Reseeds a generator with bytes from the kernel that no clone of this machine has, besides what its
/// own source gives: that can be another generator, whose state is in all clones.
fn reseed(generator: &impl Generator, fresh: &Fresh) -> bool {
    let length = generator.entropy_length();
    let length = ENTROPY.max(*length.start()).min(*length.end());
    let mut entropy = Zeroizing::new(vec![0; length]);
    match fresh.fill(&mut entropy) {
        Ok(()) => generator.reseed(&entropy),
        // A sandbox forbids the system call. OpenSSL's own source knows other ways.
        Err(_) => generator.reseed(&[]),
    }
}
