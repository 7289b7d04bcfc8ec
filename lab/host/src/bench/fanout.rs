// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long a change takes until all who wait for it run, and what each of them takes of the kernel's
//! memory. `bench/fanout.c` and `bench/memory.c` run in the guests.

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::Measured;
use super::chart::Chart;
use super::chart::Kind;
use super::chart::Lines;
use super::chart::Series;
use super::guest;
use super::table::Table;
use crate::kernel::Kernel;
use crate::setup::GuestOptions;
use crate::step::step;

/// How they wait, and how that is called here.
const WAYS: [(&str, &str, &[u32]); 3] = [
    (
        "epoll",
        "in one epoll instance",
        &[1, 10, 100, 1_000, 10_000, 100_000],
    ),
    (
        "poll",
        "a process each, in poll()",
        &[1, 10, 100, 1_000, 10_000],
    ),
    (
        "read",
        "a process each, in read()",
        &[1, 10, 100, 1_000, 10_000],
    ),
];

/// How many entries a hostile user has in epoll instances, beside one watcher: as many as the kernel
/// allows in a guest of that size, but for a tenth.
const HOSTILE: [u32; 3] = [1_000, 20_000, 200_000];

/// A run: nanoseconds of a guest that counts instructions, from the call that changes the generation.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Fanout {
    how: String,
    watchers: u32,
    /// Entries of somebody else.
    entries: u32,
    /// Until the first of the watchers runs.
    first: f64,
    /// Until the last of them does.
    last: f64,
    /// Until that call has returned.
    returned: f64,
    /// Until the overseer knows that all have acked.
    released: f64,
    /// The longest time for which interrupts were off while they were woken.
    interrupts_off: f64,
}

/// What an open descriptor takes of the kernel's memory, in bytes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    what: String,
    bytes: f64,
    /// With an entry in an epoll instance.
    in_epoll: Option<f64>,
}

#[derive(Serialize)]
struct Data {
    fanout: Vec<Fanout>,
    memory: Vec<Memory>,
}

/// A guest that has room for 100 000 watchers, or 10 000 processes.
fn roomy() -> GuestOptions {
    GuestOptions {
        memory: Some("2G".into()),
        // The host may be slow, and 10 000 processes are many.
        limit: 900,
        ..guest::counting()
    }
}

pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let mut fanout = Vec::new();
    for (how, _, numbers) in WAYS {
        for watchers in numbers {
            fanout.push(once(kernel, &[how, &watchers.to_string()])?);
        }
    }
    for entries in HOSTILE {
        fanout.push(once(
            kernel,
            &["poll", "1", "--entries", &entries.to_string()],
        )?);
    }
    let memory = step("measuring memory", || {
        guest::measure(kernel, &roomy(), &["memory"])
    })?;
    let tables = vec![table(&fanout), memory_table(&memory)];
    let chart = chart(&fanout, &kernel.release);
    Measured::new(&Data { fanout, memory }, tables, vec![chart])
}

fn once(kernel: &Kernel, arguments: &[&str]) -> Result<Fanout> {
    let words = [&["fanout"], arguments].concat();
    let lines = step(&format!("measuring {}", words.join(" ")), || {
        guest::measure(kernel, &roomy(), &words)
    })?;
    lines
        .into_iter()
        .next()
        .context("fanout has printed nothing")
}

/// Microseconds, of which two instructions take one thousandth.
fn microseconds(nanoseconds: f64) -> String {
    let value = nanoseconds / 1e3;
    match value {
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn who(one: &Fanout) -> String {
    let way = WAYS.iter().find(|(how, _, _)| *how == one.how);
    let way = way.map_or(one.how.as_str(), |(_, way, _)| way);
    if one.entries > 0 {
        return format!("{}, beside {} entries of another user", way, one.entries);
    }
    way.into()
}

fn table(fanout: &[Fanout]) -> Table {
    let rows = fanout.iter().map(|one| {
        let times = [
            one.first,
            one.last,
            one.returned,
            one.released,
            one.interrupts_off,
        ];
        let mut row = vec![who(one), one.watchers.to_string()];
        row.extend(times.map(microseconds));
        row
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "A change: microseconds until those who wait for it run (500 instructions each)",
            [
                "who waits",
                "watchers",
                "first",
                "last",
                "call returns",
                "overseer released",
                "interrupts off",
            ],
        )
    }
}

fn memory_table(memory: &[Memory]) -> Table {
    let rows = memory.iter().map(|one| {
        vec![
            one.what.clone(),
            format!("{:.0}", one.bytes),
            one.in_epoll
                .map(|bytes| format!("{bytes:.0}"))
                .unwrap_or_default(),
        ]
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "Bytes of the kernel's memory for one open descriptor",
            ["what is open", "bytes", "and in an epoll instance"],
        )
    }
}

fn chart(fanout: &[Fanout], release: &str) -> Chart {
    let series = |label: &str, how: &str, of: fn(&Fanout) -> f64| Series {
        label: label.into(),
        points: fanout
            .iter()
            .filter(|one| one.how == how && one.entries == 0)
            .map(|one| (f64::from(one.watchers), of(one) / 1e3))
            .collect(),
    };
    Chart {
        name: "fanout",
        title: "From a change until all who wait for it have run, and confirmed".into(),
        subtitle: format!(
            "microseconds of one processor at 500 instructions each; the generation is changed by a call; Linux {release}"
        ),
        kind: Kind::Lines(Lines {
            x: "watchers".into(),
            y: "µs".into(),
            series: vec![
                series("released: one epoll instance", "epoll", |one| one.released),
                series("released: a process each, poll()", "poll", |one| {
                    one.released
                }),
                series("released: a process each, read()", "read", |one| {
                    one.released
                }),
                series("the first one runs: one epoll instance", "epoll", |one| {
                    one.first
                }),
                series("interrupts off: one epoll instance", "epoll", |one| {
                    one.interrupts_off
                }),
                series("interrupts off: a process each, poll()", "poll", |one| {
                    one.interrupts_off
                }),
            ],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"{"how": "epoll", "watchers": 1000, "entries": 0, "first": 597113, "last": 3778575, "returned": 409948, "released": 3794071, "interrupts_off": 372284}
{"how": "poll", "watchers": 1, "entries": 20000, "first": 48254, "last": 48254, "returned": 60270, "released": 64464, "interrupts_off": 10686}
"#;

    #[test]
    fn what_is_printed_becomes_rows_and_points() {
        let fanout: Vec<Fanout> = guest::parse(OUTPUT).expect("it is well-formed");
        let rows = table(&fanout).rows;
        let expected = [
            "in one epoll instance",
            "1000",
            "597",
            "3779",
            "410",
            "3794",
            "372",
        ];
        assert_eq!(rows[0], expected);
        assert_eq!(
            rows[1][0],
            "a process each, in poll(), beside 20000 entries of another user"
        );
        assert_eq!(rows[1][2], "48.3");
        let Kind::Lines(lines) = chart(&fanout, "7.3").kind else {
            panic!("the plot has lines");
        };
        assert_eq!(lines.series[0].points, [(1000.0, 3794.071)]);
        // Who is disturbed by others is no point of a line.
        assert!(lines.series[1].points.is_empty());
    }
}
