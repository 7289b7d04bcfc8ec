// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `sysgenctl` does: a module for each verb, and what they have in common.
//!
//! It is a library for the sake of the program that makes the manual pages and the completions out
//! of [`cli::Cli`]; its interface is of no use to others.

pub mod cli;
pub mod exit;

mod absent;
mod added;
mod cgroup;
mod command;
mod configuration;
mod copies;
mod deadline;
mod doctor;
mod evidence;
mod exec;
mod followers;
mod hooks;
mod lock;
mod log;
mod module;
mod openssl;
mod output;
mod process;
mod processes;
mod replace;
mod rule;
mod serve;
mod settle;
mod snapshot;
mod status;
mod supervised;
mod switch;
mod table;
mod trigger;
mod unit;
mod unit_file;
mod wait;
mod watch;
mod why;

use std::io::Write;
use std::process::ExitCode;

#[cfg(fuzzing)]
pub use self::serve::fuzz;
use crate::cli::Cli;
use crate::cli::Verb;
use crate::exit::Exit;
use crate::output::Output;

/// Does what the command line asks for, and says what went wrong.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    let output = Output { json: cli.json };
    let result = match &cli.verb {
        Verb::Status => status::run(output),
        Verb::Watch(arguments) => watch::run(arguments, output),
        Verb::Exec(arguments) => match exec::run(arguments) {
            Ok(status) => return ExitCode::from(status),
            Err(failure) => Err(failure),
        },
        Verb::Wait(arguments) => wait::run(arguments, output),
        Verb::Settle(arguments) => settle::run(arguments, output),
        Verb::Trigger(arguments) => trigger::run(arguments, output),
        Verb::SnapshotHooks(arguments) => snapshot::run(arguments, output),
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Doctor(arguments) if arguments.is_of_processes() => processes::run(arguments, output),
        Verb::Doctor(_) => doctor::run(output),
        Verb::Unit(arguments) => unit::run(arguments, output),
        Verb::Openssl(arguments) => switch::run(arguments, output),
    };
    let exit = match result {
        Ok(()) => Exit::Success,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                // Where standard error is closed, or full, the exit status has to do.
                let _ = writeln!(anstream::stderr(), "sysgenctl: {failure}");
            }
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}
