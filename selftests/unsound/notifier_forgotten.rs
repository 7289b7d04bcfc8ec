// SPDX-License-Identifier: GPL-2.0
//
// error[E0478]: lifetime bound not satisfied
// error[E0495]: cannot infer an appropriate lifetime for lifetime parameter `'a` due to conflicting requirements
// error[E0597]: `counter` does not live long enough: borrowed value does not live long enough

//! A handler of a chain of notifiers that borrows, and whose registration is forgotten: the chain calls
//! it when what it borrows is gone.

use crate::abstractions::{
    notifier::{
        Handler,
        Registration, //
    },
    vmfork::VmForks, //
};
use core::mem;
use kernel::{
    prelude::*,
    sync::{
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

impl<'a> Handler<VmForks> for Listener<Counter<'a>> {
    fn called(&self, _action: c_ulong) {
        self.0.store(1, Relaxed);
    }
}

fn listen() -> Result {
    let counter = Arc::new(Atomic::new(0), GFP_KERNEL)?;
    #[cfg(not(sound))]
    let listener = Listener(&counter);
    #[cfg(sound)]
    let listener = Listener(counter.clone());
    let registration = KBox::pin_init(Registration::register(listener), GFP_KERNEL)?;

    mem::forget(registration);

    Ok(())
}
