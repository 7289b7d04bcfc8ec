// SPDX-License-Identifier: MIT OR Apache-2.0

//! When the generation changed last, by the kernel's log: the driver itself does not say.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::time::ClockId;
use rustix::time::clock_gettime;

const LOG: &str = "/dev/kmsg";

/// No record is longer (`PRINTK_MESSAGE_MAX` in the kernel is 2048).
const RECORD: usize = 8192;

/// When the generation changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastChange {
    /// Not since the driver was loaded.
    Never,
    /// So long ago.
    Ago(Duration),
    /// It cannot be known, for this reason.
    Unknown(String),
}

impl LastChange {
    /// That of the change to this generation.
    pub fn find(generation: u32) -> Self {
        if generation == 0 {
            return Self::Never;
        }
        match records() {
            Ok(records) => Self::among(&records, generation, uptime()),
            Err(error) => Self::Unknown(format!("{LOG} cannot be read: {error}")),
        }
    }

    /// That of the change to this generation, by these records.
    fn among(records: &[String], generation: u32, now: Duration) -> Self {
        let newest = records.iter().rev().find_map(|record| change(record));
        match newest {
            Some((stamp, to)) if to == generation => Self::Ago(now.saturating_sub(stamp)),
            // Lines are overwritten, and of changes that come thick and fast not each has one.
            _ => Self::Unknown("the kernel's log has no line of it, or none any more".into()),
        }
    }

    /// When that was, by the clock of this machine.
    pub fn time(&self) -> Option<SystemTime> {
        match self {
            Self::Ago(duration) => SystemTime::now().checked_sub(*duration),
            Self::Never | Self::Unknown(_) => None,
        }
    }
}

/// The clock of the log's stamps, but for what NTP does to it.
fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// The log's records, oldest first.
fn records() -> io::Result<Vec<String>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut log = File::options().read(true).custom_flags(flags).open(LOG)?;
    let mut record = [0; RECORD];
    let mut records = Vec::new();
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(records),
            Ok(length) => records.push(String::from_utf8_lossy(&record[..length]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
            // Records were overwritten before they were read; the next read goes on after them.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

/// The stamp and the new generation, if a record is of a change.
///
/// A record is `priority,sequence,microseconds,flags;message`, with the facility in the priority.
/// The kernel's own facility is 0, which user space cannot write.
fn change(record: &str) -> Option<(Duration, u32)> {
    let (head, message) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds = fields.nth(1)?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let change = message.strip_prefix("sysgenid: generation changed from ")?;
    let (_, to) = change.split_once(" to ")?;
    let (to, _) = to.split_once(',')?;
    Some((Duration::from_micros(microseconds), to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_from_its_record() {
        let record =
            "6,512,5140900,-;sysgenid: generation changed from 3 to 4, source ioctl, reseeded\n";
        let stamp = Duration::from_micros(5_140_900);
        assert_eq!(change(record), Some((stamp, 4)));
    }

    #[test]
    fn other_records_are_no_changes() {
        let others = [
            "6,512,5140900,-;sysgenid: loaded\n",
            "6,512,5140900,-;other: generation changed from 3 to 4, source ioctl, reseeded\n",
            "6,512,x,-;sysgenid: generation changed from 3 to 4, source ioctl, reseeded\n",
            "6,512,5140900,-;sysgenid: generation changed from 3 to x, source ioctl, reseeded\n",
            "",
        ];
        for record in others {
            assert_eq!(change(record), None, "{record}");
        }
    }

    #[test]
    fn what_a_program_wrote_into_the_log_does_not_count() {
        let record =
            "14,512,5140900,-;sysgenid: generation changed from 3 to 4, source ioctl, reseeded\n";
        assert_eq!(change(record), None);
    }

    #[test]
    fn the_newest_change_counts_if_it_is_the_one() {
        let record = |seconds: u32, to: u32| {
            format!(
                "6,1,{seconds}000000,-;sysgenid: generation changed from 0 to {to}, source x, not reseeded\n"
            )
        };
        let records = [
            record(3, 1),
            record(5, 2),
            "6,1,6000000,-;other\n".to_owned(),
        ];
        let now = Duration::from_secs(12);
        let found = |generation| LastChange::among(&records, generation, now);
        assert_eq!(found(2), LastChange::Ago(Duration::from_secs(7)));
        for other in [1, 3] {
            assert!(matches!(found(other), LastChange::Unknown(_)), "{other}");
        }
        let none = LastChange::among(&[], 1, now);
        assert!(matches!(none, LastChange::Unknown(_)));
    }

    #[test]
    fn generation_0_has_never_changed() {
        assert_eq!(LastChange::find(0), LastChange::Never);
    }
}
