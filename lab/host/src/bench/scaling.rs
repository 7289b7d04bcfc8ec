// SPDX-License-Identifier: MIT OR Apache-2.0

//! How many calls several processors make at the same time. `bench/scaling.c` runs in the guests, by
//! the host's clock: where instructions are counted, one processor runs at a time.

use std::thread;

use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::Measured;
use super::guest;
use super::table::Table;
use crate::kernel::Kernel;
use crate::machine::Virtualisation;
use crate::setup::GuestOptions;
use crate::step::step;

/// How many processors there are, and threads.
const PROCESSORS: [u32; 3] = [1, 2, 4];

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Scaling {
    call: String,
    threads: u32,
    /// How often the generation was changed meanwhile.
    changes: u32,
    /// Calls of all threads together.
    per_second: f64,
}

pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let mut all = Vec::new();
    for processors in PROCESSORS {
        let options = GuestOptions {
            smp: processors,
            ..GuestOptions::plain()
        };
        let words = ["scaling", &processors.to_string()];
        all.extend(step(&format!("measuring with {processors} CPUs"), || {
            guest::measure::<Scaling>(kernel, &options, &words)
        })?);
    }
    let table = table(&all);
    Measured::new(&all, vec![table], Vec::new())
}

/// A row for each call and whether there are changes, a column for each number of processors.
fn table(all: &[Scaling]) -> Table {
    // In the order in which they were measured.
    let mut names: Vec<&str> = Vec::new();
    for one in all {
        if !names.contains(&one.call.as_str()) {
            names.push(&one.call);
        }
    }
    let row = |name: &str, changes: bool| {
        let how = if changes {
            ", while changes are made"
        } else {
            ""
        };
        let cells = PROCESSORS.map(|processors| {
            let one = all.iter().find(|one| {
                one.call == name && one.threads == processors && (one.changes > 0) == changes
            });
            one.map_or_else(String::new, |one| thousands(one.per_second))
        });
        [vec![format!("{name}{how}")], cells.to_vec()].concat()
    };
    let rows = names
        .into_iter()
        .flat_map(|name| [row(name, false), row(name, true)]);
    let headings = PROCESSORS.map(|processors| match processors {
        1 => "1 CPU".into(),
        more => format!("{more} CPUs"),
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let how = if Virtualisation::find().is_usable() {
        "KVM"
    } else {
        "emulated"
    };
    Table {
        caption: format!(
            "Thousands of calls a second, by the host's clock ({how}, on {cores} cores)"
        ),
        headings: [vec!["call".to_owned()], headings.to_vec()].concat(),
        rows: rows.collect(),
    }
}

fn thousands(value: f64) -> String {
    format!("{:.0}", value / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_a_row_with_changes_and_one_without() {
        let mut lines = String::new();
        for threads in PROCESSORS {
            for call in ["read", "poll"] {
                for changes in [0, 7] {
                    let rate = 1000 * (threads + changes);
                    lines += &format!(
                        "{{\"call\": \"{call}\", \"threads\": {threads}, \"changes\": {changes}, \"per_second\": {rate}}}\n"
                    );
                }
            }
        }
        let all: Vec<Scaling> = guest::parse(&lines).expect("it is well-formed");
        let rows = table(&all).rows;
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0], ["read", "1", "2", "4"]);
        assert_eq!(rows[3], ["poll, while changes are made", "8", "9", "11"]);
    }
}
