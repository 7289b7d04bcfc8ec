// SPDX-License-Identifier: GPL-2.0

//! The generation, its watchers, and the waiting.
//!
//! The contract that this follows is described in `uapi/linux/sysgenid.h`, and so are the words
//! that are used here: generation, watcher, acked, outdated, tracked, overseer.
//!
//! # What is where
//!
//! There is one copy of the generation: the word in the [`SharedPage`] that user space maps. Who is
//! outdated is not decided by comparing generations, because a generation can come back, but by
//! comparing epochs: 64-bit numbers that count the changes, that nobody outside of this file sees,
//! and that never come back.
//!
//! # Locks
//!
//! In this order:
//!
//! 1. [`Generation::changes`], a mutex, held for the whole of a change. It makes events and log
//!    lines leave in the order of the generations.
//! 2. [`Generation::state`], a spin lock, under which the word, the epoch, what each watcher has
//!    acked, and the counts change. It is no mutex because a poll, and a read that must not wait,
//!    take it. Nothing that sleeps, logs, or wakes anybody up is done while it is held.
//! 3. The locks of the wait queues. They are taken under `state` when a task goes to sleep, and
//!    under `changes` when tasks are woken up.
//!
//! # Memory ordering
//!
//! The word, the epoch, and what a watcher has acked are atomics, so that a watcher that is up to
//! date finds this out without a lock, in [`Watcher::is_surely_acked`]. Everything else looks at
//! them with `state` held. The orderings and their pairs:
//!
//! * A: the release store of the word in [`Generation::bump`] pairs with the acquire load of the
//!   word in [`Watcher::is_surely_acked`], and with an acquire load of the mapped word in user
//!   space. So whoever sees the new word also finds done what the source did before: the kernel's
//!   random number generator has been reseeded.
//! * B: the release store of the epoch in [`Generation::bump`] pairs with the acquire load of the
//!   epoch in [`Watcher::is_surely_acked`].
//! * C: the release stores of what is acked in [`Watcher::set_acked`] pair with the acquire loads in
//!   [`Watcher::is_surely_acked`].

#![forbid(unsafe_code)]

use crate::abstractions::{
    error::etime,
    shared_page::SharedPage,
    uevent, //
};
use kernel::{
    device::Device,
    new_condvar,
    new_mutex,
    new_poll_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        poll::PollCondVar,
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex,
        SetOnce,
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    }, //
};

/// What is protected by [`Generation::state`], along with the atomics that change under it.
struct State {
    /// The number of tracked watchers.
    tracked: usize,
    /// The number of tracked watchers that are outdated.
    outdated: usize,
    /// What caused the last change.
    source: Option<&'static str>,
    /// What the sign showed when the last change that it asked for began.
    heeded: SignValue,
}

/// What a [`Sign`] shows.
pub(crate) type SignValue = [u8; 16];

/// Something that shows from outside of this system that a change is due, before a source has come
/// to know of it.
pub(crate) trait Sign: Send + Sync {
    /// Returns what it shows now: something else than before if a change is due.
    ///
    /// Called in any context.
    fn value(&self) -> SignValue;
}

/// The generation of this system.
#[pin_data]
pub(crate) struct Generation {
    /// The page whose word is the generation. Written with `changes` and `state` held.
    page: Arc<SharedPage>,
    /// The number of changes. Written with `changes` and `state` held.
    epoch: Atomic<u64>,
    /// Where changes are announced. Populated with `changes` held.
    device: SetOnce<ARef<Device>>,
    /// What shows that a change is due, if anything does. Populated with `changes` held.
    sign: SetOnce<KBox<dyn Sign>>,
    #[pin]
    changes: Mutex<()>,
    #[pin]
    state: SpinLock<State>,
    /// Where those wait who want to know of the next change: in a read, or in a poll.
    #[pin]
    readers: PollCondVar,
    /// Where those wait who want no tracked watcher to be outdated.
    #[pin]
    overseers: CondVar,
}

/// Returns the generation after `current` that is `least` or more.
///
/// It is the greater one of `least` and `current + 1`, where 1 comes after [`u32::MAX`]: the
/// generation never goes back to 0. Where that would be `current` itself, which happens only if
/// both are [`u32::MAX`], it is 1: a change always changes the generation.
const fn successor(current: u32, least: u32) -> u32 {
    let next = match current.checked_add(1) {
        Some(next) => next,
        None => 1,
    };

    if least > next && least != current {
        least
    } else {
        next
    }
}

impl Generation {
    /// Creates a generation, which is 0, without watchers.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let page = SharedPage::new()?;

        Arc::pin_init(
            pin_init!(Self {
                page,
                epoch: Atomic::new(0),
                device: SetOnce::new(),
                sign: SetOnce::new(),
                changes <- new_mutex!((), "Generation::changes"),
                state <- new_spinlock!(
                    State {
                        tracked: 0,
                        outdated: 0,
                        source: None,
                        heeded: SignValue::default(),
                    },
                    "Generation::state"
                ),
                readers <- new_poll_condvar!("Generation::readers"),
                overseers <- new_condvar!("Generation::overseers"),
            }),
            GFP_KERNEL,
        )
    }

    /// Announces changes by uevents of `device` from now on. If there was one before, then the
    /// generation is announced as it is now: who has found the device since it was registered is to
    /// miss nothing. Only the first call has an effect.
    ///
    /// May sleep.
    pub(crate) fn announce_on(&self, device: &Device) {
        if self.device.as_ref().is_none() {
            // With the mutex held, `device` is populated when this returns, even if it is another
            // caller who has done it.
            let _changes = self.changes.lock();

            if self.device.populate(device.into()) && self.epoch.load(Relaxed) != 0 {
                self.announce(self.page.word().load(Relaxed));
            }
        }
    }

    /// Heeds `sign` from now on. Only the first call has an effect.
    ///
    /// May sleep.
    pub(crate) fn heed(&self, sign: KBox<dyn Sign>) {
        let _changes = self.changes.lock();

        if self.sign.as_ref().is_none() {
            // First this: whoever finds the sign compares it.
            self.state.lock().heeded = sign.value();
            self.sign.populate(sign);
        }
    }

    /// Announces that the generation has become `new`. Called with `changes` held.
    fn announce(&self, new: u32) {
        if let Some(device) = self.device.as_ref() {
            if let Err(err) = uevent::change(device, fmt!("SYSGENID={new}")) {
                pr_warn!("no uevent for generation {new}: {err:?}\n");
            }
        }
    }

    /// Returns the page whose word is the generation.
    pub(crate) fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    /// Changes the generation, to `least` or more; 0 asks for nothing in particular. `source` says
    /// what caused this.
    ///
    /// May sleep. If the kernel's random number generator has to be reseeded then this must have
    /// been done before.
    pub(crate) fn bump(&self, source: &'static str, least: u32) {
        self.change(source, least, false);
    }

    /// The same, because of what the [`Sign`] shows, if there is one.
    pub(crate) fn bump_for_sign(&self, source: &'static str) {
        self.change(source, 0, true);
    }

    fn change(&self, source: &'static str, least: u32, for_sign: bool) {
        let word = self.page.word();
        let _changes = self.changes.lock();
        // If it shows something else from here on, then that is for another change.
        let sign = self.sign.as_ref().filter(|_| for_sign);
        let heeded = sign.map(|sign| sign.value());
        let old = word.load(Relaxed);
        let new = successor(old, least);

        {
            let mut state = self.state.lock();

            // ORDERING: Release A and B. The word comes first: user space must not learn from the
            // driver of a change that the mapping does not show.
            word.store(new, Release);
            // It would take centuries to wrap this around.
            self.epoch
                .store(self.epoch.load(Relaxed).wrapping_add(1), Release);
            // No watcher has acked the new epoch.
            state.outdated = state.tracked;
            state.source = Some(source);
            if let Some(heeded) = heeded {
                state.heeded = heeded;
            }
        }

        self.readers.notify_all();
        // Even if no tracked watcher is outdated, those of the overseers themselves now are.
        self.overseers.notify_all();

        self.announce(new);

        pr_info!("generation changed from {old} to {new}, source {source}\n");
    }
}

/// What there is to say about a watcher, and about all watchers, at one moment.
pub(crate) struct Status {
    /// The generation.
    pub(crate) generation: u32,
    /// The generation that the watcher acked last.
    pub(crate) acked: u32,
    /// Whether the watcher is outdated.
    pub(crate) outdated: bool,
    /// Whether the watcher is tracked.
    pub(crate) tracked: bool,
    /// The number of tracked watchers.
    pub(crate) watchers: usize,
    /// The number of tracked watchers that are outdated.
    pub(crate) outdated_watchers: usize,
    /// What caused the last change, if there was any.
    pub(crate) source: Option<&'static str>,
    /// Whether the [`Sign`] shows that another change is due.
    pub(crate) pending: bool,
}

/// A watcher of a [`Generation`].
///
/// # Invariants
///
/// The fields change only with `generation.state` held. The watcher is counted in `State::tracked`
/// if and only if `tracked` is set; if it is outdated as well, then it is also counted in
/// `State::outdated`.
pub(crate) struct Watcher {
    generation: Arc<Generation>,
    /// The epoch that the watcher has acked. The watcher is outdated if this is not the current one.
    acked_epoch: Atomic<u64>,
    /// The generation in that epoch.
    acked: Atomic<u32>,
    tracked: Atomic<bool>,
}

impl Watcher {
    /// Creates a watcher, which is acked and untracked.
    pub(crate) fn new(generation: Arc<Generation>) -> Self {
        let state = generation.state.lock();
        let acked_epoch = Atomic::new(generation.epoch.load(Relaxed));
        let acked = Atomic::new(generation.page.word().load(Relaxed));
        drop(state);

        // INVARIANT: The watcher is untracked, so it is not counted. If there was a change since
        // the lock was released, then the watcher is outdated from the start.
        Self {
            generation,
            acked_epoch,
            acked,
            tracked: Atomic::new(false),
        }
    }

    /// Returns the generation that is watched.
    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Returns what [`Generation::bump`] notifies when the watcher becomes outdated.
    pub(crate) fn becomes_outdated(&self) -> &PollCondVar {
        &self.generation.readers
    }

    /// Returns whether the watcher is acked, without a lock. If this is false then only
    /// [`Self::is_outdated_locked`] knows.
    ///
    /// A process that has seen a new value of the word, and then calls the driver, is never told
    /// that it is up to date by mistake:
    ///
    /// * The load of the word below sees that value, or a later one, since a location never goes
    ///   back for whom has seen it.
    /// * If that differs from what was acked, then the answer is no. It does so in the middle of
    ///   [`Generation::bump`], where the word is new and the epoch is not.
    /// * If it does not differ although there was a change, then the generation has come back to an
    ///   old value. But then the word that was loaded was stored by a later change than the first
    ///   one which the watcher has not acked. By A, the load of the epoch, which comes after the
    ///   load of the word, sees at least the epoch of the change before that, which is greater than
    ///   the acked one.
    ///
    /// If another thread acks by the same watcher at the same time, then by C the acked epoch is
    /// never seen with a generation that is older than the one that belongs to it. If it is seen
    /// with a newer one, then by C again the load of the epoch sees at least the epoch in which that
    /// was acked, which is greater; so the answer is no, and the lock decides.
    fn is_surely_acked(&self) -> bool {
        // ORDERING: Acquire C, twice, then A, then B. The order of the loads matters.
        let acked_epoch = self.acked_epoch.load(Acquire);
        let acked = self.acked.load(Acquire);
        let word = self.generation.page.word().load(Acquire);
        let epoch = self.generation.epoch.load(Acquire);

        acked == word && acked_epoch == epoch
    }

    /// Returns whether the watcher is outdated. `_state` proves that the lock is held.
    fn is_outdated_locked(&self, _state: &State) -> bool {
        // The lock orders these.
        self.acked_epoch.load(Relaxed) != self.generation.epoch.load(Relaxed)
    }

    /// Makes the watcher acked. `_state` proves that the lock is held.
    fn set_acked(&self, _state: &mut State) {
        // ORDERING: Release C. The generation comes first, see `is_surely_acked`.
        self.acked
            .store(self.generation.page.word().load(Relaxed), Release);
        self.acked_epoch
            .store(self.generation.epoch.load(Relaxed), Release);
    }

    /// Returns whether the watcher is outdated.
    pub(crate) fn is_outdated(&self) -> bool {
        !self.is_surely_acked() && self.is_outdated_locked(&self.generation.state.lock())
    }

    /// Waits until the watcher is outdated, and returns the generation. This does not ack.
    ///
    /// May sleep unless `nonblocking` is set.
    ///
    /// # Errors
    ///
    /// * [`EAGAIN`] if `nonblocking` is set and the watcher is acked.
    /// * [`ERESTARTSYS`] if a signal is pending.
    pub(crate) fn wait_outdated(&self, nonblocking: bool) -> Result<u32> {
        if nonblocking && self.is_surely_acked() {
            return Err(EAGAIN);
        }

        let mut signal_pending = false;
        let mut state = self.generation.state.lock();

        loop {
            if self.is_outdated_locked(&state) {
                return Ok(self.generation.page.word().load(Relaxed));
            }

            if nonblocking {
                return Err(EAGAIN);
            }

            if signal_pending {
                return Err(ERESTARTSYS);
            }

            signal_pending = self.generation.readers.wait_interruptible(&mut state);
        }
    }

    /// Acks `value`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `value` is not the current generation; then nothing has changed.
    pub(crate) fn ack(&self, value: u32) -> Result {
        let mut released = false;
        let mut state = self.generation.state.lock();

        if value != self.generation.page.word().load(Relaxed) {
            return Err(EINVAL);
        }

        if self.is_outdated_locked(&state) {
            self.set_acked(&mut state);

            // INVARIANT: The watcher is no more outdated, so it is no more counted as that.
            if self.tracked.load(Relaxed) {
                state.outdated -= 1;
                released = state.outdated == 0;
            }
        }

        drop(state);

        if released {
            self.generation.overseers.notify_all();
        }

        Ok(())
    }

    /// Makes the watcher tracked or untracked.
    pub(crate) fn set_tracked(&self, tracked: bool) {
        let mut released = false;
        let mut state = self.generation.state.lock();

        if tracked == self.tracked.load(Relaxed) {
            return;
        }

        let outdated = usize::from(self.is_outdated_locked(&state));

        // INVARIANT: The counts change along with the flag.
        self.tracked.store(tracked, Relaxed);

        if tracked {
            state.tracked += 1;
            state.outdated += outdated;
        } else {
            state.tracked -= 1;
            state.outdated -= outdated;
            released = outdated != 0 && state.outdated == 0;
        }

        drop(state);

        if released {
            self.generation.overseers.notify_all();
        }
    }

    /// Waits until no tracked watcher is outdated.
    ///
    /// `timeout` is in milliseconds, and 0 is no limit. May sleep.
    ///
    /// # Errors
    ///
    /// * [`EINTR`] if this watcher is or becomes outdated, or if a signal is pending.
    /// * `ETIME` if the time is over.
    pub(crate) fn wait_watchers(&self, timeout: usize) -> Result {
        let limit = match timeout {
            0 => None,
            // What is too long for an `i64` of nanoseconds, which is three centuries, is cut.
            timeout => Some(Delta::from_millis(
                i64::try_from(timeout).unwrap_or(i64::MAX),
            )),
        };
        let start = Instant::<Monotonic>::now();
        let mut signal_pending = false;
        let mut state = self.generation.state.lock();

        loop {
            if self.is_outdated_locked(&state) {
                return Err(EINTR);
            }

            if state.outdated == 0 {
                return Ok(());
            }

            // From the start on, so that being woken up for nothing does not make it longer.
            let remaining = limit.map(|limit| limit - start.elapsed());

            if remaining.is_some_and(|remaining| remaining <= Delta::ZERO) {
                return Err(etime());
            }

            if signal_pending {
                return Err(EINTR);
            }

            let overseers = &self.generation.overseers;

            signal_pending = match remaining {
                None => overseers.wait_interruptible(&mut state),
                Some(remaining) => matches!(
                    overseers.wait_interruptible_timeout(&mut state, jiffies_for(remaining)),
                    CondVarTimeoutResult::Signal { .. }
                ),
            };
        }
    }

    /// Returns what there is to say.
    pub(crate) fn status(&self) -> Status {
        let state = self.generation.state.lock();

        Status {
            generation: self.generation.page.word().load(Relaxed),
            acked: self.acked.load(Relaxed),
            outdated: self.is_outdated_locked(&state),
            tracked: self.tracked.load(Relaxed),
            watchers: state.tracked,
            outdated_watchers: state.outdated,
            source: state.source,
            pending: self
                .generation
                .sign
                .as_ref()
                .is_some_and(|sign| sign.value() != state.heeded),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Nobody waits for a watcher that is gone.
        self.set_tracked(false);
    }
}

/// Returns a number of jiffies that is not less than `time`, but at most some weeks.
fn jiffies_for(time: Delta) -> Jiffies {
    // The started millisecond counts.
    let msecs = time.as_millis().saturating_add(1);
    // `msecs_to_jiffies()` takes more than this for no limit at all.
    let msecs = i32::try_from(msecs).unwrap_or(i32::MAX);

    msecs_to_jiffies(msecs.unsigned_abs())
}

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_generation)]
mod tests {
    use super::*;

    const TEST: &str = "test";

    /// Returns the numbers of tracked watchers, and of those of them that are outdated.
    fn counts(watcher: &Watcher) -> (usize, usize) {
        let status = watcher.status();

        (status.watchers, status.outdated_watchers)
    }

    #[test]
    fn successor_is_the_next_one() {
        assert_eq!(successor(0, 0), 1);
        assert_eq!(successor(1, 0), 2);
        assert_eq!(successor(u32::MAX - 1, 0), u32::MAX);
    }

    #[test]
    fn successor_is_the_least_one() {
        assert_eq!(successor(0, 1), 1);
        assert_eq!(successor(0, 2), 2);
        assert_eq!(successor(5, 5), 6);
        assert_eq!(successor(5, 4), 6);
        assert_eq!(successor(5, 0x8000_0000), 0x8000_0000);
        assert_eq!(successor(0x7fff_ffff, 0), 0x8000_0000);
        assert_eq!(successor(0, u32::MAX), u32::MAX);
    }

    #[test]
    fn successor_is_never_zero_and_always_new() {
        assert_eq!(successor(u32::MAX, 0), 1);
        assert_eq!(successor(u32::MAX, 1), 1);
        assert_eq!(successor(u32::MAX, 5), 5);
        assert_eq!(successor(u32::MAX, u32::MAX - 1), u32::MAX - 1);
        assert_eq!(successor(u32::MAX, u32::MAX), 1);
    }

    #[test]
    fn jiffies_are_not_less() {
        assert!(jiffies_for(Delta::from_nanos(1)) >= 1);
        assert!(jiffies_for(Delta::from_millis(1000)) >= msecs_to_jiffies(1000));
        assert_eq!(
            jiffies_for(Delta::from_millis(i64::MAX)),
            msecs_to_jiffies(i32::MAX.unsigned_abs())
        );
    }

    #[test]
    fn watcher_starts_acked() -> Result {
        let generation = Generation::new()?;

        generation.bump(TEST, 0);

        let watcher = Watcher::new(generation);

        assert!(watcher.is_surely_acked());
        assert!(!watcher.is_outdated());
        assert_eq!(watcher.wait_outdated(true), Err(EAGAIN));
        assert_eq!(watcher.status().acked, 1);
        assert!(!watcher.status().tracked);

        Ok(())
    }

    #[test]
    fn ack_needs_the_current_generation() -> Result {
        let generation = Generation::new()?;
        let watcher = Watcher::new(generation.clone());

        generation.bump(TEST, 7);

        assert!(watcher.is_outdated());
        assert_eq!(watcher.wait_outdated(true), Ok(7));
        assert_eq!(watcher.ack(0), Err(EINVAL));
        assert_eq!(watcher.ack(8), Err(EINVAL));
        assert!(watcher.is_outdated());
        assert_eq!(watcher.ack(7), Ok(()));
        assert!(!watcher.is_outdated());
        assert_eq!(watcher.ack(7), Ok(()));
        assert!(!watcher.is_outdated());

        Ok(())
    }

    struct TestSign(Arc<Atomic<u32>>);

    impl Sign for TestSign {
        fn value(&self) -> SignValue {
            let mut value = SignValue::default();

            value[12..].copy_from_slice(&self.0.load(Relaxed).to_ne_bytes());
            value
        }
    }

    #[test]
    fn pending_until_the_change_for_the_sign() -> Result {
        let generation = Generation::new()?;
        let watcher = Watcher::new(generation.clone());
        let shown = Arc::new(Atomic::new(1), GFP_KERNEL)?;

        assert!(!watcher.status().pending);
        generation.heed(KBox::new(TestSign(shown.clone()), GFP_KERNEL)?);
        assert!(!watcher.status().pending);

        shown.store(2, Relaxed);
        assert!(watcher.status().pending);
        // This has another reason.
        generation.bump(TEST, 0);
        assert!(watcher.status().pending);
        generation.bump_for_sign(TEST);
        assert!(!watcher.status().pending);
        assert_eq!(watcher.status().generation, 2);

        Ok(())
    }

    #[test]
    fn nothing_is_pending_without_a_sign() -> Result {
        let generation = Generation::new()?;
        let watcher = Watcher::new(generation.clone());

        generation.bump_for_sign(TEST);
        assert!(!watcher.status().pending);
        assert_eq!(watcher.status().generation, 1);

        Ok(())
    }

    #[test]
    fn outdated_although_the_generation_is_the_same() -> Result {
        let generation = Generation::new()?;

        generation.bump(TEST, 5);

        let watcher = Watcher::new(generation.clone());

        generation.bump(TEST, u32::MAX);
        generation.bump(TEST, 5);

        assert_eq!(watcher.status().acked, watcher.status().generation);
        assert!(!watcher.is_surely_acked());
        assert!(watcher.is_outdated());

        Ok(())
    }

    #[test]
    fn counts_follow_the_watchers() -> Result {
        let generation = Generation::new()?;
        let overseer = Watcher::new(generation.clone());
        let first = Watcher::new(generation.clone());
        let second = Watcher::new(generation.clone());

        first.set_tracked(true);
        first.set_tracked(true);
        assert_eq!(counts(&overseer), (1, 0));

        generation.bump(TEST, 0);
        assert_eq!(counts(&overseer), (1, 1));

        // Outdated already, so it counts at once.
        second.set_tracked(true);
        assert_eq!(counts(&overseer), (2, 2));

        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(counts(&overseer), (2, 1));

        generation.bump(TEST, 0);
        assert_eq!(counts(&overseer), (2, 2));

        first.set_tracked(false);
        first.set_tracked(false);
        assert_eq!(counts(&overseer), (1, 1));

        drop(second);
        assert_eq!(counts(&overseer), (0, 0));

        Ok(())
    }

    #[test]
    fn wait_watchers_answers() -> Result {
        let generation = Generation::new()?;
        let overseer = Watcher::new(generation.clone());
        let watcher = Watcher::new(generation.clone());

        assert_eq!(overseer.wait_watchers(0), Ok(()));

        watcher.set_tracked(true);
        assert_eq!(overseer.wait_watchers(0), Ok(()));

        generation.bump(TEST, 0);
        assert_eq!(overseer.wait_watchers(1), Err(EINTR));

        assert_eq!(overseer.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(1), Err(etime()));

        assert_eq!(watcher.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(usize::MAX), Ok(()));

        Ok(())
    }
}
