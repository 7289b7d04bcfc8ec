// SPDX-License-Identifier: MIT OR Apache-2.0

//! The crate `sysgenid` for programs in C: `libsysgenid.so`, `libsysgenid.a`, and `sysgenid.h`, which
//! cbindgen makes from `ffi.rs`.

mod failure;
mod ffi;
