// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `/proc` says of a process, and the files that it sees.
//!
//! A process chooses its own root, its own names and what lies there. So no file of it is opened before
//! it is known to be a regular one, and no link in it leads out of it.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;

/// What is in the auxiliary vector of a program that gained rights when it was started (getauxval(3)).
const AT_SECURE: usize = 23;
/// In which field of `stat` the start is, counted from behind the name.
const START: usize = 19;
/// What a file's name has behind it when it was removed.
const DELETED: &[u8] = b" (deleted)";

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its directory in `/proc`.
    directory: PathBuf,
}

/// What the kernel says first of a process in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// A letter.
    pub state: &'a str,
    /// Its parent's number.
    pub parent: i32,
    /// That of its process group.
    pub group: i32,
}

impl<'a> Stat<'a> {
    /// By its text, if it is there.
    pub fn of(text: &'a str) -> Option<Self> {
        // The name before that can have anything in it.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        Some(Self {
            state: words.next()?,
            parent: words.next()?.parse().ok()?,
            group: words.next()?.parse().ok()?,
        })
    }
}

/// A part of a file that a process has mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its name in `map_files`.
    range: String,
    /// Code can be run in it.
    pub is_executable: bool,
    /// Which file it is, wherever it is called what.
    pub identity: String,
    /// Its path, as we would call it, without a word about whether it was removed.
    pub path: PathBuf,
}

/// A number of a device.
type Device = u64;

impl Process {
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            directory: Path::new("/proc").join(pid.to_string()),
        }
    }

    /// All that there are, but for the kernel's own and this one.
    pub fn all() -> io::Result<Vec<Self>> {
        let entries = fs::read_dir("/proc")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut pids: Vec<u32> = pids.filter(|pid| *pid != std::process::id()).collect();
        pids.sort_unstable();
        let all = pids.into_iter().map(Self::new);
        Ok(all.filter(|process| !process.is_the_kernels()).collect())
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.directory.exists()
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.directory.join(file))
    }

    fn text(&self, file: &str) -> String {
        let text = self.read(file).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn is_the_kernels(&self) -> bool {
        self.text("status")
            .lines()
            .any(|line| line == "Kthread:\t1")
    }

    /// What its program calls itself.
    pub fn name(&self) -> String {
        self.text("comm").trim_end().to_owned()
    }

    /// The file of its program.
    pub fn program(&self) -> io::Result<PathBuf> {
        fs::read_link(self.directory.join("exe"))
    }

    /// All files that it has mapped.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        let maps = self.read("maps")?;
        let lines = maps.split(|byte| *byte == b'\n');
        Ok(lines.filter_map(Mapping::parse).collect())
    }

    /// The device that a mapping is of, where the kernel lets us ask.
    pub fn device_of(&self, mapping: &Mapping) -> io::Result<Option<Device>> {
        let metadata = fs::metadata(self.directory.join("map_files").join(&mapping.range))?;
        let is_device = metadata.file_type().is_char_device();
        Ok(is_device.then(|| metadata.rdev()))
    }

    /// Whether it has a descriptor of that device.
    pub fn holds(&self, device: Device) -> io::Result<bool> {
        let descriptors = fs::read_dir(self.directory.join("fd"))?.flatten();
        let mut files = descriptors.filter_map(|entry| fs::metadata(entry.path()).ok());
        Ok(files.any(|file| file.file_type().is_char_device() && file.rdev() == device))
    }

    /// A file that it has mapped, opened if it is a regular one.
    pub fn open(&self, mapping: &Mapping) -> io::Result<File> {
        let path = self.directory.join("map_files").join(&mapping.range);
        // Where it is removed, there is no other way to it; who lacks the right for this one goes by
        // its name.
        let found = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        match found {
            Ok(found) => open_regular(&found),
            Err(_) => open_regular(&self.look_up(&mapping.path)?),
        }
    }

    /// A file by the path by which the process knows it, opened if it is a regular one.
    pub fn open_path(&self, path: &Path) -> io::Result<File> {
        open_regular(&self.look_up(path)?)
    }

    /// The device of a node by the path by which the process knows it, and its mode.
    pub fn node(&self, path: &Path) -> io::Result<(Device, u32)> {
        let metadata = metadata(&self.look_up(path)?)?;
        if metadata.file_type().is_char_device() {
            return Ok((metadata.rdev(), metadata.mode() & 0o7777));
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Whether the process would find something there.
    pub fn finds(&self, path: &Path) -> io::Result<bool> {
        match self.look_up(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn look_up(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(self.directory.join("root"), flags, Mode::empty())?;
        // Links in it are its own affair, and must not lead us elsewhere.
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(
            root,
            path,
            flags,
            Mode::empty(),
            within,
        )?)
    }

    /// Whether its root is ours.
    pub fn has_our_root(&self) -> bool {
        let identity = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let theirs = identity(&self.directory.join("root"));
        theirs.is_some() && theirs == identity(Path::new("/"))
    }

    /// What a variable was set to when its program was started.
    pub fn variable(&self, name: &str) -> io::Result<Option<OsString>> {
        let environment = self.read("environ")?;
        let mut words = environment.split(|byte| *byte == 0);
        let value = words.find_map(|word| word.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        Ok(value.map(|value| OsString::from_vec(value.to_vec())))
    }

    /// Whether its program gained rights when it was started, and so believes no environment.
    pub fn is_secure(&self) -> io::Result<bool> {
        const WORD: usize = size_of::<usize>();
        let vector = self.read("auxv")?;
        let word = |bytes: &[u8]| {
            bytes
                .try_into()
                .map(usize::from_ne_bytes)
                .unwrap_or_default()
        };
        let mut pairs = vector.chunks_exact(2 * WORD);
        Ok(pairs.any(|pair| word(&pair[..WORD]) == AT_SECURE && word(&pair[WORD..]) != 0))
    }

    /// When it was started, by the clock as it goes now.
    pub fn started(&self) -> Option<SystemTime> {
        let stat = self.text("stat");
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: u64 = fields.split_whitespace().nth(START)?.parse().ok()?;
        let all = fs::read_to_string("/proc/stat").ok()?;
        let booted = all.lines().find_map(|line| line.strip_prefix("btime "))?;
        let seconds = ticks / rustix::param::clock_ticks_per_second();
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(booted.parse::<u64>().ok()? + seconds))
    }

    /// Where systemd has put it among its control groups.
    pub fn control_group(&self) -> Option<String> {
        let text = self.text("cgroup");
        let own = |line: &str| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers) = (fields.next()?, fields.next()?);
            let path = fields.next()?;
            (number == "0" || controllers == "name=systemd").then(|| path.to_owned())
        };
        text.lines().find_map(own)
    }

    /// The unit of the system that it belongs to.
    pub fn unit(&self) -> Option<String> {
        let group = self.control_group()?;
        let is_unit = |name: &&str| {
            let kind = name.rsplit_once('.').map(|(_, kind)| kind);
            matches!(kind, Some("service" | "scope"))
        };
        group.split('/').find(is_unit).map(ToOwned::to_owned)
    }

    /// What confines it: a profile of `AppArmor`, or a domain of `SELinux`.
    pub fn confinement(&self) -> Option<String> {
        let label = self.text("attr/current");
        let label = label.trim_end_matches(['\0', '\n']);
        let domain = label.split(':').nth(2).unwrap_or(label);
        let is_free = label.is_empty()
            || label == "unconfined"
            // What SELinux lets do what they want, and what it has no policy for.
            || ["unconfined_t", "unconfined_service_t", "initrc_t", "kernel_t"].contains(&domain);
        (!is_free).then(|| label.to_owned())
    }
}

impl Mapping {
    /// A line of `maps`, if it is of a file.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let (range, permissions, _offset) = (text()?, text()?, text()?);
        let (device, inode) = (text()?, text()?);
        let path = fields.next()?.trim_ascii_start();
        if !path.starts_with(b"/") {
            return None;
        }
        let path = path.strip_suffix(DELETED).unwrap_or(path);
        Some(Self {
            range: range.into(),
            is_executable: permissions.contains('x'),
            identity: format!("{device} {inode}"),
            path: OsStr::from_bytes(path).into(),
        })
    }

    /// The file's name.
    pub fn file_name(&self) -> &[u8] {
        self.path.file_name().map_or(b"", OsStr::as_bytes)
    }
}

fn metadata(found: &OwnedFd) -> io::Result<fs::Metadata> {
    fs::metadata(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Opens what was only looked at, if it is a regular file: to open another one may have consequences.
fn open_regular(found: &OwnedFd) -> io::Result<File> {
    if !metadata(found)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// The text of a file, of which no more is read than a configuration has.
pub fn read_some(file: &File) -> io::Result<Vec<u8>> {
    const MOST: u64 = 1 << 20;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// One that is made of files.
    fn process(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Process) {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        let process = Process {
            pid: 7,
            directory: directory.path().to_owned(),
        };
        (directory, process)
    }

    #[test]
    fn names_of_processes_confuse_nobody() {
        let stat = Stat::of("7 (a) S 1 2) S 3 4 5 6").expect("it has all");
        assert_eq!((stat.state, stat.parent, stat.group), ("S", 3, 4));
        assert_eq!(Stat::of(""), None);
    }

    #[test]
    fn files_are_found_in_the_maps() {
        let maps =
            b"7fdfa0d97000-7fdfa0d98000 r--s 00001000 00:09 101        /dev/vmgenid (deleted)\n\
            00420000-00740000 r-xp 00020000 00:03 287                     /usr/bin/a b\n\
            00a85000-00af9000 rw-p 00000000 00:00 0 \n\
            053f4000-05563000 rw-p 00000000 00:00 0                       [heap]\n";
        let (_directory, process) = process(&[("maps", maps)]);
        let found = process.mappings().expect("it can be read");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].path, Path::new("/dev/vmgenid"));
        assert_eq!(found[0].file_name(), b"vmgenid");
        assert!(!found[0].is_executable);
        assert_eq!(found[1].path, Path::new("/usr/bin/a b"));
        assert_eq!(found[1].identity, "00:03 287");
        assert!(found[1].is_executable);
    }

    #[test]
    fn the_environment_is_searched() {
        let environment = b"OPENSSL_CONFIG=a\0OPENSSL_CONF=/x.cnf\0E=\0";
        let (_directory, process) = process(&[("environ", environment)]);
        let variable = |name| process.variable(name).expect("it can be read");
        assert_eq!(
            variable("OPENSSL_CONF").as_deref(),
            Some(OsStr::new("/x.cnf"))
        );
        assert_eq!(variable("E").as_deref(), Some(OsStr::new("")));
        assert_eq!(variable("F"), None);
    }

    #[test]
    fn gained_rights_are_seen() {
        let vector = |secure: usize| {
            let words = [6, 4096, AT_SECURE, secure, 0, 0];
            words.map(usize::to_ne_bytes).concat()
        };
        let (_directory, gained) = process(&[("auxv", &vector(1))]);
        assert!(gained.is_secure().expect("it can be read"));
        let (_directory, plain) = process(&[("auxv", &vector(0))]);
        assert!(!plain.is_secure().expect("it can be read"));
        let (_directory, other) = process(&[]);
        assert!(other.is_secure().is_err());
    }

    #[test]
    fn units_are_found_in_control_groups() {
        let unit = |text: &str| {
            let (_directory, process) = process(&[("cgroup", text.as_bytes())]);
            process.unit()
        };
        let nginx = Some("nginx.service".to_owned());
        assert_eq!(unit("0::/system.slice/nginx.service/x\n"), nginx);
        assert_eq!(
            unit("4:cpu:/a.service\n1:name=systemd:/system.slice/nginx.service\n"),
            nginx
        );
        assert_eq!(unit("0::/\n"), None);
    }

    #[test]
    fn who_is_confined_is_told() {
        let confinement = |label: &str| {
            let (_directory, process) = process(&[("attr/current", label.as_bytes())]);
            process.confinement()
        };
        for free in [
            "",
            "unconfined\n",
            "u:r:unconfined_t:s0\0",
            "s:r:kernel_t:s0",
        ] {
            assert_eq!(confinement(free), None, "{free}");
        }
        let enforced = "/usr/sbin/cupsd (enforce)";
        assert_eq!(
            confinement(&format!("{enforced}\n")).as_deref(),
            Some(enforced)
        );
        let domain = "system_u:system_r:httpd_t:s0";
        assert_eq!(confinement(domain).as_deref(), Some(domain));
    }

    #[test]
    fn a_process_is_looked_at() {
        let before = SystemTime::now() - Duration::from_secs(60);
        let mut child = Command::new("sleep").arg("60").spawn().expect("it starts");
        let process = Process::new(child.id());
        let all = Process::all().expect("it can be read");
        assert!(all.contains(&process));
        let me = std::process::id();
        assert!(all.iter().all(|other| other.pid != me));
        let started = process.started().expect("it has started");
        assert!(started > before && started < SystemTime::now() + Duration::from_secs(60));
        assert!(process.has_our_root());
        assert!(
            process
                .finds(Path::new("/proc"))
                .expect("it can be looked at")
        );
        assert!(
            !process
                .finds(Path::new("/no/such"))
                .expect("it can be looked at")
        );
        let null = process.node(Path::new("/dev/null")).expect("it is there");
        assert_eq!(null.0, rustix::fs::makedev(1, 3));
        assert!(process.node(Path::new("/proc/stat")).is_err());
        assert!(process.open_path(Path::new("/dev/null")).is_err());
        child.kill().expect("it is there");
        child.wait().expect("it has ended");
        assert!(!process.exists());
    }

    #[test]
    fn links_do_not_lead_out_of_a_root() {
        let (directory, process) = process(&[("root/etc/x.cnf", b"inner")]);
        let root = directory.path().join("root");
        for (link, target) in [("absolute", "/etc/x.cnf"), ("up", "../../../etc/x.cnf")] {
            std::os::unix::fs::symlink(target, root.join(link)).expect("it can be made");
            let file = process
                .open_path(&Path::new("/").join(link))
                .expect("it is there");
            assert_eq!(read_some(&file).expect("it can be read"), b"inner");
        }
    }
}
