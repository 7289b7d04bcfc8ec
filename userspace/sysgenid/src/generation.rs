// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is looked at: the generation, and the ID that the hypervisor gave the machine.

use std::fmt;

/// The system generation.
///
/// It is 0 when there was no change since the driver was loaded, and never becomes 0 again.
/// Generations are compared for being equal or not: neither `<` nor `>` has a meaning, because the
/// number starts again at 1 after `u32::MAX`. So they have no order.
///
/// ```
/// use sysgenid::Generation;
///
/// let generation = Generation::new(7);
/// assert_eq!(generation.get(), 7);
/// assert_eq!(generation.to_string(), "7");
/// assert_ne!(generation, Generation::new(8));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The generation with that number, for example one that another program has read.
    ///
    /// ```
    /// # use sysgenid::Generation;
    /// assert_eq!(Generation::new(0), Generation::default());
    /// ```
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    ///
    /// ```
    /// # use sysgenid::Generation;
    /// assert_eq!(Generation::new(3).get(), 3);
    /// ```
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The VM generation ID: 16 bytes by which the hypervisor tells this machine from its clones.
///
/// It identifies the machine, as the UUID in its DMI tables does; think before you show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VmId([u8; 16]);

impl VmId {
    /// The ID with those bytes, for example one that was remembered outside of this program.
    ///
    /// ```
    /// # use sysgenid::VmId;
    /// assert_eq!(VmId::new([7; 16]).as_bytes(), &[7; 16]);
    /// ```
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they stand in memory.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// if let Some(id) = sysgenid.look().id() {
    ///     assert_eq!(id.as_bytes().len(), 16);
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Does not show the ID, which does not belong into a log by accident.
impl fmt::Debug for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VmId(..)")
    }
}
