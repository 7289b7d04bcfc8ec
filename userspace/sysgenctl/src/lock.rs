// SPDX-License-Identifier: MIT OR Apache-2.0

//! One run of `sysgenctl snapshot-hooks`, or one `sysgenctl serve`, at a time.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process;

use rustix::fs::FlockOperation;
use rustix::fs::flock;
use rustix::io::Errno;

use crate::exit::Failure;

/// Whoever can open it, even to read, can hold it.
const MODE: u32 = 0o600;

/// It is held until this is dropped, or the process ends in whatever way.
pub struct Lock(#[expect(dead_code, reason = "it is closed, which lets it go")] File);

impl Lock {
    /// Takes the lock beside that file, whose directory is made.
    ///
    /// # Errors
    ///
    /// Somebody else has it, or it cannot be made.
    pub fn take(state: &Path) -> Result<Self, Failure> {
        let mut path = state.as_os_str().to_owned();
        path.push(".lock");
        let path = Path::new(&path);
        let shown = path.display();
        let open = || -> io::Result<File> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.mode(MODE).open(path)?;
            file.set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        };
        let mut file = open().map_err(Failure::io(format!("write {shown}")))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder).is_ok();
                let holder = Some(holder.trim()).filter(|text| read && !text.is_empty());
                return Err(Failure::Refused(format!(
                    "another one is running ({}): it holds {shown}",
                    holder.map_or("whose number is not known".into(), |pid| format!(
                        "process {pid}"
                    ))
                )));
            }
            Err(errno) => return Err(Failure::io(format!("lock {shown}"))(errno.into())),
        }
        // For who comes second. Nobody has to know it.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", process::id()));
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().expect("there is room");
        let state = directory.path().join("run/snapshot");
        let lock = Lock::take(&state).expect("nobody has it");
        let error = Lock::take(&state)
            .err()
            .expect("somebody has it")
            .to_string();
        assert!(
            error.contains(&format!("process {}", process::id())),
            "{error}"
        );
        drop(lock);
        Lock::take(&state).expect("nobody has it any more");
    }
}
