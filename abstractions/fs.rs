// SPDX-License-Identifier: GPL-2.0

//! Files that are being opened, and the flags of an I/O request.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::ops::Deref;
use kernel::{
    bindings,
    fs::{
        file::flags::O_NONBLOCK,
        File,
        Kiocb, //
    },
    prelude::*,
    types::{
        ForeignOwnable,
        NotThreadSafe, //
    }, //
};

/// `FMODE_WRITE` of `include/linux/fs.h`, for which `bindgen` gives no constant because the macro
/// contains a cast.
const FMODE_WRITE: bindings::fmode_t = 1 << 1;

/// `FMODE_NOWAIT` of `include/linux/fs.h`, for which `bindgen` gives no constant because the macro
/// contains a cast.
const FMODE_NOWAIT: bindings::fmode_t = 1 << 27;

/// `IOCB_NOWAIT` of `include/linux/fs.h`, which is `RWF_NOWAIT` of `include/uapi/linux/fs.h`, and
/// for which `bindgen` gives no constant because the macro contains a cast.
const IOCB_NOWAIT: c_int = 0x0000_0008;

/// A file that is being opened.
///
/// It is a [`File`] whose modes can still be changed.
///
/// # Invariants
///
/// The file is in its `open` file operation, so nobody but the current thread has access to it.
#[repr(transparent)]
pub(crate) struct FileNew {
    file: File,
    _not_thread_safe: NotThreadSafe,
}

impl FileNew {
    /// Creates a reference to a [`FileNew`] from a valid pointer.
    ///
    /// # Safety
    ///
    /// For the duration of `'a`, `ptr` must point at a valid file that is in its `open` file
    /// operation on the current thread.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::file) -> &'a Self {
        // CAST: `FileNew` and `File` are transparent wrappers of `struct file`.
        // SAFETY: The caller guarantees that the pointer is valid for the duration of `'a`. As the
        // file is not open yet, no file descriptor refers to it; hence it has no `fdget_pos` calls.
        // INVARIANT: The caller guarantees that the file is in its `open` file operation.
        unsafe { &*ptr.cast() }
    }

    /// Makes this file a stream: it has no position, so that `lseek`, `pread` and `pwrite` fail
    /// with `ESPIPE`.
    pub(crate) fn set_stream(&self) {
        // SAFETY: By the type invariants the file is being opened by the current thread, which is
        // what `stream_open()` is for. It does nothing with the inode, and returns zero always.
        unsafe { bindings::stream_open((*self.as_ptr()).f_inode, self.as_ptr()) };
    }

    /// Declares that reads and writes of this file do not sleep if [`KiocbExt::nonblocking`] is
    /// set.
    ///
    /// Otherwise requests with `RWF_NOWAIT` are refused, and `io_uring` hands requests that may
    /// have to wait to a thread.
    pub(crate) fn set_nowait(&self) {
        // SAFETY: By the type invariants only the current thread has access to the file, so this
        // is no data race.
        unsafe { (*self.as_ptr()).f_mode |= FMODE_NOWAIT };
    }
}

// Make all `File` methods available on `FileNew`.
impl Deref for FileNew {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// What [`File`] does not provide.
pub(crate) trait FileExt {
    /// Returns whether this file is open, or is being opened, for writing, whatever else for.
    fn is_for_writing(&self) -> bool;
}

impl FileExt for File {
    fn is_for_writing(&self) -> bool {
        // SAFETY: The file is valid. What it is open for does not change.
        unsafe { (*self.as_ptr()).f_mode & FMODE_WRITE != 0 }
    }
}

/// What [`Kiocb`] does not provide.
pub(crate) trait KiocbExt {
    /// Returns whether this request has to fail with [`EAGAIN`] where it would have to wait:
    /// because the file is `O_NONBLOCK`, or because the request itself asks for it, as it does with
    /// `RWF_NOWAIT` and at the first attempt of `io_uring`.
    fn nonblocking(&self) -> bool;
}

/// Returns whether a file is `O_NONBLOCK` now.
///
/// # Safety
///
/// `file` must be a valid file.
#[inline]
pub(crate) unsafe fn is_nonblocking(file: *const bindings::file) -> bool {
    // `fcntl()` can change the flags of the file at any time, so this corresponds to `READ_ONCE()`,
    // as in `kernel::fs::file::LocalFile::flags`.
    //
    // SAFETY: The caller provides a valid file.
    let flags = unsafe { (&raw const (*file).f_flags).read_volatile() };

    flags & O_NONBLOCK != 0
}

impl<T: ForeignOwnable> KiocbExt for Kiocb<'_, T> {
    fn nonblocking(&self) -> bool {
        // SAFETY: By the type invariants of `Kiocb` the pointer is valid. Nobody changes the flags of
        // a request while the driver works on it.
        let request_flags = unsafe { (*self.as_raw()).ki_flags };
        // SAFETY: By the type invariants of `Kiocb` the pointer is valid. Nobody changes the file of
        // a request.
        let file = unsafe { (*self.as_raw()).ki_filp };

        // SAFETY: The request holds a reference to the file, which keeps it alive.
        request_flags & IOCB_NOWAIT != 0 || unsafe { is_nonblocking(file) }
    }
}
