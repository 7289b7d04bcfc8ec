// SPDX-License-Identifier: GPL-2.0

//! Credentials of the current task.
//!
//! C header: [`include/linux/cred.h`](srctree/include/linux/cred.h)

use kernel::{
    bindings,
    sync::atomic::{
        Atomic,
        Relaxed,
        Release, //
    }, //
};

/// Calls `act` with the credentials of the kernel itself, which has all capabilities, in place of those
/// of the current task. What others see of that task (`real_cred`) stays what it is.
///
/// This is `scoped_with_kernel_creds()`.
pub(crate) fn with_kernel_credentials<R>(act: impl FnOnce() -> R) -> R {
    // SAFETY: There is a current task in every context that safe code runs in. The first task of the
    // kernel is static. Its credentials are never replaced, and so are never freed either.
    let (credentials, kernel) = unsafe {
        let task = bindings::get_current();

        (
            (&raw mut (*task).cred).cast::<*mut bindings::cred>(),
            bindings::init_task.cred,
        )
    };
    // SAFETY: The field lives as long as the task, which does not end here. Only the task itself writes
    // it, and all who read it do so at once.
    let credentials = unsafe { Atomic::from_ptr(credentials) };
    let own = credentials.load(Relaxed);

    // ORDERING: Release, as in `rcu_assign_pointer()`. The task keeps its reference to its own ones all
    // the while, for nobody else takes it from there.
    credentials.store(kernel.cast_mut(), Release);

    let result = act();

    // ORDERING: Release, as above.
    credentials.store(own, Release);

    result
}
