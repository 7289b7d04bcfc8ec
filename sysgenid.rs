// SPDX-License-Identifier: GPL-2.0

//! The system generation: a number that changes when this system may have been cloned or restored.
//!
//! Sources of a change (`vmfork`, `vmgenid_acpi`, `exported`, and the ioctl of the device) bump the
//! [`Generation`], and the device `/dev/sysgenid` shows it to user space. A source knows nothing of the
//! device, and the generation knows neither. `/dev/vmgenid` shows what the hypervisor itself writes.

use kernel::{
    prelude::*,
    sync::Arc, //
};

#[cfg(CONFIG_ACPI)]
use crate::vmgenid_device::{
    Absence,
    IdMemory, //
};
use crate::{
    abstractions::miscdevice::MiscDeviceRegistration,
    device::SysgenidDevice,
    generation::Generation, //
};

mod abstractions;
mod device;
mod exported;
mod generation;
// Without VMGENID the kernel has no such notification.
#[cfg(CONFIG_VMGENID)]
mod vmfork;
// With VMGENID=y the kernel's own driver has the device before this one could get it.
#[cfg(CONFIG_SYSGENID_VMGENID_ACPI)]
mod vmgenid_acpi;
#[cfg(CONFIG_ACPI)]
mod vmgenid_device;
#[cfg(CONFIG_ACPI)]
mod vmgenid_page;

/// What tells the driver of clones.
const SOURCE: Option<&str> = if cfg!(CONFIG_VMGENID) {
    Some("vmfork: the kernel's notification of virtual machine forks")
} else if cfg!(CONFIG_SYSGENID_VMGENID_ACPI) {
    Some("vmgenid: the ACPI VMGenID device")
} else {
    None
};

module! {
    type: Sysgenid,
    name: "sysgenid",
    authors: ["The sysgenid authors"],
    description: "System generation ID",
    license: "GPL",
    // The devices of `vmgenid_device`, so that a machine that has one loads the module by itself.
    alias: ["acpi*:VMGENCTR:*", "acpi*:VM_GEN_COUNTER:*"],
}

/// The parts are dropped in the order of the fields: sources first, then the device.
#[pin_data]
struct Sysgenid {
    _exported: exported::Source,
    #[cfg(CONFIG_SYSGENID_VMGENID_ACPI)]
    #[pin]
    _vmgenid_acpi: vmgenid_acpi::Source,
    #[cfg(CONFIG_VMGENID)]
    #[pin]
    _vmfork: vmfork::Source,
    #[cfg(CONFIG_ACPI)]
    _vmgenid_page: Option<vmgenid_page::Registration>,
    #[pin]
    device: MiscDeviceRegistration<SysgenidDevice>,
}

impl kernel::InPlaceModule for Sysgenid {
    fn init(
        #[cfg_attr(not(CONFIG_SYSGENID_VMGENID_ACPI), expect(unused_variables))]
        module: &'static ThisModule,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let generation = Generation::new()?;
            #[cfg(CONFIG_ACPI)]
            let id = vmgenid_id(&generation)?;

            // The devices come last, and of them the one whose registration can fail comes first: a
            // module whose initialization fails is freed even if somebody has opened a device in
            // between.
            Ok(try_pin_init!(Self {
                _exported: exported::register(generation.clone())?,
                #[cfg(CONFIG_VMGENID)]
                _vmfork <- vmfork::register(generation.clone()),
                #[cfg(CONFIG_SYSGENID_VMGENID_ACPI)]
                _vmgenid_acpi <- vmgenid_acpi::Source::register(module, generation.clone()),
                device <- SysgenidDevice::register(generation.clone()),
                #[cfg(CONFIG_ACPI)]
                _vmgenid_page: id.and_then(vmgenid_page::register),
                _: {
                    generation.announce_on(device.device());
                    say_source();
                },
            }))
        })
    }
}

/// Returns where the hypervisor keeps the VM generation ID, and has the generation heed it. If there is
/// none, or nobody knows which one, then this is said in the log.
///
/// # Errors
///
/// [`ENOMEM`] if memory is short.
#[cfg(CONFIG_ACPI)]
fn vmgenid_id(generation: &Generation) -> Result<Option<Arc<IdMemory>>> {
    let id = match vmgenid_device::map_sole_id() {
        Ok(id) => Arc::new(id, GFP_KERNEL)?,
        Err(Absence::Refused(refusal)) if refusal.errno() == ENOMEM => return Err(ENOMEM),
        Err(absence) => {
            pr_info!("no /dev/vmgenid: {absence}\n");
            return Ok(None);
        }
    };

    generation.heed(KBox::new(id.clone(), GFP_KERNEL)?);

    Ok(Some(id))
}

/// Says in the log which source is in use.
fn say_source() {
    match SOURCE {
        Some(source) => pr_info!("source {source}\n"),
        None => pr_warn!("no source: only a privileged program can change the generation\n"),
    }
    if cfg!(all(CONFIG_SYSGENID_VMGENID_ACPI, not(CONFIG_VMGENID))) {
        pr_warn!("this kernel is built without VMGENID: it cannot be made to reseed at once\n");
    }
    #[cfg(CONFIG_ACPI)]
    vmgenid_device::say_who_holds_it();
}
