// SPDX-License-Identifier: MIT OR Apache-2.0

//! Machines with a disk: a system with systemd, which boots with its own kernel and its own initrd, as
//! it would anywhere.
//!
//! Nothing of the lab is on that disk. systemd takes units from whoever runs the machine, as
//! credentials in its SMBIOS tables, and what they start lies on a second disk, a small one.

use std::cmp::Ordering;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::Engine;
use ext4_view::Ext4;

use crate::cache;
use crate::step::execute;

/// The first systemd that takes units as credentials.
const SYSTEMD: u32 = 256;

/// Where systemd's own library lies, whose name has its version.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/systemd",
    "/usr/lib/systemd",
    "/usr/lib64/systemd",
];

/// The label of the second disk; the units below have it, too.
const LABEL: &str = "sysgenid-lab";

/// The units that start init beside the system. What they are called is not on the disk either.
///
/// /run itself may have nothing in it that is executed; what is mounted below it may.
const UNITS: [(&str, &str); 3] = [
    (
        "extra-unit.run-labdisk.mount",
        "[Unit]
Description=The lab's disk
[Mount]
What=/dev/disk/by-label/sysgenid-lab
Where=/run/labdisk
Type=ext4
Options=ro
",
    ),
    (
        "extra-unit.sysgenid-lab.service",
        "[Unit]
Description=The lab's command
RequiresMountsFor=/run/labdisk
BindsTo=dev-virtio\\x2dports-sysgenid.lab.device
After=dev-virtio\\x2dports-sysgenid.lab.device
[Service]
ExecStart=/run/labdisk/init beside-systemd
StandardOutput=journal+console
TasksMax=infinity
OOMPolicy=continue
",
    ),
    (
        "unit-dropin.multi-user.target~sysgenid-lab",
        "[Unit]
Wants=sysgenid-lab.service
",
    ),
];

/// What a machine with a disk has in it.
#[derive(Clone, Debug)]
pub struct Drives {
    /// The disk that it boots from, which nobody writes to.
    pub system: PathBuf,
    /// The second one.
    pub lab: PathBuf,
}

/// The kernel that a disk is booted with.
pub struct Boots {
    /// Its release.
    pub release: String,
    /// What it is told about the disk.
    pub root: String,
}

/// A disk whose file system can be read.
pub struct Disk(Ext4);

impl Disk {
    /// Reads it, and refuses one that would not boot, or on which no command would start.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = cache::shown(path);
        fs::metadata(path).with_context(|| format!("--disk {shown}"))?;
        let disk = Ext4::load_from_path(path).map_err(|error| {
            anyhow!(
                "--disk {shown}: it is no file system of the kind ext4, without partitions, such as lab system --image writes ({error})"
            )
        })?;
        let disk = Self(disk);
        disk.check().with_context(|| format!("--disk {shown}"))?;
        Ok(disk)
    }

    fn check(&self) -> Result<()> {
        let mut versions = LIBRARIES.iter().flat_map(|directory| self.names(directory));
        let version = versions
            .find_map(|name| systemd_version(&name))
            .context("the system on it has no systemd")?;
        ensure!(
            version >= SYSTEMD,
            "the system on it has systemd {version}, and commands are started by {SYSTEMD} or newer"
        );
        ensure!(
            self.0.exists("/sbin/init").is_ok_and(|exists| exists),
            "the system on it has no /sbin/init (Debian has it in systemd-sysv)"
        );
        Ok(())
    }

    /// Puts the kernel and the initrd into a directory, as `vmlinuz` and `initrd`: those of that
    /// release, or those that the system's own links choose, or the newest ones.
    pub fn extract(&self, release: Option<&str>, directory: &Path) -> Result<Boots> {
        let known = self.releases();
        let release = match release {
            Some(release) => release.to_owned(),
            None => self
                .linked()
                .or_else(|| known.last().cloned())
                .context("there is no /boot/vmlinuz-RELEASE on the disk: no kernel is installed")?,
        };
        ensure!(
            known.contains(&release),
            "there is no kernel {release} on the disk; it has {}",
            known.join(", ")
        );
        for (name, place) in [("vmlinuz", "vmlinuz"), ("initrd", "initrd.img")] {
            let path = format!("/boot/{place}-{release}");
            let bytes = self
                .0
                .read(path.as_str())
                .map_err(|error| anyhow!("cannot read {path} on the disk: {error}"))?;
            fs::write(directory.join(name), bytes)?;
        }
        Ok(Boots {
            release,
            root: format!("root=UUID={} rw", self.0.uuid()),
        })
    }

    /// The release that the link /vmlinuz leads to.
    fn linked(&self) -> Option<String> {
        let target = self.0.canonicalize("/vmlinuz").ok()?;
        let release = target.to_str().ok()?.strip_prefix("/boot/vmlinuz-")?;
        Some(release.to_owned())
    }

    /// The releases of the kernels on it, the newest one last.
    fn releases(&self) -> Vec<String> {
        let mut releases: Vec<_> = self
            .names("/boot")
            .iter()
            .filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
            .collect();
        releases.sort_by(|one, other| by_number(one, other));
        releases
    }

    /// What is in a directory; nothing if there is none.
    fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = self.0.read_dir(directory) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().as_str().ok().map(str::to_owned))
            .collect()
    }
}

/// The version in the name of systemd's library.
fn systemd_version(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libsystemd-shared-")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Compares releases as people do: what is a number in them, as a number.
fn by_number(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        if one.is_empty() || other.is_empty() {
            return one.len().cmp(&other.len());
        }
        let digits = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit());
            end.unwrap_or(text.len())
        };
        let (first, second) = (digits(one), digits(other));
        let order = if first > 0 && second > 0 {
            let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
            let order = number(&one[..first]).cmp(&number(&other[..second]));
            (one, other) = (&one[first..], &other[second..]);
            order
        } else {
            let (mut rest_of_one, mut rest_of_other) = (one.chars(), other.chars());
            let order = rest_of_one.next().cmp(&rest_of_other.next());
            (one, other) = (rest_of_one.as_str(), rest_of_other.as_str());
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Writes the second disk, on which init is, into a directory.
pub fn lab_disk(directory: &Path) -> Result<PathBuf> {
    let tool = env::var_os("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
    let init = Path::new(&tool).join("init");
    let content = directory.join("lab");
    fs::create_dir(&content)?;
    let length = fs::copy(&init, content.join("init"))?;
    let image = directory.join("lab.img");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"])
        .args(["-E", "root_owner=0:0", "-L", LABEL, "-d"])
        .arg(&content)
        .arg(&image)
        .arg(format!("{}M", (length >> 20) + 2));
    execute(&mut mke2fs, "lab-disk").context("cannot make the lab's disk")?;
    Ok(image)
}

/// What QEMU is told so that systemd has the units.
pub fn credentials() -> Vec<String> {
    let credential = |(name, text): &(&str, &str)| {
        let text = BASE64_STANDARD.encode(text);
        let value = format!("io.systemd.credential.binary:systemd.{name}={text}");
        ["-smbios".into(), format!("type=11,value={value}")]
    };
    UNITS.iter().flat_map(credential).collect()
}

/// Makes a disk on which is what is on another one, and whose changes are its own.
pub fn layer(over: &Path, format: &str, path: &Path) -> Result<()> {
    let mut create = Command::new("qemu-img");
    create
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(over)
        .arg(path);
    execute(&mut create, "qemu-img").context("cannot make a layer over the disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk on which these files are, which say how they are called.
    fn disk(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        fs::create_dir(&root).expect("it can be made");
        for name in files {
            let path = root.join(name);
            let parent = path.parent().expect("it is in the root");
            fs::create_dir_all(parent).expect("it can be made");
            fs::write(&path, name).expect("it can be written");
        }
        if files.contains(&"boot/vmlinuz-7.9.1") {
            std::os::unix::fs::symlink("boot/vmlinuz-7.9.1", root.join("vmlinuz"))
                .expect("it can be made");
        }
        let image = directory.path().join("image");
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&root);
        let made = mke2fs.arg(&image).arg("8M").status();
        assert!(made.expect("mke2fs is there").success());
        (directory, image)
    }

    const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so";

    #[test]
    fn the_kernel_is_the_one_that_was_asked_for() {
        let (directory, image) = disk(&[
            LIBRARY,
            "sbin/init",
            "boot/vmlinuz-7.10.0",
            "boot/initrd.img-7.10.0",
            "boot/vmlinuz-7.9.1",
            "boot/initrd.img-7.9.1",
            "boot/vmlinuz-7.9",
        ]);
        let disk = Disk::open(&image).expect("it is a disk");
        let extract = |release| disk.extract(release, directory.path());
        let boots = extract(None).expect("it has a kernel");
        assert_eq!(boots.release, "7.9.1", "the link leads there");
        assert!(boots.root.starts_with("root=UUID="), "{}", boots.root);
        let boots = extract(Some("7.10.0")).expect("it has that kernel");
        assert_eq!(boots.release, "7.10.0");
        let read = |name| fs::read_to_string(directory.path().join(name)).expect("it is there");
        assert_eq!(read("vmlinuz"), "boot/vmlinuz-7.10.0");
        assert_eq!(read("initrd"), "boot/initrd.img-7.10.0");
        let error = |release| {
            let error = extract(Some(release)).err().expect("it cannot be booted");
            format!("{error:#}")
        };
        assert!(error("7.9").contains("/boot/initrd.img-7.9"));
        assert!(error("8.0").contains("it has 7.9, 7.9.1, 7.10.0"));
    }

    #[test]
    fn without_a_link_it_is_the_newest() {
        let (directory, image) = disk(&[
            LIBRARY,
            "sbin/init",
            "boot/vmlinuz-7.10.0",
            "boot/initrd.img-7.10.0",
            "boot/vmlinuz-7.9.0",
            "boot/initrd.img-7.9.0",
        ]);
        let disk = Disk::open(&image).expect("it is a disk");
        let boots = disk.extract(None, directory.path());
        assert_eq!(boots.expect("it has a kernel").release, "7.10.0");
    }

    #[test]
    fn what_would_not_start_a_command_is_refused() {
        let error = |files: &[&str]| {
            let (_directory, image) = disk(files);
            let error = Disk::open(&image).err().expect("it is refused");
            format!("{error:#}")
        };
        assert!(error(&["etc/fstab"]).contains("has no systemd"));
        let old = "usr/lib/systemd/libsystemd-shared-252.so";
        assert!(error(&[old]).contains("systemd 252"));
        assert!(error(&[LIBRARY]).contains("/sbin/init"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "QFI\u{fb}").expect("it can be written");
        let error = Disk::open(file.path()).err().expect("it is refused");
        assert!(error.to_string().contains("ext4"), "{error}");
    }

    #[test]
    fn the_units_know_the_label() {
        assert!(UNITS[0].1.contains(&format!("by-label/{LABEL}\n")));
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert_eq!(by_number("7.9.1", "7.10.0"), Ordering::Less);
        assert_eq!(by_number("7.9", "7.9.1"), Ordering::Less);
        assert_eq!(
            by_number("7.3.4+deb13-cloud", "7.3.4+deb13-cloud"),
            Ordering::Equal
        );
        assert_eq!(by_number("7.3.4-rc1", "7.3.4+a"), Ordering::Greater);
    }
}
