// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab check` and `lab check-debug`: everything a contributor needs before a commit.

mod awslc;
mod build;
mod c_library;
mod ctl;
mod debug;
mod guests;
mod in_tree;
mod lab;
mod library;
mod openssl;
mod source;
mod system;
mod window;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
use anyhow::ensure;
use serde::Serialize;

use crate::cache;
use crate::kernel;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::kernel::Variant;
use crate::products;
use crate::step;
use crate::table;
use crate::tap::Outcome;
use crate::tap::Test;

/// One check: its name, the kernel that it is about, and what it does. It reports one or more
/// tests.
struct Check {
    name: &'static str,
    kernel: Choice,
    run: fn(&Bench) -> Result<Vec<Test>>,
}

impl Check {
    /// About the stock kernel.
    const fn stock(name: &'static str, run: fn(&Bench) -> Result<Vec<Test>>) -> Self {
        Self {
            name,
            kernel: Choice::Stock,
            run,
        }
    }

    /// About one that the lab builds.
    const fn debug(
        variant: Variant,
        name: &'static str,
        run: fn(&Bench) -> Result<Vec<Test>>,
    ) -> Self {
        Self {
            name,
            kernel: Choice::Debug(variant),
            run,
        }
    }
}

/// What a check needs.
struct Bench {
    kernel: Kernel,
}

impl Bench {
    /// The module, of a kernel that has not built it in.
    fn module(&self) -> Result<PathBuf> {
        products::module(&self.kernel)?.context("the driver is built in")
    }
}

/// One for each kernel of a lane.
type Benches = BTreeMap<Choice, Bench>;

/// What is checked together.
struct Lane {
    /// Without a guest: these use all processors themselves, and run one after the other.
    on_the_host: &'static [Check],
    /// With guests: as many at once as there are processors. Those that take longest come first.
    in_guests: &'static [Check],
}

/// `lab check`: everything a contributor needs before a commit.
const CHECK: Lane = Lane {
    on_the_host: &[
        Check::stock("formatting", source::formatting),
        Check::stock("lints", source::lints),
        Check::stock("a test for each row of the contract", source::contract),
        Check::stock("licences", source::licences),
        Check::stock("the table of clones", |_| table::check()),
        Check::stock("unit tests of the lab and of user space", build::unit_tests),
        Check::stock("the module's build", build::module_build),
        Check::stock(
            "a KDIR that cannot build Rust modules",
            build::refused_kdirs,
        ),
        Check::stock("the front door", build::front_door),
        Check::stock("user space's documentation", build::documentation),
    ],
    in_guests: &[
        Check::stock("a system that reacts by itself", system::reacts),
        Check::stock("selftests", guests::selftests),
        Check::stock(
            "loading, unloading, and other kernel code",
            guests::module_test,
        ),
        Check::stock("the ordering promise", guests::ordering),
        Check::stock("sysgenctl", ctl::sysgenctl),
        Check::stock("clones", guests::clones),
        Check::stock("sysgenctl in clones", ctl::clones),
        Check::stock("resumed with the same ID", guests::same_id),
        Check::stock("AWS-LC", awslc::with_module),
        Check::stock("AWS-LC, control", awslc::control),
        Check::stock("the window, 1 processor", window::one_processor),
        Check::stock("the window, several", window::several_processors),
        Check::stock("the window, control", window::control),
        Check::stock("the window, our part", window::own_part),
        Check::stock("OpenSSL's provider in clones", openssl::clones),
        Check::stock("OpenSSL in clones, control", openssl::control),
        Check::stock("OpenSSL's provider", openssl::provider),
        Check::stock("nginx in clones", openssl::nginx),
        Check::stock("OpenSSL's provider, cost", openssl::cost),
        Check::stock("demo", lab::demo),
        Check::stock("the C library", c_library::check),
        Check::stock("where /dev/vmgenid is", guests::id_nodes),
        Check::stock(
            "a program that the lab has never seen",
            guests::unknown_program,
        ),
        Check::stock("ends of a run", lab::ends),
        Check::stock("kernel reports", lab::reports),
        Check::stock("Debian's user space", lab::userspace),
        Check::stock("the library crate", library::on_the_device),
        Check::stock("the library crate in the window", window::library),
        Check::stock("a ledger that clones write to", library::ledger),
    ],
};

/// `lab check-debug`: the kernels that catch mistakes.
const CHECK_DEBUG: Lane = Lane {
    on_the_host: &[
        Check::debug(
            Variant::Debug,
            "the driver in a kernel tree",
            in_tree::builds,
        ),
        Check::debug(
            Variant::Debug,
            "the tree's own checks",
            in_tree::kernel_checks,
        ),
    ],
    in_guests: &[
        Check::debug(Variant::Debug, "loaded and unloaded", debug::load),
        Check::debug(Variant::Debug, "mistakes are found", debug::mistakes),
        Check::debug(
            Variant::Debug,
            "malformed VMGenID devices",
            debug::malformed,
        ),
        Check::debug(Variant::Debug, "memory runs short", debug::faults),
        Check::debug(Variant::Debug, "the VMGenID device", debug::vmgenid),
        Check::debug(Variant::DebugBuiltin, "the VMGenID device", debug::vmgenid),
        Check::debug(Variant::Debug, "selftests", guests::selftests),
        Check::debug(Variant::Kcsan, "the VMGenID device", debug::vmgenid),
        Check::debug(Variant::Debug, "the ordering promise", guests::ordering),
        Check::debug(Variant::DebugBuiltin, "selftests", guests::selftests),
        Check::debug(Variant::Kcsan, "selftests", guests::selftests),
        Check::debug(Variant::Debug, "clones", guests::clones),
        Check::debug(Variant::DebugBuiltin, "clones", guests::clones),
        Check::debug(Variant::Kcsan, "clones", guests::clones),
        Check::debug(
            Variant::Debug,
            "loading, unloading, and other kernel code",
            guests::module_test,
        ),
        Check::debug(Variant::Debug, "resumed with the same ID", guests::same_id),
        Check::debug(
            Variant::DebugBuiltin,
            "resumed with the same ID",
            guests::same_id,
        ),
        Check::debug(Variant::DebugBuiltin, "unit tests", debug::unit_tests),
        Check::debug(Variant::Kcsan, "mistakes are found", debug::data_race),
    ],
};

/// What came of one check.
#[derive(Serialize)]
struct Report {
    check: &'static str,
    kernel: String,
    release: String,
    seconds: f32,
    tests: Vec<Test>,
}

/// What came of everything.
#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
    skipped: usize,
    checks: Vec<Report>,
}

/// How a lane is run.
pub struct Plan {
    /// Where the machine-readable summary goes.
    pub summary: PathBuf,
    /// Whether a test that was skipped counts against it.
    pub strict: bool,
    /// The name of a check must have one of these in it, if there are any.
    pub only: Vec<String>,
}

/// Runs `lab check`.
pub fn check(plan: &Plan) -> Result<u8> {
    run(&CHECK, plan)
}

/// Runs `lab check-debug`.
pub fn check_debug(plan: &Plan) -> Result<u8> {
    run(&CHECK_DEBUG, plan)
}

/// Runs the checks of a lane, writes the summary, and returns what the lab exits with.
fn run(lane: &Lane, plan: &Plan) -> Result<u8> {
    let is_named = |check: &Check, text: &str| check.name.contains(text);
    let planned = |checks: &'static [Check]| -> Vec<&'static Check> {
        let is_planned = |check: &&Check| {
            plan.only.is_empty() || plan.only.iter().any(|text| is_named(check, text))
        };
        checks.iter().filter(is_planned).collect()
    };
    let (on_the_host, in_guests) = (planned(lane.on_the_host), planned(lane.in_guests));
    let all = || on_the_host.iter().chain(&in_guests).copied();
    for text in &plan.only {
        ensure!(
            all().any(|check| is_named(check, text)),
            "no check has “{text}” in its name"
        );
    }
    // Without these there is nothing to check, and their steps are worth watching.
    let mut benches = Benches::new();
    for check in all() {
        if let Entry::Vacant(entry) = benches.entry(check.kernel) {
            let kernel = kernel::get(check.kernel)?;
            entry.insert(Bench { kernel });
        }
    }
    step::be_quiet();
    let mut checks: Vec<Report> = on_the_host
        .iter()
        .map(|check| perform(check, &benches))
        .collect();
    checks.extend(in_parallel(&in_guests, &benches));

    let count = |outcome| {
        let tests = checks.iter().flat_map(|report| &report.tests);
        tests.filter(|test| test.outcome == outcome).count()
    };
    let summarised = Summary {
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        skipped: count(Outcome::Skipped),
        checks,
    };
    let summary = &plan.summary;
    fs::write(summary, serde_json::to_vec_pretty(&summarised)?)
        .with_context(|| format!("cannot write {}", cache::shown(summary)))?;
    println!("summary: {}", cache::shown(summary));
    let left_out = lane.on_the_host.len() + lane.in_guests.len() - summarised.checks.len();
    if left_out > 0 {
        println!("{left_out} checks were left out");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        summarised.passed, summarised.failed, summarised.skipped
    );
    let bad = summarised.failed > 0 || (plan.strict && summarised.skipped > 0);
    Ok(u8::from(bad))
}

fn in_parallel(checks: &[&Check], benches: &Benches) -> Vec<Report> {
    let waiting = Mutex::new(checks.iter());
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
                    let report = perform(check, benches);
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

fn perform(check: &Check, benches: &Benches) -> Report {
    let bench = &benches[&check.kernel];
    let start = Instant::now();
    let tests =
        (check.run)(bench).unwrap_or_else(|error| vec![Test::from_result(check.name, Err(error))]);
    let seconds = start.elapsed().as_secs_f32();
    let of = |outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let (failed, skipped) = (of(Outcome::Failed), of(Outcome::Skipped));
    let mut text = format!(
        "{:<6} {}{} ({} passed{}{}, {seconds:.1} s)\n",
        if failed > 0 { "FAILED" } else { "ok" },
        check.name,
        match check.kernel {
            Choice::Debug(variant) => format!(", in {variant}"),
            Choice::Stock | Choice::Series(_) => String::new(),
        },
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
        kernel: bench.kernel.name.clone(),
        release: bench.kernel.release.clone(),
        seconds,
        tests,
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(cache::SOURCE).join(path)
}

/// The Cargo workspaces and packages of the repository.
const CARGO: [&str; 5] = [
    "Documentation/clones/rust",
    "lab",
    "selftests/rust",
    "selftests/awslc",
    "userspace",
];

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
