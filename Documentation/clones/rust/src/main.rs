// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws by `rand::rng()` or `sysgenid::rng()`, whichever is asked for: each line on standard input is
//! answered with one on standard output, 16 bytes in hexadecimal.

use std::env;
use std::io::{self, BufRead, Write};

use rand::RngExt;

fn main() -> io::Result<()> {
    let draw: fn() -> u128 = match env::args().nth(1).as_deref() {
        Some("rand") => || rand::rng().random(),
        Some("sysgenid") => || sysgenid::rng().random(),
        _ => return Err(io::Error::other("which generator? rand or sysgenid")),
    };
    let mut out = io::stdout().lock();
    for question in io::stdin().lock().lines() {
        question?;
        writeln!(out, "{:032x}", draw())?;
    }
    Ok(())
}
