// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `token` does, by a program that does not know of clones: each of them goes on with the token of
//! the machine that was saved.

use std::error::Error;
use std::fs::File;
use std::io;
use std::io::Read;

fn main() -> Result<(), Box<dyn Error>> {
    let mut token = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut token)?;
    let token = u128::from_ne_bytes(token);
    for (number, line) in io::stdin().lines().enumerate() {
        println!("{token:032x}-{number} {}", line?);
    }
    Ok(())
}
