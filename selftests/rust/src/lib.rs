// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the test programs share: `/dev/sysgenid` and `/dev/vmgenid` as seen from Rust, and TAP.
//!
//! This is a second, independent reading of the contract next to the C tests. It uses nothing of
//! `userspace/`, so that what those crates get wrong cannot cancel out here.

pub mod snapshot;
pub mod sys;
pub mod tap;
pub mod vmgenid;
pub mod watcher;
