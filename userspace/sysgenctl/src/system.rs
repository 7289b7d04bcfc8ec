// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the system does when its generation changes: the udev rule, and systemd's units.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// Where udev looks for rules, and what comes first hides what comes later (udev(7)).
const RULES: [&str; 4] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
];
const RULE: &str = "60-sysgenid.rules";

/// What waits for a change, and how all are called that can follow one.
const PATH: &str = "sysgenid-changed.path";
const FOLLOWERS: &str = "sysgenid-*.service";
/// What the path starts is none of them.
const STARTED: &str = "sysgenid-changed.service";

/// What has become of the udev rule.
#[derive(Debug, PartialEq, Eq)]
pub enum Rule {
    /// There is none.
    Missing,
    /// Somebody has hidden it behind an empty file.
    Masked(PathBuf),
    /// It is there.
    Installed(PathBuf),
}

impl Rule {
    /// Looks for it.
    pub fn find() -> Self {
        Self::among(&RULES.map(Path::new))
    }

    fn among(directories: &[&Path]) -> Self {
        let mut paths = directories.iter().map(|directory| directory.join(RULE));
        let Some((path, length)) =
            paths.find_map(|path| fs::read(&path).ok().map(|text| (path, text.len())))
        else {
            return Self::Missing;
        };
        // A link to /dev/null is one.
        if length == 0 {
            Self::Masked(path)
        } else {
            Self::Installed(path)
        }
    }
}

/// What has become of the units.
#[derive(Debug, PartialEq, Eq)]
pub struct Units {
    /// They are installed.
    pub installed: bool,
    /// systemd waits for a change.
    pub waits: bool,
    /// Which of them follow a change.
    pub enabled: Vec<String>,
}

impl Units {
    /// Asks systemd, if it runs this system.
    pub fn find() -> Option<Self> {
        Path::new("/run/systemd/system").exists().then(|| {
            Self::from(
                &systemctl(&["is-active", PATH]),
                &systemctl(&["--no-legend", "--plain", "list-unit-files", PATH, FOLLOWERS]),
            )
        })
    }

    fn from(state: &str, list: &str) -> Self {
        let units: Vec<_> = list
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?))
            })
            .collect();
        Self {
            installed: units.iter().any(|(name, _)| *name == PATH),
            waits: state.trim() == "active",
            enabled: units
                .iter()
                .filter(|(name, state)| {
                    name.ends_with(".service") && *name != STARTED && *state == "enabled"
                })
                .map(|(name, _)| (*name).to_owned())
                .collect(),
        }
    }
}

/// What systemctl writes; nothing where it fails.
fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_hides_the_others() {
        let (first, second) = (tempfile::tempdir(), tempfile::tempdir());
        let (first, second) = (first.expect("one"), second.expect("another"));
        let look = || Rule::among(&[first.path(), second.path()]);
        assert_eq!(look(), Rule::Missing);
        let place = second.path().join(RULE);
        fs::write(&place, "SUBSYSTEM==\"misc\"\n").expect("it can be written");
        assert_eq!(look(), Rule::Installed(place));
        let mask = first.path().join(RULE);
        std::os::unix::fs::symlink("/dev/null", &mask).expect("it can be made");
        assert_eq!(look(), Rule::Masked(mask));
    }

    #[test]
    fn what_systemctl_says_is_understood() {
        let list = "sysgenid-changed.path static -\n\
                    sysgenid-changed.service static -\n\
                    sysgenid-clock.service disabled disabled\n\
                    sysgenid-machine-id.service enabled disabled\n";
        let expected = Units {
            installed: true,
            waits: true,
            enabled: vec!["sysgenid-machine-id.service".into()],
        };
        assert_eq!(Units::from("active\n", list), expected);
        let nothing = Units {
            installed: false,
            waits: false,
            enabled: Vec::new(),
        };
        assert_eq!(Units::from("inactive\n", ""), nothing);
        assert_eq!(Units::from("", ""), nothing);
    }
}
