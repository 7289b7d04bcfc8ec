// SPDX-License-Identifier: MIT OR Apache-2.0

//! The protocol of a library that keeps secrets (`Documentation/userspace-api/vmgenid.rst`): look, draw,
//! look again.
//!
//! Nothing here takes a lock, because a process may fork while another of its threads holds one.

use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use once_cell::race::OnceBox;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use sysgenid::Fresh;
use sysgenid::Freshness;
use sysgenid::Seen;
use sysgenid::SysGenId;
use zeroize::Zeroizing;

use crate::message;

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

    /// Runs `wait` while its lock, if somebody has locked it in order to draw, is not held: a process
    /// that is forked meanwhile would find it locked for ever.
    fn unlocked<T>(&self, wait: impl FnOnce() -> T) -> T;
}

/// What was seen in one look, as numbers that are compared fast. Where there is no ID, its numbers are 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    id: [u64; 2],
    epoch: u64,
    /// The number of the process, which is never 0, and the generation.
    process: u64,
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
            epoch: seen.epoch(),
            process: (u64::from(seen.process()) << 32) | u64::from(seen.generation().get()),
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
    epoch: AtomicU64,
    process: AtomicU64,
}

impl Known {
    /// Of a generator that was not seeded yet. No process has that number.
    pub(crate) const fn nothing() -> Self {
        Self {
            id: [const { AtomicU64::new(0) }; 2],
            epoch: AtomicU64::new(0),
            process: AtomicU64::new(0),
        }
    }

    #[inline]
    fn is(&self, look: Look) -> bool {
        let [first, second] = &self.id;
        self.process.load(Ordering::Acquire) == look.process
            && self.epoch.load(Ordering::Acquire) == look.epoch
            && first.load(Ordering::Acquire) == look.id[0]
            && second.load(Ordering::Acquire) == look.id[1]
    }

    fn set(&self, seen: Seen) {
        let look = Look::from(seen);
        for (place, number) in self.id.iter().zip(look.id) {
            place.store(number, Ordering::Release);
        }
        self.epoch.store(look.epoch, Ordering::Release);
        self.process.store(look.process, Ordering::Release);
    }
}

/// How the device is opened.
type Open = dyn Fn() -> Option<SysGenId> + Send + Sync;

/// The device, once it is there.
struct Device {
    sysgenid: SysGenId,
    /// What was seen first of all.
    first: Seen,
}

impl Device {
    fn new(sysgenid: SysGenId) -> Self {
        let first = sysgenid.look();
        Self { sysgenid, first }
    }
}

/// Looks for all generators of a library context.
pub(crate) struct Heed {
    /// Without it there is nothing to look at, and the generators are OpenSSL's plain ones.
    device: OnceBox<Device>,
    /// Opens it later, if the module is loaded after the program was started.
    open: Box<Open>,
    /// The second in which that was tried last.
    tried: AtomicU64,
    /// For what the kernel was waited in vain last.
    in_vain: Known,
    /// How often a generator was reseeded because of a change.
    reseeds: AtomicU64,
    /// How often the kernel was not known to be reseeded for what was seen.
    unconfirmed: AtomicU64,
    /// For what it was not known last, folded; 0 while there is none.
    unconfirmed_look: AtomicU64,
}

impl Heed {
    pub(crate) fn new(open: Box<Open>, sysgenid: Option<SysGenId>) -> Self {
        let device = OnceBox::new();
        if let Some(sysgenid) = sysgenid {
            let _ = device.set(Box::new(Device::new(sysgenid)));
        }
        Self {
            device,
            open,
            tried: AtomicU64::new(second()),
            in_vain: Known::nothing(),
            reseeds: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
            unconfirmed_look: AtomicU64::new(0),
        }
    }

    /// Whether there is something to look at.
    pub(crate) fn is_on(&self) -> bool {
        self.device.get().is_some()
    }

    pub(crate) fn reseeds(&self) -> u64 {
        self.reseeds.load(Ordering::Relaxed)
    }

    pub(crate) fn unconfirmed(&self) -> u64 {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    /// The device, if it is there now. It is looked for once a second at most.
    fn found(&self) -> Option<&Device> {
        if let Some(device) = self.device.get() {
            return Some(device);
        }
        let now = second();
        if self.tried.swap(now, Ordering::Relaxed) == now {
            return None;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| (self.open)())).ok()??;
        message::tell("on, for the device is there now");
        Some(self.device.get_or_init(|| Box::new(Device::new(opened))))
    }

    /// Seeds a generator for the first time, by `instantiate`.
    ///
    /// That does not wait, because OpenSSL may hold a lock of its own around it (before version 3.2, as
    /// long as a context has no generator yet), which a process that is forked meanwhile finds locked
    /// for ever.
    ///
    /// What it is seeded from may be older than the last change: another generator, which somebody
    /// else made. So it counts as seeded for what was seen first of all, if that is still what is seen,
    /// and if the kernel was reseeded for it. Otherwise it is reseeded before it gives its first byte.
    pub(crate) fn seed(&self, known: &Known, instantiate: impl FnOnce() -> bool) -> bool {
        let first = self.found().and_then(|Device { sysgenid, first }| {
            let settled = catch_unwind(AssertUnwindSafe(|| sysgenid.try_settle()));
            let fresh = settled.ok().flatten()?;
            (fresh.is_confirmed() && fresh.seen() == *first).then_some(*first)
        });
        let instantiated = instantiate();
        if let Some(first) = first {
            known.set(first);
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
        let Some(Device { sysgenid, .. }) = self.device.get() else {
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
        let renewed = self.settled(sysgenid, generator).and_then(|fresh| {
            catch_unwind(AssertUnwindSafe(|| {
                // A generator that has failed is started anew by the next attempt.
                if reseed(generator, &fresh) || reseed(generator, &fresh) {
                    self.reseeds.fetch_add(1, Ordering::Relaxed);
                }
                known.set(fresh.seen());
                Look::from(fresh.seen())
            }))
            .ok()
        });
        renewed.unwrap_or_else(|| {
            // A mistake in what this is built of must not end somebody's program: what OpenSSL
            // itself can do is left.
            generator.reseed(&[]);
            Look::at(sysgenid)
        })
    }

    /// What is seen now, once it is settled; `None` for a mistake in what this is built of.
    fn settled(&self, sysgenid: &SysGenId, generator: &impl Generator) -> Option<Fresh> {
        let now = catch_unwind(AssertUnwindSafe(|| {
            let seen = sysgenid.look();
            // Another generator has waited for it already.
            if self.in_vain.is(seen.into()) {
                return Some(Fresh::new(seen, Freshness::TimedOut));
            }
            sysgenid.try_settle()
        }));
        let fresh = match now.ok()? {
            Some(fresh) => fresh,
            None => generator
                .unlocked(|| catch_unwind(AssertUnwindSafe(|| sysgenid.settle())))
                .ok()?,
        };
        if fresh.freshness() == Freshness::TimedOut {
            self.in_vain.set(fresh.seen());
        }
        self.note(&fresh);
        Some(fresh)
    }

    /// Counts what is not confirmed, and tells of it.
    fn note(&self, fresh: &Fresh) {
        if fresh.is_confirmed() {
            return;
        }
        let Look { id, epoch, process } = fresh.seen().into();
        let numbers = id.into_iter().chain([epoch, process]);
        let folded = numbers.fold(0, |folded: u64, number| folded.rotate_left(9) ^ number);
        // Several threads can have waited for the same, all in vain.
        if self.unconfirmed_look.swap(folded, Ordering::Relaxed) != folded {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
            message::tell(&message::doubt(fresh.freshness()));
        }
    }
}

/// The time, in seconds. Of this clock the kernel tells without a system call wherever it tells of any.
fn second() -> u64 {
    let seconds = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
    u64::try_from(seconds).unwrap_or_default()
}

/// Reseeds a generator with bytes from the kernel that no clone of this machine has, besides what its
/// own source gives: that can be another generator, whose state is in all clones.
fn reseed(generator: &impl Generator, fresh: &Fresh) -> bool {
    let length = generator.entropy_length();
    let length = ENTROPY.max(*length.start()).min(*length.end());
    let mut entropy = Zeroizing::new(vec![0; length]);
    match fresh.fill(&mut entropy) {
        Ok(()) => generator.reseed(&entropy),
        // A sandbox forbids the system call. OpenSSL's own source may know other ways; if it does not,
        // the generator is in an error state, and gives no bytes.
        Err(_) => generator.reseed(&[]),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cell::RefCell;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;

    use sysgenid::Generation;
    use sysgenid::VmId;
    use sysgenid::stand_in::StandIn;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    /// What is told by a test that this names goes to standard error.
    const CHILD: &str = "SYSGENID_TEST_CHILD";

    /// A generator that remembers what it was reseeded with.
    struct Recorder {
        length: RangeInclusive<usize>,
        reseeds: RefCell<Vec<Vec<u8>>>,
        /// How often it still fails to be reseeded.
        failures: Cell<u32>,
        /// Whether it panics when it is given bytes.
        panics: bool,
        /// What happens when it is not locked.
        while_unlocked: Option<Box<dyn Fn()>>,
    }

    impl Recorder {
        fn new() -> Self {
            Self {
                length: 0..=usize::MAX,
                reseeds: RefCell::default(),
                failures: Cell::new(0),
                panics: false,
                while_unlocked: None,
            }
        }

        /// How many bytes there were in each reseed.
        fn lengths(&self) -> Vec<usize> {
            self.reseeds.borrow().iter().map(Vec::len).collect()
        }

        fn count(&self) -> usize {
            self.reseeds.borrow().len()
        }
    }

    impl Generator for Recorder {
        fn entropy_length(&self) -> RangeInclusive<usize> {
            self.length.clone()
        }

        fn reseed(&self, entropy: &[u8]) -> bool {
            assert!(!self.panics || entropy.is_empty(), "it was told to");
            self.reseeds.borrow_mut().push(entropy.to_vec());
            let failures = self.failures.get();
            self.failures.set(failures.saturating_sub(1));
            failures == 0
        }

        fn unlocked<T>(&self, wait: impl FnOnce() -> T) -> T {
            self.while_unlocked.iter().for_each(|happens| happens());
            wait()
        }
    }

    /// A device, and a library context that looks at it.
    fn heed(limit: Duration) -> (StandIn, Heed) {
        let device = StandIn::new();
        let heed = Heed::new(Box::new(|| None), Some(device.open(limit)));
        (device, heed)
    }

    /// A generator that is seeded for what is seen first.
    fn seeded(heed: &Heed) -> (Known, Recorder) {
        let (known, generator) = (Known::nothing(), Recorder::new());
        assert!(heed.seed(&known, || true));
        assert_eq!(generator.count(), 0);
        (known, generator)
    }

    /// Draws, and says how often that took `draw`.
    fn draws(heed: &Heed, known: &Known, generator: &Recorder, draw: impl Fn()) -> u32 {
        let count = Cell::new(0);
        let counted = || {
            count.set(count.get() + 1);
            draw();
        };
        heed.draw(known, generator, counted, drop);
        count.get()
    }

    #[test]
    fn without_a_device_nothing_is_done() {
        let heed = Heed::new(Box::new(|| None), None);
        let (known, generator) = seeded(&heed);
        assert!(!heed.is_on());
        assert_eq!(draws(&heed, &known, &generator, || {}), 1);
        assert_eq!(generator.count(), 0);
    }

    /// What was made before the module was loaded is reseeded when somebody has found it.
    #[test]
    fn a_device_that_comes_later_is_heeded() {
        let device = StandIn::new();
        let (there, tries) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (is_there, counted) = (Arc::clone(&there), Arc::clone(&tries));
        let sysgenid = device.open(LONG);
        let open = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            is_there.load(Ordering::SeqCst).then(|| sysgenid.clone())
        };
        let heed = Heed::new(Box::new(open), None);
        let (known, generator) = seeded(&heed);
        draws(&heed, &known, &generator, || {});
        there.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while !heed.is_on() {
            assert!(start.elapsed() < LONG, "nobody looks for it");
            seeded(&heed);
        }
        // Once in each second, however many generators were made.
        let seconds = start.elapsed().as_secs() + 2;
        assert!(u64::from(tries.load(Ordering::SeqCst)) <= seconds);
        draws(&heed, &known, &generator, || {
            assert_eq!(generator.lengths(), [48]);
        });
        device.set_generation(1);
        draws(&heed, &known, &generator, || {
            assert_eq!(generator.count(), 2);
        });
    }

    #[test]
    fn a_generator_that_cannot_be_seeded_says_so() {
        let (_, heed) = heed(LONG);
        assert!(heed.is_on());
        assert!(!heed.seed(&Known::nothing(), || false));
    }

    #[test]
    fn no_change_no_reseed() {
        let (_device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        for _ in 0..3 {
            assert_eq!(draws(&heed, &known, &generator, || {}), 1);
        }
        assert_eq!((generator.count(), heed.reseeds()), (0, 0));
    }

    #[test]
    fn a_change_is_one_reseed_and_comes_before_the_draw() {
        let (device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        for generation in 1..4 {
            device.set_generation(generation);
            for _ in 0..3 {
                let count = draws(&heed, &known, &generator, || {
                    assert_eq!(generator.lengths(), vec![48; generation as usize]);
                });
                assert_eq!(count, 1);
            }
            assert_eq!(heed.reseeds(), generation.into());
        }
        let reseeds = generator.reseeds.borrow();
        assert!(reseeds[0] != reseeds[1] && reseeds[1] != reseeds[2]);
        assert!(!reseeds.contains(&vec![0; 48]));
        assert_eq!(heed.unconfirmed(), 0);
    }

    #[test]
    fn each_generator_is_reseeded() {
        let (device, heed) = heed(LONG);
        let generators = [(); 3].map(|()| seeded(&heed));
        device.set_generation(1);
        for (known, generator) in &generators {
            draws(&heed, known, generator, || {});
            assert_eq!(generator.count(), 1);
        }
    }

    /// What it is seeded from may have been made before the change.
    #[test]
    fn a_generator_that_comes_after_a_change_is_reseeded() {
        let (device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        device.set_generation(1);
        draws(&heed, &known, &generator, || {});
        let (known, generator) = seeded(&heed);
        draws(&heed, &known, &generator, || {
            assert_eq!(generator.count(), 1);
        });
    }

    /// The process was started in a clone whose kernel does not know that it is one.
    #[test]
    fn a_generator_that_is_seeded_too_early_is_reseeded() {
        for answered in [false, true] {
            let device = StandIn::new();
            device.set_id(1);
            let heed = Heed::new(Box::new(|| None), Some(device.open(SHORT)));
            let (known, generator) = (Known::nothing(), Recorder::new());
            let start = Instant::now();
            assert!(heed.seed(&known, || true));
            assert!(start.elapsed() < SHORT, "it has waited");
            if answered {
                device.set_generation(1);
            }
            for _ in 0..2 {
                draws(&heed, &known, &generator, || {
                    assert_eq!(generator.lengths(), [48]);
                });
            }
            assert_eq!(heed.unconfirmed(), u64::from(!answered));
        }
    }

    /// The kernel does not say that it was reseeded.
    #[test]
    fn a_generator_that_nobody_vouches_for_is_reseeded() {
        let device = StandIn::new();
        device.change(1, 1);
        let heed = Heed::new(Box::new(|| None), Some(device.open(SHORT)));
        let (known, generator) = (Known::nothing(), Recorder::new());
        assert!(heed.seed(&known, || true));
        draws(&heed, &known, &generator, || {
            assert_eq!(generator.lengths(), [48]);
        });
    }

    #[test]
    fn a_reseed_is_as_long_as_the_generator_can_take() {
        for (length, expected) in [(64..=99, 64), (1..=32, 32), (48..=48, 48)] {
            let (device, heed) = heed(LONG);
            let (known, mut generator) = seeded(&heed);
            generator.length = length;
            device.set_generation(1);
            draws(&heed, &known, &generator, || {});
            assert_eq!(generator.lengths(), [expected]);
        }
    }

    #[test]
    fn what_was_drawn_during_a_change_does_not_leave() {
        let (device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        let number = Cell::new(0);
        let draw = || {
            number.set(number.get() + 1);
            match number.get() {
                // Cloned, and the kernel was quick.
                1 => {
                    device.set_id(1);
                    device.set_generation(1);
                }
                // Once more, now that it has been reseeded.
                2 => device.set_generation(2),
                _ => {}
            }
            (number.get(), generator.count())
        };
        let discarded = RefCell::new(Vec::new());
        let discard = |drawn| discarded.borrow_mut().push(drawn);
        assert_eq!(heed.draw(&known, &generator, draw, discard), (3, 2));
        assert_eq!(*discarded.borrow(), [(1, 0), (2, 1)]);
    }

    #[test]
    fn bytes_leave_in_the_end() {
        let (device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        let generation = Cell::new(0);
        let count = draws(&heed, &known, &generator, || {
            // Each is from a generator that was reseeded since the change before.
            assert_eq!(generator.count(), generation.get() as usize);
            generation.set(generation.get() + 1);
            device.set_generation(generation.get());
        });
        assert_eq!(count, ATTEMPTS + 1);
    }

    #[test]
    fn a_clone_waits_for_the_kernel() {
        let (device, heed) = heed(LONG);
        let (known, generator) = seeded(&heed);
        device.set_id(1);
        let heard = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(SHORT);
                heard.store(true, Ordering::SeqCst);
                device.set_generation(1);
            });
            draws(&heed, &known, &generator, || {
                assert!(heard.load(Ordering::SeqCst), "the kernel was not reseeded");
                assert_eq!(generator.count(), 1);
            });
        });
        assert_eq!(heed.unconfirmed(), 0);
    }

    #[test]
    fn each_number_of_a_look_counts() {
        let (_device, heed) = heed(LONG);
        let (known, _) = seeded(&heed);
        let zeroes = Some(VmId::new([0; 16]));
        let all_but = |index: usize| {
            let mut id = [0; 16];
            id[index] = 1;
            Some(VmId::new(id))
        };
        let seen = |id, generation, epoch, process| {
            Look::from(Seen::new(Generation::new(generation), epoch, id, process))
        };
        assert!(known.is(seen(zeroes, 0, 0, 1)));
        assert!(!Known::nothing().is(seen(zeroes, 0, 0, 1)));
        for (what, other) in [
            ("first byte", seen(all_but(0), 0, 0, 1)),
            ("last byte", seen(all_but(15), 0, 0, 1)),
            ("generation", seen(zeroes, 1, 0, 1)),
            ("epoch", seen(zeroes, 0, 1 << 32, 1)),
            ("process", seen(zeroes, 0, 0, 2)),
        ] {
            assert!(!known.is(other), "another {what}");
        }
    }

    #[test]
    fn a_generator_that_failed_is_given_a_second_chance() {
        for (failures, tries, reseeds) in [(1, 2, 1), (2, 2, 0)] {
            let (device, heed) = heed(LONG);
            let (known, generator) = seeded(&heed);
            generator.failures.set(failures);
            device.set_generation(1);
            // Whether it can be drawn from is for the generator to say.
            assert_eq!(draws(&heed, &known, &generator, || {}), 1);
            assert_eq!(generator.count(), tries);
            assert_eq!(heed.reseeds(), reseeds);
        }
    }

    #[test]
    fn nobody_waits_who_has_locked_a_generator() {
        let (device, heed) = heed(SHORT);
        let (known, mut generator) = seeded(&heed);
        device.set_id(1);
        let counted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&counted);
        // Nobody else has the kernel answer.
        generator.while_unlocked = Some(Box::new(move || {
            device.set_generation(1 + count.fetch_add(1, Ordering::SeqCst));
        }));
        for _ in 0..2 {
            draws(&heed, &known, &generator, || {
                assert_eq!(generator.lengths(), [48]);
            });
        }
        assert_eq!(heed.unconfirmed(), 0);
        assert_eq!(counted.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_mistake_of_ours_ends_no_program() {
        let (device, heed) = heed(LONG);
        let (known, mut generator) = seeded(&heed);
        generator.panics = true;
        device.set_generation(1);
        assert_eq!(draws(&heed, &known, &generator, || {}), 1);
        // From its own source, at least.
        assert_eq!(generator.lengths(), [0]);
    }

    #[test]
    fn a_silent_kernel_stops_nobody() {
        let (device, heed) = heed(SHORT);
        let generators = [(); 2].map(|()| seeded(&heed));
        device.set_id(1);
        let start = Instant::now();
        for (known, generator) in &generators {
            draws(&heed, known, generator, || {
                // With the new ID and what else Fresh::fill() puts in.
                assert_eq!(generator.lengths(), [48]);
            });
        }
        // It was waited for once, and not by each of them.
        assert!((SHORT..2 * SHORT).contains(&start.elapsed()));
        assert_eq!((heed.unconfirmed(), heed.reseeds()), (1, 2));
        let (known, generator) = &generators[0];
        draws(&heed, known, generator, || {});
        assert_eq!(generator.count(), 1);

        // Late, but the kernel has something to say: now its bytes are good.
        device.set_generation(1);
        for (known, generator) in &generators {
            draws(&heed, known, generator, || assert_eq!(generator.count(), 2));
        }
        assert_eq!((heed.unconfirmed(), heed.reseeds()), (1, 4));

        device.set_id(2);
        draws(&heed, known, generator, || assert_eq!(generator.count(), 3));
        assert_eq!(heed.unconfirmed(), 2);
    }

    /// Starts the test of that name again, to be told everything. Returns what was told.
    fn told(test: &str) -> Vec<String> {
        let program = std::env::current_exe().expect("this program has a path");
        let output = Command::new(program)
            .args(["--exact", &format!("heed::tests::{test}"), "--nocapture"])
            .env(CHILD, test)
            .env("SYSGENID_OPENSSL_DEBUG", "1")
            .output()
            .expect("this program can be started");
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = lines.lines().filter(|line| line.starts_with("sysgenid: "));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_silent_kernel_is_told_of_once() {
        const TEST: &str = "a_silent_kernel_is_told_of_once";
        if std::env::var_os(CHILD).is_none_or(|test| test != TEST) {
            let lines = told(TEST);
            assert_eq!(lines.len(), 2, "{lines:?}");
            for line in lines {
                assert!(line.contains("has not answered"), "{line}");
            }
            return;
        }
        let (device, heed) = heed(SHORT);
        seeded(&heed);
        for id in [1, 2] {
            device.set_id(id);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        // As of before the change.
                        let (known, generator) = seeded(&heed);
                        draws(&heed, &known, &generator, || {});
                    });
                }
            });
        }
    }

    #[test]
    fn threads_never_draw_from_what_is_older_than_their_draw() {
        /// The generation that it was last reseeded in.
        struct Shared<'a>(AtomicU32, &'a SysGenId);

        impl Generator for Shared<'_> {
            fn entropy_length(&self) -> RangeInclusive<usize> {
                0..=48
            }

            fn reseed(&self, _: &[u8]) -> bool {
                self.0
                    .fetch_max(self.1.generation().get(), Ordering::SeqCst);
                true
            }

            fn unlocked<T>(&self, wait: impl FnOnce() -> T) -> T {
                wait()
            }
        }

        const LAST: u32 = 2000;
        let (device, heed) = heed(LONG);
        let sysgenid = device.open(LONG);
        let known = Known::nothing();
        let generator = Shared(AtomicU32::new(0), &sysgenid);
        assert!(heed.seed(&known, || true));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut before = 0;
                    while before < LAST {
                        before = sysgenid.generation().get();
                        let draw = || generator.0.load(Ordering::SeqCst);
                        let drawn = heed.draw(&known, &generator, draw, drop);
                        assert!(drawn >= before, "{drawn}, drawn after {before}");
                    }
                });
            }
            for generation in 1..=LAST {
                device.set_generation(generation);
            }
        });
        assert!(heed.reseeds() > 0);
    }
}
