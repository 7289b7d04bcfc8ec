// SPDX-License-Identifier: GPL-2.0

//! Source: the ACPI VMGenID device, where no other driver holds it.
//!
//! The hypervisor notifies the device when it has changed the VM generation ID, and sometimes when
//! it has not. If the ID differs from the last one, then this system is a clone.
//!
//! With `CONFIG_VMGENID` the kernel can be told of that: `add_vmfork_randomness()` reseeds the random
//! number generator and then notifies [`vmfork`](crate::vmfork), which changes the generation; so the
//! order is the same whoever holds the device. Without it there is no way to force a reseed. All that
//! can be done is to mix the new ID in, before the generation is changed from here.
//!
//! With `CONFIG_VMGENID=y` the kernel's own driver holds the device from boot on, and this file is
//! not built. With `CONFIG_VMGENID=m` the first driver that is loaded gets the device, and the other
//! one finds it taken.

#![forbid(unsafe_code)]

#[cfg(not(CONFIG_VMGENID))]
use crate::abstractions::arc_slot::{
    ArcSlot,
    FilledArcSlot, //
};
#[cfg(CONFIG_VMGENID)]
use crate::abstractions::random::add_vmfork_randomness;
use crate::{
    abstractions::{
        acpi::{
            AcpiDevice,
            NotifyHandler,
            NotifyRegistration, //
        },
        random::add_device_randomness, //
    },
    generation::Generation,
    vmgenid_device::{
        map_id,
        IdMemory,
        IDS,
        ID_SIZE, //
    }, //
};
use kernel::{
    acpi::{
        self,
        DeviceId, //
    },
    device::{
        Bound,
        Core,
        Device, //
    },
    device_id::IdArray,
    driver::Registration,
    new_mutex,
    platform,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// Where a device finds the generation: the driver core hands none to a probe.
#[cfg(not(CONFIG_VMGENID))]
static GENERATION: ArcSlot<Generation> = ArcSlot::new();

/// The source, which hears the device for as long as it exists.
#[pin_data]
pub(crate) struct Source {
    // The driver is dropped first: no device uses the slot afterwards.
    #[pin]
    _driver: Registration<platform::Adapter<Driver>>,
    #[cfg(not(CONFIG_VMGENID))]
    _generation: FilledArcSlot<Generation>,
}

impl Source {
    /// Registers the source.
    pub(crate) fn register(
        module: &'static ThisModule,
        #[cfg_attr(CONFIG_VMGENID, expect(unused_variables))] generation: Arc<Generation>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            #[cfg(not(CONFIG_VMGENID))]
            _generation: GENERATION.fill(generation)?,
            _driver <- Registration::new(c"sysgenid", module),
        })
    }
}

/// A VM generation ID.
type Id = [u8; ID_SIZE];

/// What is heard, and what is known of it.
#[pin_data]
pub(crate) struct Listener {
    memory: IdMemory,
    /// The ID that was seen last. Held while a new one is acted on, so that two notifications at once
    /// do not do that twice, or in the wrong order.
    #[pin]
    last: Mutex<Id>,
}

impl Listener {
    fn new(memory: IdMemory, id: Id) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            memory,
            last <- new_mutex!(id, "Listener::last"),
        })
    }

    /// Looks at the ID, and if it is a new one, says so.
    fn look(&self) {
        let mut last = self.last.lock();
        let id = self.memory.read();

        if id != *last {
            *last = id;
            cloned(&id);
        }
    }
}

impl NotifyHandler for Listener {
    // The specification has one event only, 0x80, and others would do no harm.
    fn notified(&self, _event: u32) {
        self.look();
    }
}

/// Says that this system has become the clone with that ID.
#[cfg(CONFIG_VMGENID)]
fn cloned(id: &Id) {
    add_vmfork_randomness(id);
}

/// Says that this system has become the clone with that ID.
#[cfg(not(CONFIG_VMGENID))]
fn cloned(id: &Id) {
    add_device_randomness(id);

    if let Some(generation) = GENERATION.get() {
        generation.bump_for_sign("vmgenid");
    }
}

/// The driver.
pub(crate) enum Driver {}

/// The IDs as the driver core compares them. They make no aliases for the module: those are in
/// `sysgenid.rs`, also where this file is not built.
static ID_TABLE: IdArray<DeviceId, (), { IDS.len() }> =
    IdArray::new([(DeviceId::new(IDS[0]), &()), (DeviceId::new(IDS[1]), &())]);

impl platform::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = NotifyRegistration<'bound, Listener>;

    const ACPI_ID_TABLE: Option<acpi::IdTable<Self::IdInfo>> = Some(&ID_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _id_info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let dev: &'bound Device<Bound> = pdev.as_ref();

        pin_init::pin_init_scope(move || {
            let device = AcpiDevice::companion_of(dev).ok_or(ENODEV)?;
            let memory = map_id(device).map_err(|refusal| {
                dev_err!(dev, "{refusal}\n");
                refusal.errno()
            })?;
            let id = memory.read();

            // It tells this machine from others that are alike, which is good for the random number
            // generator early after boot.
            add_device_randomness(&id);

            Ok(
                NotifyRegistration::register(dev, Listener::new(memory, id)).pin_chain(
                    move |registration| {
                        dev_info!(dev, "notifications of this VMGenID device are heard\n");
                        // If the machine was cloned after the ID was read and before the
                        // registration, then that notification was lost.
                        registration.handler().look();

                        Ok(())
                    },
                ),
            )
        })
    }
}
