// SPDX-License-Identifier: MIT OR Apache-2.0

//! QEMU's monitor: the few commands of the QEMU Machine Protocol that the lab says.
//!
//! The protocol's own types come from `qapi-spec`. Those of the commands are here, because the crate
//! that has them has all of QEMU's, and takes longer to compile than all else of the tool.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use qapi_spec::Command;
use qapi_spec::Empty;
use qapi_spec::Execute;
use qapi_spec::Never;
use qapi_spec::Response;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

/// A connection to the monitor.
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Waits for QEMU's greeting, and begins to give commands.
    ///
    /// # Errors
    ///
    /// If QEMU ends instead, or stays silent for longer than the stream's limit.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        let greeting = monitor.message().context("there is no greeting")?;
        ensure!(
            greeting.get("QMP").is_some(),
            "this is no greeting: {greeting}"
        );
        monitor.execute(&Capabilities {})?;
        Ok(monitor)
    }

    /// Gives a command, and waits for what comes of it.
    pub fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok> {
        self.send(command)?;
        loop {
            let message = self.message()?;
            if message.get("event").is_none() {
                let response: Response<C::Ok> = serde_json::from_value(message)?;
                return response.result().map_err(|error| anyhow!("{error}"));
            }
        }
    }

    /// Gives a command, without an interest in what comes of it.
    pub fn send<C: Command>(&mut self, command: &C) -> Result<()> {
        let mut line = serde_json::to_vec(&Execute::<&C, Never>::with_command(command))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        Ok(())
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(!line.is_empty(), "QEMU has closed its monitor");
        serde_json::from_str(&line).with_context(|| format!("QEMU says “{}”", line.trim_end()))
    }
}

/// Says how a command is called, and what comes of it.
macro_rules! command {
    ($type:ty, $name:literal, $ok:ty) => {
        impl Command for $type {
            type Ok = $ok;
            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }
    };
}

/// Ends the negotiation that a connection begins with.
#[derive(Serialize)]
struct Capabilities {}
command!(Capabilities, "qmp_capabilities", Empty);

/// Asks what the machine does.
#[derive(Serialize)]
pub struct QueryStatus {}
command!(QueryStatus, "query-status", Status);

/// What the machine does.
#[derive(Deserialize)]
pub struct Status {
    /// One of `RunState` of QEMU's qapi/run-state.json.
    pub status: String,
}

/// Stops the machine.
#[derive(Serialize)]
pub struct Stop {}
command!(Stop, "stop", Empty);

/// Lets it run.
#[derive(Serialize)]
pub struct Cont {}
command!(Cont, "cont", Empty);

/// Ends QEMU.
#[derive(Serialize)]
pub struct Quit {}
command!(Quit, "quit", Empty);

/// Says how migrations are to go.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrateSetParameters {
    /// Bytes a second.
    pub max_bandwidth: u64,
}
command!(MigrateSetParameters, "migrate-set-parameters", Empty);

/// Starts to write the machine's state.
#[derive(Serialize)]
pub struct Migrate {
    /// Where to.
    pub uri: String,
}
command!(Migrate, "migrate", Empty);

/// Asks how far that is.
#[derive(Serialize)]
pub struct QueryMigrate {}
command!(QueryMigrate, "query-migrate", Migration);

/// How far that is.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// One of `MigrationStatus` of QEMU's qapi/migration.json.
    pub status: Option<String>,
    /// Why it has failed.
    pub error_desc: Option<String>,
}

/// Connects to what has a device's other half.
#[derive(Serialize)]
pub struct ChardevAdd<'a> {
    /// What the connection is called from now on.
    pub id: &'a str,
    /// Where it leads.
    pub backend: Backend<'a>,
}
command!(ChardevAdd<'_>, "chardev-add", Value);

/// Where a connection leads.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Backend<'a> {
    /// To a socket.
    Socket {
        /// Which one.
        addr: Address<'a>,
        /// Whether others connect to it.
        server: bool,
    },
}

/// A socket.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Address<'a> {
    /// In the file system.
    Unix {
        /// Where.
        path: &'a Path,
    },
}

/// Plugs a device into the machine.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceAdd<'a> {
    /// What kind of device.
    pub driver: &'a str,
    /// What it is called from now on.
    pub id: &'a str,
    /// Its connection, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chardev: Option<&'a str>,
    /// The guest's number, for vsock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_cid: Option<u32>,
}
command!(DeviceAdd<'_>, "device_add", Empty);

/// Asks the guest to let go of a device, which is gone some time later.
#[derive(Serialize)]
pub struct DeviceDel<'a> {
    /// Which one.
    pub id: &'a str,
}
command!(DeviceDel<'_>, "device_del", Empty);

/// Asks what something of the machine is made of.
#[derive(Serialize)]
pub struct QomList<'a> {
    /// Where it is in QEMU's tree.
    pub path: &'a str,
}
command!(QomList<'_>, "qom-list", Vec<Property>);

/// A part of it.
#[derive(Deserialize)]
pub struct Property {
    /// What it is called.
    pub name: String,
}

/// Asks how far a virtio device is. QEMU calls the command unstable.
#[derive(Serialize)]
pub struct QueryVirtioStatus<'a> {
    /// Where it is in QEMU's tree.
    pub path: &'a str,
}
command!(QueryVirtioStatus<'_>, "x-query-virtio-status", Virtio);

/// What a virtio device is like.
#[derive(Deserialize)]
pub struct Virtio {
    status: DeviceStatus,
}

impl Virtio {
    /// Whether the guest's driver is ready for it, and the device knows.
    pub fn is_driven(&self) -> bool {
        let mut names = self.status.statuses.iter();
        names.any(|name| name.starts_with("VIRTIO_CONFIG_S_DRIVER_OK"))
    }
}

/// The device status field of virtio's specification.
#[derive(Deserialize)]
struct DeviceStatus {
    /// The names of the bits that are set, with explanations.
    statuses: Vec<String>,
}

/// Writes a part of the machine's memory to a file.
#[derive(Serialize)]
pub struct Pmemsave<'a> {
    /// The physical address.
    pub val: u64,
    /// How many bytes.
    pub size: u64,
    /// The file.
    pub filename: &'a Path,
}
command!(Pmemsave<'_>, "pmemsave", Empty);

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

    /// A monitor at whose other end these lines have been said.
    fn monitor(lines: &[&str]) -> (Result<Monitor>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        for line in lines {
            writeln!(theirs, "{line}").expect("the socket takes it");
        }
        theirs
            .shutdown(std::net::Shutdown::Write)
            .expect("it is connected");
        (Monitor::new(ours), theirs)
    }

    #[test]
    fn commands_are_answered_whatever_happens_in_between() {
        let (monitor, theirs) = monitor(&[
            GREETING,
            r#"{"return": {}}"#,
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#,
            r#"{"return": {"status": "paused", "running": false}}"#,
            r#"{"error": {"class": "GenericError", "desc": "no room"}}"#,
        ]);
        let mut monitor = monitor.expect("it greets");
        let status = monitor.execute(&QueryStatus {}).expect("it answers");
        assert_eq!(status.status, "paused");
        let refused = monitor.execute(&MigrateSetParameters { max_bandwidth: 7 });
        let error = refused.expect_err("it is refused").to_string();
        assert!(error.contains("no room"), "{error}");
        let lines: Vec<_> = BufReader::new(theirs).lines().take(3).collect();
        let last = lines[2].as_ref().expect("a line");
        assert_eq!(
            last,
            r#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":7}}"#
        );
    }

    #[test]
    fn who_does_not_greet_is_refused() {
        for lines in [&[][..], &["hello"], &[r#"{"return": {}}"#]] {
            assert!(monitor(lines).0.is_err(), "{lines:?}");
        }
    }
}
