// SPDX-License-Identifier: GPL-2.0

//! A static place where a reference-counted object can be found.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// A place for an [`Arc`], for code that nobody hands one to because it is called from outside of
/// the module.
///
/// It needs no initialization at run time, so it can be looked at before the module has been
/// initialized. Looking at it takes no lock.
///
/// # Invariants
///
/// `pointer` is null, or it comes from [`Arc::into_raw`], and the reference count that belongs to it
/// is given up only when `pointer` has been something else for a grace period of RCU.
pub(crate) struct ArcSlot<T> {
    pointer: Atomic<*mut T>,
    _owns: PhantomData<Arc<T>>,
}

impl<T> ArcSlot<T> {
    /// Creates an empty slot.
    pub(crate) const fn new() -> Self {
        // INVARIANT: `pointer` is null.
        Self {
            pointer: Atomic::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// Puts `object` into the slot, for as long as the result exists.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the slot is not empty.
    pub(crate) fn fill(&'static self, object: Arc<T>) -> Result<FilledArcSlot<T>> {
        let pointer = Arc::into_raw(object).cast_mut();

        // ORDERING: Full, which includes release, and pairs with the acquire load in `get`: who
        // finds the object finds it initialized.
        //
        // INVARIANT: `pointer` comes from `into_raw`. Only the `Drop` of the result gives its
        // reference count up, after a grace period.
        match self.pointer.cmpxchg(ptr::null_mut(), pointer, Full) {
            // INVARIANT: The slot was empty and is not any more, so this is its only
            // `FilledArcSlot`.
            Ok(_) => Ok(FilledArcSlot(self)),
            Err(_) => {
                // SAFETY: `pointer` comes from `into_raw` above, and nobody else has it.
                drop(unsafe { Arc::from_raw(pointer) });

                Err(EBUSY)
            }
        }
    }

    /// Calls `f` with the object, if the slot is not empty. `f` must not sleep.
    ///
    /// Can be called in any context, if `f` can: no reference outlives the call, which it could be for
    /// the caller to be the last one to give up.
    pub(crate) fn with<R>(&self, f: impl FnOnce(ArcBorrow<'_, T>) -> R) -> Option<R> {
        let _guard = rcu::read_lock();
        // ORDERING: Acquire, see `fill`.
        let pointer = self.pointer.load(Acquire);

        if pointer.is_null() {
            return None;
        }

        // SAFETY: By the type invariants the pointer comes from `into_raw`, and as it has been found
        // with the RCU read lock held, its reference count is not given up before that is released.
        // There is no `UniqueArc`, because there is an `Arc`.
        let object = unsafe { ArcBorrow::from_raw(pointer) };

        Some(f(object))
    }
}

/// An [`ArcSlot`] that has an object. Dropping this makes it empty.
///
/// # Invariants
///
/// The pointer of the slot is not null, and is changed by the [`Drop`] of this only.
#[must_use = "the slot is empty again when this is dropped"]
pub(crate) struct FilledArcSlot<T: 'static>(&'static ArcSlot<T>);

impl<T> Drop for FilledArcSlot<T> {
    fn drop(&mut self) {
        let pointer = self.0.pointer.xchg(ptr::null_mut(), Full);

        // SAFETY: This can be called in every context that may sleep, and `Arc`s which are kept for
        // the life of a module are dropped in no other one.
        unsafe { bindings::synchronize_rcu() };

        // SAFETY: By the type invariants `pointer` is what `fill` has put there, which comes from
        // `into_raw`. This is the only place that gives its reference count up. Whoever has found it
        // before the exchange has released the RCU read lock by now.
        drop(unsafe { Arc::from_raw(pointer) });
    }
}
