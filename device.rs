// SPDX-License-Identifier: GPL-2.0

//! `/dev/sysgenid`: each system call turned into a call of [`generation`](crate::generation).
//!
//! Userspace interface: `uapi/linux/sysgenid.h`.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        capability::{
            capable,
            Capability, //
        },
        error::enobufs,
        fs::{
            FileExt,
            FileNew,
            KiocbExt, //
        },
        miscdevice::{
            MiscDevice,
            MiscDeviceOptions,
            MiscDeviceRegistration, //
        },
        poll::{
            EPOLLIN,
            EPOLLRDNORM, //
        },
        shared_page::SharedPage,
        vma::EmptyArea,
        wait_queue::WaitQueue, //
    },
    generation::Watcher,
    pages::GenerationPage,
    settling::{
        Settler,
        User, //
    }, //
};
use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    ioctl::_IO,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc,
    types::ForeignOwnable,
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// `SYSGENID_IOCTL_MAGIC`
const IOCTL_MAGIC: u32 = 0xE4;
/// `SYSGENID_SET_WATCHER_TRACKING`
const SET_WATCHER_TRACKING: u32 = _IO(IOCTL_MAGIC, 1);
/// `SYSGENID_WAIT_WATCHERS`
const WAIT_WATCHERS: u32 = _IO(IOCTL_MAGIC, 2);
/// `SYSGENID_TRIGGER_GEN_UPDATE`
const TRIGGER_GEN_UPDATE: u32 = _IO(IOCTL_MAGIC, 3);
/// `SYSGENID_SETTLE`
const SETTLE: u32 = _IO(IOCTL_MAGIC, 4);

/// The number of bytes of a generation.
const GENERATION_SIZE: usize = size_of::<u32>();

/// Returns whether `len` bytes have room for a generation. No bytes at all are no error.
///
/// # Errors
///
/// [`EINVAL`] if there is room for a part of it.
#[inline]
fn has_room(len: usize) -> Result<bool> {
    match len {
        0 => Ok(false),
        len if len < GENERATION_SIZE => Err(EINVAL),
        _ => Ok(true),
    }
}

/// An open file of the device.
pub(crate) struct OpenFile {
    watcher: Watcher<User>,
}

impl OpenFile {
    #[inline]
    fn settler(&self) -> &Arc<Settler> {
        self.watcher.generation().settler()
    }
}

/// Does what an ioctl is for.
///
/// # Errors
///
/// Those that `uapi/linux/sysgenid.h` describes.
#[inline(always)]
fn act(file: &File, cmd: u32, arg: usize, open: &OpenFile) -> Result {
    match cmd {
        SET_WATCHER_TRACKING => {
            let tracked = arg != 0;

            // It could never ack, and who waits for it would do so for ever.
            if tracked && !file.is_for_writing() {
                return Err(EBADF);
            }

            open.watcher.set_tracked(tracked);

            Ok(())
        }
        WAIT_WATCHERS => open.watcher.wait_watchers(arg),
        TRIGGER_GEN_UPDATE => trigger(open.settler(), arg),
        // `ioctl` has looked, and whoever looks has settled what was due. Nobody was waited for, so the
        // caller's limit makes no difference.
        SETTLE => Ok(()),
        _ => Err(ENOTTY),
    }
}

#[cold]
fn look_and_act(file: &File, cmd: u32, arg: usize, open: &OpenFile) -> Result {
    open.settler().look();

    act(file, cmd, arg, open)
}

#[cold]
fn trigger(settler: &Arc<Settler>, least: usize) -> Result {
    if !capable(Capability::CHECKPOINT_RESTORE) && !capable(Capability::SYS_ADMIN) {
        return Err(EACCES);
    }

    settler.trigger(u32::try_from(least).map_err(|_| EINVAL)?)
}

/// The misc device whose open files are [`Watcher`]s.
pub(crate) struct SysgenidDevice;

impl SysgenidDevice {
    /// Registers the device for the generation that `settler` settles.
    pub(crate) fn register(
        settler: Arc<Settler>,
    ) -> impl PinInit<MiscDeviceRegistration<Self>, Error> {
        let options = MiscDeviceOptions {
            name: c"sysgenid",
            // An ack needs write access, and nothing that an unprivileged process can do here
            // changes the generation.
            mode: 0o666,
        };

        MiscDeviceRegistration::register(options, settler)
    }
}

#[vtable]
impl MiscDevice for SysgenidDevice {
    type Ptr = KBox<OpenFile>;
    type RegistrationData = Arc<Settler>;

    #[inline]
    fn open(file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let settler = misc.data();

        file.set_stream();
        file.set_nowait();

        let open = KBox::new(
            OpenFile {
                watcher: Watcher::new(User::new(settler.clone())),
            },
            GFP_KERNEL_ACCOUNT,
        )?;

        settler.look();

        Ok(open)
    }

    fn mmap(this: &OpenFile, file: &File, area: EmptyArea<'_>) -> Result {
        if area.page_offset() != 0 {
            return Err(EINVAL);
        }

        SharedPage::<GenerationPage>::map(
            area.restrict_to_reading_one_page()?,
            file,
            c"dev/sysgenid",
            this.watcher.generation().clone(),
        )
    }

    #[inline]
    fn read(this: &OpenFile, nonblocking: bool, to: &mut UserSliceWriter) -> Result<usize> {
        if !has_room(to.len())? {
            return Ok(0);
        }

        let generation = this.watcher.wait_outdated(nonblocking)?;

        to.write(&generation)?;

        Ok(GENERATION_SIZE)
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        if !has_room(iov.len())? {
            return Ok(0);
        }

        let generation = kiocb.file().watcher.wait_outdated(kiocb.nonblocking())?;

        if iov.copy_to_iter(&generation.to_ne_bytes()) < GENERATION_SIZE {
            return Err(EFAULT);
        }

        Ok(GENERATION_SIZE)
    }

    #[inline]
    fn write(this: &OpenFile, from: &mut UserSliceReader) -> Result<usize> {
        if from.len() != GENERATION_SIZE {
            return Err(enobufs());
        }

        this.watcher.ack(from.read()?)?;

        Ok(GENERATION_SIZE)
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        if iov.len() != GENERATION_SIZE {
            return Err(enobufs());
        }

        let mut value = [0; GENERATION_SIZE];

        if iov.copy_from_iter(&mut value) < GENERATION_SIZE {
            return Err(EFAULT);
        }

        kiocb.file().watcher.ack(u32::from_ne_bytes(value))?;

        Ok(GENERATION_SIZE)
    }

    #[inline]
    fn poll_queue<'a>(this: <Self::Ptr as ForeignOwnable>::Borrowed<'a>) -> &'a WaitQueue {
        this.watcher.becomes_outdated()
    }

    #[inline]
    fn poll(this: &OpenFile) -> u32 {
        if this.watcher.is_outdated() {
            EPOLLIN | EPOLLRDNORM
        } else {
            0
        }
    }

    #[inline]
    fn ioctl(this: &OpenFile, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        // Most of the time nothing is due.
        if this.settler().is_settled() {
            act(file, cmd, arg, this)
        } else {
            look_and_act(file, cmd, arg, this)
        }
        .map(|()| 0)
    }

    fn show_fdinfo(this: &OpenFile, m: &SeqFile, _file: &File) {
        this.settler().look();

        let status = this.watcher.status();
        let reseeded = status.answer.reseeded;

        seq_print!(m, "sysgenid-generation:\t{}\n", status.generation);
        seq_print!(m, "sysgenid-epoch:\t{}\n", status.epoch);
        seq_print!(m, "sysgenid-acked:\t{}\n", status.acked);
        seq_print!(m, "sysgenid-outdated:\t{}\n", u8::from(status.outdated));
        seq_print!(m, "sysgenid-tracked:\t{}\n", u8::from(status.tracked));
        seq_print!(m, "sysgenid-watchers:\t{}\n", status.watchers);
        seq_print!(
            m,
            "sysgenid-outdated-watchers:\t{}\n",
            status.outdated_watchers
        );
        seq_print!(m, "sysgenid-source:\t{}\n", status.source.unwrap_or("none"));
        seq_print!(m, "sysgenid-reseeded:\t{}\n", u8::from(reseeded));
        if let Some(pending) = this.settler().pending() {
            seq_print!(m, "sysgenid-pending:\t{}\n", u8::from(pending));
        }
    }
}
