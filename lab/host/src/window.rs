// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab window`: where the time goes between the resume of a clone and the change of the generation.
//!
//! `bench/window_guest.c` runs in the guest, and has the stock kernel's tracers note what is on the
//! way. Each clone prints its trace; here the moments of several clones are put together, shown as a
//! table, and drawn.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::cache;
use crate::clone::Saved;
use crate::kernel;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::machine::NS_PER_INSTRUCTION;
use crate::machine::Virtualisation;
use crate::products;
use crate::say;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::tap::Test;

mod picture;

const PROGRAM: &str = "/window_guest";

/// How many clones there are of each machine.
const CLONES: usize = 5;

/// What is on the way, from one moment of the trace to the next.
struct Stage {
    /// What the trace says when it begins. It is looked for after that of the stage before.
    begins: &'static str,
    what: &'static str,
    colour: &'static str,
}

const STAGES: [Stage; 7] = [
    Stage {
        begins: "handle_fasteoi_irq <-",
        what: "the interrupt (SCI): wake its thread",
        colour: "#525252",
    },
    Stage {
        begins: "acpi_irq <-",
        what: "ACPI: find the event (GPE), queue its work",
        colour: "#08306b",
    },
    Stage {
        begins: "acpi_ev_asynch_execute_gpe_method <-",
        what: "ACPI: the event's work; find the firmware's method for it",
        colour: "#2171b5",
    },
    Stage {
        begins: "acpi_ns_evaluate <-",
        what: "ACPI: run that method (AML), queue the notification",
        colour: "#6baed6",
    },
    Stage {
        begins: "acpi_ev_notify_dispatch <-",
        what: "sysgenid: hear it; its work begins; mix the ID in",
        colour: "#fdd0a2",
    },
    Stage {
        begins: "random_ioctl <-",
        what: "random numbers: reseed",
        colour: "#e6550d",
    },
    Stage {
        begins: " reseeded: ",
        what: "sysgenid: change the generation, wake all who wait",
        colour: "#006d2c",
    },
];

/// What the trace says when the last stage has ended: the driver has a timer set for the uevent and
/// the line in the log.
const CHANGED: &str = "queue_delayed_work_on <-";

/// The stage in which the generation changes. When it ends, everybody who waits has been woken.
const CHANGE: usize = STAGES.len() - 1;

/// What one clone's trace shows, in microseconds of its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Timeline {
    /// The first look that found a new ID, if a program was looking.
    new_id: Option<i64>,
    /// The first look that found a new generation, if a program was looking.
    new_generation: Option<i64>,
    /// The beginning of each of [`STAGES`], and the end of the last one.
    moments: [i64; STAGES.len() + 1],
    /// When the program that was asleep in `poll()` ran.
    woken: i64,
}

/// The time of a line of the trace: seconds, a point, six digits, a colon.
fn time(line: &str) -> Option<i64> {
    line.split_whitespace().find_map(|word| {
        let (seconds, fraction) = word.strip_suffix(':')?.split_once('.')?;
        let fraction: i64 = (fraction.len() == 6).then(|| fraction.parse().ok())??;
        Some(seconds.parse::<i64>().ok()? * 1_000_000 + fraction)
    })
}

impl Timeline {
    fn parse(output: &str) -> Result<Self> {
        let lines: Vec<_> = output
            .lines()
            .filter_map(|line| line.strip_prefix("trace "))
            .filter_map(|line| Some((time(line)?, line)))
            .collect();
        let marked = |what: &str| {
            let mark = format!("tracing_mark_write: {what}");
            let found = lines.iter().find(|(_, line)| line.ends_with(&mark));
            found.map(|(time, _)| *time)
        };
        let mut rest = lines.iter();
        let mut moments = [0; STAGES.len() + 1];
        let signs = STAGES.iter().map(|stage| stage.begins).chain([CHANGED]);
        for (moment, sign) in moments.iter_mut().zip(signs) {
            let (time, _) = rest
                .find(|(_, line)| line.contains(sign))
                .with_context(|| format!("the trace has no “{sign}” in its place:\n{output}"))?;
            *moment = *time;
        }
        Ok(Self {
            new_id: marked("new ID"),
            new_generation: marked("new generation"),
            moments,
            woken: marked("woken").context("nobody was woken")?,
        })
    }

    /// How long a stage took.
    fn took(&self, stage: usize) -> i64 {
        self.moments[stage + 1] - self.moments[stage]
    }

    /// How long after the interrupt a moment was: less than 0 if it was before.
    fn since_interrupt(&self, moment: i64) -> i64 {
        moment - self.moments[0]
    }
}

/// One machine, and what its clones' traces show.
struct Scene {
    name: String,
    timelines: Vec<Timeline>,
}

impl Scene {
    /// Has clones of a machine trace their way from the resume to the change, one after the other.
    /// If the machine is busy then each of its processors has work, and a program looks at the ID
    /// without a pause.
    fn play(kernel: &Kernel, options: &GuestOptions, busy: bool, clones: usize) -> Result<Self> {
        let load = if busy { "busy" } else { "idle" };
        let plural = if options.smp == 1 { "" } else { "s" };
        let program = Addition {
            from: products::bench(kernel, "window_guest")?,
            guest: PROGRAM.into(),
        };
        let mut command = vec![PROGRAM.to_owned()];
        if busy {
            command.push("--busy".into());
        }
        let userland = Userland::Busybox;
        let setup = Setup::with(options, kernel, userland, &[program], &command, None)?;
        let (saved, _) = Saved::with_output(&setup)?;
        let timelines = (1..=clones).map(|number| {
            let name = format!("clone {number}");
            Timeline::parse(&saved.resume_well(&name)?.output()).context(name)
        });
        Ok(Self {
            name: format!("{} CPU{plural}, {load}", options.smp),
            timelines: timelines.collect::<Result<_>>()?,
        })
    }

    /// The median over the clones, of those that have the value at all.
    fn median<T: Copy + Ord>(&self, of: impl Fn(&Timeline) -> Option<T>) -> Option<T> {
        let mut values: Vec<_> = self.timelines.iter().filter_map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    }

    /// How long the driver's own part takes, from the reseed until everybody is woken, in microseconds
    /// of the guest's time: the least of all clones, for what comes in between can only add to it.
    fn own_part(&self) -> Option<i64> {
        self.timelines.iter().map(|one| one.took(CHANGE)).min()
    }
}

/// A check: on the way from the resume to the change everything comes in its order, and the driver's
/// own part is short; nobody waits for the uevent and the log line. Instructions are counted: the
/// host's speed makes no difference.
pub fn own_part(kernel: &Kernel) -> Result<Vec<Test>> {
    const MOST_US: i64 = 15;
    const ENOUGH: usize = 3;
    let options = GuestOptions {
        icount: true,
        ..GuestOptions::plain()
    };
    let scene = Scene::play(kernel, &options, false, ENOUGH)?;
    let took = scene.own_part().context("there are no clones")?;
    let result = || {
        ensure!(took <= MOST_US, "{took} µs of guest time");
        Ok(())
    };
    Ok(vec![Test::from_result(
        format!("window: our part takes at most {MOST_US} µs"),
        result(),
    )])
}

/// A row of the table: microseconds of the guest's time.
struct Row {
    what: &'static str,
    /// The stage that it is about, if it is about one.
    stage: Option<usize>,
    /// One for each scene.
    medians: Vec<Option<i64>>,
}

fn rows(scenes: &[Scene]) -> Vec<Row> {
    let row = |what, stage, of: &dyn Fn(&Timeline) -> Option<i64>| Row {
        what,
        stage,
        medians: scenes.iter().map(|scene| scene.median(of)).collect(),
    };
    let mut rows: Vec<_> = STAGES
        .iter()
        .enumerate()
        .map(|(number, stage)| {
            let took = |one: &Timeline| Some(one.took(number));
            row(stage.what, Some(number), &took)
        })
        .collect();
    let mut since = |what, moment: fn(&Timeline) -> Option<i64>| {
        let since_interrupt = |one: &Timeline| Some(one.since_interrupt(moment(one)?));
        rows.push(row(what, None, &since_interrupt));
    };
    since("from the interrupt to the change", |one| {
        Some(one.moments[CHANGE + 1])
    });
    since("… until a program asleep in poll() runs", |one| {
        Some(one.woken)
    });
    since("… until a program that looks sees the new ID", |one| {
        one.new_id
    });
    since("… until it sees the new generation", |one| {
        one.new_generation
    });
    rows
}

/// What a row has for a scene.
fn cell(median: Option<i64>) -> String {
    median.map_or("–".into(), |median| median.to_string())
}

/// Measures, shows the table, and draws the picture if there is a place for it. Guest time goes by the
/// host's clock or, with `icount`, by the number of instructions.
pub fn run(icount: bool, picture: Option<&Path>) -> Result<u8> {
    let kernel = kernel::get(Choice::Stock)?;
    let mut scenes = Vec::new();
    for (smp, busy) in [(1, false), (1, true), (4, false), (4, true)] {
        let options = GuestOptions {
            smp,
            icount,
            ..GuestOptions::plain()
        };
        scenes.push(Scene::play(&kernel, &options, busy, CLONES)?);
    }
    let rows = rows(&scenes);
    print!("{:62}", "");
    for scene in &scenes {
        print!("{:>14}", scene.name);
    }
    println!();
    for row in &rows {
        print!("{:62}", row.what);
        for median in &row.medians {
            print!("{:>14}", cell(*median));
        }
        println!();
    }
    let setting = setting(&kernel, icount);
    println!("(medians of {CLONES} clones, in µs of guest time; {setting})");
    if let Some(path) = picture {
        let drawn = picture::draw(&scenes, &rows, &setting).to_string() + "\n";
        let shown = cache::shown(path);
        fs::write(path, drawn).with_context(|| format!("cannot write {shown}"))?;
        say::say(format!("drawn: {shown}"));
    }
    Ok(0)
}

/// What was measured in.
fn setting(kernel: &Kernel, icount: bool) -> String {
    let how = match (icount, Virtualisation::find().is_usable()) {
        (true, _) => format!("TCG, {NS_PER_INSTRUCTION} ns for each instruction"),
        (false, true) => "KVM".into(),
        (false, false) => "TCG, by the host's clock".into(),
    };
    format!("Linux {}, {how}", kernel.release)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace as the kernel prints it, with so many microseconds between its lines.
    fn trace(pause: i64) -> String {
        use std::fmt::Write;

        let signs = ["tracing_mark_write: new ID"]
            .into_iter()
            .chain(STAGES.iter().map(|stage| stage.begins))
            .chain([CHANGED, "tracing_mark_write: woken"]);
        signs
            .zip(0..)
            .fold(String::new(), |mut text, (sign, number)| {
                let at = 999_990 + number * pause;
                let (seconds, fraction) = (at / 1_000_000, at % 1_000_000);
                writeln!(
                    text,
                    "trace task-1 [000] ..... {seconds}.{fraction:06}: {sign}"
                )
                .ok();
                text
            })
    }

    /// A scene with a clone for each pause.
    pub fn scene(pauses: &[i64]) -> Scene {
        let timeline = |&pause| Timeline::parse(&trace(pause)).expect("it is whole");
        Scene {
            name: "1 CPU, idle".into(),
            timelines: pauses.iter().map(timeline).collect(),
        }
    }

    #[test]
    fn a_trace_is_read() {
        let timeline = Timeline::parse(&trace(3)).expect("it is whole");
        assert_eq!(timeline.took(0), 3);
        assert_eq!(
            timeline.new_id.map(|at| timeline.since_interrupt(at)),
            Some(-3)
        );
        assert_eq!(timeline.new_generation, None);
        assert_eq!(timeline.woken, timeline.moments[STAGES.len()] + 3);
        // What is missing, or comes too early, is named.
        for stage in &STAGES {
            let without = trace(3).replace(stage.begins, "something else");
            let error = Timeline::parse(&without).expect_err("it lacks a stage");
            assert!(error.to_string().contains(stage.begins), "{error}");
        }
        assert!(Timeline::parse(&trace(3).replace("woken", "asleep")).is_err());
    }

    #[test]
    fn the_median_is_of_those_that_have_a_value() {
        let mut scene = scene(&[1, 9, 2]);
        scene.timelines[1].new_id = None;
        assert_eq!(scene.own_part(), Some(1), "the least, and not the median");
        assert_eq!(
            scene.median(|one| Some(one.since_interrupt(one.new_id?))),
            Some(-1)
        );
        assert_eq!(cell(scene.median(|_| None)), "–");
    }
}
