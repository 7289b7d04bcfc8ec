// SPDX-License-Identifier: GPL-2.0

//! Error codes.
//!
//! C header: [`include/uapi/asm-generic/errno.h`](srctree/include/uapi/asm-generic/errno.h)
//!
//! Linux 7.3 has constants for these in [`kernel::error::code`]. Linux 7.2 has not, nor a function
//! that makes an [`Error`] in a constant.

use kernel::{
    bindings,
    prelude::*, //
};

/// Returns `EADDRNOTAVAIL`: cannot assign requested address.
pub(crate) fn eaddrnotavail() -> Error {
    Error::from_errno(-(bindings::EADDRNOTAVAIL as c_int))
}

/// Returns `ENOBUFS`: no buffer space available.
pub(crate) fn enobufs() -> Error {
    Error::from_errno(-(bindings::ENOBUFS as c_int))
}

/// Returns `ETIME`: timer expired.
pub(crate) fn etime() -> Error {
    Error::from_errno(-(bindings::ETIME as c_int))
}
