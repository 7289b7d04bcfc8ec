// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of watchers.

use std::fmt;
use std::fmt::Display;
use std::io::Write;

use serde::Serialize;
use sysgenid::Status;
use sysgenid::Survey;
use tabwriter::TabWriter;
use terminal_size::Width;

use crate::output::HEAD;
use crate::output::NOTABLE;
use crate::output::count;
use crate::output::plain;

/// How wide a table is where there is no terminal.
const WIDTH: u16 = 100;
/// What commands are cut to at least.
const LEAST: usize = 12;

/// One watcher's descriptor, as the table and the JSON show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Watcher {
    /// The process.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Whether the watcher is tracked.
    pub tracked: bool,
    /// The generation that it acked last.
    pub acked: u32,
    /// Whether it is outdated.
    pub outdated: bool,
    /// The process's command line.
    pub command: String,
}

/// The watchers that can be seen, and what is known of others.
#[expect(
    clippy::struct_field_names,
    reason = "they are the names in the JSON, where no type is in front"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Watchers {
    /// How many watchers are tracked, in all.
    pub tracked_watchers: u64,
    /// How many of those are outdated.
    pub outdated_watchers: u64,
    /// Those that can be seen.
    pub watchers: Vec<Watcher>,
    /// How many, at least, of those that belong here cannot be seen.
    pub unseen_watchers: u64,
    /// Of how many processes it cannot be seen whether they are watchers.
    pub unreadable_processes: usize,
}

impl Watchers {
    /// All watchers but our own.
    pub fn new(status: &Status, survey: &Survey) -> Self {
        let own = std::process::id();
        let watchers: Vec<_> = survey
            .entries()
            .iter()
            .filter(|entry| entry.pid() != own)
            .map(|entry| Watcher {
                pid: entry.pid(),
                fd: entry.fd(),
                tracked: entry.status().tracked(),
                acked: entry.status().acked().get(),
                outdated: entry.status().outdated(),
                command: entry.command().to_owned(),
            })
            .collect();
        let unseen_watchers = unseen(status.watchers(), &watchers, |watcher| watcher.tracked);
        Self {
            tracked_watchers: status.watchers(),
            outdated_watchers: status.outdated_watchers(),
            watchers,
            unseen_watchers,
            unreadable_processes: survey.unreadable(),
        }
    }

    /// None, where nobody has to be looked for.
    pub fn none(status: &Status) -> Self {
        Self {
            tracked_watchers: status.watchers(),
            outdated_watchers: status.outdated_watchers(),
            watchers: Vec::new(),
            unseen_watchers: 0,
            unreadable_processes: 0,
        }
    }

    /// Only those for which an overseer waits.
    pub fn waited_for(mut self) -> Self {
        self.watchers
            .retain(|watcher| watcher.tracked && watcher.outdated);
        self.unseen_watchers = unseen(self.outdated_watchers, &self.watchers, |_| true);
        self
    }

    /// What is not in the table, if there may be anything.
    fn not_shown(&self) -> Option<String> {
        let processes = count(self.unreadable_processes, "process", "processes");
        let unseen = match self.unseen_watchers {
            1 => "1 tracked watcher".to_owned(),
            number => format!("{number} tracked watchers"),
        };
        match (self.unseen_watchers, self.unreadable_processes) {
            (0, 0) => None,
            (0, _) => Some(format!(
                "{processes} of other users cannot be looked at, and may be watchers: root sees them"
            )),
            // There is a /proc that hides processes (hidepid=, a container).
            (_, 0) => Some(format!(
                "not shown: {unseen}, in processes that /proc does not show here"
            )),
            (..) => Some(format!(
                "not shown: {unseen}, in {processes} of other users that cannot be looked at: root \
                 sees them"
            )),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        if !self.watchers.is_empty() {
            let table = self.table(width).map_err(|_| fmt::Error)?;
            f.write_str(&table)?;
        }
        match self.not_shown() {
            Some(text) => writeln!(f, "{NOTABLE}{text}{NOTABLE:#}"),
            None => Ok(()),
        }
    }

    fn table(&self, width: usize) -> std::io::Result<String> {
        let mut table = TabWriter::new(Vec::new()).ansi(true).minwidth(0);
        writeln!(
            table,
            "{HEAD}PID{HEAD:#}\t{HEAD}FD{HEAD:#}\t{HEAD}TRACKED{HEAD:#}\t{HEAD}ACKED{HEAD:#}\t\
             {HEAD}OUTDATED{HEAD:#}\t{HEAD}COMMAND{HEAD:#}"
        )?;
        // Two blanks between columns, and the columns before the last one are about so wide.
        let widest = |column: fn(&Watcher) -> String, head: &str| {
            let cells = self.watchers.iter().map(|watcher| column(watcher).len());
            cells.chain([head.len()]).max().unwrap_or_default() + 2
        };
        let before = widest(|watcher| watcher.pid.to_string(), "PID")
            + widest(|watcher| watcher.fd.to_string(), "FD")
            + widest(|_| String::new(), "TRACKED")
            + widest(|watcher| watcher.acked.to_string(), "ACKED")
            + widest(|_| String::new(), "OUTDATED");
        let room = width.saturating_sub(before).max(LEAST);
        for watcher in &self.watchers {
            let Watcher { pid, fd, acked, .. } = watcher;
            let style = if watcher.outdated {
                NOTABLE
            } else {
                anstyle::Style::new()
            };
            writeln!(
                table,
                "{pid}\t{fd}\t{}\t{acked}\t{style}{}{style:#}\t{}",
                yes(watcher.tracked),
                yes(watcher.outdated),
                cut(&plain(&watcher.command), room),
            )?;
        }
        let table = table
            .into_inner()
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(String::from_utf8_lossy(&table).into_owned())
    }
}

impl Display for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, width())
    }
}

/// How many of so many watchers are not among those that can be seen. A watcher that has several
/// descriptors is seen several times, and makes up for one that is not.
fn unseen(all: u64, seen: &[Watcher], counts: impl Fn(&Watcher) -> bool) -> u64 {
    let seen = seen.iter().filter(|watcher| counts(watcher)).count();
    all.saturating_sub(seen as u64)
}

/// How wide the terminal is.
fn width() -> usize {
    let width = terminal_size::terminal_size().map_or(WIDTH, |(Width(width), _)| width);
    usize::from(width)
}

/// A truth, for people.
pub fn yes(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}

/// The text, with an ellipsis where it was too long.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Tables that tests are about.
#[cfg(any(test, fuzzing))]
pub mod made {
    use super::*;

    pub fn watcher(pid: u32, tracked: bool, outdated: bool) -> Watcher {
        Watcher {
            pid,
            fd: 3,
            tracked,
            acked: 7,
            outdated,
            command: "nginx: worker process".into(),
        }
    }

    pub fn watchers(watchers: Vec<Watcher>, unreadable_processes: usize) -> Watchers {
        Watchers {
            tracked_watchers: 2,
            outdated_watchers: 1,
            watchers,
            unseen_watchers: 0,
            unreadable_processes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made::watcher;
    use super::made::watchers;
    use super::*;

    struct Wide<'a>(&'a Watchers, usize);

    impl Display for Wide<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.write(f, self.1)
        }
    }

    fn shown(watchers: &Watchers, width: usize) -> String {
        let text = Wide(watchers, width).to_string();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![watcher(7, true, false), watcher(12345, false, true)];
        assert_eq!(
            shown(&watchers(rows, 0), 80),
            "\
PID    FD  TRACKED  ACKED  OUTDATED  COMMAND
7      3   yes      7      no        nginx: worker process
12345  3   no       7      yes       nginx: worker process
"
        );
    }

    #[test]
    fn long_commands_are_cut() {
        let mut long = watcher(1, true, true);
        long.command = "x".repeat(200);
        let text = shown(&watchers(vec![long], 0), 60);
        let row = text.lines().nth(1).expect("there is a row");
        assert_eq!(row.chars().count(), 60, "{row}");
        assert!(row.ends_with("xxx…"), "{row}");
    }

    #[test]
    fn commands_cannot_command_the_terminal() {
        let mut bad = watcher(1, true, true);
        bad.command = "a\u{1b}]0;b\tc\nd".into();
        let text = Wide(&watchers(vec![bad], 0), 80).to_string();
        assert!(text.contains("a?]0;b?c?d"), "{text:?}");
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let said = |unseen_watchers, unreadable| {
            let watchers = Watchers {
                unseen_watchers,
                ..watchers(Vec::new(), unreadable)
            };
            shown(&watchers, 80)
        };
        assert_eq!(said(0, 0), "");
        assert_eq!(
            said(0, 2),
            "2 processes of other users cannot be looked at, and may be watchers: root sees them\n"
        );
        assert_eq!(
            said(1, 0),
            "not shown: 1 tracked watcher, in processes that /proc does not show here\n"
        );
        assert_eq!(
            said(2, 1),
            "not shown: 2 tracked watchers, in 1 process of other users that cannot be looked at: \
             root sees them\n"
        );
    }

    #[test]
    fn watchers_that_are_not_seen_are_counted() {
        let rows = [watcher(1, true, false), watcher(2, false, false)];
        assert_eq!(unseen(3, &rows, |watcher| watcher.tracked), 2);
        assert_eq!(unseen(1, &rows, |_| true), 0);
    }

    #[test]
    fn an_overseer_waits_for_those_that_are_tracked_and_outdated() {
        let rows = vec![
            watcher(1, true, false),
            watcher(2, true, true),
            watcher(3, false, true),
        ];
        let mut all = watchers(rows, 0);
        all.outdated_watchers = 3;
        let left = all.waited_for();
        assert_eq!(left.watchers, [watcher(2, true, true)]);
        assert_eq!(left.unseen_watchers, 2);
    }
}
