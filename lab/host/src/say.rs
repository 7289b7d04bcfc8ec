// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the lab says about itself, on standard error: standard output belongs to the guest.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Says something.
pub fn say(message: impl AsRef<str>) {
    eprintln!("lab: {}", message.as_ref());
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Keeps [`note`] silent from now on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Says something that is of interest to whoever watches one guest.
pub fn note(message: impl AsRef<str>) {
    if !QUIET.load(Ordering::Relaxed) {
        say(message);
    }
}
