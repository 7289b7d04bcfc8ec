// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws by `rand::rng()`: each line on standard input is answered with one on standard output, 16
//! bytes in hexadecimal.

use std::io::{self, BufRead, Write};

use rand::Rng;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for question in io::stdin().lock().lines() {
        question?;
        writeln!(out, "{:032x}", rand::rng().random::<u128>())?;
    }
    Ok(())
}
