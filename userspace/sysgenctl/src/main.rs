// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `sysgenctl`.

use std::process::ExitCode;

use clap::Parser;
use sysgenctl::cli::Cli;

fn main() -> ExitCode {
    sysgenctl::run(&Cli::parse())
}
