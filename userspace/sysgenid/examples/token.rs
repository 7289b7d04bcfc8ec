// SPDX-License-Identifier: MIT OR Apache-2.0

//! A program that gives each line of its standard input a name that nobody else gives, in this machine
//! or in a clone of it: a random token, and a number.
//!
//! `token_plain` is the same without this crate. What is in one of them and not in the other is what
//! the crate adds to a program (`lab/lab bench sizes`).

use std::error::Error;
use std::io;

use sysgenid::Cached;
use sysgenid::SysGenId;

fn main() -> Result<(), Box<dyn Error>> {
    let token = Cached::new(SysGenId::open()?, |fresh| {
        let mut token = [0; 16];
        fresh.fill(&mut token)?;
        Ok(u128::from_ne_bytes(token))
    });
    for (number, line) in io::stdin().lines().enumerate() {
        let token = token.with(|token| *token)?;
        println!("{token:032x}-{number} {}", line?);
    }
    Ok(())
}
