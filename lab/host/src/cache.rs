// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cache: everything big, outside of the checkout, keyed by what it was made from.
//!
//! A thing in the cache is either whole or absent. It is made under a lock, in its own
//! directory, and a marker is written into it last; a directory without its marker is what an
//! interrupted run has left, and is made anew.

use std::env;
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use rustix::fs::FlockOperation;
use sha2::Digest;
use sha2::Sha256;

use crate::say;

/// Where the sandbox shows the cache.
const CACHE: &str = "/cache";

/// Where the sandbox shows the checkout, read-only.
pub const SOURCE: &str = "/src";

/// Where the sandbox shows the caller's file system.
const HOST: &str = "/host";

const MARKER: &str = ".whole";

/// A file lock, held until it is dropped or the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

/// Takes the lock called `name`, and says so when it has to wait for another lab.
pub fn lock(name: &str) -> Result<Lock> {
    let path = directory("lock")?.join(name);
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        say::note(format!("another lab works on {name}; waiting for it"));
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(Lock(file))
}

/// The directory of that name in the cache; it is there afterwards.
pub fn directory(name: &str) -> Result<PathBuf> {
    let path = Path::new(CACHE).join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", shown(&path)))?;
    Ok(path)
}

/// The directory for what is built from this checkout.
pub fn build_directory(name: &str) -> Result<PathBuf> {
    let checkout = env::var("LAB_CHECKOUT").context("the lab's tool is started by lab/lab")?;
    directory(&format!("build/{checkout}/{name}"))
}

/// Returns the directory `name`, made by `make` if it is not whole in the cache.
pub fn made(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = Path::new(CACHE).join(name);
    if is_whole(&path) {
        return Ok(path);
    }
    let _lock = lock(&name.replace('/', "-"))?;
    if is_whole(&path) {
        return Ok(path);
    }
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", shown(&path)))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", shown(&path)))?;
    make(&path)?;
    File::create(path.join(MARKER))?.sync_all()?;
    Ok(path)
}

/// Whether a thing that was made is there; else somebody may be making it.
pub fn is_whole(path: &Path) -> bool {
    path.join(MARKER).exists()
}

/// Removes a thing that was made.
pub fn remove(path: &Path) -> Result<()> {
    // It is no longer whole before the first of its files is gone.
    fs::remove_file(path.join(MARKER))?;
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", shown(path)))
}

/// Holds a directory for as long as the file is open, unless somebody else holds it, or it is gone.
pub fn hold(directory: &Path) -> Option<File> {
    let held = File::open(directory).ok()?;
    rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(held)
}

/// Removes all that is in a directory.
pub fn empty(directory: &Path) -> Result<()> {
    let empty = || {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        io::Result::Ok(())
    };
    empty().with_context(|| format!("cannot empty {}", shown(directory)))
}

/// A short key for what something is made from.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    shortened(hash)
}

/// A short key for the content of a file.
pub fn key_of_bytes(bytes: &[u8]) -> String {
    shortened(Sha256::new_with_prefix(bytes))
}

fn shortened(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
}

/// Bytes that are free where the cache lies.
pub fn free_space() -> Result<u64> {
    let space = rustix::fs::statvfs(CACHE)?;
    Ok(space.f_bavail * space.f_frsize)
}

/// A path as the caller knows it.
pub fn shown(path: &Path) -> String {
    if is_caller_inside() {
        return path.display().to_string();
    }
    for (inside, variable) in [(CACHE, "LAB_CACHE"), (SOURCE, "LAB_SOURCE")] {
        if let (Ok(rest), Ok(outside)) = (path.strip_prefix(inside), env::var(variable)) {
            return Path::new(&outside).join(rest).display().to_string();
        }
    }
    let outside = path
        .strip_prefix(HOST)
        .map(|rest| Path::new("/").join(rest));
    outside.as_deref().unwrap_or(path).display().to_string()
}

/// A file or directory of the checkout.
pub fn source(path: &str) -> PathBuf {
    Path::new(SOURCE).join(path)
}

/// A path in the checkout, from its top.
pub fn shown_in_source(path: &Path) -> String {
    // Manifests name their neighbours by `..`.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inside = path.strip_prefix(SOURCE).unwrap_or(&path);
    inside.display().to_string()
}

/// What is set for commands that the lab runs inside its sandbox, and that may call the lab: they
/// see what it sees, and stand where they stand.
pub const INSIDE: &str = "LAB_INSIDE";

fn is_caller_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Where the sandbox shows a path that the caller gave, relative to where the caller stands.
pub fn from_caller(path: &Path) -> PathBuf {
    if is_caller_inside() {
        return std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    }
    let start = env::var("LAB_CWD").unwrap_or_else(|_| "/".into());
    let absolute = Path::new(&start).join(path);
    Path::new(HOST).join(absolute.strip_prefix("/").unwrap_or(&absolute))
}

/// Where a link of the caller's leads to, if it can be followed in the sandbox.
pub fn followed(path: PathBuf) -> PathBuf {
    let target = path.canonicalize().ok();
    target
        .filter(|target| is_caller_inside() || target.starts_with(HOST))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_emptied() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("a/b")).expect("it can be made");
        std::os::unix::fs::symlink("/nowhere", directory.path().join("c")).expect("it can be made");
        empty(directory.path()).expect("all of it can be removed");
        let left = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn keys_tell_apart_what_differs_only_in_where_it_is_cut() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 16);
    }

    #[test]
    fn an_absolute_path_of_the_caller_stays_absolute() {
        assert_eq!(
            from_caller(Path::new("/usr/bin/true")),
            Path::new("/host/usr/bin/true")
        );
    }
}
