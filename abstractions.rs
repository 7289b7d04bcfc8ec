// SPDX-License-Identifier: GPL-2.0

//! What the driver needs of the kernel and the [`kernel`] crate does not provide.
//!
//! Each file is written as if it were a part of the [`kernel`] crate, and is meant to move there.
//! All `unsafe` code of the driver, and all its use of [`kernel::bindings`], is below this module.

#[cfg(CONFIG_ACPI)]
pub(crate) mod acpi;
pub(crate) mod arc_slot;
pub(crate) mod atomic;
pub(crate) mod capability;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod export;
pub(crate) mod fs;
#[cfg(CONFIG_ACPI)]
pub(crate) mod memremap;
pub(crate) mod miscdevice;
pub(crate) mod module;
#[cfg(any(CONFIG_PM_SLEEP, CONFIG_VMGENID))]
pub(crate) mod notifier;
pub(crate) mod poll;
pub(crate) mod random;
pub(crate) mod shared_page;
#[cfg(CONFIG_PM_SLEEP)]
pub(crate) mod suspend;
pub(crate) mod uevent;
pub(crate) mod vma;
#[cfg(CONFIG_VMGENID)]
pub(crate) mod vmfork;
pub(crate) mod wait_queue;
pub(crate) mod workqueue;
