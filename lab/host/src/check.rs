// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab check`: everything a contributor needs before a commit.

mod build;
mod guests;
mod lab;
mod source;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::cache;
use crate::kernel;
use crate::kernel::Kernel;
use crate::products;
use crate::step;
use crate::tap::Outcome;
use crate::tap::Test;

/// One check: its name, and what it does. It reports one or more tests.
struct Check {
    name: &'static str,
    run: fn(&Bench) -> Result<Vec<Test>>,
}

/// What all checks need.
struct Bench {
    kernel: Kernel,
}

/// Without a guest: these use all processors themselves, and run one after the other.
const ON_THE_HOST: [Check; 8] = [
    Check {
        name: "formatting",
        run: source::formatting,
    },
    Check {
        name: "lints",
        run: source::lints,
    },
    Check {
        name: "a test for each row of the contract",
        run: source::contract,
    },
    Check {
        name: "licences",
        run: source::licences,
    },
    Check {
        name: "unit tests of the lab",
        run: build::unit_tests,
    },
    Check {
        name: "the module's build",
        run: build::module_build,
    },
    Check {
        name: "a KDIR that cannot build Rust modules",
        run: build::refused_kdirs,
    },
    Check {
        name: "the front door",
        run: build::front_door,
    },
];

/// With guests: as many at once as there are processors.
const IN_GUESTS: [Check; 10] = [
    Check {
        name: "selftests",
        run: guests::selftests,
    },
    Check {
        name: "loading, unloading, and other kernel code",
        run: guests::module_test,
    },
    Check {
        name: "the ordering promise",
        run: guests::ordering,
    },
    Check {
        name: "clones",
        run: guests::clones,
    },
    Check {
        name: "resumed with the same ID",
        run: guests::same_id,
    },
    Check {
        name: "demo",
        run: lab::demo,
    },
    Check {
        name: "a program that the lab has never seen",
        run: guests::unknown_program,
    },
    Check {
        name: "ends of a run",
        run: lab::ends,
    },
    Check {
        name: "kernel reports",
        run: lab::reports,
    },
    Check {
        name: "Debian's user space",
        run: lab::userspace,
    },
];

/// What came of one check.
#[derive(Serialize)]
struct Report {
    check: &'static str,
    seconds: f32,
    tests: Vec<Test>,
}

/// What came of everything.
#[derive(Serialize)]
struct Summary {
    kernel: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    checks: Vec<Report>,
}

/// Runs all checks, writes the summary to `summary`, and returns what the lab exits with. With
/// `strict`, a test that was skipped counts against it.
pub fn run(summary: &Path, strict: bool) -> Result<u8> {
    let kernel = kernel::get(kernel::Choice::Stock)?;
    let bench = Bench { kernel };
    step::be_quiet();
    let mut checks: Vec<Report> = ON_THE_HOST
        .iter()
        .map(|check| perform(check, &bench))
        .collect();
    // Two guests must not wait for one build.
    products::module(&bench.kernel)?;
    checks.extend(in_parallel(&bench));

    let count = |outcome| {
        let tests = checks.iter().flat_map(|report| &report.tests);
        tests.filter(|test| test.outcome == outcome).count()
    };
    let summarised = Summary {
        kernel: bench.kernel.release.clone(),
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        skipped: count(Outcome::Skipped),
        checks,
    };
    fs::write(summary, serde_json::to_vec_pretty(&summarised)?)
        .with_context(|| format!("cannot write {}", cache::shown(summary)))?;
    println!("summary: {}", cache::shown(summary));
    println!(
        "{} passed, {} failed, {} skipped",
        summarised.passed, summarised.failed, summarised.skipped
    );
    let bad = summarised.failed > 0 || (strict && summarised.skipped > 0);
    Ok(u8::from(bad))
}

fn in_parallel(bench: &Bench) -> Vec<Report> {
    let waiting = Mutex::new(IN_GUESTS.iter());
    let reports = Mutex::new(Vec::new());
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(|| {
                loop {
                    let next = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .next();
                    let Some(check) = next else { return };
                    let report = perform(check, bench);
                    reports
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn perform(check: &Check, bench: &Bench) -> Report {
    let start = Instant::now();
    let tests =
        (check.run)(bench).unwrap_or_else(|error| vec![Test::from_result(check.name, Err(error))]);
    let seconds = start.elapsed().as_secs_f32();
    let of = |outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let (failed, skipped) = (of(Outcome::Failed), of(Outcome::Skipped));
    let mut text = format!(
        "{:<6} {} ({} passed{}{}, {seconds:.1} s)\n",
        if failed > 0 { "FAILED" } else { "ok" },
        check.name,
        of(Outcome::Passed),
        if failed > 0 {
            format!(", {failed} failed")
        } else {
            String::new()
        },
        if skipped > 0 {
            format!(", {skipped} skipped")
        } else {
            String::new()
        },
    );
    for test in tests.iter().filter(|test| test.outcome != Outcome::Passed) {
        let word = if test.outcome == Outcome::Failed {
            "failed"
        } else {
            "skipped"
        };
        writeln!(text, "       {word}: {}", test.name).ok();
        for line in test.detail.lines() {
            writeln!(text, "         {line}").ok();
        }
    }
    print!("{text}");
    Report {
        check: check.name,
        seconds,
        tests,
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(cache::SOURCE).join(path)
}

/// The Cargo workspaces and packages of the repository.
const CARGO: [&str; 2] = ["lab", "selftests/rust"];

fn cargo(package: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .arg("--manifest-path")
        .arg(source(package).join("Cargo.toml"))
        .env(
            "CARGO_TARGET_DIR",
            cache::build_directory(&format!("check-{}", package.replace('/', "-")))?,
        );
    Ok(command)
}
