// SPDX-License-Identifier: GPL-2.0

//! Areas of a program's memory that are being set up.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use kernel::{
    bindings,
    mm::virt::{
        flags,
        VmaNew, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// An area that is being set up by the mmap call of a file, and has nothing mapped into it yet.
///
/// # Invariants
///
/// There is one value of this type for each such call at most, and nothing has been mapped into the
/// area.
pub(crate) struct EmptyArea<'a>(&'a VmaNew);

impl<'a> EmptyArea<'a> {
    /// # Safety
    ///
    /// For the duration of `'a`, `vma` must point at an area that is being set up by the mmap call of
    /// a file on the current thread, and nothing may have been mapped into it. This must not be
    /// called twice for the same call.
    pub(crate) unsafe fn from_raw(vma: *mut bindings::vm_area_struct) -> Self {
        // INVARIANT: The caller guarantees this.
        //
        // SAFETY: The caller guarantees that the area is being set up.
        Self(unsafe { VmaNew::from_raw(vma) })
    }

    /// Returns at which offset of the file, in pages, the area is to begin.
    pub(crate) fn page_offset(&self) -> usize {
        // SAFETY: The area is being set up by the current thread, so this is no data race.
        unsafe { (*self.0.as_ptr()).vm_pgoff }
    }

    /// Makes sure that the area is for one page, and that it is neither writable nor executable and
    /// never becomes so. An area that was to be executable is made, and is not.
    ///
    /// # Errors
    ///
    /// * [`EINVAL`] if it is for more than one page.
    /// * [`EPERM`] if it is writable.
    pub(crate) fn restrict_to_reading_one_page(self) -> Result<ReadOnlyPage<'a>> {
        let vma = self.0;

        if vma.end() - vma.start() != PAGE_SIZE {
            return Err(EINVAL);
        }

        vma.try_clear_maywrite().map_err(|_| EPERM)?;
        vma.set_dontexpand();

        let unexecutable = vma.flags() & !(flags::EXEC | flags::MAYEXEC);

        // SAFETY: The area is being set up by the current thread, so this is no data race. It is
        // fine to clear these flags together.
        unsafe { (*vma.as_ptr()).__bindgen_anon_2.vm_flags = unexecutable };

        // SAFETY: As before. The protection is the one that belongs to the flags.
        unsafe { (*vma.as_ptr()).vm_page_prot = bindings::vm_get_page_prot(unexecutable) };

        // INVARIANT: This was just found out, and done; nothing is mapped into the area by the
        // invariants of `Self`.
        Ok(ReadOnlyPage(vma))
    }
}

/// An [`EmptyArea`] for one page.
///
/// # Invariants
///
/// The area has the size of a page. It is neither writable nor executable, and cannot become so, nor
/// larger. Nothing has been mapped into it, and there is one such value for it.
pub(crate) struct ReadOnlyPage<'a>(&'a VmaNew);

impl ReadOnlyPage<'_> {
    /// Returns the area, for those who map something into it. Others could do so, too, if they had it.
    pub(super) fn vma(&self) -> &VmaNew {
        self.0
    }
}
