// SPDX-License-Identifier: MIT OR Apache-2.0

//! What rustix and tokio cannot make safe for a device that they do not know: `mmap`, `ioctl`, and to
//! register a descriptor. All unsafe code of this crate is here.

#![expect(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::ffi::c_void;
use rustix::io;
use rustix::io::Errno;
use rustix::ioctl::IntegerSetter;
use rustix::ioctl::Ioctl;
use rustix::ioctl::IoctlOutput;
use rustix::ioctl::Opcode;
use rustix::ioctl::ioctl;
use rustix::ioctl::opcode;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use rustix::mm::mmap;
use rustix::mm::munmap;
use rustix::param::page_size;

use crate::VmId;

/// `SYSGENID_IOCTL_MAGIC`
const MAGIC: u8 = 0xE4;
/// `SYSGENID_SET_WATCHER_TRACKING`
const SET_WATCHER_TRACKING: Opcode = opcode::none(MAGIC, 1);
/// `SYSGENID_WAIT_WATCHERS`
const WAIT_WATCHERS: Opcode = opcode::none(MAGIC, 2);
/// `SYSGENID_TRIGGER_GEN_UPDATE`
const TRIGGER_GEN_UPDATE: Opcode = opcode::none(MAGIC, 3);
/// `VMGENID_GET_OFFSET`
const GET_OFFSET: Opcode = opcode::none(MAGIC, 0x10);

/// Makes an ioctl whose argument is a number.
fn by_value<const OPCODE: Opcode>(fd: BorrowedFd<'_>, argument: usize) -> io::Result<()> {
    // SAFETY: These ioctls take their argument by value: the driver reads and writes none of this
    // program's memory. Another driver that used the same number for a pointer would be handed a
    // small integer, and answer EFAULT.
    unsafe { ioctl(fd, IntegerSetter::<OPCODE>::new_usize(argument)) }
}

pub(crate) fn set_tracked(fd: BorrowedFd<'_>, tracked: bool) -> io::Result<()> {
    by_value::<SET_WATCHER_TRACKING>(fd, usize::from(tracked))
}

/// Waits for at most so many milliseconds, where 0 is no limit.
pub(crate) fn wait_watchers(fd: BorrowedFd<'_>, milliseconds: usize) -> io::Result<()> {
    by_value::<WAIT_WATCHERS>(fd, milliseconds)
}

pub(crate) fn trigger(fd: BorrowedFd<'_>, least: u32) -> io::Result<()> {
    let least = usize::try_from(least).map_err(|_| Errno::INVAL)?;
    by_value::<TRIGGER_GEN_UPDATE>(fd, least)
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

/// Where in the page of `/dev/vmgenid` the ID is.
pub(crate) fn id_offset(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: As for `GetOffset`.
    unsafe { ioctl(fd, GetOffset) }
}

/// Gives a watcher to the runtime that this is called in.
#[cfg(feature = "tokio")]
pub(crate) fn async_fd(
    watcher: crate::Watcher,
) -> std::io::Result<tokio::io::unix::AsyncFd<crate::Watcher>> {
    let readable = tokio::io::Interest::READABLE;
    // SAFETY: A watcher owns its descriptor, returns the same one at each call of `as_raw_fd`, and
    // closes it when it is dropped only. Nothing replaces it: the field is private, and no method
    // writes it.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(watcher, readable) }
        .map_err(|error| error.into_parts().1)
}

/// The first page of a file, mapped to be read.
#[derive(Debug)]
struct Mapping {
    /// # Invariants
    ///
    /// The start of a page that is mapped, and readable, until this is dropped.
    start: NonNull<c_void>,
}

// SAFETY: The mapping belongs to the process and not to a thread, and is only ever read, by atomic
// loads.
unsafe impl Send for Mapping {}
// SAFETY: As for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: The kernel chooses the place (a null hint without MAP_FIXED), so that no memory of
        // this program is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                page_size(),
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        // INVARIANT: Mapped just now, and unmapped by `drop` only.
        NonNull::new(start)
            .map(|start| Self { start })
            .ok_or(Errno::FAULT)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant, this is our mapping, and nobody can look at it any more: each
        // look borrows `self`. It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr(), page_size()) };
    }
}

/// The page that starts with the generation.
#[derive(Debug)]
pub(crate) struct GenerationPage(Mapping);

impl GenerationPage {
    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(fd).map(Self)
    }

    /// The generation at this moment.
    ///
    /// The load acquires: it pairs with the driver's release store, so that whoever sees the new
    /// value also sees that the kernel has been reseeded.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        // SAFETY: By the invariant of `Mapping`, the page is there, and its start is aligned. Only
        // the kernel writes it, by single stores of these four bytes, which an atomic allows.
        unsafe { self.0.start.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire)
    }
}

/// The page that holds the VM generation ID.
#[derive(Debug)]
pub(crate) struct IdPage {
    mapping: Mapping,
    /// # Invariants
    ///
    /// A multiple of 8, and at least 16 less than the size of a page.
    offset: usize,
}

impl IdPage {
    /// Maps the page of `fd`, in which the ID is at `offset`; `EINVAL` for one that cannot be.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: usize) -> io::Result<Self> {
        if offset % 8 != 0 || offset > page_size() - 16 {
            return Err(Errno::INVAL);
        }
        // INVARIANT: The offset was just checked.
        Ok(Self {
            mapping: Mapping::new(fd)?,
            offset,
        })
    }

    /// The ID at this moment (two loads). The hypervisor writes it while the machine stands still,
    /// so that the halves always belong together: unless the machine is stopped between the loads,
    /// and then they differ from any ID that was remembered, which is what counts.
    #[inline]
    pub(crate) fn load(&self) -> VmId {
        let half = |number: usize| {
            // SAFETY: By the invariants, these eight bytes are in the mapping, and aligned. Nothing
            // writes them while this runs.
            let half = unsafe {
                let half = self.mapping.start.byte_add(self.offset + 8 * number);
                half.cast::<AtomicU64>().as_ref()
            };
            half.load(Ordering::Acquire).to_ne_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half(0));
        bytes[8..].copy_from_slice(&half(1));
        VmId::new(bytes)
    }
}
