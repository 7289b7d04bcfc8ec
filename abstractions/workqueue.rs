// SPDX-License-Identifier: GPL-2.0

//! Workqueues of a module's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! This is what [`kernel::workqueue`] lacks: a queue that is gone, with all that was in it, when the
//! module goes, and an end to work that a timer is to begin.

use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        HasDelayedWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// A workqueue whose work is done at once, by threads of the highest priority that ordinary threads
/// have, on whichever processor has time; also when memory is short.
///
/// Dropping this waits until all that has been enqueued is done.
///
/// # Invariants
///
/// The pointer is what `alloc_workqueue()` has returned.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue can be used, and destroyed, on any thread.
unsafe impl Send for OwnedQueue {}

// SAFETY: A workqueue can be used on several threads at once.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a workqueue.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The format wants one string, and gets one. The flags go together.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND
                    | bindings::wq_flags_WQ_HIGHPRI
                    | bindings::wq_flags_WQ_MEM_RECLAIM,
                // As many items at once as is usual.
                0,
                name.as_char_ptr(),
            )
        };

        // INVARIANT: This comes from `alloc_workqueue()`.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Waits until all that has been enqueued before is done.
    ///
    /// May sleep.
    pub(crate) fn flush(&self) {
        // SAFETY: By the type invariants the queue is valid.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }

    /// Waits until all that has been enqueued is done, and what that enqueues. Nobody else may enqueue
    /// anything meanwhile: the kernel warns if so, and refuses it.
    ///
    /// May sleep.
    pub(crate) fn drain(&self) {
        // SAFETY: By the type invariants the queue is valid.
        unsafe { bindings::drain_workqueue(self.0.as_ptr()) };
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariants the queue is valid, and it is so until `self` is dropped.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // This does what has been enqueued, and what that enqueues.
        //
        // SAFETY: By the type invariants the queue is valid. Nobody can enqueue anything any more,
        // other than the work itself, since that takes a reference to `self`.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// Makes sure that the delayed work of `item` neither runs nor is going to: a timer that is to begin
/// it is stopped, and if it runs then this waits for its end.
///
/// May sleep. Must not be called by the work itself.
pub(crate) fn cancel_delayed<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    let item = Arc::as_ptr(item).cast_mut();

    // SAFETY: The pointer is that of a valid `T`.
    let work = unsafe { T::raw_get_work(item) };
    // SAFETY: The pointer is that of a valid `Work`.
    let work = unsafe { Work::raw_get(work) };
    // SAFETY: As `T` has a `DelayedWork`, this is the field of a `struct delayed_work`.
    let delayed = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };

    // SAFETY: `DelayedWork::new` has initialized it, and the caller's reference to the item keeps it
    // alive.
    if unsafe { bindings::cancel_delayed_work_sync(delayed) } {
        // SAFETY: The work was pending, so `Arc::into_raw` was called when it was enqueued, and as
        // it was taken off the queue there is nobody else to give that reference up.
        drop(unsafe { Arc::from_raw(item.cast_const()) });
    }
}

/// Returns about `delay`, such that it ends along with the timers of others that are as patient.
pub(crate) fn rounded(delay: Jiffies) -> Jiffies {
    // SAFETY: This computes a number from a number, and from which processor it runs on.
    unsafe { bindings::round_jiffies_relative(delay) }
}
