// SPDX-License-Identifier: GPL-2.0

//! Source: the notification of the ACPI VMGenID device.
//!
//! The hypervisor notifies the device when it has changed the VM generation ID, and sometimes when
//! it has not. This listens beside whoever drives the device, and binds nothing: so nothing is to be
//! given back when the module goes. Nothing can be concluded from who is called first.

#![forbid(unsafe_code)]

use crate::{
    abstractions::acpi::{
        AcpiDevice,
        NotifyHandler,
        NotifyRegistration, //
    },
    settling::{
        Settler,
        Source, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// The source, which hears the device for as long as it exists.
pub(crate) type Registration = Pin<KBox<NotifyRegistration<Listener>>>;

/// Has each notification settled.
pub(crate) struct Listener(Arc<Settler>);

/// Registers the source. If that cannot be then this is said in the log.
pub(crate) fn register(device: ARef<AcpiDevice>, settler: Arc<Settler>) -> Option<Registration> {
    KBox::pin_init(
        NotifyRegistration::register(device, Listener(settler)),
        GFP_KERNEL,
    )
    .inspect_err(|err| pr_warn!("the VMGenID device is not heard: {err:?}\n"))
    .ok()
}

impl NotifyHandler for Listener {
    // The specification has one event only, 0x80, and others would do no harm.
    fn notified(&self, _event: u32) {
        self.0.notice(Source::Vmgenid);
    }
}
