// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab clone`: a guest that is saved once and resumed several times, as a hypervisor that
//! clones machines does it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use uuid::Uuid;

use crate::guest::FAILED;
use crate::guest::Follower;
use crate::guest::Kept;
use crate::guest::Prefixed;
use crate::guest::Sink;
use crate::guest::Stop;
use crate::guest::Through;
use crate::machine::Left;
use crate::machine::Machine;
use crate::machine::Origin;
use crate::port;
use crate::say;
use crate::setup::Setup;
use crate::setup::Started;

/// A saved machine.
pub struct Saved<'a> {
    setup: &'a Setup,
    follower: Follower,
    state: PathBuf,
    initramfs: PathBuf,
    disk: Option<PathBuf>,
    /// The VM generation ID that it ran with.
    pub id: Uuid,
    /// How long saving took.
    pub took: Duration,
    /// How long the machine still ran after it had said `READY`.
    pub ran_on: Duration,
    _directory: tempfile::TempDir,
}

impl<'a> Saved<'a> {
    /// Starts the guest and saves it when its command says `READY`. If it never does, the value
    /// is what the lab exits with.
    pub fn new(setup: &'a Setup, sink: &mut dyn Sink) -> Result<Result<Self, u8>> {
        let Started {
            mut machine,
            mut follower,
            id,
            mut stop,
        } = setup.start(sink)?;
        if stop == Stop::Started {
            let limit = Instant::now() + setup.limit;
            stop = follower.follow(machine.channel(), limit, true, sink)?;
        }
        if stop != Stop::Ready {
            if matches!(stop, Stop::Ended(_) | Stop::Limit) {
                sink.remark(
                    "the command did not print a line READY, so there is no moment to save the machine at",
                );
            }
            let status = follower.conclude(&machine, &stop, "", sink);
            let status = setup.finish(&mut machine, &stop, status, sink)?;
            return Ok(Err(if status == 0 { FAILED } else { status }));
        }
        machine.unplug()?;
        let start = Instant::now();
        machine.stop()?;
        let ran_on = start.elapsed();
        let directory = tempfile::tempdir()?;
        let state = directory.path().join("state");
        let Left {
            channel,
            disk,
            programs,
        } = machine.save(&state)?;
        let took = start.elapsed();
        // What the guest said between READY and the stop; half a message at its end is the
        // beginning of what each clone says first.
        let limit = Instant::now() + setup.limit;
        follower.follow(&channel, limit, false, sink)?;
        let status = port::finish(programs, limit, sink)?;
        if status != 0 {
            sink.remark("a program at a port of the machine has failed before it was saved");
            return Ok(Err(status));
        }
        #[expect(clippy::cast_precision_loss, reason = "it is shown in MB")]
        let size = fs::metadata(&state)?.len() as f32 / 1e6;
        say::note(format!(
            "saved the machine ({size:.0} MB) in {:.1} s",
            took.as_secs_f32()
        ));
        Ok(Ok(Self {
            setup,
            follower,
            state,
            initramfs: setup.initramfs(),
            disk,
            id,
            took,
            ran_on,
            _directory: directory,
        }))
    }

    /// The same for the lab's own guests, which are all saved. Also returns what was said by then.
    pub fn with_output(setup: &'a Setup) -> Result<(Self, Kept)> {
        let mut kept = Kept::default();
        let saved = Self::new(setup, &mut kept)?.map_err(|status| {
            let said = String::from_utf8_lossy(&kept.stderr);
            let spoken = kept.spoken.iter().map(|spoken| spoken.output.as_str());
            let (remarks, spoken) = (&kept.remarks, spoken.collect::<String>());
            anyhow!("the guest could not be saved (exit status {status}): {said}{remarks}{spoken}")
        })?;
        Ok((saved, kept))
    }

    /// Reads the memory of the saved machine.
    pub fn memory(&self, address: u64, length: u64) -> Result<Vec<u8>> {
        Machine::start(&self.setup.hardware, self.id, self.origin())?.memory(address, length)
    }

    fn origin(&self) -> Origin<'_> {
        Origin::Saved {
            state: &self.state,
            initramfs: &self.initramfs,
            disk: self.disk.as_deref(),
        }
    }

    /// Resumes one clone and follows it to its end. `resumed` is called right before the
    /// clone runs, with how long it took to get there.
    pub fn resume(
        &self,
        name: &str,
        id: Uuid,
        sink: &mut dyn Sink,
        resumed: impl FnOnce(Duration),
    ) -> Result<u8> {
        let start = Instant::now();
        let mut machine = Machine::start(&self.setup.hardware, id, self.origin())?;
        let mut follower = self.follower.clone();
        if let Some(vsock) = &self.setup.vsock {
            machine.plug(vsock.device(name)?)?;
        }
        resumed(start.elapsed());
        machine.resume()?;
        let limit = Instant::now() + self.setup.limit;
        machine.open_vsock()?;
        let stop = follower.follow(machine.channel(), limit, false, sink)?;
        let status = follower.conclude(&machine, &stop, name, sink);
        self.setup.finish(&mut machine, &stop, status, sink)
    }

    /// Resumes one clone with an ID of its own, whose command has to succeed, and returns what it has said.
    pub fn resume_well(&self, name: &str) -> Result<Kept> {
        let mut kept = Kept::default();
        let status = self.resume(name, Uuid::new_v4(), &mut kept, |_| ())?;
        let said = String::from_utf8_lossy(&kept.stderr);
        ensure!(
            status == 0,
            "{name}: exit status {status}: {said}{}",
            kept.remarks
        );
        Ok(kept)
    }

    /// Resumes one clone, and ends it as soon as its command says `READY` once more.
    pub fn resume_until_ready(&self, id: Uuid, kept: &mut Kept) -> Result<Ready> {
        let start = Instant::now();
        let mut machine = Machine::start(&self.setup.hardware, id, self.origin())?;
        let mut follower = self.follower.clone();
        let loaded = start.elapsed();
        machine.resume()?;
        let limit = Instant::now() + self.setup.limit;
        let stop = follower.follow(machine.channel(), limit, true, kept)?;
        let ready = start.elapsed();
        if stop != Stop::Ready {
            let status = follower.conclude(&machine, &stop, "", kept);
            let remarks = &kept.remarks;
            return Err(anyhow!(
                "a clone did not say READY (exit status {status}): {remarks}"
            ));
        }
        Ok(Ready { loaded, ready })
    }
}

/// How long it took to resume a clone.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Until it was loaded, and was told to run.
    pub loaded: Duration,
    /// Until its command said `READY`.
    pub ready: Duration,
}

/// Saves the guest and resumes it `clones` times, each with a VM generation ID of its own, or
/// all with the one that it had. Returns what the lab exits with: the first status that is not
/// zero.
pub fn run(setup: &Setup, clones: usize, same_guid: bool, at_once: bool) -> Result<u8> {
    let saved = match Saved::new(setup, &mut Through)? {
        Ok(saved) => saved,
        Err(status) => return Ok(status),
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let at_once = if at_once {
        clones
    } else {
        (cpus / setup.hardware.smp as usize).clamp(1, clones)
    };
    let statuses = several(at_once, clones, |number| {
        let name = format!("clone{number}");
        let id = if same_guid { saved.id } else { Uuid::new_v4() };
        let mut sink = Prefixed::new(format!("{name}| "));
        let status = saved.resume(&name, id, &mut sink, |took| {
            say::note(format!(
                "{name}: resumed with the ID {id} in {:.1} s",
                took.as_secs_f32()
            ));
        })?;
        sink.finish()?;
        if status != 0 {
            say::say(format!("{name}: exit status {status}"));
        }
        Ok(status)
    })?;
    Ok(statuses
        .into_iter()
        .find(|status| *status != 0)
        .unwrap_or(0))
}

/// Does something so many times, `at_once` of them at the same time.
pub fn several<T: Send>(
    at_once: usize,
    number: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(1);
    let worker = || -> Result<Vec<T>> {
        let mut done = Vec::new();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn > number {
                return Ok(done);
            }
            done.push(work(turn)?);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            let done = worker.join().map_err(|_| anyhow!("a thread panicked"))??;
            all.extend(done);
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_turns_are_taken_once() {
        let mut turns = several(3, 10, Ok).expect("nothing fails");
        turns.sort_unstable();
        assert_eq!(turns, (1..=10).collect::<Vec<_>>());
        assert!(
            several(2, 4, |turn| {
                ensure!(turn != 3, "not this one");
                Ok(())
            })
            .is_err()
        );
    }
}
