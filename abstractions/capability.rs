// SPDX-License-Identifier: GPL-2.0

//! Capabilities of the current task.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use kernel::{
    bindings,
    prelude::*, //
};

/// A capability, for use with [`capable`].
#[derive(Clone, Copy)]
pub(crate) struct Capability(c_int);

impl Capability {
    /// `CAP_CHECKPOINT_RESTORE`.
    pub(crate) const CHECKPOINT_RESTORE: Self = Self(bindings::CAP_CHECKPOINT_RESTORE as c_int);

    /// `CAP_SYS_ADMIN`.
    pub(crate) const SYS_ADMIN: Self = Self(bindings::CAP_SYS_ADMIN as c_int);
}

/// Returns whether the current task has `capability` in the initial user namespace, without a record
/// of the question in the audit log: it asks for nothing that it is denied otherwise.
pub(crate) fn has_capability(capability: Capability) -> bool {
    // SAFETY: As in `capable`. The initial user namespace is static.
    unsafe { bindings::ns_capable_noaudit(&raw mut bindings::init_user_ns, capability.0) }
}

/// Returns whether the current task has `capability` in the initial user namespace.
///
/// A task that is privileged in a user namespace of its own only is not capable in this sense.
pub(crate) fn capable(capability: Capability) -> bool {
    // SAFETY: `capable()` looks at the credentials of the current task, which exists in every
    // context that safe code runs in. A `Capability` always holds the number of a capability that
    // the kernel knows.
    unsafe { bindings::capable(capability.0) }
}
