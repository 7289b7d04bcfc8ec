// SPDX-License-Identifier: GPL-2.0

//! The system generation: a number that changes when this system may have been cloned or restored.
//!
//! Sources (`vmfork`, `vmgenid_acpi`, `suspend`, `exported`, and the ioctl of the device) say that a
//! change is due, or ask for one. [`settling`] makes it, in order with the kernel's random number
//! generator. The device `/dev/sysgenid` shows the [`generation`] to user space. `/dev/vmgenid` shows
//! what the hypervisor itself writes, and what was answered.

use kernel::prelude::*;
#[cfg(CONFIG_ACPI)]
use kernel::sync::{
    aref::ARef,
    Arc, //
};

#[cfg(CONFIG_ACPI)]
use crate::{
    abstractions::acpi::AcpiDevice,
    vmgenid_device::IdMemory, //
};
use crate::{
    abstractions::miscdevice::MiscDeviceRegistration,
    device::SysgenidDevice,
    settling::{
        KernelRandom,
        Settling, //
    }, //
};

mod abstractions;
mod announce;
mod device;
mod exported;
mod generation;
mod pages;
mod settling;
mod sign;
#[cfg(CONFIG_PM_SLEEP)]
mod suspend;
// Without VMGENID the kernel has no such notification.
#[cfg(CONFIG_VMGENID)]
mod vmfork;
#[cfg(CONFIG_ACPI)]
mod vmgenid_acpi;
#[cfg(CONFIG_ACPI)]
mod vmgenid_device;
#[cfg(CONFIG_ACPI)]
mod vmgenid_page;

module! {
    type: Sysgenid,
    name: "sysgenid",
    authors: ["The sysgenid authors"],
    description: "System generation ID",
    license: "GPL",
    // The devices of `vmgenid_device`, so that a machine that has one loads the module by itself.
    alias: ["acpi*:VMGENCTR:*", "acpi*:VM_GEN_COUNTER:*"],
}

/// The parts are dropped in the order of the fields: sources first, then what settles their changes,
/// which announces what is left to be announced, and last the devices. Nobody can open these any more,
/// nor has them open or mapped.
#[pin_data]
struct Sysgenid {
    _exported: exported::Registration,
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    _suspend: suspend::Registration,
    #[cfg(CONFIG_ACPI)]
    _vmgenid_acpi: Option<vmgenid_acpi::Registration>,
    #[cfg(CONFIG_VMGENID)]
    #[pin]
    _vmfork: vmfork::Registration,
    _settling: Settling,
    #[cfg(CONFIG_ACPI)]
    _vmgenid_page: Option<vmgenid_page::Registration>,
    #[pin]
    device: MiscDeviceRegistration<SysgenidDevice>,
}

impl kernel::InPlaceModule for Sysgenid {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            #[cfg(CONFIG_ACPI)]
            let vmgenid = find_vmgenid();
            #[cfg(CONFIG_ACPI)]
            let sign = vmgenid.as_ref().map(|(_, id)| id.clone());
            #[cfg(not(CONFIG_ACPI))]
            let sign = None;

            let random = KBox::new(KernelRandom::new(), GFP_KERNEL)?;
            let settling = Settling::begin(sign, random)?;
            let settler = settling.settler().clone();

            // The devices come last, and of them the one whose registration can fail comes first: a
            // module whose initialization fails is freed even if somebody has opened a device in
            // between.
            Ok(try_pin_init!(Self {
                _settling: settling,
                _exported: exported::register(settler.clone())?,
                #[cfg(CONFIG_PM_SLEEP)]
                _suspend <- suspend::register(settler.clone()),
                #[cfg(CONFIG_VMGENID)]
                _vmfork <- vmfork::register(settler.clone()),
                #[cfg(CONFIG_ACPI)]
                _vmgenid_acpi: vmgenid.as_ref().and_then(|(device, _)| {
                    vmgenid_acpi::register(device.clone(), settler.clone())
                }),
                device <- SysgenidDevice::register(settler.clone()),
                #[cfg(CONFIG_ACPI)]
                _vmgenid_page: vmgenid.and_then(|(_, id)| {
                    vmgenid_page::register(id, settler.clone())
                }),
                _: {
                    settler.announce_on(device.device());
                    // What has changed before anybody listened.
                    settler.look();
                },
            }))
        })
    }
}

/// Returns the VMGenID device, and where the hypervisor keeps its ID. If there is none, or nobody knows
/// which one it is, then this is said in the log.
#[cfg(CONFIG_ACPI)]
fn find_vmgenid() -> Option<(ARef<AcpiDevice>, Arc<IdMemory>)> {
    vmgenid_device::find_sole()
        .map_err(|absence| pr_info!("no VM generation ID: {absence}\n"))
        .and_then(|(device, id)| {
            pr_info!("VM generation ID at {:#x}\n", id.start());
            Arc::new(id, GFP_KERNEL)
                .map(|id| (device, id))
                .map_err(|err| pr_warn!("no VM generation ID: {err:?}\n"))
        })
        .ok()
}
