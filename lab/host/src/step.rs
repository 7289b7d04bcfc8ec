// SPDX-License-Identifier: MIT OR Apache-2.0

//! Long steps: what the lab is doing, how long it took, and what went wrong.

use std::env;
use std::fs;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Seek;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cache;
use crate::say::say;

/// How many lines of a failed command's output are worth showing.
const TAIL: usize = 15;

/// What tools say when there is no network.
const NETWORK: [&str; 5] = [
    "Temporary failure resolving",
    "Could not connect",
    "Could not resolve",
    "Network is unreachable",
    "spurious network error",
];

/// Runs `work`, saying what it is and afterwards how long it took.
///
/// On a terminal a spinner shows that it is alive; elsewhere there are two plain lines.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let spinner = if std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none() {
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("lab: {msg} {spinner} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(120));
        Some(spinner)
    } else {
        say(format!("{what} …"));
        None
    };
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => say(format!("{what}: done in {seconds:.1} s")),
        Err(_) => say(format!("{what}: failed after {seconds:.1} s")),
    }
    result
}

/// Runs a command to its end. What it writes is kept if it fails, in the log called `log`.
///
/// # Errors
///
/// With the reason in front where it is known (a full disk, no network), else the lines of the
/// output that speak of errors.
pub fn execute(command: &mut Command, log: &str) -> Result<()> {
    execute_logged(command, log).map(drop)
}

/// The same, but returns what the command writes, to standard output and standard error.
pub fn execute_logged(command: &mut Command, log: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Not in the cache: another lab may run the same step.
    let mut output = tempfile::tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.success() {
        return Ok(text);
    }
    let path = cache::directory("log")?.join(format!("{log}.log"));
    // On a full disk there is nothing to keep it in, and the reason to give is that one.
    fs::write(&path, &bytes).ok();
    Err(diagnose(&text, &path).context(format!("{program} failed ({status})")))
}

/// Runs a command and returns what it writes to standard output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!("{}", text.trim()).context(format!("{program} failed")));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} wrote no UTF-8"))
}

fn diagnose(text: &str, log: &Path) -> anyhow::Error {
    if cache::free_space().is_ok_and(|free| free < 100 << 20) {
        return anyhow!(
            "the disk that holds the cache is full; make room, or let SYSGENID_CACHE name another place"
        );
    }
    if let Some(line) = text
        .lines()
        .find(|line| NETWORK.iter().any(|sign| line.contains(sign)))
    {
        return anyhow!(
            "no network ({}); what is in the cache already works without",
            line.trim()
        );
    }
    let lines: Vec<&str> = text.lines().collect();
    let first = lines
        .iter()
        .position(|line| line.contains("error") || line.contains("***"))
        .map_or(0, |at| at.saturating_sub(1))
        .max(lines.len().saturating_sub(TAIL * 8));
    let shown = lines[first..]
        .iter()
        .take(TAIL)
        .fold(String::new(), |all, line| format!("{all}\n  {line}"));
    let log = cache::shown(log);
    anyhow!("its output (all of it: {log}):{shown}")
}
