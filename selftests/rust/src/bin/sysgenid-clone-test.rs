// SPDX-License-Identifier: MIT OR Apache-2.0

//! Watches one snapshot from the inside, and tells in TAP how the change was noticed.
//!
//! `lab clone` runs this program. It puts a watcher to sleep in each way there is, prints `READY`
//! alone on a line, and is frozen with its machine some time after that. From then on it runs once
//! in each clone. What it printed between `READY` and the snapshot would appear in the original
//! and in no clone, so it prints nothing until it has seen the generation change.
//!
//! With `--expect-unchanged[=SECONDS]` it is the negative control: the machine is resumed with the
//! same VM generation ID, and nothing may happen. No program can see such a resume, so this one
//! looks on for some seconds of the guest's own time.
//!
//! Besides TAP it prints, for the host to compare between clones:
//!
//! - `# generation N`: the generation after the resume;
//! - `# random HEX`: 16 bytes of getrandom(), drawn at the very moment when the mapped word was
//!   seen to have changed;
//! - `# urandom HEX`: 16 bytes of /dev/urandom, drawn later;
//! - `# vmgenid HEX`: the VM generation ID, at that moment.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::Pid;

use sysgenid_selftests::snapshot::{self, RESUME_LIMIT};
use sysgenid_selftests::sys::Page;
use sysgenid_selftests::tap::{self, Outcome, Result, Test};
use sysgenid_selftests::vmgenid::VmGenId;
use sysgenid_selftests::watcher::{
    LIMIT, Watcher, is_asleep, next_generation, this_thread, wait_for,
};
use sysgenid_selftests::{check, check_eq};

/// A thread that will report something once.
struct Role<T> {
    thread: Pid,
    report: Receiver<T>,
}

impl<T: Send + 'static> Role<T> {
    fn start(
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::result::Result<Self, RecvTimeoutError> {
        let (tell_thread, hear_thread) = mpsc::channel();
        let (tell, report) = mpsc::channel();
        thread::spawn(move || {
            // The main thread listens until the process ends.
            let _ = tell_thread.send(this_thread());
            let _ = tell.send(act());
        });
        let thread = hear_thread.recv_timeout(LIMIT)?;
        Ok(Self { thread, report })
    }

    fn is_asleep(&self) -> bool {
        is_asleep(self.thread)
    }

    /// What it reports, or has reported.
    fn wait(&self) -> Result<T> {
        Ok(self.report.recv_timeout(LIMIT)?)
    }

    fn has_not_reported(&self) -> bool {
        self.report.try_recv().is_err()
    }
}

/// What the looker saw first of the change.
struct Look {
    generation: u32,
    random: [u8; 16],
    /// The VM generation ID, looked at when the generation was seen.
    id: u128,
}

/// Everything that watches while the snapshot is taken.
struct Scene {
    /// The generation before the snapshot.
    before: u32,
    page: Arc<Page>,
    vmgenid: Arc<VmGenId>,
    /// The VM generation ID before the snapshot.
    id: u128,
    /// Tracked, and outdated since before the snapshot: it holds the overseer up.
    held: Watcher,
    /// Asleep in poll() in `poller`.
    polled: Arc<Watcher>,
    /// Asleep in read() in `reader`.
    read: Arc<Watcher>,
    /// Events, and the mapped word when they came.
    poller: Role<(rustix::io::Result<PollFlags>, u32)>,
    reader: Role<rustix::io::Result<u32>>,
    looker: Role<Look>,
    /// Reports the end of its second wait, which begins once it has acked the change.
    overseer: Role<rustix::io::Result<()>>,
    /// The end of the overseer's first wait, which began before the snapshot.
    interrupted: Receiver<rustix::io::Result<()>>,
}

impl Scene {
    fn set() -> Result<Self> {
        // A change of our own comes first, so that the source has to change as well.
        let held = Watcher::open()?;
        held.set_tracking(true)?;
        let page = Arc::new(held.map()?);
        held.trigger(0)?;
        let before = page.generation();
        let vmgenid = Arc::new(VmGenId::open()?);
        let id = vmgenid.id();

        let (looking, looking_at_id) = (Arc::clone(&page), Arc::clone(&vmgenid));
        let looker = Role::start(move || {
            while looking.generation() == before {
                thread::yield_now();
            }
            // Not before: a machine may be saved between two looks, and this thread may not run again
            // before the generation has changed.
            let id = looking_at_id.id();
            let mut random = [0; 16];
            // Whatever fails here leaves zeros behind, which a test refuses.
            let _ = getrandom(&mut random, GetRandomFlags::empty());
            Look {
                generation: looking.generation(),
                random,
                id,
            }
        })?;

        let polled = Arc::new(Watcher::open()?);
        let (watcher, looking) = (Arc::clone(&polled), Arc::clone(&page));
        let poller = Role::start(move || (watcher.poll(None), looking.generation()))?;

        let read = Arc::new(Watcher::open()?);
        let watcher = Arc::clone(&read);
        let reader = Role::start(move || watcher.read())?;

        let watcher = Watcher::open()?;
        let (tell_interrupted, interrupted) = mpsc::channel();
        let overseer = Role::start(move || {
            let _ = tell_interrupted.send(watcher.wait_watchers(0));
            watcher.ack(watcher.read_nowait()?)?;
            watcher.wait_watchers(0)
        })?;

        let asleep = || poller.is_asleep() && reader.is_asleep() && overseer.is_asleep();
        check!(wait_for(LIMIT, asleep));
        Ok(Self {
            before,
            page,
            vmgenid,
            id,
            held,
            polled,
            read,
            poller,
            reader,
            looker,
            overseer,
            interrupted,
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

fn urandom() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// For a clone with a new VM generation ID.
const CHANGED: &[Test<AssertUnwindSafe<Scene>>] = &[
    ("mapped_word_changed", |scene| {
        // Only this one waits for the resume; the others wait for what must follow by itself.
        let look = scene.looker.report.recv_timeout(RESUME_LIMIT)?;
        println!("# generation {}", look.generation);
        println!("# random {}", hex(&look.random));
        check_eq!(look.generation, next_generation(scene.before));
        check!(look.random != [0; 16]);
        println!("# urandom {}", hex(&urandom()?));
        // Whoever sees the new generation sees the new ID.
        println!("# vmgenid {:032x}", look.id);
        check!(look.id != scene.id);
        check_eq!(scene.vmgenid.id(), look.id);
        check_eq!(scene.vmgenid.read(), Ok(look.id));
        Ok(())
    }),
    ("nothing_is_pending", |scene| {
        check!(!scene.held.fdinfo()?.pending);
        Ok(())
    }),
    ("poll_returned", |scene| {
        let (events, seen) = scene.poller.wait()?;
        check_eq!(events, Ok(PollFlags::IN | PollFlags::RDNORM));
        check_eq!(seen, next_generation(scene.before));
        Ok(())
    }),
    ("read_returned", |scene| {
        check_eq!(scene.reader.wait()?, Ok(next_generation(scene.before)));
        Ok(())
    }),
    ("overseer_interrupted", |scene| {
        check_eq!(scene.interrupted.recv_timeout(LIMIT)?, Err(Errno::INTR));
        Ok(())
    }),
    ("all_see_the_same", |scene| {
        let now = next_generation(scene.before);
        check_eq!(scene.page.generation(), now);
        for watcher in [&*scene.polled, &*scene.read, &scene.held] {
            check!(watcher.is_outdated()?);
            check_eq!(watcher.read_nowait(), Ok(now));
            check_eq!(watcher.fdinfo()?.generation, now);
        }
        Ok(())
    }),
    // Which of them was the first to notice is nobody's promise.
    ("source_is_the_hypervisor", |scene| {
        let source = scene.held.fdinfo()?.source;
        check!(["vmfork", "vmgenid", "page"].contains(&source.as_str()));
        Ok(())
    }),
    ("reseeded", |scene| {
        check!(scene.held.fdinfo()?.reseeded);
        Ok(())
    }),
    ("old_generation_is_refused", |scene| {
        check_eq!(scene.held.ack(scene.before), Err(Errno::INVAL));
        check!(scene.held.is_outdated()?);
        Ok(())
    }),
    ("ack_then_nothing_to_read", |scene| {
        let now = scene.page.generation();
        for watcher in [&scene.polled, &scene.read] {
            check_eq!(watcher.ack(now), Ok(()));
            check!(!watcher.is_outdated()?);
            check_eq!(watcher.read_nowait(), Err(Errno::AGAIN));
        }
        Ok(())
    }),
    ("overseer_waits_for_the_tracked", |scene| {
        check!(wait_for(LIMIT, || scene.overseer.is_asleep()));
        // Long enough that a wait which ends too early has ended.
        thread::sleep(Duration::from_millis(200));
        check!(scene.overseer.is_asleep());
        check!(scene.overseer.has_not_reported());
        check_eq!(scene.held.fdinfo()?.outdated_watchers, 1);
        Ok(())
    }),
    ("ack_releases_the_overseer", |scene| {
        scene.held.ack(scene.page.generation())?;
        check_eq!(scene.overseer.wait()?, Ok(()));
        check_eq!(scene.held.fdinfo()?.outdated_watchers, 0);
        Ok(())
    }),
];

/// For a resume with the same VM generation ID, some seconds after it.
const UNCHANGED: &[Test<AssertUnwindSafe<Scene>>] = &[
    ("mapped_word_is_the_same", |scene| {
        println!("# generation {}", scene.page.generation());
        check_eq!(scene.page.generation(), scene.before);
        check!(scene.looker.has_not_reported());
        Ok(())
    }),
    ("poll_not_woken", |scene| {
        check!(scene.poller.is_asleep());
        check!(scene.poller.has_not_reported());
        check!(!scene.polled.is_outdated()?);
        Ok(())
    }),
    ("read_not_woken", |scene| {
        check!(scene.reader.is_asleep());
        check!(scene.reader.has_not_reported());
        Ok(())
    }),
    ("overseer_not_woken", |scene| {
        check!(scene.overseer.is_asleep());
        check!(scene.interrupted.try_recv().is_err());
        Ok(())
    }),
    ("fdinfo_is_the_same", |scene| {
        let info = scene.polled.fdinfo()?;
        check_eq!(info.generation, scene.before);
        check_eq!(info.acked, scene.before);
        check_eq!(info.source, "ioctl");
        check!(!info.pending);
        Ok(())
    }),
    ("vmgenid_is_the_same", |scene| {
        check_eq!(scene.vmgenid.id(), scene.id);
        check_eq!(scene.vmgenid.read(), Ok(scene.id));
        Ok(())
    }),
    ("a_change_would_have_been_noticed", |scene| {
        scene.held.trigger(0)?;
        let now = next_generation(scene.before);
        check_eq!(scene.looker.wait()?.generation, now);
        check_eq!(
            scene.poller.wait()?,
            (Ok(PollFlags::IN | PollFlags::RDNORM), now)
        );
        check_eq!(scene.reader.wait()?, Ok(now));
        check_eq!(scene.interrupted.recv_timeout(LIMIT)?, Err(Errno::INTR));
        Ok(())
    }),
];

const USAGE: &str = "\
Usage: sysgenid-clone-test [--expect-unchanged[=SECONDS]]";

/// How long to look on for the negative control; without it, a change is expected.
fn unchanged_for() -> std::result::Result<Option<Duration>, String> {
    let mut unchanged_for = None;
    for arg in env::args().skip(1) {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        match (name, value) {
            ("--expect-unchanged", seconds) => {
                let seconds = seconds.unwrap_or("3");
                let seconds = seconds
                    .parse()
                    .map_err(|_| format!("not a number of seconds: {seconds}"))?;
                unchanged_for = Some(Duration::from_secs(seconds));
            }
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    Ok(unchanged_for)
}

fn main() -> ExitCode {
    let unchanged_for = match unchanged_for() {
        Ok(unchanged_for) => unchanged_for,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let scene = match Scene::set() {
        Ok(scene) => AssertUnwindSafe(scene),
        Err(Outcome::Fail(why) | Outcome::Skip(why)) => {
            return tap::bail_out(format!("cannot watch /dev/sysgenid: {why}"));
        }
    };

    if snapshot::ready().is_err() {
        return ExitCode::FAILURE;
    }

    match unchanged_for {
        None => {
            // Nothing is printed before something has changed, or it is clear that nothing will.
            let page = Arc::clone(&scene.page);
            let before = scene.before;
            wait_for(RESUME_LIMIT, || page.generation() != before);
            tap::run(&scene, CHANGED)
        }
        Some(time) => {
            let start = Instant::now();
            while start.elapsed() < time {
                thread::sleep(Duration::from_millis(10));
            }
            tap::run(&scene, UNCHANGED)
        }
    }
}
