// SPDX-License-Identifier: GPL-2.0

//! Notifications of suspend and hibernation.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use crate::abstractions::notifier::Chain;
use kernel::{
    bindings,
    prelude::*, //
};

/// `PM_POST_HIBERNATION` of `include/linux/suspend.h`, which is not among the headers that the bindings
/// are made from: the system has hibernated and goes on, or could not hibernate.
pub(crate) const POST_HIBERNATION: c_ulong = 2;

/// `PM_POST_SUSPEND`, likewise: the system was suspended and goes on.
pub(crate) const POST_SUSPEND: c_ulong = 4;

// `allow` and not `expect`, because it depends on the kernel's configuration whether structures that
// this one contains are empty.
#[allow(improper_ctypes)]
extern "C" {
    /// `register_pm_notifier()`, likewise, which the kernel exports to GPL modules.
    fn register_pm_notifier(block: *mut bindings::notifier_block) -> c_int;

    /// `unregister_pm_notifier()`, likewise.
    fn unregister_pm_notifier(block: *mut bindings::notifier_block) -> c_int;
}

/// The chain that is called before and after the system is suspended, or hibernates. It is called in
/// process context.
pub(crate) struct Transitions;

// SAFETY: Callbacks run with the semaphore of the chain taken for reading, and unregistering a block
// takes it for writing. So no callback is running when that returns.
unsafe impl Chain for Transitions {
    const PRIORITY: c_int = 0;

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The requirements are those of this function.
        unsafe { register_pm_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // This fails only if the block is not in the chain.
        //
        // SAFETY: The requirements are those of this function.
        unsafe { unregister_pm_notifier(block) };
    }
}
