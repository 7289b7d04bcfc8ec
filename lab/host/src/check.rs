// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab check`, `lab lint`, `lab check-debug` and `lab check-packages`: everything a contributor needs
//! before a commit.
//!
//! Tests describe themselves, in manifests where they stand, and no test is known here by its name.
//! What cannot be said in a manifest is a function.

mod in_tree;
mod ingredients;
mod lint;
mod manifest;
mod runs;
mod series;
mod turns;
mod unit_tests;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Serialize;

use self::manifest::Lane as Described;
use self::manifest::Run;
pub use self::series::write as write_series;
use crate::bench;
use crate::cache;
use crate::kernel;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::kernel::Series;
use crate::kernel::Variant;
use crate::say;
use crate::table;
use crate::tap::Outcome;
use crate::tap::Test;
use crate::window;

/// One check: its name, the kernel that it is about, and what it does. It reports one or more
/// tests.
struct Check {
    name: String,
    /// Where it stands, from the top of the checkout.
    place: String,
    kernel: Choice,
    work: Work,
}

#[derive(Clone)]
enum Work {
    /// What a manifest describes.
    Described(Box<Run>),
    /// What none can.
    Written(fn(&Kernel) -> Result<Vec<Test>>),
}

impl Check {
    /// One that is a function, in a file here.
    fn written(
        kernel: Choice,
        name: &str,
        place: &str,
        work: fn(&Kernel) -> Result<Vec<Test>>,
    ) -> Self {
        Self {
            name: name.into(),
            place: place.into(),
            kernel,
            work: Work::Written(work),
        }
    }

    /// How it is called where several kernels are spoken of.
    fn shown(&self) -> String {
        match self.kernel {
            Choice::Stock => self.name.clone(),
            other => format!("{}, in {other}", self.name),
        }
    }

    /// Whether `text` is in its name, or the directory or manifest in which it stands.
    fn is_called(&self, text: &str) -> bool {
        let text = text.trim_end_matches('/');
        let below = self.place.strip_prefix(text);
        self.name.contains(text)
            || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn perform(&self, kernels: &Kernels) -> Result<Vec<Test>> {
        let kernel = kernels.get(self.kernel)?;
        match &self.work {
            Work::Described(run) => runs::perform(run, &kernel).with_context(|| run.place.clone()),
            Work::Written(work) => work(&kernel),
        }
    }
}

/// What is checked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The tests, with packaged kernels.
    Check,
    /// The tests in kernels that catch mistakes.
    CheckDebug,
    /// What takes machines with disks, and packages.
    CheckPackages,
    /// The tests, in each packaged kernel for which the module can be built.
    CheckSeries,
    /// What looks at the source.
    Lint,
}

impl Lane {
    /// What the summary is called if nobody says.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Check => "check.json",
            Self::CheckDebug => "check-debug.json",
            Self::CheckPackages => "check-packages.json",
            Self::CheckSeries => "check-series.json",
            Self::Lint => "lint.json",
        }
    }

    /// Its checks.
    fn checks(self) -> Result<Vec<Check>> {
        const LINT: &str = "lab/host/src/check/lint.rs";
        const IN_TREE: &str = "lab/host/src/check/in_tree.rs";
        const DEBUG: Choice = Choice::Debug(Variant::Debug);
        let stock = Choice::Stock;
        Ok(match self {
            Self::Lint => vec![
                Check::written(stock, "formatting", LINT, |_| lint::formatting()),
                Check::written(stock, "lints", LINT, lint::lints),
                Check::written(stock, "licences", LINT, |_| lint::licences()),
                Check::written(stock, "documentation", LINT, |_| lint::documentation()),
                Check::written(stock, "documentation for a kernel tree", LINT, |kernel| {
                    Ok(lint::kernel_documentation(kernel))
                }),
                Check::written(stock, "a test for each row of the contract", LINT, |_| {
                    lint::contract()
                }),
                Check::written(stock, "the kernels that are claimed", LINT, lint::series),
                Check::written(stock, "the table of clones", "Documentation/clones", |_| {
                    table::check()
                }),
            ],
            Self::Check => {
                let mut checks = described(Described::Kernel, |kernel| {
                    !matches!(kernel, Choice::Debug(_))
                })?;
                checks.push(Check::written(
                    stock,
                    "unit tests of the lab and of user space",
                    "lab/host/src/check/unit_tests.rs",
                    |_| unit_tests::unit_tests(),
                ));
                checks.push(Check::written(
                    stock,
                    "the window, our part",
                    "bench",
                    window::own_part,
                ));
                checks.push(Check::written(
                    stock,
                    "settled by a look",
                    "bench",
                    bench::soon,
                ));
                checks
            }
            Self::CheckDebug => {
                let mut checks = described(Described::Kernel, |kernel| {
                    matches!(kernel, Choice::Debug(_))
                })?;
                checks.push(Check::written(
                    DEBUG,
                    "the driver in a kernel tree",
                    IN_TREE,
                    |_| in_tree::builds(),
                ));
                checks.push(Check::written(
                    DEBUG,
                    "the tree's own checks",
                    IN_TREE,
                    |_| Ok(in_tree::kernel_checks()),
                ));
                checks
            }
            Self::CheckPackages => described(Described::Packages, |_| true)?,
            Self::CheckSeries => in_each(&kernel::all_series()?)?,
        })
    }
}

/// What the checkout's manifests describe for a lane, once for each of the kernels that are wanted.
fn described(lane: Described, is_wanted: impl Fn(Choice) -> bool) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for run in manifest::all()?.into_iter().filter(|run| run.lane == lane) {
        for kernel in run.kernels.iter().map(|kernel| kernel.0) {
            if is_wanted(kernel) {
                checks.push(Check {
                    name: run.name.clone(),
                    place: run.place.clone(),
                    kernel,
                    work: Work::Described(Box::new(run.clone())),
                });
            }
        }
    }
    Ok(checks)
}

/// What the checkout's manifests describe for guests with the stock kernel, once for each series.
fn in_each(series: &[Series]) -> Result<Vec<Check>> {
    let mut checks = described(Described::Kernel, |kernel| kernel == Choice::Stock)?;
    checks.retain(|check| matches!(&check.work, Work::Described(run) if !run.host));
    let in_one = |series: &Series| {
        let checks = checks.iter().map(|check| Check {
            name: check.name.clone(),
            place: check.place.clone(),
            kernel: Choice::Series(*series),
            work: check.work.clone(),
        });
        checks.collect::<Vec<_>>()
    };
    Ok(series.iter().flat_map(in_one).collect())
}

/// The kernels of a lane. Each is looked for once, by whoever needs it first; nobody waits for
/// another one.
struct Kernels(BTreeMap<Choice, Mutex<Option<Kernel>>>);

impl Kernels {
    fn of(checks: &[Check]) -> Self {
        let kernels = checks.iter();
        Self(
            kernels
                .map(|check| (check.kernel, Mutex::default()))
                .collect(),
        )
    }

    fn get(&self, choice: Choice) -> Result<Kernel> {
        let mut slot = self.0[&choice]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*slot {
            return Ok(kernel.clone());
        }
        Ok(slot.insert(kernel::get(choice)?).clone())
    }
}

/// What came of one check.
#[derive(Serialize)]
struct Report {
    check: String,
    place: String,
    kernel: String,
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
    /// The name of a check, or its place, must be one of these, if there are any.
    pub only: Vec<String>,
}

/// Runs the checks of a lane, writes the summary, and returns what the lab exits with.
pub fn run(lane: Lane, plan: &Plan) -> Result<u8> {
    let mut checks = lane.checks()?;
    let all = checks.len();
    for text in &plan.only {
        ensure!(
            checks.iter().any(|check| check.is_called(text)),
            "no check has “{text}” in its name, and none stands there"
        );
    }
    checks
        .retain(|check| plan.only.is_empty() || plan.only.iter().any(|text| check.is_called(text)));
    // Without these there is nothing to check, and their steps are worth watching. The other packaged
    // ones are for a few checks only, which can wait for them while others run.
    let kernels = Kernels::of(&checks);
    for &choice in kernels.0.keys() {
        if !matches!(choice, Choice::Series(_) | Choice::Rt) {
            kernels.get(choice)?;
        }
    }
    say::be_quiet();
    // What takes longest begins first, so that nothing runs alone in the end.
    let mut seconds = Seconds::read()?;
    checks.sort_by(|one, other| seconds.of(other).total_cmp(&seconds.of(one)));
    let reports = match lane {
        // These use all processors themselves.
        Lane::Lint => checks
            .iter()
            .map(|check| perform(check, &kernels))
            .collect(),
        Lane::Check | Lane::CheckDebug | Lane::CheckPackages | Lane::CheckSeries => {
            in_parallel(&checks, &kernels)
        }
    };
    for (check, report) in &reports {
        seconds.record(check, report.seconds);
    }
    seconds.write()?;
    if lane == Lane::CheckSeries && plan.only.is_empty() {
        series::note(&reports)?;
    }

    let checks: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();
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
    let left_out = all - summarised.checks.len();
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

/// How long each check took when it was last run here.
struct Seconds(BTreeMap<String, f32>);

impl Seconds {
    fn path() -> Result<PathBuf> {
        Ok(cache::directory("results")?.join("seconds.json"))
    }

    /// What is not there, or damaged, is not known: it is nothing but a guess.
    fn read() -> Result<Self> {
        let known = fs::read(Self::path()?).unwrap_or_default();
        Ok(Self(serde_json::from_slice(&known).unwrap_or_default()))
    }

    fn of(&self, check: &Check) -> f32 {
        let guess = match &check.work {
            // Who may take long is given long.
            #[expect(clippy::cast_precision_loss, reason = "it is a guess")]
            Work::Described(run) => run.guest.limit as f32,
            Work::Written(_) => f32::MAX,
        };
        self.0.get(&check.shown()).copied().unwrap_or(guess)
    }

    fn record(&mut self, check: &Check, seconds: f32) {
        self.0.insert(check.shown(), seconds);
    }

    fn write(&self) -> Result<()> {
        let path = Self::path()?;
        let mut file = tempfile::NamedTempFile::new_in(cache::directory("results")?)?;
        serde_json::to_writer_pretty(&mut file, &self.0)?;
        file.persist(&path)?;
        Ok(())
    }
}

fn in_parallel<'a>(checks: &'a [Check], kernels: &Kernels) -> Vec<(&'a Check, Report)> {
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
                    let report = perform(check, kernels);
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

/// How many characters of a line are shown.
const SHOWN: usize = 300;

fn perform<'a>(check: &'a Check, kernels: &Kernels) -> (&'a Check, Report) {
    let start = Instant::now();
    let tests = check
        .perform(kernels)
        .unwrap_or_else(|error| vec![Test::from_result(&check.name, Err(error))]);
    let seconds = start.elapsed().as_secs_f32();
    let of = |outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let (failed, skipped) = (of(Outcome::Failed), of(Outcome::Skipped));
    let mut text = format!(
        "{:<6} {} ({} passed{}{}, {seconds:.1} s)\n",
        if failed > 0 { "FAILED" } else { "ok" },
        check.shown(),
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
            // All of it is in the summary; a note may be very long.
            let start: String = line.chars().take(SHOWN).collect();
            writeln!(text, "         {start}").ok();
        }
    }
    print!("{text}");
    let report = Report {
        check: check.name.clone(),
        place: check.place.clone(),
        kernel: check.kernel.to_string(),
        seconds,
        tests,
    };
    (check, report)
}
