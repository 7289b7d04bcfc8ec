// SPDX-License-Identifier: GPL-2.0

//! Notifications of virtual machine forks.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::abstractions::notifier::Chain;
use kernel::{
    bindings,
    prelude::*, //
};

/// The chain that is called when this system has turned out to be a clone of a virtual machine, after
/// the kernel's random number generator has been reseeded with the new identity.
///
/// It is called in process context where the device is an ACPI device, and in a hard interrupt where
/// it is described by a device tree (`drivers/virt/vmgenid.c`).
pub(crate) struct VmForks;

// SAFETY: Callbacks run with the semaphore of the chain taken for reading, and unregistering a block
// takes it for writing. So no callback is running when that returns.
unsafe impl Chain for VmForks {
    // First of all, so that nothing that others do has to be waited for. The greatest number is left
    // to tests, which want to be first even then.
    const PRIORITY: c_int = c_int::MAX - 1;

    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The requirements are those of this function.
        unsafe { bindings::register_random_vmfork_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: The requirements are those of this function.
        unsafe { bindings::unregister_random_vmfork_notifier(block) };
    }
}
