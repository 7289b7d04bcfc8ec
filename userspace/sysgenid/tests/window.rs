// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Cached`] across the resume of a clone: threads use a value without a pause, and nothing that
//! leaves them may be seen in another clone.
//!
//! `lab clone` runs this program, and the lab's check compares what the clones print; the format is
//! that of `selftests/rust/src/bin/sysgenid-window-test.rs`, where it is explained: `# turns ADDRESS
//! THREADS` before `READY`, then `# new THREAD TURN` and `# draws THREAD TURN HEX,HEX,…`. The turn of
//! a thread is one use of the value, which is a generator that was seeded when it was built: its
//! output is the same in two clones that have not noticed.
//!
//! With `--generation-only` it is the control, which does not look at the hypervisor's ID.
//!
//! With `--reseed-on-clone` the threads draw from generators of the crate rand in [`ReseedOnClone`],
//! with `--rng` from [`sysgenid::rng()`], and with `--rand` from `rand::rng()`, which is the control of
//! both: they are as old as the thread, and were never told of a clone.
//!
//! It is no test of libtest's, which knows nothing of a machine that is cloned.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sysgenid::Cached;
use sysgenid::Error;
use sysgenid::Options;
use sysgenid::ReseedOnClone;
use sysgenid::Seen;
use sysgenid::SysGenId;

/// How many of the last turns are kept: more than there are between the resume and the change.
const KEPT: usize = 1 << 14;

/// How many turns there are after the change.
const AFTER: u64 = 64;

/// How long after `READY` the clone may take to show a change.
const LIMIT: Duration = Duration::from_secs(60);

/// The stages of a turn, which are added to four times its number.
const BEGUN: u64 = 0;
const SECOND_LOOK: u64 = 1;
const LEFT: u64 = 2;

/// Where all threads count, in a page of their own.
#[repr(C, align(4096))]
struct Turns([AtomicU64; 512]);

impl Turns {
    fn note(&self, thread: usize, turn: u64, stage: u64) {
        self.0[thread].store(4 * turn + stage, Ordering::Release);
    }

    /// The physical address, from /proc/self/pagemap.
    fn physical_address(&self) -> io::Result<u64> {
        const PAGE: u64 = 4096;
        let address = ptr::from_ref(self).addr() as u64;
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, 8 * (address / PAGE))?;
        // Bits 0 to 54 are the number of the frame, of a page that is present.
        match u64::from_ne_bytes(entry) & ((1 << 55) - 1) {
            0 => Err(io::Error::other("the page of the turns is not in memory")),
            frame => Ok(frame * PAGE + address % PAGE),
        }
    }
}

/// A generator whose whole future is in its state, as that of any user-space generator is
/// (splitmix64).
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// What the threads draw from.
#[derive(Clone, Copy)]
enum Source {
    Cached,
    ReseedOnClone,
    Rng,
    Rand,
}

struct Scene {
    sysgenid: SysGenId,
    source: Source,
    generator: Cached<Generator>,
    turns: Box<Turns>,
    before: Seen,
}

/// Draws once, and calls what it is given between the draw and the second look.
type Draw<'a> = dyn FnMut(&dyn Fn()) -> Result<u64, Error> + 'a;

/// What a thread has to tell.
struct Report {
    /// The first turn that is kept.
    first: u64,
    /// What left the thread in that turn, and in those after it.
    draws: Vec<u64>,
    /// The first turn that began with another ID.
    new: Option<u64>,
}

impl Scene {
    /// How a thread draws once, and says when the second look is to come, if it can know that.
    fn draws(&self) -> Result<Box<Draw<'_>>, Error> {
        Ok(match self.source {
            Source::Cached => Box::new(|drawn| {
                self.generator.with(|generator| {
                    let draw = generator.next();
                    drawn();
                    draw
                })
            }),
            Source::ReseedOnClone => {
                let mut rng = ReseedOnClone::new(self.sysgenid.clone(), StdRng::from_seed)?;
                Box::new(move |drawn| {
                    rng.with(|rng| {
                        let draw = rng.next_u64();
                        drawn();
                        draw
                    })
                })
            }
            Source::Rng => {
                let mut rng = sysgenid::rng();
                rng.protect()?;
                Box::new(move |_| Ok(rng.next_u64()))
            }
            Source::Rand => Box::new(|_| Ok(rand::rng().next_u64())),
        })
    }

    /// What a thread does until some turns after the change.
    fn take_turns(&self, thread: usize) -> Result<Report, String> {
        let start = Instant::now();
        let mut draws = vec![0; KEPT];
        let mut draw = self.draws().map_err(|error| error.to_string())?;
        let mut new = None;
        let mut turn = 0;
        let mut left = AFTER;
        while left > 0 {
            if start.elapsed() > LIMIT {
                return Err("the generation did not change in time".into());
            }
            self.turns.note(thread, turn, BEGUN);
            if new.is_none() && self.sysgenid.look().id() != self.before.id() {
                new = Some(turn);
            }
            let draw = draw(&|| self.turns.note(thread, turn, SECOND_LOOK));
            draws[place(turn)] = draw.map_err(|error| error.to_string())?;
            self.turns.note(thread, turn, LEFT);
            if self.sysgenid.generation() != self.before.generation() {
                left -= 1;
            }
            turn += 1;
        }
        let first = turn.saturating_sub(KEPT as u64);
        Ok(Report {
            first,
            draws: (first..turn).map(|turn| draws[place(turn)]).collect(),
            new,
        })
    }
}

fn place(turn: u64) -> usize {
    usize::try_from(turn).unwrap_or_default() % KEPT
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let mut threads = 1;
    let mut source = Source::Cached;
    let mut options = Options::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--generation-only" => options = options.without_id(),
            "--reseed-on-clone" => source = Source::ReseedOnClone,
            "--rng" => source = Source::Rng,
            "--rand" => source = Source::Rand,
            "--threads" => threads = arguments.next().unwrap_or_default().parse()?,
            // `cargo test` runs every test, and lists them.
            _ => {
                return Err(format!("{argument}: this is for lab clone; see its source").into());
            }
        }
    }
    let sysgenid = options.open()?;
    let generator = Cached::new(sysgenid.clone(), |fresh| {
        let mut seed = [0; 8];
        fresh.fill(&mut seed)?;
        Ok(Generator(u64::from_ne_bytes(seed)))
    });
    let scene = Scene {
        before: sysgenid.look(),
        sysgenid,
        source,
        generator,
        turns: Box::new(Turns([const { AtomicU64::new(0) }; 512])),
    };
    let address = scene.turns.physical_address()?;
    println!("# turns {address:#x} {threads}");
    let reports: Vec<_> = thread::scope(|scope| -> io::Result<Vec<_>> {
        let scene = &scene;
        let all: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || scene.take_turns(thread)))
            .collect();
        let begun = |turns: &AtomicU64| turns.load(Ordering::Acquire) >= 4;
        while !scene.turns.0[..threads].iter().all(begun) {
            thread::sleep(Duration::from_millis(1));
        }
        println!("READY");
        io::stdout().flush()?;
        Ok(all.into_iter().map(|thread| thread.join()).collect())
    })?;
    println!("1..{threads}");
    let mut good = true;
    for (thread, report) in reports.into_iter().enumerate() {
        match report {
            Ok(Ok(report)) => {
                if let Some(turn) = report.new {
                    println!("# new {thread} {turn}");
                }
                let mut line = format!("# draws {thread} {} ", report.first);
                for draw in report.draws {
                    write!(line, "{draw:016x},")?;
                }
                println!("{line}");
                println!("ok {} thread {thread}", thread + 1);
            }
            failed => {
                let why =
                    failed.map_or_else(|_| "it panicked".into(), |r| r.err().unwrap_or_default());
                println!("# {why}\nnot ok {} thread {thread}", thread + 1);
                good = false;
            }
        }
    }
    Ok(good)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("Bail out! {error}");
            ExitCode::FAILURE
        }
    }
}
