// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of everything in a forked process.
//!
//! It prints `parent HEX`, `child HEX` and `parent HEX`: the parent keeps its number, and the child
//! has one of its own, because a fork is a change for [`Cached`], for [`sysgenid::Guard`] and for
//! `sysgenid::rng()`.

#![expect(unsafe_code, reason = "nothing forks without")]

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use sysgenid::Cached;
use sysgenid::SysGenId;
use sysgenid::Watcher;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let sysgenid = SysGenId::open()?;
    let number = Cached::new(sysgenid.clone(), |fresh| {
        let mut number = [0; 8];
        fresh.fill(&mut number)?;
        Ok(u64::from_ne_bytes(number))
    });
    let watcher = Watcher::open()?;
    let guard = sysgenid.guard();
    show("parent", &number)?;

    // SAFETY: This process has one thread, so the child may do what any process may.
    match unsafe { libc::fork() } {
        -1 => return Err(std::io::Error::last_os_error().into()),
        0 => {
            // Work that has begun before is the parent's.
            if guard.check().is_ok() {
                return Ok(ExitCode::FAILURE);
            }
            // Both have the parent's watcher: if one acknowledges, it does so for both.
            drop(watcher);
            let _watcher = Watcher::open()?;
            show("child", &number)?;
            return Ok(ExitCode::SUCCESS);
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is there to be written to.
            if unsafe { libc::waitpid(child, &raw mut status, 0) } != child || status != 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    guard.check()?;
    show("parent", &number)?;
    Ok(ExitCode::SUCCESS)
}

fn show(process: &str, number: &Cached<u64>) -> Result<(), Box<dyn Error>> {
    let line = number.with(|number| format!("{process} {number:016x}\n"))?;
    // What stays in a buffer at a fork leaves both processes.
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
