// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl trigger`

use std::fmt;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;
use sysgenid::Overseer;

use crate::cli::TriggerArguments;
use crate::exit::Failure;
use crate::output::Output;
use crate::wait::AllWaited;

/// How many bytes there have to be with --entropy: fewer can be guessed, and more are a mistake.
const SIZES: RangeInclusive<usize> = 16..=4096;

#[derive(Debug, Serialize)]
struct Answer {
    generation: u32,
    /// What came of waiting, if that was asked for.
    waited: Option<AllWaited>,
}

/// Changes the generation, and waits if that is asked for.
pub fn run(arguments: &TriggerArguments, output: Output) -> Result<(), Failure> {
    let entropy = arguments.entropy.as_deref().map(read).transpose()?;
    let overseer = Overseer::open()?;
    let entropy = entropy.as_deref().unwrap_or_default();
    let generation = overseer.trigger_with_entropy(arguments.min, entropy)?;
    let generation = generation.get();
    let (waited, result) = if arguments.wait {
        let (waited, result) =
            AllWaited::of_all(&overseer, arguments.timeout, !arguments.no_units)?;
        (Some(waited), result)
    } else {
        (None, Ok(()))
    };
    output.show(&Answer { generation, waited })?;
    result
}

/// What a file has, or standard input.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let from = if path == Path::new("-") {
        return take(io::stdin().lock(), "standard input");
    } else {
        path.display().to_string()
    };
    let file = File::open(path).map_err(Failure::io(format!("open {from}")))?;
    take(file, &from)
}

fn take(source: impl Read, from: &str) -> Result<Vec<u8>, Failure> {
    let most = u64::try_from(*SIZES.end()).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    source
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(Failure::io(format!("read {from}")))?;
    if SIZES.contains(&bytes.len()) {
        return Ok(bytes);
    }
    let (least, most) = SIZES.into_inner();
    let there = if bytes.len() > most { "more" } else { "fewer" };
    Err(Failure::Refused(format!(
        "{from} has {there} random bytes than the {least} to {most} that --entropy takes: nothing was \
         changed"
    )))
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
    use crate::wait::tests::all_waited;

    #[test]
    fn too_little_and_too_much_is_refused() {
        for (size, is_taken) in [
            (0, false),
            (15, false),
            (16, true),
            (4096, true),
            (4097, false),
        ] {
            let taken = take(&vec![7; size][..], "there");
            assert_eq!(
                taken.is_ok_and(|bytes| bytes.len() == size),
                is_taken,
                "{size}"
            );
        }
        // A device that never ends is no mistake that takes long.
        assert!(take(io::repeat(7), "there").is_err());
    }

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
                "units": [{ "name": "a.service", "result": "done", "reason": null }],
            },
        });
        assert_eq!(json(Some(all_waited())), expected);
    }
}
