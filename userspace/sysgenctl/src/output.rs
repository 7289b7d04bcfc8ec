// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes to standard output: text for people, or JSON for programs.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use anstream::adapter;
use anstyle::AnsiColor;
use anstyle::Style;
use rustix::fs::MemfdFlags;
use rustix::fs::memfd_create;
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

/// How long is waited for who writes a report.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// Prints a report of what is done. Nothing depends on whether that can be written, and nobody waits
    /// for it for long: it may be a file in a file system that is frozen, or a pipe that nobody reads before
    /// we have ended.
    pub fn deliver(self, lines: &[String], report: &impl Serialize) {
        let text = if self.json {
            serde_json::to_string(report).map_err(io::Error::from)
        } else {
            Ok(lines.join("\n"))
        };
        let delivered = text.and_then(|text| {
            let choice = anstream::AutoStream::choice(&io::stdout());
            write_by_another(if choice == anstream::ColorChoice::Never {
                adapter::strip_str(&text).to_string()
            } else {
                text
            })
        });
        if let Err(error) = delivered {
            let _ = writeln!(
                anstream::stderr(),
                "sysgenctl: cannot tell what was done: {error}"
            );
        }
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

/// Has another process write to our standard output: whoever writes to a frozen file system can neither
/// be ended nor end.
fn write_by_another(mut text: String) -> io::Result<()> {
    text.push('\n');
    // What it reads from is whole before it begins, so that it can outlive us.
    let mut whole = tempfile_in_memory()?;
    whole.write_all(text.as_bytes())?;
    whole.rewind()?;
    let mut child = Command::new("cat")
        .stdin(whole)
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(_) => return Err(io::Error::other("standard output cannot be written")),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(())
}

fn tempfile_in_memory() -> io::Result<File> {
    Ok(memfd_create("sysgenctl", MemfdFlags::CLOEXEC)?.into())
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
