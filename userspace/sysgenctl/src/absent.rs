// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why there is no device, and what to do.

use std::fs;
use std::path::Path;

/// The oldest kernel for which the module can be built.
const OLDEST: (u32, u32) = (7, 2);

/// What tells the reasons apart.
#[derive(Debug)]
pub struct Facts {
    /// The kernel's release.
    pub release: String,
    /// The driver is running.
    pub loaded: bool,
    /// The module is among those that modprobe finds.
    pub installed: bool,
}

/// Why there is no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The driver is running, and this `/dev` was made without the node.
    NoNode,
    /// Nobody has loaded the module.
    NotLoaded,
    /// The kernel is too old for the module.
    OldKernel,
    /// There is no module for this kernel.
    NotInstalled,
}

impl Facts {
    /// Looks.
    pub fn gather() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease").trim_end().to_owned();
        let lists =
            ["dep", "builtin"].map(|list| read(&format!("/lib/modules/{release}/modules.{list}")));
        Self {
            loaded: Path::new("/sys/class/misc/sysgenid").exists(),
            installed: lists.iter().any(|list| lists_module(list)),
            release,
        }
    }

    /// Why there is none, if there is none.
    pub fn reason(&self) -> Reason {
        if self.loaded {
            Reason::NoNode
        } else if self.installed {
            Reason::NotLoaded
        } else if is_older(&self.release) {
            Reason::OldKernel
        } else {
            Reason::NotInstalled
        }
    }

    /// What is wrong, in words, and what to do.
    pub fn advice(&self) -> (String, String) {
        let Self { release, .. } = self;
        match self.reason() {
            Reason::NoNode => (
                "the driver is running, so this /dev was made without the node".into(),
                "give it to this container or sandbox (docker and podman: --device /dev/sysgenid; \
                 systemd: DeviceAllow=/dev/sysgenid rw, without PrivateDevices=)"
                    .into(),
            ),
            Reason::NotLoaded => (
                "the module is installed and not loaded".into(),
                "modprobe sysgenid".into(),
            ),
            Reason::OldKernel => (
                format!("this kernel ({release}) is too old for the module"),
                format!(
                    "boot Linux {}.{} or newer, built with CONFIG_RUST=y",
                    OLDEST.0, OLDEST.1
                ),
            ),
            Reason::NotInstalled => (
                format!("the module is not installed for this kernel ({release})"),
                "install it (with make modules_install, or the package that builds it), and then: \
                 modprobe sysgenid"
                    .into(),
            ),
        }
    }
}

/// What to say where the node is not.
pub fn explain(node: &Path) -> String {
    let (what, advice) = Facts::gather().advice();
    format!("there is no {}: {what}: {advice}", node.display())
}

/// Whether the module is in a list as depmod makes it: paths, with a colon after those that have
/// dependencies.
fn lists_module(list: &str) -> bool {
    list.lines()
        .filter_map(|line| line.split(':').next()?.rsplit('/').next())
        .any(|file| file == "sysgenid.ko" || file.starts_with("sysgenid.ko."))
}

/// Whether the release is of a kernel that is too old. One that cannot be read is not.
fn is_older(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(release: &str, loaded: bool, installed: bool) -> String {
        let release = release.into();
        let facts = Facts {
            release,
            loaded,
            installed,
        };
        let (what, advice) = facts.advice();
        format!("{what}: {advice}")
    }

    #[test]
    fn each_reason_has_its_advice() {
        assert!(advice("7.3.4", true, true).contains("--device /dev/sysgenid"));
        assert!(advice("7.3.4", false, true).ends_with("not loaded: modprobe sysgenid"));
        assert!(advice("7.3.4", false, false).contains("not installed for this kernel (7.3.4)"));
        assert!(advice("6.12.48+deb13", false, false).contains("(6.12.48+deb13) is too old"));
    }

    #[test]
    fn releases_are_compared_by_number() {
        for old in ["7.1", "7.1.9-rc1", "6.12.48+deb13-amd64", "5.4"] {
            assert!(is_older(old), "{old}");
        }
        for new in [
            "7.2",
            "7.10.0",
            "7.3.4+deb13-cloud-amd64",
            "10.0",
            "",
            "x.y",
        ] {
            assert!(!is_older(new), "{new}");
        }
    }

    #[test]
    fn the_module_is_found_in_the_lists_of_depmod() {
        assert!(lists_module(
            "kernel/a.ko: kernel/b.ko\nupdates/dkms/sysgenid.ko.xz:\n"
        ));
        assert!(lists_module("kernel/drivers/virt/sysgenid/sysgenid.ko\n"));
        assert!(!lists_module(
            "kernel/a.ko: updates/sysgenid.ko\nupdates/sysgenid.kover:\n"
        ));
    }
}
