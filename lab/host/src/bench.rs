// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab bench`: what the device costs, beside what programs would use instead.
//!
//! Each part measures in guests, and has tables in Documentation/performance.rst and plots beside it.
//! Where it can it counts instructions, so that the host's speed makes no difference. A short form of
//! what holds a promise is among the tests (bench/*.test.toml).

mod calls;
mod chart;
mod clones;
mod draws;
mod fanout;
mod guest;
mod scaling;
mod settled;
mod sizes;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use self::chart::Chart;
pub use self::settled::soon;
use self::table::Table;
use crate::cache;
use crate::kernel;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::page::Marks;
use crate::say;

/// What can be measured by itself. The name is also that of its place in the page.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Part {
    /// What each call costs
    Calls,
    /// What random numbers cost that are safe in clones
    Draws,
    /// How long a change takes until all who wait have run, and what they take of memory
    Fanout,
    /// After a resume: how long until a program that looks is settled, and until those run who wait
    Settled,
    /// How many calls several processors make at the same time
    Scaling,
    /// How large everything is, and what it takes to load the module
    Sizes,
    /// Clones of a TLS server: until they run, and until they serve with keys of their own
    Clones,
}

impl Part {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    fn measure(self, kernel: &Kernel) -> Result<Measured> {
        match self {
            Self::Calls => calls::measure(kernel),
            Self::Draws => draws::measure(kernel),
            Self::Fanout => fanout::measure(kernel),
            Self::Settled => settled::measure(kernel),
            Self::Scaling => scaling::measure(kernel),
            Self::Sizes => sizes::measure(kernel),
            Self::Clones => clones::measure(kernel),
        }
    }
}

/// What a part has measured, in all its forms.
struct Measured {
    data: Value,
    tables: Vec<Table>,
    charts: Vec<Chart>,
}

impl Measured {
    fn new(data: &impl Serialize, tables: Vec<Table>, charts: Vec<Chart>) -> Result<Self> {
        Ok(Self {
            data: serde_json::to_value(data)?,
            tables,
            charts,
        })
    }
}

/// What was measured, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    kernel: &'a str,
    #[serde(flatten)]
    parts: BTreeMap<String, &'a Value>,
}

/// Measures those parts, or all; shows the tables, and writes everything where it is wanted: into a
/// directory, and the tables and plots into a page and beside it.
pub fn run(parts: &[Part], output: Option<&Path>, page: Option<&Path>) -> Result<u8> {
    let kernel = kernel::get(Choice::Stock)?;
    let parts = if parts.is_empty() {
        Part::value_variants()
    } else {
        parts
    };
    // What cannot be written is better known before all is measured.
    if let Some(page) = page {
        replaced(page, parts.iter().map(|part| (part.name(), String::new())))?;
    }
    let mut measured = Vec::new();
    for part in parts {
        let one = part
            .measure(&kernel)
            .with_context(|| format!("measuring “{}”", part.name()))?;
        for table in &one.tables {
            println!("{}\n\n{}", table.caption, table.markdown());
        }
        measured.push((part.name(), one));
    }
    println!("(Linux {})", kernel.release);
    if let Some(output) = output {
        write_all(&kernel.release, &measured, output)?;
    }
    if let Some(page) = page {
        write_page(&measured, page)?;
    }
    Ok(0)
}

fn write_all(kernel: &str, measured: &[(String, Measured)], output: &Path) -> Result<()> {
    fs::create_dir_all(output)
        .with_context(|| format!("cannot make the directory {}", cache::shown(output)))?;
    let report = Report {
        kernel,
        parts: measured
            .iter()
            .map(|(name, one)| (name.clone(), &one.data))
            .collect(),
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    write(&output.join("bench.json"), json.as_bytes())?;
    let mut markdown = format!("# What it costs, on Linux {kernel}\n");
    for table in measured.iter().flat_map(|(_, one)| &one.tables) {
        let rows = table.markdown();
        write!(markdown, "\n## {}\n\n{rows}", table.caption)?;
    }
    write(&output.join("bench.md"), markdown.as_bytes())?;
    for chart in measured.iter().flat_map(|(_, one)| &one.charts) {
        let path = output.join(chart.name);
        write(&path.with_extension("svg"), chart.svg()?.as_bytes())?;
        write(&path.with_extension("png"), &chart.png()?)?;
    }
    Ok(())
}

/// The plots of a page are in a directory that has its name, without the ending.
fn write_page(measured: &[(String, Measured)], page: &Path) -> Result<()> {
    let tables = measured.iter().map(|(name, one)| {
        let tables: String = one.tables.iter().map(Table::rst).collect();
        (name.clone(), tables)
    });
    let text = replaced(page, tables)?;
    let beside = page.with_extension("");
    for chart in measured.iter().flat_map(|(_, one)| &one.charts) {
        fs::create_dir_all(&beside)?;
        let path = beside.join(chart.name).with_extension("svg");
        write(&path, chart.svg()?.as_bytes())?;
    }
    write(page, text.as_bytes())
}

/// The page with other tables, each between the marks of its part.
fn replaced(page: &Path, tables: impl Iterator<Item = (String, String)>) -> Result<String> {
    let shown = cache::shown(page);
    let mut text = fs::read_to_string(page).with_context(|| format!("cannot read {shown}"))?;
    for (name, table) in tables {
        let marks = ["begin", "end"].map(|end| format!(".. lab bench, {name}: {end}"));
        let marks = Marks([&marks[0], &marks[1]]);
        text = marks.replaced(&text, &format!("\n{table}\n"))?;
    }
    Ok(text)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = cache::shown(path);
    fs::write(path, bytes).with_context(|| format!("cannot write {shown}"))?;
    say::say(format!("written: {shown}"));
    Ok(())
}
