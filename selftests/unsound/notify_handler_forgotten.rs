// SPDX-License-Identifier: GPL-2.0
//
// error[E0478]: lifetime bound not satisfied
// error[E0495]: cannot infer an appropriate lifetime for lifetime parameter `'a` due to conflicting requirements
// error[E0597]: `counter` does not live long enough: borrowed value does not live long enough

//! A handler of an ACPI device that borrows, and whose registration is forgotten: ACPICA calls it when
//! what it borrows is gone.

use crate::abstractions::acpi::{
    AcpiDevice,
    NotifyHandler,
    NotifyRegistration, //
};
use core::mem;
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

#[cfg(not(sound))]
type Counter<'a> = &'a Arc<Atomic<u32>>;
#[cfg(sound)]
type Counter<'a> = Arc<Atomic<u32>>;

struct Listener<C>(C);

impl<'a> NotifyHandler for Listener<Counter<'a>> {
    fn notified(&self, _event: u32) {
        self.0.store(1, Relaxed);
    }
}

fn listen(device: ARef<AcpiDevice>) -> Result {
    let counter = Arc::new(Atomic::new(0), GFP_KERNEL)?;
    #[cfg(not(sound))]
    let listener = Listener(&counter);
    #[cfg(sound)]
    let listener = Listener(counter.clone());
    let registration = KBox::pin_init(NotifyRegistration::register(device, listener), GFP_KERNEL)?;

    mem::forget(registration);

    Ok(())
}
