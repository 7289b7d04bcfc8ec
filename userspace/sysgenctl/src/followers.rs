// SPDX-License-Identifier: MIT OR Apache-2.0

//! What follows a change of the generation: the units of systemd's that `sysgenid-changed.target`
//! wants. Whoever says that a clone is ready has waited for them.

use std::fmt;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;
use sysgenid::Overseer;

use crate::command::End;
use crate::deadline::Deadline;
use crate::exit::Failure;
use crate::output::plain;
use crate::supervised::Limits;
use crate::supervised::Supervisor;

/// What waits for a change, what that starts, and what that one does.
const PATH: &str = "sysgenid-changed.path";
const STARTED: &str = "sysgenid-changed.service";
const TARGET: &str = "sysgenid-changed.target";
/// How all are called that come along.
const PACKAGED: &str = "sysgenid-*.service";

/// There while systemd runs the system.
const SYSTEMD: &str = "/run/systemd/system";
/// Which change was served last: the driver's instance and its epoch come first.
const SERVED: &str = "/run/sysgenid/served";
/// There while somebody is asked to look for a change.
const ASKED: &str = "/run/sysgenid-changed";
/// Another file for each instance of the driver.
const INSTANCE: &str = "/sys/class/misc/sysgenid";
/// There while sysgenid-ssh-fence.service keeps the SSH server from starting: until the next boot, and
/// beyond.
const FENCE: [&str; 2] = ["/run/sysgenid/ssh-fence", "/var/lib/sysgenid/ssh-fence"];
/// By it the administrator says that this machine keeps its identity.
pub const NO_TEMPLATE: &str = "/etc/sysgenid/no-template";

/// How often systemd is asked, and how long it may take for an answer.
const NAP: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it is asked again where it does not answer: it may be being executed anew.
const SILENCE: Duration = Duration::from_secs(30);
/// For how long nobody may wait for a change: early in a boot, that is to come.
const EARLY: Duration = Duration::from_secs(5);

/// What `systemctl is-active` says.
const STATES: [&str; 8] = [
    "active",
    "reloading",
    "inactive",
    "failed",
    "activating",
    "deactivating",
    "maintenance",
    "refreshing",
];
/// Those from which a unit goes on by itself.
const PASSING: [&str; 4] = ["activating", "deactivating", "reloading", "refreshing"];

/// How a unit has ended that follows a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Result {
    /// It has done its work.
    Done,
    /// It had none to do.
    Skipped,
    /// It has failed.
    Failed,
    /// It has not ended.
    Running,
}

/// A unit that follows a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// How it has ended.
    pub result: Result,
    /// Why it was skipped, or how it has failed.
    pub reason: Option<String>,
}

impl Unit {
    /// By what `systemctl show` says of one. `None` where that is no unit.
    fn of(said: &str) -> Option<Self> {
        let value = |key: &str| {
            let lines = said.lines().filter_map(|line| line.split_once('='));
            let mut values = lines.filter_map(|(name, value)| (name == key).then_some(value));
            values.next().unwrap_or_default()
        };
        let name = value("Id").to_owned();
        let is_no = |key| value(key) == "no";
        // Before the first start, all of these are "no".
        let was_started = !matches!(value("ConditionTimestampMonotonic"), "" | "0");
        let (load, active, how) = (value("LoadState"), value("ActiveState"), value("Result"));
        let (result, reason) = if load == "masked" {
            (Result::Skipped, Some(load))
        } else if load != "loaded" {
            (Result::Failed, Some(load))
        } else if PASSING.contains(&active) || !value("Job").is_empty() {
            (Result::Running, None)
        } else if !was_started {
            (Result::Skipped, Some("it was not started since the boot"))
        } else if active != "failed" && how == "exec-condition" {
            // Which says that a condition does not hold as well.
            (Result::Skipped, Some("it says that it is not due"))
        } else if is_no("ConditionResult") {
            // It may have failed before, and is still said to have.
            (
                Result::Skipped,
                Some("a condition of its file does not hold"),
            )
        } else if is_no("AssertResult") {
            (
                Result::Failed,
                Some("an assertion of its file does not hold"),
            )
        } else if active == "failed" {
            (Result::Failed, Some(how))
        } else {
            (Result::Done, None)
        };
        let reason = reason.map(str::to_owned);
        (!name.is_empty()).then_some(Self {
            name,
            result,
            reason,
        })
    }

    fn all(said: &str) -> Vec<Self> {
        said.split("\n\n").filter_map(Self::of).collect()
    }

    /// Asks systemd for them.
    fn show(units: &[String]) -> Answer<Vec<Self>> {
        if units.is_empty() {
            // It would tell of systemd itself.
            return Ok(Vec::new());
        }
        let properties = "--property=Id,LoadState,ActiveState,Result,Job,ConditionResult,\
                          ConditionTimestampMonotonic,AssertResult";
        let units = units.iter().map(String::as_str);
        let arguments: Vec<_> = ["show", properties, "--"]
            .into_iter()
            .chain(units)
            .collect();
        Ok(Self::all(&systemctl(&arguments)?))
    }
}

impl Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.result {
            Result::Done => "done",
            Result::Skipped => "skipped",
            Result::Failed => "failed",
            Result::Running => "running",
        };
        write!(f, "{}: {word}", self.name)?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What systemd answers, or why it does not.
pub type Answer<T> = std::result::Result<T, String>;

/// How far that is which follows a change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing does by itself; why, where somebody might expect it.
    Nobody(Option<String>),
    /// Nobody begins it.
    Stuck,
    /// systemd does not say, for this reason.
    Unknown(String),
    /// It is to begin, or goes on.
    GoesOn,
    /// It has ended.
    Over,
}

impl Stage {
    fn now(epoch: u64) -> Answer<Self> {
        let instance = fs::metadata(INSTANCE).map(|metadata| metadata.ino()).ok();
        let served = fs::read_to_string(SERVED).unwrap_or_default();
        Ok(
            if is_due(&served, instance, epoch) || Path::new(ASKED).exists() {
                match &*states(&[PATH])? {
                    [state] if state == "active" => Self::GoesOn,
                    _ => Self::Stuck,
                }
            } else if runs()? {
                Self::GoesOn
            } else {
                Self::Over
            },
        )
    }

    /// For how long it has to be so before it is believed. `None` if it does not stay.
    fn is_known_after(&self) -> Option<Duration> {
        match self {
            Self::Nobody(_) | Self::Over => Some(Duration::ZERO),
            Self::Stuck => Some(EARLY),
            Self::Unknown(_) => Some(SILENCE),
            Self::GoesOn => None,
        }
    }
}

/// What follows a change, and how far it is.
#[derive(Debug)]
pub struct Followers {
    stage: Stage,
    /// Those that the target wants. There are none where nothing follows by itself.
    pub units: Option<Vec<Unit>>,
}

impl Followers {
    /// Waits until what follows the last change has ended, or the time has, or something `is_over`.
    pub fn wait(
        overseer: &Overseer,
        deadline: &Deadline,
        is_over: impl Fn() -> bool,
    ) -> std::result::Result<Self, Failure> {
        if !Path::new(SYSTEMD).exists() {
            return Ok(Self::nobody(None));
        }
        let mut since = Instant::now();
        let mut before = None;
        loop {
            let epoch = overseer.status()?.epoch();
            let now = Self::now(epoch).unwrap_or_else(|why| Self {
                stage: Stage::Unknown(why),
                units: None,
            });
            let known_after = now.stage.is_known_after();
            if known_after != before {
                (since, before) = (Instant::now(), known_after);
            }
            let is_known = known_after.is_some_and(|after| since.elapsed() >= after);
            if is_known || deadline.is_over() || is_over() {
                return Ok(now);
            }
            thread::sleep(deadline.slice(NAP));
        }
    }

    fn now(epoch: u64) -> Answer<Self> {
        let wanted = wanted()?;
        if wanted.is_empty() {
            let why = format!("{TARGET} wants no unit: nothing follows a change by itself");
            return Ok(Self::nobody(Some(why)));
        }
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if let Some(unit) = own_unit(&cgroups, &wanted) {
            let why = format!("this runs in {unit}, which follows the change itself");
            return Ok(Self::nobody(Some(why)));
        }
        let mut stage = Stage::now(epoch)?;
        let units = Unit::show(&wanted)?;
        if stage == Stage::Over && units.iter().any(|unit| unit.result == Result::Running) {
            stage = Stage::GoesOn;
        }
        Ok(Self {
            stage,
            units: Some(units),
        })
    }

    fn nobody(why: Option<String>) -> Self {
        Self {
            stage: Stage::Nobody(why),
            units: None,
        }
    }

    /// A failure if the time was over before they had ended.
    pub fn in_time(&self, timeout: Option<Duration>) -> std::result::Result<(), Failure> {
        match &self.stage {
            Stage::GoesOn => {}
            Stage::Unknown(why) => {
                return Err(Failure::TimedOut(format!(
                    "systemd does not say how far that is which follows the change ({why}); \
                     --no-units does not ask it"
                )));
            }
            _ => return Ok(()),
        }
        let running = self.names(Result::Running);
        Err(Failure::TimedOut(format!(
            "after {} what follows the change has not ended: {}",
            humantime::format_duration(timeout.unwrap_or_default()),
            if running.is_empty() {
                format!("{STARTED} has not begun it, or goes on")
            } else {
                format!("{} runs", running.join(", "))
            }
        )))
    }

    /// A failure if one of them has failed, or none began.
    pub fn succeeded(&self) -> std::result::Result<(), Failure> {
        if self.stage == Stage::Stuck {
            return Err(Failure::Command(format!(
                "what follows the change does not begin, for {PATH} is not active: udevadm trigger \
                 --action=change --name-match=sysgenid; in a container, which hears of no change: \
                 systemctl restart {TARGET}"
            )));
        }
        let failed = self.names(Result::Failed);
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::Command(format!(
            "what follows the change has failed: {}; journalctl --merge -b -u {} says why",
            failed.join(", "),
            failed.join(" -u ")
        )))
    }

    fn names(&self, result: Result) -> Vec<&str> {
        let units = self.units.iter().flatten();
        units
            .filter(|unit| unit.result == result)
            .map(|unit| unit.name.as_str())
            .collect()
    }
}

impl Display for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Stage::Nobody(Some(why)) = &self.stage {
            writeln!(f, "{why}")?;
        }
        for unit in self.units.iter().flatten() {
            writeln!(f, "{unit}")?;
        }
        Ok(())
    }
}

/// What is installed and enabled, and what has failed of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Units {
    /// They are installed.
    pub installed: bool,
    /// systemd waits for a change.
    pub waits: bool,
    /// Which units follow a change: those of them that are enabled, and others.
    pub enabled: Vec<String>,
    /// Which of them somebody has masked, who does not want them.
    pub masked: Vec<String>,
    /// Which have failed.
    pub failed: Vec<Unit>,
    /// The SSH server is kept from starting, for its host keys were not replaced.
    pub fenced: bool,
}

impl Units {
    /// Asks systemd, if it runs this system.
    pub fn find() -> Option<Answer<Self>> {
        Path::new(SYSTEMD).exists().then(|| {
            let list = systemctl(&["--no-legend", "--plain", "list-unit-files", PATH, PACKAGED])?;
            let mut units = Self::from(&states(&[PATH])?, &list);
            units.enabled = wanted()?;
            units.enabled.sort_unstable();
            let mut all = units.enabled.clone();
            all.extend([PATH, STARTED].map(str::to_owned));
            units.failed = Unit::show(&all)?;
            units.failed.retain(|unit| unit.result == Result::Failed);
            units.fenced = FENCE.iter().any(|path| Path::new(path).exists());
            Ok(units)
        })
    }

    fn from(states: &[String], list: &str) -> Self {
        let units: Vec<_> = list
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?))
            })
            .collect();
        let masked = units
            .iter()
            .filter(|(name, state)| name.ends_with(".service") && *state == "masked");
        Self {
            installed: units.iter().any(|(name, _)| *name == PATH),
            waits: matches!(states, [state] if state == "active"),
            enabled: Vec::new(),
            masked: masked.map(|(name, _)| (*name).to_owned()).collect(),
            failed: Vec::new(),
            fenced: false,
        }
    }
}

/// Whether a change has not been served, by what is noted of the last one that was. A driver that was
/// loaded anew counts from 0.
fn is_due(served: &str, instance: Option<u64>, epoch: u64) -> bool {
    let mut words = served.split_whitespace().map(|word| word.parse().ok());
    let (noted_instance, noted_epoch) = (words.next().flatten(), words.next().flatten());
    let noted_epoch = if noted_instance == instance {
        noted_epoch.unwrap_or(0)
    } else {
        0
    };
    epoch != noted_epoch
}

/// What the target wants.
fn wanted() -> Answer<Vec<String>> {
    let said = systemctl(&["show", "--value", "--property=Wants", TARGET])?;
    Ok(said.split_whitespace().map(str::to_owned).collect())
}

/// Whether a run goes on.
fn runs() -> Answer<bool> {
    let states = states(&[STARTED, TARGET])?;
    Ok(states.iter().any(|state| PASSING.contains(&&**state)))
}

/// The states of units. Only if all are active, systemctl succeeds.
fn states(units: &[&str]) -> Answer<Vec<String>> {
    let (end, said) = ask(PATIENCE, &[&["is-active", "--"], units].concat());
    let states: Vec<_> = said.lines().map(str::to_owned).collect();
    if states.len() == units.len() && states.iter().all(|state| STATES.contains(&&**state)) {
        Ok(states)
    } else {
        Err(format!(
            "systemctl is-active: {end}: {}",
            plain(said.trim())
        ))
    }
}

/// Which of these units, or of those that start them, this is.
fn own_unit<'a>(cgroups: &'a str, wanted: &[String]) -> Option<&'a str> {
    let parts = cgroups.lines().flat_map(|line| line.split('/'));
    parts
        .into_iter()
        .find(|part| *part == STARTED || wanted.iter().any(|unit| unit == part))
}

/// What systemctl writes, if it succeeds.
pub fn systemctl(arguments: &[&str]) -> Answer<String> {
    systemctl_within(PATIENCE, arguments)
}

/// The same with another limit.
pub fn systemctl_within(limit: Duration, arguments: &[&str]) -> Answer<String> {
    let (end, said) = ask(limit, arguments);
    if end.succeeded() {
        Ok(said)
    } else {
        let said = plain(said.trim());
        Err(format!("systemctl {}: {end}: {said}", arguments[0]))
    }
}

/// How systemctl ends, and what it writes. A signal that is for us is not for it.
fn ask(limit: Duration, arguments: &[&str]) -> (End, String) {
    let ran =
        Supervisor::new(Limits::each(limit), None).run(Command::new("systemctl").args(arguments));
    (ran.end, ran.said)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::exit::Exit;

    pub fn unit(name: &str, result: Result, reason: Option<&str>) -> Unit {
        Unit {
            name: name.into(),
            result,
            reason: reason.map(str::to_owned),
        }
    }

    pub fn over(units: Vec<Unit>) -> Followers {
        Followers {
            stage: Stage::Over,
            units: Some(units),
        }
    }

    #[test]
    fn what_systemctl_says_of_units_is_understood() {
        let never = "ConditionTimestampMonotonic=0\nConditionResult=no\nAssertResult=no\n";
        let not_due = "it says that it is not due";
        let condition = "a condition of its file does not hold";
        let assertion = "an assertion of its file does not hold";
        let not_started = "it was not started since the boot";
        // What comes first counts: so these are other than the rest.
        let cases = [
            ("", Result::Done, None),
            (
                "ActiveState=failed\nResult=exit-code\n",
                Result::Failed,
                Some("exit-code"),
            ),
            (
                "Result=exec-condition\nConditionResult=no\n",
                Result::Skipped,
                Some(not_due),
            ),
            // It failed once, and was not due the last time.
            (
                "ActiveState=failed\nConditionResult=no\n",
                Result::Skipped,
                Some(condition),
            ),
            ("ActiveState=activating\n", Result::Running, None),
            ("Job=71\n", Result::Running, None),
            ("LoadState=masked\n", Result::Skipped, Some("masked")),
            (
                "LoadState=bad-setting\n",
                Result::Failed,
                Some("bad-setting"),
            ),
            ("AssertResult=no\n", Result::Failed, Some(assertion)),
            (never, Result::Skipped, Some(not_started)),
        ];
        let rest = "Id=a.service\nLoadState=loaded\nActiveState=inactive\nResult=success\n\
                    ConditionTimestampMonotonic=7\nConditionResult=yes\nAssertResult=yes\n";
        let said: Vec<_> = cases
            .iter()
            .map(|case| format!("{}{rest}", case.0))
            .collect();
        let expected: Vec<_> = cases
            .iter()
            .map(|&(_, result, reason)| unit("a.service", result, reason))
            .collect();
        assert_eq!(Unit::all(&said.join("\n")), expected);
        assert_eq!(Unit::all(""), []);
        assert_eq!(expected[1].to_string(), "a.service: failed (exit-code)");
        assert_eq!(expected[0].to_string(), "a.service: done");
    }

    #[test]
    fn a_change_is_due_until_it_is_noted() {
        for (served, epoch, due) in [
            ("", 0, false),
            ("", 3, true),
            ("7 3 1\n", 3, false),
            ("7 3 1\n", 4, true),
            // The epoch never comes back, but the driver can.
            ("7 3 1\n", 2, true),
            ("6 3 1\n", 3, true),
            ("6 3 1\n", 0, false),
            ("nothing that is known\n", 3, true),
        ] {
            assert_eq!(is_due(served, Some(7), epoch), due, "{served}, {epoch}");
        }
    }

    #[test]
    fn nobody_waits_for_himself() {
        let wanted = ["sysgenid-hooks.service".to_owned()];
        let own = |cgroups| own_unit(cgroups, &wanted);
        assert_eq!(
            own("0::/system.slice/sysgenid-hooks.service\n"),
            Some("sysgenid-hooks.service")
        );
        assert_eq!(
            own("0::/system.slice/sysgenid-changed.service/sub\n"),
            Some(STARTED)
        );
        assert_eq!(own("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(own(""), None);
    }

    #[test]
    fn those_that_failed_are_named_and_those_that_run() {
        let failed = || unit("b.service", Result::Failed, Some("timeout"));
        let well = over(vec![unit("a.service", Result::Done, None)]);
        assert!(well.in_time(None).is_ok() && well.succeeded().is_ok());
        let ill = over(vec![failed(), unit("a.service", Result::Done, None)]);
        assert!(ill.in_time(None).is_ok());
        let failure = ill.succeeded().expect_err("one has failed");
        assert_eq!(failure.exit(), Exit::Command);
        assert!(failure.to_string().contains("has failed: b.service; "));
        assert_eq!(
            ill.to_string(),
            "b.service: failed (timeout)\na.service: done\n"
        );
        let late = Followers {
            stage: Stage::GoesOn,
            units: Some(vec![failed(), unit("c.service", Result::Running, None)]),
        };
        let failure = late
            .in_time(Some(Duration::from_secs(30)))
            .expect_err("it goes on");
        assert_eq!(failure.exit(), Exit::TimedOut);
        assert_eq!(
            failure.to_string(),
            "after 30s what follows the change has not ended: c.service runs"
        );
        let stuck = Followers {
            stage: Stage::Stuck,
            units: Some(Vec::new()),
        };
        assert!(stuck.in_time(None).is_ok());
        let failure = stuck.succeeded().expect_err("nobody begins");
        assert_eq!(failure.exit(), Exit::Command);
        let unknown = Followers {
            stage: Stage::Unknown("it is away".into()),
            units: None,
        };
        let failure = unknown.in_time(None).expect_err("nobody knows");
        assert_eq!(failure.exit(), Exit::TimedOut);
        assert!(failure.to_string().contains("(it is away)"), "{failure}");
        let nobody = Followers::nobody(Some("so".into()));
        assert!(nobody.in_time(None).is_ok() && nobody.succeeded().is_ok());
        assert_eq!(nobody.to_string(), "so\n");
        assert_eq!(Followers::nobody(None).to_string(), "");
    }

    #[test]
    fn what_is_installed_is_understood() {
        let list = "sysgenid-changed.path static -\n\
                    sysgenid-changed.service static -\n\
                    sysgenid-clock.service disabled disabled\n\
                    sysgenid-dhcp.service masked disabled\n\
                    sysgenid-machine-id.service enabled disabled\n";
        let expected = Units {
            installed: true,
            waits: true,
            enabled: Vec::new(),
            masked: vec!["sysgenid-dhcp.service".into()],
            failed: Vec::new(),
            fenced: false,
        };
        let state = |state: &str| [state.to_owned()];
        assert_eq!(Units::from(&state("active"), list), expected);
        let nothing = Units {
            installed: false,
            waits: false,
            enabled: Vec::new(),
            masked: Vec::new(),
            failed: Vec::new(),
            fenced: false,
        };
        assert_eq!(Units::from(&state("inactive"), ""), nothing);
        assert_eq!(Units::from(&[], ""), nothing);
    }
}
