// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each call costs. `bench/calls.c` runs in the guest; here is read what it prints.

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

use super::table::Table;
use crate::guest::Kept;
use crate::kernel::Kernel;
use crate::machine::NS_PER_INSTRUCTION;
use crate::products;
use crate::run;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step::step;

const PROGRAM: &str = "/calls";

/// By so much two runs may differ.
const REPEATABLE: f64 = 0.01;

/// A line of the program: nanoseconds that are instructions, really.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What is called.
    #[serde(rename = "call")]
    name: String,
    /// What it costs in the middle of all rounds.
    median: f64,
    /// What it costs at least, which is what it costs if nothing else comes in between.
    least: f64,
    /// What the older driver takes for it, if that is known.
    older: Option<f64>,
    /// How much of that is allowed.
    most: Option<f64>,
}

/// Measures twice, which must give the same.
pub fn measure(kernel: &Kernel) -> Result<Vec<Call>> {
    let first = step("measuring the calls", || once(kernel))?;
    let second = step("measuring the calls again", || once(kernel))?;
    same(&first, &second)?;
    Ok(first)
}

fn once(kernel: &Kernel) -> Result<Vec<Call>> {
    let options = GuestOptions {
        icount: true,
        ..GuestOptions::plain()
    };
    let program = Addition {
        from: products::bench(kernel, "calls")?,
        guest: PROGRAM.into(),
    };
    let command = [PROGRAM.to_owned()];
    let userland = Userland::Busybox;
    let setup = Setup::with(&options, kernel, userland, &[program], &command, None)?;
    let mut kept = Kept::default();
    let status = run::run(&setup, &mut kept)?;
    let said = String::from_utf8_lossy(&kept.stderr);
    ensure!(status == 0, "exit status {status}: {said}{}", kept.remarks);
    parse(&String::from_utf8_lossy(&kept.stdout))
}

fn parse(output: &str) -> Result<Vec<Call>> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not understood: {line}")))
        .collect()
}

fn same(first: &[Call], second: &[Call]) -> Result<()> {
    let names = |calls: &[Call]| -> Vec<_> { calls.iter().map(|one| one.name.clone()).collect() };
    ensure!(names(first) == names(second), "two runs had other calls");
    for (one, other) in first.iter().zip(second) {
        let difference = (one.least - other.least).abs() / one.least;
        if difference > REPEATABLE {
            let Call { name, least, .. } = one;
            let again = other.least;
            return Err(anyhow!(
                "“{name}” took {least} once, and {again} the other time"
            ));
        }
    }
    Ok(())
}

/// The table: instructions, what the older driver takes, and the quotient.
pub fn table(calls: &[Call]) -> Table {
    let instructions = |cost: f64| format!("{:.0}", cost / f64::from(NS_PER_INSTRUCTION));
    let rows = calls.iter().map(|one| {
        let older = one.older;
        let ratio = older.map(|older| format!("{:.2}", one.least / older));
        vec![
            one.name.clone(),
            instructions(one.least),
            older.map(instructions).unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    });
    Table {
        headings: ["call", "instructions", "older driver", "ratio"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"{"call": "null system call", "median": 697.0, "least": 696.0}
{"call": "read", "median": 1260.2, "least": 1260.0, "older": 1312.5, "most": 1.000}
"#;

    #[test]
    fn what_is_printed_becomes_a_table() {
        let calls = parse(OUTPUT).expect("it is well-formed");
        let rows = table(&calls).rows;
        assert_eq!(rows[0], ["null system call", "348", "", ""]);
        assert_eq!(rows[1], ["read", "630", "656", "0.96"]);
        assert!(parse("something else\n").is_err());
    }

    #[test]
    fn two_runs_are_the_same_within_one_percent() {
        let first = parse(OUTPUT).expect("it is well-formed");
        let mut second = first.clone();
        second[1].least *= 1.009;
        assert!(same(&first, &second).is_ok());
        second[1].least *= 1.009;
        let error = same(&first, &second).expect_err("they differ");
        assert!(error.to_string().contains("read"), "{error}");
        assert!(same(&first, &second[..1]).is_err());
    }
}
