// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong, in words that say what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The error of a closure that builds a value.
pub type BuildError = Box<dyn std::error::Error + Send + Sync>;

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong.
///
/// The texts are for the operator: each says what to do. A program whose `main` returns one ends with
/// that text as well: what [`Debug`](fmt::Debug) shows is the same.
#[non_exhaustive]
#[derive(thiserror::Error)]
pub enum Error {
    /// There is no such node.
    #[error(
        "there is no {}: load the module sysgenid (modprobe sysgenid), or boot a kernel that has it",
        node.display()
    )]
    NoDevice {
        /// The node that was looked for.
        node: PathBuf,
    },

    /// The node is there, and this process may not open it.
    #[error(
        "{} may not be opened: {source}; look at its mode, and at what confines this process (a \
         container, a sandbox, a security module)",
        node.display()
    )]
    Forbidden {
        /// The node.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// What has the node's name is something else.
    #[error("{} is not the device of that name: it {what}", node.display())]
    NotTheDevice {
        /// The node.
        node: PathBuf,
        /// What tells it apart.
        what: &'static str,
    },

    /// The driver is one that does not say this.
    #[error(
        "the driver of this kernel does not say this: /proc/thread-self/fdinfo has no {key}; the module \
         sysgenid of this project does"
    )]
    OldDriver {
        /// The key that is missing.
        key: &'static str,
    },

    /// The caller may not change the generation.
    #[error(
        "changing the generation needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user \
         namespace: run this as root, outside of containers with their own users"
    )]
    NotPrivileged,

    /// An acknowledgement came too late: the generation has changed again.
    #[error(
        "{acked} is not the current generation: read it again, rebuild what it guards, and \
         acknowledge that one"
    )]
    Superseded {
        /// The generation that was to be acknowledged.
        acked: crate::Generation,
    },

    /// Tracked watchers have not acknowledged in time.
    #[error(
        "after {} ms there are still watchers that have not acknowledged the generation",
        limit.as_millis()
    )]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },

    /// The hypervisor has given this machine a new ID, and the driver has not answered it in time.
    #[error(
        "the hypervisor has cloned this machine, and after {} ms the driver has not answered: look at \
         the kernel's log (dmesg)",
        limit.as_millis()
    )]
    NotSettled {
        /// How long was waited.
        limit: Duration,
    },

    /// The machine was cloned, the generation was changed, or the process was forked, since the guard
    /// looked.
    #[error("the generation has changed: undo what is half done, and start again")]
    Changed,

    /// The generation changed each time before the work was done.
    #[error(
        "the generation changed during each of {attempts} attempts: somebody changes it all the time"
    )]
    Unsettled {
        /// How many attempts there were.
        attempts: u32,
    },

    /// The value is in use by the same thread: the closure of a use, or the one that builds the value,
    /// has tried to use it.
    #[error("the value is in use by this thread: its closures cannot use it once more")]
    Nested,

    /// The closure that builds the value has failed.
    #[error("cannot build the value: {0}")]
    Build(#[source] BuildError),

    /// A system call has failed in a way that has no name here.
    #[error("cannot {action} {}: {source}", node.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        node: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rust shows what `main` returns as a programmer would want it.
    #[test]
    fn a_program_ends_with_words_for_an_operator() {
        let error = Error::NoDevice {
            node: "/dev/sysgenid".into(),
        };
        assert!(
            error
                .to_string()
                .starts_with("there is no /dev/sysgenid: load")
        );
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
