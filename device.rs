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
    },
    generation::{
        Generation,
        Watcher, //
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
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        poll::PollTable,
        Arc, //
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

/// The number of bytes of a generation.
const GENERATION_SIZE: usize = size_of::<u32>();

/// The misc device whose open files are [`Watcher`]s.
pub(crate) struct SysgenidDevice;

impl SysgenidDevice {
    /// Registers the device for `generation`.
    pub(crate) fn register(
        generation: Arc<Generation>,
    ) -> impl PinInit<MiscDeviceRegistration<Self>, Error> {
        let options = MiscDeviceOptions {
            name: c"sysgenid",
            // An ack needs write access, and nothing that an unprivileged process can do here
            // changes the generation.
            mode: 0o666,
        };

        MiscDeviceRegistration::register(options, generation)
    }
}

#[vtable]
impl MiscDevice for SysgenidDevice {
    type Ptr = KBox<Watcher>;
    type RegistrationData = Arc<Generation>;

    fn open(file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let generation = misc.data();

        file.set_stream();
        file.set_nowait();

        // The device can be opened, and the generation changed through it, before the module has
        // come so far as to do this.
        generation.announce_on(misc.device());

        Ok(KBox::new(Watcher::new(generation.clone()), GFP_KERNEL)?)
    }

    fn mmap(watcher: &Watcher, _file: &File, vma: &VmaNew) -> Result {
        watcher.generation().page().map(vma, c"[sysgenid]")
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        match iov.len() {
            0 => return Ok(0),
            len if len < GENERATION_SIZE => return Err(EINVAL),
            _ => (),
        }

        let generation = kiocb.file().wait_outdated(kiocb.nonblocking())?;

        if iov.copy_to_iter(&generation.to_ne_bytes()) < GENERATION_SIZE {
            return Err(EFAULT);
        }

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

        kiocb.file().ack(u32::from_ne_bytes(value))?;

        Ok(GENERATION_SIZE)
    }

    fn poll(watcher: &Watcher, file: &File, table: PollTable<'_>) -> u32 {
        // First this: a change that comes after the look below wakes the poll up again.
        table.register_wait(file, watcher.becomes_outdated());

        if watcher.is_outdated() {
            EPOLLIN | EPOLLRDNORM
        } else {
            0
        }
    }

    fn ioctl(watcher: &Watcher, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            SET_WATCHER_TRACKING => watcher.set_tracked(arg != 0),
            WAIT_WATCHERS => watcher.wait_watchers(arg)?,
            TRIGGER_GEN_UPDATE => {
                if !capable(Capability::CHECKPOINT_RESTORE) && !capable(Capability::SYS_ADMIN) {
                    return Err(EACCES);
                }

                let least = u32::try_from(arg).map_err(|_| EINVAL)?;

                watcher.generation().bump("ioctl", least);
            }
            _ => return Err(ENOTTY),
        }

        Ok(0)
    }

    fn show_fdinfo(watcher: &Watcher, m: &SeqFile, _file: &File) {
        let status = watcher.status();

        seq_print!(m, "sysgenid-generation:\t{}\n", status.generation);
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
        seq_print!(m, "sysgenid-pending:\t{}\n", u8::from(status.pending));
    }
}
