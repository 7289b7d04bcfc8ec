// SPDX-License-Identifier: MIT OR Apache-2.0

//! The everyday path through `/dev/sysgenid`, from Rust. Prints TAP; wants to be root.
//!
//! No test knows what the generation is when it starts: each reads it first and compares with what
//! it read.
//!
//! With `--hold-mapping` it tests nothing: it maps the page, closes the descriptor, prints `MAPPED`,
//! and keeps the mapping until its standard input ends. `module_test.sh` uses this.

#![forbid(unsafe_code)]

use std::env;
use std::io::Read as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::{self, Errno};
use rustix::process::geteuid;
use rustix::thread::Pid;

use sysgenid_selftests::sys::Page;
use sysgenid_selftests::tap::{self, Outcome, Result, Test};
use sysgenid_selftests::watcher::{
    LIMIT, Watcher, is_asleep, next_generation, this_thread, wait_for,
};
use sysgenid_selftests::{check, check_eq};

/// What all tests share: a watcher that triggers, and a look at the generation.
struct Context {
    overseer: Watcher,
    page: Page,
}

impl Context {
    fn new() -> io::Result<Self> {
        let overseer = Watcher::open()?;
        let page = overseer.map()?;
        Ok(Self { overseer, page })
    }

    /// Changes the generation, and returns what it is then.
    fn change(&self) -> Result<u32> {
        if !geteuid().is_root() {
            return Err(Outcome::Skip("only root may trigger a change".to_owned()));
        }
        let expected = next_generation(self.page.generation());
        self.overseer.trigger(0)?;
        check_eq!(self.page.generation(), expected);
        Ok(expected)
    }
}

/// A call that is asleep in a thread of its own, and what it returns in the end.
struct Sleeper<T> {
    thread: Pid,
    result: Receiver<T>,
}

impl<T: Send + 'static> Sleeper<T> {
    /// Starts the call, and returns once it sleeps.
    fn start(call: impl FnOnce() -> T + Send + 'static) -> Result<Self> {
        let (tell_thread, hear_thread) = mpsc::channel();
        let (tell_result, result) = mpsc::channel();
        thread::spawn(move || {
            // Whoever no longer listens has failed for a reason of its own.
            let _ = tell_thread.send(this_thread());
            let _ = tell_result.send(call());
        });
        let thread = hear_thread.recv_timeout(LIMIT)?;
        check!(wait_for(LIMIT, || is_asleep(thread)));
        Ok(Self { thread, result })
    }

    fn is_asleep(&self) -> bool {
        is_asleep(self.thread)
    }

    /// What the call returned; fails where it does not.
    fn finish(self) -> Result<T> {
        Ok(self.result.recv_timeout(LIMIT)?)
    }
}

/// A while in which something that ought to sleep would have woken.
fn settle() {
    thread::sleep(Duration::from_millis(50));
}

const TESTS: &[Test<AssertUnwindSafe<Context>>] = &[
    ("open_is_acked", |_| {
        let watcher = Watcher::open()?;
        check!(!watcher.is_outdated()?);
        let info = watcher.fdinfo()?;
        check!(!info.outdated);
        check!(!info.tracked);
        check_eq!(info.acked, info.generation);
        Ok(())
    }),
    ("read_and_ack", |cx| {
        let watcher = Watcher::open()?;
        check_eq!(watcher.read_nowait(), Err(Errno::AGAIN));
        let now = cx.change()?;
        check_eq!(watcher.read(), Ok(now));
        check_eq!(watcher.read_nowait(), Ok(now));
        check_eq!(watcher.ack(now), Ok(()));
        check_eq!(watcher.read_nowait(), Err(Errno::AGAIN));
        Ok(())
    }),
    ("ack_of_an_old_generation", |cx| {
        let watcher = Watcher::open()?;
        let before = cx.page.generation();
        let now = cx.change()?;
        check_eq!(watcher.ack(before), Err(Errno::INVAL));
        check!(watcher.is_outdated()?);
        check_eq!(watcher.ack(now), Ok(()));
        check!(!watcher.is_outdated()?);
        Ok(())
    }),
    ("read_nonblock", |cx| {
        let watcher = Watcher::open_with(OFlags::RDWR | OFlags::NONBLOCK)?;
        check_eq!(watcher.read(), Err(Errno::AGAIN));
        let now = cx.change()?;
        check_eq!(watcher.read(), Ok(now));
        Ok(())
    }),
    ("read_sleeps_until_a_change", |cx| {
        let watcher = Watcher::open()?;
        let reader = Sleeper::start(move || watcher.read())?;
        settle();
        check!(reader.is_asleep());
        let now = cx.change()?;
        check_eq!(reader.finish()?, Ok(now));
        Ok(())
    }),
    ("poll_sleeps_until_a_change", |cx| {
        let watcher = Arc::new(Watcher::open()?);
        let sleeping = Arc::clone(&watcher);
        let poller = Sleeper::start(move || sleeping.poll(None))?;
        settle();
        check!(poller.is_asleep());
        let now = cx.change()?;
        check_eq!(poller.finish()?, Ok(PollFlags::IN | PollFlags::RDNORM));
        check_eq!(watcher.read(), Ok(now));
        Ok(())
    }),
    ("poll_is_level_triggered", |cx| {
        let watcher = Watcher::open()?;
        check!(!watcher.is_outdated()?);
        let now = cx.change()?;
        check!(watcher.is_outdated()?);
        check!(watcher.is_outdated()?);
        watcher.ack(now)?;
        check!(!watcher.is_outdated()?);
        Ok(())
    }),
    ("map_follows", |cx| {
        let watcher = Watcher::open_with(OFlags::RDONLY)?;
        let page = watcher.map()?;
        check_eq!(page.generation(), cx.page.generation());
        // The mapping needs no descriptor.
        drop(watcher);
        let now = cx.change()?;
        check_eq!(page.generation(), now);
        Ok(())
    }),
    ("map_is_seen_by_a_thread", |cx| {
        let page = Watcher::open()?.map()?;
        let before = page.generation();
        let (tell, hear) = mpsc::channel();
        thread::spawn(move || {
            wait_for(LIMIT, || page.generation() != before);
            let _ = tell.send(page.generation());
        });
        let now = cx.change()?;
        check_eq!(hear.recv_timeout(LIMIT)?, now);
        Ok(())
    }),
    ("wait_for_nobody", |cx| {
        let watcher = Watcher::open()?;
        check_eq!(watcher.wait_watchers(0), Ok(()));
        cx.change()?;
        check_eq!(watcher.wait_watchers(0), Err(Errno::INTR));
        Ok(())
    }),
    ("wait_for_a_tracked_watcher", |cx| {
        let watcher = Watcher::open()?;
        watcher.set_tracking(true)?;
        let now = cx.change()?;
        let overseer = Watcher::open()?;
        check_eq!(overseer.wait_watchers(10), Err(Errno::TIME));
        let waiter = Sleeper::start(move || overseer.wait_watchers(0))?;
        settle();
        check!(waiter.is_asleep());
        watcher.ack(now)?;
        check_eq!(waiter.finish()?, Ok(()));
        Ok(())
    }),
    ("wait_ends_when_a_watcher_goes", |cx| {
        let watcher = Watcher::open()?;
        watcher.set_tracking(true)?;
        cx.change()?;
        let overseer = Watcher::open()?;
        let waiter = Sleeper::start(move || overseer.wait_watchers(0))?;
        drop(watcher);
        check_eq!(waiter.finish()?, Ok(()));
        Ok(())
    }),
    ("trigger_least", |cx| {
        let before = cx.change()?;
        let least = usize::try_from(before)? + 5;
        cx.overseer.trigger(least)?;
        check_eq!(usize::try_from(cx.page.generation())?, least);
        cx.overseer.trigger(1)?;
        check_eq!(usize::try_from(cx.page.generation())?, least + 1);
        Ok(())
    }),
    ("trigger_too_much", |cx| {
        let before = cx.change()?;
        if usize::BITS == 32 {
            return Err(Outcome::Skip("a long has 32 bits here".to_owned()));
        }
        check_eq!(cx.overseer.trigger(usize::MAX), Err(Errno::INVAL));
        check_eq!(cx.page.generation(), before);
        Ok(())
    }),
    ("fdinfo", |cx| {
        let watcher = Watcher::open()?;
        let before = watcher.fdinfo()?;
        watcher.set_tracking(true)?;
        let now = cx.change()?;
        let info = watcher.fdinfo()?;
        check_eq!(info.generation, now);
        check_eq!(info.acked, before.generation);
        check!(info.outdated);
        check!(info.tracked);
        check_eq!(info.watchers, before.watchers + 1);
        check_eq!(info.outdated_watchers, before.outdated_watchers + 1);
        check_eq!(info.source, "ioctl");
        watcher.ack(now)?;
        let info = watcher.fdinfo()?;
        check_eq!(info.acked, now);
        check!(!info.outdated);
        check_eq!(info.outdated_watchers, before.outdated_watchers);
        Ok(())
    }),
];

fn hold_mapping() -> std::io::Result<()> {
    // The watcher is gone when the page has been mapped.
    let page = Watcher::open()?.map()?;
    println!("MAPPED");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(page);
    Ok(())
}

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        None => (),
        Some("--hold-mapping") => {
            return match hold_mapping() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("cannot hold a mapping: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Some(argument) => {
            eprintln!("unknown argument: {argument}\nUsage: sysgenid-rs-test [--hold-mapping]");
            return ExitCode::from(2);
        }
    }
    match Context::new() {
        Ok(context) => tap::run(&AssertUnwindSafe(context), TESTS),
        Err(error) => tap::bail_out(format!("cannot use /dev/sysgenid: {error}")),
    }
}
