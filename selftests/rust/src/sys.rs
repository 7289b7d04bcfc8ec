// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two calls that rustix cannot make safe for a device that it does not know: `ioctl` and
//! `mmap`. All unsafe code of this package is here.

#![expect(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::ffi::c_void;
use rustix::io::{self, Errno};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// `SYSGENID_SET_WATCHER_TRACKING`: 0 is off, anything else is on.
pub const SET_WATCHER_TRACKING: Opcode = opcode::none(0xE4, 1);
/// `SYSGENID_WAIT_WATCHERS`: a timeout in milliseconds, 0 for none.
pub const WAIT_WATCHERS: Opcode = opcode::none(0xE4, 2);
/// `SYSGENID_TRIGGER_GEN_UPDATE`: the least new generation.
pub const TRIGGER_GEN_UPDATE: Opcode = opcode::none(0xE4, 3);

/// `VMGENID_GET_OFFSET`: no argument.
const GET_OFFSET: Opcode = opcode::none(0xE4, 0x10);

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

/// `VMGENID_GET_OFFSET`, whose answer is what the call returns.
struct GetOffset;

// SAFETY: The call has no argument, so the kernel reads and writes none of this program's memory.
unsafe impl Ioctl for GetOffset {
    type Output = usize;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_OFFSET
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(returned: IoctlOutput, _: *mut c_void) -> io::Result<usize> {
        usize::try_from(returned).map_err(|_| Errno::IO)
    }
}

/// Where in the page of `fd` the VM generation ID is.
///
/// # Errors
///
/// Whatever the driver answers.
pub fn id_offset(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: As for `GetOffset`.
    unsafe { ioctl(fd, GetOffset) }
}

/// A mapping of `fd`'s first page, or a part of it, that can be read.
#[derive(Debug)]
struct Mapping {
    /// # Invariants
    ///
    /// The start of a mapping of `length` bytes that is readable until this is dropped.
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: The mapping belongs to the process and not to a thread, and is only ever read, by atomic
// loads.
unsafe impl Send for Mapping {}
// SAFETY: As for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: The kernel chooses the place (a null hint without MAP_FIXED), so that no memory
        // of this program is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        // INVARIANT: Mapped just now, and unmapped by `drop` only.
        NonNull::new(start)
            .map(|start| Self { start, length })
            .ok_or(Errno::FAULT)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant, this is our mapping, and nobody can look at it any more: each
        // look borrows `self`. It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}

/// The page that holds the generation, mapped read-only.
#[derive(Debug)]
pub struct Page(Mapping);

impl Page {
    /// The size of the mapping. The kernel makes whole pages of it, whatever their size is.
    const LEN: usize = 4;

    /// Maps the first page of `fd`.
    ///
    /// # Errors
    ///
    /// Whatever `mmap` answers.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(fd, Self::LEN).map(Self)
    }

    /// The generation at this moment (an acquire load).
    pub fn generation(&self) -> u32 {
        // SAFETY: By the invariant, the mapping is there and starts with four readable bytes,
        // aligned to a page. The kernel changes them by single stores, which an atomic allows; a
        // load by an `AtomicU32` writes nothing.
        unsafe { self.0.start.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire)
    }
}

/// The page that holds the VM generation ID, mapped read-only.
#[derive(Debug)]
pub struct IdPage {
    mapping: Mapping,
    /// # Invariants
    ///
    /// A multiple of 8, and at least 16 less than the length of the mapping.
    offset: usize,
}

impl IdPage {
    /// Maps the page of `fd`, in which the ID is at `offset`.
    ///
    /// # Errors
    ///
    /// Whatever `mmap` answers, and `EIO` for an offset that cannot be.
    pub fn map(fd: BorrowedFd<'_>, offset: usize) -> io::Result<Self> {
        if offset % 8 != 0 || offset + 16 > page_size() {
            return Err(Errno::IO);
        }
        // INVARIANT: The offset was just checked.
        Ok(Self {
            mapping: Mapping::new(fd, page_size())?,
            offset,
        })
    }

    /// The ID at this moment (two acquire loads).
    pub fn id(&self) -> u128 {
        let half = |number: usize| {
            // SAFETY: By the invariants, these eight bytes are in the mapping, and aligned. They
            // change while the machine stands still only; a load writes nothing.
            let half = unsafe {
                let half = self.mapping.start.byte_add(self.offset + 8 * number);
                half.cast::<AtomicU64>().as_ref()
            };
            half.load(Ordering::Acquire).to_ne_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(0));
        bytes[8..].copy_from_slice(&half(1));
        u128::from_be_bytes(bytes)
    }
}
