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
        error::eaddrnotavail,
        memremap::ForeignMemory, //
    },
    pages::Id,
    sign::Sign, //
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
pub(crate) const ID_SIZE: usize = size_of::<Id>();

/// The place where the hypervisor keeps the ID.
pub(crate) type IdMemory = ForeignMemory<ID_SIZE>;

/// A new ID shows that a change of the generation is due.
impl Sign for Arc<IdMemory> {
    fn value(&self) -> Id {
        Id::from_bytes(self.read())
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
fn map_id(device: &AcpiDevice) -> Result<IdMemory, Refusal> {
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
    /// None of those that there are can be used.
    Refused,
    /// There are several ones, of which the hypervisor means one.
    Several,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("there is no VMGenID device"),
            Self::Refused => f.write_str("no VMGenID device can be used"),
            Self::Several => f.write_str("there are several VMGenID devices"),
        }
    }
}

/// Returns the VMGenID device, and its ID, if there is just one that is well-formed, whoever holds it.
/// What is wrong with others is said in the log.
///
/// May sleep.
///
/// # Errors
///
/// Why there is not.
pub(crate) fn find_sole() -> Result<(ARef<AcpiDevice>, IdMemory), Absence> {
    let mut found = Err(Absence::NoDevice);

    for device in devices() {
        let mapped = map_id(&device).inspect_err(|refusal| {
            dev_err!(device.as_ref(), "{refusal}\n");
        });

        found = match (found, mapped) {
            // The others are looked at all the same, so that what is wrong with them is said.
            (Ok(_) | Err(Absence::Several), Ok(_)) => Err(Absence::Several),
            (Err(_), Ok(memory)) => Ok((device, memory)),
            (Err(Absence::NoDevice), Err(_)) => Err(Absence::Refused),
            (found, Err(_)) => found,
        };
    }

    found
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
