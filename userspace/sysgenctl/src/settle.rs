// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl settle`

use std::fmt;
use std::fmt::Display;

use serde::Serialize;
use sysgenid::Error;
use sysgenid::Overseer;

use crate::cli::SettleArguments;
use crate::exit::Failure;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Answer {
    generation: u32,
    /// Whether a change is still due; nothing where the driver cannot see the ID.
    pending: Option<bool>,
    /// Whether the kernel was reseeded with the hypervisor's present ID in it.
    reseeded: bool,
}

/// Has the driver make the change that is due, and waits for it.
pub fn run(arguments: &SettleArguments, output: Output) -> Result<(), Failure> {
    let overseer = Overseer::open()?;
    let settled = match overseer.settle(arguments.timeout) {
        Ok(()) => Ok(()),
        Err(error @ Error::NotSettled { .. }) => Err(Failure::TimedOut(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let status = overseer.status()?;
    output.show(&Answer {
        generation: status.generation().get(),
        pending: status.pending(),
        reseeded: status.reseeded(),
    })?;
    settled
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = match self.pending {
            Some(false) => "no change is due",
            Some(true) => "a change is due",
            None => "whether a change is due is unknown: the driver cannot see an ID",
        };
        writeln!(f, "generation {}, {pending}", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pending: Option<bool>) -> Answer {
        Answer {
            generation: 7,
            pending,
            reseeded: true,
        }
    }

    #[test]
    fn people_see_whether_a_change_is_due() {
        let text = answer(Some(false)).to_string();
        assert_eq!(text, "generation 7, no change is due\n");
        let text = answer(Some(true)).to_string();
        assert_eq!(text, "generation 7, a change is due\n");
        let text = answer(None).to_string();
        assert!(text.contains("is unknown: "), "{text}");
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        for pending in [None, Some(false), Some(true)] {
            let json = serde_json::to_value(answer(pending)).expect("it is plain data");
            let expected = serde_json::json!({
                "generation": 7,
                "pending": pending,
                "reseeded": true,
            });
            assert_eq!(json, expected);
        }
    }
}
