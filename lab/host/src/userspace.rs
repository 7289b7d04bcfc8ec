// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's own user space for a guest: the files of packages that the toolchain root holds.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::cache;
use crate::initramfs::Initramfs;
use crate::step::output_of;

const ARCHIVE: &str = "archive";

/// What a guest with `--userspace` is made of, each with all that it depends on.
pub const PACKAGES: [&str; 8] = [
    "coreutils",
    "dash",
    "libssl3t64",
    "nginx",
    "openssl",
    "python3",
    "strace",
    "udev",
];

/// What a guest with `--systemd` is made of.
pub const SYSTEM: [&str; 15] = [
    "base-files",
    "coreutils",
    "dash",
    "kmod",
    "libseccomp2",
    "libssl3t64",
    "nginx",
    "openssh-client",
    "openssh-server",
    "openssl",
    "python3",
    "systemd",
    "udev",
    "util-linux",
    "util-linux-extra",
];

/// What packages do not list because it is made when they are installed.
const MADE: [&str; 7] = [
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/ssh/sshd_config",
    "/usr/bin/sh",
];

/// What no guest has a use for.
const LEFT_OUT: [&str; 7] = [
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/i18n/",
    "/usr/lib/x86_64-linux-gnu/gconv/",
    "/usr/lib/udev/hwdb.d/",
    "/usr/share/perl/",
];

/// The archive with the files of these packages and of all that they depend on.
pub fn archive(packages: &[&str]) -> Result<PathBuf> {
    let root = env::var("LAB_ROOT_KEY").context("the lab's tool is started by lab/lab")?;
    let mut made_from = vec![root.as_str()];
    made_from.extend(packages);
    made_from.extend(MADE);
    let name = format!("userspace/{}", cache::key(&made_from));
    let directory = cache::made(&name, |directory| {
        let mut initramfs = Initramfs::default();
        add(&mut initramfs, packages)?;
        initramfs.busybox_applets()?;
        initramfs.write(&directory.join(ARCHIVE), None)
    })?;
    Ok(directory.join(ARCHIVE))
}

/// Adds the files of these packages, and of all packages that they depend on.
fn add(initramfs: &mut Initramfs, packages: &[&str]) -> Result<()> {
    let status = fs::read_to_string("/var/lib/dpkg/status").context("no dpkg status")?;
    for package in closure(&status, packages)? {
        let list = output_of(Command::new("dpkg-query").arg("--listfiles").arg(&package))?;
        for name in list
            .lines()
            .filter(|name| name.starts_with('/') && *name != "/.")
        {
            if !LEFT_OUT.iter().any(|prefix| name.starts_with(prefix)) {
                add_file(initramfs, name)?;
            }
        }
    }
    for name in MADE {
        add_file(initramfs, name)?;
    }
    Ok(())
}

fn add_file(initramfs: &mut Initramfs, name: &str) -> Result<()> {
    let path = Path::new(name);
    // Packages list directories one by one, and may list what the root leaves out.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => initramfs.directory(path, path),
        Ok(_) => initramfs.add(path, path),
        Err(_) => Ok(()),
    }
}

/// The packages and all that they depend on, by dpkg's own records. Of alternatives, and of
/// virtual packages, it takes what is installed.
fn closure(status: &str, packages: &[&str]) -> Result<BTreeSet<String>> {
    let mut depends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut provides: BTreeMap<&str, &str> = BTreeMap::new();
    for stanza in status.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let Some(package) = field("Package") else {
            continue;
        };
        let dependencies = [field("Pre-Depends"), field("Depends")];
        depends.insert(
            package,
            dependencies
                .into_iter()
                .flatten()
                .flat_map(|list| list.split(','))
                .collect(),
        );
        for provided in field("Provides")
            .into_iter()
            .flat_map(|list| list.split(','))
        {
            provides.insert(name_of(provided), package);
        }
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = packages.to_vec();
    while let Some(package) = open.pop() {
        let dependencies = depends
            .get(package)
            .with_context(|| format!("the toolchain root lacks the package {package}"))?;
        if !found.insert(package.to_owned()) {
            continue;
        }
        for alternatives in dependencies {
            let installed = alternatives.split('|').map(name_of).find_map(|name| {
                let (real, _) = depends.get_key_value(name)?;
                Some(*real)
            });
            let installed = installed.or_else(|| {
                let mut names = alternatives.split('|').map(name_of);
                names.find_map(|name| provides.get(name).copied())
            });
            open.extend(installed);
        }
    }
    Ok(found)
}

/// The name in `name:arch (>= version) [arch]`.
fn name_of(dependency: &str) -> &str {
    let name = dependency.trim();
    let end = name.find([' ', ':', '(', '[']).unwrap_or(name.len());
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: program
Depends: library (>= 2), other | virtual:any

Package: library
Pre-Depends: base

Package: base

Package: real
Provides: virtual (= 1)

Package: unrelated
";

    #[test]
    fn the_closure_follows_versions_alternatives_and_virtual_packages() {
        let found = closure(STATUS, &["program"]).expect("all are installed");
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["base", "library", "program", "real"]);
    }

    #[test]
    fn a_package_that_is_not_there_is_named() {
        let error = closure(STATUS, &["absent"]).expect_err("it is not installed");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
