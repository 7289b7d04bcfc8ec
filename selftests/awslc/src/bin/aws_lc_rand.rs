// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws by AWS-LC's `RAND_bytes()`: each line on standard input is answered with one on standard
//! output, 16 bytes in hexadecimal.
//!
//! A program of Documentation/clones. It is here so that AWS-LC is compiled once.

use std::io::{self, BufRead as _, Write as _};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for question in io::stdin().lock().lines() {
        question?;
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(io::Error::other)?;
        writeln!(out, "{:032x}", u128::from_be_bytes(bytes))?;
    }
    Ok(())
}
