// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl wait`

use std::fmt;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;
use sysgenid::Error;
use sysgenid::Overseer;

use crate::cli::WaitArguments;
use crate::exit::Failure;
use crate::output::Output;
use crate::table::Watchers;

/// What came of waiting.
#[derive(Debug, Serialize)]
pub struct Waited {
    /// Whether no tracked watcher is outdated.
    pub all_acked: bool,
    /// Those that are.
    #[serde(flatten)]
    pub watchers: Watchers,
}

#[derive(Debug, Serialize)]
struct Answer {
    generation: u32,
    #[serde(flatten)]
    waited: Waited,
}

/// Waits, and says what came of it.
pub fn run(arguments: &WaitArguments, output: Output) -> Result<(), Failure> {
    let overseer = Overseer::open()?;
    let waited = Waited::wait(&overseer, arguments.timeout)?;
    let generation = overseer.generation().get();
    let result = waited.result(arguments.timeout);
    output.show(&Answer { generation, waited })?;
    result
}

impl Waited {
    /// Waits until no tracked watcher is outdated, or the time is over.
    pub fn wait(overseer: &Overseer, timeout: Option<Duration>) -> Result<Self, Failure> {
        let in_time = match overseer.wait_watchers(timeout) {
            Ok(()) => true,
            Err(Error::TimedOut { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let survey = overseer.survey()?;
        let status = overseer.status()?;
        let watchers = Watchers::new(&status, &survey).waited_for();
        Ok(Self {
            all_acked: in_time || status.outdated_watchers() == 0,
            watchers,
        })
    }

    /// A failure if there still was one when the time was over.
    pub fn result(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        if self.all_acked {
            return Ok(());
        }
        Err(Failure::TimedOut(format!(
            "after {} not all tracked watchers have acknowledged: {} of {} are outdated",
            humantime::format_duration(timeout.unwrap_or_default()),
            self.watchers.outdated_watchers,
            self.watchers.tracked_watchers,
        )))
    }
}

impl Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all_acked {
            let tracked = self.watchers.tracked_watchers;
            writeln!(f, "no tracked watcher is outdated, of {tracked}")
        } else {
            self.watchers.fmt(f)
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waited.fmt(f)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::table::tests::watcher;
    use crate::table::tests::watchers;

    pub fn waited(all_acked: bool) -> Waited {
        let left = if all_acked {
            Vec::new()
        } else {
            vec![watcher(71, true, true)]
        };
        Waited {
            all_acked,
            watchers: watchers(left, 0),
        }
    }

    #[test]
    fn the_time_being_over_names_those_that_are_left() {
        let waited = waited(false);
        let failure = waited
            .result(Some(Duration::from_secs(30)))
            .expect_err("one is outdated");
        assert_eq!(failure.exit(), Exit::TimedOut);
        assert_eq!(
            failure.to_string(),
            "after 30s not all tracked watchers have acknowledged: 1 of 2 are outdated"
        );
        assert!(waited.to_string().contains("nginx: worker process"));
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let waited = waited(true);
        assert!(waited.result(None).is_ok());
        let json = serde_json::to_value(Answer {
            generation: 7,
            waited,
        });
        let expected = serde_json::json!({
            "generation": 7,
            "all_acked": true,
            "tracked_watchers": 2,
            "outdated_watchers": 1,
            "watchers": [],
            "unseen_watchers": 0,
            "unreadable_processes": 0,
        });
        assert_eq!(json.expect("it is plain data"), expected);
    }
}
