// SPDX-License-Identifier: GPL-2.0

//! `/dev/vmgenid`: the page in which the hypervisor keeps the VM generation ID.
//!
//! Between the moment when a clone is resumed and the moment when the kernel has heard of it and has
//! changed the generation, user space runs. The page shows the new ID before that: the hypervisor
//! writes it while the machine stands still.
//!
//! Whoever holds the VMGenID device makes no difference: this only looks at where the ID is.
//!
//! Userspace interface: `uapi/linux/sysgenid.h`.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        capability::{
            capable,
            Capability, //
        },
        fs::FileNew,
        memremap::ForeignPage,
        miscdevice::{
            MiscDevice,
            MiscDeviceOptions,
            MiscDeviceRegistration, //
        }, //
    },
    vmgenid_device::{
        IdMemory,
        Refusal,
        ID_SIZE, //
    }, //
};
use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    io::PhysAddr,
    ioctl::_IO,
    iov::IovIterDest,
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// `VMGENID_GET_OFFSET`
const GET_OFFSET: u32 = _IO(0xE4, 0x10);

/// The page, and where in it the ID is.
pub(crate) struct IdPage {
    page: ForeignPage,
    offset: usize,
    id: Arc<IdMemory>,
}

impl IdPage {
    /// Returns the page of `id`.
    ///
    /// # Errors
    ///
    /// Why user space cannot map it.
    fn new(id: Arc<IdMemory>) -> Result<Self, Refusal> {
        let address = id.start();
        // CAST: The remainder is less than the size of a page.
        let offset = (address % PAGE_SIZE as PhysAddr) as usize;

        if offset > PAGE_SIZE - ID_SIZE {
            return Err(Refusal::Straddling(address));
        }

        let page = ForeignPage::around(address).map_err(|_| Refusal::SharedPage(address))?;

        Ok(Self { page, offset, id })
    }
}

/// The misc device.
pub(crate) struct VmgenidDevice;

/// The registration of the device.
pub(crate) type Registration = Pin<KBox<MiscDeviceRegistration<VmgenidDevice>>>;

/// Registers the device for the page of `id`. If that cannot be then this is said in the log.
pub(crate) fn register(id: Arc<IdMemory>) -> Option<Registration> {
    let page = match IdPage::new(id) {
        Ok(page) => page,
        Err(refusal) => {
            pr_warn!("no /dev/vmgenid: {refusal}\n");
            return None;
        }
    };
    let options = MiscDeviceOptions {
        name: c"vmgenid",
        // The ID tells this machine from all others, as the UUID of DMI does, which the kernel
        // shows to root only. To whom else is for the administrator to say.
        mode: 0o400,
    };

    Arc::new(page, GFP_KERNEL)
        .map_err(Error::from)
        .and_then(|page| {
            KBox::pin_init(MiscDeviceRegistration::register(options, page), GFP_KERNEL)
        })
        .inspect_err(|err| pr_warn!("no /dev/vmgenid: {err:?}\n"))
        .ok()
}

#[vtable]
impl MiscDevice for VmgenidDevice {
    type Ptr = Arc<IdPage>;
    type RegistrationData = Arc<IdPage>;

    fn open(file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // Nobody but the hypervisor writes this, whoever asks.
        if file.is_for_writing() {
            return Err(EACCES);
        }

        file.set_nowait();

        Ok(misc.data().clone())
    }

    fn mmap(this: ArcBorrow<'_, IdPage>, _file: &File, vma: &VmaNew) -> Result {
        this.page.map(vma)
    }

    // Wherever the file position is.
    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        if iov.len() < ID_SIZE {
            return Err(EINVAL);
        }

        if iov.copy_to_iter(&kiocb.file().id.read()) < ID_SIZE {
            return Err(EFAULT);
        }

        Ok(ID_SIZE)
    }

    fn ioctl(this: ArcBorrow<'_, IdPage>, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        match cmd {
            GET_OFFSET => Ok(this.offset as isize),
            _ => Err(ENOTTY),
        }
    }

    fn show_fdinfo(this: ArcBorrow<'_, IdPage>, m: &SeqFile, _file: &File) {
        seq_print!(m, "vmgenid-offset:\t{}\n", this.offset);

        if capable(Capability::SYS_ADMIN) {
            seq_print!(m, "vmgenid-id:\t");
            for byte in this.id.read() {
                seq_print!(m, "{byte:02x}");
            }
            seq_print!(m, "\n");
        }
    }
}
