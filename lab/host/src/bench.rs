// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab bench`: what the device costs, beside what programs would use instead.
//!
//! Each part measures in a guest that counts instructions, so that the host's speed makes no
//! difference, and has a table in Documentation/performance.rst. A short form of it is among the tests
//! (bench/*.test.toml).

mod calls;
mod table;

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use self::calls::Call;
use crate::cache;
use crate::kernel;
use crate::kernel::Choice;
use crate::page::Marks;
use crate::say;

/// What the table of the calls lies between, in the page.
const CALLS: Marks = Marks([".. lab bench, calls: begin", ".. lab bench, calls: end"]);

/// What was measured.
#[derive(Serialize)]
struct Report {
    kernel: String,
    calls: Vec<Call>,
}

/// Measures, shows the tables, and writes them where they are wanted.
pub fn run(json: Option<&Path>, page: Option<&Path>) -> Result<u8> {
    let kernel = kernel::get(Choice::Stock)?;
    let report = Report {
        kernel: kernel.release.clone(),
        calls: calls::measure(&kernel)?,
    };
    let table = calls::table(&report.calls);
    println!("{}", table.markdown());
    println!("(instructions of one call; Linux {})", report.kernel);
    if let Some(json) = json {
        write(json, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(page) = page {
        let shown = cache::shown(page);
        let text = fs::read_to_string(page).with_context(|| format!("cannot read {shown}"))?;
        let table = format!("\n{}\n", table.rst(&format!("Linux {}", report.kernel)));
        write(page, &CALLS.replaced(&text, &table)?)?;
    }
    Ok(0)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let shown = cache::shown(path);
    fs::write(path, text).with_context(|| format!("cannot write {shown}"))?;
    say::say(format!("written: {shown}"));
    Ok(())
}
