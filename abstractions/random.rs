// SPDX-License-Identifier: GPL-2.0

//! The kernel's random number generator.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use kernel::bindings;

/// Mixes `data`, which is likely to differ between machines that are otherwise alike, into the random
/// number generator. It counts for nothing, and takes effect with the next reseed.
pub(crate) fn add_device_randomness(data: &[u8]) {
    // SAFETY: The pointer is valid for reads of that many bytes, which are copied.
    unsafe { bindings::add_device_randomness(data.as_ptr().cast(), data.len()) };
}

/// Mixes `id`, the new identity of this virtual machine, into the random number generator, reseeds it
/// at once, and then notifies the handlers of [`vmfork`](crate::abstractions::vmfork).
///
/// May sleep. Exported to modules with `CONFIG_VMGENID=m` only.
#[cfg(CONFIG_VMGENID)]
pub(crate) fn add_vmfork_randomness(id: &[u8]) {
    // SAFETY: The pointer is valid for reads of that many bytes, which are copied.
    unsafe { bindings::add_vmfork_randomness(id.as_ptr().cast(), id.len()) };
}
