// SPDX-License-Identifier: GPL-2.0

//! The system generation: a number that changes when this system may have been cloned or restored.
//!
//! Sources of a change (`vmfork`, `vmgenid_acpi`, `exported`, and the ioctl of the device) bump the
//! [`Generation`], and the device `/dev/sysgenid` shows it to user space. A source knows nothing of the
//! device, and the generation knows neither.

use kernel::{
    prelude::*,
    sync::Arc, //
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
#[cfg_attr(
    not(CONFIG_SYSGENID_VMGENID_ACPI),
    expect(dead_code, reason = "only vmgenid_acpi looks at the ID")
)]
mod vmgenid_device;

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
    #[pin]
    device: MiscDeviceRegistration<SysgenidDevice>,
    generation: Arc<Generation>,
}

impl kernel::InPlaceModule for Sysgenid {
    fn init(
        #[cfg_attr(not(CONFIG_SYSGENID_VMGENID_ACPI), expect(unused_variables))]
        module: &'static ThisModule,
    ) -> impl PinInit<Self, Error> {
        // The device comes last: a module whose initialization fails is freed even if somebody has
        // opened the device in between.
        try_pin_init!(Self {
            generation: Generation::new()?,
            _exported: exported::register(generation.clone())?,
            #[cfg(CONFIG_VMGENID)]
            _vmfork <- vmfork::register(generation.clone()),
            #[cfg(CONFIG_SYSGENID_VMGENID_ACPI)]
            _vmgenid_acpi <- vmgenid_acpi::Source::register(module, generation.clone()),
            device <- SysgenidDevice::register(generation.clone()),
            _: {
                generation.announce_on(device.device());
                say_source();
            },
        })
    }
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
