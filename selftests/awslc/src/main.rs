// SPDX-License-Identifier: MIT OR Apache-2.0

//! AWS-LC, as its crate ships it, in clones: what it knows of the device, when it reseeds, and what
//! it draws.
//!
//! `lab clone` runs this program. It starts processes that draw from AWS-LC: `root`, `nobody`, and
//! `rdrand`, which is nobody's and the only one in which AWS-LC uses the CPU's random number
//! generator. It prints `READY`, and is frozen with its machine. In each clone it waits for the change of the generation, lets each of them draw
//! and make a TLS connection, and compares what AWS-LC says of itself with what it said before. A
//! machine that is resumed with the ID that it had is waited for as well: then nothing may change.
//!
//! Besides TAP the program prints, for the host to compare between clones, for each process:
//!
//! - `# NAME-reseeds N`: how often AWS-LC reseeded since the snapshot;
//! - `# NAME-random HEX`: 32 bytes of `RAND_bytes`;
//! - `# NAME-client-random HEX`, `# NAME-client-key HEX`, `# NAME-server-random HEX`,
//!   `# NAME-server-key HEX`: what a TLS client and server sent each other, the keys being the
//!   ephemeral public ones;
//!
//! and of the machine:
//!
//! - `# generation N`: the generation after the resume;
//! - `# kernel HEX`: 32 bytes of `getrandom()`;
//! - `# early HEX`: 32 bytes of `RAND_bytes`, drawn in the clone before the generation had changed.
//!   This is a race, and the program can lose it: then it prints no such line.
//!
//! With `--without-module` there is no device: this is the control.

mod awslc;
mod drawer;
mod handshake;

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use sysgenid_selftests::snapshot::{self, RESUME_LIMIT};
use sysgenid_selftests::sys::Page;
use sysgenid_selftests::tap::{self, Result, Test};
use sysgenid_selftests::vmgenid::VmGenId;
use sysgenid_selftests::watcher::{LIMIT, Watcher, next_generation, wait_for};
use sysgenid_selftests::{check, check_eq};

use drawer::{Drawer, Kind, State, fail, hex};

/// How many ACPI interrupts there have been. One brings the hypervisor's notification, whichever ID
/// the machine was resumed with.
const INTERRUPTS: &str = "/sys/firmware/acpi/interrupts/sci";

/// How long after that interrupt everything has happened that is going to.
const SETTLED: Duration = Duration::from_secs(2);

/// How many changes there are before the snapshot, so that no generation in this test is 0, which
/// AWS-LC also says where there is no device.
const CHANGES_BEFORE: u32 = 2;

/// How often a generator of AWS-LC is used before it reseeds by itself.
const DRAWS_PER_SEED: u32 = 4096;

/// `abort()`.
const SIGABRT: i32 = 6;

/// Who draws.
const KINDS: [Kind; 3] = [
    Kind {
        name: "root",
        root: true,
        rdrand: false,
    },
    Kind {
        name: "nobody",
        root: false,
        rdrand: false,
    },
    Kind {
        name: "rdrand",
        root: false,
        rdrand: true,
    },
];

/// Who draws before the change: one that can open `/dev/vmgenid`.
const EARLY: Kind = Kind {
    name: "early",
    root: true,
    rdrand: true,
};

/// The device, for the one that may change the generation.
struct Device {
    watcher: Watcher,
    page: Page,
    id: VmGenId,
}

impl Device {
    fn open() -> Result<Self> {
        let watcher = Watcher::open()?;
        Ok(Self {
            page: watcher.map()?,
            watcher,
            id: VmGenId::open()?,
        })
    }

    /// Changes the generation once.
    fn change(&self) -> Result {
        let before = self.page.generation();
        self.watcher.trigger(0)?;
        check_eq!(self.page.generation(), next_generation(before));
        Ok(())
    }
}

/// One that draws, and what AWS-LC said of itself there.
struct Witness {
    drawer: Drawer,
    /// Before the snapshot.
    frozen: State,
    /// After the resume, before anything was drawn.
    resumed: State,
    /// After one draw.
    drawn: State,
}

/// What there is in each clone.
struct Scene {
    device: Option<Device>,
    before: u32,
    after: u32,
    witnesses: Vec<Witness>,
}

fn interrupts() -> io::Result<Vec<u8>> {
    fs::read(INTERRUPTS)
}

/// Waits until this is another machine than the one that was saved, or the same one again, and the
/// generation is what it is going to be. Returns whether it is known to be another one.
fn wait_for_the_resume(device: Option<&Device>) -> Result<bool> {
    let interrupts_before = interrupts()?;
    let before = device.map(|device| (device.id.id(), device.page.generation()));
    snapshot::ready()?;
    let start = Instant::now();
    loop {
        check!(start.elapsed() < RESUME_LIMIT);
        let interrupted = interrupts()? != interrupts_before;
        if let (Some(device), Some((id, generation))) = (device, before) {
            // It is the new one from the first instruction on, and so before any interrupt.
            if device.id.id() != id {
                check!(wait_for(RESUME_LIMIT, || device.page.generation() != generation));
                return Ok(true);
            }
        }
        if interrupted {
            thread::sleep(SETTLED);
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl Scene {
    fn set(without_module: bool) -> Result<Self> {
        let device = if without_module {
            check_eq!(Watcher::open().err(), Some(Errno::NOENT));
            None
        } else {
            Some(Device::open()?)
        };
        let generation = || device.as_ref().map_or(0, |device| device.page.generation());
        if let Some(device) = &device {
            for _ in 0..CHANGES_BEFORE {
                device.change()?;
            }
        }
        let mut frozen = Vec::new();
        for kind in &KINDS {
            let drawer = Drawer::start(kind)?;
            let state = drawer.state()?;
            frozen.push((drawer, state));
        }
        let early = match &device {
            Some(_) => {
                let early = Drawer::start(&EARLY)?;
                early.draw_early()?;
                Some(early)
            }
            None => None,
        };
        let before = generation();

        let another = wait_for_the_resume(device.as_ref())?;
        // In the machine that was saved, it would wait for ever.
        let early = early.filter(|_| another);
        if let Some(bytes) = early.and_then(|early| early.drawn_early()) {
            println!("# early {bytes}");
        }
        let after = generation();
        println!("# generation {after}");
        let mut bytes = [0; 32];
        check_eq!(getrandom(&mut bytes, GetRandomFlags::empty())?, bytes.len());
        println!("# kernel {}", hex(&bytes));
        let mut witnesses = Vec::new();
        for (drawer, frozen) in frozen {
            let name = drawer.name;
            let resumed = drawer.state()?;
            println!("# {name}-random {}", drawer.draws(1)?);
            let drawn = drawer.state()?;
            println!("# {name}-reseeds {}", drawn.reseeds - frozen.reseeds);
            let parts = ["client-random", "client-key", "server-random", "server-key"];
            for (part, bytes) in parts.iter().zip(drawer.handshake()?) {
                println!("# {name}-{part} {bytes}");
            }
            witnesses.push(Witness {
                drawer,
                frozen,
                resumed,
                drawn,
            });
        }
        Ok(Self {
            device,
            before,
            after,
            witnesses,
        })
    }

    fn device(&self) -> Result<&Device> {
        self.device
            .as_ref()
            .ok_or_else(|| fail("there is no device"))
    }

    /// How often the generation changed by the resume.
    fn changes(&self) -> u64 {
        u64::from(self.after != self.before)
    }
}

/// What the tests share. Each leaves it as usable as it was, however it ends.
type Context = AssertUnwindSafe<Scene>;

fn device_is_found(scene: &Context) -> Result {
    for witness in &scene.witnesses {
        check!(witness.frozen.found);
        check!(witness.frozen.used);
        check_eq!(witness.frozen.seeds_from, "kernel");
    }
    Ok(())
}

fn nobody_finds_it_too(scene: &Context) -> Result {
    let mut others = scene
        .witnesses
        .iter()
        .filter(|witness| witness.frozen.user != 0);
    check!(others.clone().count() == 2);
    check!(others.all(|witness| witness.frozen.used));
    Ok(())
}

fn generation_follows(scene: &Context) -> Result {
    check!(scene.before != 0);
    for witness in &scene.witnesses {
        check_eq!(witness.frozen.generation, scene.before);
        check_eq!(witness.resumed.generation, scene.after);
    }
    let device = scene.device()?;
    device.change()?;
    for witness in &scene.witnesses {
        check_eq!(witness.drawer.state()?.generation, device.page.generation());
    }
    Ok(())
}

/// It comes with the first draw, and not with a look.
fn one_reseed_for_the_change(scene: &Context) -> Result {
    for witness in &scene.witnesses {
        let Witness {
            frozen,
            resumed,
            drawn,
            ..
        } = witness;
        check_eq!(resumed.events, frozen.events + scene.changes());
        check_eq!(resumed.reseeds, frozen.reseeds);
        check_eq!(drawn.reseeds, frozen.reseeds + scene.changes());
        check_eq!(drawn.events, resumed.events);
    }
    Ok(())
}

fn one_reseed_for_each_of_many_changes(scene: &Context) -> Result {
    let device = scene.device()?;
    for Witness { drawer, .. } in &scene.witnesses {
        drawer.draws(1)?;
        let before = drawer.state()?;
        for change in 1..=5 {
            device.change()?;
            drawer.draws(3)?;
            let after = drawer.state()?;
            check_eq!(after.generation, device.page.generation());
            check_eq!(after.events, before.events + change);
            check_eq!(after.reseeds, before.reseeds + change);
        }
    }
    Ok(())
}

fn one_reseed_for_changes_between_two_draws(scene: &Context) -> Result {
    let device = scene.device()?;
    for Witness { drawer, .. } in &scene.witnesses {
        drawer.draws(1)?;
        let before = drawer.state()?.reseeds;
        for _ in 0..3 {
            device.change()?;
        }
        drawer.draws(3)?;
        check_eq!(drawer.state()?.reseeds, before + 1);
    }
    Ok(())
}

fn no_other_reseed_but_its_own(scene: &Context) -> Result {
    let device = scene.device()?;
    for Witness { drawer, .. } in &scene.witnesses {
        device.change()?;
        drawer.draws(1)?;
        let before = drawer.state()?.reseeds;
        drawer.draws(DRAWS_PER_SEED - 1)?;
        check_eq!(drawer.state()?.reseeds, before);
        drawer.draws(1)?;
        check_eq!(drawer.state()?.reseeds, before + 1);
    }
    Ok(())
}

/// By design: what is drawn by then must not be used.
fn a_change_during_a_draw_aborts(scene: &Context) -> Result {
    let device = scene.device()?;
    let mut drawer = Drawer::start(&KINDS[1])?;
    drawer.draw_for_ever()?;
    let start = Instant::now();
    let status = loop {
        // Sooner or later one comes during a draw, and not between two.
        device.change()?;
        thread::sleep(Duration::from_millis(20));
        if let Some(status) = drawer.ended()? {
            break status;
        }
        check!(start.elapsed() < LIMIT);
    };
    check_eq!(status.signal(), Some(SIGABRT));
    Ok(())
}

fn there_is_no_device(scene: &Context) -> Result {
    for witness in &scene.witnesses {
        check!(!witness.frozen.found);
        check!(!witness.frozen.used);
        check_eq!(witness.frozen.generation, 0);
        check_eq!(witness.frozen.seeds_from, "jitter");
    }
    Ok(())
}

fn the_resume_is_not_seen(scene: &Context) -> Result {
    for witness in &scene.witnesses {
        check_eq!(witness.resumed, witness.frozen);
        check_eq!(witness.drawn, witness.frozen);
    }
    Ok(())
}

const WITH_MODULE: [Test<Context>; 8] = [
    ("device_is_found", device_is_found),
    ("nobody_finds_it_too", nobody_finds_it_too),
    ("generation_follows", generation_follows),
    ("one_reseed_for_the_change", one_reseed_for_the_change),
    (
        "one_reseed_for_each_of_many_changes",
        one_reseed_for_each_of_many_changes,
    ),
    (
        "one_reseed_for_changes_between_two_draws",
        one_reseed_for_changes_between_two_draws,
    ),
    ("no_other_reseed_but_its_own", no_other_reseed_but_its_own),
    (
        "a_change_during_a_draw_aborts",
        a_change_during_a_draw_aborts,
    ),
];

const WITHOUT_MODULE: [Test<Context>; 2] = [
    ("there_is_no_device", there_is_no_device),
    ("the_resume_is_not_seen", the_resume_is_not_seen),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (without_module, tests) = match arguments[..] {
        [drawer::ARGUMENT] => {
            return match drawer::serve() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("sysgenid-awslc-test: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        [] => (false, &WITH_MODULE[..]),
        ["--without-module"] => (true, &WITHOUT_MODULE[..]),
        _ => {
            eprintln!("usage: sysgenid-awslc-test [--without-module]");
            return ExitCode::from(2);
        }
    };
    match Scene::set(without_module) {
        Ok(scene) => tap::run(&AssertUnwindSafe(scene), tests),
        Err(why) => tap::bail_out(why),
    }
}
