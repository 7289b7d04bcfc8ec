// SPDX-License-Identifier: MIT OR Apache-2.0

//! Transactions that no two clones commit.
//!
//! A worker sends transactions to a ledger outside of the machine: it submits one under an ID that
//! must be unique, and commits it. If the machine is cloned between the two then there are two
//! workers with the same transaction in their hands, and with the same counter to make the next ID
//! from. So the worker looks before it commits; if the machine was cloned, it reverts what it has
//! submitted, and starts again, with IDs of its own.
//!
//! `ledger N` sends one transaction, has a second one in its hands when it prints `READY` (where the
//! machine is to be saved), and sends N more. What it tells the ledger are lines on standard output:
//! `ledger submit ID`, `ledger revert ID` and `ledger commit ID`. With `--careless` it does not look:
//! then both clones commit the same transactions.

use std::cell::Cell;
use std::error::Error;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use sysgenid::Cached;
use sysgenid::SysGenId;

/// How long the ledger takes to answer. The machine is saved while the worker waits for that.
const ANSWER: Duration = Duration::from_secs(1);

struct Worker {
    sysgenid: SysGenId,
    /// A prefix that no other machine has, and a counter.
    ids: Cached<(u64, u64)>,
    careless: bool,
}

impl Worker {
    fn new(careless: bool) -> Result<Self, sysgenid::Error> {
        let sysgenid = SysGenId::open()?;
        // Who does not look keeps the prefix, whatever happens to the machine.
        let looks_at = (!careless).then(|| sysgenid.clone());
        let ids = Cached::new(looks_at, |fresh| {
            let mut prefix = [0; 8];
            fresh.fill(&mut prefix)?;
            Ok((u64::from_ne_bytes(prefix), 0))
        });
        Ok(Self {
            sysgenid,
            ids,
            careless,
        })
    }

    /// Sends one transaction. `submitted` is called while it is in our hands.
    fn send(&self, submitted: impl Fn() -> std::io::Result<()>) -> Result<(), Box<dyn Error>> {
        loop {
            let guard = self.sysgenid.guard();
            let id = self.ids.with(|(prefix, count)| {
                *count += 1;
                format!("{prefix:016x}-{count}")
            })?;
            tell("submit", &id)?;
            submitted()?;
            match guard.check() {
                Err(sysgenid::Error::Changed) if !self.careless => tell("revert", &id)?,
                _ => return Ok(tell("commit", &id)?),
            }
        }
    }
}

/// Tells the ledger, all of a line at once.
fn tell(what: &str, id: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("ledger {what} {id}\n").as_bytes())?;
    out.flush()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut careless = false;
    let mut number = None;
    for argument in std::env::args().skip(1) {
        match argument.parse::<u32>() {
            Ok(parsed) => number = Some(parsed),
            Err(_) if argument == "--careless" => careless = true,
            Err(_) => return Err(format!("usage: ledger [--careless] N, not {argument}").into()),
        }
    }
    let number = number.ok_or("usage: ledger [--careless] N")?;
    let worker = Worker::new(careless)?;
    worker.send(|| Ok(()))?;
    let saved = Cell::new(false);
    worker.send(|| {
        // Once: what is sent again is sent by a clone.
        if !saved.replace(true) {
            println!("READY");
            thread::sleep(ANSWER);
        }
        Ok(())
    })?;
    for _ in 0..number {
        worker.send(|| Ok(()))?;
    }
    Ok(())
}
