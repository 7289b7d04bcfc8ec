// SPDX-License-Identifier: GPL-2.0

//! Memory that is not the kernel's own.
//!
//! C headers: [`include/linux/io.h`](srctree/include/linux/io.h),
//! [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

use core::ptr::NonNull;
use kernel::{
    bindings,
    io::PhysAddr,
    prelude::*, //
};

/// Returns whether all that is known of the `size` bytes at `start` is that the firmware has reserved
/// them: they are not for the kernel to use, nor a window to devices.
///
/// Only the memory map of x86 tells that apart. Elsewhere this returns whether the bytes are no
/// system RAM.
pub(crate) fn is_reserved(start: PhysAddr, size: usize) -> bool {
    let intersects = |flags: u32, description: u32| {
        // SAFETY: This only looks at the tree of resources, with its lock held. It takes numbers of
        // any value.
        unsafe {
            bindings::region_intersects(start, size, flags as c_ulong, description as c_ulong)
        }
    };

    if cfg!(CONFIG_X86) {
        [
            bindings::IORES_DESC_RESERVED,
            bindings::IORES_DESC_ACPI_NV_STORAGE,
        ]
        .into_iter()
        .any(|description| {
            intersects(bindings::IORESOURCE_MEM, description)
                == bindings::REGION_INTERSECTS as c_int
        })
    } else {
        intersects(bindings::IORESOURCE_SYSTEM_RAM, bindings::IORES_DESC_NONE)
            == bindings::REGION_DISJOINT as c_int
    }
}

/// A mapping of `N` bytes of memory that somebody else writes.
///
/// # Invariants
///
/// `pointer` is what `memremap()` has returned for at least `N` bytes, and is unmapped only when this
/// is dropped.
pub(crate) struct ForeignMemory<const N: usize> {
    pointer: NonNull<[u8; N]>,
}

// SAFETY: The mapping is in the kernel's part of all address spaces, and can be removed on any thread.
unsafe impl<const N: usize> Send for ForeignMemory<N> {}

// SAFETY: With a shared reference the memory can only be read, by volatile reads.
unsafe impl<const N: usize> Sync for ForeignMemory<N> {}

impl<const N: usize> ForeignMemory<N> {
    /// Maps the `N` bytes at `start`, cached, as memory that a hypervisor shares with us where the
    /// guest's memory is encrypted.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// * [`EADDRNOTAVAIL`] if the bytes are not [reserved](is_reserved).
    /// * [`ENOMEM`] if they cannot be mapped.
    pub(crate) fn map(start: PhysAddr) -> Result<Self> {
        if !is_reserved(start, N) {
            return Err(EADDRNOTAVAIL);
        }

        // SAFETY: The memory is reserved, so nothing in the kernel relies on how it is mapped.
        let pointer = unsafe {
            bindings::memremap(
                start,
                N,
                (bindings::MEMREMAP_WB | bindings::MEMREMAP_DEC) as c_ulong,
            )
        };

        // INVARIANT: This comes from `memremap()`.
        Ok(Self {
            pointer: NonNull::new(pointer.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Returns what is there now. If somebody writes at the same time then this may be a part of the
    /// old and a part of the new.
    pub(crate) fn read(&self) -> [u8; N] {
        // SAFETY: By the type invariants the memory is mapped. Any byte is valid, and no byte needs
        // to be aligned. The read is volatile because it is not this kernel who writes.
        unsafe { self.pointer.as_ptr().read_volatile() }
    }
}

impl<const N: usize> Drop for ForeignMemory<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this comes from `memremap()`, and `self` was the only one
        // to use it.
        unsafe { bindings::memunmap(self.pointer.as_ptr().cast()) };
    }
}
