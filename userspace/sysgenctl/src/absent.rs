// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why there is no device, and what to do.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::module;
use crate::module::Installed;

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
    /// The kernel loads signed modules only, and what is installed is signed, or not.
    pub demanded: Option<bool>,
}

/// Why there is no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The driver is running, and this `/dev` was made without the node.
    NoNode,
    /// Nobody has loaded the module.
    NotLoaded,
    /// The kernel loads signed modules only, and this one is not.
    NotSigned,
    /// The kernel loads signed modules only. This one is, and is not loaded.
    Signed,
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
        let is_built_in = lists_module(&read(&format!("/lib/modules/{release}/modules.builtin")));
        let file = installed(&release);
        Self {
            loaded: Path::new("/sys/class/misc/sysgenid").exists(),
            installed: file.is_some() || is_built_in,
            demanded: file
                .filter(|_| module::signatures_are_demanded())
                .and_then(|path| Installed::read(&path).ok())
                .map(|installed| installed.signed),
            release,
        }
    }

    /// Why there is none, if there is none.
    pub fn reason(&self) -> Reason {
        if self.loaded {
            Reason::NoNode
        } else if self.installed {
            match self.demanded {
                None => Reason::NotLoaded,
                Some(true) => Reason::Signed,
                Some(false) => Reason::NotSigned,
            }
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
            Reason::NotSigned => (
                "the module is installed and not signed, and this kernel loads signed ones only \
                 (Secure Boot, lockdown, or module.sig_enforce)"
                    .into(),
                "have it signed with a key that the machine trusts: DKMS does it with its own key \
                 (/var/lib/dkms/mok.pub), once that is enrolled (mokutil --import)"
                    .into(),
            ),
            Reason::Signed => (
                "the module is installed, signed, and not loaded".into(),
                "modprobe sysgenid; if it says “Key was rejected by service”, then this machine does \
                 not trust who signed it: enroll the key (mokutil --import /var/lib/dkms/mok.pub for \
                 DKMS's own) and boot again"
                    .into(),
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

/// Where the module is that modprobe would load into the kernel of that release, if there is one.
pub fn installed(release: &str) -> Option<PathBuf> {
    let directory = Path::new("/lib/modules").join(release);
    let list = fs::read_to_string(directory.join("modules.dep")).ok()?;
    listed_module(&list).map(|path| directory.join(path))
}

/// Whether the module is in a list as depmod makes it.
fn lists_module(list: &str) -> bool {
    listed_module(list).is_some()
}

/// The module's path in such a list, which has a colon after those that have dependencies.
fn listed_module(list: &str) -> Option<&str> {
    list.lines()
        .filter_map(|line| line.split(':').next())
        .find(|path| {
            let file = path.rsplit('/').next().unwrap_or_default();
            file == "sysgenid.ko" || file.starts_with("sysgenid.ko.")
        })
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

    fn advice(release: &str, loaded: bool, installed: bool, demanded: Option<bool>) -> String {
        let release = release.into();
        let facts = Facts {
            release,
            loaded,
            installed,
            demanded,
        };
        let (what, advice) = facts.advice();
        format!("{what}: {advice}")
    }

    #[test]
    fn each_reason_has_its_advice() {
        let plain = |release, loaded, installed| advice(release, loaded, installed, None);
        assert!(plain("7.3.4", true, true).contains("--device /dev/sysgenid"));
        assert!(plain("7.3.4", false, true).ends_with("not loaded: modprobe sysgenid"));
        assert!(plain("7.3.4", false, false).contains("not installed for this kernel (7.3.4)"));
        assert!(plain("6.12.48+deb13", false, false).contains("(6.12.48+deb13) is too old"));
        let unsigned = advice("7.3.4", false, true, Some(false));
        assert!(
            unsigned.contains("not signed") && unsigned.contains("mokutil"),
            "{unsigned}"
        );
        let signed = advice("7.3.4", false, true, Some(true));
        assert!(signed.contains("Key was rejected"), "{signed}");
        assert!(advice("7.3.4", true, true, Some(false)).contains("--device"));
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
        assert_eq!(
            listed_module("kernel/a.ko: kernel/b.ko\nupdates/dkms/sysgenid.ko.xz:\n"),
            Some("updates/dkms/sysgenid.ko.xz")
        );
        assert!(lists_module("kernel/drivers/virt/sysgenid/sysgenid.ko\n"));
        assert!(!lists_module(
            "kernel/a.ko: updates/sysgenid.ko\nupdates/sysgenid.kover:\n"
        ));
    }
}
