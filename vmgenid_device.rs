// SPDX-License-Identifier: GPL-2.0

//! The VMGenID device: how to find it, and where it keeps the VM generation ID.
//!
//! It is an ACPI device, which a hypervisor gives to its guests. Its object `ADDR` evaluates to a
//! package of two integers, the low and the high 32 bits of the physical address of the ID. Where
//! that may be is said in “Virtual Machine Generation ID” (Microsoft, 2012), and as R1a to R1e in
//! `docs/specs/vmgenid.rst` of QEMU.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        acpi::{
            AcpiDevice,
            Status,
            Value, //
        },
        device::with_driver_name,
        error::eaddrnotavail,
        memremap::ForeignMemory, //
    },
    generation::{
        Sign,
        SignValue, //
    }, //
};
use core::ptr;
use kernel::{
    fmt,
    io::PhysAddr,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// The IDs that the device has, as hardware ID or as compatible ID: Firecracker's, and the one of
/// the specification, which QEMU, Hyper-V and others use. The kernel compares them in upper case.
///
/// The aliases of the module in `sysgenid.rs` are made from them.
pub(crate) const IDS: [&CStr; 2] = [c"VMGENCTR", c"VM_GEN_COUNTER"];

/// The number of bytes of an ID.
pub(crate) const ID_SIZE: usize = 16;

/// The place where the hypervisor keeps the ID.
pub(crate) type IdMemory = ForeignMemory<ID_SIZE>;

/// A new ID shows that a change of the generation is due.
impl Sign for Arc<IdMemory> {
    fn value(&self) -> SignValue {
        self.read()
    }
}

/// Why a device cannot be used.
pub(crate) enum Refusal {
    /// `ADDR` cannot be evaluated.
    Evaluation(Status),
    /// `ADDR` is no package.
    NoPackage,
    /// `ADDR` has that many elements.
    Count(usize),
    /// That element of `ADDR` is no integer.
    NoInteger(usize),
    /// That element of `ADDR` has more than 32 bits.
    TooLarge(usize),
    /// `ADDR` is 0.
    Zero,
    /// `ADDR` is not aligned to 8 bytes (R1a).
    Unaligned(PhysAddr),
    /// The ID is not in memory that the firmware has reserved (R1c, R1d).
    NotReserved(PhysAddr),
    /// The ID cannot be mapped.
    Mapping(Error),
    /// The ID is not in one page.
    Straddling(PhysAddr),
    /// A part of the page in which the ID is is system RAM.
    SharedPage(PhysAddr),
}

impl Refusal {
    /// Returns the error for those who do not read the log.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Self::Evaluation(status) => status.errno(ENODEV),
            Self::Mapping(err) => *err,
            _ => EINVAL,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evaluation(status) => f.write_fmt(fmt!("cannot evaluate ADDR: {status}")),
            Self::NoPackage => f.write_str("ADDR is no package"),
            Self::Count(count) => f.write_fmt(fmt!("ADDR has {count} elements, expected 2")),
            Self::NoInteger(index) => f.write_fmt(fmt!("element {index} of ADDR is no integer")),
            Self::TooLarge(index) => {
                f.write_fmt(fmt!("element {index} of ADDR has more than 32 bits"))
            }
            Self::Zero => f.write_str("ADDR is 0"),
            Self::Unaligned(address) => {
                f.write_fmt(fmt!("ADDR {address:#x} is not aligned to 8 bytes"))
            }
            Self::NotReserved(address) => {
                f.write_fmt(fmt!("ADDR {address:#x} is not in reserved memory"))
            }
            Self::Mapping(err) => f.write_fmt(fmt!("cannot map the ID: {err:?}")),
            Self::Straddling(address) => {
                f.write_fmt(fmt!("the ID at {address:#x} is not in one page"))
            }
            Self::SharedPage(address) => f.write_fmt(fmt!(
                "a part of the page of the ID at {address:#x} is system RAM"
            )),
        }
    }
}

/// Makes an address of the two elements of `ADDR`.
fn address(low: u64, high: u64) -> Result<PhysAddr, Refusal> {
    let [low, high] = [(0, low), (1, high)]
        .map(|(index, half)| u32::try_from(half).map_err(|_| Refusal::TooLarge(index)));
    let address = (PhysAddr::from(high?) << 32) | PhysAddr::from(low?);

    if address == 0 {
        Err(Refusal::Zero)
    } else if address % 8 != 0 {
        Err(Refusal::Unaligned(address))
    } else {
        Ok(address)
    }
}

/// Maps the ID of `device`.
///
/// May sleep.
///
/// # Errors
///
/// The first reason that there is for not using the device.
pub(crate) fn map_id(device: &AcpiDevice) -> Result<IdMemory, Refusal> {
    let evaluated = device.evaluate(c"ADDR").map_err(Refusal::Evaluation)?;

    let Value::Package(package) = evaluated.value() else {
        return Err(Refusal::NoPackage);
    };
    if package.len() != 2 {
        return Err(Refusal::Count(package.len()));
    }
    let half = |index| match package.get(index) {
        Some(Value::Integer(half)) => Ok(half),
        _ => Err(Refusal::NoInteger(index)),
    };
    let address = address(half(0)?, half(1)?)?;

    IdMemory::map(address).map_err(|err| {
        if err == eaddrnotavail() {
            Refusal::NotReserved(address)
        } else {
            Refusal::Mapping(err)
        }
    })
}

/// Returns the VMGenID devices of this machine, each once.
///
/// Each step of the iterator may sleep, and so may this function.
fn devices() -> impl Iterator<Item = ARef<AcpiDevice>> {
    IDS.iter().enumerate().flat_map(|(index, id)| {
        AcpiDevice::find(id).filter(move |device| {
            // A device can have more IDs than one.
            !IDS[..index]
                .iter()
                .flat_map(|id| AcpiDevice::find(id))
                .any(|other| ptr::eq(&*other, &**device))
        })
    })
}

/// Why there is no device to be used.
pub(crate) enum Absence {
    /// There is no device.
    NoDevice,
    /// There is one, or all that there are have been refused, the last one for that reason.
    Refused(Refusal),
    /// There are several ones, of which the hypervisor means one.
    Several,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("there is no VMGenID device"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Several => f.write_str("there are several VMGenID devices"),
        }
    }
}

/// Maps the ID of the VMGenID device, if there is just one that is well-formed, whoever holds it.
///
/// May sleep.
///
/// # Errors
///
/// Why there is not.
pub(crate) fn map_sole_id() -> Result<IdMemory, Absence> {
    let mut found = Err(Absence::NoDevice);

    for device in devices() {
        found = match (found, map_id(&device)) {
            (Ok(_), Ok(_)) => return Err(Absence::Several),
            (Ok(memory), Err(_)) | (Err(_), Ok(memory)) => Ok(memory),
            (Err(_), Err(refusal)) => Err(Absence::Refused(refusal)),
        };
    }

    found
}

/// Says in the log which driver holds the VMGenID device: of several ones, the first that is held. Says
/// nothing if there is none.
///
/// May sleep.
pub(crate) fn say_who_holds_it() {
    let mut any = false;

    for device in devices() {
        let Some(device) = device.platform_device() else {
            continue;
        };
        let held = with_driver_name(&device, |driver| {
            if let Some(driver) = driver {
                pr_info!("the VMGenID device is held by the driver {driver}\n");
            }
            driver.is_some()
        });
        if held {
            return;
        }
        any = true;
    }
    if any {
        pr_warn!("the VMGenID device is held by no driver\n");
    }
}

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_vmgenid_device)]
mod tests {
    use super::*;

    fn refused(low: u64, high: u64) -> Option<Refusal> {
        address(low, high).err()
    }

    #[test]
    fn halves_make_an_address() {
        assert_eq!(address(0x0fff_f028, 0).ok(), Some(0x0fff_f028));
        assert_eq!(address(8, 0x12).ok(), Some(0x12_0000_0008));
        assert_eq!(
            address(0xffff_fff8, 0xffff_ffff).ok(),
            Some(0xffff_ffff_ffff_fff8)
        );
    }

    #[test]
    fn halves_have_32_bits() {
        assert!(matches!(
            refused(0x1_0000_0000, 0),
            Some(Refusal::TooLarge(0))
        ));
        assert!(matches!(
            refused(8, 0x1_0000_0000),
            Some(Refusal::TooLarge(1))
        ));
        assert!(matches!(
            refused(u64::MAX, u64::MAX),
            Some(Refusal::TooLarge(1))
        ));
    }

    #[test]
    fn an_address_is_not_0_and_is_aligned() {
        assert!(matches!(refused(0, 0), Some(Refusal::Zero)));
        for low in 1..8 {
            assert!(matches!(refused(low, 0), Some(Refusal::Unaligned(_))));
        }
        assert!(matches!(refused(4, 1), Some(Refusal::Unaligned(_))));
        assert!(refused(0, 1).is_none());
    }
}
