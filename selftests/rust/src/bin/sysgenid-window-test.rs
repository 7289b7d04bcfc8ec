// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws random bytes without a pause, by the protocol of a library that keeps secrets: between the
//! moment when a clone is resumed and the moment when the kernel has reseeded its random number
//! generator, no bytes may leave it.
//!
//! `lab clone` runs this program. Each of its threads (`--threads N`, else as many as there are
//! CPUs) takes turns. In a turn it looks at the VM generation ID and at the generation, draws by
//! getrandom(), looks again, and lets the bytes leave it if nothing has changed. If the ID has
//! changed, then it draws nothing until the generation has changed as well. It prints `READY`, and
//! is frozen with its machine.
//!
//! With `--generation-only` it is the control: it looks at the generation, but not at the ID, as a
//! program does that has no `/dev/vmgenid`.
//!
//! A program cannot know when it was frozen. So each thread counts its turns in a page whose physical
//! address is printed before `READY`, for the host to look at what was saved. Each eight bytes are a
//! thread's: four times the number of the turn, plus 0 if the turn has begun, 1 if the second look is
//! to come or has just been, 2 if the bytes have left. In each clone, besides TAP, it prints:
//!
//! - `# turns ADDRESS THREADS`: where that page is (before `READY`);
//! - `# new THREAD TURN`: the first turn in which the ID was another one at the first look, where
//!   the ID is looked at;
//! - `# window THREAD MICROSECONDS`: the time from there to the moment when the thread has seen the
//!   generation change;
//! - `# draws THREAD TURN HEX,HEX,…`: what has left the thread in that turn and the turns after it,
//!   the first 8 bytes of each; empty where nothing left in a turn.
//!
//! What has left in turns that began after the snapshot must be different everywhere. That comparison
//! is the host's.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rustix::param::page_size;
use rustix::rand::{GetRandomFlags, getrandom};

use sysgenid_selftests::snapshot::{self, RESUME_LIMIT};
use sysgenid_selftests::sys::Page;
use sysgenid_selftests::tap::{self, Result, Test};
use sysgenid_selftests::vmgenid::VmGenId;
use sysgenid_selftests::watcher::{LIMIT, Watcher, wait_for};
use sysgenid_selftests::{check, check_eq};

/// How many of the last turns are kept: more than there are between the resume and the change. By the
/// protocol there is none that lets anything out.
const KEPT: usize = 1 << 10;
const KEPT_WITHOUT_ID: usize = 1 << 14;

/// How many turns there are after the change.
const AFTER: u64 = 64;

/// Where all threads count, in a page of their own.
#[repr(C, align(4096))]
struct Turns([AtomicU64; 512]);

/// How far a turn has come.
#[derive(Clone, Copy)]
enum Stage {
    Begun = 0,
    SecondLook = 1,
    Left = 2,
}

impl Turns {
    fn note(&self, thread: usize, turn: u64, stage: Stage) {
        self.0[thread].store(4 * turn + stage as u64, Ordering::Release);
    }

    /// The physical address, from /proc/self/pagemap.
    fn physical_address(&self) -> io::Result<u64> {
        let page = page_size() as u64;
        let address = ptr::from_ref(self).addr() as u64;
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, 8 * (address / page))?;
        // Bits 0 to 54 are the number of the frame, of a page that is present.
        let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
        match frame {
            0 => Err(io::Error::other("the page of the turns is not in memory")),
            frame => Ok(frame * page + address % page),
        }
    }
}

/// What is compared at each look.
struct Sight {
    page: Page,
    /// `None` in the control.
    vmgenid: Option<VmGenId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    id: Option<u128>,
    generation: u32,
}

impl Sight {
    /// Three loads, and no system call.
    fn look(&self) -> Seen {
        // The ID first: whoever sees the old one, and the new generation, sees a change as well.
        Seen {
            id: self.vmgenid.as_ref().map(VmGenId::id),
            generation: self.page.generation(),
        }
    }
}

/// What a thread has to tell.
#[derive(Clone, Default)]
struct Report {
    /// What left it in each of the last turns.
    draws: Vec<Option<u64>>,
    /// How many turns there were.
    turns: u64,
    /// The turn that found the ID new, and when that was.
    new: Option<(u64, Instant)>,
    /// When the generation was seen to have changed.
    changed: Option<Instant>,
    /// How many draws were thrown away.
    discarded: u64,
    /// What failed.
    failure: Option<&'static str>,
}

struct Scene {
    sight: Sight,
    watcher: Watcher,
    /// Before the snapshot.
    before: Seen,
    turns: Box<Turns>,
    reports: Vec<Mutex<Report>>,
}

impl Scene {
    fn set(threads: usize, generation_only: bool) -> Result<Self> {
        let watcher = Watcher::open()?;
        let sight = Sight {
            page: watcher.map()?,
            vmgenid: if generation_only {
                None
            } else {
                Some(VmGenId::open()?)
            },
        };
        let before = sight.look();
        let turns = Box::new(Turns([const { AtomicU64::new(0) }; 512]));
        check!(threads <= turns.0.len());
        println!("# turns {:#x} {threads}", turns.physical_address()?);
        Ok(Self {
            sight,
            watcher,
            before,
            turns,
            reports: (0..threads).map(|_| Mutex::default()).collect(),
        })
    }

    /// Waits until the generation is another one than `seen`'s, and returns what is seen then.
    fn wait_for_change(&self, seen: Seen) -> Option<Seen> {
        let start = Instant::now();
        loop {
            let now = self.sight.look();
            if now.generation != seen.generation {
                return Some(now);
            }
            let left = LIMIT.checked_sub(start.elapsed())?;
            self.watcher.poll(Some(left)).ok()?;
        }
    }

    /// One turn. Returns what leaves the thread.
    fn take_turn(
        &self,
        thread: usize,
        turn: u64,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Option<u64> {
        self.turns.note(thread, turn, Stage::Begun);
        let now = self.sight.look();
        if now.id != seen.id && report.new.is_none() {
            report.new = Some((turn, Instant::now()));
        }
        if now != *seen {
            // A clone: nothing is drawn before the kernel knows of that as well.
            match self.wait_for_change(*seen) {
                Some(now) => {
                    // Whoever was frozen between the ID and the generation, and did not run before
                    // both had changed, sees the new ID here first.
                    if now.id != seen.id {
                        report.new.get_or_insert_with(|| (turn, Instant::now()));
                    }
                    *seen = now;
                }
                None => report.failure = Some("the generation did not change in time"),
            }
            report.changed.get_or_insert_with(Instant::now);
        }

        let mut bytes = [0; 16];
        if getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(bytes.len()) {
            report.failure = Some("getrandom() failed");
        }

        self.turns.note(thread, turn, Stage::SecondLook);
        if self.sight.look() != *seen {
            report.discarded += 1;
            return None;
        }
        let (first, _) = bytes.split_at(8);
        Some(u64::from_be_bytes(first.try_into().unwrap_or_default()))
    }

    fn kept(&self) -> usize {
        match self.sight.vmgenid {
            Some(_) => KEPT,
            None => KEPT_WITHOUT_ID,
        }
    }

    /// What a thread does until some turns after the change.
    fn take_turns(&self, thread: usize) {
        let mut report = Report {
            draws: vec![None; self.kept()],
            ..Report::default()
        };
        let mut seen = self.before;
        let mut left = AFTER;
        let mut turn = 0;
        while left > 0 && report.failure.is_none() {
            let drawn = self.take_turn(thread, turn, &mut seen, &mut report);
            *report.place(turn) = drawn;
            self.turns.note(thread, turn, Stage::Left);
            if seen.generation != self.before.generation {
                left -= 1;
            }
            turn += 1;
        }
        report.turns = turn;
        if let Ok(mut slot) = self.reports[thread].lock() {
            *slot = report;
        }
    }

    fn report(&self, thread: usize) -> Report {
        match self.reports[thread].lock() {
            Ok(report) => report.clone(),
            Err(_) => Report::default(),
        }
    }
}

impl Report {
    /// Where what left the thread in that turn is kept.
    fn place(&mut self, turn: u64) -> &mut Option<u64> {
        let number = turn % self.draws.len() as u64;
        &mut self.draws[usize::try_from(number).unwrap_or_default()]
    }

    fn show(mut self, thread: usize) {
        if let (Some((turn, new)), Some(changed)) = (self.new, self.changed) {
            println!("# new {thread} {turn}");
            println!("# window {thread} {}", (changed - new).as_micros());
        }
        let first = self.turns.saturating_sub(self.draws.len() as u64);
        let mut text = format!("# draws {thread} {first} ");
        for turn in first..self.turns {
            if let Some(drawn) = *self.place(turn) {
                // Writing to a String cannot fail.
                let _ = write!(text, "{drawn:016x}");
            }
            text.push(',');
        }
        println!("{text}");
    }
}

const TESTS: &[Test<AssertUnwindSafe<Scene>>] = &[
    ("all_threads_saw_the_change", |scene| {
        for thread in 0..scene.reports.len() {
            let report = scene.report(thread);
            report.clone().show(thread);
            check_eq!(report.failure, None);
            check!(report.changed.is_some());
            check!(report.turns >= AFTER);
        }
        Ok(())
    }),
    ("the_id_was_new_before_that", |scene| {
        for thread in 0..scene.reports.len() {
            check_eq!(
                scene.report(thread).new.is_some(),
                scene.sight.vmgenid.is_some()
            );
        }
        Ok(())
    }),
];

struct Arguments {
    threads: usize,
    generation_only: bool,
}

const USAGE: &str = "Usage: sysgenid-window-test [--threads N] [--generation-only]";

fn arguments() -> std::result::Result<Arguments, String> {
    let mut arguments = Arguments {
        threads: thread::available_parallelism().map_or(1, NonZero::get),
        generation_only: false,
    };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--generation-only" => arguments.generation_only = true,
            "--threads" => {
                let number = args.next().unwrap_or_default();
                arguments.threads = number
                    .parse()
                    .map_err(|_| format!("not a number of threads: {number}"))?;
            }
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    Ok(arguments)
}

/// Runs the threads, and says that the snapshot can be taken once each of them takes turns.
fn run(scene: &Scene) -> io::Result<()> {
    thread::scope(|scope| {
        for thread in 0..scene.reports.len() {
            scope.spawn(move || scene.take_turns(thread));
        }
        let begun = |turns: &AtomicU64| turns.load(Ordering::Acquire) >= 4;
        let all_begun = || scene.turns.0[..scene.reports.len()].iter().all(begun);
        wait_for(LIMIT, all_begun);
        snapshot::ready()
    })
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let scene = match Scene::set(arguments.threads, arguments.generation_only) {
        Ok(scene) => AssertUnwindSafe(scene),
        Err(outcome) => return tap::bail_out(outcome),
    };
    let start = Instant::now();
    if run(&scene).is_err() || start.elapsed() > RESUME_LIMIT {
        return tap::bail_out("the machine was not cloned in time");
    }
    tap::run(&scene, TESTS)
}
