// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a process that has libcrypto does not notice clones, and what to do. Here is only what follows
//! from what; [`crate::evidence`] looks.

use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use serde::Serialize;

use crate::copies::Copy;
use crate::copies::Kind;
use crate::openssl::CONFIGURATION;
use crate::output::plain;

/// The configuration that comes with the provider.
const DROP_IN: &str = "/etc/ssl/sysgenid.cnf";
/// What makes a unit with a `/dev` of its own work.
const UNIT_DROP_IN: &str = "/usr/lib/sysgenid/devices.conf";

/// What holds for all processes.
#[derive(Debug, Default)]
pub struct System {
    /// There is a device.
    pub device: bool,
    /// There is a hypervisor's ID.
    pub id: bool,
    /// Since when the driver runs.
    pub driver_since: Option<SystemTime>,
    /// Where OpenSSL looks for the provider, if that is known.
    pub provider: Option<PathBuf>,
}

/// What was seen of a process.
#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself")]
#[derive(Debug, Default)]
pub struct Evidence {
    pub copies: Vec<Copy>,
    /// It has mapped `/dev/sysgenid`.
    pub generation: bool,
    /// It has mapped `/dev/vmgenid`, or has a descriptor of it.
    pub id: bool,
    /// It has loaded the provider.
    pub provider: bool,
    /// What is by the name of `/dev/sysgenid` where it looks, if that can be seen.
    pub node: Option<Node>,
    /// There is a provider where it looks, if that can be seen.
    pub finds_provider: Option<bool>,
    /// Its program gained rights when it was started.
    pub secure: bool,
    pub configuration: Source,
    /// It is Node.js, which reads other sections.
    pub node_js: bool,
    pub started: Option<SystemTime>,
    pub unit: Option<Unit>,
    /// What confines it.
    pub confinement: Option<String>,
}

/// What is at a name in `/dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    There,
    Missing,
    /// Only some may open it.
    Closed,
}

/// Where its program takes OpenSSL's configuration from.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// None.
    #[default]
    Nothing,
    /// The file that the environment names, or the system's.
    File {
        path: PathBuf,
        is_named: bool,
        contents: Contents,
    },
}

/// What a configuration does for that program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// It switches the provider on, and has been there since.
    On(Option<SystemTime>),
    /// It does not.
    Off,
    /// It cannot be read.
    Unreadable(String),
}

/// What systemd does with the devices of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub private_devices: bool,
    /// Only devices that are listed may be opened, and this one is not.
    pub closed: bool,
}

/// Something that is in the way, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub found: String,
    pub advice: String,
}

/// How it is with a process.
#[derive(Debug, PartialEq, Eq)]
pub enum Protection {
    /// The provider looks at all that there is.
    Whole,
    /// It is there, and something is not as it could be.
    Partial(Vec<Reason>),
    /// Nothing is in its way, and it has not loaded the provider yet.
    NotYet,
    /// There is none.
    None(Vec<Reason>),
}

fn reason(found: impl Into<String>, advice: impl Into<String>) -> Reason {
    Reason {
        found: plain(&found.into()),
        advice: plain(&advice.into()),
    }
}

impl Evidence {
    /// How it is with this process.
    pub fn protection(&self, system: &System) -> Protection {
        if self.generation {
            let lacks = self.lacks(system);
            return if lacks.is_empty() {
                Protection::Whole
            } else {
                Protection::Partial(lacks)
            };
        }
        let mut reasons = self.copies_of_its_own();
        if system.device {
            reasons.extend(self.device());
        } else {
            reasons.push(reason(
                "there is no /dev/sysgenid on this system",
                "mend that first (sysgenctl doctor)",
            ));
        }
        if self.provider {
            reasons.extend(self.idle(system));
        } else if self.copies.iter().any(|copy| copy.kind == Kind::System) || self.node_js {
            reasons.extend(self.not_loaded(system));
        }
        let confined = self.confined(system);
        if reasons.is_empty() && confined.is_none() {
            return Protection::NotYet;
        }
        reasons.extend(confined);
        Protection::None(reasons)
    }

    /// What a process lacks that looks at the generation.
    fn lacks(&self, system: &System) -> Vec<Reason> {
        let mut lacks = self.copies_of_its_own();
        if !self.provider {
            lacks.push(reason(
                "it looks at the generation, and not by the provider",
                "ask its maker whether OpenSSL's generators are reseeded, too",
            ));
        }
        if system.id && !self.id {
            lacks.push(reason(
                "it does not look at the hypervisor's ID, and notices a clone some milliseconds late",
                "let it open /dev/vmgenid (its mode, its container, its unit), and start it again",
            ));
        }
        lacks
    }

    /// Copies that the distribution does not keep up, and the provider was not made for.
    fn copies_of_its_own(&self) -> Vec<Reason> {
        let own = self.copies.iter().filter(|copy| copy.kind != Kind::System);
        let of = |copy: &Copy| {
            let path = copy.path.display();
            let found = match copy.kind {
                Kind::Static => format!("OpenSSL is part of {path}"),
                _ => format!("{path} is an OpenSSL of its own"),
            };
            reason(
                found,
                "it reads a configuration, and looks for modules, where it was built to: use a build \
                 with the distribution's OpenSSL, or start it again in each clone",
            )
        };
        own.map(of).collect()
    }

    /// Why it cannot open the device.
    fn device(&self) -> Option<Reason> {
        let unit = self.unit.as_ref();
        let drop_in = |unit: &Unit| {
            format!(
                "give it the nodes: ln -s {UNIT_DROP_IN} /etc/systemd/system/{}.d/sysgenid.conf (make \
                 the directory first), systemctl daemon-reload, and start it again",
                unit.name
            )
        };
        match (self.node, unit) {
            (Some(Node::Missing), Some(unit)) if unit.private_devices => Some(reason(
                format!("its unit {} has PrivateDevices=yes", unit.name),
                drop_in(unit),
            )),
            (Some(Node::Missing), _) => Some(reason(
                "its /dev has no sysgenid (it is in a container, or has another root)",
                "give it the nodes (docker and podman: --device /dev/sysgenid --device \
                 /dev/vmgenid:/dev/vmgenid:r)",
            )),
            (_, Some(unit)) if unit.closed => Some(reason(
                format!(
                    "its unit {} has a DevicePolicy= that keeps it from the device",
                    unit.name
                ),
                drop_in(unit),
            )),
            (Some(Node::Closed), _) => Some(reason(
                "its /dev/sysgenid is not open to all",
                "look at the mode, which the driver makes 0666",
            )),
            (Some(Node::There) | None, _) => None,
        }
    }

    /// Why the provider, which is loaded, looks at nothing.
    fn idle(&self, system: &System) -> Option<Reason> {
        let is_older = is_before(self.started, system.driver_since);
        if !is_older && (self.device().is_some() || !system.device) {
            return None;
        }
        let found = if is_older {
            "it has the provider, and was started before the driver"
        } else {
            "it has the provider, which looks at nothing"
        };
        Some(reason(found, "start it again"))
    }

    /// Why the provider is not loaded.
    fn not_loaded(&self, system: &System) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.finds_provider == Some(false) {
            let path = system
                .provider
                .as_deref()
                .map(|path| path.display().to_string());
            reasons.push(reason(
                format!("there is no {} where it looks", path.unwrap_or_default()),
                "install the provider there (its container, its root)",
            ));
        }
        reasons.extend(self.configured());
        reasons
    }

    /// Why no configuration switches it on.
    fn configured(&self) -> Option<Reason> {
        let Source::File {
            path,
            is_named,
            contents,
        } = &self.configuration
        else {
            return Some(reason(
                format!("{CONFIGURATION} is empty, so that it has no configuration"),
                format!("set it to {DROP_IN}, or do not set it; and start it again"),
            ));
        };
        let path = path.display();
        let whose = if *is_named {
            format!("{CONFIGURATION} names {path}")
        } else if self.secure {
            format!(
                "its program gained rights when it was started (it is set-user-ID, or has file \
                 capabilities) and ignores {CONFIGURATION}; it has the system's configuration, {path}"
            )
        } else {
            format!("it has the system's configuration, {path}")
        };
        let section = if self.node_js {
            "the provider for Node.js (nodejs_conf)"
        } else {
            "the provider"
        };
        let advice = match (is_named, self.secure) {
            (true, _) => format!(
                "let it name {DROP_IN}, or: sysgenctl openssl enable --config {path}; and start it again"
            ),
            (false, true) => "sysgenctl openssl enable, and start it again".into(),
            (false, false) => format!(
                "sysgenctl openssl enable, or {CONFIGURATION}={DROP_IN} in its environment; and start \
                 it again"
            ),
        };
        match contents {
            Contents::On(changed) => self.older(*changed),
            Contents::Off => Some(reason(
                format!("{whose}, which does not switch on {section}"),
                advice,
            )),
            Contents::Unreadable(why) => Some(reason(
                format!("{whose}, which cannot be read ({why})"),
                advice,
            )),
        }
    }

    fn older(&self, changed: Option<SystemTime>) -> Option<Reason> {
        is_before(self.started, changed).then(|| {
            reason(
                "it was started before its configuration was last changed",
                "start it again",
            )
        })
    }

    fn confined(&self, system: &System) -> Option<Reason> {
        let label = self.confinement.as_ref()?;
        let provider = system.provider.as_ref();
        let provider = provider.map_or("the provider".into(), |path| path.display().to_string());
        Some(reason(
            format!(
                "it is confined ({label}), and that may keep it from the device or the provider"
            ),
            format!(
                "look for denials in the kernel's log, and let it read and map /dev/sysgenid, \
                 /dev/vmgenid and {provider}"
            ),
        ))
    }
}

/// Whether a process was started before something happened, if both are known. The start of a process
/// is known to a second.
fn is_before(started: Option<SystemTime>, happened: Option<SystemTime>) -> bool {
    const SECOND: Duration = Duration::from_secs(1);
    matches!((started, happened), (Some(started), Some(happened)) if started + SECOND <= happened)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> System {
        System {
            device: true,
            id: true,
            driver_since: Some(at(100)),
            provider: Some("/modules/sysgenid.so".into()),
        }
    }

    fn file(path: &str, is_named: bool, contents: Contents) -> Source {
        Source::File {
            path: path.into(),
            is_named,
            contents,
        }
    }

    fn systems(contents: Contents) -> Source {
        file("/etc/ssl/openssl.cnf", false, contents)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn copy(path: &str, kind: Kind) -> Copy {
        Copy {
            path: path.into(),
            kind,
        }
    }

    fn plain_one() -> Evidence {
        Evidence {
            copies: vec![copy("/usr/lib/libcrypto.so.3", Kind::System)],
            node: Some(Node::There),
            finds_provider: Some(true),
            started: Some(at(200)),
            configuration: systems(Contents::On(Some(at(150)))),
            ..Evidence::default()
        }
    }

    fn reasons(evidence: &Evidence, system: &System) -> Vec<Reason> {
        match evidence.protection(system) {
            Protection::None(reasons) => reasons,
            other => panic!("it is {other:?}"),
        }
    }

    /// The only reason.
    fn one(evidence: &Evidence, system: &System) -> (String, String) {
        let mut reasons = reasons(evidence, system);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        let Reason { found, advice } = reasons.remove(0);
        (found, advice)
    }

    #[test]
    fn who_looks_at_all_is_protected() {
        let whole = Evidence {
            generation: true,
            id: true,
            provider: true,
            ..plain_one()
        };
        assert_eq!(whole.protection(&system()), Protection::Whole);
        let lacks = |evidence: Evidence, system: &System| match evidence.protection(system) {
            Protection::Partial(reasons) => reasons.len(),
            other => panic!("it is {other:?}"),
        };
        let without_id = || Evidence {
            generation: true,
            provider: true,
            ..plain_one()
        };
        assert_eq!(lacks(without_id(), &system()), 1);
        let no_id = System {
            id: false,
            ..system()
        };
        assert_eq!(without_id().protection(&no_id), Protection::Whole);
        let by_itself = Evidence {
            provider: false,
            id: true,
            ..without_id()
        };
        assert_eq!(lacks(by_itself, &system()), 1);
        let another = Evidence {
            copies: vec![
                copy("/usr/lib/libcrypto.so.3", Kind::System),
                copy("/opt/app", Kind::Static),
            ],
            id: true,
            ..without_id()
        };
        assert_eq!(lacks(another, &system()), 1);
    }

    #[test]
    fn without_a_device_nobody_is() {
        let none = System {
            device: false,
            ..system()
        };
        let (found, advice) = one(&plain_one(), &none);
        assert!(found.contains("no /dev/sysgenid on this system"), "{found}");
        assert!(advice.contains("sysgenctl doctor"), "{advice}");
    }

    #[test]
    fn a_configuration_has_to_switch_it_on() {
        let with = |configuration| Evidence {
            configuration,
            ..plain_one()
        };
        assert_eq!(plain_one().protection(&system()), Protection::NotYet);
        let (found, advice) = one(&with(systems(Contents::Off)), &system());
        let expected = "it has the system's configuration, /etc/ssl/openssl.cnf, which does not switch \
                        on the provider";
        assert_eq!(found, expected);
        assert!(
            advice.starts_with("sysgenctl openssl enable, or OPENSSL_CONF="),
            "{advice}"
        );
        let (found, advice) = one(&with(file("/own.cnf", true, Contents::Off)), &system());
        assert!(
            found.starts_with("OPENSSL_CONF names /own.cnf, which does not"),
            "{found}"
        );
        assert!(advice.contains("enable --config /own.cnf"), "{advice}");
        let gone = Contents::Unreadable("gone".into());
        let (found, _) = one(&with(file("/own.cnf", true, gone)), &system());
        assert!(found.contains("cannot be read (gone)"), "{found}");
        let (found, _) = one(&with(Source::Nothing), &system());
        assert!(found.contains("is empty"), "{found}");
        let late = Contents::On(Some(at(201)));
        let (found, advice) = one(&with(file("/own.cnf", true, late)), &system());
        assert!(found.contains("before its configuration"), "{found}");
        assert_eq!(advice, "start it again");
    }

    #[test]
    fn gained_rights_make_the_environment_vain() {
        let secure = |contents| Evidence {
            secure: true,
            configuration: systems(contents),
            ..plain_one()
        };
        let (found, advice) = one(&secure(Contents::Off), &system());
        assert!(found.contains("ignores OPENSSL_CONF"), "{found}");
        assert_eq!(advice, "sysgenctl openssl enable, and start it again");
        assert_eq!(
            secure(Contents::On(None)).protection(&system()),
            Protection::NotYet
        );
    }

    #[test]
    fn node_js_reads_other_sections() {
        let node = Evidence {
            node_js: true,
            configuration: file("/own.cnf", true, Contents::Off),
            ..plain_one()
        };
        let (found, _) = one(&node, &system());
        assert!(
            found.ends_with("does not switch on the provider for Node.js (nodejs_conf)"),
            "{found}"
        );
    }

    #[test]
    fn a_node_can_be_missing_closed_or_forbidden_by_the_unit() {
        let with = |node, private_devices, closed| Evidence {
            node: Some(node),
            unit: Some(Unit {
                name: "x.service".into(),
                private_devices,
                closed,
            }),
            ..plain_one()
        };
        let cases = [
            (
                with(Node::Missing, true, true),
                "PrivateDevices=yes",
                "x.service.d",
            ),
            (
                with(Node::Missing, false, false),
                "in a container",
                "--device",
            ),
            (
                with(Node::There, false, true),
                "DevicePolicy=",
                "x.service.d",
            ),
            (with(Node::Closed, false, false), "not open to all", "0666"),
        ];
        for (evidence, found, advice) in cases {
            let said = one(&evidence, &system());
            assert!(
                said.0.contains(found) && said.1.contains(advice),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_provider_can_be_idle_or_missing() {
        let idle = Evidence {
            provider: true,
            ..plain_one()
        };
        assert_eq!(
            one(&idle, &system()).0,
            "it has the provider, which looks at nothing"
        );
        let early = Evidence {
            started: Some(at(99)),
            ..idle
        };
        assert!(
            one(&early, &system())
                .0
                .ends_with("was started before the driver")
        );
        let private = Evidence {
            started: Some(at(200)),
            node: Some(Node::Missing),
            ..early
        };
        assert!(one(&private, &system()).0.contains("has no sysgenid"));
        let missing = Evidence {
            finds_provider: Some(false),
            ..plain_one()
        };
        assert_eq!(
            one(&missing, &system()).0,
            "there is no /modules/sysgenid.so where it looks"
        );
    }

    #[test]
    fn copies_of_its_own_are_named() {
        let own = Evidence {
            copies: vec![
                copy("/opt/x/libcrypto.so.3", Kind::Bundled),
                copy("/opt/app", Kind::Static),
            ],
            ..plain_one()
        };
        let found: Vec<_> = reasons(&own, &system())
            .into_iter()
            .map(|reason| reason.found)
            .collect();
        let expected = [
            "/opt/x/libcrypto.so.3 is an OpenSSL of its own",
            "OpenSSL is part of /opt/app",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn who_is_confined_may_be_so_because_of_that() {
        let confined = Evidence {
            confinement: Some("cupsd (enforce)".into()),
            ..plain_one()
        };
        let (found, advice) = one(&confined, &system());
        assert!(found.contains("(cupsd (enforce))"), "{found}");
        assert!(advice.contains("/modules/sysgenid.so"), "{advice}");
        // It is said beside what else is in the way.
        let both = Evidence {
            configuration: Source::Nothing,
            ..confined
        };
        assert_eq!(reasons(&both, &system()).len(), 2);
    }

    #[test]
    fn names_of_others_command_no_terminal() {
        let own = Evidence {
            copies: vec![copy("/opt/\u{1b}[2J", Kind::Static)],
            ..plain_one()
        };
        assert_eq!(
            reasons(&own, &system())[0].found,
            "OpenSSL is part of /opt/?[2J"
        );
    }
}
