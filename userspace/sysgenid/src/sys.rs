// SPDX-License-Identifier: MIT OR Apache-2.0

//! What rustix cannot make safe for a device that it does not know: `mmap` and `ioctl`; and the
//! processor's clock. All unsafe code of this crate is here.
//!
//! What the pages are is said by `struct sysgenid_page` and `struct vmgenid_answer_page` in
//! `uapi/linux/sysgenid.h`.

#![expect(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use rustix::ffi::c_int;
use rustix::ffi::c_void;
use rustix::io;
use rustix::io::Errno;
use rustix::ioctl::IntegerSetter;
use rustix::ioctl::Ioctl;
use rustix::ioctl::IoctlOutput;
use rustix::ioctl::NoArg;
use rustix::ioctl::Opcode;
use rustix::ioctl::Setter;
use rustix::ioctl::ioctl;
use rustix::ioctl::opcode;
use rustix::mm::Advice;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use rustix::mm::madvise;
use rustix::mm::mmap;
use rustix::mm::mmap_anonymous;
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
/// `SYSGENID_SETTLE`
const SETTLE: Opcode = opcode::none(MAGIC, 4);
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

/// Waits until no change is due, for at most so many milliseconds, where 0 is no limit.
pub(crate) fn settle(fd: BorrowedFd<'_>, milliseconds: usize) -> io::Result<()> {
    by_value::<SETTLE>(fd, milliseconds)
}

/// The type of the ioctls of `/dev/urandom` (`linux/random.h`).
const RANDOM_MAGIC: u8 = b'R';
/// `RNDADDENTROPY`
const ADD_ENTROPY: Opcode = opcode::write::<[c_int; 2]>(RANDOM_MAGIC, 3);
/// `RNDRESEEDCRNG`
const RESEED: Opcode = opcode::none(RANDOM_MAGIC, 7);

/// How many bytes one [`add_entropy`] takes.
pub(crate) const ENTROPY_BLOCK: usize = 64;

/// `struct rand_pool_info`, with its buffer.
#[repr(C)]
struct Entropy {
    bits: c_int,
    size: c_int,
    buffer: [u8; ENTROPY_BLOCK],
}

/// Mixes at most [`ENTROPY_BLOCK`] bytes into the kernel's random number generator. It counts them as
/// so many random bits, or as none.
pub(crate) fn add_entropy(fd: BorrowedFd<'_>, bytes: &[u8], counts: bool) -> io::Result<()> {
    let size = c_int::try_from(bytes.len()).map_err(|_| Errno::INVAL)?;
    let mut entropy = Entropy {
        bits: if counts { 8 * size } else { 0 },
        size,
        buffer: [0; ENTROPY_BLOCK],
    };
    let place = entropy.buffer.get_mut(..bytes.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(bytes);
    // SAFETY: The call reads two numbers, and after them as many bytes as the second one says, which
    // are there. It writes none of this program's memory.
    unsafe { ioctl(fd, Setter::<ADD_ENTROPY, Entropy>::new(entropy)) }
}

/// Makes the kernel's random number generator reseed from what it has.
pub(crate) fn reseed(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: The call has no argument: the kernel reads and writes none of this program's memory.
    unsafe { ioctl(fd, NoArg::<RESEED>::new()) }
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

/// `SYSGENID_FLAG_FIELDS`
const FLAG_FIELDS: u32 = 1;
/// `SYSGENID_FLAG_RESEEDED`
const FLAG_RESEEDED: u32 = 2;

/// A page, mapped.
#[derive(Debug)]
struct Mapping {
    /// # Invariants
    ///
    /// The start of a page that is mapped, and readable, until this is dropped.
    start: NonNull<c_void>,
}

// SAFETY: The mapping belongs to the process and not to a thread, and is only ever accessed by atomic
// operations.
unsafe impl Send for Mapping {}
// SAFETY: As for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the page of a file at that offset, to be read.
    fn new(fd: BorrowedFd<'_>, offset: usize) -> io::Result<Self> {
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        // SAFETY: The kernel chooses the place (a null hint without MAP_FIXED), so that no memory of
        // this program is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                page_size(),
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }?;
        // INVARIANT: Mapped just now, and unmapped by `drop` only.
        NonNull::new(start)
            .map(|start| Self { start })
            .ok_or(Errno::FAULT)
    }

    /// The four bytes at that offset.
    ///
    /// # Safety
    ///
    /// The offset is a multiple of 4, and less than the size of a page.
    #[inline]
    unsafe fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: By the invariant and the contract of this function these bytes are in the mapping,
        // and aligned. Whoever writes them does it by single stores, which an atomic allows.
        unsafe { self.start.byte_add(offset).cast::<AtomicU32>().as_ref() }
    }

    /// The eight bytes at that offset.
    ///
    /// # Safety
    ///
    /// The offset is a multiple of 8, and less than the size of a page.
    #[inline]
    unsafe fn double_word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: As in `word`. Nothing writes these bytes in two halves where a machine can load them
        // in one piece.
        unsafe { self.start.byte_add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// The epoch at that offset, which a machine with 32 bits would load in two halves: 0 there, and
    /// the generation serves.
    ///
    /// # Safety
    ///
    /// As [`Mapping::double_word`].
    #[inline]
    unsafe fn epoch(&self, offset: usize) -> u64 {
        if cfg!(target_pointer_width = "64") {
            // SAFETY: By the contract of this function.
            unsafe { self.double_word(offset) }.load(Ordering::Relaxed)
        } else {
            0
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant, this is our mapping, and nobody can look at it any more: each
        // look borrows `self`. It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr(), page_size()) };
    }
}

/// What the generation page says of the kernel's random number generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reseeded {
    Yes,
    No,
    /// The driver is an older one, which has no flags.
    NotSaid,
}

/// `struct sysgenid_page`
#[derive(Debug)]
pub(crate) struct GenerationPage(Mapping);

impl GenerationPage {
    const GENERATION: usize = 0;
    const FLAGS: usize = 4;
    const EPOCH: usize = 8;

    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::new(fd, 0).map(Self)
    }

    /// The generation at this moment. Relaxed: the caller has a fence.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        // SAFETY: A multiple of 4 in the page.
        unsafe { self.0.word(Self::GENERATION) }.load(Ordering::Relaxed)
    }

    /// The epoch at this moment; 0 from a driver, or on a machine, that has none. Relaxed: the caller
    /// has a fence.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // SAFETY: A multiple of 8 in the page.
        unsafe { self.0.epoch(Self::EPOCH) }
    }

    /// What the flags say: those of the generation and the epoch that were loaded before, or later
    /// ones.
    pub(crate) fn reseeded(&self) -> Reseeded {
        // The driver stores the flags first, with release.
        fence(Ordering::Acquire);
        // SAFETY: A multiple of 4 in the page.
        let flags = unsafe { self.0.word(Self::FLAGS) }.load(Ordering::Relaxed);
        if flags & FLAG_FIELDS == 0 {
            Reseeded::NotSaid
        } else if flags & FLAG_RESEEDED == 0 {
            Reseeded::No
        } else {
            Reseeded::Yes
        }
    }
}

/// What the driver has answered the hypervisor, all of it at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: VmId,
    pub(crate) generation: u32,
    pub(crate) epoch: u64,
    pub(crate) reseeded: bool,
}

/// `struct vmgenid_answer_page`
#[derive(Debug)]
pub(crate) struct AnswerPage(Mapping);

impl AnswerPage {
    const SEQUENCE: usize = 0;
    const FLAGS: usize = 4;
    const GENERATION: usize = 8;
    const ID: usize = 16;
    const EPOCH: usize = 32;

    /// Maps the page of `fd` at that offset.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: usize) -> io::Result<Self> {
        Mapping::new(fd, offset).map(Self)
    }

    /// What is answered; `None` while the driver writes it.
    pub(crate) fn load(&self) -> Option<Answer> {
        self.load_while(|| {})
    }

    /// The same, and what happens meanwhile.
    #[inline]
    pub(crate) fn load_while(&self, meanwhile: impl FnOnce()) -> Option<Answer> {
        let Self(page) = self;
        // SAFETY: A multiple of 4 in the page.
        let sequence = unsafe { page.word(Self::SEQUENCE) };
        let before = sequence.load(Ordering::Relaxed);
        // It pairs with the driver's release: what it stored before is seen below. A fence, because of
        // memory that cannot be written only relaxed loads are defined.
        fence(Ordering::Acquire);
        meanwhile();
        // SAFETY: Multiples of 4 and of 8 in the page.
        let (flags, generation, epoch) = unsafe {
            (
                page.word(Self::FLAGS).load(Ordering::Relaxed),
                page.word(Self::GENERATION).load(Ordering::Relaxed),
                page.epoch(Self::EPOCH),
            )
        };
        let answer = Answer {
            // SAFETY: A multiple of 8, and 16 bytes from there are in the page.
            id: unsafe { load_id(page, Self::ID) },
            generation,
            epoch,
            reseeded: flags & FLAG_RESEEDED != 0,
        };
        // What was loaded is not of a later answer, if the sequence is the same still.
        fence(Ordering::Acquire);
        let after = sequence.load(Ordering::Relaxed);
        (before % 2 == 0 && before == after).then_some(answer)
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
            mapping: Mapping::new(fd, 0)?,
            offset,
        })
    }

    /// The ID at this moment. The hypervisor writes it while the machine stands still, so that the
    /// parts always belong together: unless the machine is stopped between the loads, and then they
    /// differ from any ID that was remembered, which is what counts. Relaxed: the caller has a fence.
    #[inline]
    pub(crate) fn load(&self) -> VmId {
        // SAFETY: By the invariant.
        unsafe { load_id(&self.mapping, self.offset) }
    }
}

/// An ID, by loads of no more than the machine's word.
///
/// # Safety
///
/// The offset is a multiple of 8, and at least 16 less than the size of a page.
#[inline]
unsafe fn load_id(page: &Mapping, offset: usize) -> VmId {
    let mut bytes = [0; 16];
    if cfg!(target_pointer_width = "64") {
        for (number, half) in bytes.chunks_exact_mut(8).enumerate() {
            // SAFETY: By the contract of this function.
            let word = unsafe { page.double_word(offset + 8 * number) };
            half.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
    } else {
        for (number, quarter) in bytes.chunks_exact_mut(4).enumerate() {
            // SAFETY: By the contract of this function.
            let word = unsafe { page.word(offset + 4 * number) };
            quarter.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
    }
    VmId::new(bytes)
}

/// The processor's own clock.
#[cfg(target_arch = "x86_64")]
pub(crate) fn processor_clock() -> u64 {
    // SAFETY: Every processor of this architecture has the instruction. A process that has asked the
    // kernel to be killed for it (PR_SET_TSC) runs none of the usual C libraries either.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// A page that a forked process finds empty: by it, it notices that it is one.
#[derive(Debug)]
pub(crate) struct ForkPage(Mapping);

impl ForkPage {
    /// Maps it.
    ///
    /// # Errors
    ///
    /// `EINVAL` from a kernel that does not know of that (before 4.14).
    pub(crate) fn map() -> io::Result<Self> {
        let (size, protection) = (page_size(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: As in `Mapping::new`.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), size, protection, MapFlags::PRIVATE) };
        let start = start?;
        // INVARIANT: As in `Mapping::new`.
        let page = NonNull::new(start)
            .map(|start| Self(Mapping { start }))
            .ok_or(Errno::FAULT)?;
        // SAFETY: The page was mapped just now, and nothing is in it yet.
        unsafe { madvise(start, size, Advice::LinuxWipeOnFork) }?;
        Ok(page)
    }

    /// The word that is 0 in a process that was forked since it was stored.
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU32 {
        // SAFETY: A multiple of 4 in the page, which is writable, and only ever accessed by this.
        unsafe { self.0.word(0) }
    }
}

/// Whether a forked process, in which `check` runs, finds that it holds.
#[cfg(test)]
pub(crate) fn holds_in_child(check: impl FnOnce() -> bool) -> bool {
    use rustix::process::Pid;
    use rustix::process::WaitOptions;
    use rustix::process::waitpid;

    // SAFETY: The child runs nothing but the check, which takes no lock that another thread of the
    // parent could hold but those that it is about (the C library sees to its own), and ends without
    // returning. An alarm kills one that hangs.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(20);
            let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
            libc::_exit(i32::from(!held.unwrap_or(false)));
        }
        child
    };
    let ended = waitpid(Pid::from_raw(child), WaitOptions::empty()).expect("it is our child");
    ended.is_some_and(|(_, status)| status.exit_status() == Some(0))
}

/// Has the kernel kill this process at any system call that the protocol does not need, and that does
/// not end it.
#[cfg(test)]
pub(crate) fn confine() {
    use std::mem::offset_of;

    use libc::BPF_ABS;
    use libc::BPF_JEQ;
    use libc::BPF_JMP;
    use libc::BPF_K;
    use libc::BPF_LD;
    use libc::BPF_RET;
    use libc::BPF_W;

    let allowed = [
        libc::SYS_clock_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_exit_group,
    ];
    let code = |code: u32| u16::try_from(code).expect("it is small");
    let number = u32::try_from(offset_of!(libc::seccomp_data, nr)).expect("it is small");
    // SAFETY: These only put numbers into a struct.
    let (statement, jump) = unsafe {
        (
            |kind, number| libc::BPF_STMT(code(kind), number),
            |kind, number, yes, no| libc::BPF_JUMP(code(kind), number, yes, no),
        )
    };
    let mut filter = vec![statement(BPF_LD | BPF_W | BPF_ABS, number)];
    for call in allowed {
        let call = u32::try_from(call).expect("it is small");
        filter.push(jump(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
        filter.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    }
    filter.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_KILL_PROCESS));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("it is short"),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: The first call takes numbers. The second one reads the program, which is there.
    let confined = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    assert!(confined, "the kernel has no filters");
}
