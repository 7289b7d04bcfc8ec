// SPDX-License-Identifier: MIT OR Apache-2.0

//! The VM generation ID, as the hypervisor shows it in `/dev/vmgenid`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{self, Errno, read};

use crate::sys;

/// Where the driver's node is.
pub const NODE: &str = "/dev/vmgenid";

/// The node, opened and mapped.
#[derive(Debug)]
pub struct VmGenId {
    file: OwnedFd,
    page: sys::IdPage,
}

impl VmGenId {
    /// Opens the node, and maps its page.
    ///
    /// # Errors
    ///
    /// Whatever the driver answers.
    pub fn open() -> io::Result<Self> {
        let file = open(NODE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let offset = sys::id_offset(file.as_fd())?;
        let page = sys::IdPage::map(file.as_fd(), offset)?;
        Ok(Self { file, page })
    }

    /// The ID in the mapped page: its bytes are those of the number, the first one the most
    /// significant.
    pub fn id(&self) -> u128 {
        self.page.id()
    }

    /// The same, as `read` returns it.
    ///
    /// # Errors
    ///
    /// Whatever `read` answers, and `EIO` where it is not 16 bytes.
    pub fn read(&self) -> io::Result<u128> {
        let mut bytes = [0; 16];
        match read(&self.file, &mut bytes)? {
            16 => Ok(u128::from_be_bytes(bytes)),
            _ => Err(Errno::IO),
        }
    }
}
