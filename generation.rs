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
//! In this order:
//!
//! 1. [`Generation::state`], a spin lock, under which the pages, what each watcher has acked, and the
//!    counts change. It is no mutex because a poll, and a read that must not wait, take it; and so
//!    that nobody who holds it is kept from running, which would hold a change up. Nothing that
//!    sleeps, logs, or wakes anybody up is done while it is held.
//! 2. The lock of [`Generation::readers`]. It is taken under `state` when a task goes to sleep, and
//!    with no lock held when tasks are woken up.
//!
//! [`Generation::overseers`] has a lock of its own, which is never held along with another one.
//!
//! # Memory ordering
//!
//! The numbers in the pages, and what a watcher has acked, are atomics, so that a watcher that is up to
//! date finds this out without a lock, in [`Watcher::is_surely_acked`]. Everything else looks at
//! them with `state` held. The orderings and their pairs:
//!
//! * A: see [`pages`](crate::pages).
//! * C: the release stores of what is acked in [`Watcher::set_acked`] pair with the acquire loads in
//!   [`Watcher::is_surely_acked`].

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        error::etime,
        wait_queue::{
            new_wait_queue,
            Ended,
            WaitQueue, //
        }, //
    },
    pages::{
        Answer,
        Pages, //
    }, //
};
use kernel::{
    new_poll_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        poll::PollCondVar,
        Arc,
        SpinLock, //
    },
    time::Delta, //
};

/// What is protected by [`Generation::state`], along with the atomics that change under it.
struct State {
    /// The number of tracked watchers.
    tracked: usize,
    /// The number of tracked watchers that are outdated.
    outdated: usize,
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
    /// Where those wait who want to know of the next change: in a read, or in a poll.
    #[pin]
    readers: PollCondVar,
    /// Where those wait who want no tracked watcher to be outdated.
    #[pin]
    overseers: WaitQueue,
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
    pub(crate) fn new() -> Result<Arc<Self>> {
        let pages = Pages::new()?;

        Arc::pin_init(
            pin_init!(Self {
                pages,
                state <- new_spinlock!(
                    State {
                        tracked: 0,
                        outdated: 0,
                        source: None,
                    },
                    "Generation::state"
                ),
                readers <- new_poll_condvar!("Generation::readers"),
                overseers <- new_wait_queue!("Generation::overseers"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns what user space maps.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns what is answered.
    pub(crate) fn answer(&self) -> Answer {
        let _state = self.state.lock();

        self.pages.answer()
    }

    /// Makes `answer` what is answered, which is no change of the generation: there is nobody yet who
    /// has to know.
    pub(crate) fn set_answer(&self, answer: Answer) {
        let _state = self.state.lock();

        self.pages
            .publish(self.pages.generation(), self.pages.epoch(), answer, || ());
    }

    /// Changes the generation, to `least` or more; 0 asks for nothing in particular. `source` says
    /// what caused this. If there is an `answer` then that is answered from now on.
    ///
    /// What has to be done with the kernel's random number generator must have been done before.
    ///
    /// Does not sleep, and waits for nobody but who holds the lock.
    pub(crate) fn change(
        &self,
        source: &'static str,
        least: u32,
        answer: Option<Answer>,
    ) -> Change {
        let change = {
            let mut state = self.state.lock();
            let answer = answer.unwrap_or_else(|| self.pages.answer());
            let old = self.pages.generation();
            let new = successor(old, least);
            // It would take centuries to wrap this around.
            let epoch = self.pages.epoch().wrapping_add(1);

            state.source = Some(source);
            // No watcher has acked the new epoch.
            self.pages.publish(new, epoch, answer, || {
                state.outdated = state.tracked;
            });

            Change {
                old,
                new,
                source,
                reseeded: answer.reseeded,
            }
        };

        self.readers.notify_all();
        // Even if no tracked watcher is outdated, those of the overseers themselves now are.
        self.overseers.wake_all();

        change
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
        let acked_epoch = Atomic::new(generation.pages.epoch());
        let acked = Atomic::new(generation.pages.generation());
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

    /// Returns what [`Generation::change`] notifies when the watcher becomes outdated.
    pub(crate) fn becomes_outdated(&self) -> &PollCondVar {
        &self.generation.readers
    }

    /// Returns whether the watcher is acked, without a lock. If this is false then only
    /// [`Self::is_outdated_locked`] knows.
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
    /// If another thread acks by the same watcher at the same time, then by C the acked epoch is
    /// never seen with a generation that is older than the one that belongs to it. If it is seen
    /// with a newer one, then by C again the load of the epoch sees at least the epoch in which that
    /// was acked, which is greater; so the answer is no, and the lock decides.
    fn is_surely_acked(&self) -> bool {
        // ORDERING: Acquire C, twice, then A, twice. The order of the loads matters.
        let acked_epoch = self.acked_epoch.load(Acquire);
        let acked = self.acked.load(Acquire);
        let generation = self.generation.pages.generation();
        let epoch = self.generation.pages.epoch();

        acked == generation && acked_epoch == epoch
    }

    /// Returns whether the watcher is outdated. `_state` proves that the lock is held.
    fn is_outdated_locked(&self, _state: &State) -> bool {
        // The lock orders these.
        self.acked_epoch.load(Relaxed) != self.generation.pages.epoch()
    }

    /// Makes the watcher acked. `_state` proves that the lock is held.
    fn set_acked(&self, _state: &mut State) {
        // ORDERING: Release C. The generation comes first, see `is_surely_acked`.
        self.acked
            .store(self.generation.pages.generation(), Release);
        self.acked_epoch
            .store(self.generation.pages.epoch(), Release);
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
                return Ok(self.generation.pages.generation());
            }

            if nonblocking {
                return Err(EAGAIN);
            }

            if signal_pending {
                return Err(ERESTARTSYS);
            }

            signal_pending = self
                .generation
                .readers
                .wait_interruptible_freezable(&mut state);
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

        if value != self.generation.pages.generation() {
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
            self.generation.overseers.wake_all();
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
            self.generation.overseers.wake_all();
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
    pub(crate) fn wait_watchers(&self, timeout: usize) -> Result {
        self.generation
            .overseers
            .wait(limit(timeout), || {
                let state = self.generation.state.lock();

                if self.is_outdated_locked(&state) {
                    Some(Err(EINTR))
                } else if state.outdated == 0 {
                    Some(Ok(()))
                } else {
                    None
                }
            })
            .unwrap_or_else(|ended| Err(wait_ended(ended, timeout)))
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
            outdated_watchers: state.outdated,
            epoch: self.generation.pages.epoch(),
            source: state.source,
            answer: self.generation.pages.answer(),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Nobody waits for a watcher that is gone.
        self.set_tracked(false);
    }
}

/// Returns the limit that the argument of an ioctl stands for: milliseconds, and 0 is no limit.
pub(crate) fn limit(timeout: usize) -> Option<Delta> {
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
    fn watcher_starts_acked() -> Result {
        let generation = Generation::new()?;

        generation.change(TEST, 0, None);

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

        generation.change(TEST, 7, None);

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
        let generation = Generation::new()?;
        let watcher = Watcher::new(generation.clone());
        let first = Answer {
            id: [1; 16],
            reseeded: true,
        };
        let second = Answer {
            id: [2; 16],
            reseeded: false,
        };

        generation.set_answer(first);
        assert_eq!(watcher.status().answer, first);
        assert_eq!(watcher.status().generation, 0);
        assert!(!watcher.is_outdated());

        assert!(generation.change(TEST, 0, None).reseeded);
        assert_eq!(watcher.status().answer, first);
        assert!(!generation.change(TEST, 0, Some(second)).reseeded);
        assert_eq!(watcher.status().answer, second);
        assert_eq!(watcher.status().generation, 2);
        assert_eq!(watcher.status().epoch, 2);

        Ok(())
    }

    #[test]
    fn outdated_although_the_generation_is_the_same() -> Result {
        let generation = Generation::new()?;

        generation.change(TEST, 5, None);

        let watcher = Watcher::new(generation.clone());

        generation.change(TEST, u32::MAX, None);
        generation.change(TEST, 5, None);

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

        generation.change(TEST, 0, None);
        assert_eq!(counts(&overseer), (1, 1));

        // Outdated already, so it counts at once.
        second.set_tracked(true);
        assert_eq!(counts(&overseer), (2, 2));

        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(first.ack(1), Ok(()));
        assert_eq!(counts(&overseer), (2, 1));

        generation.change(TEST, 0, None);
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

        generation.change(TEST, 0, None);
        assert_eq!(overseer.wait_watchers(1), Err(EINTR));

        assert_eq!(overseer.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(1), Err(etime()));

        assert_eq!(watcher.ack(1), Ok(()));
        assert_eq!(overseer.wait_watchers(usize::MAX), Ok(()));

        Ok(())
    }
}
