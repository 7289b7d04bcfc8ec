// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each call costs. `bench/calls.c` runs in the guest; here is read what it prints.

use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

use super::Measured;
use super::chart::Bar;
use super::chart::Chart;
use super::chart::Kind;
use super::guest;
use super::guest::instructions;
use super::table::Table;
use crate::kernel::Kernel;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Userland;
use crate::step::step;

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
    /// How many locks the kernel takes for it.
    locks: f64,
    /// What the older driver takes for it, if that is known.
    older: Option<f64>,
    /// How much of that is allowed.
    most: Option<f64>,
}

/// What is drawn, and what it is called there: what a program does that wants to know of a clone, and
/// what it could be compared with.
const DRAWN: [(&str, &str); 14] = [
    ("load from the mapping", "look at the mapped generation"),
    ("read, acked (EAGAIN)", "read: nothing new"),
    ("read, outdated", "read: a new generation"),
    ("poll, acked", "poll: nothing new"),
    ("ack of a change", "ack"),
    ("SETTLE, nothing due", "settle: nothing is due"),
    ("open and close", "open and close"),
    ("null system call", "a system call that does nothing"),
    ("eventfd: read (EAGAIN)", "an eventfd’s read"),
    ("eventfd: poll, nothing", "an eventfd’s poll"),
    ("eventfd: write", "an eventfd’s write"),
    ("/dev/null: open and close", "/dev/null: open and close"),
    ("vmclock: read", "/dev/vmclock0: read"),
    ("getrandom(), 16 bytes", "getrandom(), 16 bytes"),
];

/// So many of them, from the start, are ours.
const OURS: usize = 7;

/// Measures twice, which must give the same.
pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let first = step("measuring the calls", || once(kernel))?;
    let second = step("measuring the calls again", || once(kernel))?;
    same(&first, &second)?;
    let chart = chart(&first, &kernel.release)?;
    Measured::new(&first, vec![table(&first)], vec![chart])
}

/// In a machine that has a `VMClock` device, whose driver is loaded for it.
fn once(kernel: &Kernel) -> Result<Vec<Call>> {
    let options = GuestOptions {
        boot: true,
        qemu_arg: ["-device", "vmclock"].map(str::to_owned).to_vec(),
        ..guest::counting()
    };
    let driver = format!(
        "usr/lib/modules/{}/kernel/drivers/ptp/ptp_vmclock.ko.xz",
        kernel.release
    );
    let driver = Addition {
        from: kernel.modules()?.join(driver),
        guest: "/ptp_vmclock.ko.xz".into(),
    };
    let (program, _) = guest::program(kernel, &["calls"])?;
    let command = [
        "sh",
        "-c",
        "insmod /ptp_vmclock.ko.xz && exec /calls --vmclock",
    ];
    guest::measure_in(
        kernel,
        &options,
        Userland::Busybox,
        &[program, driver],
        &command.map(str::to_owned),
    )
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
fn table(calls: &[Call]) -> Table {
    let shown = |cost: f64| format!("{:.0}", instructions(cost));
    let rows = calls.iter().map(|one| {
        let older = one.older;
        let ratio = older.map(|older| format!("{:.2}", one.least / older));
        vec![
            one.name.clone(),
            shown(one.least),
            format!("{:.0}", one.locks),
            older.map(shown).unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "Instructions for one call, and how many locks the kernel takes for it",
            ["call", "instructions", "locks", "older driver", "ratio"],
        )
    }
}

fn chart(calls: &[Call], release: &str) -> Result<Chart> {
    let bars = DRAWN.iter().enumerate().map(|(number, &(name, label))| {
        let call = calls.iter().find(|call| call.name == name);
        let call = call.ok_or_else(|| anyhow!("“{name}” was not measured"))?;
        let value = instructions(call.least);
        Ok(Bar {
            label: label.into(),
            value,
            shown: format!("{value:.0}"),
            ours: number < OURS,
        })
    });
    Ok(Chart {
        name: "calls",
        title: "What a program pays that asks whether its machine was cloned".into(),
        subtitle: format!(
            "instructions for one call, beside what it could be compared with; Linux {release}"
        ),
        kind: Kind::Bars(bars.collect::<Result<_>>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"{"call": "null system call", "median": 697.0, "least": 696.0, "locks": 0.00}
{"call": "read", "median": 1260.2, "least": 1260.0, "locks": 1.02, "older": 1312.5, "most": 1.000}
"#;

    #[test]
    fn what_is_printed_becomes_a_table() {
        let calls = guest::parse(OUTPUT).expect("it is well-formed");
        let rows = table(&calls).rows;
        assert_eq!(rows[0], ["null system call", "348", "0", "", ""]);
        assert_eq!(rows[1], ["read", "630", "1", "656", "0.96"]);
    }

    #[test]
    fn two_runs_are_the_same_within_one_percent() {
        let first: Vec<Call> = guest::parse(OUTPUT).expect("it is well-formed");
        let mut second = first.clone();
        second[1].least *= 1.009;
        assert!(same(&first, &second).is_ok());
        second[1].least *= 1.009;
        let error = same(&first, &second).expect_err("they differ");
        assert!(error.to_string().contains("read"), "{error}");
        assert!(same(&first, &second[..1]).is_err());
    }
}
