// SPDX-License-Identifier: GPL-2.0

//! A page that the kernel writes and user space maps to read.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h)

use crate::abstractions::{
    module::this_module,
    vma::restrict_to_reading_one_page, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::allocator::Vmalloc,
    bindings,
    error::from_err_ptr,
    mm::virt::{
        VmaMixedMap,
        VmaNew, //
    },
    page::{
        BorrowedPage,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    },
    types::ForeignOwnable, //
};

// `allow` and not `expect`, because it depends on the kernel's configuration whether structures that
// these ones contain are empty (`struct lock_class_key` is so without lockdep).
#[allow(improper_ctypes)]
extern "C" {
    /// `anon_inode_getfile()` of `include/linux/anon_inodes.h`, which the kernel exports to GPL
    /// modules, but which is not among the headers that the bindings are made from.
    fn anon_inode_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
    ) -> *mut bindings::file;
}

/// What a [`SharedPage`] contains.
///
/// # Invariants
///
/// `rest` is zero. Nothing else that the kernel keeps is in the page, because user space can read
/// all of it.
#[repr(C)]
struct Contents {
    word: Atomic<u32>,
    rest: [u8; PAGE_SIZE - size_of::<Atomic<u32>>()],
}

static_assert!(size_of::<Contents>() == PAGE_SIZE);

// SAFETY: All fields can be zero: an `Atomic<u32>` has the same bit validity as a `u32`.
unsafe impl Zeroable for Contents {}

/// A page whose first four bytes are a number, which the kernel writes and user space can map to
/// read. The rest of the page is zero.
///
/// Everybody sees the same number: there is no copy of it.
pub(crate) struct SharedPage {
    // The allocation has the size of a page, and `Vmalloc` allocates whole pages; so there is
    // nothing else in the page that it occupies.
    contents: VBox<Contents>,
}

impl SharedPage {
    /// Allocates a page, with the number 0 in it.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // INVARIANT: The page is zeroed.
        let contents = VBox::zeroed(GFP_KERNEL)?;

        Ok(Arc::new(Self { contents }, GFP_KERNEL)?)
    }

    /// Returns the number.
    pub(crate) fn word(&self) -> &Atomic<u32> {
        &self.contents.word
    }

    /// Returns the page as the memory management knows it.
    fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: The pointer points at an allocation of `Vmalloc`, which lives for as long as
        // `self` is borrowed.
        unsafe { Vmalloc::to_page(NonNull::from(&*self.contents).cast()) }
    }

    /// Maps this page into `vma`, which must have been made for one page at offset 0, and must not
    /// be writable or executable. It cannot become so later.
    ///
    /// The mapping does not keep the file open through which it was made: it gets a file of its
    /// own, which holds a reference to the page and to this module. `/proc/<pid>/maps` shows `name`.
    ///
    /// # Errors
    ///
    /// * Those of [`restrict_to_reading_one_page`].
    /// * [`ENOMEM`] or [`ENFILE`] if there can be no file for the mapping.
    pub(crate) fn map(self: &Arc<Self>, vma: &VmaNew, name: &CStr) -> Result {
        restrict_to_reading_one_page(vma)?;
        // The fault handler inserts the page.
        vma.set_mixedmap();

        let file = self.new_file(name)?;

        // SAFETY: Both pointers are valid, and a vma that is being set up by the mmap call of a file
        // is no anonymous one. This gives up the reference that `vma` has to the file of the mmap
        // call, on which the caller of this function has another one, and takes a reference to the
        // new file. `mmap_region()` goes on with the new file.
        unsafe { bindings::vma_set_file(vma.as_ptr(), file) };

        // SAFETY: We own the reference that `new_file()` has returned, and `vma` has its own by now.
        unsafe { bindings::fput(file) };

        // SAFETY: `vma` is being set up by the current thread, so this is no data race. The fault
        // handler requires that the file is one that `new_file()` has made, as is the case now.
        unsafe { (*vma.as_ptr()).vm_ops = &Self::VM_OPERATIONS };

        Ok(())
    }

    /// Returns a new file which holds a reference to the page, and whose reference count belongs to
    /// the caller.
    fn new_file(self: &Arc<Self>, name: &CStr) -> Result<*mut bindings::file> {
        let private = self.clone().into_foreign();

        // SAFETY: `name` is a C string, which is copied. The file operations are static, and
        // expect just this private data. They name this module as their owner, so the file keeps
        // them, and the code they point at, alive.
        let file = unsafe {
            anon_inode_getfile(
                name.as_char_ptr(),
                &Self::FILE_OPERATIONS,
                private,
                bindings::O_RDONLY as c_int,
            )
        };

        from_err_ptr(file).inspect_err(|_| {
            // SAFETY: `private` comes from `into_foreign` above, and as there is no file nobody else
            // has it.
            drop(unsafe { <Arc<Self> as ForeignOwnable>::from_foreign(private) })
        })
    }

    /// # Safety
    ///
    /// `file` must be a file that [`Self::new_file`] has made and that is being released.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The release call of a file owns the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: `new_file()` has set the private data to the result of `into_foreign`. This is the
        // last call for the file, so nothing is borrowed.
        drop(unsafe { <Arc<Self> as ForeignOwnable>::from_foreign(private) });

        0
    }

    /// Inserts the page: at the first access, and again when the process has given it up with
    /// `MADV_DONTNEED`.
    ///
    /// # Safety
    ///
    /// `vmf` must describe a fault in a vma that [`Self::map`] has set up.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller provides a valid fault, so the fields can be read.
        let bindings::vm_fault__bindgen_ty_1 { vma, address, .. } =
            unsafe { (*vmf).__bindgen_anon_1 };
        // SAFETY: The fault handler runs with the mmap lock or the vma lock held, so the vma is
        // valid and holds a reference to its file, which `map()` has taken from `new_file()`.
        let private = unsafe { (*(*vma).vm_file).private_data };
        // SAFETY: `new_file()` has set the private data to the result of `into_foreign`, and the
        // file is not released as long as the vma has a reference to it.
        let this = unsafe { <Arc<Self> as ForeignOwnable>::borrow(private) };
        // SAFETY: The vma is valid, and locked for reading, for the duration of this call. `map()`
        // has set `VM_MIXEDMAP`, which cannot be cleared.
        let vma = unsafe { VmaMixedMap::from_raw(vma) };

        let reason = match vma.vm_insert_page(address, &this.page()) {
            Ok(()) => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
            // Another thread of the process was faster.
            Err(err) if err == EBUSY => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
            Err(err) if err == ENOMEM => bindings::vm_fault_reason_VM_FAULT_OOM,
            Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        };

        reason as bindings::vm_fault_t
    }

    const FILE_OPERATIONS: bindings::file_operations = bindings::file_operations {
        owner: this_module(),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    const VM_OPERATIONS: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        ..pin_init::zeroed()
    };
}
