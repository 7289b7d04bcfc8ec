// SPDX-License-Identifier: MIT OR Apache-2.0

//! What C sees of an error: a negative number from `errno.h`, and a message.

use std::cell::Cell;
use std::ffi::c_char;
use std::ffi::c_int;
use std::io;
use std::panic;
use std::panic::AssertUnwindSafe;

use rustix::io::Errno;
use sysgenid::Error;

/// What a call returns when it succeeds and has nothing to say.
pub(crate) const SUCCESS: c_int = 0;

/// The longest message, with the zero at its end. Longer ones are cut off.
const SIZE: usize = 512;

thread_local! {
    /// The message of this thread's last failure, with a zero at its end.
    ///
    /// It owns no memory, so that nothing has to be run when the thread ends: the library may have been
    /// unloaded by then.
    static MESSAGE: Cell<[u8; SIZE]> = const { Cell::new([0; SIZE]) };
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    errno: Errno,
    message: String,
}

impl Failure {
    pub(crate) fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    /// The caller has passed something that no call takes.
    pub(crate) fn invalid(what: &str) -> Self {
        Self::new(Errno::INVAL, format!("wrong use of the library: {what}"))
    }

    /// Keeps the message for the thread, and returns what C gets.
    fn keep(&self) -> c_int {
        let mut bytes = [0; SIZE];
        let mut end = self.message.len().min(SIZE - 1);
        // No half a character.
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        bytes[..end].copy_from_slice(&self.message.as_bytes()[..end]);
        MESSAGE.with(|message| message.set(bytes));
        -self.errno.raw_os_error()
    }
}

/// Where the message of this thread's last failure is: valid as long as the thread, and empty if there
/// was none.
pub(crate) fn message() -> *const c_char {
    MESSAGE.with(|message| message.as_ptr().cast_const().cast())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let errno = match error {
            Error::NoDevice { .. } => Errno::NODEV,
            Error::Forbidden { .. } => Errno::ACCESS,
            Error::NotTheDevice { .. } => Errno::NOTTY,
            Error::NotPrivileged => Errno::PERM,
            Error::Superseded { .. } => Errno::STALE,
            Error::TimedOut { .. } | Error::NotSettled { .. } => Errno::TIME,
            Error::Unsettled { .. } => Errno::AGAIN,
            Error::Io { source, .. } => errno_of(source),
            _ => Errno::IO,
        };
        Self::new(errno, error.to_string())
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Makes a call. A panic is a bug of this library, and ends here: C could not stop it.
pub(crate) fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let failure = match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return SUCCESS,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(
            Errno::NOTRECOVERABLE,
            "a bug in libsysgenid: standard error has more",
        ),
    };
    failure.keep()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// The message up to the zero at its end.
    fn kept() -> String {
        let bytes = MESSAGE.with(Cell::get);
        let end = bytes.iter().position(|byte| *byte == 0);
        let end = end.expect("there is a zero at the end");
        String::from_utf8(bytes[..end].to_vec()).expect("whole characters")
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let returned = guarded(|| panic!("on purpose"));
        assert_eq!(returned, -Errno::NOTRECOVERABLE.raw_os_error());
        assert!(kept().contains("bug"), "{}", kept());
    }

    #[test]
    fn an_error_becomes_its_number_and_its_message() {
        let node = || PathBuf::from("/dev/x");
        let io = |errno: Errno| Error::Io {
            action: "open",
            node: node(),
            source: errno.into(),
        };
        let errors = [
            (Error::NoDevice { node: node() }, Errno::NODEV),
            (Error::NotPrivileged, Errno::PERM),
            (io(Errno::MFILE), Errno::MFILE),
            (Error::Changed, Errno::IO),
        ];
        for (error, errno) in errors {
            let message = error.to_string();
            let returned = guarded(|| Err(error.into()));
            assert_eq!(returned, -errno.raw_os_error(), "{message}");
            assert_eq!(kept(), message);
        }
    }

    #[test]
    fn success_keeps_the_message() {
        guarded(|| Err(Failure::invalid("first")));
        assert_eq!(guarded(|| Ok(())), SUCCESS);
        assert!(kept().ends_with("first"), "{}", kept());
    }

    #[test]
    fn threads_have_their_own_messages() {
        guarded(|| Err(Failure::invalid("here")));
        let other = std::thread::spawn(kept).join();
        assert_eq!(other.expect("no panic"), "");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        // With one of them, the place to cut at is in the middle of a character.
        for start in ["", "x"] {
            let message = format!("{start}{}", "é".repeat(SIZE));
            guarded(|| Err(Failure::new(Errno::IO, message.as_str())));
            assert!(kept().len() >= SIZE - 2, "{}", kept().len());
            assert!(message.starts_with(&kept()));
        }
    }
}
