// SPDX-License-Identifier: MIT OR Apache-2.0

//! A Debian of chosen packages and of all that they depend on, unpacked below a directory of the
//! cache. It is not configured: no package's script has run in it.
//!
//! The toolchain root has none of what the table needs, and should not: it is large, and nothing
//! else needs it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::apt;
use crate::apt::Apt;
use crate::cache;
use crate::step;
use crate::step::execute;

/// What every one has besides: its directories, a shell, and what scripts call.
const BASE: [&str; 3] = ["base-files", "coreutils", "dash"];

/// What no guest and no compiler reads, and what only `PostgreSQL`'s compiler of queries does.
const LEFT_OUT: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/libLLVM.so.19.1",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl-base",
];

/// Who may be in it, by number.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
postgres:x:70:70:PostgreSQL:/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
";

/// What the unpacked packages may need, in bytes.
const NEEDED: u64 = 3 << 30;

/// An unpacked Debian.
pub struct Debian {
    directory: PathBuf,
    /// The packages' versions.
    pub versions: BTreeMap<String, String>,
}

impl Debian {
    /// The one that has these packages. When they are unpacked, `finish` does what their scripts
    /// would have done.
    pub fn get(packages: &[&str], finish: Option<fn(&Self) -> Result<()>>) -> Result<Self> {
        let root = env::var("LAB_ROOT_KEY").context("the lab's tool is started by lab/lab")?;
        let mut made_from = vec![root.as_str(), PASSWD];
        made_from.extend(BASE.iter().chain(&LEFT_OUT).chain(packages));
        let name = format!("debian/{}", cache::key(&made_from));
        let made = cache::made(&name, |made| {
            let what = format!("getting {} from Debian", packages.join(", "));
            step::step(&what, || {
                if cache::free_space()? < NEEDED {
                    bail!(
                        "less than 3 GB are free for the cache; make room, or let SYSGENID_CACHE name another place"
                    );
                }
                let versions = unpack(packages, made)?;
                let new = Self {
                    directory: made.join("tree"),
                    versions,
                };
                if let Some(finish) = finish {
                    finish(&new)?;
                }
                fs::write(
                    made.join("versions"),
                    serde_json::to_vec_pretty(&new.versions)?,
                )?;
                Ok(())
            })
        })?;
        Ok(Self {
            directory: made.join("tree"),
            versions: serde_json::from_slice(&fs::read(made.join("versions"))?)?,
        })
    }

    /// Where it is.
    pub fn tree(&self) -> &Path {
        &self.directory
    }

    /// A command that runs in it, as that user and group. It sees the checkout at /srv, the
    /// directory `output` at /mnt, where it may write, and nothing else that is outside.
    pub fn command(&self, user: u32, output: &Path) -> Command {
        const ENTER: &str = r#"
            mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd "$1" &&
            mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" &&
            mount -t tmpfs -o mode=1777 tmp "$1/tmp" &&
            mount --bind "$2" "$1/srv" && mount --bind "$3" "$1/mnt" || exit
            user=$4 tree=$1
            shift 4
            exec chroot --userspec="$user:$user" "$tree" "$@"
        "#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", ENTER, "sh"])
            .arg(&self.directory)
            .arg(cache::SOURCE)
            .arg(output)
            .arg(user.to_string());
        command
    }
}

/// Fetches and unpacks the packages, and returns their versions.
fn unpack(packages: &[&str], made: &Path) -> Result<BTreeMap<String, String>> {
    let archives = made.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let tree = made.join("tree");
    fs::create_dir(&tree)?;
    // Nothing is installed.
    let status = made.join("status");
    fs::write(&status, "")?;
    {
        let _lock = cache::lock("debian-apt")?;
        let wanted = |line: &str| (!line.contains("-backports ")).then(|| line.to_owned());
        let apt = Apt::new("debian/apt", wanted, &status)?;
        apt.update()?;
        let mut download = apt.command("apt-get");
        download
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args(["install", "-qq", "--yes", "--download-only"])
            .arg("--no-install-recommends")
            .args(BASE)
            .args(packages);
        execute(&mut download, "debian-download").context("cannot fetch the packages")?;
    }
    let versions = fs::read_dir(&archives)?
        .filter_map(|entry| version(&entry.ok()?.file_name().into_string().ok()?))
        .collect();
    apt::unpack_all(&archives, &tree)?;
    fs::remove_dir_all(&archives)?;
    for name in LEFT_OUT {
        let path = tree.join(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    // What is mounted in it: the base system's own script makes some of these.
    for name in ["dev", "proc", "tmp", "srv", "mnt"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::write(tree.join("etc/passwd"), PASSWD)?;
    Ok(versions)
}

/// Name and version, from the name of a package's file: `name_version_architecture.deb`.
fn version(file: &str) -> Option<(String, String)> {
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some((name.into(), version.replace("%3a", ":")))
}

/// The version of the software that is packaged: without the epoch, and without what the packaging
/// adds.
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version
        .rsplit_once('-')
        .map_or(version, |(version, _)| version);
    let end = version
        .find(['+', '~'])
        .filter(|end| *end > 0)
        .unwrap_or(version.len());
    &version[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_names_of_files() {
        let (name, version) = version("perl-base_1%3a5.40.1-6_amd64.deb").expect("a package");
        assert_eq!(name, "perl-base");
        assert_eq!(version, "1:5.40.1-6");
        assert_eq!(super::version("partial"), None);
    }

    #[test]
    fn the_packaging_is_no_part_of_the_version() {
        for (version, expected) in [
            ("1:5.40.1-6", "5.40.1"),
            ("21.0.8+9-1", "21.0.8"),
            ("3.5.4-1~deb13u1", "3.5.4"),
            ("1.0", "1.0"),
        ] {
            assert_eq!(upstream(version), expected);
        }
    }
}
