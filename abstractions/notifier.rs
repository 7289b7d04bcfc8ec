// SPDX-License-Identifier: GPL-2.0

//! Chains of notifiers.
//!
//! C header: [`include/linux/notifier.h`](srctree/include/linux/notifier.h)

use core::marker::PhantomData;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// A chain of notifiers.
///
/// # Safety
///
/// After [`register`](Self::register) has succeeded the block is called until
/// [`unregister`](Self::unregister) is, and not any more when that has returned.
pub(crate) unsafe trait Chain: 'static {
    /// Of those who are registered, who has the greatest one is called first.
    const PRIORITY: c_int;

    /// Adds `block` to the chain, and returns 0 or an errno.
    ///
    /// # Safety
    ///
    /// `block` must be initialized, must not be in any chain, and must be valid and stay where it
    /// is until it is taken off the chain.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// Takes `block` off the chain.
    ///
    /// # Safety
    ///
    /// `block` must be in the chain.
    unsafe fn unregister(block: *mut bindings::notifier_block);
}

/// What is to be done when a chain is called.
pub(crate) trait Handler<C: Chain>: Send + Sync + 'static {
    /// Called in the context that the chain is called in. `action` is what the chain says.
    fn called(&self, action: c_ulong);
}

/// The registration of a [`Handler`].
///
/// The handler can be called from the moment of the registration on. Dropping this type waits until
/// the handler is not running any more.
///
/// # Invariants
///
/// `block` is registered by [`Chain::register`], and its callback is [`Self::notify`].
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<C: Chain, T: Handler<C>> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    handler: T,
    _chain: PhantomData<C>,
}

// SAFETY: A notifier block can be unregistered on any thread, and the handler is `Send`.
unsafe impl<C: Chain, T: Handler<C>> Send for Registration<C, T> {}

// SAFETY: There is nothing that can be done with a shared reference to this type. The handler, which
// is called on any thread, is `Sync`.
unsafe impl<C: Chain, T: Handler<C>> Sync for Registration<C, T> {}

impl<C: Chain, T: Handler<C>> Registration<C, T> {
    /// Registers `handler`.
    ///
    /// # Errors
    ///
    /// What the chain says.
    //
    // A registration can be forgotten, as everything can. As it is pinned, its memory is not used for
    // anything else then; and as the handler is `'static`, neither is what it refers to.
    pub(crate) fn register(handler: T) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The handler comes first, because it can be called as soon as the block is registered.
            handler,
            _chain: PhantomData,
            // INVARIANT: If this succeeds then the block is registered with `Self::notify`.
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(Self::notify),
                    priority: C::PRIORITY,
                    ..pin_init::zeroed()
                };

                // SAFETY: `try_ffi_init` guarantees that `slot` is valid for writes.
                unsafe { slot.write(block) };

                // SAFETY: `slot` points at an initialized notifier block. It is pinned, and the
                // destructor of `Self` unregisters it before its memory is reused.
                to_result(unsafe { C::register(slot) })
            }),
        })
    }

    /// # Safety
    ///
    /// `block` must point at the `block` field of a valid `Self`.
    unsafe extern "C" fn notify(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: The caller guarantees that `block` is the field of a `Self`, so both pointers are
        // in bounds of the same allocation.
        let this = unsafe { kernel::container_of!(Opaque::cast_from(block), Self, block) };

        // SAFETY: The caller guarantees that `this` is valid. Only the handler is borrowed: it was
        // initialized before the block was registered, and lives until the block is unregistered.
        let handler = unsafe { &(*this).handler };

        handler.called(action);

        bindings::NOTIFY_DONE as c_int
    }
}

#[pinned_drop]
impl<C: Chain, T: Handler<C>> PinnedDrop for Registration<C, T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the block is registered. It is unregistered only here.
        unsafe { C::unregister(self.block.get()) };
    }
}
