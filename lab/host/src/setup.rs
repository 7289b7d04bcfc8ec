// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every guest is made from: the options of the command line, turned into a kernel, a file
//! system and a machine.

use std::fs::File;
use std::io::Read;
use std::mem;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use clap::Args;
use tempfile::TempDir;
use uuid::Uuid;
use wire::Frame;
use wire::Job;
use wire::Size;

use crate::booted::Booted;
use crate::cache;
use crate::disk;
use crate::disk::Disk;
use crate::disk::Drives;
use crate::guest::Follower;
use crate::guest::Sink;
use crate::guest::Stop;
use crate::initramfs::Initramfs;
use crate::kernel;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::machine::Hardware;
use crate::machine::Machine;
use crate::machine::Origin;
use crate::port;
use crate::port::Port;
use crate::products;
use crate::say;
use crate::userspace;
use crate::vsock::Vsock;

/// For systemd: it starts what a server has, without logins, and without what is due after an update
/// of packages.
const CMDLINE_SYSTEMD: &str = "systemd.unit=multi-user.target systemd.mask=getty.target \
    systemd.mask=systemd-logind.service systemd.ssh_auto=no systemd.condition_needs_update=no";

/// The same for a system on a disk, which is to be as it is otherwise.
const CMDLINE_DISK: &str =
    "systemd.mask=getty.target systemd.ssh_auto=no systemd.condition_needs_update=no";

/// Options of every guest.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are switches of the command line"
)]
pub struct GuestOptions {
    /// Which kernel to boot: “stock” (the newest packaged one that is built with Rust), “rt” (the
    /// same one as it is packaged for real time), a series such as 7.2, or one that the lab builds:
    /// “debug” (KASAN, lockdep, kmemleak, …, the driver a module), “debug-builtin” (the same, the
    /// driver built in), or “kcsan” (data races)
    #[arg(long, default_value = "stock", value_name = "KERNEL")]
    pub kernel: Choice,
    /// Put a file or a directory into the guest's /, or at GUEST (an absolute path)
    #[arg(long, value_name = "HOST[:GUEST]")]
    pub add: Vec<String>,
    /// Virtual CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub smp: u32,
    /// Memory, with a suffix M or G [default: 256M, with --userspace, --systemd or --disk 1G,
    /// in a kernel that the lab builds 512M]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub memory: Option<String>,
    /// Count guest time in instructions: repeatable, and idle time costs nothing
    #[arg(long)]
    pub icount: bool,
    /// Do not load the module
    #[arg(long)]
    pub no_module: bool,
    /// Leave out the device by which a hypervisor tells its guests of clones
    #[arg(long)]
    pub no_vmgenid: bool,
    /// Give the guest Debian's user space (libc, OpenSSL, udev, Python) besides busybox, and all
    /// that `make install` installs
    #[arg(long)]
    pub userspace: bool,
    /// The same with systemd as the first process: the command starts when the system is up, and
    /// the module is loaded as on any machine, by udev
    #[arg(long)]
    pub systemd: bool,
    /// Boot the system on this disk, with its own kernel and initrd (ext4, without partitions, with
    /// systemd 256 or newer). What the machine writes to it is gone with the machine
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["kernel", "no_module", "userspace", "systemd", "boot"]
    )]
    pub disk: Option<PathBuf>,
    /// Which of the kernels on the disk to boot, as `uname -r` shows it [default: the one that
    /// /vmlinuz leads to, or the newest]
    #[arg(long, value_name = "RELEASE", requires = "disk")]
    pub disk_kernel: Option<String>,
    /// One more word for the kernel's command line; may be repeated
    #[arg(long, value_name = "WORD")]
    pub append: Vec<String>,
    /// A virtio-serial port of that name, and a line for a shell whose standard input is the port's
    /// other end, in the lab's root; may be repeated. It runs for each machine, and for each clone
    /// again, and must end before the machine can. $MACHINE is “booted” or “resumed”, and $VMGENID
    /// the machine's VM generation ID
    #[arg(long, value_name = "NAME=COMMAND", value_parser = clap::value_parser!(Port))]
    pub port: Vec<Port>,
    /// Boot, even if such a guest has booted before and was saved then
    #[arg(long)]
    pub boot: bool,
    /// Give the guest a vsock device, at which the host finds it in this directory: “guest”, and its
    /// clones “clone1” and so on, are Unix sockets that want a line “CONNECT PORT”. Where this machine
    /// has /dev/vhost-vsock, guest.cid and so on have the guest's number instead
    #[arg(long, value_name = "DIR")]
    pub vsock: Option<PathBuf>,
    /// One more argument for QEMU, which makes the guest boot; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
    /// End the guest after so many seconds (a clone: after it was resumed)
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
}

/// Refuses what is no size.
pub fn memory_size(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['M', 'G']).unwrap_or_default();
    match number.parse::<u32>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("not a size such as 512M or 2G".into()),
    }
}

impl GuestOptions {
    /// The options of a guest that nobody asked for anything special.
    pub fn plain() -> Self {
        Self {
            kernel: Choice::Stock,
            add: Vec::new(),
            smp: 1,
            memory: None,
            icount: false,
            no_module: false,
            no_vmgenid: false,
            userspace: false,
            systemd: false,
            disk: None,
            disk_kernel: None,
            append: Vec::new(),
            port: Vec::new(),
            boot: false,
            vsock: None,
            qemu_arg: Vec::new(),
            limit: 300,
        }
    }

    fn additions(&self) -> Result<Vec<Addition>> {
        self.add.iter().map(|text| Addition::parse(text)).collect()
    }
}

/// Something that goes into the guest: where it is, and where it goes.
#[derive(Debug)]
pub struct Addition {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub guest: PathBuf,
}

impl Addition {
    /// The provider for OpenSSL, and the configuration that switches it on, where they are installed.
    pub fn openssl_provider() -> Result<[Self; 2]> {
        let installed = products::installed()?;
        let names = [
            "usr/lib/x86_64-linux-gnu/ossl-modules/sysgenid.so",
            "etc/ssl/sysgenid.cnf",
        ];
        Ok(names.map(|name| Self {
            from: installed.join(name),
            guest: Path::new("/").join(name),
        }))
    }

    /// The library for `GnuTLS`.
    pub fn gnutls_library() -> Result<Self> {
        let name = "usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so";
        Ok(Self {
            from: products::installed()?.join(name),
            guest: Path::new("/").join(name),
        })
    }

    /// What an option says of a file of the caller's.
    pub fn parse(text: &str) -> Result<Self> {
        let (host, guest) = match text.rsplit_once(':') {
            Some((host, guest)) => (host, Some(guest)),
            None => (text, None),
        };
        // An added link means the file: its target may not be in the guest.
        let from = cache::followed(cache::from_caller(Path::new(host)));
        std::fs::metadata(&from).map_err(|error| {
            anyhow!("--add {text}: {}: {}", cache::shown(&from), reason(&error))
        })?;
        let name = Path::new(host).file_name().or_else(|| from.file_name());
        let guest = match (guest, name) {
            (Some(guest), _) if guest.starts_with('/') && guest.len() > 1 => guest.into(),
            (Some(guest), _) => {
                bail!("--add {text}: “{guest}” is no place in the guest; give an absolute path")
            }
            (None, Some(name)) => Path::new("/").join(name),
            (None, None) => bail!("--add {text}: give it a place in the guest (HOST:GUEST)"),
        };
        Ok(Self { from, guest })
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}

/// What userland a guest has besides busybox.
#[derive(Clone, Copy, Debug)]
pub enum Userland<'a> {
    /// Nothing.
    Busybox,
    /// These packages, with all that they depend on.
    Packages(&'a [&'a str]),
    /// Debian's, as far as the tests need it.
    Debian,
    /// What lies in this directory.
    Tree(&'a Path),
    /// What `--userspace` promises: Debian's, and what this checkout installs.
    Whole,
    /// The same with systemd.
    System,
}

impl Userland<'_> {
    /// What these options ask for.
    pub fn of(options: &GuestOptions) -> Self {
        if options.systemd {
            Self::System
        } else if options.userspace {
            Self::Whole
        } else {
            Self::Busybox
        }
    }

    /// The archive with its packages, if it has any.
    fn archive(&self) -> Result<Option<PathBuf>> {
        let packages = match self {
            Self::Busybox | Self::Tree(_) => return Ok(None),
            Self::Packages(packages) => packages,
            Self::Debian | Self::Whole => userspace::PACKAGES.as_slice(),
            Self::System => &userspace::SYSTEM,
        };
        userspace::archive(packages).map(Some)
    }

    /// What a guest that has booted with it is kept by.
    fn key(&self) -> Result<String> {
        if let Self::Tree(_) | Self::System = self {
            bail!("such a guest boots each time");
        }
        let archive = self.archive()?;
        Ok(archive.map_or("busybox".into(), |path| path.display().to_string()))
    }
}

/// What a guest starts as.
enum Start {
    /// It boots, from this.
    Boots(PathBuf),
    /// It has booted before.
    Booted(Booted),
}

/// A guest that is ready to be started, any number of times.
pub struct Setup {
    /// The machine.
    pub hardware: Hardware,
    /// How long it may take.
    pub limit: Duration,
    /// Where the host finds it by vsock, if it does.
    pub vsock: Option<Vsock>,
    start: Start,
    /// The archive with the files that come in when it is up.
    files: PathBuf,
    job: Job,
    _directory: TempDir,
}

/// A guest that was started.
pub struct Started {
    /// The machine.
    pub machine: Machine,
    /// Who follows it.
    pub follower: Follower,
    /// Its VM generation ID.
    pub id: Uuid,
    /// Where it is now: without [`Stop::Started`] it did not get there.
    pub stop: Stop,
}

impl Setup {
    /// Makes everything that the guest needs.
    pub fn new(options: &GuestOptions, command: &[String], terminal: Option<Size>) -> Result<Self> {
        // What the caller got wrong is said before anything takes long.
        let additions = options.additions()?;
        if let Some(disk) = &options.disk {
            let disk = cache::from_caller(disk);
            return Self::of_disk(options, &disk, &additions, command, terminal);
        }
        let kernel = kernel::get(options.kernel)?;
        let userland = Userland::of(options);
        // What QEMU is told besides may name files, and nobody knows what is in them.
        let options = GuestOptions {
            boot: options.boot || !options.qemu_arg.is_empty(),
            ..options.clone()
        };
        Self::with(&options, &kernel, userland, &additions, command, terminal)
    }

    /// The same, for the lab's own guests, with files that the lab built.
    pub fn with(
        options: &GuestOptions,
        kernel: &Kernel,
        userland: Userland<'_>,
        additions: &[Addition],
        command: &[String],
        terminal: Option<Size>,
    ) -> Result<Self> {
        let systemd = matches!(userland, Userland::System);
        let mut hardware = hardware(options, kernel, userland);
        let vsock = vsock(options, &mut hardware)?;
        let module = if options.no_module {
            None
        } else {
            products::module(kernel)?
        };
        let mut job = Job {
            command: command.to_vec(),
            load_module: false,
            now: None,
            terminal,
        };
        let mut files = Initramfs::default();
        let modules;
        if systemd {
            modules = products::modules(kernel, module.as_deref())?;
            files.add_all(modules.path())?;
            // Empty, so that each boot makes one of its own. Without it this would be a first boot,
            // at which systemd enables units.
            files.text("etc/machine-id", "");
            files.text(wire::SYSTEMD, "");
        } else if let Some(module) = module {
            files.file(&module, wire::MODULE)?;
            job.load_module = true;
        }
        if let Userland::Whole | Userland::System = userland {
            files.add_all(&products::installed()?)?;
            // Nothing is linked in a guest.
            files.leave_out(|name| name.extension().is_some_and(|end| end == "a"));
        }
        add_all(&mut files, additions)?;

        let directory = tempfile::tempdir()?;
        let initramfs = directory.path().join("initramfs");
        // systemd finds all files when it starts, and what was unpacked for one purpose is not worth
        // keeping.
        let boots = options.boot
            || systemd
            || !options.port.is_empty()
            || matches!(userland, Userland::Tree(_));
        let start = if boots {
            let mut bootable = Initramfs::bootable()?;
            if systemd {
                bootable.extend(mem::take(&mut files));
            }
            write_bootable(bootable, userland, &initramfs)?;
            Start::Boots(initramfs)
        } else {
            Start::Booted(Booted::get(&hardware, &userland.key()?, |path| {
                write_bootable(Initramfs::bootable()?, userland, path)
            })?)
        };
        let archive = directory.path().join("files");
        files.write(&archive, None)?;
        Ok(Self {
            hardware,
            limit: Duration::from_secs(options.limit),
            vsock,
            start,
            files: archive,
            job,
            _directory: directory,
        })
    }

    /// A machine that boots from a disk, where nothing of it is ours.
    fn of_disk(
        options: &GuestOptions,
        path: &Path,
        additions: &[Addition],
        command: &[String],
        terminal: Option<Size>,
    ) -> Result<Self> {
        let disk = Disk::open(path)?;
        let directory = tempfile::tempdir()?;
        let boots = disk
            .extract(options.disk_kernel.as_deref(), directory.path())
            .with_context(|| format!("--disk {}", cache::shown(path)))?;
        let mut hardware = Hardware::with(directory.path().join("vmlinuz"), boots.release);
        hardware.append(&boots.root);
        hardware.append(CMDLINE_DISK);
        hardware.memory = "1G".into();
        hardware.drives = Some(Drives {
            system: path.to_owned(),
            lab: disk::lab_disk(directory.path())?,
        });
        hardware.arguments = disk::credentials();
        apply(options, &mut hardware);
        let vsock = vsock(options, &mut hardware)?;
        let mut files = Initramfs::default();
        add_all(&mut files, additions)?;
        let archive = directory.path().join("files");
        files.write(&archive, None)?;
        Ok(Self {
            hardware,
            limit: Duration::from_secs(options.limit),
            vsock,
            start: Start::Boots(directory.path().join("initrd")),
            files: archive,
            job: Job {
                command: command.to_vec(),
                terminal,
                ..Job::default()
            },
            _directory: directory,
        })
    }

    /// What the guest was booted from, or a file of that size.
    pub fn initramfs(&self) -> PathBuf {
        match &self.start {
            Start::Boots(initramfs) => initramfs.clone(),
            Start::Booted(booted) => booted.initramfs(),
        }
    }

    /// Waits for the programs at the machine's ports, if it has come to its end by itself, and ends
    /// them otherwise. Returns what the lab exits with, which is `status` if that is not zero.
    pub fn finish(
        &self,
        machine: &mut Machine,
        stop: &Stop,
        status: u8,
        sink: &mut dyn Sink,
    ) -> Result<u8> {
        let mut limit = Instant::now();
        if matches!(stop, Stop::Ended(_) | Stop::Searched) {
            limit += self.limit;
        }
        let theirs = port::finish(machine.programs(), limit, sink)?;
        Ok(if status == 0 { theirs } else { status })
    }

    /// Starts the guest, and follows it until its command starts.
    pub fn start(&self, sink: &mut dyn Sink) -> Result<Started> {
        let start = Instant::now();
        let limit = start + self.limit;
        let mut follower = Follower::default();
        let (mut machine, id, how) = match &self.start {
            Start::Boots(initramfs) => {
                let id = Uuid::new_v4();
                let machine = Machine::start(&self.hardware, id, Origin::Boot(initramfs))?;
                let stop = follower.follow(machine.channel(), limit, false, sink)?;
                if !matches!(stop, Stop::Waiting(_)) {
                    return Ok(Started {
                        machine,
                        follower,
                        id,
                        stop,
                    });
                }
                (machine, id, "booted")
            }
            Start::Booted(booted) => (booted.resume(&self.hardware)?, booted.id, "resumed"),
        };
        if let Some(vsock) = &self.vsock {
            machine.plug(vsock.device("guest")?)?;
        }
        self.send(machine.channel())?;
        let stop = follower.follow(machine.channel(), limit, false, sink)?;
        if stop == Stop::Started {
            say::note(format!(
                "{how} Linux {} in {:.1} s",
                self.hardware.release,
                start.elapsed().as_secs_f32()
            ));
            machine.open_vsock()?;
        }
        Ok(Started {
            machine,
            follower,
            id,
            stop,
        })
    }

    /// Sends the files and the job. A guest that is gone meanwhile is not found out here: whoever
    /// follows it sees how it ended.
    fn send(&self, mut channel: &UnixStream) -> Result<()> {
        channel.set_write_timeout(Some(self.limit))?;
        let mut files = File::open(&self.files)?;
        let mut piece = vec![0; wire::MAX_PAYLOAD];
        loop {
            let length = files.read(&mut piece)?;
            if length == 0 {
                break;
            }
            if Frame::Files(piece[..length].to_vec())
                .write(&mut channel)
                .is_err()
            {
                return Ok(());
            }
        }
        let mut job = self.job.clone();
        // Where time is counted in instructions, each run is to be like the other.
        if !self.hardware.icount {
            job.now = Some(SystemTime::now().duration_since(UNIX_EPOCH)?);
        }
        Frame::Begin(job).write(&mut channel).ok();
        Ok(())
    }
}

/// The machine that these options ask for.
fn hardware(options: &GuestOptions, kernel: &Kernel, userland: Userland<'_>) -> Hardware {
    let mut hardware = Hardware::small(kernel);
    if let Userland::System = userland {
        hardware.append(CMDLINE_SYSTEMD);
    }
    if let Userland::Debian | Userland::Whole | Userland::System = userland {
        hardware.memory = "1G".into();
    } else if kernel.is_debug() {
        // KASAN keeps an eighth of the memory for itself, and freed memory for a while.
        hardware.memory = "512M".into();
    }
    apply(options, &mut hardware);
    hardware
}

/// What options say of any machine.
fn apply(options: &GuestOptions, hardware: &mut Hardware) {
    hardware.smp = options.smp;
    hardware.icount = options.icount;
    hardware.vmgenid = !options.no_vmgenid;
    hardware.ports.clone_from(&options.port);
    hardware.arguments.extend_from_slice(&options.qemu_arg);
    for word in &options.append {
        hardware.append(word);
    }
    if let Some(memory) = &options.memory {
        hardware.memory.clone_from(memory);
    }
}

/// Where the host finds the machine by vsock, if that is asked for.
fn vsock(options: &GuestOptions, hardware: &mut Hardware) -> Result<Option<Vsock>> {
    let Some(directory) = &options.vsock else {
        return Ok(None);
    };
    let vsock = Vsock::new(&cache::from_caller(directory))?;
    let arguments = vsock.arguments(&hardware.memory);
    hardware.arguments.extend(arguments);
    Ok(Some(vsock))
}

/// Adds what the command line or a manifest names.
fn add_all(files: &mut Initramfs, additions: &[Addition]) -> Result<()> {
    for addition in additions {
        files
            .add(&addition.from, &addition.guest)
            .with_context(|| format!("--add {}", cache::shown(&addition.from)))?;
    }
    Ok(())
}

/// Writes what a guest boots from: init, what else there is, and its userland.
fn write_bootable(mut bootable: Initramfs, userland: Userland<'_>, path: &Path) -> Result<()> {
    match userland {
        Userland::Busybox => bootable.users(),
        Userland::Tree(tree) => bootable.add_all(tree)?,
        Userland::Packages(_) | Userland::Debian | Userland::Whole | Userland::System => {}
    }
    let base = userland.archive()?;
    // The archive has them already.
    if base.is_none() {
        bootable.busybox_applets()?;
    }
    bootable.write(path, base.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_that_does_not_exist_is_named() {
        let error = Addition::parse("/no/such/file").expect_err("it is not there");
        let text = error.to_string();
        assert!(
            text.contains("/no/such/file") && text.contains("no such file"),
            "{text}"
        );
    }

    #[test]
    fn sizes_have_a_suffix() {
        assert!(memory_size("512M").is_ok());
        for wrong in ["512", "M", "0G", "1T", "-1M", ""] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }
}
