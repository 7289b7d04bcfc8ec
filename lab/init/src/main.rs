// SPDX-License-Identifier: MIT OR Apache-2.0

//! The init process of the lab's guests.
//!
//! It mounts what a command expects, and tells the lab over the virtio-serial port that it waits.
//! What it waits for are files and a job: it loads the module, runs the command, and tells what the
//! command writes, what the kernel logs and how it all ended. Then it looks for leaked memory, if
//! the lab asks for that and the kernel can.
//!
//! In a guest with systemd it starts itself a second time, and makes way: its own process becomes
//! systemd, which mounts and loads all there is as on any machine. The other one does the rest, of
//! which systemd knows nothing, when the system is up.

#![forbid(unsafe_code)]

mod files;

use std::collections::VecDeque;
use std::env;
use std::ffi::CStr;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use rustix::event;
use rustix::event::EventfdFlags;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;
use rustix::process::WaitOptions;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use rustix::time::ClockId;
use rustix::time::Timespec;
use wire::Decoder;
use wire::End;
use wire::Frame;
use wire::Job;
use wire::Size;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What this program is called with when systemd is the first process.
const BESIDE_SYSTEMD: &str = "beside-systemd";

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

fn main() {
    // There is no channel to say it on: the console is all there is, and the panic that follows
    // init's exit makes the lab show its tail.
    if let Err(error) = init() {
        eprintln!("lab init: {error:#}");
    }
}

fn init() -> Result<()> {
    if env::args().nth(1).as_deref() == Some(BESIDE_SYSTEMD) {
        return work(Some(wait_for_system));
    }
    mount(&BASIC)?;
    if !Path::new(wire::SYSTEMD).exists() {
        mount(&FURTHER)?;
        return work(None);
    }
    let this = env::current_exe().context("init does not know where it is")?;
    Command::new(this)
        .arg(BESIDE_SYSTEMD)
        .spawn()
        .context("cannot start init again")?;
    let error = Command::new(SYSTEMD).env_clear().env("PATH", PATH).exec();
    Err(error).with_context(|| format!("cannot become {SYSTEMD}"))
}

/// Waits for a job, does it, and tells the lab how that went.
fn work(wait: Option<fn(&mut File) -> Result<()>>) -> Result<()> {
    let mut port = open_port()?;
    let end = run(&mut port, wait).unwrap_or_else(|error| End::NotStarted(format!("{error:#}")));
    if let Err(error) = Frame::Ended(end).write(&mut port) {
        eprintln!("lab init: cannot report the end: {error}");
    }
    if let Err(error) = answer(&mut port) {
        eprintln!("lab init: {error:#}");
    }
    // The lab ends the machine when it knows all that it wants to know.
    loop {
        thread::park();
    }
}

/// A file system: its type, where it goes, and how.
type Mount = (&'static str, &'static str, MountFlags, &'static CStr);

/// What init itself needs.
const BASIC: [Mount; 4] = [
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    ("proc", "/proc", MountFlags::NOSUID, c""),
    ("sysfs", "/sys", MountFlags::NOSUID, c""),
    ("tmpfs", "/run", MountFlags::NOSUID, c"mode=0755"),
];

/// What a command expects besides.
const FURTHER: [Mount; 4] = [
    ("tmpfs", "/tmp", MountFlags::NOSUID, c"mode=1777"),
    ("devpts", "/dev/pts", MountFlags::NOSUID, c"ptmxmode=0666"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID, c"mode=1777"),
    ("debugfs", "/sys/kernel/debug", MountFlags::NOSUID, c""),
];

fn mount(mounts: &[Mount]) -> Result<()> {
    for &(kind, target, flags, options) in mounts {
        // Some lie in file systems that were only just mounted; debugfs's own directory cannot be
        // made, and is there when the kernel has debugfs.
        if let Err(error) = fs::create_dir_all(target) {
            eprintln!("lab init: {target}: {error}");
        }
        match rustix::mount::mount(kind, target, kind, flags, options) {
            Ok(()) => {}
            Err(error) if kind == "debugfs" => eprintln!("lab init: no debugfs: {error}"),
            Err(error) => bail!("cannot mount {kind} on {target}: {error}"),
        }
    }
    Ok(())
}

/// Waits until systemd has started all that it starts. Units that failed are worth a remark, but
/// keep nobody from anything.
fn wait_for_system(port: &mut File) -> Result<()> {
    loop {
        let state = output(&["systemctl", "is-system-running", "--wait"])?;
        match state.trim() {
            "running" => break,
            "degraded" => {
                let remark = format!("the system is degraded; {}", failed_units()?);
                Frame::Remark(remark).write(port)?;
                break;
            }
            // systemd does not listen yet.
            "" | "offline" | "unknown" | "initializing" | "starting" => {
                thread::sleep(Duration::from_millis(50));
            }
            other => bail!(
                "the system does not come up: it is in the state “{other}”; {}",
                failed_units()?
            ),
        }
    }
    // Nothing in systemd waits until the modules of all devices are loaded.
    output(&["udevadm", "settle"])?;
    Ok(())
}

fn failed_units() -> Result<String> {
    let list = output(&[
        "systemctl",
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
    ])?;
    let names: Vec<_> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    Ok(format!("units that failed: {}", names.join(", ")))
}

/// What a command writes to its standard output.
fn output(command: &[&str]) -> Result<String> {
    let (name, arguments) = command.split_first().context("the command is empty")?;
    let output = Command::new(name)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| explain(name, error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn open_port() -> Result<File> {
    let ports = Path::new("/sys/class/virtio-ports");
    for entry in fs::read_dir(ports).context("the kernel knows no virtio-serial port")? {
        let entry = entry?;
        // The name arrives in a control message, some time after the port itself.
        for _ in 0..500 {
            match fs::read_to_string(entry.path().join("name")) {
                Ok(name) if name.trim_end() == wire::PORT => {
                    let node = Path::new("/dev").join(entry.file_name());
                    return File::options()
                        .read(true)
                        .write(true)
                        .open(&node)
                        .with_context(|| format!("cannot open {}", node.display()));
                }
                Ok(name) if !name.trim_end().is_empty() => break,
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    bail!("no virtio-serial port is called {}", wire::PORT);
}

/// Runs the job, and returns how its command ended.
fn run(port: &mut File, wait: Option<fn(&mut File) -> Result<()>>) -> Result<End> {
    let kernel_log = open_kernel_log()?;
    if let Some(wait) = wait {
        wait(port)?;
    }
    Frame::Waiting(uptime()).write(port)?;
    let job = files::receive(&mut *port, Path::new("/"))?;
    if let Some(now) = job.now {
        set_clock(now)?;
    }
    if job.load_module {
        load_module()?;
    }
    Frame::Started.write(port)?;
    let ended = event::eventfd(0, EventfdFlags::CLOEXEC)?;
    let (child, outputs, terminal) = start(&job)?;
    let reaper = {
        let ended = ended.try_clone()?;
        thread::spawn(move || reap(child, &ended))
    };
    forward(port, &kernel_log, outputs, terminal.as_ref(), &ended)?;
    reaper
        .join()
        .map_err(|_| anyhow::anyhow!("the reaper panicked"))?
        .context("cannot wait for the command")
}

/// How long the machine has been up, by its clock.
fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

fn set_clock(now: Duration) -> Result<()> {
    let now = Timespec {
        tv_sec: now.as_secs().try_into()?,
        tv_nsec: now.subsec_nanos().into(),
    };
    rustix::time::clock_settime(ClockId::Realtime, now).context("cannot set the clock")
}

fn load_module() -> Result<()> {
    let module =
        File::open(wire::MODULE).with_context(|| format!("cannot open {}", wire::MODULE))?;
    rustix::system::finit_module(&module, c"", 0)
        .context("the kernel does not take the module (its log says why)")
}

fn open_kernel_log() -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open("/dev/kmsg", flags, rustix::fs::Mode::empty())
        .context("cannot open /dev/kmsg")?;
    Ok(File::from(log))
}

/// What the command writes, and what becomes of it.
struct Output {
    from: File,
    frame: fn(Vec<u8>) -> Frame,
    open: bool,
}

impl Output {
    fn new(from: impl Into<OwnedFd>, frame: fn(Vec<u8>) -> Frame) -> Self {
        Self {
            from: File::from(from.into()),
            frame,
            open: true,
        }
    }
}

/// Starts the command. Returns its process ID, where its output comes from, and its terminal
/// when it has one.
fn start(job: &Job) -> Result<(i32, Vec<Output>, Option<File>)> {
    let (name, arguments) = job.command.split_first().context("the command is empty")?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("TERM", "linux")
        .current_dir("/");
    let terminal = if let Some(size) = job.terminal {
        Some(terminal(&mut command, size)?)
    } else {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        None
    };
    let mut child = command.spawn().map_err(|error| explain(name, error))?;
    let mut outputs = Vec::new();
    if let Some(terminal) = &terminal {
        outputs.push(Output::new(terminal.try_clone()?, Frame::Stdout));
    }
    if let Some(stdout) = child.stdout.take() {
        outputs.push(Output::new(stdout, Frame::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push(Output::new(stderr, Frame::Stderr));
    }
    Ok((i32::try_from(child.id())?, outputs, terminal))
}

fn explain(name: &str, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound if Path::new(name).exists() => {
            ": the interpreter or dynamic loader that it names is not in this guest; link it \
             statically, or start the guest with --userspace"
        }
        io::ErrorKind::NotFound => ": not in the guest; bring it with --add",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot start {name}{hint}"))
}

/// Opens a pseudo-terminal, gives the command its one end and returns the other.
fn terminal(command: &mut Command, size: Size) -> Result<File> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let ours = rustix::pty::openpt(flags | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags | OpenptFlags::CLOEXEC)?;
    resize(&ours, size)?;
    command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    Ok(File::from(ours))
}

fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).map_err(Into::into)
}

/// Reaps whatever ends, as an init process must, until the command is among it.
fn reap(command: i32, ended: &OwnedFd) -> Result<End> {
    let end = loop {
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else {
            continue;
        };
        if pid.as_raw_nonzero().get() != command {
            continue;
        }
        if let Some(code) = status.exit_status() {
            break End::Exited(code);
        }
        if let Some(signal) = status.terminating_signal() {
            break End::Signaled(signal);
        }
    };
    rustix::io::write(ended, &1u64.to_ne_bytes())?;
    Ok(end)
}

/// Forwards in both directions until the command has ended and nothing is left to read.
fn forward(
    port: &mut File,
    kernel_log: &File,
    mut outputs: Vec<Output>,
    terminal: Option<&File>,
    ended: &OwnedFd,
) -> Result<()> {
    let mut buffer = vec![0; wire::MAX_PAYLOAD];
    let mut input = Decoder::default();
    loop {
        outputs.retain(|output| output.open);
        let mut ready: VecDeque<PollFlags> = {
            let mut polled = vec![
                PollFd::new(ended, PollFlags::IN),
                PollFd::new(kernel_log, PollFlags::IN),
            ];
            polled.extend(outputs.iter().map(|o| PollFd::new(&o.from, PollFlags::IN)));
            if terminal.is_some() {
                polled.push(PollFd::new(port, PollFlags::IN));
            }
            event::poll(&mut polled, None)?;
            polled.iter().map(PollFd::revents).collect()
        };
        let mut take = || ready.pop_front().is_some_and(|flags| !flags.is_empty());
        let over = take();
        let mut quiet = true;
        if take() {
            quiet = false;
            forward_kernel_log(port, kernel_log, &mut buffer)?;
        }
        for output in &mut outputs {
            if take() {
                quiet = false;
                // EIO is how a pseudo-terminal says that nobody is left at the other end.
                match output.from.read(&mut buffer) {
                    Ok(0) | Err(_) => output.open = false,
                    Ok(length) => (output.frame)(buffer[..length].to_vec()).write(port)?,
                }
            }
        }
        if let Some(mut terminal) = terminal {
            if take() {
                let length = port.read(&mut buffer)?;
                input.push(&buffer[..length]);
                while let Some(frame) = input.next_frame().map_err(anyhow::Error::msg)? {
                    match frame {
                        Frame::Input(bytes) => terminal.write_all(&bytes)?,
                        Frame::Resized(size) => resize(terminal, size)?,
                        other => bail!("the lab sent {other:?}"),
                    }
                }
            }
        }
        if over && quiet {
            return Ok(());
        }
    }
}

/// Answers what the lab asks after the command has ended.
fn answer(port: &mut File) -> Result<()> {
    let mut buffer = [0; 64];
    let mut questions = Decoder::default();
    loop {
        while let Some(frame) = questions.next_frame().map_err(anyhow::Error::msg)? {
            if frame != Frame::FindLeaks {
                bail!("the lab sent {frame:?}");
            }
            // A kernel that has lost its ability to look is not one without leaks.
            let leaks = leaks().unwrap_or_else(|error| format!("{error:#}"));
            // A frame's worth is more than anybody reads; no character has more than four bytes.
            let leaks = leaks.chars().take(wire::MAX_PAYLOAD / 4).collect();
            Frame::Leaks(leaks).write(port)?;
        }
        let length = port.read(&mut buffer)?;
        questions.push(&buffer[..length]);
    }
}

/// Looks for memory that nothing refers to, if this kernel can do that.
fn leaks() -> Result<String> {
    const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
    /// What is younger is not reported (`MSECS_MIN_AGE` in mm/kmemleak.c).
    const AGE: Duration = Duration::from_secs(5);
    if !Path::new(KMEMLEAK).exists() {
        return Ok(String::new());
    }
    let scan = || fs::write(KMEMLEAK, "scan").context("kmemleak cannot scan");
    let start = Instant::now();
    // What has changed since the last scan is not reported either, and all that is new has.
    scan()?;
    thread::sleep(AGE.saturating_sub(start.elapsed()));
    scan()?;
    fs::read_to_string(KMEMLEAK).context("kmemleak cannot be read")
}

fn forward_kernel_log(port: &mut File, mut log: &File, buffer: &mut [u8]) -> Result<()> {
    loop {
        match log.read(buffer) {
            Ok(length) => {
                let record = String::from_utf8_lossy(&buffer[..length]).into_owned();
                Frame::Kernel(record).write(port)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // Records were overwritten before they were read; the next read goes on after them.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("cannot read /dev/kmsg"),
        }
    }
}
