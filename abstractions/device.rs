// SPDX-License-Identifier: GPL-2.0

//! Who holds a device.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use core::ptr;
use kernel::{
    bindings,
    device::Device,
    prelude::*, //
};

/// Calls `f` with the name of the driver that `dev` is bound to, if it is bound. It stays so until
/// `f` returns.
///
/// May sleep. The device must not be locked by the caller, as it is in a probe.
pub(crate) fn with_driver_name<R>(dev: &Device, f: impl FnOnce(Option<&CStr>) -> R) -> R {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    let dev = ptr::from_ref(dev).cast_mut().cast::<bindings::device>();

    // `device_lock()`, which is an inline function.
    //
    // SAFETY: `dev` is valid, and its mutex is initialized from its creation on.
    unsafe { bindings::mutex_lock(&raw mut (*dev).mutex) };

    // SAFETY: `dev` is valid and locked.
    let name = unsafe { bindings::device_is_bound(dev) }.then(|| {
        // SAFETY: A bound device has a driver, and it cannot be unbound as long as the device is
        // locked. The name of a driver lives as long as the driver is registered.
        unsafe { CStr::from_char_ptr((*(*dev).driver).name) }
    });
    let result = f(name);

    // SAFETY: The mutex was locked above.
    unsafe { bindings::mutex_unlock(&raw mut (*dev).mutex) };

    result
}
