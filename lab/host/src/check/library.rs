// SPDX-License-Identifier: MIT OR Apache-2.0

//! The library crate, `userspace/sysgenid`: its tests on the device, and its example in clones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests;
use crate::clone::Saved;
use crate::products;
use crate::setup::GuestOptions;
use crate::tap;
use crate::tap::Test;

/// The examples in its documentation, and its tests, in one guest. All of them change the generation:
/// one at a time.
pub fn on_the_device(bench: &Bench) -> Result<Vec<Test>> {
    // The others start those that are skipped here, as another user.
    const SCRIPT: &str = "for program in /doctests /device; do
        echo \"### $program\"
        RUST_TEST_THREADS=1 $program --skip nobody_
    done";
    let additions = [
        guests::addition(products::library_doctests()?, "/doctests"),
        guests::addition(products::library_tests("device")?, "/device"),
    ];
    let command = ["sh", "-c", SCRIPT];
    let said = guests::said(bench, &guests::options(bench, 2), &additions, &command)?;
    let parts: Vec<_> = said.output.split("### ").skip(1).collect();
    let [examples, device] = parts[..] else {
        bail!(
            "exit status {}: {}; it said {}",
            said.status,
            said.remarks,
            said.output
        );
    };
    let mut tests = tap::parse_libtest("library, examples", examples);
    tests.extend(tap::parse_libtest("library, device", device));
    tests.push(said.no_report("library"));
    Ok(tests)
}

/// What a ledger outside of the machines knows of a transaction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transaction {
    submitted: usize,
    reverted: usize,
    committed: usize,
}

/// The ledger: what it was told of each transaction.
#[derive(Debug, Default)]
struct Ledger {
    transactions: BTreeMap<String, Transaction>,
}

impl Ledger {
    /// Takes what a worker said.
    fn take(&mut self, output: &str) -> Result<()> {
        for line in output.lines() {
            let Some(entry) = line.strip_prefix("ledger ") else {
                continue;
            };
            let (what, id) = entry.split_once(' ').context("a line is too short")?;
            let transaction = self.transactions.entry(id.to_owned()).or_default();
            match what {
                "submit" => transaction.submitted += 1,
                "revert" => transaction.reverted += 1,
                "commit" => transaction.committed += 1,
                _ => bail!("the ledger does not know “{what}”"),
            }
        }
        Ok(())
    }

    fn count(&self, is_counted: impl Fn(&Transaction) -> bool) -> usize {
        let all = self.transactions.values();
        all.filter(|transaction| is_counted(transaction)).count()
    }

    /// Transactions that two clones have submitted, or committed.
    fn duplicates(&self) -> usize {
        self.count(|transaction| transaction.submitted > 1 || transaction.committed > 1)
    }
}

/// Two clones of a worker that has a transaction in its hands, and the ledger at the end.
fn two_clones(bench: &Bench, program: &Path, arguments: &[&str]) -> Result<Ledger> {
    let additions = [guests::addition(program.to_owned(), "/ledger")];
    let mut command = vec!["/ledger"];
    command.extend(arguments);
    let setup = guests::setup(bench, &GuestOptions::plain(), &additions, &command)?;
    let (saved, before) = Saved::with_output(&setup)?;
    let ids = [(); 2].map(|()| Some(Uuid::new_v4()));
    let mut ledger = Ledger::default();
    ledger.take(&before)?;
    for clone in guests::resume_saved(&saved, &ids)? {
        ensure!(clone.status == 0, "{}: {}", clone.status, clone.remarks);
        ledger.take(&clone.output)?;
    }
    Ok(ledger)
}

/// The example `ledger` in two clones, which write to one ledger: it ends without a duplicate, and has
/// some if the workers do not look.
pub fn ledger(bench: &Bench) -> Result<Vec<Test>> {
    const MORE: usize = 20;
    let program = products::library_example("ledger")?;
    let careful = || -> Result<()> {
        let ledger = two_clones(bench, &program, &[&MORE.to_string()])?;
        ensure!(ledger.duplicates() == 0, "{ledger:?}");
        // One before the snapshot; then each clone commits what it had in its hands, and more.
        let committed = ledger.count(|t| t.committed == 1);
        ensure!(committed == 1 + 2 * (1 + MORE), "{committed}: {ledger:?}");
        // The one that was frozen half-done, by both.
        let expected = Transaction {
            submitted: 1,
            reverted: 2,
            committed: 0,
        };
        ensure!(ledger.count(|t| *t == expected) == 1, "{ledger:?}");
        Ok(())
    };
    let careless = || -> Result<()> {
        let ledger = two_clones(bench, &program, &["--careless", &MORE.to_string()])?;
        let duplicates = ledger.duplicates();
        ensure!(duplicates == 1 + MORE, "{duplicates}: {ledger:?}");
        Ok(())
    };
    Ok(vec![
        Test::from_result("ledger: no duplicate", careful()),
        Test::from_result("ledger, control: duplicates without the look", careless()),
    ])
}
