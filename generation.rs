// SPDX-License-Identifier: GPL-2.0

//! The generation, its watchers, and the waiting.
//!
//! The contract that this follows is described in `uapi/linux/sysgenid.h`, and so are the words
//! that are used here: generation, epoch, watcher, acked, outdated, tracked, overseer.
//!
//! # What is where
//!
//! There is one copy of the generation, the epoch and the answer: the [`Pages`] that user space maps.
//! Who is outdated is not decided by comparing generations, because a generation can come back, but by
//! comparing epochs, which never do.
//!
//! # Locks
//!
//! [`Generation::state`] is a spin lock, under which the pages, what each watcher has acked, and the
//! counts change. It is no mutex so that nobody who holds it is kept from running, which would hold a
//! change up. Nothing that sleeps, logs, or wakes anybody up is done while it is held. The only lock
//! that is taken along with it is that of what there is to be announced.
//!
//! [`Generation::readers`] and [`Generation::overseers`] have locks of their own, which are never held
//! along with another one.
//!
//! # Memory ordering
//!
//! The numbers in the pages, what a watcher has acked, and how many are outdated are atomics, so that
//! who reads, polls, waits, opens, or acks again needs no lock: see [`Watcher::while_acked`]. The
//! orderings and their pairs:
//!
//! * A and S: see [`pages`](crate::pages).
//! * C: the release stores of what is acked in [`Watcher::ack_locked`] pair with the acquire loads in
//!   [`Watcher::while_acked`].
//! * D: the release stores of the number of outdated watchers pair with the acquire load in
//!   [`Watcher::waited`]: who is told that there is none finds done what each has done before
//!   its ack.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        atomic::InPlace,
        error::etime,
        wait_queue::{
            new_wait_queue,
            Ended,
            WaitQueue, //
        }, //
    },
    pages::{
        Answer,
        AnswerPage,
        GenerationPage,
        Id,
        Pages, //
    }, //
};
use core::ops::Deref;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Relaxed,
            Release, //
        },
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        },
        SpinLock, //
    },
    time::Delta, //
};

/// What is protected by [`Generation::state`], along with the atomics that change under it.
struct State {
    /// The number of tracked watchers.
    tracked: usize,
    /// What caused the last change.
    source: Option<&'static str>,
}

/// The generation of this system.
#[pin_data]
pub(crate) struct Generation {
    /// What user space maps. Written with `state` held.
    pages: Pages,
    #[pin]
    state: SpinLock<State>,
    /// The number of tracked watchers that are outdated. Written with `state` held.
    outdated: InPlace<usize>,
    /// Where those wait who want to know of the next change: in a read, or in a poll.
    #[pin]
    readers: WaitQueue,
    /// Where those wait who want no tracked watcher to be outdated.
    #[pin]
    overseers: WaitQueue,
}

/// What is answered, and in which epoch. There is no way back to one of these from another.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Moment {
    pub(crate) epoch: u64,
    pub(crate) answer: Answer,
}

/// A change of the generation that has been made.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    /// The generation before.
    pub(crate) old: u32,
    /// The generation since.
    pub(crate) new: u32,
    /// What has caused it.
    pub(crate) source: &'static str,
    /// Whether the random number generator was reseeded before, with the answered ID in it.
    pub(crate) reseeded: bool,
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
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pages: Pages::new()?,
            state <- new_spinlock!(
                State {
                    tracked: 0,
                    source: None,
                },
                "Generation::state"
            ),
            outdated: InPlace::new(0),
            readers <- new_wait_queue!("Generation::readers"),
            overseers <- new_wait_queue!("Generation::overseers"),
        })
    }

    /// Returns what user space maps.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns what is answered.
    pub(crate) fn answer(&self) -> Answer {
        self.moment().answer
    }

    /// Returns what is answered, and in which epoch.
    pub(crate) fn moment(&self) -> Moment {
        self.moment_locked(&self.state.lock())
    }

    /// As [`Self::moment`]. `_state` proves that the lock is held.
    fn moment_locked(&self, _state: &State) -> Moment {
        Moment {
            epoch: self.pages.epoch(),
            answer: self.pages.answer(),
        }
    }

    /// Returns the ID that is answered, without the lock, unless that changes just now.
    #[inline]
    pub(crate) fn answered(&self) -> Option<Id> {
        self.pages.answer_page().consistent(AnswerPage::id)
    }

    /// Makes `answer` what is answered, which is no change of the generation: there is nobody yet who
    /// has to know. Does nothing if `since` is over.
    pub(crate) fn set_answer(&self, since: Moment, answer: Answer) {
        let state = self.state.lock();

        if self.moment_locked(&state) == since {
            self.pages
                .publish(self.pages.generation(), since.epoch, answer, || ());
        }
    }

    /// Changes the generation, to `least` or more; 0 asks for nothing in particular. `source` says
    /// what caused this. `note` is called with the change as soon as it is made, in the order of all
    /// changes, and with the lock held.
    ///
    /// What has to be done with the kernel's random number generator must have been done before.
    ///
    /// Does not sleep, and waits for nobody but who holds the lock.
    pub(crate) fn change(&self, source: &'static str, least: u32, note: impl FnOnce(Change)) {
        {
            let mut state = self.state.lock();

            note(self.change_locked(&mut state, source, least, self.pages.answer()));
        }

        self.wake_all();
    }

    /// As [`Self::change`], and from then on `answer` is answered. Does nothing if `since` is over.
    /// Returns whether it is not.
    pub(crate) fn change_and_answer(
        &self,
        since: Moment,
        answer: Answer,
        source: &'static str,
        note: impl FnOnce(Change),
    ) -> bool {
        {
            let mut state = self.state.lock();

            if self.moment_locked(&state) != since {
                return false;
            }

            note(self.change_locked(&mut state, source, 0, answer));
        }

        self.wake_all();

        true
    }

    fn change_locked(
        &self,
        state: &mut State,
        source: &'static str,
        least: u32,
        answer: Answer,
    ) -> Change {
        let old = self.pages.generation();
        let new = successor(old, least);
        // It would take centuries to wrap this around.
        let epoch = self.pages.epoch().wrapping_add(1);

        state.source = Some(source);
        // No watcher has acked the new epoch.
        self.pages.publish(new, epoch, answer, || {
            // ORDERING: Release D.
            self.outdated.store(state.tracked, Release);
        });

        Change {
            old,
            new,
            source,
            reseeded: answer.reseeded,
        }
    }

    /// Wakes up all who wait for a change.
    fn wake_all(&self) {
        self.readers.wake_all();
        // Even if no tracked watcher is outdated, those of the overseers themselves now are.
        self.overseers.wake_all();
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
    /// The number of changes.
    pub(crate) epoch: u64,
    /// What caused the last change, if there was any.
    pub(crate) source: Option<&'static str>,
    /// What is answered.
    pub(crate) answer: Answer,
}

/// A watcher of a [`Generation`], which `G` refers to.
///
/// # Invariants
///
/// The fields change only with `generation.state` held. The watcher is counted in `State::tracked`
/// if and only if `tracked` is set; if it is outdated as well, then it is also counted in
/// `Generation::outdated`.
pub(crate) struct Watcher<G: Deref<Target = Generation>> {
    generation: G,
    /// The epoch that the watcher has acked. The watcher is outdated if this is not the current one.
    acked_epoch: InPlace<u64>,
    /// The generation in that epoch.
    acked: InPlace<u32>,
    tracked: InPlace<bool>,
}

impl<G: Deref<Target = Generation>> Watcher<G> {
    /// Creates a watcher, which is acked and untracked.
    #[inline]
    pub(crate) fn new(generation: G) -> Self {
        let pages = &generation.pages;
        let present = || (pages.epoch(), pages.generation());
        // Not in the middle of a change, see `while_acked`.
        let (acked_epoch, acked) = pages
            .answer_page()
            .consistent(|_| present())
            .unwrap_or_else(|| {
                let _state = generation.state.lock();

                present()
            });

        // INVARIANT: The watcher is untracked, so it is not counted. If there was a change since
        // these were loaded, then the watcher is outdated from the start.
        Self {
            generation,
            acked_epoch: InPlace::new(acked_epoch),
            acked: InPlace::new(acked),
            tracked: InPlace::new(false),
        }
    }

    /// Returns what was given to [`Self::new`].
    #[inline]
    pub(crate) fn generation(&self) -> &G {
        &self.generation
    }

    /// Returns what [`Generation::change`] wakes up when the watcher becomes outdated.
    #[inline]
    pub(crate) fn becomes_outdated(&self) -> &WaitQueue {
        &self.generation.readers
    }

    /// Returns what `look` returns, if the watcher is acked all the while. If not then it is, or has been,
    /// outdated at a moment of this call. No lock is needed.
    ///
    /// A process that has seen a new generation in the page, and then calls the driver, is never told
    /// that it is up to date by mistake:
    ///
    /// * The load of the generation below sees that value, or a later one, since a location never
    ///   goes back for whom has seen it.
    /// * If that differs from what was acked, then the answer is no. It does so in the middle of
    ///   [`Generation::change`], where the generation is new and the epoch is not.
    /// * If it does not differ although there was a change, then the generation has come back to an
    ///   old value. But then the one that was loaded was stored by a later change than the first
    ///   one which the watcher has not acked. By A, the load of the epoch, which comes after the
    ///   load of the generation, sees at least the epoch of the change before that, which is greater
    ///   than the acked one.
    ///
    /// If neither differs then there was no change between the load of the acked epoch and that of the
    /// present one, since the epoch only grows; so what `look` has seen in between is of no later epoch.
    /// Nor is it of an earlier one, if it loads with acquire: an epoch is acked with the lock held, or
    /// by [`Self::new`] with the sequence even; so the change to it had been made to the end.
    ///
    /// If another thread acks by the same watcher at the same time, then by C the acked epoch is
    /// never seen with a generation that is older than the one that belongs to it. If it is seen
    /// with a newer one, then by C again the load of the epoch sees at least the epoch in which that
    /// was acked, which is greater; so the answer is no, as it was when this call began.
    #[inline]
    fn while_acked<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        let page: &GenerationPage = self.generation.pages.generation_page();
        // ORDERING: Acquire C, twice, and then A, twice. The order of the loads matters.
        let acked_epoch = self.acked_epoch.load(Acquire);

        // Who is outdated by this need not look any further.
        if page.epoch() != acked_epoch {
            return None;
        }

        let acked = self.acked.load(Acquire);
        let result = look();

        if page.generation() != acked || page.epoch() != acked_epoch {
            return None;
        }

        Some(result)
    }

    /// Returns whether the watcher is outdated.
    #[inline]
    pub(crate) fn is_outdated(&self) -> bool {
        self.while_acked(|| ()).is_none()
    }

    /// Returns whether the watcher is outdated. `_state` proves that the lock is held.
    fn is_outdated_locked(&self, _state: &State) -> bool {
        // The lock orders these.
        self.acked_epoch.load(Relaxed) != self.generation.pages.epoch()
    }

    /// Waits until the watcher is outdated, and returns the generation. This does not ack.
    ///
    /// May sleep unless `nonblocking` is set.
    ///
    /// # Errors
    ///
    /// * [`EAGAIN`] if `nonblocking` is set and the watcher is acked.
    /// * [`ERESTARTSYS`] if a signal is pending.
    #[inline]
    pub(crate) fn wait_outdated(&self, nonblocking: bool) -> Result<u32> {
        if !self.is_outdated() {
            if nonblocking {
                return Err(EAGAIN);
            }

            self.sleep_until_outdated()?;
        }

        // It is at least the one that has made the watcher outdated, since that was seen. If it is a
        // later one then the watcher was outdated with it at some moment, also if another thread has
        // acked since.
        Ok(self.generation.pages.generation())
    }

    #[cold]
    fn sleep_until_outdated(&self) -> Result {
        self.generation
            .readers
            .wait(None, || self.is_outdated().then_some(()))
            .map_err(|_| ERESTARTSYS)
    }

    /// Acks `value`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `value` is not the current generation; then nothing has changed.
    #[inline(always)]
    pub(crate) fn ack(&self, value: u32) -> Result {
        // Once more?
        if self.while_acked(|| self.generation.pages.generation() == value) == Some(true) {
            return Ok(());
        }

        self.ack_locked(value)
    }

    #[inline(always)]
    fn ack_locked(&self, value: u32) -> Result {
        let state = self.generation.state.lock();
        let page: &GenerationPage = self.generation.pages.generation_page();
        let epoch = page.epoch();

        if value != page.generation() {
            return Err(EINVAL);
        }

        if self.acked_epoch.load(Relaxed) != epoch {
            // ORDERING: Release C. The generation comes first, see `while_acked`.
            self.acked.store(value, Release);
            self.acked_epoch.store(epoch, Release);

            // INVARIANT: The watcher is no more outdated, so it is no more counted as that.
            if self.tracked.load(Relaxed) {
                self.count_outdated(state, false);
            }
        }

        Ok(())
    }

    /// Counts one tracked watcher that is outdated more, or one less. If there is none any more then
    /// overseers are woken up.
    #[inline(never)]
    fn count_outdated(&self, state: Guard<'_, State, SpinLockBackend>, more: bool) {
        let outdated = &self.generation.outdated;
        let number = outdated.load(Relaxed);
        let number = if more { number + 1 } else { number - 1 };

        // ORDERING: Release D.
        outdated.store(number, Release);
        drop(state);

        if number == 0 {
            self.generation.overseers.wake_all();
        }
    }

    /// Makes the watcher tracked or untracked.
    #[inline(never)]
    pub(crate) fn set_tracked(&self, tracked: bool) {
        let mut state = self.generation.state.lock();

        if tracked == self.tracked.load(Relaxed) {
            return;
        }

        // INVARIANT: The counts change along with the flag.
        self.tracked.store(tracked, Relaxed);

        if tracked {
            state.tracked += 1;
        } else {
            state.tracked -= 1;
        }

        if self.is_outdated_locked(&state) {
            self.count_outdated(state, tracked);
        }
    }

    /// Waits until no tracked watcher is outdated.
    ///
    /// `timeout` is in milliseconds, and 0 is no limit. May sleep.
    ///
    /// # Errors
    ///
    /// * [`EINTR`] if this watcher is or becomes outdated.
    /// * Those of [`wait_ended`], if the time is over or a signal is pending.
    #[inline]
    pub(crate) fn wait_watchers(&self, timeout: usize) -> Result {
        match self.waited() {
            Some(result) => result,
            None => self.sleep_until_waited(timeout),
        }
    }

    #[cold]
    fn sleep_until_waited(&self, timeout: usize) -> Result {
        self.generation
            .overseers
            .wait(limit(timeout), || self.waited())
            .unwrap_or_else(|ended| Err(wait_ended(ended, timeout)))
    }

    /// Returns what [`Self::wait_watchers`] returns, if that has come to pass.
    #[inline]
    fn waited(&self) -> Option<Result> {
        // ORDERING: Acquire D.
        match self.while_acked(|| self.generation.outdated.load(Acquire)) {
            None => Some(Err(EINTR)),
            Some(0) => Some(Ok(())),
            Some(_) => None,
        }
    }

    /// Returns what there is to say.
    pub(crate) fn status(&self) -> Status {
        let state = self.generation.state.lock();

        Status {
            generation: self.generation.pages.generation(),
            acked: self.acked.load(Relaxed),
            outdated: self.is_outdated_locked(&state),
            tracked: self.tracked.load(Relaxed),
            watchers: state.tracked,
            outdated_watchers: self.generation.outdated.load(Relaxed),
            epoch: self.generation.pages.epoch(),
            source: state.source,
            answer: self.generation.pages.answer(),
        }
    }
}

impl<G: Deref<Target = Generation>> Drop for Watcher<G> {
    fn drop(&mut self) {
        // Nobody waits for a watcher that is gone. Nobody else has this one, so no lock is needed to
        // see that there is nothing to be done.
        if self.tracked.load(Relaxed) {
            self.set_tracked(false);
        }
    }
}

/// Returns the limit that the argument of an ioctl stands for: milliseconds, and 0 is no limit.
fn limit(timeout: usize) -> Option<Delta> {
    // What is too long for an `i64` of nanoseconds, which is three centuries, is cut.
    (timeout != 0).then(|| Delta::from_millis(i64::try_from(timeout).unwrap_or(i64::MAX)))
}

/// Returns what an ioctl fails with whose wait has ended, `timeout` being its argument.
///
/// Where a signal has no handler (a program is stopped and goes on, a debugger looks at it) a wait
/// without a limit goes on. One with a limit must not begin anew: how much of it is left is for the
/// caller to know.
pub(crate) fn wait_ended(ended: Ended, timeout: usize) -> Error {
    match ended {
        Ended::Timeout => etime(),
        Ended::Signal if timeout == 0 => ERESTARTNOHAND,
        Ended::Signal => EINTR,
    }
}

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_generation)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    const TEST: &str = "test";

    fn generation() -> Result<Arc<Generation>> {
        Arc::pin_init(Generation::new(), GFP_KERNEL)
    }

    fn change(generation: &Generation, least: u32) {
        generation.change(TEST, least, |_| ());
    }

    /// Returns the numbers of tracked watchers, and of those of them that are outdated.
    fn counts(watcher: &Watcher<Arc<Generation>>) -> (usize, usize) {
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
    fn watcher_starts_acked() -> Result {
        let generation = generation()?;

        change(&generation, 0);

        let watcher = Watcher::new(generation);

        assert!(!watcher.is_outdated());
        assert_eq!(watcher.wait_outdated(true), Err(EAGAIN));
        assert_eq!(watcher.status().acked, 1);
        assert!(!watcher.status().tracked);

        Ok(())
    }

    #[test]
    fn outdated_in_the_middle_of_a_change() -> Result {
        let generation = generation()?;
        let watcher = Watcher::new(generation.clone());
        let pages = generation.pages();
        let none = generation.answer();
        let state = generation.state.lock();

        pages.publish(1, 1, none, || {
            assert_eq!(generation.answered(), None);
            assert_eq!(pages.answer_page().consistent(|_| ()), None);
            assert!(watcher.is_outdated());
            assert_eq!(watcher.wait_outdated(true), Ok(1));
            assert_eq!(watcher.waited(), Some(Err(EINTR)));
        });
        drop(state);

        assert_eq!(generation.answered(), Some(none.id));
        assert_eq!(pages.answer_page().consistent(|_| 2), Some(2));
        assert!(watcher.is_outdated());

        Ok(())
    }

    #[test]
    fn acked_all_the_while_or_not_at_all() -> Result {
        let generation = generation()?;
        let watcher = Watcher::new(generation.clone());

        assert_eq!(watcher.while_acked(|| 1), Some(1));
        // Another thread acks the change with the same watcher.
        assert_eq!(
            watcher.while_acked(|| {
                change(&generation, 5);
                watcher.ack(5)
            }),
            None
        );
        assert!(!watcher.is_outdated());
        // The generation comes back.
        assert_eq!(
            watcher.while_acked(|| {
                change(&generation, u32::MAX);
                change(&generation, 5);
            }),
            None
        );
        assert_eq!(watcher.is_outdated(), watcher.status().outdated);

        Ok(())
    }

    #[test]
    fn ack_needs_the_current_generation() -> Result {
        let generation = generation()?;
        let watcher = Watcher::new(generation.clone());

        change(&generation, 7);

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

    #[test]
    fn an_answer_stays_until_there_is_another() -> Result {
        let generation = generation()?;
        let watcher = Watcher::new(generation.clone());
        let first = Answer {
            id: Id::from_bytes([1; 16]),
            reseeded: true,
        };
        let second = Answer {
            id: Id::from_bytes([2; 16]),
            reseeded: false,
        };

        let start = generation.moment();
        let mut changes = [None; 2];

        generation.set_answer(start, first);
        assert_eq!(watcher.status().answer, first);
        assert_eq!(watcher.status().generation, 0);
        assert!(!watcher.is_outdated());

        generation.change(TEST, 0, |change| changes[0] = Some(change.reseeded));
        assert_eq!(watcher.status().answer, first);
        assert!(
            generation.change_and_answer(generation.moment(), second, TEST, |change| {
                changes[1] = Some(change.reseeded);
            })
        );
        assert_eq!(changes, [Some(true), Some(false)]);
        assert_eq!(watcher.status().answer, second);
        assert_eq!(watcher.status().generation, 2);
        assert_eq!(watcher.status().epoch, 2);

        // What was found out before then is out of date.
        assert!(!generation.change_and_answer(start, first, TEST, |_| unreachable!()));
        generation.set_answer(start, first);
        assert_eq!(watcher.status().answer, second);
        assert_eq!(watcher.status().epoch, 2);

        Ok(())
    }

    #[test]
    fn outdated_although_the_generation_is_the_same() -> Result {
        let generation = generation()?;

        change(&generation, 5);

        let watcher = Watcher::new(generation.clone());

        change(&generation, u32::MAX);
        change(&generation, 5);

        assert_eq!(watcher.status().acked, watcher.status().generation);
        assert!(watcher.is_outdated());

        Ok(())
    }

    #[test]
    fn counts_follow_the_watchers() -> Result {
        let generation = generation()?;
        let overseer = Watcher::new(generation.clone());
        let first = Watcher::new(generation.clone());
        let second = Watcher::new(generation.clone());

        first.set_tracked(true);
        first.set_tracked(true);
        assert_eq!(counts(&overseer), (1, 0));

        change(&generation, 0);
        assert_eq!(counts(&overseer), (1, 1));

        // Outdated already, so it counts at once.
        second.set_tracked(true);
        assert_eq!(counts(&overseer), (2, 2));

        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(counts(&overseer), (2, 1));

        change(&generation, 0);
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
        let generation = generation()?;
        let overseer = Watcher::new(generation.clone());
        let watcher = Watcher::new(generation.clone());

        assert_eq!(overseer.wait_watchers(0), Ok(()));

        watcher.set_tracked(true);
        assert_eq!(overseer.wait_watchers(0), Ok(()));

        change(&generation, 0);
        assert_eq!(overseer.wait_watchers(1), Err(EINTR));

        assert_eq!(overseer.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(1), Err(etime()));

        assert_eq!(watcher.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(usize::MAX), Ok(()));

        Ok(())
    }
}
