// SPDX-License-Identifier: MIT OR Apache-2.0

//! Room for what is too big for memory, and goes with the lab: directories where the cache lies.
//!
//! Whoever has one holds its lock. A lab that is killed leaves its own behind, which nobody holds
//! then: the next one that wants room removes it.

use std::fs;
use std::fs::File;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use tempfile::TempDir;

use crate::cache;

/// Where they are in the cache.
const PLACE: &str = "scratch";

/// A directory of its own, which is removed when this is dropped.
pub struct Scratch {
    directory: TempDir,
    /// The lock is the open directory.
    _held: File,
}

impl Scratch {
    /// Makes one.
    pub fn new() -> Result<Self> {
        Self::below(&cache::directory(PLACE)?)
    }

    fn below(place: &Path) -> Result<Self> {
        // One that is made just now is not held yet.
        let _lock = cache::lock(PLACE)?;
        sweep(place)?;
        let directory = tempfile::tempdir_in(place)
            .with_context(|| format!("cannot make a directory in {}", cache::shown(place)))?;
        let held = cache::hold(directory.path()).context("a new directory is gone")?;
        Ok(Self {
            directory,
            _held: held,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what labs have left that are no longer there.
fn sweep(place: &Path) -> Result<()> {
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        // Whoever has it may be removing it.
        if let Some(_held) = cache::hold(&path) {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", cache::shown(&path)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let left = place.path().join("left");
        let held = place.path().join("held");
        fs::create_dir_all(left.join("more")).expect("it can be made");
        fs::create_dir(&held).expect("it can be made");
        let _directory = cache::hold(&held).expect("nobody has it");
        sweep(place.path()).expect("all of it can be removed");
        assert!(!left.exists());
        assert!(held.exists());
    }
}
