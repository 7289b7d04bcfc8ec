// SPDX-License-Identifier: MIT OR Apache-2.0

//! vsock: how the host calls a guest that has no network.
//!
//! The kernel of the host may have such devices for its guests (`vhost_vsock`). Where it has none, a
//! program of the rust-vmm project is the device, and the host finds the guest by a Unix socket.
//!
//! No device is saved with its machine. QEMU refuses to save a machine with one of the second kind;
//! and whoever is connected is cut off by a restore anyway. So it is plugged in when a machine is up,
//! pulled out before the machine is saved, and each clone gets one of its own.
//!
//! The host finds the guest from the moment on that the guest has taken its device: the program's
//! thread ends for good if somebody connects while the guest is about to
//! (`QueueNotReady` of the crate virtio-queue), and who connects afterwards waits in vain.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Once;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use tempfile::TempDir;
use uuid::Uuid;

use crate::cache;
use crate::say;
use crate::step::execute;
use crate::step::step;

/// Who can open it can make a device of the kernel's.
const KERNEL: &str = "/dev/vhost-vsock";

/// The program, and which one of it.
const PROGRAM: &str = "vhost-device-vsock";
const VERSION: &str = "0.3.0";

/// What QEMU calls the device, and its connection to the program.
pub const NAME: &str = "vsock";

/// What is the device.
#[derive(Clone, Debug)]
enum Kind {
    Kernel,
    Program(PathBuf),
}

/// Where the host finds its guests, by their names.
#[derive(Clone, Debug)]
pub struct Vsock {
    directory: PathBuf,
    kind: Kind,
}

impl Vsock {
    /// They are to be found in this directory.
    pub fn new(directory: &Path) -> Result<Self> {
        static SAID: Once = Once::new();
        fs::create_dir_all(directory)
            .with_context(|| format!("--vsock {}", cache::shown(directory)))?;
        let opens = File::options().read(true).write(true).open(KERNEL).is_ok();
        let (kind, what) = if opens {
            (Kind::Kernel, format!("{KERNEL} of this machine's kernel"))
        } else {
            let what = format!("{PROGRAM} {VERSION}, since {KERNEL} cannot be opened here");
            (Kind::Program(program()?), what)
        };
        SAID.call_once(|| say::say(format!("vsock is {what}")));
        Ok(Self {
            directory: directory.to_owned(),
            kind,
        })
    }

    /// What QEMU has to be told from the start: others look into the memory of the machine.
    pub fn arguments(&self, memory: &str) -> Vec<String> {
        match self.kind {
            Kind::Kernel => Vec::new(),
            Kind::Program(_) => vec![
                "-object".into(),
                format!("memory-backend-memfd,id=memory,size={memory},share=on"),
                "-machine".into(),
                "memory-backend=memory".into(),
            ],
        }
    }

    /// A device for the guest of that name. The host finds it when it is opened.
    pub fn device(&self, name: &str) -> Result<Device> {
        let mut place = self.directory.join(name);
        // Any number but those that have a meaning; two guests on one host have different ones.
        #[expect(clippy::cast_possible_truncation, reason = "they are random bits")]
        let cid = (Uuid::new_v4().as_u128() as u32 >> 1).max(3);
        let helper = match &self.kind {
            Kind::Kernel => {
                place.set_extension("cid");
                None
            }
            Kind::Program(program) => Some(Helper::start(program, cid, &hidden(&place))?),
        };
        Ok(Device { cid, place, helper })
    }
}

/// A device, which is gone when this is dropped.
pub struct Device {
    /// The guest's number.
    pub cid: u32,
    /// Where the host finds it.
    place: PathBuf,
    /// The program, if it is one.
    pub helper: Option<Helper>,
}

impl Device {
    /// Lets the host find the guest, which has taken the device.
    pub fn open(&self) -> Result<()> {
        match &self.helper {
            None => fs::write(&self.place, format!("{}\n", self.cid)),
            Some(_) => fs::rename(hidden(&self.place), &self.place),
        }
        .with_context(|| format!("cannot make {}", cache::shown(&self.place)))
    }

    /// Lets nobody find it any more.
    pub fn close(&self) {
        fs::remove_file(&self.place).ok();
        fs::remove_file(hidden(&self.place)).ok();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where a socket is that nobody is to find yet.
fn hidden(place: &Path) -> PathBuf {
    place.with_extension("closed")
}

/// A program that is a device. It is killed when this is dropped.
pub struct Helper {
    process: Child,
    directory: TempDir,
}

impl Helper {
    fn start(program: &Path, cid: u32, callers: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let words = File::create(directory.path().join("words"))?;
        let mut helper = Self {
            process: Command::new(program)
                .args(["--guest-cid", &cid.to_string()])
                .arg("--socket")
                .arg(directory.path().join(NAME))
                .arg("--uds-path")
                .arg(callers)
                .stdin(Stdio::null())
                .stdout(words.try_clone()?)
                .stderr(words)
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?,
            directory,
        };
        helper.check()?;
        Ok(helper)
    }

    /// Where QEMU finds it, when it is up.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    /// Fails if it has ended, with what it said.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            let words = fs::read_to_string(self.directory.path().join("words"))?;
            bail!("{PROGRAM} has ended ({status}): {}", words.trim());
        }
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The program, built if it is not there yet.
fn program() -> Result<PathBuf> {
    let name = format!("tool/{PROGRAM}-{VERSION}");
    let directory = cache::made(&name, |directory| {
        step(&format!("building {PROGRAM} {VERSION}"), || {
            let mut cargo = Command::new("cargo");
            cargo
                // Nobody waits for it to move much, but everybody for it to be built.
                .args(["install", "--debug", "--locked"])
                .args(["--version", VERSION, "--root"])
                .arg(directory)
                .arg(PROGRAM)
                .env("CARGO_TARGET_DIR", cache::build_directory(PROGRAM)?);
            execute(&mut cargo, PROGRAM).with_context(|| format!("cannot build {PROGRAM}"))
        })
    })?;
    Ok(directory.join("bin").join(PROGRAM))
}
