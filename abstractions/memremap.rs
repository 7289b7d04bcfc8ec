// SPDX-License-Identifier: GPL-2.0

//! Memory that is not the kernel's own.
//!
//! C headers: [`include/linux/io.h`](srctree/include/linux/io.h),
//! [`include/linux/ioport.h`](srctree/include/linux/ioport.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::abstractions::{
    error::eaddrnotavail,
    vma::ReadOnlyPage, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::to_result,
    io::PhysAddr,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

#[cfg(all(CONFIG_X86, CONFIG_ARCH_HAS_CC_PLATFORM))]
extern "C" {
    /// `cc_mkdec()` of `arch/x86/include/asm/coco.h`, which the kernel exports to GPL modules, but
    /// which is not among the headers that the bindings are made from.
    fn cc_mkdec(value: u64) -> u64;
}

/// Returns whether the `size` bytes at `start` are in resources of just that kind, or in none of that
/// kind if `wanted` says so.
fn intersects(start: PhysAddr, size: usize, flags: u32, description: u32, wanted: u32) -> bool {
    // SAFETY: This only looks at the tree of resources, with its lock held. It takes numbers of any
    // value.
    let found = unsafe {
        bindings::region_intersects(start, size, flags as c_ulong, description as c_ulong)
    };

    found == wanted as c_int
}

/// Returns whether none of the `size` bytes at `start` is system RAM.
fn is_no_system_ram(start: PhysAddr, size: usize) -> bool {
    intersects(
        start,
        size,
        bindings::IORESOURCE_SYSTEM_RAM,
        bindings::IORES_DESC_NONE,
        bindings::REGION_DISJOINT,
    )
}

/// Returns whether all that is known of the `size` bytes at `start` is that the firmware has reserved
/// them: they are not for the kernel to use, nor a window to devices.
///
/// Only the memory map of x86 tells that apart. Elsewhere this returns whether the bytes are no
/// system RAM.
pub(crate) fn is_reserved(start: PhysAddr, size: usize) -> bool {
    if cfg!(CONFIG_X86) {
        [
            bindings::IORES_DESC_RESERVED,
            bindings::IORES_DESC_ACPI_NV_STORAGE,
        ]
        .into_iter()
        .any(|description| {
            intersects(
                start,
                size,
                bindings::IORESOURCE_MEM,
                description,
                bindings::REGION_INTERSECTS,
            )
        })
    } else {
        is_no_system_ram(start, size)
    }
}

/// How many bytes are read at a time.
const WORD: usize = size_of::<u64>();

/// A mapping of `N` bytes of memory that somebody else writes.
///
/// # Invariants
///
/// `pointer` is what `memremap()` has returned for the `N` bytes at `start`, which is aligned to a
/// word, and is unmapped only when this is dropped.
pub(crate) struct ForeignMemory<const N: usize> {
    pointer: NonNull<u8>,
    start: PhysAddr,
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
    /// * [`EINVAL`] if `start` is not aligned to 8 bytes.
    /// * [`EADDRNOTAVAIL`](eaddrnotavail) if the bytes are not [reserved](is_reserved).
    /// * [`ENOMEM`] if they cannot be mapped.
    pub(crate) fn map(start: PhysAddr) -> Result<Self> {
        if start % WORD as PhysAddr != 0 {
            return Err(EINVAL);
        }

        if !is_reserved(start, N) {
            return Err(eaddrnotavail());
        }

        // SAFETY: The memory is reserved, so nothing in the kernel relies on how it is mapped.
        let pointer = unsafe {
            bindings::memremap(
                start,
                N,
                (bindings::MEMREMAP_WB | bindings::MEMREMAP_DEC) as c_ulong,
            )
        };

        // INVARIANT: This comes from `memremap()`, which keeps the offset within the page.
        Ok(Self {
            pointer: NonNull::new(pointer.cast()).ok_or(ENOMEM)?,
            start,
        })
    }

    /// Returns where the memory is.
    pub(crate) fn start(&self) -> PhysAddr {
        self.start
    }

    /// Returns the byte at `index`, if there is one.
    fn byte(&self, index: usize) -> Option<u8> {
        // SAFETY: By the type invariants the memory is mapped, and the index is in bounds of it. Any
        // byte is valid. The read is volatile because it is not this kernel who writes.
        (index < N).then(|| unsafe { self.pointer.add(index).read_volatile() })
    }

    /// Returns what is there now. If somebody writes at the same time then this may be a part of the
    /// old and a part of the new.
    #[inline]
    pub(crate) fn read(&self) -> [u8; N] {
        const { assert!(N % WORD == 0) };

        let mut bytes = [0; N];

        for (index, word) in bytes.chunks_exact_mut(WORD).enumerate() {
            // SAFETY: By the type invariants the memory is mapped, and aligned as a word is; as it
            // consists of words, the index is in bounds of it. Any bits are valid. The read is
            // volatile because it is not this kernel who writes.
            let value = unsafe { self.pointer.cast::<u64>().add(index).read_volatile() };

            word.copy_from_slice(&value.to_ne_bytes());
        }

        bytes
    }
}

impl<const N: usize> Drop for ForeignMemory<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this comes from `memremap()`, and `self` was the only one
        // to use it.
        unsafe { bindings::memunmap(self.pointer.as_ptr().cast()) };
    }
}

/// Why user space is not to see a page.
pub(crate) enum Refusal {
    /// Not all of it is [reserved](is_reserved).
    NotReserved,
    /// There is something else in it.
    NotEmpty,
    /// It cannot be looked at.
    Mapping(Error),
}

/// A page that somebody else writes, and that user space can map to read.
///
/// # Invariants
///
/// `frame` is the number of a page that is [reserved](is_reserved).
pub(crate) struct ForeignPage {
    frame: c_ulong,
}

impl ForeignPage {
    /// Returns the page that begins at `start`. What user space is to see of it is at `shown`; the rest
    /// must be zero: it is not for everybody to see what else somebody keeps there.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// Why user space is not to see it.
    pub(crate) fn new(start: PhysAddr, shown: Range<usize>) -> Result<Self, Refusal> {
        if !is_reserved(start, PAGE_SIZE) {
            return Err(Refusal::NotReserved);
        }

        let memory = ForeignMemory::<PAGE_SIZE>::map(start).map_err(Refusal::Mapping)?;

        if (0..PAGE_SIZE).any(|at| !shown.contains(&at) && memory.byte(at) != Some(0)) {
            return Err(Refusal::NotEmpty);
        }

        // INVARIANT: This was just found out.
        Ok(Self {
            frame: (start >> PAGE_SHIFT) as c_ulong,
        })
    }

    /// Maps this page into `area`, cached.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short, [`EINVAL`] if it is so where the kernel keeps how pages are
    /// cached, or if somebody has mapped the page in another way than cached.
    pub(crate) fn map(&self, area: ReadOnlyPage<'_>) -> Result {
        let vma = area.vma();

        // SAFETY: The area is being set up by the current thread, so this is no data race.
        let protection = shared_with_hypervisor(unsafe { (*vma.as_ptr()).vm_page_prot });

        // SAFETY: The area is being set up by the current thread, is as large as one page, and has
        // nothing mapped into it. It cannot be written, so it is no mapping that is copied on write.
        // By the type invariants there is nothing of the kernel, nor of any program, in the page
        // that it gets.
        to_result(unsafe {
            bindings::remap_pfn_range(vma.as_ptr(), vma.start(), self.frame, PAGE_SIZE, protection)
        })
    }
}

/// Where the memory of this machine is encrypted: turns the protection of a mapping into one for
/// memory that the hypervisor writes, as `pgprot_decrypted()` does.
#[cfg(all(CONFIG_X86, CONFIG_ARCH_HAS_CC_PLATFORM))]
fn shared_with_hypervisor(protection: bindings::pgprot_t) -> bindings::pgprot_t {
    // SAFETY: This computes a number from a number.
    let decrypted = unsafe { cc_mkdec(protection.pgprot as u64) };

    bindings::pgprot_t {
        // CAST: All 64 bits, of a `c_ulong` of as many.
        pgprot: decrypted as bindings::pgprotval_t,
    }
}

/// The memory of this machine is not encrypted.
#[cfg(not(all(CONFIG_X86, CONFIG_ARCH_HAS_CC_PLATFORM)))]
fn shared_with_hypervisor(protection: bindings::pgprot_t) -> bindings::pgprot_t {
    protection
}
