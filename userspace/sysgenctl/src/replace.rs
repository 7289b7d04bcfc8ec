// SPDX-License-Identifier: MIT OR Apache-2.0

//! Replaces a file's text so that whoever reads it, at any moment, finds the old one or the new one.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::exit::Failure;

/// How much an attribute of a file may hold, and all names of them (xattr(7)).
const MOST: usize = 64 << 10;

/// A file as it was when it was opened. Nobody else who does it this way can replace it meanwhile.
#[derive(Debug)]
pub struct Original {
    path: PathBuf,
    file: File,
    text: Vec<u8>,
}

/// A new text beside the file, that is gone unless it takes the place of one.
#[derive(Debug)]
pub struct Candidate(NamedTempFile);

impl Original {
    /// Reads the file, which is the one that symbolic links lead to.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let path = fs::canonicalize(path).map_err(Failure::io(format!("find {name}")))?;
        let read = || -> io::Result<Self> {
            let mut file = File::open(&path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(Self {
                path: path.clone(),
                file,
                text,
            })
        };
        read().map_err(Failure::io(format!("read {name}")))
    }

    /// The same for somebody who is going to replace it.
    pub fn lock(path: &Path) -> Result<Self, Failure> {
        let original = Self::open(path)?;
        match rustix::fs::flock(&original.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => original.is_unchanged().map(|()| original),
            Err(Errno::AGAIN) => Err(original.refuses("somebody else is changing it just now")),
            Err(error) => Err(original.refuses(&io::Error::from(error).to_string())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Writes a new text beside it, with the same owner, mode and attributes.
    pub fn candidate(&self, text: &[u8]) -> Result<Candidate, Failure> {
        let prepare = || -> io::Result<Candidate> {
            let metadata = self.file.metadata()?;
            if metadata.nlink() > 1 {
                return Err(io::Error::other(
                    "it has another name as well (a hard link)",
                ));
            }
            let mut new = tempfile::Builder::new()
                .prefix(".sysgenctl-")
                .tempfile_in(self.directory())?;
            new.write_all(text)?;
            let file = new.as_file();
            fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
            file.set_permissions(metadata.permissions())?;
            copy_attributes(&self.file, file)?;
            file.sync_all()?;
            Ok(Candidate(new))
        };
        prepare().map_err(Failure::io(format!("replace {}", self.path.display())))
    }

    /// Puts a new text in its place.
    pub fn replace(&self, candidate: Candidate) -> Result<(), Failure> {
        self.is_unchanged()?;
        self.put(candidate, &self.path)
    }

    /// Keeps the text as it was in a file beside it.
    pub fn keep(&self, backup: &Path) -> Result<(), Failure> {
        self.put(self.candidate(&self.text)?, backup)
    }

    fn put(&self, candidate: Candidate, path: &Path) -> Result<(), Failure> {
        let put = || -> io::Result<()> {
            candidate.0.persist(path)?;
            self.sync_directory()
        };
        put().map_err(Failure::io(format!("write {}", path.display())))
    }

    /// Removes a file beside it.
    pub fn remove(&self, backup: &Path) -> Result<(), Failure> {
        fs::remove_file(backup)
            .and_then(|()| self.sync_directory())
            .map_err(Failure::io(format!("remove {}", backup.display())))
    }

    /// So that what was done there lasts.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// An editor may have been at it since it was read.
    fn is_unchanged(&self) -> Result<(), Failure> {
        let now = fs::read(&self.path).ok();
        let is_same = fs::metadata(&self.path).is_ok_and(|now| {
            let then = self.file.metadata();
            then.is_ok_and(|then| (then.dev(), then.ino()) == (now.dev(), now.ino()))
        });
        if is_same && now.as_deref() == Some(&self.text) {
            return Ok(());
        }
        Err(self.refuses("somebody else has changed it just now"))
    }

    fn refuses(&self, why: &str) -> Failure {
        Failure::Refused(format!("{} is left as it is: {why}", self.path.display()))
    }
}

impl Candidate {
    /// Where it is until then.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Writes a file that may be there already and is ours, with this mode.
pub fn put(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new()
        .prefix(".sysgenctl-")
        .tempfile_in(directory)?;
    new.write_all(text)?;
    new.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(directory)?.sync_all()
}

/// What else belongs to a file: its label (`SELinux`), its access control list. Where there are no such
/// things there are none to copy.
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0; MOST];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        listed => listed?,
    };
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0; MOST];
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, text).expect("it can be written");
        (directory, path)
    }

    fn replaced(path: &Path, text: &str) -> Result<(), Failure> {
        let original = Original::lock(path)?;
        original.replace(original.candidate(text.as_bytes())?)
    }

    #[test]
    fn the_file_is_replaced_and_stays_what_it_was() {
        let (directory, path) = directory_with("old");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let link = directory.path().join("link");
        symlink("file", &link).expect("it can be made");
        replaced(&link, "new").expect("it can be replaced");
        assert_eq!(fs::read(&path).expect("it is there"), b"new");
        assert_eq!(
            fs::read_link(&link).expect("it is a link"),
            Path::new("file")
        );
        let mode = fs::metadata(&path).expect("it is there").mode();
        assert_eq!(mode & 0o7777, 0o640);
        // Nothing is left behind.
        assert_eq!(
            fs::read_dir(directory.path()).expect("it is there").count(),
            2
        );
    }

    #[test]
    fn who_is_late_changes_nothing() {
        let (directory, path) = directory_with("old");
        let first = Original::lock(&path).expect("it is there");
        let second = Original::lock(&path).expect_err("the first one has it");
        assert!(second.to_string().contains("is changing it"), "{second}");
        let candidate = first.candidate(b"new").expect("it can be written");
        fs::write(&path, "edited").expect("it can be written");
        let failure = first.replace(candidate).expect_err("it was edited");
        assert!(failure.to_string().contains("has changed it"), "{failure}");
        assert_eq!(fs::read(&path).expect("it is there"), b"edited");
        assert_eq!(
            fs::read_dir(directory.path()).expect("it is there").count(),
            1
        );
    }

    #[test]
    fn a_hard_link_is_not_torn() {
        let (directory, path) = directory_with("old");
        fs::hard_link(&path, directory.path().join("other")).expect("it can be made");
        let failure = replaced(&path, "new").expect_err("it has two names");
        assert!(failure.to_string().contains("hard link"), "{failure}");
        assert_eq!(fs::read(&path).expect("it is there"), b"old");
    }

    #[test]
    fn a_copy_is_kept_and_removed() {
        let (directory, path) = directory_with("old");
        let backup = directory.path().join("backup");
        let original = Original::lock(&path).expect("it is there");
        original.keep(&backup).expect("it can be written");
        assert_eq!(fs::read(&backup).expect("it is there"), b"old");
        original.remove(&backup).expect("it can be removed");
        assert!(!backup.exists());
        assert!(Original::open(&backup).is_err());
    }
}
