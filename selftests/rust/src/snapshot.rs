// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the programs have in common that are frozen with their machine, and run on in each clone.

use std::io::{self, Write};
use std::time::Duration;

/// How long after `READY` the clone may take to show a change, in the guest's time. It includes what
/// the host takes to stop the original.
pub const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// Says that the snapshot can be taken. After that, nothing is to be printed before the change: it
/// would appear in the original and in no clone.
///
/// # Errors
///
/// Whatever standard output answers.
pub fn ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"READY\n")?;
    out.flush()
}
