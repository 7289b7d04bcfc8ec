// SPDX-License-Identifier: MIT OR Apache-2.0

//! Know when the machine was cloned: `/dev/sysgenid` and `/dev/vmgenid` for Rust programs.
