// SPDX-License-Identifier: GPL-2.0

//! Announcing changes: by a uevent of the device and a line in the log, for each change, in order.
//!
//! This is apart from making the changes, which waits for neither.

#![forbid(unsafe_code)]

use crate::{
    abstractions::uevent,
    generation::Change, //
};
use kernel::{
    device::Device,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        SetOnce,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How many changes can wait to be announced before [`Announcements::are_behind`].
const PATIENCE: usize = 64;

/// How many lines about changes that come by themselves alike are logged in each [`INTERVAL`].
const BURST: u32 = 10;
/// What the kernel takes for log lines that are limited (`DEFAULT_RATELIMIT_INTERVAL`).
const INTERVAL: Delta = Delta::from_millis(5000);

/// The changes that are still to be announced, and where.
#[pin_data]
pub(crate) struct Announcements {
    device: SetOnce<ARef<Device>>,
    #[pin]
    due: SpinLock<KVec<Change>>,
    /// Nobody waits for this: there is one at a time who announces.
    #[pin]
    limit: SpinLock<LogLimit>,
}

impl Announcements {
    /// Creates this, with nothing to be announced.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            device: SetOnce::new(),
            due <- new_spinlock!(
                // Those of the hypervisor come on top of the patience.
                KVec::with_capacity(2 * PATIENCE, GFP_KERNEL)?,
                "Announcements::due"
            ),
            limit <- new_spinlock!(LogLimit::new(), "Announcements::limit"),
        })
    }

    /// Has changes announced by uevents of `device`, those too that were made before. Only the first
    /// call has an effect.
    pub(crate) fn set_device(&self, device: &Device) {
        self.device.populate(device.into());
    }

    /// Adds what is to be announced. Can be called with a spin lock held.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is too much to be announced already.
    pub(crate) fn add(&self, change: Change) -> Result {
        // No memory is taken here, up to the capacity.
        Ok(self.due.lock().push(change, GFP_NOWAIT)?)
    }

    /// Returns whether there is anything to be announced.
    pub(crate) fn are_due(&self) -> bool {
        !self.due.lock().is_empty()
    }

    /// Returns whether there is so much to be announced that nobody should change the generation
    /// without need.
    pub(crate) fn are_behind(&self) -> bool {
        self.due.lock().len() >= PATIENCE
    }

    /// Announces all that is to be announced, if there is a device. Returns whether there is.
    ///
    /// May sleep. Must not be called by several at once, who would get in each other's way.
    pub(crate) fn deliver(&self) -> bool {
        let Some(device) = self.device.as_ref() else {
            return false;
        };

        while let Some(change) = self.next() {
            self.announce(device, change);
        }

        true
    }

    fn next(&self) -> Option<Change> {
        self.due.lock().remove(0).ok()
    }

    fn announce(&self, device: &Device, change: Change) {
        let Change {
            old,
            new,
            source,
            reseeded,
        } = change;
        let sent = uevent::change(
            device,
            [
                fmt!("SYSGENID={new}"),
                fmt!("SYSGENID_SOURCE={source}"),
                fmt!("SYSGENID_RESEEDED={}", u8::from(reseeded)),
            ],
        );

        if let Err(err) = sent {
            pr_warn!("no uevent for generation {new}: {err:?}\n");
        }

        // Whoever is privileged can make as many of these as there is time for.
        let limited = matches!(source, "ioctl" | "kernel");
        let now = Instant::now();
        let unsaid = match self.limit.lock().allows(now, limited) {
            Some(unsaid) => unsaid,
            None => return,
        };

        if unsaid != 0 {
            pr_info!("{unsaid} changes of the generation were not logged\n");
        }
        pr_info!(
            "generation changed from {old} to {new}, source {source}, {}\n",
            if reseeded { "reseeded" } else { "not reseeded" }
        );
    }
}

/// Limits the number of lines.
struct LogLimit {
    /// When the interval began.
    since: Option<Instant<Monotonic>>,
    /// How many were logged since.
    said: u32,
    /// How many were not.
    unsaid: u32,
}

impl LogLimit {
    fn new() -> Self {
        Self {
            since: None,
            said: 0,
            unsaid: 0,
        }
    }

    /// Returns how many lines were kept back since the last one, if there can be one `now`, as there
    /// always can if it is not `limited`.
    fn allows(&mut self, now: Instant<Monotonic>, limited: bool) -> Option<u32> {
        if limited {
            if self.since.is_none_or(|since| now - since >= INTERVAL) {
                self.since = Some(now);
                self.said = 0;
            }

            if self.said >= BURST {
                self.unsaid = self.unsaid.saturating_add(1);
                return None;
            }

            self.said += 1;
        }

        Some(core::mem::take(&mut self.unsaid))
    }
}

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_announce)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_and_counted() {
        let mut limit = LogLimit::new();
        let start = Instant::now();

        for _ in 0..BURST {
            assert_eq!(limit.allows(start, true), Some(0));
        }
        assert_eq!(limit.allows(start, true), None);
        assert_eq!(limit.allows(start, true), None);
        assert_eq!(limit.allows(start, false), Some(2));
        assert_eq!(limit.allows(start, false), Some(0));
        assert_eq!(limit.allows(start, true), None);
        assert_eq!(limit.allows(start + INTERVAL, true), Some(1));
    }
}
