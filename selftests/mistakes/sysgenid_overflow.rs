// SPDX-License-Identifier: GPL-2.0

//! Makes a mistake in Rust on purpose: it adds what does not fit. A kernel with
//! `CONFIG_RUST_OVERFLOW_CHECKS` finds that, and panics.

use kernel::prelude::*;

module! {
    type: Overflow,
    name: "sysgenid_overflow",
    authors: ["The sysgenid authors"],
    description: "Overflows, for tests",
    license: "GPL",
}

struct Overflow;

impl kernel::Module for Overflow {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let greatest = core::hint::black_box(u32::MAX);

        pr_info!("the sum is {}\n", greatest + 1);
        Ok(Self)
    }
}
