// SPDX-License-Identifier: GPL-2.0

//! The module that this code is a part of.
//!
//! C header: [`include/linux/init.h`](srctree/include/linux/init.h)

use kernel::bindings;

/// Returns what `THIS_MODULE` is in C: the owner to put into tables of function pointers.
///
/// The pointer is null if the code is built into the kernel.
//
// Linux 7.3 has `kernel::module::this_module` for this. Earlier series have nothing that can be
// used in a constant, so this does by hand what the `module!` macro of all series does.
pub(crate) const fn this_module() -> *mut bindings::module {
    #[cfg(MODULE)]
    {
        // `allow` and not `expect`, because it depends on the kernel's configuration whether structures
        // that this one contains are empty (`struct lock_class_key` is so without lockdep).
        #[allow(improper_ctypes)]
        extern "C" {
            static __this_module: kernel::types::Opaque<bindings::module>;
        }

        // SAFETY: The build of each module defines `__this_module`, and it lives for as long as the
        // code of the module does. No reference to the contents is created.
        unsafe { __this_module.get() }
    }

    #[cfg(not(MODULE))]
    core::ptr::null_mut()
}
