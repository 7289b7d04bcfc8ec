// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes to standard output: text for people, or JSON for programs.

use std::fmt::Display;
use std::io;
use std::io::Write;
use std::process::Stdio;
use std::time::SystemTime;

use anstyle::AnsiColor;
use anstyle::Style;
use serde::Serialize;

use crate::exit::Failure;

/// What people should look at.
pub const NOTABLE: Style = AnsiColor::Yellow.on_default().bold();
/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What did not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// The head of a table.
pub const HEAD: Style = Style::new().bold();

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
}

impl Output {
    /// Prints a result.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn show(self, result: &(impl Serialize + Display)) -> Result<(), Failure> {
        if self.json {
            self.json(result)
        } else {
            self.text(result)
        }
    }

    /// Prints, on a line of its own, what only programs want to know.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn json(self, result: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(result).map_err(io::Error::from);
        line.and_then(|line| write_line(&line))
            .map_err(Failure::io("write to standard output"))
    }

    /// Prints what only people want to know. Colours go to terminals only.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn text(self, text: impl Display) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        write_line(&text.to_string()).map_err(Failure::io("write to standard output"))
    }

    /// Where a command's own output goes: not among the JSON.
    pub fn of_commands(self) -> Stdio {
        if self.json {
            Stdio::from(io::stderr())
        } else {
            Stdio::inherit()
        }
    }
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    stdout.write_all(line.as_bytes())?;
    if !line.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// The time, to the second, as both text and JSON show it.
pub fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A number of things: `1 watcher`, `2 watchers`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Text of others without what a terminal would take for commands.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_commands_no_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a?[2Jb?c?d");
    }

    #[test]
    fn numbers_have_their_words() {
        assert_eq!(count(1, "watcher", "watchers"), "1 watcher");
        assert_eq!(count(0, "watcher", "watchers"), "0 watchers");
    }
}
