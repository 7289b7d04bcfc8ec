// SPDX-License-Identifier: GPL-2.0

//! Source: the kernel's own notification of a virtual machine fork.
//!
//! The kernel's VMGenID driver (`drivers/virt/vmgenid.c`) holds the device. When the identity of the
//! virtual machine has changed it calls `add_vmfork_randomness()` (`drivers/char/random.c`), which
//! reseeds the random number generator and then notifies us: in process context for an ACPI device,
//! and in a hard interrupt for one of a device tree. Which identity that was nobody says.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        notifier::{
            self,
            Handler, //
        },
        vmfork::VmForks, //
    },
    settling::{
        Settler,
        Source, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The source, which hears the notifications for as long as it exists.
pub(crate) type Registration = notifier::Registration<VmForks, Listener>;

/// Has each fork settled.
pub(crate) struct Listener(Arc<Settler>);

/// Registers the source.
pub(crate) fn register(settler: Arc<Settler>) -> impl PinInit<Registration, Error> {
    Registration::register(Listener(settler))
}

impl Handler<VmForks> for Listener {
    fn called(&self, _action: c_ulong) {
        self.0.notice(Source::VmFork);
    }
}
