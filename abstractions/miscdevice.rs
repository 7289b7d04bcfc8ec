// SPDX-License-Identifier: GPL-2.0

//! Miscdevice support.
//!
//! C headers: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h).
//!
//! Reference: <https://www.kernel.org/doc/html/latest/driver-api/misc_devices.html>
//!
//! This is [`kernel::miscdevice`] and what it lacks: the mode of the device node, data that belongs
//! to the registration, plain reads and writes, `poll`, the modes of a file that is being opened, and
//! ioctls whose argument is a number.

use crate::abstractions::{
    fs::{
        is_nonblocking,
        FileNew, //
    },
    module::this_module,
    poll,
    vma::EmptyArea,
    wait_queue::WaitQueue, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    device::Device,
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    seq_file::SeqFile,
    str::as_char_ptr_in_const_context,
    types::{
        ForeignOwnable,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Options for creating a misc device.
#[derive(Clone, Copy)]
pub(crate) struct MiscDeviceOptions {
    /// The name of the misc device, and of its node in `/dev`.
    pub(crate) name: &'static CStr,
    /// The mode of the node that devtmpfs creates.
    pub(crate) mode: u16,
}

impl MiscDeviceOptions {
    /// Creates a raw `struct miscdevice` ready for registration.
    const fn into_raw<T: MiscDevice>(self) -> bindings::miscdevice {
        let mut result: bindings::miscdevice = pin_init::zeroed();
        result.minor = bindings::MISC_DYNAMIC_MINOR as c_int;
        result.name = as_char_ptr_in_const_context(self.name);
        result.fops = MiscDeviceVTable::<T>::build();
        result.mode = self.mode;
        result
    }
}

/// A registration of a misc device.
///
/// # Invariants
///
/// `inner` is a misc device that was created by [`MiscDeviceOptions::into_raw`] for `T` and is
/// registered by `misc_register()`. It is deregistered when `self` is dropped, and not before.
#[pin_data(PinnedDrop)]
pub(crate) struct MiscDeviceRegistration<T: MiscDevice> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    data: T::RegistrationData,
}

// SAFETY: A misc device can be deregistered on a different thread from where it was registered, and
// `T::RegistrationData` is `Send`.
unsafe impl<T: MiscDevice> Send for MiscDeviceRegistration<T> {}

// SAFETY: All methods that take `&self` can be called in parallel, and `T::RegistrationData` is
// `Sync`.
unsafe impl<T: MiscDevice> Sync for MiscDeviceRegistration<T> {}

impl<T: MiscDevice> MiscDeviceRegistration<T> {
    /// Registers a misc device.
    ///
    /// The device can be opened before this function returns.
    pub(crate) fn register(
        options: MiscDeviceOptions,
        data: T::RegistrationData,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The data comes first, because `open` can be called as soon as the device is
            // registered.
            data,
            // INVARIANT: If this succeeds then the misc device is registered.
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                // SAFETY: `try_ffi_init` guarantees that `slot` is valid for writes.
                unsafe { slot.write(options.into_raw::<T>()) };

                // SAFETY: `slot` points at a misc device that is ready for registration. It is
                // pinned, and the destructor of `Self` deregisters it before its memory is reused.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }

    /// Returns the device that the driver core knows.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: By the type invariants the misc device is registered, so `misc_register()` or
        // `misc_open()` has made sure that `this_device` is a valid device. It is not destroyed
        // before `self` is dropped, and the borrow checker ensures that the reference is gone then.
        unsafe { Device::from_raw((*self.inner.get()).this_device) }
    }

    /// Returns the data that was given to [`Self::register`].
    pub(crate) fn data(&self) -> &T::RegistrationData {
        &self.data
    }
}

#[pinned_drop]
impl<T: MiscDevice> PinnedDrop for MiscDeviceRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the misc device is registered. It is deregistered only
        // here.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

/// A misc device, and what can be done with its open files.
//
// Both types are `'static`: a file stays open when the registration is gone, and a registration that
// is forgotten stays when what its data refers to is gone.
#[vtable]
pub(crate) trait MiscDevice: Sized {
    /// The private data of an open file.
    type Ptr: ForeignOwnable + Send + Sync + 'static;

    /// The data that belongs to the registration, and that [`open`](MiscDevice::open) finds there.
    type RegistrationData: Send + Sync + 'static;

    /// Called when the misc device is opened.
    ///
    /// The returned pointer is stored as the private data of the file, and is dropped when the file
    /// is released.
    fn open(file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr>;

    /// Handler for `mmap`, which is called while the kernel sets `area` up.
    fn mmap(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _file: &File,
        _area: EmptyArea<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads at a plain `read` system call, without waiting if `nonblocking` is set. Everything else
    /// (`readv`, `RWF_NOWAIT`, `io_uring`) uses [`read_iter`](MiscDevice::read_iter), which must answer
    /// alike, and takes more instructions. `kernel_read()` refuses a file that has both.
    fn read(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _nonblocking: bool,
        _to: &mut UserSliceWriter,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes at a plain `write` system call, as [`read`](MiscDevice::read) reads.
    fn write(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _from: &mut UserSliceReader,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads from this misc device.
    fn read_iter(_kiocb: Kiocb<'_, Self::Ptr>, _iov: &mut IovIterDest<'_>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes to this misc device.
    fn write_iter(_kiocb: Kiocb<'_, Self::Ptr>, _iov: &mut IovIterSource<'_>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns what is woken up when [`poll`](MiscDevice::poll) may return something else than before.
    //
    // The implementation must work for any `'a`, so the queue lives as long as the private data.
    fn poll_queue<'a>(_device: <Self::Ptr as ForeignOwnable>::Borrowed<'a>) -> &'a WaitQueue {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the events that this file is ready for now (see [`poll`](crate::abstractions::poll)).
    /// Needs [`poll_queue`](MiscDevice::poll_queue).
    fn poll(_device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handler for ioctls, whose numbers come from [`kernel::ioctl`].
    ///
    /// It also gets the ioctls of 32-bit programs on a 64-bit kernel, with `arg` as it is; so `arg`
    /// must not be used as a pointer.
    fn ioctl(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _file: &File,
        _cmd: u32,
        _arg: usize,
    ) -> Result<isize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prints what `/proc/<pid>/fdinfo/<fd>` shows of this file.
    fn show_fdinfo(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _m: &SeqFile,
        _file: &File,
    ) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A vtable for the file operations of a misc device.
struct MiscDeviceVTable<T: MiscDevice>(PhantomData<T>);

impl<T: MiscDevice> MiscDeviceVTable<T> {
    /// # Safety
    ///
    /// `raw_file` must be a valid file that is being opened, and that `misc_open()` has associated
    /// with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn open(
        _inode: *mut bindings::inode,
        raw_file: *mut bindings::file,
    ) -> c_int {
        // SAFETY: The open call of a file can access the private data.
        let misc = unsafe { (*raw_file).private_data }.cast::<bindings::miscdevice>();

        // SAFETY: This is a misc device, so `misc_open()` has set the private data to the `struct
        // miscdevice` that is the field `inner` of a `MiscDeviceRegistration<T>`; both pointers are
        // in bounds of that allocation.
        let misc = unsafe {
            kernel::container_of!(Opaque::cast_from(misc), MiscDeviceRegistration<T>, inner)
        };

        // SAFETY: `misc_open()` holds the lock that `misc_register()` and `misc_deregister()` take.
        // So the registration is complete, its data having been initialized before, and it cannot
        // go away during this call.
        let misc = unsafe { &*misc };

        // SAFETY: The file is valid for the duration of this call, and is being opened.
        let file = unsafe { FileNew::from_raw(raw_file) };

        let ptr = match T::open(file, misc) {
            Ok(ptr) => ptr,
            Err(err) => return err.to_errno(),
        };

        // This replaces the pointer to the misc device. All other file operations expect the new
        // type.
        //
        // SAFETY: The open call of a file can access the private data.
        unsafe { (*raw_file).private_data = ptr.into_foreign() };

        0
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>` and is
    /// being released.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The release call of a file owns the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: The release call of a file owns the private data, which `open` has set to the
        // result of `into_foreign`. It is the last call for the file, so nothing is borrowed.
        drop(unsafe { <T::Ptr as ForeignOwnable>::from_foreign(private) });

        0
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buffer: *mut c_char,
        len: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The read call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Read calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY: The file is valid for the duration of this call.
        let nonblocking = unsafe { is_nonblocking(file) };
        let mut to = UserSlice::new(UserPtr::from_ptr(buffer.cast()), len).writer();

        match T::read(device, nonblocking, &mut to) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buffer: *const c_char,
        len: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The write call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Write calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        let mut from = UserSlice::new(UserPtr::from_ptr(buffer.cast_mut().cast()), len).reader();

        match T::write(device, &mut from) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `kiocb` must be a valid request for a file that is associated with a
    /// `MiscDeviceRegistration<T>`. `iter` must be a valid `struct iov_iter` for writing.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The caller provides a valid `struct kiocb` associated with a
        // `MiscDeviceRegistration<T>` file.
        let kiocb = unsafe { Kiocb::from_raw(kiocb) };
        // SAFETY: This is a valid `struct iov_iter` for writing.
        let iov = unsafe { IovIterDest::from_raw(iter) };

        match T::read_iter(kiocb, iov) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `kiocb` must be a valid request for a file that is associated with a
    /// `MiscDeviceRegistration<T>`. `iter` must be a valid `struct iov_iter` for reading.
    unsafe extern "C" fn write_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The caller provides a valid `struct kiocb` associated with a
        // `MiscDeviceRegistration<T>` file.
        let kiocb = unsafe { Kiocb::from_raw(kiocb) };
        // SAFETY: This is a valid `struct iov_iter` for reading.
        let iov = unsafe { IovIterSource::from_raw(iter) };

        match T::write_iter(kiocb, iov) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`. `table`
    /// must be null or point at a valid `poll_table`.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The poll call of a file can access the private data.
        let private = unsafe { (*file).private_data };

        // SAFETY: Poll calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };

        // SAFETY: The caller provides a pointer that is null or valid for the duration of this call.
        if unsafe { poll::waits(table) } {
            // SAFETY: The caller's requirements are the same.
            unsafe { Self::poll_and_wait(file, table) }
        } else {
            T::poll(device)
        }
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`. `table`
    /// must be null or point at a valid `poll_table`.
    #[cold]
    unsafe fn poll_and_wait(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The poll call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Poll calls can borrow the private data of the file.
        let queue = T::poll_queue(unsafe { <T::Ptr as ForeignOwnable>::borrow(private) });

        // SAFETY: The file and the table are valid for the duration of this call. The queue lives
        // for as long as the private data do, which is until the file is released. Whoever polls
        // has a reference to the file, but for epoll, which takes its entries off the queue
        // before the file is released.
        unsafe { bindings::poll_wait(file, queue.as_ptr(), table) };

        // After the above: what is woken up from there on asks again.
        //
        // SAFETY: Poll calls can borrow the private data of the file.
        T::poll(unsafe { <T::Ptr as ForeignOwnable>::borrow(private) })
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`. `vma` must
    /// be a vma that is currently being mmap'ed with this file.
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: The mmap call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Mmap calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY: The caller provides a vma that is undergoing initial VMA setup. This is the only
        // place in which it is turned into an `EmptyArea`, and nothing has been mapped before.
        let area = unsafe { EmptyArea::from_raw(vma) };
        // SAFETY:
        // * The file is valid for the duration of this call.
        // * There is no active fdget_pos region on the file on this thread.
        let file = unsafe { File::from_raw_file(file) };

        match T::mmap(device, file, area) {
            Ok(()) => 0,
            Err(err) => err.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: The ioctl call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Ioctl calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY:
        // * The file is valid for the duration of this call.
        // * There is no active fdget_pos region on the file on this thread.
        let file = unsafe { File::from_raw_file(file) };

        match T::ioctl(device, file, cmd, arg) {
            Ok(ret) => ret as c_long,
            Err(err) => err.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// - `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    /// - `seq_file` must be a valid `struct seq_file` that we can write to.
    unsafe extern "C" fn show_fdinfo(seq_file: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: The show_fdinfo call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Show_fdinfo calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY:
        // * The file is valid for the duration of this call.
        // * There is no active fdget_pos region on the file on this thread.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: The caller ensures that the pointer is valid and exclusive for the duration in
        // which this method is called.
        let m = unsafe { SeqFile::from_raw(seq_file) };

        T::show_fdinfo(device, m, file);
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module(),
        open: Some(Self::open),
        release: Some(Self::release),
        mmap: if T::HAS_MMAP { Some(Self::mmap) } else { None },
        read: if T::HAS_READ { Some(Self::read) } else { None },
        write: if T::HAS_WRITE {
            Some(Self::write)
        } else {
            None
        },
        read_iter: if T::HAS_READ_ITER {
            Some(Self::read_iter)
        } else {
            None
        },
        write_iter: if T::HAS_WRITE_ITER {
            Some(Self::write_iter)
        } else {
            None
        },
        poll: if T::HAS_POLL {
            assert!(T::HAS_POLL_QUEUE);
            Some(Self::poll)
        } else {
            None
        },
        unlocked_ioctl: if T::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        // The same function, and not `compat_ptr_ioctl()`: the argument is a number, of which no
        // bit may be lost on the way.
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: if T::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        show_fdinfo: if T::HAS_SHOW_FDINFO {
            Some(Self::show_fdinfo)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::file_operations {
        &Self::VTABLE
    }
}
