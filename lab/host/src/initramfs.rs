// SPDX-License-Identifier: MIT OR Apache-2.0

//! A guest's files: an archive that the kernel unpacks into memory, or init when the guest is up.
//!
//! Everything a guest has comes like that, so that a saved machine depends on no file of the host.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use cpio::newc;

use crate::step::output_of;

/// Where Debian's busybox-static lies, on the host's side and in the guest.
const BUSYBOX: &str = "/usr/bin/busybox";

/// File types in an archive's mode field; the same numbers as in `struct stat`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

enum Entry {
    Directory(u32),
    Link(Vec<u8>),
    File { from: PathBuf, mode: u32 },
    Text { text: Vec<u8>, mode: u32 },
    Console,
}

/// A file system in the making: guest paths without the leading slash, and what is there.
#[derive(Default)]
pub struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Initramfs {
    /// The least that a guest boots from: init, and the directories that it mounts on.
    pub fn bootable() -> Result<Self> {
        let tool = env::var_os("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
        let mut new = Self::default();
        for name in [
            "dev", "proc", "sys", "tmp", "run", "root", "etc", "mnt", "var",
        ] {
            new.put(name, Entry::Directory(0o755));
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            new.put(format!("usr/{name}"), Entry::Directory(0o755));
            new.put(name, Entry::Link(format!("usr/{name}").into_bytes()));
        }
        // Without it the kernel warns that init has no console.
        new.put("dev/console", Entry::Console);
        new.file(&Path::new(&tool).join("init"), "init")?;
        new.file(Path::new(BUSYBOX), BUSYBOX)?;
        Ok(new)
    }

    /// Gives a guest that has no packages the users that every system has.
    pub fn users(&mut self) {
        self.text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        );
        self.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    }

    /// Gives the guest busybox under all its names, where nothing better has the name.
    pub fn busybox_applets(&mut self) -> Result<()> {
        for name in output_of(Command::new(BUSYBOX).arg("--list-full"))?.lines() {
            // Debian's layout: everything is in /usr.
            let name = Path::new("usr").join(name.trim_start_matches("usr/"));
            self.entries
                .entry(name)
                .or_insert_with(|| Entry::Link(BUSYBOX.into()));
        }
        Ok(())
    }

    /// Adds a file, a link, or a directory with all that is in it.
    pub fn add(&mut self, from: &Path, guest: impl AsRef<Path>) -> Result<()> {
        let guest = guest.as_ref();
        let kind = fs::symlink_metadata(from)
            .with_context(|| format!("cannot read {}", from.display()))?
            .file_type();
        if kind.is_symlink() {
            let target = fs::read_link(from)?;
            self.put(guest, Entry::Link(target.as_os_str().as_bytes().to_vec()));
        } else if kind.is_dir() {
            self.directory(from, guest)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                self.add(&entry.path(), guest.join(entry.file_name()))?;
            }
        } else if kind.is_file() {
            self.file(from, guest)?;
        } else {
            bail!("{} is neither a file nor a directory", from.display());
        }
        Ok(())
    }

    /// Adds all that is in a directory, to the root of the guest.
    pub fn add_all(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            self.add(&entry.path(), entry.file_name())?;
        }
        Ok(())
    }

    /// Adds a directory without what is in it.
    pub fn directory(&mut self, from: &Path, guest: impl AsRef<Path>) -> Result<()> {
        let mode = fs::metadata(from)?.permissions().mode() & 0o7777;
        self.put(guest, Entry::Directory(mode));
        Ok(())
    }

    /// Adds a file, following a link to it.
    pub fn file(&mut self, from: &Path, guest: impl AsRef<Path>) -> Result<()> {
        let mode = fs::metadata(from)
            .with_context(|| format!("cannot read {}", from.display()))?
            .permissions()
            .mode()
            & 0o7777;
        let from = from.to_owned();
        self.put(guest, Entry::File { from, mode });
        Ok(())
    }

    /// Adds a file with that text.
    pub fn text(&mut self, guest: impl AsRef<Path>, text: impl Into<Vec<u8>>) {
        let text = text.into();
        self.put(guest, Entry::Text { text, mode: 0o644 });
    }

    /// Leaves out what is called so.
    pub fn leave_out(&mut self, is_left_out: impl Fn(&Path) -> bool) {
        self.entries.retain(|name, _| !is_left_out(name));
    }

    /// Adds all that the other one has, in place of what is here.
    pub fn extend(&mut self, other: Self) {
        for (name, entry) in other.entries {
            self.put(name, entry);
        }
    }

    fn put(&mut self, guest: impl AsRef<Path>, entry: Entry) {
        let guest = guest.as_ref();
        let guest = guest.strip_prefix("/").unwrap_or(guest);
        let mut parent = guest.parent();
        while let Some(directory) = parent.filter(|path| !path.as_os_str().is_empty()) {
            self.entries
                .entry(directory.to_owned())
                .or_insert(Entry::Directory(0o755));
            parent = directory.parent();
        }
        // A directory that is a link already, as Debian's /bin is, stays the link.
        if let (Entry::Directory(_), Some(Entry::Link(_))) = (&entry, self.entries.get(guest)) {
            return;
        }
        self.entries.insert(guest.to_owned(), entry);
    }

    /// Writes the archive, after another one if there is one: the kernel unpacks both, and what
    /// comes later wins.
    pub fn write(&self, path: &Path, after: Option<&Path>) -> Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut archive = BufWriter::new(file);
        if let Some(after) = after {
            io::copy(&mut File::open(after)?, &mut archive)?;
        }
        for (number, (name, entry)) in self.entries.iter().enumerate() {
            write_entry(&mut archive, u32::try_from(number)?, name, entry)
                .with_context(|| format!("cannot put /{} into the guest", name.display()))?;
        }
        newc::trailer(archive)?.flush()?;
        Ok(())
    }
}

fn write_entry(archive: &mut impl Write, number: u32, name: &Path, entry: &Entry) -> Result<()> {
    let name = name.to_str().context("the name is not UTF-8")?;
    let (mode, content) = match entry {
        Entry::Directory(mode) => (DIRECTORY | mode, Vec::new()),
        Entry::Link(target) => (SYMLINK | 0o777, target.clone()),
        Entry::Text { text, mode } => (REGULAR | mode, text.clone()),
        Entry::File { from, mode } => (REGULAR | mode, fs::read(from)?),
        Entry::Console => (CHARACTER_DEVICE | 0o600, Vec::new()),
    };
    let mut header = newc::Builder::new(name).ino(number).mode(mode).nlink(1);
    if matches!(entry, Entry::Console) {
        header = header.rdev_major(5).rdev_minor(1);
    }
    let mut writer = header.write(archive, u32::try_from(content.len())?);
    io::copy(&mut content.as_slice(), &mut writer)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_what_is_in_them() {
        let mut fs = Initramfs::default();
        fs.text("/a/b/c", "text");
        let names: Vec<_> = fs
            .entries
            .keys()
            .map(|name| name.display().to_string())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn the_archive_can_be_read_back() {
        let mut fs = Initramfs::default();
        fs.text("/hello", "world");
        fs.put("link", Entry::Link(b"hello".to_vec()));
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs.write(file.path(), None).expect("the archive is written");
        let reader = newc::Reader::new(file.reopen().expect("the archive")).expect("an entry");
        assert_eq!(reader.entry().name(), "hello");
        assert_eq!(reader.entry().mode(), REGULAR | 0o644);
        let mut content = Vec::new();
        let rest = reader.to_writer(&mut content).expect("its content");
        assert_eq!(content, b"world");
        let reader = newc::Reader::new(rest).expect("the next entry");
        assert_eq!(reader.entry().mode(), SYMLINK | 0o777);
    }
}
