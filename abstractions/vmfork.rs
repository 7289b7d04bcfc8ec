// SPDX-License-Identifier: GPL-2.0

//! Notifications of virtual machine forks.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What is to be done after a virtual machine fork.
pub(crate) trait VmForkHandler: Send + Sync {
    /// Called in process context when this system has turned out to be a clone of a virtual
    /// machine, after the kernel's random number generator has been reseeded with the new identity.
    fn vm_forked(&self);
}

/// The registration of a [`VmForkHandler`].
///
/// The handler can be called from the moment of the registration on. Dropping this type waits until
/// the handler is not running any more.
///
/// # Invariants
///
/// `block` is registered by `register_random_vmfork_notifier()`, and its callback is
/// [`Self::notify`].
#[pin_data(PinnedDrop)]
pub(crate) struct VmForkRegistration<T: VmForkHandler> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    handler: T,
}

// SAFETY: A notifier block can be unregistered on any thread, and the handler is `Send`.
unsafe impl<T: VmForkHandler> Send for VmForkRegistration<T> {}

// SAFETY: There is nothing that can be done with a shared reference to this type. The handler, which
// is called on any thread, is `Sync`.
unsafe impl<T: VmForkHandler> Sync for VmForkRegistration<T> {}

impl<T: VmForkHandler> VmForkRegistration<T> {
    /// Registers `handler`.
    pub(crate) fn register(handler: T) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The handler comes first, because it can be called as soon as the block is registered.
            handler,
            // INVARIANT: If this succeeds then the block is registered with `Self::notify`.
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(Self::notify),
                    ..pin_init::zeroed()
                };

                // SAFETY: `try_ffi_init` guarantees that `slot` is valid for writes.
                unsafe { slot.write(block) };

                // SAFETY: `slot` points at an initialized notifier block. It is pinned, and the
                // destructor of `Self` unregisters it before its memory is reused.
                to_result(unsafe { bindings::register_random_vmfork_notifier(slot) })
            }),
        })
    }

    /// # Safety
    ///
    /// `block` must point at the `block` field of a valid `Self`.
    unsafe extern "C" fn notify(
        block: *mut bindings::notifier_block,
        _action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: The caller guarantees that `block` is the field of a `Self`, so both pointers are
        // in bounds of the same allocation.
        let this = unsafe { kernel::container_of!(Opaque::cast_from(block), Self, block) };

        // SAFETY: The caller guarantees that `this` is valid. Only the handler is borrowed: it was
        // initialized before the block was registered, and lives until the block is unregistered.
        let handler = unsafe { &(*this).handler };

        handler.vm_forked();

        bindings::NOTIFY_DONE as c_int
    }
}

#[pinned_drop]
impl<T: VmForkHandler> PinnedDrop for VmForkRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // This takes the semaphore of the chain for writing, and callbacks run with it taken for
        // reading. So no callback is running when it returns.
        //
        // SAFETY: By the type invariants the block is registered. It is unregistered only here.
        unsafe { bindings::unregister_random_vmfork_notifier(self.block.get()) };
    }
}
