// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use core::ptr;
use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
    task::{
        MAX_SCHEDULE_TIMEOUT,
        TASK_FREEZABLE,
        TASK_INTERRUPTIBLE,
        TASK_NORMAL,
        TASK_UNINTERRUPTIBLE, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    },
    types::Opaque, //
};

/// Why a wait has ended before its condition came true.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ended {
    /// A signal is pending.
    Signal,
    /// The time is over.
    Timeout,
}

/// A queue of tasks that wait for conditions, which they look at themselves, and of polls.
///
/// Unlike a [`CondVar`](kernel::sync::CondVar) it needs no lock for that, and it knows a wait that is
/// limited, interruptible and freezable at once. Unlike a
/// [`PollCondVar`](kernel::sync::poll::PollCondVar) it is for polls of files that keep it alive.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A `struct wait_queue_head` can be used on any thread.
unsafe impl Send for WaitQueue {}

// SAFETY: A `struct wait_queue_head` has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Creates a queue. Use [`new_wait_queue`].
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes, and `name` and `key` live for ever.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Waits until `look` returns something, and returns that. `look` is called at least once, and
    /// again whenever [`wake_all`](Self::wake_all) is called. It must not sleep.
    ///
    /// A task that waits here is frozen as it is when the system is suspended.
    ///
    /// May sleep. No lock may be held.
    ///
    /// # Errors
    ///
    /// [`Ended`], when `look` has returned nothing.
    pub(crate) fn wait<R>(
        &self,
        limit: Option<Delta>,
        look: impl FnMut() -> Option<R>,
    ) -> Result<R, Ended> {
        self.wait_in(TASK_INTERRUPTIBLE | TASK_FREEZABLE, limit, look)
    }

    /// The same, without a limit, and whatever signals are pending: what is waited for must come by
    /// itself, and soon.
    pub(crate) fn wait_certain<R>(&self, mut look: impl FnMut() -> Option<R>) -> R {
        loop {
            // Neither of the reasons to end can come up.
            if let Ok(result) = self.wait_in(TASK_UNINTERRUPTIBLE, None, &mut look) {
                return result;
            }
        }
    }

    fn wait_in<R>(
        &self,
        task_state: c_int,
        limit: Option<Delta>,
        mut look: impl FnMut() -> Option<R>,
    ) -> Result<R, Ended> {
        let start = Instant::<Monotonic>::now();
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();

        // SAFETY: `entry` is valid for writes. It stays where it is until `finish_wait()` below has
        // taken it off the queue.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };

        let result = loop {
            // SAFETY: Both are initialized. The state is one that a task can sleep in.
            let interrupted = unsafe {
                bindings::prepare_to_wait_event(self.head.get(), entry.get(), task_state)
            } != 0;

            // From here on a call of `wake_all` ends the sleep below.
            if let Some(result) = look() {
                break Ok(result);
            }

            // From the start on, so that being woken up for nothing does not make it longer.
            let remaining = limit.map(|limit| limit - start.elapsed());

            if remaining.is_some_and(|remaining| remaining <= Delta::ZERO) {
                break Err(Ended::Timeout);
            }

            if interrupted {
                break Err(Ended::Signal);
            }

            let jiffies = remaining.map_or(MAX_SCHEDULE_TIMEOUT, |remaining| {
                jiffies_for(remaining)
                    .try_into()
                    .unwrap_or(MAX_SCHEDULE_TIMEOUT)
            });

            // SAFETY: This can be called wherever it is allowed to sleep, with any number of
            // jiffies that is not negative.
            unsafe { bindings::schedule_timeout(jiffies) };
        };

        // SAFETY: Both are initialized.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };

        result
    }

    /// Returns a raw pointer to the queue.
    pub(crate) fn as_ptr(&self) -> *mut bindings::wait_queue_head {
        self.head.get()
    }

    /// Has all that wait look at their conditions, and all that poll ask again.
    pub(crate) fn wake_all(&self) {
        // SAFETY: The queue is initialized. 0 stands for as many as there are.
        unsafe { bindings::__wake_up(self.head.get(), TASK_NORMAL, 0, ptr::null_mut()) };
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

/// Creates a [`WaitQueue`] of that name.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::abstractions::wait_queue::WaitQueue::new(
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}

pub(crate) use new_wait_queue;

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_wait_queue)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_are_not_less() {
        assert!(jiffies_for(Delta::from_nanos(1)) >= 1);
        assert!(jiffies_for(Delta::from_millis(1000)) >= msecs_to_jiffies(1000));
        assert_eq!(
            jiffies_for(Delta::from_millis(i64::MAX)),
            msecs_to_jiffies(i32::MAX.unsigned_abs())
        );
    }
}
