// SPDX-License-Identifier: GPL-2.0
//
// error[E0515]: cannot return value referencing temporary value: returns a value referencing data owned by the current function

//! A misc device whose polls wait in a queue that may be gone before its file is.

use crate::abstractions::{
    fs::FileNew,
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    wait_queue::WaitQueue, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    types::ForeignOwnable, //
};

#[pin_data]
struct OpenFile {
    own: Arc<WaitQueue>,
    #[pin]
    present: SpinLock<Arc<WaitQueue>>,
}

struct Device;

#[vtable]
impl MiscDevice for Device {
    type Ptr = Pin<KBox<OpenFile>>;
    type RegistrationData = Arc<WaitQueue>;

    fn open(_file: &FileNew, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let queue = misc.data();

        KBox::pin_init(
            pin_init!(OpenFile {
                own: queue.clone(),
                present <- new_spinlock!(queue.clone()),
            }),
            GFP_KERNEL,
        )
    }

    fn poll_queue<'a>(this: <Self::Ptr as ForeignOwnable>::Borrowed<'a>) -> &'a WaitQueue {
        let this = this.get_ref();

        #[cfg(sound)]
        let queue = &this.own;
        #[cfg(not(sound))]
        let queue = &this.present.lock();

        queue
    }

    fn poll(_this: <Self::Ptr as ForeignOwnable>::Borrowed<'_>) -> u32 {
        0
    }
}
