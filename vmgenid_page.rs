// SPDX-License-Identifier: GPL-2.0

//! `/dev/vmgenid`: the page in which the hypervisor keeps the VM generation ID, and the answer to it.
//!
//! Between the moment when a clone is resumed and the moment when the kernel has heard of it and has
//! changed the generation, user space runs. The page shows the new ID before that: the hypervisor
//! writes it while the machine stands still. The answer shows for which ID the generation was changed
//! last.
//!
//! Whoever holds the VMGenID device makes no difference: this only looks at where the ID is.
//!
//! Userspace interface: `uapi/linux/sysgenid.h`.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        capability::{
            has_capability,
            Capability, //
        },
        fs::{
            FileExt,
            FileNew, //
        },
        memremap::{
            ForeignPage,
            Refusal, //
        },
        miscdevice::{
            MiscDevice,
            MiscDeviceOptions,
            MiscDeviceRegistration, //
        },
        shared_page::SharedPage,
        vma::EmptyArea, //
    },
    pages::AnswerPage,
    settling::{
        Settler,
        User, //
    },
    vmgenid_device::{
        IdMemory,
        ID_SIZE, //
    }, //
};
use kernel::{
    fmt,
    fs::{
        File,
        Kiocb, //
    },
    io::PhysAddr,
    ioctl::_IO,
    iov::IovIterDest,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc, //
};

/// `VMGENID_GET_OFFSET`
const GET_OFFSET: u32 = _IO(0xE4, 0x10);

/// Why user space cannot map the page of the ID.
enum Unmappable {
    /// The ID is not in one page.
    Straddling,
    /// The page is not for user space.
    Refused(Refusal),
}

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Straddling => f.write_str("the ID is not in one page"),
            Self::Refused(Refusal::NotReserved) => {
                f.write_str("a part of the page of the ID is not in reserved memory")
            }
            Self::Refused(Refusal::NotEmpty) => {
                f.write_str("there is something else in the page of the ID")
            }
            Self::Refused(Refusal::Mapping(err)) => {
                f.write_fmt(fmt!("cannot look at the page of the ID: {err:?}"))
            }
        }
    }
}

/// The ID, and the page in which it is.
pub(crate) struct IdPage {
    id: Arc<IdMemory>,
    offset: usize,
    page: Option<ForeignPage>,
    settler: Arc<Settler>,
}

impl IdPage {
    /// Returns the page of `id`. If user space cannot map it then this is said in the log.
    fn new(id: Arc<IdMemory>, settler: Arc<Settler>) -> Self {
        let address = id.start();
        // CAST: The remainder is less than the size of a page.
        let offset = (address % PAGE_SIZE as PhysAddr) as usize;
        let page = if offset > PAGE_SIZE - ID_SIZE {
            Err(Unmappable::Straddling)
        } else {
            ForeignPage::new(address - offset as PhysAddr, offset..offset + ID_SIZE)
                .map_err(Unmappable::Refused)
        };

        Self {
            id,
            offset,
            page: page
                .inspect_err(|why| {
                    pr_warn!("/dev/vmgenid can be read, but the ID cannot be mapped: {why}\n");
                })
                .ok(),
            settler,
        }
    }
}

/// An open file of the device.
pub(crate) struct OpenFile {
    page: Arc<IdPage>,
    user: User,
    /// Whether who has opened it may see in its description what else it may read of it.
    privileged: bool,
}

/// The misc device.
pub(crate) struct VmgenidDevice;

/// The registration of the device.
pub(crate) type Registration = Pin<KBox<MiscDeviceRegistration<VmgenidDevice>>>;

/// Registers the device for `id`. If that cannot be then this is said in the log.
pub(crate) fn register(id: Arc<IdMemory>, settler: Arc<Settler>) -> Option<Registration> {
    let options = MiscDeviceOptions {
        name: c"vmgenid",
        // The ID tells this machine from all others, as the UUID of DMI does, which the kernel
        // shows to root only. To whom else is for the administrator to say.
        mode: 0o400,
    };

    Arc::new(IdPage::new(id, settler), GFP_KERNEL)
        .map_err(Error::from)
        .and_then(|page| {
            KBox::pin_init(MiscDeviceRegistration::register(options, page), GFP_KERNEL)
        })
        .inspect_err(|err| pr_warn!("no /dev/vmgenid: {err:?}\n"))
        .ok()
}

#[vtable]
impl MiscDevice for VmgenidDevice {
    type Ptr = KBox<OpenFile>;
    type RegistrationData = Arc<IdPage>;

    fn open(file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let page = misc.data();

        // Nobody but the hypervisor writes this, whoever asks.
        if file.is_for_writing() {
            return Err(EACCES);
        }

        file.set_nowait();

        let open = KBox::new(
            OpenFile {
                page: page.clone(),
                user: User::new(page.settler.clone()),
                privileged: has_capability(Capability::SYS_ADMIN),
            },
            GFP_KERNEL_ACCOUNT,
        )?;

        page.settler.look();

        Ok(open)
    }

    fn mmap(this: &OpenFile, file: &File, area: EmptyArea<'_>) -> Result {
        match area.page_offset() {
            0 => {
                let area = area.restrict_to_reading_one_page()?;

                this.page.page.as_ref().ok_or(ENODEV)?.map(area)
            }
            1 => SharedPage::<AnswerPage>::map(
                area.restrict_to_reading_one_page()?,
                file,
                c"dev/vmgenid",
                this.user.clone(),
            ),
            _ => Err(EINVAL),
        }
    }

    // The file is as long as the ID.
    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        match usize::try_from(kiocb.ki_pos()) {
            Ok(0) if iov.len() >= ID_SIZE => (),
            Ok(ID_SIZE..) => return Ok(0),
            _ => return Err(EINVAL),
        }

        if iov.copy_to_iter(&kiocb.file().page.id.read()) < ID_SIZE {
            return Err(EFAULT);
        }

        *kiocb.ki_pos_mut() += ID_SIZE as i64;

        Ok(ID_SIZE)
    }

    fn ioctl(this: &OpenFile, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        this.user.settler().look();

        match cmd {
            GET_OFFSET => Ok(this.page.offset as isize),
            _ => Err(ENOTTY),
        }
    }

    fn show_fdinfo(this: &OpenFile, m: &SeqFile, _file: &File) {
        this.user.settler().look();

        seq_print!(m, "vmgenid-offset:\t{}\n", this.page.offset);

        if this.privileged {
            show_id(m, c"vmgenid-id", this.page.id.read());
            let answer = this.user.answer();

            show_id(m, c"vmgenid-answered", answer.id.to_bytes());
        }
    }
}

fn show_id(m: &SeqFile, key: &CStr, id: [u8; ID_SIZE]) {
    seq_print!(m, "{key}:\t");
    for byte in id {
        seq_print!(m, "{byte:02x}");
    }
    seq_print!(m, "\n");
}
