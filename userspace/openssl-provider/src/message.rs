// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an operator can read.
//!
//! A library has no place to write to: standard error is the program's, and an entry in OpenSSL's error
//! queue would be taken for a failure of the program's next call. So the state is a part of the
//! provider's name, which `openssl list -providers` shows, and standard error has it only for those
//! who ask by the environment.

use std::env;
use std::ffi::CString;
use std::io;
use std::io::Write as _;

use sysgenid::Error;
use sysgenid::Freshness;
use sysgenid::IdPage;
use sysgenid::SysGenId;

/// Who sets this wants to read on standard error what the provider has to say.
const ASKED: &str = "SYSGENID_OPENSSL_DEBUG";

/// Writes a line to standard error, if that is wanted.
pub(crate) fn tell(text: &str) {
    if env::var_os(ASKED).is_some_and(|value| !value.is_empty()) {
        // Where standard error is closed, or full, nobody reads it, and no program may end for that.
        let _ = writeln!(io::stderr(), "sysgenid: OpenSSL provider: {text}");
    }
}

/// What the provider does in this process, in one line.
pub(crate) fn state(sysgenid: &Result<SysGenId, Error>) -> String {
    const WITHOUT: &str = "the generation is looked at, but not the ID: a clone notices late";
    match sysgenid {
        Err(error) => format!("off, OpenSSL's plain generators: {error}"),
        Ok(sysgenid) => match sysgenid.id_page() {
            IdPage::Mapped | IdPage::Read => "on".into(),
            IdPage::Absent => format!("on, {WITHOUT}: there is no {}", sysgenid::ID_NODE),
            IdPage::Forbidden(error) | IdPage::Failed(error) => format!("on, {WITHOUT}: {error}"),
            _ => format!("on, {WITHOUT}"),
        },
    }
}

/// Why the kernel's random bytes are not known to be fresh, and what is done.
pub(crate) fn doubt(freshness: Freshness) -> String {
    let why = match freshness {
        Freshness::TimedOut => {
            "the hypervisor has given this machine a new ID, and the kernel has not answered it in time"
        }
        Freshness::NotSaid => {
            "the kernel's driver is an older one, which does not say whether the kernel was reseeded"
        }
        Freshness::NotReseeded | Freshness::Reseeded | Freshness::NoDevice => {
            "the kernel does not vouch for its random bytes: it was not reseeded with an ID of the \
             hypervisor's"
        }
    };
    format!("{why}; the ID, the processor's random numbers and the moment are mixed in")
}

/// The provider's name for people, with its state.
pub(crate) fn name(state: &str) -> CString {
    let text = format!("OpenSSL's CTR-DRBG, reseeded in clones ({state})");
    // A path can have no NUL, but what is said of one is not in our hands.
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sysgenid::stand_in::StandIn;

    use super::*;

    #[test]
    fn what_is_looked_at_is_on() {
        let device = StandIn::new();
        for sysgenid in [
            device.open(Duration::ZERO),
            device.open_to_read(Duration::ZERO),
        ] {
            assert_eq!(state(&Ok(sysgenid)), "on");
        }
        let late = state(&Ok(device.open_without_id(Duration::ZERO)));
        assert!(late.starts_with("on, the generation"), "{late}");
    }

    #[test]
    fn why_it_is_off_is_said() {
        let node = sysgenid::GENERATION_NODE.into();
        let state = state(&Err(Error::NoDevice { node }));
        let text = "off, OpenSSL's plain generators: there is no /dev/sysgenid: ";
        assert!(state.starts_with(text), "{state}");
    }

    #[test]
    fn each_doubt_has_its_reason() {
        let all = [
            Freshness::TimedOut,
            Freshness::NotSaid,
            Freshness::NotReseeded,
        ];
        let mut texts = all.map(doubt).to_vec();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), all.len());
    }

    #[test]
    fn a_name_is_a_string_of_c() {
        let name = name("off: a\0b");
        let name = name.to_str().expect("it is text");
        assert_eq!(name, "OpenSSL's CTR-DRBG, reseeded in clones (off: a?b)");
    }
}
