// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long something may take in all.

use std::time::Duration;
use std::time::Instant;

/// The end of a time, or never.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So much later than now; never, where that is not limited, or beyond any clock.
    pub fn after(limit: Option<Duration>) -> Self {
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// As much later.
    pub fn later(self, by: Duration) -> Self {
        Self(self.0.and_then(|end| end.checked_add(by)))
    }

    /// What is left, and a `slice` of it at most.
    pub fn slice(&self, slice: Duration) -> Duration {
        self.0.map_or(slice, |end| {
            slice.min(end.saturating_duration_since(Instant::now()))
        })
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_some_and(|end| end <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_never_more_than_what_is_left() {
        let second = Duration::from_secs(1);
        for never in [None, Some(Duration::MAX)] {
            let never = Deadline::after(never);
            assert_eq!(never.slice(second), second);
            assert!(!never.is_over());
        }
        let over = Deadline::after(Some(Duration::ZERO));
        assert_eq!(over.slice(second), Duration::ZERO);
        assert!(over.is_over());
        assert!(!over.later(second).is_over());
        let hour = Deadline::after(Some(3600 * second));
        assert_eq!(hour.slice(second), second);
        assert!(hour.slice(7200 * second) <= 3600 * second);
    }
}
