// SPDX-License-Identifier: GPL-2.0

//! The system generation: a number that changes when this system may have been cloned or restored.
//!
//! Sources of a change (`vmfork`, `exported`, and the ioctl of the device) bump the [`Generation`],
//! and the device `/dev/sysgenid` shows it to user space. A source knows nothing of the device, and
//! the generation knows neither.

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

module! {
    type: Sysgenid,
    name: "sysgenid",
    authors: ["The sysgenid authors"],
    description: "System generation ID",
    license: "GPL",
}

/// The parts are dropped in the order of the fields: sources first, then the device.
#[pin_data]
struct Sysgenid {
    _exported: exported::Source,
    #[cfg(CONFIG_VMGENID)]
    #[pin]
    _vmfork: vmfork::Source,
    #[pin]
    device: MiscDeviceRegistration<SysgenidDevice>,
    generation: Arc<Generation>,
}

impl kernel::InPlaceModule for Sysgenid {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // The device comes last: a module whose initialization fails is freed even if somebody has
        // opened the device in between.
        try_pin_init!(Self {
            generation: Generation::new()?,
            #[cfg(CONFIG_VMGENID)]
            _vmfork <- vmfork::register(generation.clone()),
            _exported: exported::register(generation.clone())?,
            device <- SysgenidDevice::register(generation.clone()),
            _: {
                generation.announce_on(device.device());

                if cfg!(CONFIG_VMGENID) {
                    pr_info!("source vmfork: the kernel's notification of virtual machine forks\n");
                } else {
                    pr_warn!("no source: only a privileged program can change the generation\n");
                }
            },
        })
    }
}
