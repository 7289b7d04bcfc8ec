// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control groups (version 2): where a process is, and the freezer.

use std::fs;
use std::io;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;

/// Where they are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// How often is looked whether all of one stand still.
const NAP: Duration = Duration::from_millis(5);

/// Where a process is. `None` if it has ended, or where there is no version 2.
pub fn of(pid: u32) -> Option<PathBuf> {
    in_text(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// That of a unit of the system's, if something of it runs. systemd need not be asked: whoever is not root
/// reaches it only where there is a D-Bus.
pub fn of_unit(name: &str) -> Option<PathBuf> {
    unit_below(Path::new(ROOT), name).map(|below| Path::new("/").join(below))
}

/// Such units are in slices only. What is below a unit is its own, and may be a user's.
fn unit_below(directory: &Path, name: &str) -> Option<PathBuf> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return None;
    }
    if directory.join(name).join("cgroup.freeze").exists() {
        return Some(name.into());
    }
    let inner = fs::read_dir(directory).ok()?.flatten();
    let names = inner.map(|entry| entry.file_name());
    let mut slices = names.filter(|inner| inner.to_string_lossy().ends_with(".slice"));
    slices.find_map(|slice| {
        let below = unit_below(&directory.join(&slice), name)?;
        Some(Path::new(&slice).join(below))
    })
}

/// By what /proc says of a process.
fn in_text(text: &str) -> Option<PathBuf> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(|path| PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
}

/// Whether a path can only lead to a control group below the root.
pub fn is_well_formed(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && path.components().count() > 1
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.to_string_lossy().contains(['\0', '\n'])
}

/// Whether it is there, and can be frozen.
pub fn can_freeze(path: &Path) -> bool {
    file(path, "cgroup.freeze").exists()
}

/// Whether all processes in it stand still, by its own freezer or by that of one that it is in.
///
/// # Errors
///
/// It is not there.
pub fn stands_still(path: &Path) -> io::Result<bool> {
    Ok(is_frozen(&fs::read_to_string(file(path, "cgroup.events"))?))
}

/// Makes all processes in it, and below it, stand still, and waits until they do.
///
/// # Errors
///
/// It is not there, is not permitted, or takes longer.
pub fn freeze(path: &Path, deadline: &Deadline) -> io::Result<()> {
    fs::write(file(path, "cgroup.freeze"), "1")?;
    loop {
        if stands_still(path)? {
            return Ok(());
        }
        if deadline.is_over() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "not all of it stands still in time",
            ));
        }
        thread::sleep(deadline.slice(NAP));
    }
}

/// Lets them go on. One that is gone has nobody who could.
///
/// # Errors
///
/// It is not permitted.
pub fn thaw(path: &Path) -> io::Result<()> {
    match fs::write(file(path, "cgroup.freeze"), "0") {
        // The second one is of a file that was open when the group went.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(GONE) =>
        {
            Ok(())
        }
        thawed => thawed,
    }
}

/// ENODEV
const GONE: i32 = 19;

fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

fn file(path: &Path, name: &str) -> PathBuf {
    let below = path.strip_prefix("/").unwrap_or(path);
    Path::new(ROOT).join(below).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_one_of_version_2() {
        let found = |text| in_text(text).map(|path| path.display().to_string());
        assert_eq!(found("0::/a/b\n").as_deref(), Some("/a/b"));
        assert_eq!(found("1:cpu:/x\n0::/a b\n").as_deref(), Some("/a b"));
        assert_eq!(found("0::/a (deleted)\n").as_deref(), Some("/a"));
        assert_eq!(found("1:cpu:/x\n"), None);
    }

    #[test]
    fn a_unit_is_in_slices_only() {
        let root = tempfile::tempdir().expect("there is room");
        let make = |path: &str| {
            let directory = root.path().join(path);
            fs::create_dir_all(&directory).expect("there is room");
            fs::write(directory.join("cgroup.freeze"), "0").expect("there is room");
        };
        let found = |name| unit_below(root.path(), name);
        make("user.slice/user-7.slice/user@7.service/app.slice/nginx.service");
        make("system.slice/system-getty.slice/getty@tty1.service");
        assert_eq!(found("nginx.service"), None);
        make("system.slice/nginx.service");
        assert_eq!(
            found("nginx.service"),
            Some("system.slice/nginx.service".into())
        );
        let inner = "system.slice/system-getty.slice/getty@tty1.service";
        assert_eq!(found("getty@tty1.service"), Some(inner.into()));
        for name in ["", ".", "..", "system.slice/nginx.service", "no.service"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for path in ["/a", "/system.slice/nginx.service"] {
            assert!(is_well_formed(Path::new(path)), "{path}");
        }
        for path in ["", "/", "a", "/..", "/a/../..", "/a\n"] {
            assert!(!is_well_formed(Path::new(path)), "{path:?}");
        }
    }

    #[test]
    fn standing_still_is_an_event() {
        assert!(is_frozen("populated 1\nfrozen 1\n"));
        assert!(!is_frozen("populated 1\nfrozen 0\n"));
    }

    #[test]
    fn one_that_is_gone_is_thawed() {
        assert!(thaw(Path::new("/no/such/group")).is_ok());
        assert!(freeze(Path::new("/no/such/group"), &Deadline::after(None)).is_err());
        assert!(stands_still(Path::new("/no/such/group")).is_err());
    }
}
