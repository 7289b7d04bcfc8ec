// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which packaged kernels were tried in full, and the table of them that the README has.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::Check;
use super::Report;
use crate::apt;
use crate::cache;
use crate::kernel;
use crate::kernel::Choice;
use crate::page::Marks;
use crate::step::output_of;
use crate::tap::Outcome;

/// What the table lies between.
const MARKS: Marks = Marks([
    "<!-- lab check-series: begin -->",
    "<!-- lab check-series: end -->",
]);

/// The suites, as the table has them.
const SUITES: [(&str, &str); 2] = [
    ("trixie", "Debian 13, backports"),
    ("unstable", "Debian unstable"),
];

/// What came of one kernel.
#[derive(Debug, Deserialize, Serialize)]
struct Tried {
    release: String,
    /// The version of the compiler that it was built with, and our module.
    compiler: String,
    passed: usize,
    failed: usize,
    skipped: usize,
}

fn place(suite: &str) -> Result<PathBuf> {
    Ok(cache::directory("results")?.join(format!("series-{suite}.json")))
}

/// Notes what came of each kernel of this suite.
pub fn note(reports: &[(&Check, Report)]) -> Result<()> {
    let version = output_of(Command::new("rustc").arg("--version"))?;
    let compiler = version.split(' ').nth(1).context("rustc has no version")?;
    let mut kernels: Vec<_> = reports.iter().map(|(check, _)| check.kernel).collect();
    kernels.sort();
    kernels.dedup();
    let tried: Vec<_> = kernels
        .into_iter()
        .map(|choice| of_kernel(choice, compiler, reports))
        .collect::<Result<_>>()?;
    let path = place(&apt::suite()?)?;
    fs::write(&path, serde_json::to_vec_pretty(&tried)?)
        .with_context(|| format!("cannot write {}", cache::shown(&path)))
}

fn of_kernel(choice: Choice, compiler: &str, reports: &[(&Check, Report)]) -> Result<Tried> {
    let tests = reports
        .iter()
        .filter(|(check, _)| check.kernel == choice)
        .flat_map(|(_, report)| &report.tests);
    let mut tried = Tried {
        release: kernel::get(choice)?.release,
        compiler: compiler.to_owned(),
        passed: 0,
        failed: 0,
        skipped: 0,
    };
    for test in tests {
        *match test.outcome {
            Outcome::Passed => &mut tried.passed,
            Outcome::Failed => &mut tried.failed,
            Outcome::Skipped => &mut tried.skipped,
        } += 1;
    }
    Ok(tried)
}

/// Puts the table into the page: what was noted of all suites.
pub fn write(page: &Path) -> Result<()> {
    let shown = cache::shown(page);
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {shown}"))?;
    let mut tried = Vec::new();
    for (suite, name) in SUITES {
        if let Ok(noted) = fs::read(place(suite)?) {
            let noted: Vec<Tried> = serde_json::from_slice(&noted)?;
            tried.extend(noted.into_iter().rev().map(|tried| (name, tried)));
        }
    }
    fs::write(page, MARKS.replaced(&text, &table(&tried))?)
        .with_context(|| format!("cannot write {shown}"))
}

fn table(tried: &[(&str, Tried)]) -> String {
    let mut table =
        String::from("| kernel | from | Rust compiler | tests |\n| --- | --- | --- | --- |\n");
    for (from, tried) in tried {
        let mut came_of_it = format!("{} passed", tried.passed);
        for (number, word) in [(tried.failed, "failed"), (tried.skipped, "skipped")] {
            if number > 0 {
                write!(came_of_it, ", **{number} {word}**").ok();
            }
        }
        writeln!(
            table,
            "| {} | {from} | {} | {came_of_it} |",
            tried.release, tried.compiler
        )
        .ok();
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_not_hidden() {
        let tried = |failed, skipped| Tried {
            release: "7.3.4".into(),
            compiler: "1.85.1".into(),
            passed: 9,
            failed,
            skipped,
        };
        let table = table(&[("here", tried(0, 0)), ("there", tried(1, 2))]);
        assert!(
            table.contains("| 7.3.4 | here | 1.85.1 | 9 passed |\n"),
            "{table}"
        );
        assert!(
            table.contains("| 9 passed, **1 failed**, **2 skipped** |\n"),
            "{table}"
        );
    }
}
