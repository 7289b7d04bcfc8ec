// SPDX-License-Identifier: GPL-2.0

//! A page that the kernel writes and user space maps to read.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/file.h`](srctree/include/linux/file.h)

use crate::abstractions::{
    module::this_module,
    vma::ReadOnlyPage, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    alloc::allocator::Vmalloc,
    bindings,
    error::from_err_ptr,
    fs::File,
    mm::virt::VmaMixedMap,
    page::{
        BorrowedPage,
        PAGE_SIZE, //
    },
    prelude::*,
    types::ForeignOwnable, //
};

/// A page that begins with a `T`, which the kernel writes and user space can map to read. `T` should
/// consist of [`InPlace`](crate::abstractions::atomic::InPlace)s, which are 0 at first, and so is the rest
/// of the page.
///
/// Everybody sees the same numbers: there is no copy of them.
pub(crate) struct SharedPage<T> {
    // `Vmalloc` allocates whole pages, and zeroes all of each if it is asked to; so there is nothing
    // else in the page that this occupies, which user space can read all of.
    contents: VBox<T>,
}

impl<T> Deref for SharedPage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.contents
    }
}

impl<T: Zeroable + Send + Sync + 'static> SharedPage<T> {
    /// Allocates a page, with all numbers 0.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    pub(crate) fn new() -> Result<Self> {
        const { assert!(size_of::<T>() <= PAGE_SIZE) };

        Ok(Self {
            contents: VBox::zeroed(GFP_KERNEL)?,
        })
    }

    /// Returns the page as the memory management knows it.
    fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: The pointer points at an allocation of `Vmalloc`, which lives for as long as
        // `self` is borrowed.
        unsafe { Vmalloc::to_page(NonNull::from(&*self.contents).cast()) }
    }

    /// Maps the page of `held` into `area`, which was made by the mmap call of `file`, a device's.
    ///
    /// The mapping does not keep `file` open: it gets a file of its own, of the same device, that
    /// nobody can read or write. That holds `held`, and a reference to this module, until the mapping
    /// is gone. `/proc/<pid>/maps` shows `name`; what `/proc/<pid>/map_files` leads
    /// to is the device's node, which can be opened.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] or [`ENFILE`] if there can be no file for the mapping.
    pub(crate) fn map<H: AsRef<Self> + Send + Sync + 'static>(
        area: ReadOnlyPage<'_>,
        file: &File,
        name: &CStr,
        held: H,
    ) -> Result {
        let mapping = KBox::new(
            Mapping {
                held,
                _page: PhantomData,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let file = Mapping::into_file(mapping, file, name)?;

        let vma = area.vma();

        // The fault handler inserts the page.
        vma.set_mixedmap();

        // SAFETY: Both pointers are valid, and a vma that is being set up by the mmap call of a file
        // is no anonymous one. This gives up the reference that the vma has to the file of the mmap
        // call, on which the caller of this function has another one, and takes a reference to the
        // new file. `mmap_region()` goes on with the new file.
        unsafe { bindings::vma_set_file(vma.as_ptr(), file) };

        // SAFETY: We own the reference that `into_file()` has returned, and the vma has its own by
        // now.
        unsafe { bindings::fput(file) };

        // SAFETY: The area is being set up by the current thread, so this is no data race. The fault
        // handler requires that the file is one that `into_file()` has made, as is the case now.
        unsafe { (*vma.as_ptr()).vm_ops = &Mapping::<T, H>::VM_OPERATIONS };

        Ok(())
    }
}

/// What a mapping keeps alive, and whose page it is of.
struct Mapping<T, H> {
    held: H,
    _page: PhantomData<fn() -> T>,
}

impl<T, H> Mapping<T, H>
where
    T: Zeroable + Send + Sync + 'static,
    H: AsRef<SharedPage<T>> + Send + Sync + 'static,
{
    /// Returns a new file of the device that `of` is a file of, whose private data is `self`, and whose
    /// reference count belongs to the caller.
    ///
    /// It is not opened, so the device does not come to know of it, and there is no need of the locks
    /// that opening takes: a mmap call holds the lock of the process's memory.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if `of` is no file of a character device, [`ENOMEM`] or [`ENFILE`] if there can be
    /// no file.
    fn into_file(self: KBox<Self>, of: &File, name: &CStr) -> Result<*mut bindings::file> {
        let of = of.as_ptr();
        // SAFETY: The file is open, so it has an inode, and its inode and its path do not change.
        let (inode, mount) = unsafe { ((*of).f_inode, (*of).__bindgen_anon_1.f_path.mnt) };

        // SAFETY: The inode is valid, and its type does not change.
        if u32::from(unsafe { (*inode).i_mode }) & bindings::S_IFMT != bindings::S_IFCHR {
            return Err(ENODEV);
        }

        // SAFETY: As this is the inode of a character device that is open, this variant of the union
        // is valid, and set until the file is released.
        let device = unsafe { (*inode).__bindgen_anon_5.i_cdev };

        if device.is_null() {
            return Err(ENODEV);
        }

        // What `__fput()` gives up besides for a character device, and opening it would have taken:
        // a reference to this module, as the owner of the operations, and both references that
        // `cdev_get()` takes, which is not exported.
        //
        // SAFETY: The module is alive, because its code runs. The device is, because it is open, and
        // so is its owner.
        let referenced = unsafe {
            bindings::try_module_get(this_module()) && {
                let owned = bindings::try_module_get((*device).owner);

                if !owned {
                    bindings::module_put(this_module());
                }
                owned
            }
        };

        if !referenced {
            return Err(ENODEV);
        }

        // SAFETY: The device is alive, as said above.
        unsafe { bindings::kobject_get(&raw mut (*device).kobj) };
        // SAFETY: The inode is alive, because the file is open.
        unsafe { bindings::ihold(inode) };

        let private = self.into_foreign();

        // SAFETY: The inode, the mount and the name are valid; the name is copied. The reference to
        // the inode goes to the file. The file operations are static, and expect just the private
        // data that is set below, before anybody has the file.
        let file = from_err_ptr(unsafe {
            bindings::alloc_file_pseudo(
                inode,
                mount,
                name.as_char_ptr(),
                bindings::O_RDONLY as c_int,
                &Self::FILE_OPERATIONS,
            )
        });

        match file {
            Ok(file) => {
                // SAFETY: Nobody else has the file yet.
                unsafe { (*file).private_data = private };

                Ok(file)
            }
            Err(err) => {
                // SAFETY: All of these were taken above, and there is no file to have got them. The
                // device stays, because it is open.
                unsafe {
                    bindings::iput(inode);
                    bindings::kobject_put(&raw mut (*device).kobj);
                    bindings::module_put((*device).owner);
                    bindings::module_put(this_module());
                }

                // SAFETY: `private` comes from `into_foreign` above, and as there is no file nobody
                // else has it.
                drop(unsafe { <KBox<Self> as ForeignOwnable>::from_foreign(private) });

                Err(err)
            }
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that [`Self::into_file`] has made and that is being released.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The release call of a file owns the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: `into_file()` has set the private data to the result of `into_foreign`. This is the
        // last call for the file, so nothing is borrowed.
        drop(unsafe { <KBox<Self> as ForeignOwnable>::from_foreign(private) });

        0
    }

    /// Inserts the page: at the first access, and again when the process has given it up with
    /// `MADV_DONTNEED`.
    ///
    /// # Safety
    ///
    /// `vmf` must describe a fault in a vma that [`SharedPage::map`] has set up.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller provides a valid fault, so the fields can be read.
        let bindings::vm_fault__bindgen_ty_1 { vma, address, .. } =
            unsafe { (*vmf).__bindgen_anon_1 };
        // SAFETY: The fault handler runs with the mmap lock or the vma lock held, so the vma is
        // valid and holds a reference to its file, which `map()` has taken from `into_file()`.
        let private = unsafe { (*(*vma).vm_file).private_data };
        // SAFETY: `into_file()` has set the private data to the result of `into_foreign`, and the
        // file is not released as long as the vma has a reference to it.
        let this = unsafe { <KBox<Self> as ForeignOwnable>::borrow(private) };
        // SAFETY: The vma is valid, and locked for reading, for the duration of this call. `map()`
        // has set `VM_MIXEDMAP`, which cannot be cleared.
        let vma = unsafe { VmaMixedMap::from_raw(vma) };

        let reason = match vma.vm_insert_page(address, &this.held.as_ref().page()) {
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
