// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab system`: a Debian system in a directory of its own. A command runs in it as root, natively,
//! and what it leaves can become the disk of a machine.
//!
//! A system is made once for each list of packages, and nothing writes to it afterwards: each
//! command has a copy, in which only what it changes takes room. Debian's programs are all that
//! touches the files: mmdebstrap makes the system, bubblewrap runs commands in it, and mke2fs makes
//! a file system of it. None of them has to be root on the host.

use std::env;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use rustix::fs::FlockOperation;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::cache;
use crate::guest::FAILED;
use crate::say;
use crate::scratch::Scratch;
use crate::setup::Addition;
use crate::step;
use crate::step::execute;

/// Where the systems are in the cache.
const PLACE: &str = "systems";

/// Where the packages are that were fetched for them.
const PACKAGES: &str = "debs";

/// Where apt looks for packages before it fetches them.
const ARCHIVES: &str = "var/cache/apt/archives";

/// What a system may need, in bytes.
const NEEDED: u64 = 4 << 30;

/// How the toolchain root's apt and dpkg are configured, and a system's while it is made.
const APT_OPTIONS: &str = "etc/apt/apt.conf.d/99mmdebstrap";
const DPKG_OPTIONS: &str = "etc/dpkg/dpkg.cfg.d/99mmdebstrap";

const HOSTNAME: &str = "debian";

const HOSTS: &str = "\
127.0.0.1\tlocalhost
127.0.1.1\tdebian
::1\t\tlocalhost ip6-localhost ip6-loopback
";

/// Keeps services from being started by the installation of their packages.
const POLICY: &str = "usr/sbin/policy-rc.d";

/// For the names of hosts on the network.
const RESOLVER: &str = "etc/resolv.conf";

/// Puts files in their places, then becomes the command. Its arguments are as many pairs as the first
/// one says, and the command. A directory that is there stays as it is, and so do the modes of files.
const BEGIN: &str = "\
pairs=$1
shift
umask 022
while [ \"$pairs\" -gt 0 ]; do
	mkdir -p -- \"${2%/*}/\" && (umask 0 && cp -RT -- \"$1\" \"$2\") || exit 125
	shift 2
	pairs=$((pairs - 1))
done
exec \"$@\"";

/// Where a command finds what is added, before it is in its place.
const ADDED: &str = "/run/lab";

/// Of the caller's environment, what tells how to get to the network.
const PASSED_ON: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// Options of a system.
#[derive(clap::Args, Clone, Debug)]
pub struct SystemOptions {
    /// A Debian package that the system has besides the essential ones, with all that it depends
    /// on. NAME/SUITE is that suite's, as in linux-image-cloud-amd64/trixie-backports; may be repeated
    #[arg(long, value_name = "NAME[/SUITE]", value_parser = package)]
    pub package: Vec<String>,
    /// Put a file or a directory into the system's /, or at PLACE (an absolute path)
    #[arg(long, value_name = "HOST[:PLACE]")]
    pub add: Vec<String>,
    /// If the command exits with 0, write what it leaves as a file system (ext4) to FILE, for
    /// `lab run --disk`
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// How big that is; what is empty of it takes no room
    #[arg(long, default_value = "4G", value_name = "SIZE", value_parser = crate::setup::memory_size, requires = "image")]
    pub size: String,
}

/// Refuses what would be something else to mmdebstrap.
fn package(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-./=:~".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("not a package such as udev or NAME/trixie-backports".into())
    }
}

/// Makes the system, runs the command in a copy of it, and returns what that exits with.
pub fn run(options: &SystemOptions, command: &[String]) -> Result<u8> {
    // What the caller got wrong is said before anything takes long.
    let additions: Vec<_> = options
        .add
        .iter()
        .map(|text| Addition::parse(text))
        .collect::<Result<_>>()?;
    let image = options.image.as_deref().map(cache::from_caller);
    if let Some(image) = &image {
        ensure!(
            image.parent().is_some_and(Path::is_dir) && !image.is_dir(),
            "--image: cannot write to {}: it is a directory, or lies in none",
            cache::shown(image)
        );
    }
    let copy = loop {
        // Whoever forgets systems may be faster.
        if let Some(copy) = Copy::of(&base(&options.package)?)? {
            break copy;
        }
    };
    let status = copy.run(&additions, command)?;
    if let (0, Some(image)) = (status, image) {
        copy.write(&image, &options.size)?;
    }
    Ok(status)
}

/// Removes the systems that nobody uses, so that new ones have what the archive has now.
pub fn forget() -> Result<()> {
    for entry in fs::read_dir(cache::directory(PLACE)?)? {
        let path = entry?.path();
        if !cache::is_whole(&path) {
            continue;
        }
        if let Some(_held) = cache::hold(&path) {
            cache::remove(&path)?;
        } else {
            let path = cache::shown(&path);
            say::say(format!("{path} is in use, and stays as it is"));
        }
    }
    cache::empty(&cache::directory(PACKAGES)?)
}

/// The directory of the system with these packages, which nothing may write to.
fn base(packages: &[String]) -> Result<PathBuf> {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    let sources = fs::read_to_string("/etc/apt/sources.list").context("no apt sources")?;
    let mut parts = vec![sources.as_str(), HOSTNAME, HOSTS];
    parts.extend(packages.iter().map(String::as_str));
    let directory = cache::made(&format!("{PLACE}/{}", cache::key(&parts)), |directory| {
        let what = if packages.is_empty() {
            "making a Debian system".into()
        } else {
            format!("making a Debian system with {}", packages.join(", "))
        };
        step::step(&what, || make(&packages, &sources, directory))
    })?;
    Ok(directory)
}

fn make(packages: &[String], sources: &str, directory: &Path) -> Result<()> {
    if cache::free_space()? < NEEDED {
        bail!(
            "less than 4 GB are free for the cache; make room, or let SYSGENID_CACHE name another place"
        );
    }
    let suite = sources
        .lines()
        .find_map(|line| line.strip_prefix("deb ")?.split_whitespace().nth(1))
        .context("apt's list of sources names no suite")?;
    let root = directory.join("root");
    let lend = format!(
        "mkdir -p \"$1/{ARCHIVES}\" && find {} -name '*.deb' -exec ln -t \"$1/{ARCHIVES}\" {{}} +",
        cache::directory(PACKAGES)?.display()
    );
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--mode=root", "--variant=apt"])
        .arg(format!("--aptopt=/{APT_OPTIONS}"))
        .arg(format!("--dpkgopt=/{DPKG_OPTIONS}"))
        // The lists stay, so that nothing has to be asked for again, and the packages are moved.
        .arg("--skip=essential/unlink,cleanup/apt")
        .arg(format!("--setup-hook={lend}"));
    if !packages.is_empty() {
        mmdebstrap.arg(format!("--include={}", packages.join(",")));
    }
    mmdebstrap
        .arg(suite)
        .arg(&root)
        .arg("/etc/apt/sources.list")
        .env("DEBIAN_FRONTEND", "noninteractive");
    execute(&mut mmdebstrap, "system").context("cannot make the system")?;
    keep_packages(&root)?;

    // What else the installer of Debian leaves behind.
    fs::write(root.join("etc/hostname"), format!("{HOSTNAME}\n"))?;
    fs::write(root.join("etc/hosts"), HOSTS)?;
    fs::remove_file(root.join(RESOLVER))?;
    // What a command installs comes whole, and with what it recommends, as on any machine.
    let options = fs::read_to_string(root.join(APT_OPTIONS))?
        .lines()
        .filter(|line| !line.contains("Install-Recommends"))
        .fold(String::new(), |all, line| all + line + "\n");
    fs::write(
        root.join(APT_OPTIONS),
        options + "Binary::apt::APT::Keep-Downloaded-Packages \"true\";\n",
    )?;
    fs::write(root.join(DPKG_OPTIONS), "force-unsafe-io\n")?;
    Ok(())
}

/// Moves the packages that apt has fetched to the cache.
fn keep_packages(root: &Path) -> Result<()> {
    let kept = cache::directory(PACKAGES)?;
    for entry in fs::read_dir(root.join(ARCHIVES))? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let place = kept.join(entry.file_name());
        if !place.exists() {
            // A system can be on another file system than it seems to be.
            let new = tempfile::NamedTempFile::new_in(&kept)?;
            fs::copy(&path, new.path())?;
            new.persist(&place)?;
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// A copy of a system, which may be changed.
struct Copy {
    root: PathBuf,
    is_mounted: bool,
    _scratch: Scratch,
    /// That the system itself is in use.
    _held: File,
}

impl Copy {
    /// Copies a system, if it is still there.
    fn of(system: &Path) -> Result<Option<Self>> {
        let Ok(held) = File::open(system) else {
            return Ok(None);
        };
        rustix::fs::flock(&held, FlockOperation::LockShared)?;
        if !cache::is_whole(system) {
            return Ok(None);
        }
        let base = system.join("root");
        let scratch = Scratch::new()?;
        let directory = |name: &str| -> Result<PathBuf> {
            let path = scratch.path().join(name);
            fs::create_dir(&path)?;
            Ok(path)
        };
        let (root, changed, work) = (
            directory("root")?,
            directory("changed")?,
            directory("work")?,
        );
        lend_packages(&changed)?;
        // The root directory's mode is that of the topmost layer.
        fs::set_permissions(&changed, Permissions::from_mode(0o755))?;
        // With `userxattr` it is the same for root and for an ordinary user in his namespace; what is
        // lost when the host crashes is of no interest.
        let layers = format!(
            "lowerdir={},upperdir={},workdir={},userxattr,volatile",
            base.display(),
            changed.display(),
            work.display()
        );
        let layers = CString::new(layers)?;
        let flags = MountFlags::empty();
        let mounted = rustix::mount::mount("overlay", &root, "overlay", flags, layers.as_c_str());
        // The kernel may be older than 5.11, or the cache itself lie on such layers.
        if let Err(error) = &mounted {
            say::note(format!(
                "copying the whole system: this machine cannot mount layers over it ({error})"
            ));
            let mut copy = Command::new("cp");
            copy.args(["--archive", "--reflink=auto"])
                .arg(base.join("."))
                .arg(&root);
            execute(&mut copy, "system-copy").context("cannot copy the system")?;
            lend_packages(&root)?;
        }
        Ok(Some(Self {
            root,
            is_mounted: mounted.is_ok(),
            _scratch: scratch,
            _held: held,
        }))
    }

    /// Runs the command, with these files in their places.
    fn run(&self, additions: &[Addition], command: &[String]) -> Result<u8> {
        if command.is_empty() && additions.is_empty() {
            return Ok(0);
        }
        let policy = self.root.join(POLICY);
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&policy, Permissions::from_mode(0o755))?;
        fs::copy(Path::new("/").join(RESOLVER), self.root.join(RESOLVER))?;

        let mut bwrap = Command::new("bwrap");
        bwrap.arg("--bind").arg(&self.root).arg("/");
        bwrap.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"]);
        // The kernel is the host's.
        for path in ["/sys", "/proc/sys", "/proc/sysrq-trigger"] {
            bwrap.args(["--ro-bind-try", path, path]);
        }
        bwrap.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        bwrap.args(["--hostname", HOSTNAME, "--cap-add", "ALL", "--chdir", "/"]);
        bwrap.args(["--die-with-parent", "--clearenv"]);
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("TERM", "linux"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ] {
            bwrap.args(["--setenv", name, value]);
        }
        for name in PASSED_ON {
            if let Some(value) = env::var_os(name) {
                bwrap.args(["--setenv", name]).arg(value);
            }
        }
        for (number, addition) in additions.iter().enumerate() {
            bwrap.arg("--ro-bind").arg(&addition.from);
            bwrap.arg(format!("{ADDED}/{number}"));
        }
        bwrap.args(["--", "sh", "-c", BEGIN, "sh"]);
        bwrap.arg(additions.len().to_string());
        for (number, addition) in additions.iter().enumerate() {
            bwrap.arg(format!("{ADDED}/{number}")).arg(&addition.guest);
        }
        if command.is_empty() {
            bwrap.arg("true");
        }
        // Its last words come after ours.
        io::stderr().flush()?;
        let status = bwrap.args(command).status().context("cannot start bwrap")?;
        keep_packages(&self.root)?;
        fs::remove_file(&policy)?;
        // Some packages replace it with a link.
        if self.root.join(RESOLVER).is_file() {
            fs::remove_file(self.root.join(RESOLVER))?;
        }
        Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(FAILED))
    }

    /// Writes it as a file system.
    fn write(&self, image: &Path, size: &str) -> Result<()> {
        for options in [APT_OPTIONS, DPKG_OPTIONS] {
            fs::remove_file(self.root.join(options))?;
        }
        for directory in ["tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt"] {
            cache::empty(&self.root.join(directory))?;
        }
        let what = format!("writing the disk {}", cache::shown(image));
        step::step(&what, || {
            let mut part = image.as_os_str().to_owned();
            part.push(".part");
            File::create(&part).context("it cannot be written there")?;
            let mut mke2fs = Command::new("mke2fs");
            mke2fs
                .args(["-q", "-F", "-t", "ext4", "-m", "0"])
                // A new file has zeros only, so nobody has to write them, nor the machine later.
                .args(["-E", "root_owner=0:0,assume_storage_prezeroed=1"])
                .arg("-d")
                .arg(&self.root)
                .arg(&part)
                .arg(size);
            execute(&mut mke2fs, "mke2fs")
                .with_context(|| format!("the system does not fit into {size}? See --size"))?;
            fs::rename(&part, image)?;
            Ok(())
        })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if self.is_mounted {
            // Nothing runs in it any more, and it goes with the sandbox at the latest.
            rustix::mount::unmount(&self.root, UnmountFlags::DETACH).ok();
        }
    }
}

/// Lets apt find, below that root directory, what was fetched before.
fn lend_packages(root: &Path) -> Result<()> {
    let archives = root.join(ARCHIVES);
    fs::create_dir_all(&archives)?;
    for entry in fs::read_dir(cache::directory(PACKAGES)?)? {
        let entry = entry?;
        fs::hard_link(entry.path(), archives.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_no_option_and_no_list() {
        for right in [
            "udev",
            "linux-image-7.3.4+deb13-cloud-amd64/trixie-backports",
            "g++",
            "a=1~b",
        ] {
            assert!(package(right).is_ok(), "{right}");
        }
        for wrong in ["", "-y", "a,b", "a b", "?essential", "./a.deb"] {
            assert!(package(wrong).is_err(), "{wrong}");
        }
    }
}
