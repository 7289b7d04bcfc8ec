// SPDX-License-Identifier: MIT OR Apache-2.0

//! How `sysgenctl` ends, and what it says when that is not well.

use std::io;

use crate::absent;

/// What `sysgenctl` exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// Something else.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The time was over.
    TimedOut = 3,
    /// No device.
    NoDevice = 4,
    /// No permission.
    Forbidden = 5,
    /// A command, a hook or a unit failed.
    Command = 6,
    /// Another driver.
    OtherDriver = 7,
    /// Something must be mended.
    NotReady = 8,
    /// A signal came.
    Interrupted = 9,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::TimedOut,
        Self::NoDevice,
        Self::Forbidden,
        Self::Command,
        Self::OtherDriver,
        Self::NotReady,
        Self::Interrupted,
    ];

    /// What the manual page says of it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "It is done.",
            Self::Failure => "Something failed that has no status of its own.",
            Self::Usage => "The command line is wrong.",
            Self::TimedOut => {
                "The time was over: tracked watchers are still outdated, a change that is due did not \
                 come, or what follows it has not ended."
            }
            Self::NoDevice => "There is no /dev/sysgenid.",
            Self::Forbidden => {
                "Permission is missing: to open /dev/sysgenid, to change the generation, to write \
                 the state or a configuration, or to look into a process."
            }
            Self::Command => {
                "A command, a hook, or a unit that follows a change failed, or could not be started."
            }
            Self::OtherDriver => {
                "What is at /dev/sysgenid is another driver, or one that is too old to tell what is \
                 asked."
            }
            Self::NotReady => "sysgenctl doctor has found something that must be mended.",
            Self::Interrupted => {
                "A signal came (SIGTERM, SIGINT or SIGHUP), and sysgenctl snapshot-hooks has thawed the \
                 system, or says that it stays quiesced."
            }
        }
    }
}

/// Why it did not go well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something with the device.
    #[error("{}", explain(.0))]
    Device(#[from] sysgenid::Error),

    /// The time was over. The text says for what.
    #[error("{0}")]
    TimedOut(String),

    /// A command, a hook or a unit failed. The text says which, and how.
    #[error("{0}")]
    Command(String),

    /// Something must be mended. The text says what.
    #[error("{0}")]
    NotReady(String),

    /// A signal came. The text says what was left.
    #[error("{0}")]
    Interrupted(String),

    /// It was not done, for a reason that the text says.
    #[error("{0}")]
    Refused(String),

    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What to say of an error of the device.
fn explain(error: &sysgenid::Error) -> String {
    match error {
        sysgenid::Error::NoDevice { node } => absent::explain(node),
        other => other.to_string(),
    }
}

impl Failure {
    /// For `map_err`: that could not be done.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        |source| Self::Io { action, source }
    }

    /// The same, with more to say of it.
    pub(crate) fn and(self, more: &str) -> Self {
        match self {
            Self::TimedOut(text) => Self::TimedOut(text + more),
            Self::Command(text) => Self::Command(text + more),
            Self::Interrupted(text) => Self::Interrupted(text + more),
            Self::Refused(text) => Self::Refused(text + more),
            Self::NotReady(text) => Self::NotReady(text + more),
            Self::Io { action, source } => Self::Io {
                action,
                source: io::Error::new(source.kind(), format!("{source}{more}")),
            },
            Self::Device(error) => Self::Device(error),
        }
    }

    /// What to exit with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        use sysgenid::Error;
        match self {
            Self::Device(Error::NoDevice { .. }) => Exit::NoDevice,
            Self::Device(Error::Forbidden { .. } | Error::NotPrivileged) => Exit::Forbidden,
            Self::Device(Error::NotTheDevice { .. } | Error::OldDriver { .. }) => Exit::OtherDriver,
            Self::Device(Error::TimedOut { .. } | Error::NotSettled { .. }) | Self::TimedOut(_) => {
                Exit::TimedOut
            }
            Self::Command(_) => Exit::Command,
            Self::NotReady(_) => Exit::NotReady,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Forbidden
            }
            Self::Device(_) | Self::Refused(_) | Self::Io { .. } => Exit::Failure,
        }
    }

    /// Whether this is only that nobody reads what is written any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn statuses_are_what_scripts_rely_on() {
        let numbers = Exit::ALL.map(|exit| exit as u8);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn errors_of_the_device_have_statuses_of_their_own() {
        let node = PathBuf::from("/dev/sysgenid");
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases = [
            (
                sysgenid::Error::NoDevice { node: node.clone() },
                Exit::NoDevice,
            ),
            (
                sysgenid::Error::Forbidden {
                    node: node.clone(),
                    source: source(),
                },
                Exit::Forbidden,
            ),
            (sysgenid::Error::NotPrivileged, Exit::Forbidden),
            (
                sysgenid::Error::OldDriver {
                    key: "sysgenid-source",
                },
                Exit::OtherDriver,
            ),
        ];
        for (error, exit) in cases {
            assert_eq!(Failure::from(error).exit(), exit);
        }
        assert_eq!(Failure::io("write")(source()).exit(), Exit::Forbidden);
        assert_eq!(Failure::TimedOut(String::new()).exit(), Exit::TimedOut);
        assert_eq!(Failure::Command(String::new()).exit(), Exit::Command);
    }
}
