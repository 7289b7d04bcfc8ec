// SPDX-License-Identifier: GPL-2.0
//
// error[E0477]: the type `Box<&'a Data, Kmalloc>` does not fulfill the required lifetime
// error[E0477]: the type `&'a Data` does not fulfill the required lifetime

//! A file that borrows what the registration of its device borrows: it stays open when both are gone.

use crate::abstractions::{
    fs::FileNew,
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    }, //
};
use core::marker::PhantomData;
use kernel::prelude::*;

struct Data;

#[cfg(not(sound))]
type Lent<'a> = &'a Data;
#[cfg(sound)]
type Lent<'a> = &'static Data;

struct Device<'a>(PhantomData<&'a Data>);

#[vtable]
impl<'a> MiscDevice for Device<'a> {
    type Ptr = KBox<Lent<'a>>;
    type RegistrationData = Lent<'a>;

    fn open(_file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        Ok(KBox::new(*misc.data(), GFP_KERNEL)?)
    }
}
