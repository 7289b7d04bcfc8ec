// SPDX-License-Identifier: GPL-2.0

//! Atomics that are loaded and stored in place.
//!
//! C headers: [`include/asm-generic/rwonce.h`](srctree/include/asm-generic/rwonce.h),
//! [`arch/x86/include/asm/barrier.h`](srctree/arch/x86/include/asm/barrier.h)
//!
//! What [`Atomic`] does is done by functions in C, unless the kernel is built with
//! `CONFIG_RUST_INLINE_HELPERS`, and a module for a packaged kernel never is. For a load that makes
//! seven instructions of one; so an [`InPlace`] does the simple things by itself, where it is known
//! how.

use core::ops::Deref;
use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            AcquireOrRelaxed,
            OrderingType,
            ReleaseOrRelaxed, //
        },
        Atomic,
        AtomicType, //
    }, //
};

/// An [`Atomic`] that is loaded and stored in place.
#[repr(transparent)]
pub(crate) struct InPlace<T: AtomicType>(Atomic<T>);

// SAFETY: An `Atomic` has the same bit validity as its type, and these types can be zero.
unsafe impl Zeroable for InPlace<u32> {}
// SAFETY: As above.
unsafe impl Zeroable for InPlace<u64> {}

/// All else that an [`Atomic`] does.
impl<T: AtomicType> Deref for InPlace<T> {
    type Target = Atomic<T>;

    #[inline]
    fn deref(&self) -> &Atomic<T> {
        &self.0
    }
}

impl<T: AtomicType> InPlace<T> {
    /// Creates an atomic with that value.
    #[inline]
    pub(crate) const fn new(value: T) -> Self {
        Self(Atomic::new(value))
    }
}

// A bound of `load` and `store` is private to the `kernel` crate, so this is not for any type.
macro_rules! impl_in_place {
    ($($type:ty),*) => {$(
        const _: () = assert!(!cfg!(CONFIG_X86_64) || size_of::<$type>() <= size_of::<usize>());

        impl InPlace<$type> {
            /// As [`Atomic::load`].
            #[inline(always)]
            pub(crate) fn load<O: AcquireOrRelaxed>(&self, ordering: O) -> $type {
                if !cfg!(CONFIG_X86_64) {
                    return self.0.load(ordering);
                }

                // This corresponds to `READ_ONCE()`, as in `kernel::fs::file::LocalFile::flags`.
                //
                // SAFETY: The pointer is valid, and aligned. What it points at is no larger than a
                // word of the machine, so this is one instruction; whoever writes it at the same time
                // does so by one, too.
                let value = unsafe { self.0.as_ptr().read_volatile() };

                // On x86 that is all there is to `smp_load_acquire()`.
                if let OrderingType::Acquire = O::TYPE {
                    barrier();
                }

                value
            }

            /// As [`Atomic::store`].
            #[inline(always)]
            pub(crate) fn store<O: ReleaseOrRelaxed>(&self, value: $type, ordering: O) {
                if !cfg!(CONFIG_X86_64) {
                    return self.0.store(value, ordering);
                }

                // On x86 that is all there is to `smp_store_release()`.
                if let OrderingType::Release = O::TYPE {
                    barrier();
                }

                // This corresponds to `WRITE_ONCE()`.
                //
                // SAFETY: As in `load`; and the memory can be written, because it is in an `Atomic`.
                unsafe { self.0.as_ptr().write_volatile(value) };
            }
        }
    )*};
}

impl_in_place!(bool, u32, u64, usize);

/// A compiler barrier: `barrier()` of `include/linux/compiler.h`.
#[inline(always)]
fn barrier() {
    // The compiler has to take it for something that accesses any memory.
    //
    // SAFETY: There is no instruction.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

/// Orders the loads before it and the loads after it.
#[inline(always)]
pub(crate) fn smp_rmb() {
    if cfg!(CONFIG_X86_64) {
        // x86 does not reorder loads.
        barrier();
    } else {
        // SAFETY: This can be called anywhere.
        unsafe { bindings::smp_rmb() };
    }
}
