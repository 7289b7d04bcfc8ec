// SPDX-License-Identifier: MIT OR Apache-2.0

//! Machines that have booted, and wait for a job: saved once, and resumed for each run after that.
//!
//! Emulated, a guest boots for five to twenty-five seconds, and is resumed in less than one. What is
//! saved has nothing in it that a run brings: no module is loaded, no file of the checkout is there,
//! and no command has run. It is resumed with the VM generation ID that it has, which changes
//! nothing; its clock is set by init. What a run can tell from a machine that was booted for it are
//! the times in the kernel's log, and the state of the kernel's random number generator, which is the
//! same each time.

use std::env;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::cache;
use crate::guest::Follower;
use crate::guest::Kept;
use crate::guest::Stop;
use crate::machine;
use crate::machine::Hardware;
use crate::machine::Machine;
use crate::machine::Origin;
use crate::say;

/// Where they are in the cache.
const PLACE: &str = "booted";

/// What helps against one that is of no use.
const REMEDY: &str = "remove it, and it is made again";

/// How many bytes all of them may take before those go that were not used for the longest time.
const MOST: u64 = 6 << 30;

/// For how long one that was used is taken to be in use.
const IN_USE: Duration = Duration::from_secs(3600);

/// How long booting may take.
const LIMIT: Duration = Duration::from_secs(600);

/// How many machines are booted until one has a clock that is right.
const ATTEMPTS: u32 = 5;

/// What a saved machine was made from, and what it is.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Label {
    made_from: Vec<String>,
    id: Uuid,
    length: u64,
}

/// A machine that has booted.
pub struct Booted {
    directory: PathBuf,
    /// The VM generation ID that it has.
    pub id: Uuid,
}

impl Booted {
    /// Returns a machine of that hardware and with that user space, booted if there is none yet.
    /// `initramfs` writes what it boots from, which `userland` names.
    pub fn get(
        hardware: &Hardware,
        userland: &str,
        initramfs: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let made_from = made_from(hardware, userland)?;
        let parts: Vec<_> = made_from.iter().map(String::as_str).collect();
        let directory = cache::made(&format!("{PLACE}/{}", cache::key(&parts)), |directory| {
            make(hardware, made_from.clone(), initramfs, directory)?;
            make_room(directory);
            Ok(())
        })?;
        // Times tell which one was not used for long.
        File::create(directory.join("used"))?;
        let id = check(&directory, &made_from)
            .with_context(|| format!("{} is of no use", cache::shown(&directory)))?;
        Ok(Self { directory, id })
    }

    /// Resumes it.
    pub fn resume(&self, hardware: &Hardware) -> Result<Machine> {
        let (state, initramfs) = (self.state(), self.initramfs());
        let origin = Origin::Saved {
            state: &state,
            initramfs: &initramfs,
            disk: None,
        };
        let mut machine = Machine::start(hardware, self.id, origin).map_err(|error| {
            let shown = cache::shown(&self.directory);
            anyhow!("{shown} is of no use: {error:#}; {REMEDY}")
        })?;
        machine.resume()?;
        Ok(machine)
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A file of the size of what it was booted from.
    pub fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs")
    }
}

/// All that makes a difference to a machine that has booted.
fn made_from(hardware: &Hardware, userland: &str) -> Result<Vec<String>> {
    let root = env::var("LAB_ROOT_KEY").context("the lab's tool is started by lab/lab")?;
    Ok(vec![
        format!("toolchain root: {root}"),
        format!("init: {}", init_key()?),
        format!("user space: {userland}"),
        format!("hardware: {hardware:?}"),
        format!("processor: {}", machine::processor(hardware.icount)),
    ])
}

/// What tells one init program from another one.
fn init_key() -> Result<&'static str> {
    static KEY: OnceLock<String> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let tool = env::var("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
    let init = fs::read(Path::new(&tool).join("init"))?;
    Ok(KEY.get_or_init(|| cache::key_of_bytes(&init)))
}

/// Boots the machine, and saves it when it waits.
fn make(
    hardware: &Hardware,
    made_from: Vec<String>,
    initramfs: impl FnOnce(&Path) -> Result<()>,
    directory: &Path,
) -> Result<()> {
    let id = Uuid::new_v4();
    let path = directory.join("initramfs");
    initramfs(&path)?;
    let mut machine = boot(hardware, id, &path)?;
    machine.stop()?;
    let state = directory.join("state");
    machine.save(&state)?;
    // QEMU wants a file of this size again, and nothing reads what is in it.
    let length = fs::metadata(&path)?.len();
    File::create(&path)?.set_len(length)?;
    let label = Label {
        made_from,
        id,
        length: fs::metadata(&state)?.len(),
    };
    fs::write(directory.join("label.json"), serde_json::to_vec(&label)?)?;
    Ok(())
}

/// Boots the machine until it waits, with a clock that can be relied on.
fn boot(hardware: &Hardware, id: Uuid, initramfs: &Path) -> Result<Machine> {
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        let machine = Machine::start(hardware, id, Origin::Boot(initramfs))?;
        let mut kept = Kept::default();
        let mut follower = Follower::default();
        let limit = Instant::now() + LIMIT;
        let stop = follower.follow(machine.channel(), limit, false, &mut kept)?;
        let Stop::Waiting(uptime) = stop else {
            follower.conclude(&machine, &stop, "", &mut kept);
            bail!("the guest does not boot: {}", kept.remarks.trim_end());
        };
        let (release, took) = (&hardware.release, start.elapsed());
        if hardware.icount || keeps_time(uptime, took) {
            say::note(format!(
                "booted Linux {release} in {:.1} s",
                took.as_secs_f32()
            ));
            return Ok(machine);
        }
        say::note(format!(
            "Linux {release} takes {:.1} s for {:.1} s, and is booted again",
            took.as_secs_f32(),
            uptime.as_secs_f32()
        ));
    }
    bail!("{ATTEMPTS} guests had wrong clocks, one after the other: this machine is too busy");
}

/// Whether the clock of a guest, which says that it has been up for so long, is right. Emulated, the
/// kernel measures the processor's clock when it boots. Where the host's processors have much else to
/// do just then, that goes wrong by any factor (76 MHz for 2.6 GHz were seen), and stays so.
fn keeps_time(uptime: Duration, took: Duration) -> bool {
    (took / 10..took * 5 / 4).contains(&uptime)
}

/// Returns the ID of the machine that is saved there, if it is the one that was to be made, and whole.
fn check(directory: &Path, made_from: &[String]) -> Result<Uuid> {
    let label = fs::read(directory.join("label.json")).context("label.json cannot be read")?;
    let label: Label = serde_json::from_slice(&label).context("label.json is damaged")?;
    if let Some(other) = made_from
        .iter()
        .find(|part| !label.made_from.contains(part))
    {
        bail!("it is stale: it was not made from “{other}”; {REMEDY}");
    }
    let length = fs::metadata(directory.join("state")).map_or(0, |state| state.len());
    ensure!(
        length == label.length,
        "it is damaged: its state has {length} bytes, and had {}; {REMEDY}",
        label.length
    );
    Ok(label.id)
}

/// Removes those that were not used for the longest time, if all of them take too much. Failing to do
/// so is no reason to stop.
fn make_room(new: &Path) {
    let remove = || -> Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(cache::directory(PLACE)?)? {
            let path = entry?.path();
            let used = fs::metadata(path.join("used")).and_then(|used| used.modified());
            let length = fs::metadata(path.join("state")).map_or(0, |state| state.len());
            // One that is being made has not been used.
            if let (Ok(used), true) = (used, path != new) {
                all.push((used, path, length));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|(_, _, length)| length).sum();
        for (used, path, length) in all {
            // One that was used just now may be about to be resumed.
            if total <= MOST || used.elapsed().is_ok_and(|since| since < IN_USE) {
                break;
            }
            cache::remove(&path)?;
            total -= length;
        }
        Ok(())
    };
    if let Err(error) = remove() {
        say::note(format!(
            "cannot remove machines that are not used: {error:#}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_wrong_is_noticed() {
        let seconds = Duration::from_secs;
        for (uptime, took, keeps) in [(3, 4, true), (140, 5, false), (1, 60, false)] {
            assert_eq!(keeps_time(seconds(uptime), seconds(took)), keeps);
        }
    }

    #[test]
    fn what_is_stale_or_damaged_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let from = |text: &str| vec![text.to_owned()];
        let error = |made_from: &str| {
            let error = check(directory.path(), &from(made_from)).err();
            format!("{:#}", error.expect("it is of no use"))
        };
        assert!(error("a").contains("label.json"));
        let label = Label {
            made_from: from("a"),
            id: Uuid::nil(),
            length: 3,
        };
        let write = |name: &str, text: &[u8]| {
            fs::write(directory.path().join(name), text).expect("it can be written");
        };
        write("label.json", &serde_json::to_vec(&label).expect("JSON"));
        assert!(error("a").contains("damaged"));
        write("state", b"abc");
        assert!(check(directory.path(), &from("a")).is_ok());
        assert!(error("b").contains("stale"));
        write("state", b"ab");
        assert!(error("a").contains("has 2 bytes, and had 3"));
        write("label.json", b"{");
        assert!(error("a").contains("label.json is damaged"));
    }
}
