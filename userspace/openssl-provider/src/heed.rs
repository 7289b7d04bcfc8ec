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

/// What was seen in one look, as numbers that are compared fast. Where there is no ID, its numbers are 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    id: [u64; 2],
    generation: u64,
}

impl Look {
    #[inline]
    fn at(sysgenid: &SysGenId) -> Self {
        sysgenid.look().into()
    }
}

impl From<Seen> for Look {
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the number is cut into its halves"
    )]
    fn from(seen: Seen) -> Self {
        let id = seen
            .id()
            .map_or(0, |id| u128::from_ne_bytes(*id.as_bytes()));
        Self {
            id: [(id >> 64) as u64, id as u64],
            generation: seen.generation().get().into(),
        }
    }
}

/// What a generator has been seeded for. Several threads may use it at once.
///
/// Its numbers are stored one by one, after the generator was reseeded. A thread that finds all of them
/// equal to what it sees can have read some before, and some after they were stored. But those that
/// differ from what was there before have then been stored, and so the generator has been reseeded.
#[derive(Debug)]
pub(crate) struct Known {
    id: [AtomicU64; 2],
    generation: AtomicU64,
    /// The number of the entry of [`Heed::history`] with what was seen.
    entry: AtomicUsize,
}

impl Known {
    /// Of a generator that was not seeded yet. No generation has so great a number.
    pub(crate) const fn nothing() -> Self {
        Self {
            id: [const { AtomicU64::new(0) }; 2],
            generation: AtomicU64::new(u64::MAX),
            entry: AtomicUsize::new(usize::MAX),
        }
    }

    #[inline]
    fn is(&self, look: Look) -> bool {
        let [first, second] = &self.id;
        self.generation.load(Ordering::Acquire) == look.generation
            && first.load(Ordering::Acquire) == look.id[0]
            && second.load(Ordering::Acquire) == look.id[1]
    }

    fn set(&self, entry: usize, seen: Seen) {
        let look = Look::from(seen);
        self.entry.store(entry, Ordering::Release);
        for (place, number) in self.id.iter().zip(look.id) {
            place.store(number, Ordering::Release);
        }
        self.generation.store(look.generation, Ordering::Release);
    }
}

/// Looks for all generators of a library context.
#[derive(Debug)]
pub(crate) struct Heed {
    /// Without a device there is nothing to look at, and the generators are OpenSSL's plain ones.
    sysgenid: Option<SysGenId>,
    /// What the generators were seeded for, oldest first. It grows by 32 bytes with each change that
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
        let entry = match self.history.get(0) {
            Some(_) => 0,
            None => self.remember(sysgenid.fresh()),
        };
        let instantiated = instantiate();
        if let Some(fresh) = self.history.get(entry) {
            if instantiated && !fresh.is_confirmed() {
                reseed(generator, fresh);
            }
            known.set(entry, fresh.seen());
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
        let before = Look::at(sysgenid);
        if known.is(before) {
            let drawn = draw();
            // With what was seen before, and not with what is known now: another thread may have
            // reseeded the generator meanwhile, but not what was drawn here.
            if Look::at(sysgenid) == before {
                return drawn;
            }
            discard(drawn);
        }
        self.draw_anew(sysgenid, known, generator, draw, discard)
    }

    #[cold]
    fn draw_anew<T>(
        &self,
        sysgenid: &SysGenId,
        known: &Known,
        generator: &impl Generator,
        draw: impl Fn() -> T,
        discard: impl Fn(T),
    ) -> T {
        for _ in 1..ATTEMPTS {
            let before = self.renew(sysgenid, known, generator);
            let drawn = draw();
            if Look::at(sysgenid) == before {
                return drawn;
            }
            discard(drawn);
        }
        self.renew(sysgenid, known, generator);
        draw()
    }

    /// Waits until the kernel has been reseeded, and reseeds the generator from it. Returns what was
    /// seen then.
    fn renew(&self, sysgenid: &SysGenId, known: &Known, generator: &impl Generator) -> Look {
        let renewed = catch_unwind(AssertUnwindSafe(|| {
            let entry = self.settled(sysgenid, known);
            let fresh = self.history.get(entry)?;
            // A generator that has failed is started anew by the next attempt.
            if reseed(generator, fresh) || reseed(generator, fresh) {
                self.reseeds.fetch_add(1, Ordering::Relaxed);
            }
            known.set(entry, fresh.seen());
            Some(Look::from(fresh.seen()))
        }));
        renewed.ok().flatten().unwrap_or_else(|| {
            // A mistake in what this is built of must not end somebody's program: what OpenSSL
            // itself can do is left.
            generator.reseed(&[]);
            Look::at(sysgenid)
        })
    }

    /// The entry with what is seen now, once the kernel was reseeded for it.
    fn settled(&self, sysgenid: &SysGenId, known: &Known) -> usize {
        let newest = self.history.count().checked_sub(1);
        let newest = newest.and_then(|entry| Some((entry, self.history.get(entry)?)));
        let known = self.history.get(known.entry.load(Ordering::Acquire));
        match (newest, known) {
            // Another generator has waited for it already.
            (Some((entry, fresh)), _) if fresh.seen() == sysgenid.look() => entry,
            (_, Some(known)) => self.remember(sysgenid.settle(known.seen())),
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
