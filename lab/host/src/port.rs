// SPDX-License-Identifier: MIT OR Apache-2.0

//! Virtio-serial ports of a machine, besides the lab's own: at the host's end of each is a program,
//! one for each machine, and so one more for each clone.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::str::FromStr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use uuid::Uuid;

use crate::cache;
use crate::guest::FAILED;
use crate::guest::Sink;
use crate::machine::Origin;

/// A port, and the program at its other end.
#[derive(Clone, Debug)]
pub struct Port {
    /// What the guest knows it by, below /dev/virtio-ports.
    pub name: String,
    /// A line for a shell, whose standard input is the port, for reading and for writing.
    pub command: String,
    /// Where it runs.
    pub directory: PathBuf,
    /// More of its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text
            .split_once('=')
            .ok_or("not a port and a command (NAME=COMMAND)")?;
        if !is_name(name) {
            return Err(format!("“{name}” is no name of a port"));
        }
        Ok(Self {
            name: name.into(),
            command: command.into(),
            directory: cache::from_caller(".".as_ref()),
            environment: Vec::new(),
        })
    }
}

/// Whether a port can be called so, and QEMU takes it for nothing else.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name != wire::PORT && name.bytes().all(is_plain)
}

impl Port {
    /// What QEMU is told of it, which has its own end of it as that descriptor.
    pub fn arguments(&self, fd: i32) -> [String; 4] {
        let device = format!("virtserialport,chardev=port{fd},name={}", self.name);
        [
            "-chardev".into(),
            format!("socket,id=port{fd},fd={fd}"),
            "-device".into(),
            device,
        ]
    }

    /// Starts the program, for a machine with that VM generation ID.
    pub fn start(&self, socket: UnixStream, id: Uuid, origin: Origin<'_>) -> Result<Program> {
        let said = tempfile::tempfile()?;
        let machine = match origin {
            Origin::Boot(_) => "booted",
            Origin::Saved { .. } => "resumed",
        };
        let child = Command::new("sh")
            .args(["-c", &self.command])
            .current_dir(&self.directory)
            .envs(self.environment.iter().map(|(name, path)| (name, path)))
            .env("MACHINE", machine)
            .env("VMGENID", id.to_string())
            .stdin(OwnedFd::from(socket.try_clone()?))
            .stdout(said.try_clone()?)
            .stderr(said.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start the program at the port {}", self.name))?;
        Ok(Program {
            name: self.name.clone(),
            child,
            said,
            _socket: socket,
        })
    }
}

/// A program at a port. It is killed when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    said: File,
    /// So the guest sees the port open for as long as its machine runs, whatever the program does.
    _socket: UnixStream,
}

/// How such a program ended.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// What its port is called.
    pub port: String,
    /// What the lab exits with if nothing else has failed.
    pub status: u8,
    /// All that it has written to standard output and standard error.
    pub output: String,
}

impl Program {
    /// Waits until it has ended by itself, or kills it at the limit.
    fn finish(mut self, limit: Instant) -> Result<Spoken> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= limit {
                break None;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let mut bytes = Vec::new();
        self.said.rewind()?;
        self.said.read_to_end(&mut bytes)?;
        let mut output = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_none() {
            output.push_str("\n# it did not end by itself\n");
        }
        Ok(Spoken {
            port: self.name.clone(),
            status: status.map_or(FAILED, exit_status),
            output,
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// As a shell has it.
fn exit_status(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| 128 + signal);
    let number = status.code().or_else(signal);
    number
        .and_then(|number| u8::try_from(number).ok())
        .unwrap_or(FAILED)
}

/// Waits for programs to end, tells what they have said, and returns the first status that is not
/// zero.
pub fn finish(programs: Vec<Program>, limit: Instant, sink: &mut dyn Sink) -> Result<u8> {
    let mut first = 0;
    for program in programs {
        let spoken = program.finish(limit)?;
        if first == 0 {
            first = spoken.status;
        }
        sink.spoken(spoken)?;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::guest::Kept;

    fn port(command: &str) -> Port {
        format!("org.example.0={command}")
            .parse()
            .expect("it is one")
    }

    fn spoken(command: &str, said: &str, limit: Duration) -> (u8, Spoken) {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let boot = Origin::Boot(Path::new("/initramfs"));
        let program = port(command).start(ours, Uuid::nil(), boot);
        theirs
            .write_all(said.as_bytes())
            .expect("the socket takes it");
        let mut kept = Kept::default();
        let programs = vec![program.expect("there is a shell")];
        let status = finish(programs, Instant::now() + limit, &mut kept);
        let spoken = kept.spoken.pop().expect("there was one");
        (status.expect("nothing fails"), spoken)
    }

    #[test]
    fn the_port_is_its_standard_input() {
        let script = "read line; echo \"$line $MACHINE $VMGENID\"; echo end >&2; exit 3";
        let (status, spoken) = spoken(script, "hello\n", Duration::from_secs(60));
        assert_eq!(status, 3);
        assert_eq!(spoken.port, "org.example.0");
        let id = Uuid::nil();
        assert_eq!(spoken.output, format!("hello booted {id}\nend\n"));
    }

    #[test]
    fn who_does_not_end_is_killed() {
        let (status, spoken) = spoken("cat", "", Duration::from_millis(20));
        assert_eq!(status, FAILED);
        assert!(spoken.output.contains("did not end"), "{}", spoken.output);
    }

    #[test]
    fn ports_have_names() {
        assert_eq!(port("a=b").command, "a=b");
        for wrong in ["x", "=x", "a,b=x", "a b=x"] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
        assert!(format!("{}=x", wire::PORT).parse::<Port>().is_err());
    }
}
