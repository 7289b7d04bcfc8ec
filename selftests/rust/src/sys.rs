// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two calls that rustix cannot make safe for a device that it does not know: `ioctl` and
//! `mmap`. All unsafe code of this package is here.

#![expect(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{self, Errno};
use rustix::ioctl::{IntegerSetter, Opcode, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// `SYSGENID_SET_WATCHER_TRACKING`: 0 is off, anything else is on.
pub const SET_WATCHER_TRACKING: Opcode = opcode::none(0xE4, 1);
/// `SYSGENID_WAIT_WATCHERS`: a timeout in milliseconds, 0 for none.
pub const WAIT_WATCHERS: Opcode = opcode::none(0xE4, 2);
/// `SYSGENID_TRIGGER_GEN_UPDATE`: the least new generation.
pub const TRIGGER_GEN_UPDATE: Opcode = opcode::none(0xE4, 3);

/// Makes the ioctl `OPCODE`, whose argument is a number that is passed by value.
///
/// # Errors
///
/// Whatever the driver answers.
pub fn ioctl_by_value<const OPCODE: Opcode>(fd: BorrowedFd<'_>, arg: usize) -> io::Result<()> {
    // SAFETY: The magic 0xE4 belongs to /dev/sysgenid, all of whose ioctls take their argument by
    // value: none reads or writes this program's memory. Another driver that used the same number
    // for a pointer would be handed a small integer, and answer EFAULT.
    unsafe { ioctl(fd, IntegerSetter::<OPCODE>::new_usize(arg)) }
}

/// The page that holds the generation, mapped read-only.
#[derive(Debug)]
pub struct Page {
    /// # Invariants
    ///
    /// The start of a mapping of [`Page::LEN`] bytes that is readable until this is dropped.
    start: NonNull<AtomicU32>,
}

// SAFETY: The mapping belongs to the process and not to a thread, and is only ever read, by atomic
// loads.
unsafe impl Send for Page {}
// SAFETY: As for `Send`.
unsafe impl Sync for Page {}

impl Page {
    /// The size of the mapping. The kernel makes whole pages of it, whatever their size is.
    pub const LEN: usize = 4;

    /// Maps the first page of `fd`.
    ///
    /// # Errors
    ///
    /// Whatever `mmap` answers.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: The kernel chooses the place (a null hint without MAP_FIXED), so that no memory
        // of this program is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                Self::LEN,
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        // INVARIANT: Mapped just now, and unmapped by `drop` only.
        NonNull::new(start.cast())
            .map(|start| Self { start })
            .ok_or(Errno::FAULT)
    }

    /// The generation at this moment (an acquire load).
    pub fn generation(&self) -> u32 {
        // SAFETY: By the invariant, the mapping is there and starts with four readable bytes,
        // aligned to a page. The kernel changes them by single stores, which an atomic allows; a
        // load by an `AtomicU32` writes nothing.
        unsafe { self.start.as_ref() }.load(Ordering::Acquire)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: By the invariant, this is our mapping, and nobody can look at it any more: each
        // look borrows `self`. It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), Self::LEN) };
    }
}
