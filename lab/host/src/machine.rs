// SPDX-License-Identifier: MIT OR Apache-2.0

//! A virtual machine: QEMU, driven over QMP.

use std::fs;
use std::mem;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Once;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use command_fds::CommandFdExt;
use command_fds::FdMapping;
use tempfile::TempDir;
use uuid::Uuid;

use crate::disk;
use crate::disk::Drives;
use crate::kernel::Kernel;
use crate::port::Port;
use crate::port::Program;
use crate::qmp;
use crate::qmp::Monitor;
use crate::say;
use crate::vsock;
use crate::vsock::Device;

/// How long QEMU may take for what it answers at once on any machine that works.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where devices that were plugged in are in QEMU's tree.
const PLUGGED: &str = "/machine/peripheral";

/// The kernel's command line: the whole log on the serial port, and the end of the machine
/// (which is started with -no-reboot) at the first oops.
///
/// Nobody watches the clock: Linux 7.3 can hang when it does. With interrupts off,
/// `watchdog_check_skew()` waits for another processor, and for no longer than the clock says. If
/// that processor has stopped this one to change the clock, then neither goes on, and at boot that
/// clock counts interrupts.
const CMDLINE: &str =
    "console=ttyS0 loglevel=7 oops=panic panic=-1 random.trust_cpu=on tsc=nowatchdog";

/// More of it for kernels that catch mistakes: nobody waits long for a grace period, and meanwhile
/// works on (where a kernel is slow, that is much work), and KASAN reports all that it finds, not
/// only the first.
const CMDLINE_DEBUG: &str = "rcupdate.rcu_expedited=1 kasan_multi_shot";

/// What the file is called with what a machine has written to its disk.
const DISK: &str = "disk";

/// The binary logarithm of the time that an instruction takes where instructions are counted.
const ICOUNT_SHIFT: u32 = 1;

/// That time, in nanoseconds of the guest.
pub const NS_PER_INSTRUCTION: u32 = 1 << ICOUNT_SHIFT;

/// What a machine is made of; the same for a machine and for its clones.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The kernel image.
    pub image: PathBuf,
    /// The kernel's release, for messages.
    pub release: String,
    /// Virtual CPUs.
    pub smp: u32,
    /// Memory, as QEMU's -m takes it.
    pub memory: String,
    /// Whether guest time is counted in instructions.
    pub icount: bool,
    /// Whether it has a `VMGenID` device.
    pub vmgenid: bool,
    /// The kernel's command line.
    pub cmdline: String,
    /// Its disks, if it has any.
    pub drives: Option<Drives>,
    /// Its virtio-serial ports, besides the lab's own.
    pub ports: Vec<Port>,
    /// Further arguments for QEMU.
    pub arguments: Vec<String>,
}

impl Hardware {
    /// One CPU and 256 MiB, enough for most of what the lab does.
    pub fn small(kernel: &Kernel) -> Self {
        let mut small = Self::with(kernel.image.clone(), kernel.release.clone());
        if kernel.is_debug() {
            small.append(CMDLINE_DEBUG);
        }
        small
    }

    /// The same, with that kernel.
    pub fn with(image: PathBuf, release: String) -> Self {
        Self {
            image,
            release,
            smp: 1,
            memory: "256M".into(),
            icount: false,
            vmgenid: true,
            cmdline: CMDLINE.into(),
            drives: None,
            ports: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Tells the kernel more.
    pub fn append(&mut self, words: &str) {
        self.cmdline.push(' ');
        self.cmdline.push_str(words);
    }
}

/// A machine in a QEMU, which is killed when this is dropped.
pub struct Machine {
    qemu: Qemu,
    monitor: Monitor,
    channel: UnixStream,
    programs: Vec<Program>,
    directory: TempDir,
    /// The device for vsock that is plugged in. It goes after QEMU.
    vsock: Option<Device>,
}

/// What a machine starts from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// Power-on, with that initramfs.
    Boot(&'a Path),
    /// A saved machine.
    Saved {
        /// Its state.
        state: &'a Path,
        /// The initramfs that it was booted with; QEMU wants its size again.
        initramfs: &'a Path,
        /// Its disk, if it has one.
        disk: Option<&'a Path>,
    },
}

/// What is left of a machine that was saved.
pub struct Left {
    /// What the guest has sent before can still be read from it.
    pub channel: UnixStream,
    /// Its disk, if it has one, which is to be kept with its state.
    pub disk: Option<PathBuf>,
    /// The programs at its ports, which see their ends.
    pub programs: Vec<Program>,
}

impl Machine {
    /// Starts QEMU. A booting machine runs; a saved one is loaded, and waits for
    /// [`Machine::resume`].
    pub fn start(hardware: &Hardware, id: Uuid, origin: Origin<'_>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (monitor, qemu_monitor) = UnixStream::pair()?;
        let (channel, qemu_channel) = UnixStream::pair()?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(accelerator(hardware.icount))
            .args(["-smp", &hardware.smp.to_string(), "-m", &hardware.memory])
            .arg("-kernel")
            .arg(&hardware.image)
            .args(["-append", &hardware.cmdline])
            .args([
                "-chardev",
                "socket,id=monitor,fd=3",
                "-mon",
                "chardev=monitor,mode=control",
            ])
            .args([
                "-chardev",
                "socket,id=channel,fd=4",
                "-device",
                "virtio-serial-pci",
            ])
            .args([
                "-device",
                &format!("virtserialport,chardev=channel,name={}", wire::PORT),
            ])
            .arg("-serial")
            .arg(format!(
                "file:{}",
                directory.path().join("console").display()
            ));
        let mut mappings = vec![mapping(qemu_monitor, 3), mapping(qemu_channel, 4)];
        let mut programs = Vec::new();
        for (port, fd) in hardware.ports.iter().zip(5..) {
            let (ours, qemu) = UnixStream::pair()?;
            command.args(port.arguments(fd));
            mappings.push(mapping(qemu, fd));
            programs.push(port.start(ours, id, origin)?);
        }
        if hardware.vmgenid {
            command.args(["-device", &format!("vmgenid,guid={id}")]);
        }
        if let Some(drives) = &hardware.drives {
            command.args(attach(drives, origin, &directory.path().join(DISK))?);
        }
        match origin {
            Origin::Boot(initramfs) => command.arg("-initrd").arg(initramfs),
            Origin::Saved {
                state, initramfs, ..
            } => command
                .arg("-initrd")
                .arg(initramfs)
                .arg("-incoming")
                .arg(format!("file:{}", state.display())),
        };
        let qemu = command
            .args(&hardware.arguments)
            .fd_mappings(mappings)
            .map_err(|error| anyhow!("{error}"))?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("qemu"))?)
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        // The child has its ends; ours must be the only ones here, or no end would be seen.
        drop(command);
        monitor.set_read_timeout(Some(PATIENCE))?;
        let mut qemu = Qemu(qemu);
        // The greeting comes when QEMU has set everything up.
        let monitor = Monitor::new(monitor).map_err(|error| {
            qemu.end();
            let words = own_words(&directory);
            anyhow!("QEMU does not start: {words} ({error:#})")
        })?;
        let mut machine = Self {
            qemu,
            monitor,
            channel,
            programs,
            directory,
            vsock: None,
        };
        if let Origin::Saved { .. } = origin {
            machine.wait_until("load the saved machine", |machine| {
                Ok(machine.ask(&qmp::QueryStatus {})?.status == "paused")
            })?;
        }
        Ok(machine)
    }

    fn ask<C: qapi_spec::Command>(&mut self, command: &C) -> Result<C::Ok> {
        self.monitor.execute(command).map_err(|error| {
            let words = own_words(&self.directory);
            anyhow!("QEMU refuses {}: {error:#} ({words})", C::NAME)
        })
    }

    fn wait_until(
        &mut self,
        what: &str,
        mut reached: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !reached(self)? {
            if start.elapsed() > PATIENCE {
                bail!("QEMU does not {what}: {}", own_words(&self.directory));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Plugs in a device for vsock. In a machine that stands still, the guest finds it when that goes on.
    pub fn plug(&mut self, mut device: Device) -> Result<()> {
        if let Some(helper) = &mut device.helper {
            let path = helper.socket();
            self.wait_until("connect to its device for vsock", |machine| {
                helper.check()?;
                let connected = machine.monitor.execute(&qmp::ChardevAdd {
                    id: vsock::NAME,
                    backend: qmp::Backend::Socket {
                        addr: qmp::Address::Unix { path: &path },
                        server: false,
                    },
                });
                Ok(connected.is_ok())
            })?;
            self.ask(&qmp::DeviceAdd {
                driver: "vhost-user-vsock-pci",
                id: vsock::NAME,
                chardev: Some(vsock::NAME),
                guest_cid: None,
            })?;
        } else {
            self.ask(&qmp::DeviceAdd {
                driver: "vhost-vsock-pci",
                id: vsock::NAME,
                chardev: None,
                guest_cid: Some(device.cid),
            })?;
        }
        self.vsock = Some(device);
        Ok(())
    }

    /// Waits until the running guest has taken its device for vsock, if it has one, and lets the host
    /// find it. What the guest says meanwhile is not lost.
    pub fn open_vsock(&mut self) -> Result<()> {
        let Some(device) = self.vsock.take() else {
            return Ok(());
        };
        self.wait_until("see the guest take its device for vsock", |machine| {
            let state = machine.monitor.execute(&qmp::QueryVirtioStatus {
                path: &format!("{PLUGGED}/{}/virtio-backend", vsock::NAME),
            });
            // A guest that has ended is seen to have by whoever follows it.
            Ok(state.is_ok_and(|state| state.is_driven()) || machine.qemu.0.try_wait()?.is_some())
        })
        .context("is there no module vmw_vsock_virtio_transport in it?")?;
        device.open()?;
        self.vsock = Some(device);
        Ok(())
    }

    /// Pulls it out, if there is one: the guest, which has to run, lets go of it.
    pub fn unplug(&mut self) -> Result<()> {
        // It goes when QEMU has let go of it, too.
        let Some(device) = self.vsock.take() else {
            return Ok(());
        };
        device.close();
        self.ask(&qmp::DeviceDel { id: vsock::NAME })?;
        self.wait_until("get its device for vsock back from the guest", |machine| {
            let devices = machine.ask(&qmp::QomList { path: PLUGGED })?;
            Ok(!devices.iter().any(|device| device.name == vsock::NAME))
        })
    }

    /// Stops the machine: the guest's clock and all that it does stand still.
    pub fn stop(&mut self) -> Result<()> {
        self.ask(&qmp::Stop {})?;
        Ok(())
    }

    /// Writes a stopped machine's state to `path`, and its disk beside it, and ends QEMU.
    pub fn save(mut self, path: &Path) -> Result<Left> {
        self.ask(&qmp::MigrateSetParameters {
            // The default, 128 MiB a second, is meant for a network.
            max_bandwidth: 1 << 34,
        })?;
        self.ask(&qmp::Migrate {
            uri: format!("file:{}", path.display()),
        })?;
        self.wait_until("save the machine", |machine| {
            let migration = machine.ask(&qmp::QueryMigrate {})?;
            match migration.status.as_deref() {
                Some("completed") => Ok(true),
                Some("failed") => bail!(
                    "cannot save the machine: {}",
                    migration
                        .error_desc
                        .unwrap_or_else(|| own_words(&machine.directory))
                ),
                _ => Ok(false),
            }
        })?;
        // QEMU may be gone before its answer is.
        self.monitor.send(&qmp::Quit {}).ok();
        self.qemu.0.wait()?;
        let own = self.directory.path().join(DISK);
        let disk = if own.exists() {
            let kept = path.with_extension(DISK);
            fs::rename(own, &kept)?;
            Some(kept)
        } else {
            None
        };
        Ok(Left {
            channel: self.channel.try_clone()?,
            disk,
            programs: mem::take(&mut self.programs),
        })
    }

    /// Reads memory of a machine that stands still.
    pub fn memory(&mut self, address: u64, length: u64) -> Result<Vec<u8>> {
        let file = self.directory.path().join("memory");
        self.ask(&qmp::Pmemsave {
            val: address,
            size: length,
            filename: &file,
        })?;
        fs::read(&file).context("cannot read what QEMU has saved")
    }

    /// Lets a loaded machine run.
    pub fn resume(&mut self) -> Result<()> {
        self.ask(&qmp::Cont {})?;
        Ok(())
    }

    /// The channel to the guest's init.
    pub fn channel(&self) -> &UnixStream {
        &self.channel
    }

    /// The programs at its ports, whose machine goes on.
    pub fn programs(&mut self) -> Vec<Program> {
        mem::take(&mut self.programs)
    }

    /// The console so far.
    pub fn console(&self) -> String {
        fs::read(self.directory.path().join("console"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Before the other end is closed.
        self.qemu.end();
        self.channel.shutdown(Shutdown::Both).ok();
    }
}

/// What QEMU is told of a machine's drives. What the machine writes goes to the file `own`.
fn attach(drives: &Drives, origin: Origin<'_>, own: &Path) -> Result<[String; 8]> {
    match origin {
        Origin::Saved {
            disk: Some(disk), ..
        } => disk::layer(disk, "qcow2", own)?,
        Origin::Boot(_) | Origin::Saved { disk: None, .. } => {
            disk::layer(&drives.system, "raw", own)?;
        }
    }
    // What is left when the host crashes is of no use anyway.
    let system = format!(
        "file={},format=qcow2,if=none,id=system,cache=unsafe",
        own.display()
    );
    let lab = format!(
        "file={},format=raw,if=none,id=lab,readonly=on",
        drives.lab.display()
    );
    Ok([
        "-drive".into(),
        system,
        "-device".into(),
        "virtio-blk-pci,drive=system".into(),
        "-drive".into(),
        lab,
        "-device".into(),
        "virtio-blk-pci,drive=lab".into(),
    ])
}

/// The process. It is killed when this is dropped.
struct Qemu(Child);

impl Qemu {
    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

/// What QEMU itself wrote, in one line.
fn own_words(directory: &TempDir) -> String {
    let words = fs::read_to_string(directory.path().join("qemu")).unwrap_or_default();
    let words: Vec<_> = words.lines().map(str::trim).collect();
    if words.is_empty() {
        "it says nothing".into()
    } else {
        words.join("; ")
    }
}

fn mapping(socket: UnixStream, child_fd: i32) -> FdMapping {
    FdMapping {
        parent_fd: OwnedFd::from(socket),
        child_fd,
    }
}

/// Whether the processor can run guests, and whether that can be had.
pub struct Virtualisation {
    processor: bool,
    opens: bool,
}

impl Virtualisation {
    /// Looks at the processor, and at /dev/kvm, which alone proves nothing: it may open on a machine
    /// that cannot run a guest.
    pub fn find() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = flags
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| {
                line.split_whitespace()
                    .any(|flag| flag == "vmx" || flag == "svm")
            });
        let opens = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        Self { processor, opens }
    }

    /// Whether a machine that does not count instructions runs on KVM.
    pub fn is_usable(&self) -> bool {
        self.processor && self.opens
    }
}

/// What kind of processor guests have here, as far as it makes a difference to one that is saved.
pub fn processor(icount: bool) -> String {
    if icount || !Virtualisation::find().is_usable() {
        return "emulated".into();
    }
    // Guests have all that the host's has.
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let told = ["model name", "flags", "microcode"];
    let lines = information
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| told.iter().any(|start| line.starts_with(start)));
    lines.collect::<Vec<_>>().join("; ")
}

/// KVM where it can be had; else emulation, said once.
fn accelerator(icount: bool) -> Vec<String> {
    static SAID: Once = Once::new();
    let to_strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    let found = Virtualisation::find();
    if found.is_usable() && !icount {
        return to_strings(&["-accel", "kvm", "-accel", "tcg", "-cpu", "max"]);
    }
    SAID.call_once(|| {
        let why = match (icount, found.processor) {
            (true, _) => "guest time is counted in instructions",
            (false, false) => "this machine has no hardware virtualisation",
            (false, true) => "/dev/kvm cannot be opened",
        };
        say::say(format!("emulating the processor (TCG): {why}"));
    });
    let mut arguments: Vec<String> = to_strings(&["-accel", "tcg", "-cpu", "max,la57=off"]);
    if icount {
        let icount = format!("shift={ICOUNT_SHIFT},sleep=off");
        arguments.extend(["-icount".into(), icount]);
    }
    arguments
}
