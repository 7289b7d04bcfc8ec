// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl doctor`

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use anstyle::Style;
use serde::Serialize;
use sysgenid::Error;
use sysgenid::ID_NODE;
use sysgenid::IdPage;
use sysgenid::Overseer;
use sysgenid::SysGenId;
use tabwriter::TabWriter;

use crate::absent;
use crate::absent::Facts;
use crate::absent::Reason;
use crate::exit::Failure;
use crate::followers::NO_TEMPLATE;
use crate::followers::Units;
use crate::module::Installed as Module;
use crate::openssl;
use crate::openssl::Installed;
use crate::openssl::Place;
use crate::openssl::State;
use crate::output::BAD;
use crate::output::GOOD;
use crate::output::NOTABLE;
use crate::output::Output;
use crate::output::count;
use crate::output::plain;
use crate::rule::Rule;

/// The configuration that comes with the provider.
const DROP_IN: &str = "/etc/ssl/sysgenid.cnf";
/// Who can read a node: all.
const BY_ALL: u32 = 0o004;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Subject {
    Kernel,
    Driver,
    Generation,
    Vmgenid,
    Rule,
    Units,
    Openssl,
    Provider,
    System,
    DropIn,
    Environment,
}

/// What is to be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is well.
    Ok,
    /// It could be better, or is for somebody else to decide.
    Remark,
    /// It must be mended.
    Fault,
}

impl Verdict {
    /// How it is shown to people.
    pub fn shown(self) -> (Style, &'static str) {
        match self {
            Self::Ok => (GOOD, "ok"),
            Self::Remark => (NOTABLE, "remark"),
            Self::Fault => (BAD, "fault"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    subject: Subject,
    verdict: Verdict,
    found: String,
    /// What to do. There is none where it is well.
    advice: Option<String>,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Nothing must be mended.
    ready: bool,
    findings: Vec<Finding>,
}

impl Subject {
    fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Driver => "driver",
            Self::Generation => "/dev/sysgenid",
            Self::Vmgenid => "/dev/vmgenid",
            Self::Rule => "udev rule",
            Self::Units => "units",
            Self::Openssl => "OpenSSL",
            Self::Provider => "provider",
            Self::System => "openssl.cnf",
            Self::DropIn => "sysgenid.cnf",
            Self::Environment => "OPENSSL_CONF",
        }
    }

    fn ok(self, found: impl Into<String>) -> Finding {
        Finding {
            subject: self,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn remark(self, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Remark,
            advice: Some(advice.into()),
            ..self.ok(found)
        }
    }

    fn fault(self, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Fault,
            ..self.remark(found, advice)
        }
    }
}

/// Looks at everything, and fails if something must be mended.
pub fn run(output: Output) -> Result<(), Failure> {
    let facts = Facts::gather();
    let device = device();
    let mut findings = vec![
        kernel(&facts, device.is_ok()),
        driver(&facts, device.is_ok(), replaced(&facts).as_deref()),
        generation(&device, &facts),
        vmgenid(
            SysGenId::open().as_ref().map(SysGenId::id_page).ok(),
            mode(),
        ),
    ];
    let found = Units::find();
    findings.push(rule(&Rule::find(), found.is_some()));
    findings.push(match found {
        None => no_units(),
        Some(Err(why)) => Subject::Units.fault(
            format!("systemd does not answer ({why})"),
            "look whether it runs: systemctl is-system-running",
        ),
        Some(Ok(found)) => {
            let keeps_identity = Path::new(NO_TEMPLATE).exists();
            units(&found, device.is_ok(), keeps_identity)
        }
    });
    findings.extend(openssl());
    let report = Report::new(findings);
    output.show(&report)?;
    report.result()
}

/// What there is to know of the device.
#[derive(Debug)]
struct Device {
    generation: u32,
    /// What changed it last.
    source: String,
    /// Whether the kernel was reseeded with the hypervisor's ID in it. There may be none.
    reseeded: Option<bool>,
}

fn device() -> Result<Device, Error> {
    let status = Overseer::open()?.status()?;
    Ok(Device {
        generation: status.generation().get(),
        source: status.source().to_owned(),
        reseeded: status.pending().map(|_| status.reseeded()),
    })
}

fn kernel(facts: &Facts, device_is_well: bool) -> Finding {
    if !device_is_well && facts.reason() == Reason::OldKernel {
        let (what, advice) = facts.advice();
        Subject::Kernel.fault(what, advice)
    } else {
        Subject::Kernel.ok(&facts.release)
    }
}

/// The module that would be loaded now, if another one runs.
fn replaced(facts: &Facts) -> Option<PathBuf> {
    // Unpacking it is not worth while where nothing runs.
    let path = absent::installed(&facts.release).filter(|_| facts.loaded)?;
    let module = Module::read(&path).ok()?;
    module.is_another_than_runs().then_some(module.path)
}

fn driver(facts: &Facts, device_is_well: bool, replaced: Option<&Path>) -> Finding {
    if device_is_well || facts.loaded {
        return match replaced {
            None => Subject::Driver.ok("running"),
            Some(path) => Subject::Driver.remark(
                format!(
                    "running, and another build of it is installed ({}), as after an upgrade",
                    path.display()
                ),
                "boot again; or, where nothing uses it: rmmod sysgenid && modprobe sysgenid",
            ),
        };
    }
    match facts.reason() {
        Reason::OldKernel => Subject::Driver.fault("not running", "it needs another kernel"),
        Reason::NoNode
        | Reason::NotLoaded
        | Reason::NotSigned
        | Reason::Signed
        | Reason::NotInstalled => {
            let (what, advice) = facts.advice();
            Subject::Driver.fault(what, advice)
        }
    }
}

fn generation(device: &Result<Device, Error>, facts: &Facts) -> Finding {
    const SUBJECT: Subject = Subject::Generation;
    match device {
        Ok(device) => {
            let found = match device.generation {
                0 => "generation 0, never changed".into(),
                generation => format!("generation {generation}, changed last by {}", device.source),
            };
            if device.reseeded == Some(false) {
                SUBJECT.remark(
                    format!("{found}; the kernel was not reseeded with the hypervisor's ID"),
                    "look at the kernel's log (dmesg), which says why it cannot be made to",
                )
            } else {
                SUBJECT.ok(found)
            }
        }
        Err(Error::NoDevice { .. }) if facts.loaded => {
            let (what, advice) = facts.advice();
            SUBJECT.fault(what, advice)
        }
        Err(Error::NoDevice { .. }) => SUBJECT.fault("not there", "the driver makes it"),
        Err(Error::Forbidden { source, .. }) => SUBJECT.fault(
            format!("may not be opened: {source}"),
            "look at its mode, which the driver makes 0666, and at what confines this process (a \
             container, a sandbox, a security module)",
        ),
        Err(error @ (Error::NotTheDevice { .. } | Error::OldDriver { .. })) => {
            SUBJECT.fault(error.to_string(), "load the module sysgenid in its place")
        }
        Err(error) => SUBJECT.fault(error.to_string(), "look at the kernel's log (dmesg)"),
    }
}

/// The mode of `/dev/vmgenid`.
fn mode() -> Option<u32> {
    let metadata = fs::metadata(ID_NODE).ok()?;
    Some(metadata.permissions().mode() & 0o7777)
}

/// What keeps `/dev/vmgenid` from being read is no fault: who may is the administrator's choice, and
/// whether there is one the hypervisor's.
fn vmgenid(page: Option<&IdPage>, mode: Option<u32>) -> Finding {
    const SUBJECT: Subject = Subject::Vmgenid;
    const LATE: &str = "whose programs notice a clone some milliseconds late";
    const OPEN: &str = "a udev rule opens it to all (KERNEL==\"vmgenid\", MODE=\"0444\")";
    match (page, mode) {
        (None, _) => SUBJECT.remark("not looked at", "mend /dev/sysgenid first"),
        (Some(IdPage::Mapped | IdPage::Read), Some(mode)) if mode & BY_ALL == 0 => SUBJECT.remark(
            format!("readable by this user, and not by others (mode {mode:04o}), {LATE}"),
            OPEN,
        ),
        (Some(IdPage::Mapped | IdPage::Read), _) => {
            SUBJECT.ok("readable, so that a clone is noticed before it does anything")
        }
        (Some(IdPage::Forbidden(_)), _) => {
            SUBJECT.remark(format!("not readable by this user, {LATE}"), OPEN)
        }
        (Some(IdPage::Absent), _) => SUBJECT.remark(
            "absent, so that a clone is noticed some milliseconds late",
            "give this machine a VMGenID device (QEMU: -device vmgenid,guid=auto), without which only \
             an overseer says that it was cloned",
        ),
        (Some(other), _) => SUBJECT.remark(
            match other {
                IdPage::Failed(error) => format!("not usable ({error})"),
                other => format!("not usable ({other:?})"),
            },
            "look at the kernel's log (dmesg)",
        ),
    }
}

/// Where systemd runs, it has to hear of changes, unless the administrator has said that it need not.
fn rule(rule: &Rule, systemd: bool) -> Finding {
    const SUBJECT: Subject = Subject::Rule;
    const WITHOUT: &str = "/dev/vmgenid is for root only, and systemd hears of no change";
    match rule {
        Rule::Installed(path) => SUBJECT.ok(path.display().to_string()),
        Rule::Masked(path) => SUBJECT.remark(
            format!("masked by {}, so that {WITHOUT}", path.display()),
            "remove that file, if this is not what it is for",
        ),
        Rule::Missing => {
            let found = format!("not installed, so that {WITHOUT}");
            let advice = "install it (with make install, or the package sysgenid)";
            if systemd {
                SUBJECT.fault(found, advice)
            } else {
                SUBJECT.remark(found, advice)
            }
        }
    }
}

/// Others than systemd have no units.
fn no_units() -> Finding {
    Subject::Units.remark(
        "systemd does not run here, so that nothing follows a change by itself",
        "have sysgenctl watch --exec run what is to follow one",
    )
}

fn units(units: &Units, device_is_well: bool, keeps_identity: bool) -> Finding {
    const SUBJECT: Subject = Subject::Units;
    if !units.installed {
        return SUBJECT.fault(
            "not installed, so that nothing follows a change by itself",
            "install them (with make install, or the package sysgenid)",
        );
    }
    if units.fenced {
        return SUBJECT.fault(
            "the SSH server is kept from starting, for its host keys were not replaced",
            "journalctl --merge -b -u sysgenid-ssh-host-keys.service says why; and then: systemctl \
             restart sysgenid-ssh-host-keys.service",
        );
    }
    if let [first, ..] = &*units.failed {
        let failed: Vec<_> = units.failed.iter().map(ToString::to_string).collect();
        return SUBJECT.fault(
            failed.join(", "),
            format!(
                "journalctl --merge -b -u {unit} says why; and then: systemctl restart {unit}",
                unit = first.name
            ),
        );
    }
    if units.enabled.is_empty() {
        const NONE: &str = "none that follows a change is enabled";
        return if keeps_identity {
            SUBJECT.remark(
                format!("{NONE}, and {NO_TEMPLATE} says that this machine keeps its identity"),
                "systemctl enable sysgenid-clock.service, if it can be restored from a snapshot",
            )
        } else if units.masked.is_empty() {
            SUBJECT.fault(
                format!(
                    "{NONE}, so that a clone keeps this machine's ID, host keys, addresses and time"
                ),
                format!(
                    "systemctl enable sysgenid-clock.service sysgenid-machine-id.service \
                     sysgenid-ssh-host-keys.service sysgenid-dhcp.service, or those of them that it \
                     needs (sysgenid-changed.target(7)); where it is never cloned: touch {NO_TEMPLATE}"
                ),
            )
        } else {
            SUBJECT.remark(
                format!("{NONE}; masked: {}", units.masked.join(", ")),
                "systemctl unmask them, if they are to follow a change",
            )
        };
    }
    let enabled = format!("enabled: {}", units.enabled.join(", "));
    if units.waits {
        return SUBJECT.ok(format!("systemd waits for a change; {enabled}"));
    }
    let found = format!("systemd does not wait for a change; {enabled}");
    if device_is_well {
        SUBJECT.fault(
            found,
            "udevadm control --reload && udevadm trigger --action=change --name-match=sysgenid",
        )
    } else {
        SUBJECT.remark(found, "mend /dev/sysgenid first")
    }
}

/// What there is to say of OpenSSL.
fn openssl() -> Vec<Finding> {
    let installed = Installed::find();
    let place = match &installed {
        Installed::Fit(place) if place.provider().exists() => place,
        _ => return without_provider(&installed),
    };
    let mut findings = vec![
        Subject::Openssl.ok(&place.version),
        Subject::Provider.ok(place.provider().display().to_string()),
    ];
    findings.extend(configurations(place, &States::ask()));
    findings
}

/// Where the provider cannot be looked at.
fn without_provider(installed: &Installed) -> Vec<Finding> {
    const SUBJECT: Subject = Subject::Openssl;
    match installed {
        Installed::NoProgram => vec![SUBJECT.remark(
            "there is no program openssl to ask about its provider",
            "install it, if programs here use OpenSSL",
        )],
        Installed::Unfit(what) => vec![SUBJECT.remark(
            format!("this one has no providers ({})", plain(what)),
            "programs that use it need OpenSSL 3 to notice clones",
        )],
        Installed::Fit(place) => vec![
            SUBJECT.ok(&place.version),
            Subject::Provider.fault(
                format!(
                    "not installed (there is no {}), so that programs draw the same from OpenSSL in \
                     all clones",
                    place.provider().display()
                ),
                "install it (with make install, or the package that has it)",
            ),
        ],
    }
}

/// What becomes of the provider, by each of several configurations.
#[derive(Debug)]
struct States {
    /// The system's, which all programs have.
    system: State,
    /// The one that comes with the provider, if it is there.
    drop_in: Option<State>,
    /// Another one that the environment names.
    environment: Option<(OsString, State)>,
}

impl States {
    fn ask() -> Self {
        let drop_in = OsStr::new(DROP_IN);
        let environment = env::var_os(openssl::CONFIGURATION).filter(|path| path != drop_in);
        Self {
            system: State::under(None),
            drop_in: Path::new(DROP_IN)
                .exists()
                .then(|| State::under(Some(drop_in))),
            environment: environment.map(|path| {
                let state = State::under(Some(&path));
                (path, state)
            }),
        }
    }
}

fn configurations(place: &Place, states: &States) -> Vec<Finding> {
    let system = place.configuration.display().to_string();
    let is_on = |state: Option<&State>| matches!(state, Some(State::On(_) | State::Blind(_)));
    let system_is_on = is_on(Some(&states.system));
    let drop_in_is_on = is_on(states.drop_in.as_ref());
    let own = states.environment.as_ref();
    let own_is_on = is_on(own.map(|(_, state)| state));

    let mut findings = vec![match &states.system {
        // Which programs are to have it is the administrator's choice.
        State::Off if drop_in_is_on || own_is_on => Subject::System.remark(
            format!(
                "off in {system}, so that only programs that are started with {} have the provider",
                openssl::CONFIGURATION
            ),
            "for all programs: sysgenctl openssl enable",
        ),
        state => under(Subject::System, &system, state),
    }];
    match &states.drop_in {
        Some(state) => {
            let mut finding = under(Subject::DropIn, DROP_IN, state);
            // Nobody needs it.
            if system_is_on && finding.verdict == Verdict::Fault {
                finding.verdict = Verdict::Remark;
            }
            findings.push(finding);
        }
        None if system_is_on || own_is_on => {}
        None => findings.push(Subject::DropIn.fault(
            format!("there is no {DROP_IN}"),
            "install it (with make install, or the package that has the provider)",
        )),
    }
    if let Some((path, state)) = own {
        let path = match plain(&path.to_string_lossy()) {
            // As some write who want none.
            path if path.is_empty() => "no file".into(),
            path => path,
        };
        findings.push(under(Subject::Environment, &path, state));
    }
    findings
}

/// What becomes of the provider under one configuration.
fn under(subject: Subject, path: &str, state: &State) -> Finding {
    match state {
        State::On(said) if said == "on" => subject.ok(format!("on in {path}")),
        State::On(_) => subject.ok(format!("on in {path}, without /dev/vmgenid")),
        State::Blind(said) => subject.fault(
            format!("on in {path}, but looks at nothing ({})", plain(said)),
            "mend /dev/sysgenid first",
        ),
        State::Unused(ours, all) => subject.fault(
            format!("loaded in {path}, but {ours} of {all} generators are its"),
            "name it in the section for random, as sysgenid.cnf does",
        ),
        State::Off => subject.fault(
            format!("off in {path}"),
            format!(
                "sysgenctl openssl enable; if it has the lines already, this says why: openssl list \
                 -providers -provider {}",
                openssl::PROVIDER
            ),
        ),
        State::Broken(said) => subject.fault(
            format!("not known of {path} ({})", plain(said)),
            "mend what that says",
        ),
    }
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        Self {
            ready: findings
                .iter()
                .all(|finding| finding.verdict != Verdict::Fault),
            findings,
        }
    }

    fn of(&self, verdict: Verdict) -> Vec<&'static str> {
        let findings = self.findings.iter();
        let found = findings.filter(|finding| finding.verdict == verdict);
        found.map(|finding| finding.subject.title()).collect()
    }

    /// A failure if something must be mended.
    fn result(&self) -> Result<(), Failure> {
        if self.ready {
            return Ok(());
        }
        Err(Failure::NotReady(format!(
            "this system is not ready for clones; mend: {}",
            self.of(Verdict::Fault).join(", ")
        )))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aligned = || -> std::io::Result<String> {
            let mut lines = TabWriter::new(Vec::new()).ansi(true);
            for finding in &self.findings {
                let (style, word) = finding.verdict.shown();
                write!(
                    lines,
                    "{style}{word}{style:#}\t{}\t{}",
                    finding.subject.title(),
                    finding.found
                )?;
                match &finding.advice {
                    Some(advice) => writeln!(lines, ": {advice}")?,
                    None => writeln!(lines)?,
                }
            }
            let lines = lines
                .into_inner()
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            Ok(String::from_utf8_lossy(&lines).into_owned())
        };
        f.write_str(&aligned().map_err(|_| fmt::Error)?)?;
        if !self.ready {
            return Ok(());
        }
        match self.of(Verdict::Remark).len() {
            0 => writeln!(f, "this system is ready for clones"),
            remarks => writeln!(
                f,
                "this system is ready for clones, with {}",
                count(remarks, "remark", "remarks")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;

    fn facts(release: &str, loaded: bool, installed: bool) -> Facts {
        Facts {
            release: release.into(),
            loaded,
            installed,
            demanded: None,
        }
    }

    fn place() -> Place {
        Place {
            version: "3.5.9".into(),
            modules: "/modules".into(),
            configuration: "/etc/ssl/openssl.cnf".into(),
        }
    }

    fn no_device() -> Error {
        Error::NoDevice {
            node: PathBuf::from("/dev/sysgenid"),
        }
    }

    /// What was found, in short.
    fn short(findings: &[Finding]) -> Vec<(Subject, Verdict)> {
        let short = |finding: &Finding| (finding.subject, finding.verdict);
        findings.iter().map(short).collect()
    }

    #[test]
    fn the_kernel_is_too_old_unless_the_driver_runs_there() {
        let old = facts("6.12.48", false, false);
        let found = kernel(&old, false);
        assert_eq!(found.verdict, Verdict::Fault);
        assert!(found.found.contains("(6.12.48) is too old"), "{found:?}");
        assert_eq!(driver(&old, false, None).verdict, Verdict::Fault);
        // In a container /sys can be missing.
        assert_eq!(kernel(&old, true), Subject::Kernel.ok("6.12.48"));
        assert_eq!(driver(&old, true, None), Subject::Driver.ok("running"));
        for (loaded, installed) in [(true, false), (false, true)] {
            let found = kernel(&facts("6.12.48", loaded, installed), false);
            assert_eq!(found.verdict, Verdict::Ok);
        }
    }

    #[test]
    fn the_driver_is_installed_loaded_or_neither() {
        let advice =
            |loaded, installed| driver(&facts("7.3.4", loaded, installed), false, None).advice;
        assert_eq!(advice(true, true), None);
        assert_eq!(advice(false, true).as_deref(), Some("modprobe sysgenid"));
        let install = advice(false, false).expect("there is something to do");
        assert!(install.starts_with("install it "), "{install}");
    }

    #[test]
    fn an_upgrade_is_told_of() {
        let upgraded = driver(
            &facts("7.3.4", true, true),
            true,
            Some(Path::new("/lib/modules/x/sysgenid.ko")),
        );
        assert_eq!(upgraded.verdict, Verdict::Remark);
        assert!(upgraded.found.contains("(/lib/modules/x/sysgenid.ko)"));
    }

    #[test]
    fn a_rule_is_there_masked_or_neither() {
        let path = PathBuf::from("/etc/udev/rules.d/60-sysgenid.rules");
        let installed = Rule::Installed(path.clone());
        assert_eq!(rule(&installed, true).verdict, Verdict::Ok);
        for (found, systemd, verdict, word) in [
            (Rule::Masked(path), true, Verdict::Remark, "masked by /etc"),
            (Rule::Missing, true, Verdict::Fault, "not installed"),
            (Rule::Missing, false, Verdict::Remark, "not installed"),
        ] {
            let finding = rule(&found, systemd);
            assert_eq!(finding.verdict, verdict);
            assert!(finding.found.starts_with(word), "{finding:?}");
        }
    }

    #[test]
    fn units_wait_or_it_is_said_how_they_are_made_to() {
        use crate::followers::Result;
        use crate::followers::tests::unit;

        let clock = || vec!["sysgenid-clock.service".to_owned()];
        let well = || Units {
            installed: true,
            waits: true,
            enabled: clock(),
            masked: Vec::new(),
            failed: Vec::new(),
            fenced: false,
        };
        let ok = "systemd waits for a change; enabled: sysgenid-clock.service";
        assert_eq!(units(&well(), true, false), Subject::Units.ok(ok));
        let check = |found: &Units, device, keeps, verdict, says: &str, advice: &str| {
            let finding = units(found, device, keeps);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(says), "{finding:?}");
            assert!(finding.advice.expect("it is not well").contains(advice));
        };
        let missing = Units {
            installed: false,
            ..well()
        };
        let asleep = Units {
            waits: false,
            ..well()
        };
        let failed = Units {
            failed: vec![unit("a.service", Result::Failed, Some("timeout"))],
            ..well()
        };
        let fenced = Units {
            fenced: true,
            ..well()
        };
        let none = Units {
            enabled: Vec::new(),
            ..well()
        };
        let unwanted = Units {
            enabled: Vec::new(),
            masked: clock(),
            ..well()
        };
        let fault = Verdict::Fault;
        check(&missing, true, false, fault, "not in", "package sysgenid");
        check(
            &asleep,
            true,
            false,
            fault,
            "does not wait",
            "udevadm trigger",
        );
        check(
            &asleep,
            false,
            false,
            Verdict::Remark,
            "not wait",
            "mend /dev",
        );
        let said = "a.service: failed (timeout)";
        check(
            &failed,
            true,
            true,
            fault,
            said,
            "systemctl restart a.service",
        );
        check(&fenced, true, false, fault, "the SSH server", "host-keys");
        check(
            &none,
            true,
            false,
            fault,
            "none that",
            "systemctl enable sys",
        );
        check(&none, true, true, Verdict::Remark, NO_TEMPLATE, "clock");
        check(
            &unwanted,
            true,
            false,
            Verdict::Remark,
            "masked: s",
            "unmask",
        );
        assert_eq!(no_units().verdict, Verdict::Remark);
    }

    #[test]
    fn the_node_can_be_missing_forbidden_or_another_one() {
        let node = PathBuf::from("/dev/sysgenid");
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let errors = [
            (no_device(), true, "--device /dev/sysgenid"),
            (no_device(), false, "the driver makes it"),
            (
                Error::Forbidden {
                    node: node.clone(),
                    source,
                },
                true,
                "look at its mode",
            ),
            (
                Error::NotTheDevice { node, what: "is" },
                true,
                "load the module",
            ),
            (Error::OldDriver { key: "x" }, true, "load the module"),
            (Error::Changed, true, "dmesg"),
        ];
        for (error, loaded, advice) in errors {
            let found = generation(&Err(error), &facts("7.3.4", loaded, true));
            assert_eq!(found.verdict, Verdict::Fault);
            let said = found.advice.expect("there is something to do");
            assert!(said.contains(advice), "{said}");
        }
        let found = |number, source: &str, reseeded| {
            let device = Device {
                generation: number,
                source: source.into(),
                reseeded,
            };
            generation(&Ok(device), &facts("7.3.4", true, true))
        };
        for reseeded in [Some(true), None] {
            assert_eq!(
                found(0, "none", reseeded),
                Subject::Generation.ok("generation 0, never changed")
            );
            assert_eq!(
                found(7, "vmfork", reseeded),
                Subject::Generation.ok("generation 7, changed last by vmfork")
            );
        }
        let remark = found(7, "page", Some(false));
        assert_eq!(remark.verdict, Verdict::Remark);
        assert!(
            remark.found.contains("by page; the kernel was not"),
            "{remark:?}"
        );
    }

    #[test]
    fn who_sees_the_id_is_a_remark_at_most() {
        let node = PathBuf::from("/dev/vmgenid");
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let well = vmgenid(Some(&IdPage::Mapped), Some(0o444));
        assert_eq!(well.verdict, Verdict::Ok);
        let remarks = [
            (Some(IdPage::Mapped), "(mode 0400)", "MODE=\"0444\""),
            (
                Some(IdPage::Forbidden(Error::Forbidden { node, source })),
                "not readable by this user",
                "MODE=\"0444\"",
            ),
            (Some(IdPage::Absent), "absent", "-device vmgenid"),
            (
                Some(IdPage::Failed(Error::Changed)),
                "not usable (the",
                "dmesg",
            ),
            (None, "not looked at", "mend /dev/sysgenid"),
        ];
        for (page, found, advice) in remarks {
            let remark = vmgenid(page.as_ref(), Some(0o400));
            assert_eq!(remark.verdict, Verdict::Remark);
            assert!(remark.found.contains(found), "{remark:?}");
            let said = remark.advice.expect("there is something to do");
            assert!(said.contains(advice), "{said}");
        }
    }

    #[test]
    fn without_openssl_there_is_a_remark() {
        let found = without_provider(&Installed::NoProgram);
        assert_eq!(short(&found), [(Subject::Openssl, Verdict::Remark)]);
        let found = without_provider(&Installed::Unfit("OpenSSL 1.1.1".into()));
        assert_eq!(short(&found), [(Subject::Openssl, Verdict::Remark)]);
        assert!(found[0].found.contains("OpenSSL 1.1.1"), "{found:?}");
        let found = without_provider(&Installed::Fit(place()));
        assert_eq!(
            short(&found),
            [
                (Subject::Openssl, Verdict::Ok),
                (Subject::Provider, Verdict::Fault)
            ]
        );
        assert!(found[1].found.contains("/modules/sysgenid.so"), "{found:?}");
    }

    #[test]
    fn a_configuration_is_on_off_or_between() {
        let verdict = |state: &State| under(Subject::DropIn, "file", state).verdict;
        assert_eq!(verdict(&State::On("on".into())), Verdict::Ok);
        let late = under(Subject::DropIn, "file", &State::On("on, but".into()));
        assert_eq!(late.verdict, Verdict::Ok);
        assert_eq!(late.found, "on in file, without /dev/vmgenid");
        for state in [
            State::Blind("off: why".into()),
            State::Unused(1, 3),
            State::Off,
            State::Broken("why".into()),
        ] {
            assert_eq!(verdict(&state), Verdict::Fault, "{state:?}");
        }
        let found = under(Subject::DropIn, "file", &State::Blind("off: why".into()));
        assert!(found.found.ends_with("(off: why)"), "{found:?}");
        let found = under(Subject::DropIn, "file", &State::Broken("a\u{1b}b".into()));
        assert!(found.found.ends_with("(a?b)"), "{found:?}");
    }

    #[test]
    fn one_configuration_that_is_on_is_enough() {
        use Subject::DropIn;
        use Subject::Environment;
        use Subject::System;
        use Verdict::Fault;
        use Verdict::Ok;
        use Verdict::Remark;

        let on = || State::On("on".into());
        let found = |system, drop_in, environment: Option<State>| {
            let states = States {
                system,
                drop_in,
                environment: environment.map(|state| ("/own.cnf".into(), state)),
            };
            short(&configurations(&place(), &states))
        };
        assert_eq!(found(on(), None, None), [(System, Ok)]);
        let both = found(on(), Some(on()), None);
        assert_eq!(both, [(System, Ok), (DropIn, Ok)]);
        let unneeded = found(on(), Some(State::Off), None);
        assert_eq!(unneeded, [(System, Ok), (DropIn, Remark)]);
        let by_file = found(State::Off, Some(on()), None);
        assert_eq!(by_file, [(System, Remark), (DropIn, Ok)]);
        let none = found(State::Off, None, None);
        assert_eq!(none, [(System, Fault), (DropIn, Fault)]);
        let off = found(State::Off, Some(State::Off), None);
        assert_eq!(off, [(System, Fault), (DropIn, Fault)]);
        let blind = found(State::Off, Some(State::Blind(String::new())), None);
        assert_eq!(blind, [(System, Remark), (DropIn, Fault)]);
        let broken = found(State::Broken(String::new()), Some(on()), None);
        assert_eq!(broken, [(System, Fault), (DropIn, Ok)]);
        let own = found(State::Off, None, Some(on()));
        assert_eq!(own, [(System, Remark), (Environment, Ok)]);
        // Who asks about a configuration wants to know.
        let own = found(on(), None, Some(State::Off));
        assert_eq!(own, [(System, Ok), (Environment, Fault)]);
    }

    #[test]
    fn an_empty_name_names_no_file() {
        let states = States {
            system: State::Off,
            drop_in: None,
            environment: Some((OsString::new(), State::Off)),
        };
        let found = configurations(&place(), &states);
        let last = found.last().expect("there is one for the environment");
        assert_eq!(last.found, "off in no file");
    }

    fn report(verdict: Verdict) -> Report {
        let other = match verdict {
            Verdict::Ok => Subject::Driver.ok("running"),
            Verdict::Remark => Subject::Vmgenid.remark("absent", "ask for one"),
            Verdict::Fault => Subject::Provider.fault("not installed", "install it"),
        };
        Report::new(vec![Subject::Kernel.ok("7.3.4"), other])
    }

    fn shown(report: &Report) -> String {
        anstream::adapter::strip_str(&report.to_string()).to_string()
    }

    #[test]
    fn people_see_a_line_for_each() {
        let ready = "this system is ready for clones";
        assert_eq!(
            shown(&report(Verdict::Ok)),
            format!("ok  kernel  7.3.4\nok  driver  running\n{ready}\n")
        );
        assert_eq!(
            shown(&report(Verdict::Remark)),
            format!(
                "ok      kernel        7.3.4\nremark  /dev/vmgenid  absent: ask for one\n\
                 {ready}, with 1 remark\n"
            )
        );
        assert_eq!(
            shown(&report(Verdict::Fault)),
            "ok     kernel    7.3.4\nfault  provider  not installed: install it\n"
        );
    }

    #[test]
    fn only_faults_are_failures() {
        assert!(report(Verdict::Ok).result().is_ok());
        assert!(report(Verdict::Remark).result().is_ok());
        let failure = report(Verdict::Fault).result().expect_err("a fault");
        assert_eq!(failure.exit(), crate::exit::Exit::NotReady);
        assert!(failure.to_string().ends_with("mend: provider"));
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = serde_json::to_value(report(Verdict::Fault)).expect("it is plain data");
        let expected = serde_json::json!({
            "ready": false,
            "findings": [{
                "subject": "kernel",
                "verdict": "ok",
                "found": "7.3.4",
                "advice": null,
            }, {
                "subject": "provider",
                "verdict": "fault",
                "found": "not installed",
                "advice": "install it",
            }],
        });
        assert_eq!(json, expected);
        let subjects = [
            (Subject::Kernel, "kernel"),
            (Subject::Driver, "driver"),
            (Subject::Generation, "generation"),
            (Subject::Vmgenid, "vmgenid"),
            (Subject::Rule, "rule"),
            (Subject::Units, "units"),
            (Subject::Openssl, "openssl"),
            (Subject::Provider, "provider"),
            (Subject::System, "system"),
            (Subject::DropIn, "drop_in"),
            (Subject::Environment, "environment"),
        ];
        for (subject, name) in subjects {
            let json = serde_json::to_value(subject).expect("it is plain data");
            assert_eq!(json, name);
        }
    }
}
