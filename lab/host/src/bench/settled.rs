// SPDX-License-Identifier: MIT OR Apache-2.0

//! After a resume: how long it takes until a clone is settled in which a program looks, and until those
//! run who wait. `bench/settled.c` and `bench/resumed.c` run in the guests; what comes before the
//! change, without a program that looks, is measured by `lab window`.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Measured;
use super::guest;
use super::table::Table;
use crate::clone::Saved;
use crate::kernel::Kernel;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step::step;
use crate::tap::Test;

/// What a program can do that has seen a new ID, as the guest's program calls it.
const CALLS: [&str; 2] = ["settle", "open"];
const PROCESSORS: [u32; 2] = [1, 4];

/// So often a machine is saved, each time at another moment, and so many clones it has then.
const SAVES: usize = 2;
const CLONES: usize = 3;

const WATCHERS: [u32; 3] = [1, 100, 10_000];

/// So often one is saved at most until a look has shown what is promised.
const TRIES: usize = 10;

/// What is promised of a look, in microseconds.
const MOST_US: f64 = 60.0;

/// What a clone's look has found, and for how long its call went on, in nanoseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Look {
    /// Whether the generation was still the old one.
    window: bool,
    took: f64,
}

/// The clones of a machine, in each of which a program looks.
#[derive(Debug, Serialize)]
struct Looks {
    call: &'static str,
    processors: u32,
    busy: bool,
    seen: Vec<Look>,
}

impl Looks {
    fn new(call: &'static str, processors: u32, busy: bool) -> Self {
        Self {
            call,
            processors,
            busy,
            seen: Vec::new(),
        }
    }

    /// Saves the machine once more, and has its clones look.
    fn play(&mut self, kernel: &Kernel) -> Result<()> {
        let options = GuestOptions {
            smp: self.processors,
            ..guest::counting()
        };
        let busy = self.busy.then_some("--busy");
        let words: Vec<_> = ["settled", self.call].into_iter().chain(busy).collect();
        let looks = clones::<Look>(kernel, &options, Userland::Busybox, &words, CLONES)?;
        self.seen.extend(looks);
        Ok(())
    }

    fn name(&self) -> String {
        let call = match self.call {
            "settle" => "SETTLE",
            call => call,
        };
        let plural = if self.processors == 1 { "" } else { "s" };
        let load = if self.busy { "busy" } else { "idle" };
        format!("{call}, {} CPU{plural}, {load}", self.processors)
    }

    /// What the calls took that came before the notification's end, in microseconds, in order.
    fn in_window(&self) -> Vec<f64> {
        let looks = self.seen.iter().filter(|look| look.window);
        let mut took: Vec<_> = looks.map(|look| look.took / 1e3).collect();
        took.sort_by(f64::total_cmp);
        took
    }

    fn row(&self) -> Vec<String> {
        let took = self.in_window();
        let cell = |value: Option<&f64>| value.map(|value| format!("{value:.1}"));
        let cells = [took.first(), took.get(took.len() / 2), took.last()].map(cell);
        let mut row = vec![
            self.name(),
            self.seen.len().to_string(),
            took.len().to_string(),
        ];
        row.extend(cells.map(Option::unwrap_or_default));
        row
    }
}

/// When those ran who wait, in nanoseconds since the kernel was interrupted.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Resumed {
    watchers: u32,
    poll: f64,
    read: f64,
    uevent: f64,
    last: f64,
    released: f64,
    target: Option<f64>,
}

#[derive(Serialize)]
struct Data {
    looks: Vec<Looks>,
    resumed: Vec<Resumed>,
}

pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let mut looks = Vec::new();
    for call in CALLS {
        for processors in PROCESSORS {
            for busy in [false, true] {
                let mut one = Looks::new(call, processors, busy);
                for _ in 0..SAVES {
                    one.play(kernel)?;
                }
                looks.push(one);
            }
        }
    }
    let mut resumed = Vec::new();
    for watchers in WATCHERS {
        let options = GuestOptions {
            memory: Some("1G".into()),
            ..guest::counting()
        };
        let words = ["resumed", &watchers.to_string()];
        resumed.push(first(kernel, &options, Userland::Busybox, &words)?);
    }
    let options = GuestOptions {
        systemd: true,
        limit: 900,
        ..guest::counting()
    };
    let words = ["resumed", "1", "--target"];
    let target = first(kernel, &options, Userland::System, &words)?;
    let tables = vec![looks_table(&looks), resumed_table(&resumed, &target)];
    resumed.push(target);
    Measured::new(&Data { looks, resumed }, tables, Vec::new())
}

/// A test: a program that looks is settled soon, also where others keep all processors busy. Instructions
/// are counted: the host's speed makes no difference.
pub fn soon(kernel: &Kernel) -> Result<Vec<Test>> {
    let scenes = [("settle", 4, true), ("open", 1, false)];
    let test = |(call, processors, busy)| {
        let mut looks = Looks::new(call, processors, busy);
        looks.play(kernel)?;
        for _ in 1..TRIES {
            if judge(&looks).is_ok() {
                break;
            }
            looks.play(kernel)?;
        }
        let name = format!("{}: settled within {MOST_US} µs of a look", looks.name());
        Ok(Test::from_result(name, judge(&looks)))
    };
    scenes.into_iter().map(test).collect()
}

/// The least counts, since what comes in between can only add to it: processors take turns, and a busy one
/// is taken away at a tick of the clock. A look after the change shows nothing.
fn judge(looks: &Looks) -> Result<()> {
    let took = looks.in_window();
    let least = took
        .first()
        .context("no clone has looked before the change was made")?;
    ensure!(*least <= MOST_US, "{least} µs of guest time");
    Ok(())
}

/// What the clones of a machine print that is saved when its program says READY.
fn clones<T: DeserializeOwned>(
    kernel: &Kernel,
    options: &GuestOptions,
    userland: Userland<'_>,
    words: &[&str],
    number: usize,
) -> Result<Vec<T>> {
    step(&format!("measuring {}", words.join(" ")), || {
        let (program, command) = guest::program(kernel, words)?;
        let setup = Setup::with(options, kernel, userland, &[program], &command, None)?;
        let (saved, _) = Saved::with_output(&setup)?;
        let mut all = Vec::new();
        for turn in 1..=number {
            let kept = saved.resume_well(&format!("clone {turn}"))?;
            all.extend(guest::parse::<T>(&kept.output())?);
        }
        Ok(all)
    })
}

fn first(
    kernel: &Kernel,
    options: &GuestOptions,
    userland: Userland<'_>,
    words: &[&str],
) -> Result<Resumed> {
    let all = clones::<Resumed>(kernel, options, userland, words, 1)?;
    all.into_iter()
        .next()
        .context("resumed has printed nothing")
}

fn looks_table(looks: &[Looks]) -> Table {
    Table {
        rows: looks.iter().map(Looks::row).collect(),
        ..Table::new(
            "A program looks after a resume, and sees a new ID: microseconds until its call returns, and the machine is settled (500 instructions each)",
            [
                "the call, and the machine",
                "clones",
                "looked before the change",
                "least",
                "median",
                "most",
            ],
        )
    }
}

fn resumed_table(resumed: &[Resumed], target: &Resumed) -> Table {
    let row = |name: &str, of: fn(&Resumed) -> f64| {
        let cells = resumed.iter().map(|one| format!("{:.0}", of(one) / 1e3));
        [vec![name.to_owned()], cells.collect()].concat()
    };
    let mut unit = vec![
        "a unit of sysgenid-changed.target (a whole system)".into(),
        target
            .target
            .map(|time| format!("{:.0}", time / 1e3))
            .unwrap_or_default(),
    ];
    unit.resize(1 + resumed.len(), String::new());
    let mut headings = vec!["until this has run".to_owned()];
    headings.extend(resumed.iter().map(|one| match one.watchers {
        1 => "1 watcher".into(),
        more => format!("{more} watchers"),
    }));
    Table {
        caption: "After a resume, where nobody looks: microseconds from ACPI's interrupt, with one processor (500 instructions each)".into(),
        headings,
        rows: vec![
            row("a program asleep in read()", |one| one.read),
            row("a program asleep in poll()", |one| one.poll),
            row("the last of the watchers, tracked, in one epoll instance", |one| one.last),
            row("the overseer that waits for them", |one| one.released),
            row("a program that listens for uevents", |one| one.uevent),
            unit,
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(looks: &[(bool, f64)]) -> Looks {
        let looks = looks.iter();
        Looks {
            call: "settle",
            processors: 4,
            busy: true,
            seen: looks.map(|&(window, took)| Look { window, took }).collect(),
        }
    }

    #[test]
    fn looks_after_the_change_do_not_count() {
        let some = looks(&[(true, 59_000.0), (false, 1_000.0), (true, 17_000.0)]);
        let expected = ["SETTLE, 4 CPUs, busy", "3", "2", "17.0", "59.0", "59.0"];
        assert_eq!(some.row(), expected);
        assert!(judge(&some).is_ok());
        assert!(judge(&looks(&[(false, 1_000.0)])).is_err());
        assert!(judge(&looks(&[(true, 61_000.0), (false, 1_000.0)])).is_err());
    }

    #[test]
    fn what_a_clone_prints_becomes_rows() {
        let line = r#"{"watchers": 1, "poll": 567789, "read": 272461, "uevent": 8142569, "last": 253665, "released": 864929}"#;
        let one: Vec<Resumed> = guest::parse(line).expect("it is well-formed");
        let target = Resumed {
            watchers: 1,
            target: Some(5e8),
            ..guest::parse::<Resumed>(line).expect("the same").remove(0)
        };
        let table = resumed_table(&one, &target);
        assert_eq!(table.headings, ["until this has run", "1 watcher"]);
        assert_eq!(table.rows[0], ["a program asleep in read()", "272"]);
        let last = table.rows.last().expect("there are rows");
        assert_eq!(last[1], "500000");
    }
}
