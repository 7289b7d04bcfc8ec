// SPDX-License-Identifier: GPL-2.0

//! Events that leave a device for user space.
//!
//! C header: [`include/linux/kobject.h`](srctree/include/linux/kobject.h)

use core::{
    fmt::Write,
    ptr, //
};
use kernel::{
    bindings,
    device::Device,
    error::to_result,
    fmt,
    prelude::*,
    str::NullTerminatedFormatter, //
};

/// The greatest length of a variable, its terminating `NUL` included.
const MAX_LEN: usize = 64;
/// The greatest number of variables.
const MAX_VARIABLES: usize = 4;

/// Emits a `change` uevent from `dev`, with `variables` (each of the form `NAME=value`) added to the
/// environment of the event.
///
/// May sleep.
///
/// # Errors
///
/// * [`ENOMEM`] if a variable has more than 63 bytes, or if there is no memory for the event.
/// * Any other error of `kobject_uevent_env()`.
pub(crate) fn change<const N: usize>(dev: &Device, variables: [fmt::Arguments<'_>; N]) -> Result {
    let mut buffers = [[0; MAX_LEN]; N];

    for (buffer, variable) in buffers.iter_mut().zip(variables) {
        NullTerminatedFormatter::new(buffer)
            .ok_or(ENOMEM)?
            .write_fmt(variable)
            .map_err(|_| ENOMEM)?;
    }

    // One more than there are variables, because the last one is null.
    let mut environment = [ptr::null_mut(); MAX_VARIABLES + 1];

    const { assert!(N <= MAX_VARIABLES) };
    for (entry, buffer) in environment.iter_mut().zip(&mut buffers) {
        *entry = buffer.as_mut_ptr();
    }

    // CAST: `Device` is a transparent wrapper of `struct device`.
    let dev = ptr::from_ref(dev).cast_mut().cast::<bindings::device>();

    // SAFETY: The existence of the reference guarantees that `dev` is valid and that its reference
    // count is positive for the duration of the call, so its kobject is valid as well.
    // `environment` is a null-terminated array of `NUL`-terminated strings, which
    // `kobject_uevent_env()` copies.
    to_result(unsafe {
        bindings::kobject_uevent_env(
            &raw mut (*dev).kobj,
            bindings::kobject_action_KOBJ_CHANGE,
            environment.as_mut_ptr(),
        )
    })
}
