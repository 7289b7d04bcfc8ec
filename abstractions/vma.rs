// SPDX-License-Identifier: GPL-2.0

//! Areas of a program's memory that are being set up.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use kernel::{
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Makes sure that `vma` is for one page at offset 0, and that it is neither writable nor executable
/// and never becomes so.
///
/// # Errors
///
/// * [`EINVAL`] if `vma` is for more than one page, or not for offset 0.
/// * [`EPERM`] if `vma` is writable or executable.
pub(crate) fn restrict_to_reading_one_page(vma: &VmaNew) -> Result {
    // SAFETY: `vma` is being set up by the current thread, so this is no data race.
    let offset = unsafe { (*vma.as_ptr()).vm_pgoff };

    if offset != 0 || vma.end() - vma.start() != PAGE_SIZE {
        return Err(EINVAL);
    }

    vma.try_clear_maywrite().map_err(|_| EPERM)?;
    vma.try_clear_mayexec().map_err(|_| EPERM)?;
    vma.set_dontexpand();

    Ok(())
}
