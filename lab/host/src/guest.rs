// SPDX-License-Identifier: MIT OR Apache-2.0

//! Follows a guest: what its command writes, what its kernel reports, and how it ends.

use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use wire::Decoder;
use wire::End;
use wire::Frame;

use crate::machine::Machine;
use crate::port::Spoken;
use crate::report::Watch;
use crate::say;

/// What a run exits with when the lab itself fails, or the kernel reports a problem.
pub const FAILED: u8 = 125;
/// What a run exits with when it is ended at the limit.
pub const LIMIT_REACHED: u8 = 124;
/// What a run exits with when the command cannot be started, as a shell does.
pub const NOT_STARTED: u8 = 127;

/// Which of its outputs a command wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a command writes.
pub trait Sink: Send {
    /// Takes some bytes; they may end in the middle of a line.
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()>;

    /// Takes what the lab says of how the guest ended; more lines than one if it has something to
    /// show.
    fn remark(&mut self, remark: &str) {
        say::say(remark);
    }

    /// Takes what a program at one of the machine's ports has said.
    fn spoken(&mut self, spoken: Spoken) -> Result<()> {
        for line in spoken.output.lines() {
            let line = format!("{}| {line}\n", spoken.port);
            self.take(Source::Stdout, line.as_bytes())?;
        }
        Ok(())
    }
}

/// Why following a guest stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// init is up, and waits for its job; for so long the machine has been up, by its own clock.
    Waiting(Duration),
    /// The command starts.
    Started,
    /// The command wrote the line `READY`.
    Ready,
    /// The command ended.
    Ended(End),
    /// The kernel has looked for leaked memory.
    Searched,
    /// The machine is gone, and nobody asked it to.
    Gone,
    /// The limit was reached.
    Limit,
}

/// Follows one guest. A clone's follower is a copy of its original's, because a saved machine
/// may have stopped in the middle of a message.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    decoder: Decoder,
    line: Vec<u8>,
    kernel: Watch,
}

impl Follower {
    /// Reads until something happens that the lab acts on. `READY` is looked for only when
    /// `ready` says so.
    pub fn follow(
        &mut self,
        mut channel: &UnixStream,
        limit: Instant,
        ready: bool,
        sink: &mut dyn Sink,
    ) -> Result<Stop> {
        let mut buffer = vec![0; wire::MAX_PAYLOAD];
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(anyhow::Error::msg)? {
                match frame {
                    Frame::Waiting(uptime) => return Ok(Stop::Waiting(uptime)),
                    Frame::Started => return Ok(Stop::Started),
                    Frame::Ended(end) => return Ok(Stop::Ended(end)),
                    Frame::Kernel(record) => self.kernel.record(&record),
                    Frame::Remark(remark) => sink.remark(&remark),
                    Frame::Leaks(leaks) => {
                        self.kernel.leaks(&leaks);
                        return Ok(Stop::Searched);
                    }
                    Frame::Stderr(bytes) => sink.take(Source::Stderr, &bytes)?,
                    Frame::Stdout(bytes) => {
                        sink.take(Source::Stdout, &bytes)?;
                        if ready && self.says_ready(&bytes) {
                            return Ok(Stop::Ready);
                        }
                    }
                    other @ (Frame::Files(_)
                    | Frame::Begin(_)
                    | Frame::Input(_)
                    | Frame::Resized(_)
                    | Frame::FindLeaks) => bail!("the guest sent {other:?}"),
                }
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Stop::Limit);
            }
            channel.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match channel.read(&mut buffer) {
                Ok(0) => return Ok(Stop::Gone),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Stop::Gone);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has a guest whose command has ended look for leaked memory, if its kernel can. What it finds
    /// is a report of the kernel. A run that has one already has failed, and is not searched.
    pub fn find_leaks(
        &mut self,
        mut channel: &UnixStream,
        limit: Instant,
        sink: &mut dyn Sink,
    ) -> Result<Stop> {
        if self.kernel.found().is_some() {
            return Ok(Stop::Searched);
        }
        Frame::FindLeaks.write(&mut channel)?;
        self.follow(channel, limit, false, sink)
    }

    fn says_ready(&mut self, bytes: &[u8]) -> bool {
        let mut said = false;
        for &byte in bytes {
            if byte == b'\n' {
                said |= self.line == b"READY";
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
        said
    }

    /// Turns the end of a guest into what the lab exits with, and says what there is to say.
    /// `name` tells one of several guests apart.
    pub fn conclude(
        &mut self,
        machine: &Machine,
        stop: &Stop,
        name: &str,
        sink: &mut dyn Sink,
    ) -> u8 {
        let mut remark = |text: &str| {
            let of = if name.is_empty() { "" } else { ": " };
            sink.remark(&format!("{name}{of}{text}"));
        };
        // A kernel that died or hangs may have said why on its console only.
        if matches!(stop, Stop::Gone | Stop::Limit) && self.kernel.found().is_none() {
            self.kernel.console(&machine.console());
        }
        if let Some(report) = self.kernel.found() {
            let report = shown(report);
            remark(&format!("the kernel reports a problem:{report}"));
            return FAILED;
        }
        match stop {
            Stop::Ended(End::Exited(status)) => u8::try_from(*status).unwrap_or(FAILED),
            Stop::Ended(End::Signaled(signal)) => {
                remark(&format!("the command was killed by signal {signal}"));
                128_u8.saturating_add(u8::try_from(*signal).unwrap_or(127))
            }
            Stop::Ended(End::NotStarted(why)) => {
                remark(why);
                NOT_STARTED
            }
            Stop::Limit => {
                let tail = console_tail(machine);
                remark(&format!(
                    "the limit is reached; the console ends with:{tail}"
                ));
                LIMIT_REACHED
            }
            Stop::Gone => {
                let tail = console_tail(machine);
                remark(&format!(
                    "the machine stopped by itself; the console ends with:{tail}"
                ));
                FAILED
            }
            Stop::Waiting(_) | Stop::Started | Stop::Ready | Stop::Searched => FAILED,
        }
    }
}

/// The last lines of the console.
fn console_tail(machine: &Machine) -> String {
    let console = machine.console();
    let lines: Vec<_> = console.lines().collect();
    shown(&lines[lines.len().saturating_sub(20)..])
}

/// Lines that are shown below a remark.
fn shown(lines: &[impl AsRef<str>]) -> String {
    lines
        .iter()
        .fold(String::new(), |all, line| all + "\n  " + line.as_ref())
}

/// Passes everything on as it comes.
pub struct Through;

impl Sink for Through {
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()> {
        write_out(source, bytes)
    }
}

/// Passes whole lines on, each with a prefix, so that several guests can share a terminal.
pub struct Prefixed {
    prefix: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Prefixed {
    /// Puts `prefix` before each line.
    pub fn new(prefix: String) -> Self {
        Self {
            prefix,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Passes on what is left of lines that never ended.
    pub fn finish(&mut self) -> Result<()> {
        for source in [Source::Stdout, Source::Stderr] {
            if !self.pending(source).is_empty() {
                self.take(source, b"\n")?;
            }
        }
        Ok(())
    }

    fn pending(&mut self, source: Source) -> &mut Vec<u8> {
        match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        }
    }
}

impl Sink for Prefixed {
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()> {
        self.pending(source).extend_from_slice(bytes);
        while let Some(end) = self.pending(source).iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending(source).drain(..=end).collect();
            let mut whole = self.prefix.clone().into_bytes();
            whole.extend(line);
            write_out(source, &whole)?;
        }
        Ok(())
    }
}

/// Keeps what it takes.
#[derive(Default)]
pub struct Kept {
    /// What the lab said of the guest's end.
    pub remarks: String,
    /// Everything that was written to standard output.
    pub stdout: Vec<u8>,
    /// Everything that was written to standard error.
    pub stderr: Vec<u8>,
    /// What came of the programs at its ports.
    pub spoken: Vec<Spoken>,
}

impl Kept {
    /// What was written to standard output, as text.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Sink for Kept {
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()> {
        match source {
            Source::Stdout => self.stdout.extend_from_slice(bytes),
            Source::Stderr => self.stderr.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn remark(&mut self, remark: &str) {
        self.remarks.push_str(remark);
        self.remarks.push('\n');
    }

    fn spoken(&mut self, spoken: Spoken) -> Result<()> {
        self.spoken.push(spoken);
        Ok(())
    }
}

/// One guest writes at a time, so that lines stay whole.
static OUTPUT: Mutex<()> = Mutex::new(());

fn write_out(source: Source, bytes: &[u8]) -> Result<()> {
    let _whole = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    match source {
        Source::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
        }
        Source::Stderr => io::stderr().lock().write_all(bytes)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow_one(frames: &[Frame]) -> (Follower, Stop, Kept) {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        for frame in frames {
            frame.write(&mut theirs).expect("the socket takes it");
        }
        drop(theirs);
        let mut follower = Follower::default();
        let mut kept = Kept::default();
        let limit = Instant::now() + Duration::from_secs(5);
        let stop = follower
            .follow(&ours, limit, true, &mut kept)
            .expect("these are frames");
        (follower, stop, kept)
    }

    #[test]
    fn ready_is_a_line_of_its_own() {
        let out = |text: &str| Frame::Stdout(text.as_bytes().to_vec());
        let (_, stop, kept) = follow_one(&[out("one\nREA"), out("DY\ntwo\n")]);
        assert_eq!(stop, Stop::Ready);
        assert_eq!(kept.stdout, b"one\nREADY\ntwo\n");
        let (_, stop, _) = follow_one(&[out("not READY\nREADY."), out("\n")]);
        assert_eq!(stop, Stop::Gone);
    }

    #[test]
    fn the_limit_ends_a_silent_guest() {
        let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
        let stop = Follower::default().follow(
            &ours,
            Instant::now() + Duration::from_millis(20),
            false,
            &mut Kept::default(),
        );
        assert_eq!(stop.expect("nothing is malformed"), Stop::Limit);
    }
}
