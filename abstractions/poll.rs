// SPDX-License-Identifier: GPL-2.0

//! The events that a poll can report.
//!
//! C header: [`include/uapi/linux/eventpoll.h`](srctree/include/uapi/linux/eventpoll.h)
//!
//! `bindgen` gives no constants for macros that contain a cast, as those of the C header do. The
//! values are part of the kernel's interface to user space, and cannot change.

/// `EPOLLIN`: there is something to read.
pub(crate) const EPOLLIN: u32 = 0x0000_0001;

/// `EPOLLRDNORM`: there is normal data to read.
pub(crate) const EPOLLRDNORM: u32 = 0x0000_0040;
