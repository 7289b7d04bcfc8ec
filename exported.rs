// SPDX-License-Identifier: GPL-2.0

//! Source: other kernel code, which calls `sysgenid_bump_generation()`.
//!
//! C header: `include/linux/sysgenid.h`.
//!
//! A module that calls the function has a reference to this one: the kernel takes it when it
//! resolves the symbol (`resolve_symbol()` and `ref_module()` in `kernel/module/main.c`), and drops
//! it when the calling module is gone. It does not resolve the symbol, but waits, as long as this
//! module is being initialized (`strong_try_module_get()` and `resolve_symbol_wait()`); if that
//! fails then the calling module is not loaded. So such a call always finds the source registered.
//!
//! Where the driver is built into the kernel, other code can call the function at any time, also
//! before the driver is initialized. Then there is nobody yet who could have seen a generation, and
//! nothing to be done.

use crate::{
    abstractions::{
        arc_slot::{
            ArcSlot,
            FilledArcSlot, //
        },
        export::export_symbol_gpl, //
    },
    settling::Settler, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Where the exported function finds what makes the change.
static SETTLER: ArcSlot<Settler> = ArcSlot::new();

/// The source, which changes the generation for as long as it exists.
pub(crate) type Registration = FilledArcSlot<Settler>;

/// Registers the source.
///
/// # Errors
///
/// [`EBUSY`] if there is one.
pub(crate) fn register(settler: Arc<Settler>) -> Result<Registration> {
    SETTLER.fill(settler)
}

export_symbol_gpl! {
    /// `sysgenid_bump_generation()`
    extern "C" fn sysgenid_bump_generation() {
        SETTLER.with(|settler| Arc::from(settler).bump());
    }
}
