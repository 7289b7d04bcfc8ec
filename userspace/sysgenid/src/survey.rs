// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who watches the generation, from `/proc`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::Error;
use crate::Result;
use crate::Status;
use crate::Watcher;

/// Who watches the generation, as far as this process may look.
///
/// A watcher is an open file description, and `/proc` shows descriptors: one that several processes
/// share, or that was duplicated, is listed for each of them. A program that has mapped the generation
/// and closed its descriptor is no watcher, and is not listed.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    entries: Vec<SurveyEntry>,
    unreadable: usize,
}

/// A descriptor of `/dev/sysgenid`, and whose it is.
#[derive(Clone, Debug)]
pub struct SurveyEntry {
    pid: u32,
    command: String,
    fd: u32,
    status: Status,
}

impl Survey {
    /// Looks into each process; `own` is left out.
    pub(crate) fn take(own: &Watcher) -> Result<Self> {
        let proc = Path::new("/proc");
        let me = std::process::id();
        let own = u32::try_from(own.as_fd().as_raw_fd()).ok();
        let mut survey = Self::default();
        let processes = fs::read_dir(proc).map_err(|source| Error::Io {
            action: "read",
            node: proc.to_owned(),
            source,
        })?;
        for entry in processes.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match watchers_of(&entry.path()) {
                Ok(watchers) => {
                    let command = command(&entry.path());
                    let watchers = watchers.into_iter();
                    let others = watchers.filter(|&(fd, _)| pid != me || Some(fd) != own);
                    survey
                        .entries
                        .extend(others.map(|(fd, status)| SurveyEntry {
                            pid,
                            command: command.clone(),
                            fd,
                            status,
                        }));
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    survey.unreadable += usize::from(!is_kernel_thread(&entry.path()));
                }
                // It has ended while we looked.
                Err(_) => {}
            }
        }
        survey.entries.sort_by_key(|entry| (entry.pid, entry.fd));
        Ok(survey)
    }

    /// All descriptors, by process ID and number.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// for entry in sysgenid::Overseer::open()?.survey()?.entries() {
    ///     println!("{}: {}", entry.pid(), entry.command());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn entries(&self) -> &[SurveyEntry] {
        &self.entries
    }

    /// Those whose watcher is tracked and has yet to acknowledge: those who hold an overseer up.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let survey = sysgenid::Overseer::open()?.survey()?;
    /// println!("{} hold the overseer up", survey.outdated().count());
    /// # Ok(())
    /// # });
    /// ```
    pub fn outdated(&self) -> impl Iterator<Item = &SurveyEntry> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.status.tracked() && entry.status.outdated())
    }

    /// How many processes could not be looked at, because they are other users'.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let survey = sysgenid::Overseer::open()?.survey()?;
    /// if survey.unreadable() > 0 {
    ///     println!("{} processes could not be looked at", survey.unreadable());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }
}

impl SurveyEntry {
    /// The process.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// for entry in sysgenid::Overseer::open()?.survey()?.entries() {
    ///     println!("{}", entry.pid());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its command line or, where it has none, its name.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// for entry in sysgenid::Overseer::open()?.survey()?.entries() {
    ///     println!("{}", entry.command());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The number of the descriptor.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// for entry in sysgenid::Overseer::open()?.survey()?.entries() {
    ///     println!("/proc/{}/fd/{}", entry.pid(), entry.fd());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn fd(&self) -> u32 {
        self.fd
    }

    /// What the driver says of the watcher.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// for entry in sysgenid::Overseer::open()?.survey()?.entries() {
    ///     println!("{}: {}", entry.pid(), entry.status().outdated());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }
}

/// The descriptors of a process that are watchers.
fn watchers_of(process: &Path) -> io::Result<Vec<(u32, Status)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(process.join("fd"))?.flatten() {
        // Whose directory can be listed can still be closed to us: root is not allowed everything.
        let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let name = entry.file_name();
        let fd = match (fs::read_link(entry.path()), name.to_str()) {
            // Sockets, pipes and the like have no path.
            (Ok(target), Some(fd)) if target.is_absolute() => fd,
            (Err(error), _) if is_denied(&error) => return Err(error),
            _ => continue,
        };
        let text = match fs::read_to_string(process.join("fdinfo").join(fd)) {
            Ok(text) => text,
            Err(error) if is_denied(&error) => return Err(error),
            // It was closed while we looked.
            Err(_) => continue,
        };
        if let (Ok(fd), Ok(status)) = (fd.parse(), Status::parse(&text)) {
            found.push((fd, status));
        }
    }
    Ok(found)
}

/// A thread of the kernel has no descriptors. Older kernels do not say which process is one.
fn is_kernel_thread(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line == "Kthread:\t1")
}

fn command(process: &Path) -> String {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let words = words
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    if words.is_empty() {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        return name.trim_end().to_owned();
    }
    words.join(" ")
}
