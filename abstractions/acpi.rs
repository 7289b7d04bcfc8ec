// SPDX-License-Identifier: GPL-2.0

//! Devices of the ACPI namespace: finding them, evaluating their objects, hearing their
//! notifications.
//!
//! C headers: [`include/acpi/acpi_bus.h`](srctree/include/acpi/acpi_bus.h),
//! [`include/acpi/acpixf.h`](srctree/include/acpi/acpixf.h)
//!
//! Reference: <https://uefi.org/specs/ACPI/6.5/>

use core::{
    iter,
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};
use kernel::{
    bindings,
    device::Device,
    fmt,
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque, //
};

/// A status of ACPICA other than `AE_OK`. It is shown by its name.
#[derive(Clone, Copy)]
pub(crate) struct Status(bindings::acpi_status);

impl Status {
    /// Makes a result of what a function of ACPICA returns.
    fn to_result(status: bindings::acpi_status) -> Result<(), Self> {
        // `AE_OK` is a macro with a cast, for which there is no binding.
        match status {
            0 => Ok(()),
            other => Err(Self(other)),
        }
    }

    /// Returns [`ENOMEM`] if the status is that memory was short, and `otherwise` if it is another
    /// one.
    pub(crate) fn errno(self, otherwise: Error) -> Error {
        // `AE_NO_MEMORY` is a macro with a cast, for which there is no binding.
        match self.0 {
            4 => ENOMEM,
            _ => otherwise,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: This looks the number up in tables, and has an answer for each number.
        let name = unsafe { bindings::acpi_format_exception(self.0) };

        // SAFETY: All answers are string literals.
        fmt::Display::fmt(unsafe { CStr::from_char_ptr(name) }, f)
    }
}

/// A device of the ACPI namespace.
///
/// # Invariants
///
/// An instance is a valid `struct acpi_device`. Its handle is that of a node of the namespace or, when
/// that is gone, one that ACPICA refuses (`acpi_scan_drop_device()`).
#[repr(transparent)]
pub(crate) struct AcpiDevice(Opaque<bindings::acpi_device>);

// SAFETY: The reference count is that of the embedded `struct device`, and is positive for as long as
// there is a reference.
unsafe impl AlwaysRefCounted for AcpiDevice {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants the device is valid; `self` proves that its reference count
        // is positive.
        unsafe { bindings::get_device(&raw mut (*self.0.get()).dev) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let device = obj.as_ptr().cast::<bindings::acpi_device>();

        // SAFETY: The caller guarantees that there is a reference count to be given up, so the
        // device is valid.
        unsafe { bindings::put_device(&raw mut (*device).dev) };
    }
}

impl AsRef<Device> for AcpiDevice {
    fn as_ref(&self) -> &Device {
        // SAFETY: By the type invariants the device is valid, and so is the `struct device` in it,
        // for as long as `self` is borrowed.
        unsafe { Device::from_raw(&raw mut (*self.0.get()).dev) }
    }
}

impl AcpiDevice {
    /// Returns the devices that have `id` as their hardware ID or among their compatible IDs, and
    /// whose status says that they are present.
    ///
    /// Each step of the iterator may sleep, and so may this function.
    pub(crate) fn find(id: &CStr) -> impl Iterator<Item = ARef<Self>> + '_ {
        iter::successors(Self::find_after(None, id), move |found| {
            Self::find_after(Some(found.clone()), id)
        })
    }

    fn find_after(found: Option<ARef<Self>>, id: &CStr) -> Option<ARef<Self>> {
        let found = found.map_or(ptr::null_mut(), |device| ARef::into_raw(device).as_ptr());

        // SAFETY: `found` is null, for the first device, or a valid one, and the reference to it is
        // ours to give up. `id` is a valid string. There need not be a unique ID, and -1 stands for
        // any revision.
        let device = unsafe {
            bindings::acpi_dev_get_next_match_dev(found.cast(), id.as_char_ptr(), ptr::null(), -1)
        };

        // SAFETY: If this is not null then it is a valid device, whose reference count was
        // incremented for us. `Self` is a transparent wrapper of it.
        NonNull::new(device).map(|device| unsafe { ARef::from_raw(device.cast()) })
    }

    fn handle(&self) -> bindings::acpi_handle {
        // This can change at any time, when the table is unloaded that describes the device.
        //
        // SAFETY: By the type invariants the device is valid. The handle is set before it is
        // registered.
        unsafe { (&raw const (*self.0.get()).handle).read_volatile() }
    }

    /// Evaluates the object called `name` of this device, without arguments. It may be a method.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// What ACPICA says, for example that there is no such object.
    pub(crate) fn evaluate(&self, name: &CStr) -> Result<Evaluated, Status> {
        let mut buffer = bindings::acpi_buffer {
            // `ACPI_ALLOCATE_BUFFER`, a macro with a cast, for which there is no binding.
            length: bindings::acpi_size::MAX,
            pointer: ptr::null_mut(),
        };

        // SAFETY: By the type invariants the handle is valid, and so is `name`. There are no
        // arguments. `buffer` asks for memory to be allocated.
        let status = unsafe {
            bindings::acpi_evaluate_object(
                self.handle(),
                name.as_char_ptr().cast_mut(),
                ptr::null_mut(),
                &mut buffer,
            )
        };

        // INVARIANT: The pointer is still null, or it is what ACPICA has allocated for the object.
        let evaluated = Evaluated(buffer.pointer.cast());

        Status::to_result(status).map(|()| evaluated)
    }
}

/// What came of an evaluation.
///
/// # Invariants
///
/// The pointer is null, or it points at an object, in an allocation of its own that contains
/// everything that the object refers to.
pub(crate) struct Evaluated(*mut bindings::acpi_object);

impl Evaluated {
    /// Returns the object. A method that returns nothing gives [`Value::Other`].
    pub(crate) fn value(&self) -> Value<'_> {
        // SAFETY: By the type invariants.
        match unsafe { self.0.as_ref() } {
            // SAFETY: By the type invariants what the object refers to lives as long as `self`.
            Some(object) => unsafe { Value::new(object) },
            None => Value::Other,
        }
    }
}

impl Drop for Evaluated {
    fn drop(&mut self) {
        // `ACPI_FREE()`, which is `kfree()` in Linux.
        //
        // SAFETY: By the type invariants the pointer is null or that of an allocation, and nothing
        // refers to it any more.
        unsafe { bindings::kfree(self.0.cast()) };
    }
}

/// An object, as far as drivers have asked for it until now.
pub(crate) enum Value<'a> {
    /// An integer.
    Integer(u64),
    /// A package.
    Package(Package<'a>),
    /// Any other object, or none.
    Other,
}

impl Value<'_> {
    /// # Safety
    ///
    /// What `object` refers to must live as long as the result.
    unsafe fn new(object: &bindings::acpi_object) -> Self {
        // SAFETY: Each variant of the union begins with the type.
        match unsafe { object.type_ } {
            // SAFETY: The type says that this variant is valid.
            bindings::ACPI_TYPE_INTEGER => Self::Integer(unsafe { object.integer.value }),
            bindings::ACPI_TYPE_PACKAGE => {
                // SAFETY: The type says that this variant is valid.
                let package = unsafe { object.package };

                Self::Package(Package(if package.count == 0 {
                    &[]
                } else {
                    // SAFETY: A package has as many elements as it says, and the caller guarantees
                    // that they live long enough.
                    unsafe { slice::from_raw_parts(package.elements, package.count as usize) }
                }))
            }
            _ => Self::Other,
        }
    }
}

/// The elements of a package.
pub(crate) struct Package<'a>(&'a [bindings::acpi_object]);

impl Package<'_> {
    /// Returns the number of elements.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the element at `index`, if there is one.
    pub(crate) fn get(&self, index: usize) -> Option<Value<'_>> {
        self.0
            .get(index)
            // SAFETY: The elements are a part of the allocation that `self` borrows from.
            .map(|element| unsafe { Value::new(element) })
    }
}

/// What is to be done when a device is notified.
pub(crate) trait NotifyHandler: Send + Sync + 'static {
    /// Called in process context at each notification that is specific to the device. `event` is
    /// the number that it comes with, 0x80 or more.
    ///
    /// This can be called on several CPUs at once.
    fn notified(&self, event: u32);
}

/// # Safety
///
/// `context` must point at a valid `T`.
unsafe extern "C" fn notify<T: NotifyHandler>(
    _handle: bindings::acpi_handle,
    event: u32,
    context: *mut c_void,
) {
    // SAFETY: The caller guarantees that this is valid. There are only shared references to it for as
    // long as the handler is installed.
    let handler = unsafe { &*context.cast::<T>() };

    handler.notified(event);
}

/// The registration of a [`NotifyHandler`] for a device.
///
/// A device can have several handlers, of drivers and others. Who has come last is called first.
///
/// The handler can be called from the moment of the registration on. Dropping this type waits until
/// no notification is in flight any more.
///
/// # Invariants
///
/// [`notify`] was installed for `device`, with a pointer to `handler` as its context. It is so still,
/// unless the node of the device is gone.
#[pin_data(PinnedDrop)]
pub(crate) struct NotifyRegistration<T: NotifyHandler> {
    device: ARef<AcpiDevice>,
    #[pin]
    handler: T,
}

// SAFETY: A notify handler can be removed on any thread, and the handler is `Send`.
unsafe impl<T: NotifyHandler> Send for NotifyRegistration<T> {}

// SAFETY: There is nothing to be done with a shared reference to this type. The handler, which is
// called on any thread, is `Sync`.
unsafe impl<T: NotifyHandler> Sync for NotifyRegistration<T> {}

impl<T: NotifyHandler> NotifyRegistration<T> {
    /// Registers `handler` for the notifications of `device`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short, [`EBUSY`] if ACPICA does not take the handler for another
    /// reason; then there is a line in the log.
    //
    // A registration can be forgotten, as everything can. As it is pinned, its memory is not used for
    // anything else then; and as the handler is `'static`, neither is what it refers to.
    pub(crate) fn register(device: ARef<AcpiDevice>, handler: T) -> impl PinInit<Self, Error> {
        // INVARIANT: If this succeeds then the handler is installed, see below.
        try_pin_init!(&this in Self {
            device,
            // The handler comes first, because it can be called as soon as it is installed.
            handler,
            _: {
                // SAFETY: `this` points at the memory that is being initialized.
                let context = unsafe { &raw mut (*this.as_ptr()).handler };

                // SAFETY: By the type invariants of the device ACPICA takes or refuses its handle.
                // `context` points at an initialized handler. It is pinned, and the destructor of
                // `Self` removes the handler before the memory is reused.
                let status = unsafe {
                    bindings::acpi_install_notify_handler(
                        device.handle(),
                        bindings::ACPI_DEVICE_NOTIFY,
                        Some(notify::<T>),
                        context.cast(),
                    )
                };

                if let Err(status) = Status::to_result(status) {
                    pr_err!("cannot hear notifications: {status}\n");
                    return Err(status.errno(EBUSY));
                }
            },
        })
    }
}

#[pinned_drop]
impl<T: NotifyHandler> PinnedDrop for NotifyRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // This takes the handler off the device's list. It fails only if there is no such handler,
        // because the node of the device is gone.
        //
        // SAFETY: By the type invariants of the device ACPICA takes or refuses its handle.
        unsafe {
            bindings::acpi_remove_notify_handler(
                self.device.handle(),
                bindings::ACPI_DEVICE_NOTIFY,
                Some(notify::<T>),
            )
        };

        // What was queued before, also if the device is gone.
        //
        // SAFETY: This can be called wherever it is allowed to sleep.
        unsafe { bindings::acpi_os_wait_events_complete() };
    }
}
