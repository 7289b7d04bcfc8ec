// SPDX-License-Identifier: GPL-2.0

//! The events that a poll can report, and whether it waits.
//!
//! C headers: [`include/uapi/linux/eventpoll.h`](srctree/include/uapi/linux/eventpoll.h),
//! [`include/linux/poll.h`](srctree/include/linux/poll.h)
//!
//! `bindgen` gives no constants for macros that contain a cast, as those of the C header do. The
//! values are part of the kernel's interface to user space, and cannot change.

use kernel::bindings;

/// `EPOLLIN`: there is something to read.
pub(crate) const EPOLLIN: u32 = 0x0000_0001;

/// `EPOLLRDNORM`: there is normal data to read.
pub(crate) const EPOLLRDNORM: u32 = 0x0000_0040;

/// Returns whether a poll waits for anything, or only asks: for the most part it only asks, without a
/// timeout, after it was woken up, and when epoll wants to know what is ready.
///
/// This is `!poll_does_not_wait()`, in place.
///
/// # Safety
///
/// `table` must be null or point at a valid `poll_table`.
#[inline]
pub(crate) unsafe fn waits(table: *const bindings::poll_table) -> bool {
    // SAFETY: The caller provides a pointer that is null or valid.
    unsafe { table.as_ref() }.is_some_and(|table| table._qproc.is_some())
}
