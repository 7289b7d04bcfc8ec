// SPDX-License-Identifier: GPL-2.0

//! The kernel's random number generator.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use super::credentials::with_kernel_credentials;
use kernel::{
    bindings,
    error::to_result,
    ioctl::_IO,
    prelude::*, //
};

/// Mixes `data`, which is likely to differ between machines that are otherwise alike, into the random
/// number generator. It counts for nothing, and takes effect with the next reseed.
pub(crate) fn add_device_randomness(data: &[u8]) {
    // SAFETY: The pointer is valid for reads of that many bytes, which are copied.
    unsafe { bindings::add_device_randomness(data.as_ptr().cast(), data.len()) };
}

/// `RNDRESEEDCRNG` of `include/uapi/linux/random.h`.
const RESEED: c_uint = _IO(b'R' as u32, 0x07);

/// What makes the random number generator reseed at once.
///
/// `drivers/char/random.c` exports no function for that, or only one that calls everybody who waits
/// for a fork of the virtual machine besides. So this calls the ioctl that it has for it. In the kernel
/// tree this is to be a function of that file.
//
// A module goes through an open file of /dev/urandom.
#[cfg(MODULE)]
pub(crate) struct Reseeder(core::ptr::NonNull<bindings::file>);

#[cfg(MODULE)]
// SAFETY: A reference to a file can be given up on any thread.
unsafe impl Send for Reseeder {}

#[cfg(MODULE)]
// SAFETY: All that is done with the file is an ioctl, and ioctls can run on several threads at once.
unsafe impl Sync for Reseeder {}

#[cfg(MODULE)]
impl Reseeder {
    /// Opens `/dev/urandom`, as the current task sees it.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if that is something else than the random number generator, and otherwise what
    /// opening it fails with.
    pub(crate) fn new() -> Result<Self> {
        let name = c"/dev/urandom".as_char_ptr();
        // SAFETY: The name is a string.
        let file = unsafe { bindings::filp_open(name, bindings::O_RDONLY as c_int, 0) };
        let file = kernel::error::from_err_ptr(file)?;
        let this = Self(core::ptr::NonNull::new(file).ok_or(ENODEV)?);

        // SAFETY: The file is open, so it has an inode, whose type and number do not change.
        let (mode, device) = unsafe { ((*(*file).f_inode).i_mode, (*(*file).f_inode).i_rdev) };

        // `MKDEV(MEM_MAJOR, 9)`.
        if u32::from(mode) & bindings::S_IFMT == bindings::S_IFCHR && device == (1 << 20 | 9) {
            Ok(this)
        } else {
            Err(ENODEV)
        }
    }

    fn file(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }

    fn operations(&self) -> *const bindings::file_operations {
        // SAFETY: The file is open, so it has operations, which do not change.
        unsafe { (*self.file()).f_op }
    }
}

#[cfg(MODULE)]
impl Drop for Reseeder {
    fn drop(&mut self) {
        // SAFETY: The reference comes from `filp_open()`, and is given up only here.
        unsafe { bindings::fput(self.file()) };
    }
}

/// What makes the random number generator reseed at once.
//
// Code that is built in is initialized before there is any file, and has no need of one.
#[cfg(not(MODULE))]
pub(crate) struct Reseeder;

#[cfg(not(MODULE))]
impl Reseeder {
    /// Does nothing.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self)
    }

    fn file(&self) -> *mut bindings::file {
        core::ptr::null_mut()
    }

    fn operations(&self) -> *const bindings::file_operations {
        // `allow` and not `expect`, because it depends on the kernel's configuration whether
        // structures that this one contains are empty.
        #[allow(improper_ctypes)]
        extern "C" {
            /// The operations of /dev/urandom, of `drivers/char/random.c`.
            static urandom_fops: bindings::file_operations;
        }

        &raw const urandom_fops
    }
}

impl Reseeder {
    /// Makes the random number generator reseed, with all that was mixed in before, whoever the current
    /// task is. Does not sleep.
    ///
    /// # Errors
    ///
    /// `ENODATA` if the random number generator is not initialized yet.
    pub(crate) fn reseed(&self) -> Result {
        // SAFETY: The operations are valid for as long as `self` is.
        let ioctl = unsafe { (*self.operations()).unlocked_ioctl }.ok_or(ENODEV)?;

        // It is for the privileged.
        with_kernel_credentials(|| {
            // SAFETY: The file is one of these operations, or there is none: this ioctl does not look
            // at it (`random_ioctl()`). It has no argument.
            to_result(unsafe { ioctl(self.file(), RESEED, 0) } as c_int)
        })
    }
}
