// SPDX-License-Identifier: GPL-2.0

//! What the driver needs of the kernel and the [`kernel`] crate does not provide.
//!
//! Each file is written as if it were a part of the [`kernel`] crate, and is meant to move there.
//! All `unsafe` code of the driver, and all its use of [`kernel::bindings`], is below this module.

pub(crate) mod arc_slot;
pub(crate) mod capability;
pub(crate) mod error;
pub(crate) mod export;
pub(crate) mod fs;
pub(crate) mod miscdevice;
pub(crate) mod module;
pub(crate) mod poll;
#[cfg(CONFIG_VMGENID)]
pub(crate) mod random;
pub(crate) mod shared_page;
pub(crate) mod uevent;
