// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the driver says in `/proc/PID/fdinfo/FD`.

use crate::Error;
use crate::Generation;
use crate::Result;

/// What the driver says of a watcher and of the generation, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    generation: Generation,
    epoch: u64,
    acked: Generation,
    outdated: bool,
    tracked: bool,
    watchers: u64,
    outdated_watchers: u64,
    source: String,
    reseeded: bool,
    pending: Option<bool>,
}

impl Status {
    /// Reads the lines `sysgenid-KEY:\tVALUE`; what else is there is left alone.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let field = |key: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
                .ok_or(Error::OldDriver { key })
        };
        let number = |key| {
            let value = field(key)?.parse();
            value.map_err(|_| Error::OldDriver { key })
        };
        let flag = |key| match field(key)? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(Error::OldDriver { key }),
        };
        let generation = |key| {
            let value = u32::try_from(number(key)?);
            value
                .map(Generation::new)
                .map_err(|_| Error::OldDriver { key })
        };
        Ok(Self {
            generation: generation("sysgenid-generation")?,
            epoch: number("sysgenid-epoch")?,
            acked: generation("sysgenid-acked")?,
            outdated: flag("sysgenid-outdated")?,
            tracked: flag("sysgenid-tracked")?,
            watchers: number("sysgenid-watchers")?,
            outdated_watchers: number("sysgenid-outdated-watchers")?,
            source: field("sysgenid-source")?.to_owned(),
            reseeded: flag("sysgenid-reseeded")?,
            // Left out where the ID cannot be seen.
            pending: flag("sysgenid-pending").ok(),
        })
    }

    /// The generation.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// println!("generation {}", status.generation());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The epoch: the number of changes since the driver was loaded, which never comes back.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// let before = overseer.status()?.epoch();
    /// overseer.trigger(0)?;
    /// assert_eq!(overseer.status()?.epoch(), before + 1);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The generation that the watcher acknowledged last.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// assert_eq!(status.acked(), status.generation(), "acked when it is opened");
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn acked(&self) -> Generation {
        self.acked
    }

    /// Whether the watcher has yet to acknowledge a change.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// assert!(!watcher.status()?.outdated());
    /// sysgenid::Overseer::open()?.trigger(0)?;
    /// assert!(watcher.status()?.outdated());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn outdated(&self) -> bool {
        self.outdated
    }

    /// Whether overseers wait for the watcher.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// assert!(!watcher.status()?.tracked(), "nobody asked for it");
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn tracked(&self) -> bool {
        self.tracked
    }

    /// How many tracked watchers there are on this system.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let watcher = sysgenid::Watcher::open()?;
    /// watcher.set_tracked(true)?;
    /// assert!(watcher.status()?.watchers() >= 1);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn watchers(&self) -> u64 {
        self.watchers
    }

    /// How many of those are outdated.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// assert!(status.outdated_watchers() <= status.watchers());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn outdated_watchers(&self) -> u64 {
        self.outdated_watchers
    }

    /// What caused the last change: `none` if there was none; for the hypervisor `vmfork` (the
    /// kernel's notification of VM forks), `vmgenid` (the ACPI device's) or `page` (somebody has looked
    /// at the ID), whichever was first; `ioctl` for an overseer; `kernel` for other kernel code.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let overseer = sysgenid::Overseer::open()?;
    /// overseer.trigger(0)?;
    /// assert_eq!(overseer.status()?.source(), "ioctl");
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the kernel's random number generator was reseeded with the hypervisor's present ID in
    /// it, before anybody was told of the change. `false` also where there is no ID.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// if !status.reseeded() {
    ///     println!("whoever clones this machine has to bring entropy");
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn reseeded(&self) -> bool {
        self.reseeded
    }

    /// Whether the hypervisor has given this machine a new ID, and the change of the generation for it
    /// is still to come. `None` where the driver cannot see the ID.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let status = sysgenid::Watcher::open()?.status()?;
    /// if status.pending() == Some(true) {
    ///     println!("this machine is a clone, and the kernel has yet to hear of it");
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn pending(&self) -> Option<bool> {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pos:\t0\nflags:\t02\nsysgenid-generation:\t4294967295\n\
        sysgenid-epoch:\t4294967297\n\
        sysgenid-acked:\t2\nsysgenid-outdated:\t1\nsysgenid-tracked:\t0\nsysgenid-watchers:\t5\n\
        sysgenid-outdated-watchers:\t4\nsysgenid-source:\tvmfork\n\
        sysgenid-reseeded:\t1\nsysgenid-pending:\t1\n";

    #[test]
    fn all_lines_are_read() {
        let status = Status::parse(TEXT).expect("it is well-formed");
        let expected = Status {
            generation: Generation::new(u32::MAX),
            epoch: 4_294_967_297,
            acked: Generation::new(2),
            outdated: true,
            tracked: false,
            watchers: 5,
            outdated_watchers: 4,
            source: "vmfork".into(),
            reseeded: true,
            pending: Some(true),
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn a_missing_line_is_named() {
        let text = TEXT.replace("sysgenid-acked", "acked");
        let error = Status::parse(&text).expect_err("a line is missing");
        assert!(error.to_string().contains("sysgenid-acked"), "{error}");
        let text = TEXT.replace("sysgenid-pending", "pending");
        let status = Status::parse(&text).expect("where the ID cannot be seen");
        assert_eq!(status.pending(), None);
    }
}
