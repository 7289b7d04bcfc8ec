// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl trigger`

use std::fmt;
use std::fmt::Display;

use serde::Serialize;
use sysgenid::Overseer;

use crate::cli::TriggerArguments;
use crate::exit::Failure;
use crate::output::Output;
use crate::wait::Waited;

#[derive(Debug, Serialize)]
struct Answer {
    generation: u32,
    /// What came of waiting, if that was asked for.
    waited: Option<Waited>,
}

/// Changes the generation, and waits if that is asked for.
pub fn run(arguments: &TriggerArguments, output: Output) -> Result<(), Failure> {
    let overseer = Overseer::open()?;
    let generation = overseer.trigger(arguments.min)?.get();
    let (waited, result) = if arguments.wait {
        let waited = Waited::wait(&overseer, arguments.timeout)?;
        let result = waited.result(arguments.timeout);
        (Some(waited), result)
    } else {
        (None, Ok(()))
    };
    output.show(&Answer { generation, waited })?;
    result
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "generation {}", self.generation)?;
        match &self.waited {
            Some(waited) => waited.fmt(f),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::tests::waited;

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = |waited| {
            let generation = 7;
            serde_json::to_value(Answer { generation, waited }).expect("it is plain data")
        };
        let expected = serde_json::json!({ "generation": 7, "waited": null });
        assert_eq!(json(None), expected);
        let expected = serde_json::json!({
            "generation": 7,
            "waited": {
                "all_acked": true,
                "tracked_watchers": 2,
                "outdated_watchers": 1,
                "watchers": [],
                "unseen_watchers": 0,
                "unreadable_processes": 0,
            },
        });
        assert_eq!(json(Some(waited(true))), expected);
    }
}
