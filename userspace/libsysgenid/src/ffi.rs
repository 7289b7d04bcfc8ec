// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `sysgenid.h` declares. The comments here are those of the header.
//!
//! A pointer that a function is given is null, or valid for what the header says: C cannot promise
//! more. Null is looked for; the rest is what each `unsafe` block relies on.

#![expect(unsafe_code)]
#![expect(
    clippy::doc_markdown,
    reason = "the comments are for C, where names have no backticks"
)]

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::ffi::CStr;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use sysgenid::Freshness;
use sysgenid::Generation;
use sysgenid::IdPage;
use sysgenid::Options;
use sysgenid::VmId;

use crate::failure::guarded;
use crate::failure::message;
use crate::failure::Failure;
use crate::failure::SUCCESS;

type Result<T> = std::result::Result<T, Failure>;

/// The version of this header: what is compiled with it wants a library of the same major version (of
/// the same minor one, as long as the major one is 0), and of no lower minor one. sysgenid_version()
/// tells that of the library.
pub const SYSGENID_VERSION_MAJOR: c_uint = 0;
/// See SYSGENID_VERSION_MAJOR.
pub const SYSGENID_VERSION_MINOR: c_uint = 1;
/// See SYSGENID_VERSION_MAJOR.
pub const SYSGENID_VERSION_PATCH: c_uint = 0;

/// The limit of sysgenid_settle() for a handle that sysgenid_open() has opened, in milliseconds.
pub const SYSGENID_LIMIT_MS: c_uint = 5000;

/// In the flags of sysgenid_open_at(): sysgenid_settle() asks the driver for its answer, by system
/// calls, instead of sleeping until it is there.
pub const SYSGENID_HASTEN: c_uint = 1;

/// In `flags` of struct sysgenid_seen: the generation was looked at.
pub const SYSGENID_SEEN_GENERATION: u32 = 1;
/// In `flags` of struct sysgenid_seen: the hypervisor's ID was looked at, too.
pub const SYSGENID_SEEN_ID: u32 = 2;

/// In `freshness` of struct sysgenid_fresh: nothing was settled yet.
pub const SYSGENID_FRESH_UNSETTLED: u32 = 0;
/// The driver says that the kernel's random number generator was reseeded, with the hypervisor's ID of
/// this machine in it.
pub const SYSGENID_FRESH_RESEEDED: u32 = 1;
/// The driver says that it was not: the hypervisor has given no ID, or the kernel could not be made to
/// reseed.
pub const SYSGENID_FRESH_NOT_RESEEDED: u32 = 2;
/// The driver is an older one, which does not say.
pub const SYSGENID_FRESH_NOT_SAID: u32 = 3;
/// The driver has not answered the hypervisor's ID within the limit.
pub const SYSGENID_FRESH_TIMED_OUT: u32 = 4;
/// There is no device, and so nothing that could be known.
pub const SYSGENID_FRESH_NO_DEVICE: u32 = 5;

/// The generation and, where it may be seen, the hypervisor's ID, mapped.
pub struct Handle(sysgenid::SysGenId);

/// What was seen in one look. One that is all zeroes has seen nothing yet, and differs from all
/// others: a variable with static storage needs nothing else.
///
/// The ID identifies the machine: think before it is logged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// SYSGENID_SEEN_GENERATION, SYSGENID_SEEN_ID.
    pub flags: u32,
    /// The generation. Two of them are equal or not; neither is greater.
    pub generation: u32,
    /// The number of changes since the driver was loaded. 0 from an older driver, and in programs with
    /// 32 bits.
    pub epoch: u64,
    /// The hypervisor's ID, and zeroes where it was not looked at.
    pub id: [u8; 16],
    /// A number that a forked process has not in common with those that it comes from.
    pub process: u32,
    /// 0.
    pub reserved: [u32; 7],
}

/// What a value is built from after a change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Fresh {
    /// What was seen. A value that is built now belongs to it.
    pub seen: Seen,
    /// SYSGENID_FRESH_…: whether the kernel's random number generator is known to have been reseeded for
    /// this machine, and if not, why not. If it is not SYSGENID_FRESH_RESEEDED then getrandom() alone is
    /// not to be trusted; and if there is a device, an operator should hear of it.
    pub freshness: u32,
    /// 0.
    pub reserved: [u32; 7],
}

/// As a number for C.
const fn number(freshness: Freshness) -> u32 {
    match freshness {
        Freshness::Reseeded => SYSGENID_FRESH_RESEEDED,
        Freshness::NotReseeded => SYSGENID_FRESH_NOT_RESEEDED,
        Freshness::NotSaid => SYSGENID_FRESH_NOT_SAID,
        Freshness::TimedOut => SYSGENID_FRESH_TIMED_OUT,
        Freshness::NoDevice => SYSGENID_FRESH_NO_DEVICE,
    }
}

/// What C has carried.
const fn freshness(number: u32) -> Option<Freshness> {
    match number {
        SYSGENID_FRESH_RESEEDED => Some(Freshness::Reseeded),
        SYSGENID_FRESH_NOT_RESEEDED => Some(Freshness::NotReseeded),
        SYSGENID_FRESH_NOT_SAID => Some(Freshness::NotSaid),
        SYSGENID_FRESH_TIMED_OUT => Some(Freshness::TimedOut),
        SYSGENID_FRESH_NO_DEVICE => Some(Freshness::NoDevice),
        _ => None,
    }
}

/// A descriptor that becomes readable when the generation changes.
pub struct Watcher(sysgenid::Watcher);

/// For a program that changes the generation, and waits for the watchers.
pub struct Overseer(sysgenid::Overseer);

impl Seen {
    /// `None` for one that has seen nothing.
    fn known(self) -> Option<sysgenid::Seen> {
        let id = (self.flags & SYSGENID_SEEN_ID != 0).then(|| VmId::new(self.id));
        let generation = Generation::new(self.generation);
        let seen = sysgenid::Seen::new(generation, self.epoch, id, self.process);
        (self.flags & SYSGENID_SEEN_GENERATION != 0).then_some(seen)
    }
}

impl From<sysgenid::Seen> for Seen {
    fn from(seen: sysgenid::Seen) -> Self {
        let id_flag = seen.id().map_or(0, |_| SYSGENID_SEEN_ID);
        Self {
            flags: SYSGENID_SEEN_GENERATION | id_flag,
            generation: seen.generation().get(),
            epoch: seen.epoch(),
            id: seen.id().map_or([0; 16], |id| *id.as_bytes()),
            process: seen.process(),
            reserved: [0; 7],
        }
    }
}

impl From<sysgenid::Fresh> for Fresh {
    fn from(fresh: sysgenid::Fresh) -> Self {
        Self {
            seen: fresh.seen().into(),
            freshness: number(fresh.freshness()),
            reserved: [0; 7],
        }
    }
}

/// Looks.
fn look(handle: Option<&Handle>) -> sysgenid::Seen {
    handle.map_or_else(sysgenid::Seen::without_device, |Handle(sysgenid)| {
        sysgenid.look()
    })
}

/// The value at `from`, unless that is null.
///
/// # Safety
///
/// `from` is null, or valid for a read.
unsafe fn read<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: By the contract of this function. Null was looked for.
    (!from.is_null()).then(|| unsafe { from.read() })
}

/// Writes a value, unless `to` is null.
///
/// # Safety
///
/// `to` is null, or valid for a write.
unsafe fn write<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Failure::invalid("there is nowhere to put the result"));
    }
    // SAFETY: By the contract of this function. Null was looked for. Nothing is dropped: what C has
    // there may not be a value yet.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a value for who wants it: whoever passes null does not.
///
/// # Safety
///
/// As [`write`].
unsafe fn write_if_wanted<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: By the contract of this function.
    unsafe { write(to, value) }
}

/// The buffer of a caller, with zeroes in it.
///
/// # Safety
///
/// `buffer` is null, or valid for writes of `size` bytes, which nobody else uses while `'a` lasts.
unsafe fn bytes<'a>(buffer: *mut c_void, size: usize) -> Result<&'a mut [u8]> {
    if buffer.is_null() || isize::try_from(size).is_err() {
        return Err(Failure::invalid("there is no such buffer"));
    }
    let buffer = buffer.cast::<u8>();
    // SAFETY: By the contract of this function. Null was looked for.
    unsafe { buffer.write_bytes(0, size) };
    // SAFETY: As above; the bytes have just been initialized, and the size fits.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer, size) })
}

/// Opens something for C, which gets null where that fails.
///
/// # Safety
///
/// `to` is null, or valid for a write.
unsafe fn open<T>(to: *mut *mut T, open: impl FnOnce() -> Result<T>) -> c_int {
    guarded(|| {
        // SAFETY: By the contract of this function.
        unsafe { write(to, std::ptr::null_mut()) }?;
        let opened = Box::new(open()?);
        // SAFETY: As above.
        unsafe { write(to, Box::into_raw(opened)) }
    })
}

/// Closes what [`open`] has opened.
///
/// # Safety
///
/// `opened` is null, or comes from [`open`] and is not used any more.
unsafe fn close<T>(opened: *mut T) {
    guarded(|| {
        if !opened.is_null() {
            // SAFETY: It is what `Box::into_raw` returned in `open`, by the contract of this function.
            drop(unsafe { Box::from_raw(opened) });
        }
        Ok(())
    });
}

/// What a function without NULL for that argument was called with.
fn given<T>(argument: Option<T>) -> Result<T> {
    argument.ok_or_else(|| Failure::invalid("a pointer that must not be NULL is NULL"))
}

/// The path at `text`, unless that is null.
///
/// # Safety
///
/// `text` is null, or points to a string with a zero at its end, which does not change meanwhile.
unsafe fn path<'a>(text: *const c_char) -> Option<&'a Path> {
    (!text.is_null()).then(|| {
        // SAFETY: By the contract of this function. Null was looked for.
        let text = unsafe { CStr::from_ptr(text) };
        Path::new(OsStr::from_bytes(text.to_bytes()))
    })
}

/// Opens and maps /dev/sysgenid and, where this process may, /dev/vmgenid, and stores the handle in
/// *handle, or NULL if it fails.
///
/// What keeps the hypervisor's page from being mapped is no error: sysgenid_id_page() says it.
///
/// The handle holds no descriptor, only the mappings, so a daemon that closes all descriptors does it
/// no harm. There is one exception: where the driver shows the ID but not the page that it is in, the
/// descriptor of /dev/vmgenid is kept, and each look makes two system calls. If it was closed by the
/// program then the ID is not looked at any more.
///
/// Returns 0;
/// -ENODEV if there is no device: a program that also runs without it goes on with the handle NULL;
/// -EACCES if there is one, and this process may not open it: worth a message, not to be ignored;
/// -ENOTTY if what has its name is something else;
/// another negative error number of open() or mmap(), such as -EMFILE or -ENOMEM.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_open(handle: *mut *mut Handle) -> c_int {
    let limit = Duration::from_millis(SYSGENID_LIMIT_MS.into());
    let options = Options::new().limit(limit);
    // SAFETY: C promises that `handle` is null or valid for a write.
    unsafe { open(handle, || Ok(Handle(options.open()?))) }
}

/// As sysgenid_open(), with the nodes at other places, another limit, and options.
///
/// @generation_node: the path of /dev/sysgenid.
/// @id_node: the path of /dev/vmgenid; NULL does without the hypervisor's page.
/// @limit_ms: how long sysgenid_settle() sleeps in all, in milliseconds; 0 does not wait.
/// @flags: 0 or SYSGENID_HASTEN.
///
/// Returns as sysgenid_open(), and -EINVAL if generation_node is NULL, or for other flags.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_open_at(
    handle: *mut *mut Handle,
    generation_node: *const c_char,
    id_node: *const c_char,
    limit_ms: c_uint,
    flags: c_uint,
) -> c_int {
    let opened = || {
        if flags & !SYSGENID_HASTEN != 0 {
            return Err(Failure::invalid("there is no such flag"));
        }
        // SAFETY: C promises that these are null or strings.
        let (generation_node, id_node) = unsafe { (path(generation_node), path(id_node)) };
        let options = Options::new()
            .generation_node(given(generation_node)?)
            .limit(Duration::from_millis(limit_ms.into()));
        let options = match id_node {
            Some(id_node) => options.id_node(id_node),
            None => options.without_id(),
        };
        let options = if flags & SYSGENID_HASTEN == 0 {
            options
        } else {
            options.hasten()
        };
        Ok(Handle(options.open()?))
    };
    // SAFETY: C promises that `handle` is null or valid for a write.
    unsafe { open(handle, opened) }
}

/// Closes a handle, which no thread may be using. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn sysgenid_close(handle: *mut Handle) {
    // SAFETY: C promises that it comes from one of the functions above, and is not used any more.
    unsafe { close(handle) }
}

/// Whether the hypervisor's ID is looked at. Where it is not, a clone is noticed some milliseconds after
/// its resume (seconds, where the hypervisor notifies nobody), and even getrandom() returns the bytes of
/// its sisters until then.
///
/// Returns 0 if it is;
/// -ENODEV if there is none, if it was not asked for, or if the handle is NULL;
/// -EACCES if this process may not open the node, whose mode is 0400 unless the administrator or a
/// package has changed that;
/// another negative error number if it can be opened but not mapped.
#[no_mangle]
pub extern "C" fn sysgenid_id_page(handle: Option<&Handle>) -> c_int {
    let absent = |why| Err(Failure::new(Errno::NODEV, why));
    guarded(|| match handle.map(|Handle(sysgenid)| sysgenid.id_page()) {
        Some(IdPage::Mapped | IdPage::Read) => Ok(()),
        Some(IdPage::Absent) => absent("there is no hypervisor's page in this machine"),
        Some(IdPage::Forbidden(error) | IdPage::Failed(error)) => Err(error.into()),
        Some(_) => absent("the hypervisor's page was not asked for"),
        None => absent("there is no device in this machine"),
    })
}

/// Looks: a few loads, and no system call. It may be called in a signal handler.
///
/// With the handle NULL there is always the same to see, but in a forked process.
#[no_mangle]
pub unsafe extern "C" fn sysgenid_look(handle: Option<&Handle>, seen: *mut Seen) {
    guarded(|| {
        // SAFETY: C promises that `seen` is null or valid for a write.
        unsafe { write(seen, look(handle).into()) }
    });
}

/// Looks, and compares with what was seen before: a few loads, and no system call. It may be called in a
/// signal handler.
///
/// Returns true if the machine was cloned, the generation was changed, or this process was forked since,
/// or if *since has seen
/// nothing yet (or is NULL): then what was derived before must not be used any more, and
/// sysgenid_settle() comes next.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_changed(handle: Option<&Handle>, since: *const Seen) -> bool {
    let mut changed = true;
    guarded(|| {
        // SAFETY: C promises that `since` is null or valid for a read.
        changed = unsafe { read(since) } != Some(look(handle).into());
        Ok(())
    });
    changed
}

/// Before anything is derived for the first time, and after a look that differs from what was seen:
/// sleeps until the driver has answered the hypervisor's ID, and says in *fresh what was seen then.
///
/// It returns at once where the ID is answered already, and where the ID cannot be seen. It never fails:
/// if there is no answer within the limit (SYSGENID_LIMIT_MS, unless sysgenid_open_at() was told
/// otherwise) then fresh->freshness is SYSGENID_FRESH_TIMED_OUT. It makes no system call but
/// clock_nanosleep(), unless the handle has SYSGENID_HASTEN.
#[no_mangle]
pub unsafe extern "C" fn sysgenid_settle(handle: Option<&Handle>, fresh: *mut Fresh) {
    let settled = guarded(|| {
        let settled = match handle {
            None => sysgenid::Fresh::without_device(),
            Some(Handle(sysgenid)) => sysgenid.settle(),
        };
        // SAFETY: C promises that `fresh` is null or valid for a write.
        unsafe { write(fresh, settled.into()) }
    });
    if settled != SUCCESS && !fresh.is_null() {
        // Nothing was seen: whoever looks next will have to settle again.
        let unsettled = Fresh {
            freshness: SYSGENID_FRESH_UNSETTLED,
            ..Fresh::default()
        };
        // SAFETY: As above, and not null.
        unsafe { fresh.write(unsettled) };
    }
}

/// Fills *buffer with size random bytes that no clone of this machine has.
///
/// They are the kernel's, to which a stream is added (XOR) that is derived from the ID, the processor's
/// own random number generator (where there is one) and the moment. Where fresh->freshness does not vouch
/// for the kernel's, that may be all that tells them from those of a clone.
///
/// Returns 0;
/// -EINVAL for NULL, and for a fresh that sysgenid_settle() has not filled;
/// another negative error number of getrandom(), where a sandbox forbids that.
/// If it fails then the buffer holds zeroes.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_fill(
    fresh: *const Fresh,
    buffer: *mut c_void,
    size: usize,
) -> c_int {
    guarded(|| {
        // SAFETY: C promises that `buffer` is valid for writes of `size` bytes, and that nobody else uses
        // them until this returns.
        let bytes = unsafe { bytes(buffer, size) }?;
        // SAFETY: C promises that `fresh` is null or valid for a read.
        let fresh = given(unsafe { read(fresh) })?;
        let seen = fresh.seen.known();
        let (Some(seen), Some(freshness)) = (seen, freshness(fresh.freshness)) else {
            return Err(Failure::invalid("nothing has been settled"));
        };
        Ok(sysgenid::Fresh::new(seen, freshness).fill(bytes)?)
    })
}

/// Fills *buffer with size random bytes that no clone of this machine has: sysgenid_settle(),
/// sysgenid_fill(), and another look; what was drawn while the machine was cloned is wiped, and drawn
/// anew. It makes two system calls. With the handle NULL, there is nothing to look at.
///
/// @seen: what was seen then, for sysgenid_changed() before what was made with the bytes leaves the
/// program; NULL for who does not want to know.
///
/// Returns 0;
/// -EAGAIN if somebody changes the generation all the time;
/// -EINVAL for a buffer that is NULL;
/// another negative error number of getrandom(), where a sandbox forbids that.
/// If it fails then the buffer holds zeroes.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_random(
    handle: Option<&Handle>,
    buffer: *mut c_void,
    size: usize,
    seen: *mut Seen,
) -> c_int {
    guarded(|| {
        // SAFETY: C promises that `buffer` is valid for writes of `size` bytes, and that nobody else uses
        // them until this returns.
        let bytes = unsafe { bytes(buffer, size) }?;
        let fresh = if let Some(Handle(sysgenid)) = handle {
            sysgenid.random(bytes)?
        } else {
            let fresh = sysgenid::Fresh::without_device();
            fresh.fill(bytes)?;
            fresh
        };
        // SAFETY: C promises that `seen` is null or valid for a write.
        unsafe { write_if_wanted(seen, fresh.seen().into()) }
    })
}

/// Opens /dev/sysgenid, and stores the watcher in *watcher, or NULL if it fails.
///
/// A watcher is acked when it is opened. When the generation changes it becomes outdated: its
/// descriptor is readable until it has acknowledged. The order is: poll() on sysgenid_watcher_fd(),
/// sysgenid_watcher_read(), build anew what must be unique, sysgenid_watcher_ack().
///
/// Returns as sysgenid_open().
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_watcher_open(watcher: *mut *mut Watcher) -> c_int {
    // SAFETY: C promises that `watcher` is null or valid for a write.
    unsafe { open(watcher, || Ok(Watcher(sysgenid::Watcher::open()?))) }
}

/// As sysgenid_watcher_open(), with the node at another place.
///
/// Returns as sysgenid_open(), and -EINVAL if node is NULL.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_watcher_open_at(
    watcher: *mut *mut Watcher,
    node: *const c_char,
) -> c_int {
    let opened = || {
        // SAFETY: C promises that `node` is null or a string.
        let node = given(unsafe { path(node) })?;
        Ok(Watcher(sysgenid::Watcher::open_at(node)?))
    };
    // SAFETY: C promises that `watcher` is null or valid for a write.
    unsafe { open(watcher, opened) }
}

/// Closes a watcher, which no thread may be using, and its descriptor. Nobody waits for it any more.
/// NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn sysgenid_watcher_close(watcher: *mut Watcher) {
    // SAFETY: C promises that it comes from the function above, and is not used any more.
    unsafe { close(watcher) }
}

/// The descriptor, for poll(), select(), epoll and the event loops above them: it is readable (POLLIN)
/// while the watcher is outdated. It is non-blocking and closed on exec(), and belongs to the watcher.
///
/// Returns the descriptor, or -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_watcher_fd(watcher: Option<&Watcher>) -> c_int {
    let mut fd = -1;
    let returned = guarded(|| {
        let Watcher(watcher) = given(watcher)?;
        fd = watcher.as_fd().as_raw_fd();
        Ok(())
    });
    if returned == SUCCESS {
        fd
    } else {
        returned
    }
}

/// Stores the generation that is to be acknowledged in *generation. It does not wait, and does not
/// acknowledge.
///
/// Returns 0;
/// -EAGAIN if the watcher is acked: there is nothing to do, and *generation is left alone;
/// -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_watcher_read(
    watcher: Option<&Watcher>,
    generation: *mut u32,
) -> c_int {
    guarded(|| {
        let Watcher(watcher) = given(watcher)?;
        let outdated = watcher
            .outdated()?
            .ok_or_else(|| Failure::new(Errno::AGAIN, "there is no change to acknowledge"))?;
        // SAFETY: C promises that `generation` is null or valid for a write.
        unsafe { write(generation, outdated.get()) }
    })
}

/// Acknowledges a generation that sysgenid_watcher_read() has returned: what depends on it was built
/// anew.
///
/// Returns 0;
/// -ESTALE if it is not the current one: nothing was acknowledged, read again and start again;
/// -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_watcher_ack(watcher: Option<&Watcher>, generation: u32) -> c_int {
    guarded(|| {
        let Watcher(watcher) = given(watcher)?;
        Ok(watcher.ack(Generation::new(generation))?)
    })
}

/// Asks overseers to wait for this watcher, or no longer to do so. Who asks must acknowledge each change
/// soon: the system may be held up until then.
///
/// @tracked: 0 or not.
///
/// Returns 0, or -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_watcher_set_tracked(watcher: Option<&Watcher>, tracked: c_int) -> c_int {
    guarded(|| {
        let Watcher(watcher) = given(watcher)?;
        Ok(watcher.set_tracked(tracked != 0)?)
    })
}

/// Opens /dev/sysgenid for an overseer, and stores it in *overseer, or NULL if it fails. Any process
/// may.
///
/// Returns as sysgenid_open().
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_overseer_open(overseer: *mut *mut Overseer) -> c_int {
    // SAFETY: C promises that `overseer` is null or valid for a write.
    unsafe { open(overseer, || Ok(Overseer(sysgenid::Overseer::open()?))) }
}

/// As sysgenid_overseer_open(), with the node at another place.
///
/// Returns as sysgenid_open(), and -EINVAL if node is NULL.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_overseer_open_at(
    overseer: *mut *mut Overseer,
    node: *const c_char,
) -> c_int {
    let opened = || {
        // SAFETY: C promises that `node` is null or a string.
        let node = given(unsafe { path(node) })?;
        Ok(Overseer(sysgenid::Overseer::open_at(node)?))
    };
    // SAFETY: C promises that `overseer` is null or valid for a write.
    unsafe { open(overseer, opened) }
}

/// Closes an overseer, which no thread may be using. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn sysgenid_overseer_close(overseer: *mut Overseer) {
    // SAFETY: C promises that it comes from the function above, and is not used any more.
    unsafe { close(overseer) }
}

/// Waits until no change is due that the hypervisor has caused, and has the driver make it now instead
/// of waiting for the kernel to be notified. It takes no privilege. Nothing is due where the driver
/// cannot see the hypervisor's ID. A signal does not end the wait.
///
/// @timeout_ms: how long at most, in milliseconds; 0 hardly waits, and a negative number is no limit.
///
/// Returns 0;
/// -ETIME if a change is still due when the time is over;
/// -ENOTTY if the driver is an older one, which does not know of that;
/// -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_overseer_settle(
    overseer: Option<&Overseer>,
    timeout_ms: c_int,
) -> c_int {
    guarded(|| {
        let Overseer(overseer) = given(overseer)?;
        Ok(overseer.settle(limit(timeout_ms))?)
    })
}

/// As for poll(): a negative number is no limit.
fn limit(timeout_ms: c_int) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Changes the generation: to least if that is greater than the current one plus 1, and to the current
/// one plus 1 otherwise; 0 asks for nothing in particular. A change that is due comes first, and the
/// kernel's random number generator is made to reseed. Stores the generation after that in *generation,
/// unless that is NULL.
///
/// Returns 0;
/// -EPERM without CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user namespace;
/// -EINVAL for an overseer that is NULL.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_overseer_trigger(
    overseer: Option<&Overseer>,
    least: u32,
    generation: *mut u32,
) -> c_int {
    guarded(|| {
        let Overseer(overseer) = given(overseer)?;
        let new = overseer.trigger(least)?;
        // SAFETY: C promises that `generation` is null or valid for a write.
        unsafe { write_if_wanted(generation, new.get()) }
    })
}

/// Changes the generation as sysgenid_overseer_trigger() does, after the kernel's random number generator
/// was given what tells this machine from its clones: the size bytes at entropy, and numbers of the
/// processor's own generator (where there is one). That is the overseer's duty wherever no hypervisor
/// gives the machine an ID: two machines that are resumed from one snapshot, and only triggered, draw
/// the same from getrandom().
///
/// @entropy: random bytes from outside that no other machine gets, 32 for example; NULL with a size of 0
/// if there are none.
///
/// Returns as sysgenid_overseer_trigger(), and -ENOENT where there is no /dev/urandom. If it fails then
/// nothing was changed.
#[must_use]
#[no_mangle]
pub unsafe extern "C" fn sysgenid_overseer_trigger_with_entropy(
    overseer: Option<&Overseer>,
    least: u32,
    entropy: *const c_void,
    size: usize,
    generation: *mut u32,
) -> c_int {
    guarded(|| {
        let Overseer(overseer) = given(overseer)?;
        let entropy = match (entropy.is_null(), size) {
            (_, 0) => &[],
            (false, size) if isize::try_from(size).is_ok() => {
                // SAFETY: C promises that it is valid for reads of `size` bytes, which fit, and which
                // nobody changes until this returns. Null was looked for.
                unsafe { std::slice::from_raw_parts(entropy.cast::<u8>(), size) }
            }
            _ => return Err(Failure::invalid("there is no such entropy")),
        };
        let new = overseer.trigger_with_entropy(least, entropy)?;
        // SAFETY: C promises that `generation` is null or valid for a write.
        unsafe { write_if_wanted(generation, new.get()) }
    })
}

/// Waits until no tracked watcher is outdated. A signal does not end the wait, and the overseer does
/// not wait for itself.
///
/// @timeout_ms: how long at most, in milliseconds, as for poll(): 0 looks only, and a negative number
/// is no limit.
///
/// Returns 0;
/// -ETIME if there still is one when the time is over;
/// -EINVAL for NULL.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_overseer_wait_watchers(
    overseer: Option<&Overseer>,
    timeout_ms: c_int,
) -> c_int {
    guarded(|| {
        let Overseer(overseer) = given(overseer)?;
        Ok(overseer.wait_watchers(limit(timeout_ms))?)
    })
}

/// The message of the calling thread's last call that returned an error, in words for an operator: it
/// says what to do. Empty if there was none.
///
/// The string belongs to the library. It is valid until the thread ends, and changes when another call
/// fails in this thread. A call that succeeds leaves it alone.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_last_error() -> *const c_char {
    message()
}

/// The version of the library that runs: 65536 times the major one, plus 256 times the minor one, plus the
/// patch.
#[must_use]
#[no_mangle]
pub extern "C" fn sysgenid_version() -> c_uint {
    (SYSGENID_VERSION_MAJOR << 16) | (SYSGENID_VERSION_MINOR << 8) | SYSGENID_VERSION_PATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_packages() {
        let version =
            format!("{SYSGENID_VERSION_MAJOR}.{SYSGENID_VERSION_MINOR}.{SYSGENID_VERSION_PATCH}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert_eq!(sysgenid_version(), 0x100);
    }

    /// As they are in the programs that are there.
    #[test]
    fn structs_have_their_sizes() {
        assert_eq!((size_of::<Seen>(), align_of::<Seen>()), (64, 8));
        assert_eq!((size_of::<Fresh>(), align_of::<Fresh>()), (96, 8));
    }

    #[test]
    fn what_was_seen_survives_the_way_to_c_and_back() {
        for id in [None, Some(VmId::new([0; 16])), Some(VmId::new([7; 16]))] {
            for number in [0, 1, u32::MAX] {
                let generation = Generation::new(number);
                let seen = sysgenid::Seen::new(generation, u64::from(number) << 9, id, number);
                assert_eq!(Seen::from(seen).known(), Some(seen));
            }
        }
    }

    #[test]
    fn freshness_survives_the_way_to_c_and_back() {
        let mut known = 0;
        for value in 0..=9 {
            if let Some(freshness) = freshness(value) {
                assert_eq!(number(freshness), value);
                known += 1;
            }
        }
        assert_eq!(known, 5);
        assert_eq!(Fresh::default().freshness, SYSGENID_FRESH_UNSETTLED);
        assert_eq!(freshness(SYSGENID_FRESH_UNSETTLED), None);
    }

    #[test]
    fn zeroes_have_seen_nothing() {
        assert_eq!(Seen::default().known(), None);
        let zeroes = Seen::default();
        // SAFETY: A reference is valid for a read.
        assert!(unsafe { sysgenid_changed(None, &raw const zeroes) });
    }

    #[test]
    fn nothing_changes_without_a_device() {
        let (mut seen, mut fresh) = (Seen::default(), Fresh::default());
        // SAFETY: References are valid for reads and writes.
        unsafe {
            sysgenid_settle(None, &raw mut fresh);
            assert_eq!(fresh.freshness, SYSGENID_FRESH_NO_DEVICE);
            sysgenid_look(None, &raw mut seen);
            assert!(!sysgenid_changed(None, &raw const seen));
        }
        assert_eq!(fresh.seen, seen);
    }
}
