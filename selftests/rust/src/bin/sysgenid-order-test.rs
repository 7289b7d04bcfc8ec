// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws random bytes at the moment of the change: whoever knows of the change must never get bytes
//! from before the clone.
//!
//! `lab clone` runs this program. It has one thread more than there are CPUs (`--threads N` for
//! another number) that look at the mapped word without a pause, one thread asleep in poll(), and
//! one asleep in read(). It prints `READY`, and is frozen with its machine. In each clone, each
//! thread draws as soon as it has seen the change: every second one by getrandom(), the others from
//! /dev/urandom. Besides TAP the program prints, for the host to compare between clones:
//!
//! - `# random HEX`: 32 bytes of getrandom();
//! - `# urandom HEX`: 32 bytes of /dev/urandom.
//!
//! No value may be seen twice, by whatever way it was drawn and in whatever clone. A program cannot
//! know what the other clones draw, so this comparison is the host's.
//!
//! With `--before-change` it is the control of that comparison: it draws after the resume, but
//! before the change. It learns of the resume from the ID in `/dev/vmgenid`, which is another one from
//! a clone's first instruction on, while the kernel learns of it by an interrupt. It prints:
//!
//! - `# early HEX`: 32 bytes of getrandom(), after which the generation was still the old one.
//!
//! These are expected to be the same in the clones: this shows what the order is good for, and that
//! the comparison can fail. It is a race that the program can lose: a clone where the change came
//! first draws nothing (and skips the test), and one where only the reseeding came first draws what
//! no other does. One value that two clones have in common is enough. It needs a CPU of its own
//! (`--smp 2`): on the only one, the interrupt would come first.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::process::setpriority_process;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

use sysgenid_selftests::snapshot::{self, RESUME_LIMIT};
use sysgenid_selftests::sys::Page;
use sysgenid_selftests::tap::{self, Outcome, Result, Test};
use sysgenid_selftests::vmgenid::VmGenId;
use sysgenid_selftests::watcher::{
    LIMIT, Watcher, is_asleep, next_generation, this_thread, wait_for,
};
use sysgenid_selftests::{check, check_eq};

/// How often each thread draws.
const DRAWS: usize = 4;

/// What is drawn at once. All threads draw the same number of bytes, so that a CPU in the state that
/// it had in another clone gives the same bytes, whichever thread asks first.
type Bytes = [u8; 32];

/// Where a thread draws from.
enum Pool {
    Getrandom,
    Urandom(File),
}

impl Pool {
    fn draw(&mut self) -> io::Result<Bytes> {
        let mut bytes = Bytes::default();
        match self {
            Self::Getrandom => {
                let len = getrandom(&mut bytes, GetRandomFlags::empty())?;
                if len != bytes.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Self::Urandom(file) => file.read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }
}

/// What a thread has to tell.
struct Witness {
    /// The generation that the thread was told of.
    generation: u32,
    pool: Pool,
    draws: [io::Result<Bytes>; DRAWS],
}

impl Witness {
    fn draw(generation: u32, mut pool: Pool) -> Self {
        Self {
            generation,
            draws: std::array::from_fn(|_| pool.draw()),
            pool,
        }
    }
}

/// Everything that watches while the snapshot is taken.
struct Scene {
    before: u32,
    page: Arc<Page>,
    witnesses: Receiver<Witness>,
    /// How many there are.
    threads: usize,
}

impl Scene {
    fn set(spinners: usize) -> Result<Self> {
        let page = Arc::new(Watcher::open()?.map()?);
        let before = page.generation();
        let (tell, witnesses) = mpsc::channel();

        let spinning = Arc::new(AtomicUsize::new(0));
        for number in 0..spinners {
            let mut pool = if number % 2 == 0 {
                Pool::Getrandom
            } else {
                Pool::Urandom(File::open("/dev/urandom")?)
            };
            let (page, spinning, tell) = (Arc::clone(&page), Arc::clone(&spinning), tell.clone());
            // The way through the kernel has been gone once before it matters.
            pool.draw()?;
            thread::spawn(move || {
                spinning.fetch_add(1, Ordering::Relaxed);
                let generation = loop {
                    let generation = page.generation();
                    if generation != before {
                        break generation;
                    }
                };
                // The main thread listens until the process ends.
                let _ = tell.send(Witness::draw(generation, pool));
            });
        }

        let (tell_thread, hear_thread) = mpsc::channel();
        let watcher = Watcher::open()?;
        let (looking, tell_poll, thread) = (Arc::clone(&page), tell.clone(), tell_thread.clone());
        thread::spawn(move || {
            let _ = thread.send(this_thread());
            if watcher.poll(None) == Ok(PollFlags::IN | PollFlags::RDNORM) {
                let _ = tell_poll.send(Witness::draw(looking.generation(), Pool::Getrandom));
            }
        });
        let watcher = Watcher::open()?;
        thread::spawn(move || {
            let _ = tell_thread.send(this_thread());
            if let Ok(generation) = watcher.read() {
                let _ = tell.send(Witness::draw(generation, Pool::Getrandom));
            }
        });

        let sleepers = [
            hear_thread.recv_timeout(LIMIT)?,
            hear_thread.recv_timeout(LIMIT)?,
        ];
        check!(wait_for(LIMIT, || {
            spinning.load(Ordering::Relaxed) == spinners
                && sleepers.iter().all(|&thread: &Pid| is_asleep(thread))
        }));
        Ok(Self {
            before,
            page,
            witnesses,
            threads: spinners + sleepers.len(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Fails where there are zeros, or the same bytes twice in this one machine.
fn check_random(draws: &[Bytes]) -> Result {
    for (number, bytes) in draws.iter().enumerate() {
        check!(*bytes != Bytes::default());
        check!(!draws[..number].contains(bytes));
    }
    Ok(())
}

const ORDER: &[Test<AssertUnwindSafe<Scene>>] = &[
    ("all_are_told_and_draw", |scene| {
        // Only this one waits for the resume.
        let mut limit = RESUME_LIMIT;
        let mut draws = Vec::new();
        for _ in 0..scene.threads {
            let witness = scene.witnesses.recv_timeout(limit)?;
            limit = LIMIT;
            let name = match witness.pool {
                Pool::Getrandom => "random",
                Pool::Urandom(_) => "urandom",
            };
            for bytes in witness.draws {
                let bytes = bytes?;
                println!("# {name} {}", hex(&bytes));
                draws.push(bytes);
            }
            check_eq!(witness.generation, next_generation(scene.before));
        }
        check_random(&draws)
    }),
    ("changed_once", |scene| {
        check_eq!(scene.page.generation(), next_generation(scene.before));
        Ok(())
    }),
];

/// Looks for the resume, and draws until the change.
struct Early {
    page: Page,
    vmgenid: VmGenId,
    /// Before the resume.
    generation: u32,
    id: u128,
}

impl Early {
    fn set() -> Result<Self> {
        // ACPI works on the first CPU. The bytes come from the state of one CPU, so the thread stays
        // where it is, and nobody else takes its turn there.
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        check!(cpus > 1);
        let mut cpu = CpuSet::new();
        cpu.set(cpus - 1);
        sched_setaffinity(None, &cpu)?;
        setpriority_process(None, -20)?;
        let page = Watcher::open()?.map()?;
        let vmgenid = VmGenId::open()?;
        Pool::Getrandom.draw()?;
        Ok(Self {
            generation: page.generation(),
            id: vmgenid.id(),
            page,
            vmgenid,
        })
    }

    /// What was drawn between the resume and the change.
    fn draws(&self) -> Result<Vec<Bytes>> {
        let start = Instant::now();
        while self.vmgenid.id() == self.id {
            check!(start.elapsed() < RESUME_LIMIT);
        }
        let mut draws = Vec::new();
        while draws.len() < DRAWS {
            let bytes = Pool::Getrandom.draw()?;
            if self.page.generation() != self.generation {
                break;
            }
            draws.push(bytes);
        }
        Ok(draws)
    }
}

/// The time between the resume and the change.
struct Window {
    early: Early,
    draws: Result<Vec<Bytes>>,
}

const BEFORE_CHANGE: &[Test<AssertUnwindSafe<Window>>] = &[
    ("draws_before_the_change", |window| {
        let draws = match &window.draws {
            Ok(draws) => draws,
            Err(Outcome::Fail(why) | Outcome::Skip(why)) => {
                return Err(Outcome::Fail(why.clone()));
            }
        };
        for bytes in draws {
            println!("# early {}", hex(bytes));
        }
        if draws.is_empty() {
            return Err(Outcome::Skip(
                "the change came before the first draw".to_owned(),
            ));
        }
        check_random(draws)
    }),
    ("the_change_follows", |window| {
        let early = &window.early;
        check!(wait_for(RESUME_LIMIT, || early.page.generation() != early.generation));
        check_eq!(early.page.generation(), next_generation(early.generation));
        Ok(())
    }),
];

/// What to do.
enum Mode {
    Order { spinners: usize },
    BeforeChange,
}

fn arguments() -> std::result::Result<Mode, String> {
    let mut args = env::args().skip(1);
    let mode = match args.next().as_deref() {
        None => Mode::Order {
            spinners: thread::available_parallelism().map_or(1, NonZero::get) + 1,
        },
        Some("--before-change") => Mode::BeforeChange,
        Some("--threads") => {
            let number = args.next().unwrap_or_default();
            match number.parse() {
                Ok(spinners) => Mode::Order { spinners },
                Err(_) => return Err(format!("not a number of threads: {number}")),
            }
        }
        Some(arg) => return Err(format!("unknown argument: {arg}")),
    };
    match args.next() {
        Some(arg) => Err(format!("unknown argument: {arg}")),
        None => Ok(mode),
    }
}

fn order(spinners: usize) -> Result<ExitCode> {
    let scene = AssertUnwindSafe(Scene::set(spinners)?);
    snapshot::ready()?;
    wait_for(RESUME_LIMIT, || scene.page.generation() != scene.before);
    Ok(tap::run(&scene, ORDER))
}

fn before_change() -> Result<ExitCode> {
    let early = Early::set()?;
    snapshot::ready()?;
    let draws = early.draws();
    Ok(tap::run(
        &AssertUnwindSafe(Window { early, draws }),
        BEFORE_CHANGE,
    ))
}

fn main() -> ExitCode {
    let mode = match arguments() {
        Ok(mode) => mode,
        Err(why) => {
            eprintln!("{why}\nUsage: sysgenid-order-test [--threads N | --before-change]");
            return ExitCode::from(2);
        }
    };
    let result = match mode {
        Mode::Order { spinners } => order(spinners),
        Mode::BeforeChange => before_change(),
    };
    result.unwrap_or_else(tap::bail_out)
}
