// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which process this is, in a line of forked ones.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use once_cell::race::OnceBox;

use crate::sys::ForkPage;

/// The number of this process for who has no device. It is always 0 where the kernel does not tell
/// (before 4.14), or gives no page.
pub(crate) fn number() -> u32 {
    // No lock guards this: that could be held at a fork.
    static WITHOUT_DEVICE: OnceBox<Option<Process>> = OnceBox::new();
    WITHOUT_DEVICE
        .get_or_init(|| Box::new(Process::new().ok()))
        .as_ref()
        .map_or(0, Process::number)
}

/// Gives a process that was forked another number than those that it comes from.
#[derive(Debug)]
pub(crate) struct Process {
    /// Has the number, and is empty in a forked process.
    page: ForkPage,
    /// The last number in this line, which a forked process inherits.
    last: AtomicU32,
}

impl Process {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        ForkPage::map().map(|page| Self {
            page,
            last: AtomicU32::new(0),
        })
    }

    /// The number of this process: one load, but for the first time.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        match self.page.word().load(Ordering::Relaxed) {
            0 => self.renumber(),
            number => number,
        }
    }

    /// As in a process that was just forked.
    #[cfg(test)]
    pub(crate) fn forked(&self) {
        self.page.word().store(0, Ordering::Relaxed);
    }

    #[cold]
    fn renumber(&self) -> u32 {
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // 0 stands for none.
        let number = number.max(1);
        let word = self.page.word();
        // Another thread may have been quicker.
        match word.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => number,
            Err(other) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stays_and_after_a_fork_it_is_another_one() {
        let process = Process::new().expect("the kernel knows of it");
        let first = process.number();
        assert_eq!(process.number(), first);
        process.forked();
        let second = process.number();
        assert_ne!(second, first);
        assert_ne!(second, 0);
        assert_eq!(process.number(), second);
    }

    #[test]
    fn no_process_has_the_number_of_no_process() {
        let process = Process::new().expect("the kernel knows of it");
        process.last.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(process.number(), 1);
    }
}
