// SPDX-License-Identifier: MIT OR Apache-2.0

//! The udev rule, by which the system hears of a change.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Where udev looks for rules, and what comes first hides what comes later (udev(7)).
const RULES: [&str; 4] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
];
const RULE: &str = "60-sysgenid.rules";

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
}
