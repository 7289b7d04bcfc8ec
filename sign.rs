// SPDX-License-Identifier: GPL-2.0

//! Signs: what shows from outside of this system that a change of the generation is due.

#![forbid(unsafe_code)]

use crate::pages::Id;
#[cfg(CONFIG_ACPI)]
use {
    crate::vmgenid_device::IdMemory,
    kernel::sync::Arc, //
};

/// What shows from outside of this system that a change is due, before anybody has told the driver.
pub(crate) trait Sign: Send + Sync + 'static {
    /// Returns what it shows now: something else than before if a change is due.
    ///
    /// Called in any context.
    fn value(&self) -> Id;
}

/// The sign that a machine of this kind can have.
//
// A type, and no trait object: each ioctl looks at it.
#[cfg(CONFIG_ACPI)]
pub(crate) type MachineSign = Arc<IdMemory>;
/// The sign that a machine of this kind can have.
#[cfg(not(CONFIG_ACPI))]
pub(crate) type MachineSign = NoSign;

/// There is no such sign.
#[cfg(not(CONFIG_ACPI))]
pub(crate) enum NoSign {}

#[cfg(not(CONFIG_ACPI))]
impl Sign for NoSign {
    fn value(&self) -> Id {
        match *self {}
    }
}
