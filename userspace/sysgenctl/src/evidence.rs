// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gathers what [`crate::why`] draws its conclusions from.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::SystemTime;

use sysgenid::GENERATION_NODE;
use sysgenid::ID_NODE;

use crate::configuration::Configuration;
use crate::configuration::Includes;
use crate::copies::Search;
use crate::openssl::CONFIGURATION;
use crate::openssl::Installed;
use crate::openssl::PROVIDER;
use crate::openssl::State;
use crate::process::Mapping;
use crate::process::Process;
use crate::process::read_some;
use crate::why::Contents;
use crate::why::Evidence;
use crate::why::Node;
use crate::why::Source;
use crate::why::System;
use crate::why::Unit;

/// The sections of Node.js, and of all others.
const NODE_JS: &str = "nodejs_conf";
const ALL: &str = "openssl_conf";
/// Where the system's configuration is taken to be where nobody can be asked.
const CNF: &str = "/etc/ssl/openssl.cnf";
/// Who may open a node for reading and writing: all.
const BY_ALL: u32 = 0o006;

/// Looks at processes, and remembers what holds for many of them.
pub struct Investigator {
    pub system: System,
    /// The system's configuration of OpenSSL.
    configuration: PathBuf,
    /// It switches the provider on.
    is_on: bool,
    /// The numbers of the devices.
    generation: Option<u64>,
    id: Option<u64>,
    search: Search,
    units: HashMap<String, Option<Unit>>,
}

impl Investigator {
    pub fn new() -> Self {
        let generation = number("sysgenid");
        let id = number("vmgenid");
        let place = match Installed::find() {
            Installed::Fit(place) => Some(place),
            Installed::NoProgram | Installed::Unfit(_) => None,
        };
        // The node is made when the driver is loaded. What is in sysfs has the time at which somebody
        // looked.
        let since = fs::metadata(GENERATION_NODE).and_then(|found| found.modified());
        Self {
            system: System {
                device: generation.is_some(),
                id: id.is_some(),
                driver_since: since.ok(),
                provider: place.as_ref().map(crate::openssl::Place::provider),
            },
            is_on: place.is_some() && matches!(State::under(None), State::On(_) | State::Blind(_)),
            configuration: place.map_or_else(|| CNF.into(), |place| place.configuration),
            generation,
            id,
            search: Search::new(),
            units: HashMap::new(),
        }
    }

    /// What there is to see of a process. An error is that it may not be looked at, or is gone.
    pub fn evidence(&mut self, process: &Process) -> io::Result<Evidence> {
        let mappings = process.mappings()?;
        let copies = self.search.copies(process, &mappings);
        if copies.is_empty() {
            return Ok(Evidence::default());
        }
        let secure = process.is_secure()?;
        let program = process.program()?;
        let node_js = is_node_js(&program, &mappings);
        let id = maps(process, &mappings, Path::new(ID_NODE), self.id)
            || self.id.is_some_and(|id| process.holds(id).unwrap_or(false));
        Ok(Evidence {
            copies,
            generation: maps(
                process,
                &mappings,
                Path::new(GENERATION_NODE),
                self.generation,
            ),
            id,
            provider: mappings.iter().any(is_provider),
            node: self.node(process),
            finds_provider: self
                .system
                .provider
                .as_ref()
                .and_then(|path| process.finds(path).ok()),
            secure,
            configuration: self.configuration(process, secure, node_js)?,
            node_js,
            started: process.started(),
            unit: process.unit().and_then(|name| self.unit(&name)),
            confinement: process.confinement(),
        })
    }

    /// What is by the name of the device where the process looks.
    fn node(&self, process: &Process) -> Option<Node> {
        match process.node(Path::new(GENERATION_NODE)) {
            Ok((number, mode)) if Some(number) == self.generation => {
                Some(if mode & BY_ALL == BY_ALL {
                    Node::There
                } else {
                    Node::Closed
                })
            }
            Ok(_) => Some(Node::Missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Node::Missing),
            Err(_) => None,
        }
    }

    fn configuration(&self, process: &Process, secure: bool, node_js: bool) -> io::Result<Source> {
        let named = process.variable(CONFIGURATION)?.filter(|_| !secure);
        let (path, is_named) = match named {
            // Node.js takes an empty one for none.
            Some(path) if path.is_empty() && !node_js => return Ok(Source::Nothing),
            Some(path) if !path.is_empty() => (PathBuf::from(path), true),
            _ => (self.configuration.clone(), false),
        };
        let mut contents = contents(process, &path, node_js);
        // Of the system's own one OpenSSL knows more: it reads what that includes.
        if !is_named && !node_js && self.is_on && process.has_our_root() {
            let changed = fs::metadata(&path).and_then(|found| found.modified());
            contents = Contents::On(changed.ok());
        }
        Ok(Source::File {
            path,
            is_named,
            contents,
        })
    }

    /// What systemd says of a unit.
    fn unit(&mut self, name: &str) -> Option<Unit> {
        let ask = || {
            let properties = "--property=PrivateDevices,DevicePolicy,DeviceAllow";
            systemctl(&["show", properties, "--", name]).map(|text| unit(name, &text))
        };
        self.units
            .entry(name.to_owned())
            .or_insert_with(ask)
            .clone()
    }
}

/// All processes of a unit.
pub fn of_unit(name: &str) -> io::Result<Vec<Process>> {
    let said = systemctl(&["show", "--property=ControlGroup", "--value", "--", name]);
    let group = said.unwrap_or_default();
    let group = group.trim();
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let mut processes = Process::all()?;
    processes.retain(|process| {
        process.control_group().is_some_and(|own| {
            own.strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    });
    Ok(processes)
}

/// What systemctl says, if systemd runs this system.
fn systemctl(arguments: &[&str]) -> Option<String> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let output = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn unit(name: &str, text: &str) -> Unit {
    let value = |key: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
    };
    // A list of devices closes what is open otherwise.
    let allowed = value("DeviceAllow");
    let is_closed = matches!(value("DevicePolicy"), "closed" | "strict") || !allowed.is_empty();
    Unit {
        name: name.into(),
        private_devices: value("PrivateDevices") == "yes",
        closed: is_closed && !allowed.contains(GENERATION_NODE) && !allowed.contains("char-misc"),
    }
}

/// The number of a device of the driver's.
fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/class/misc/{name}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(
        major.parse().ok()?,
        minor.parse().ok()?,
    ))
}

/// Whether the process has mapped that device. Where the kernel does not let us ask, its name tells.
fn maps(process: &Process, mappings: &[Mapping], node: &Path, number: Option<u64>) -> bool {
    let name = node.file_name().unwrap_or(OsStr::new(""));
    let mut named = mappings
        .iter()
        .filter(|mapping| mapping.path.file_name() == Some(name));
    named.any(|mapping| match (process.device_of(mapping), number) {
        (Ok(device), Some(number)) => device == Some(number),
        _ => mapping.path == node,
    })
}

/// Whether that is the provider: of what is called so, the one that lies among OpenSSL's modules.
fn is_provider(mapping: &Mapping) -> bool {
    let directory = mapping.path.parent().and_then(Path::file_name);
    mapping.path.file_stem() == Some(OsStr::new(PROVIDER))
        && mapping.path.extension() == Some(OsStr::new("so"))
        && directory.is_some_and(|name| name.to_string_lossy().contains("modules"))
}

fn is_node_js(program: &Path, mappings: &[Mapping]) -> bool {
    let name = program.file_name().unwrap_or_default();
    name == "node"
        || name == "nodejs"
        || mappings
            .iter()
            .any(|mapping| mapping.file_name().starts_with(b"libnode.so"))
}

/// What a configuration does for the process, which sees it by that path.
fn contents(process: &Process, path: &Path, node_js: bool) -> Contents {
    let read = || -> io::Result<(Vec<u8>, Option<SystemTime>)> {
        let file = process.open_path(path)?;
        Ok((read_some(&file)?, file.metadata()?.modified().ok()))
    };
    match read() {
        Err(error) => Contents::Unreadable(error.to_string()),
        // What it includes is found by another root, or by another's rights.
        Ok((text, changed)) => match Configuration::parse(&text, path, Includes::PassOver) {
            Err(strange) => Contents::Unreadable(strange.to_string()),
            Ok(found) if switches_on(&found, if node_js { NODE_JS } else { ALL }) => {
                Contents::On(changed)
            }
            Ok(_) => Contents::Off,
        },
    }
}

/// Whether it activates the provider and chooses it, by that key.
fn switches_on(found: &Configuration, key: &str) -> bool {
    let value = |section: &str, key: &str| Some(found.value(section, key)?.text.as_str());
    let is_on = || {
        let init = value(crate::configuration::DEFAULT, key)?;
        let own = value(value(init, "providers")?, PROVIDER)?;
        let wish = value(value(init, "random")?, "properties")?;
        let is_wanted = wish
            .split(',')
            .any(|wish| wish.trim().trim_start_matches('?') == format!("provider={PROVIDER}"));
        Some(value(own, "activate").is_some() && is_wanted)
    };
    is_on().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP_IN: &str = include_str!("../../openssl-provider/sysgenid.cnf");

    fn is_on(text: &str, key: &str) -> bool {
        let found = Configuration::parse(text.as_bytes(), Path::new("/x"), Includes::PassOver);
        switches_on(&found.expect("it is understood"), key)
    }

    #[test]
    fn the_drop_in_switches_it_on_for_all() {
        assert!(is_on(DROP_IN, ALL) && is_on(DROP_IN, NODE_JS));
        for line in [
            "random = sysgenid_random",
            "sysgenid = sysgenid_sect",
            "activate = 1",
        ] {
            let without = DROP_IN.replace(line, "");
            assert!(!is_on(&without, ALL) && !is_on(&without, NODE_JS), "{line}");
        }
        let without = DROP_IN.replace("nodejs_conf", "#");
        assert!(is_on(&without, ALL) && !is_on(&without, NODE_JS));
    }

    #[test]
    fn what_systemctl_says_of_a_unit_is_understood() {
        let of = |private: &str, policy: &str, allow: &str| {
            let text = format!("PrivateDevices={private}\nDevicePolicy={policy}\n{allow}");
            let unit = unit("x.service", &text);
            (unit.private_devices, unit.closed)
        };
        assert_eq!(of("no", "auto", ""), (false, false));
        assert_eq!(of("yes", "closed", ""), (true, true));
        assert_eq!(of("no", "strict", ""), (false, true));
        assert_eq!(of("no", "auto", "DeviceAllow=/dev/rtc r\n"), (false, true));
        assert_eq!(
            of("yes", "closed", "DeviceAllow=/dev/sysgenid rw\n"),
            (true, false)
        );
    }

    #[test]
    fn the_provider_and_node_js_are_known_by_their_files() {
        let mapping = |path: &str| {
            let line = format!("1-2 r-xp 0 0:1 2 {path}");
            let found = Mapping::parse(line.as_bytes());
            found.expect("it is one")
        };
        assert!(is_provider(&mapping(
            "/usr/lib/x86_64-linux-gnu/ossl-modules/sysgenid.so"
        )));
        assert!(!is_provider(&mapping(
            "/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so"
        )));
        assert!(!is_provider(&mapping("/tmp/sysgenid.so")));
        assert!(is_node_js(Path::new("/usr/bin/node"), &[]));
        assert!(is_node_js(
            Path::new("/usr/bin/x"),
            &[mapping("/usr/lib/libnode.so.115")]
        ));
        assert!(!is_node_js(Path::new("/usr/bin/x"), &[]));
    }
}
