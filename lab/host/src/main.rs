// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lab: boots stock kernels and debug kernels in QEMU, loads the module, and clones the running
//! machine.
//!
//! It runs inside the sandbox that `lab/lab` makes, with Debian's toolchain around it, the
//! checkout at `/src`, the cache at `/cache` and the caller's file system at `/host`.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod booted;
mod cache;
mod check;
mod clone;
mod demo;
mod disk;
mod guest;
mod initramfs;
mod kernel;
mod machine;
mod packages;
mod page;
mod port;
mod products;
mod qmp;
mod report;
mod run;
mod say;
mod scratch;
mod setup;
mod shell;
mod step;
mod system;
mod table;
mod tap;
mod userspace;
mod vsock;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use anyhow::bail;
use clap::Parser;
use clap::Subcommand;
use clap::error::ErrorKind;

use crate::check::Lane;
use crate::guest::FAILED;
use crate::guest::Through;
use crate::kernel::Choice;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::system::SystemOptions;

/// Boots stock kernels in QEMU, loads the sysgenid module, and clones the running machine
#[derive(Parser)]
#[command(name = "lab", after_help = EXIT_STATUS)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_STATUS: &str = "\
Exit status: the command's own (128 + N when signal N killed it); 124 when the limit was reached;
125 when the lab failed or the guest's kernel reported a problem; 127 when the command could not
be started; 2 for wrong arguments.

Everything big is kept in ${SYSGENID_CACHE:-${XDG_CACHE_HOME:-~/.cache}/sysgenid}.";

#[derive(Subcommand)]
enum Verb {
    /// Run a command as root in a guest
    Run {
        #[command(flatten)]
        options: GuestOptions,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Run a command, save the machine when it prints a line READY, and resume it several times
    Clone {
        /// How many clones to resume
        #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        clones: u16,
        /// Resume with the VM generation ID that the machine had: nothing may change then
        #[arg(long)]
        same_guid: bool,
        /// Resume all of them at the same time, however many processors there are
        #[arg(long)]
        at_once: bool,
        #[command(flatten)]
        options: GuestOptions,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Start a guest with a shell on this terminal
    Shell {
        #[command(flatten)]
        options: GuestOptions,
    },
    /// Run a command as root in a Debian system in a directory, natively, and make a disk of what it
    /// leaves
    System {
        #[command(flatten)]
        options: SystemOptions,
        /// The command and its arguments
        #[arg(last = true, required_unless_present = "image", value_name = "CMD")]
        command: Vec<String>,
    },
    /// Build the module for a kernel, and print where it is
    Module {
        /// Which kernel: “stock”, “rt”, a series such as 7.2, “debug” or “kcsan”
        #[arg(long, default_value = "stock", value_name = "KERNEL")]
        kernel: Choice,
    },
    /// Build the packages for Debian, and print where they are
    Packages {
        /// Build what belongs to a packaged kernel, too: its module, and the metadata that modules in Rust
        /// are built with. “stock”, “rt”, a series such as 7.2, or what uname -r says; may be repeated
        #[arg(long, value_name = "KERNEL")]
        kernel: Vec<String>,
        /// Where they go
        #[arg(long, value_name = "DIR", default_value = "target/packages")]
        output: PathBuf,
    },
    /// Show what the module does: a machine that is cloned twice, side by side
    Demo,
    /// Show what an orchestrator calls: a machine that is quiesced, saved, and resumed three times at
    /// once, and what holds each of the clones up
    DemoOverseer,
    /// Measure what the device costs, beside what programs would use instead
    Bench {
        /// Measure these parts only
        #[arg(value_name = "PART")]
        parts: Vec<bench::Part>,
        /// Write all that was measured into this directory: bench.json, bench.md, and the plots as SVG
        /// and PNG
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Put the tables into this page, between their marks, and the plots beside it, in a directory
        /// of its name
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// Measure where the time goes between the resume of a clone and the change of the generation
    Window {
        /// Count guest time in instructions, so that the speed of the emulation does not show
        #[arg(long)]
        icount: bool,
        /// Draw it, too, as SVG
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
    },
    /// Try what common software does after a clone, print it as a table, and compare it with the one
    /// in Documentation/clones
    Table {
        /// Put the table into this page, between its marks, in place of the one that is there
        #[arg(long, value_name = "FILE", conflicts_with = "only")]
        page: Option<PathBuf>,
        /// Try no more than the rows that have this in their names, and those that share their guests
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        only: String,
    },
    /// Run all tests, in packaged kernels
    Check(CheckOptions),
    /// Look at the source: formatting, lints, licences, documentation, what is claimed
    Lint(CheckOptions),
    /// Build kernels that catch mistakes, with the driver in their tree, and run the tests there
    CheckDebug(CheckOptions),
    /// Run what takes machines with disks: systems that boot by themselves, and what is installed there
    CheckPackages(CheckOptions),
    /// Run the tests in each packaged kernel of the suite that is built with Rust
    CheckSeries {
        #[command(flatten)]
        options: CheckOptions,
        /// Put the table of all kernels that were tried in full, in any suite, into this page,
        /// between its marks
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// Look in the archive for newer kernels, and make systems anew from what it has
    Update,
    /// Remove everything from the cache
    Clean,
}

/// Options of all checks.
#[derive(clap::Args)]
struct CheckOptions {
    /// Write the machine-readable summary (JSON) here [default: in the cache, results/check.json and
    /// so on]
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Let a test that was skipped count as failed
    #[arg(long)]
    strict: bool,
    /// Run those checks only whose name has this in it, or which stand there (a directory or a
    /// manifest, from the top of the checkout); may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

impl CheckOptions {
    fn run(self, lane: Lane) -> Result<u8> {
        let plan = check::Plan {
            summary: match &self.summary {
                Some(path) => cache::from_caller(path),
                None => cache::directory("results")?.join(lane.summary()),
            },
            strict: self.strict,
            only: self.only,
        };
        check::run(lane, &plan)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            // What is missing has a line of its own.
            let lines = text.lines().take_while(|line| !line.is_empty());
            let first = lines.map(str::trim).collect::<Vec<_>>().join(" ");
            eprintln!(
                "lab: {} (see lab --help)",
                first.trim_start_matches("error: ")
            );
            return ExitCode::from(2);
        }
    };
    match act(arguments.verb) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn act(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Run { options, command } => {
            run::run(&Setup::new(&options, &command, None)?, &mut Through)
        }
        Verb::Clone {
            clones,
            same_guid,
            at_once,
            options,
            command,
        } => {
            let setup = Setup::new(&options, &command, None)?;
            clone::run(&setup, usize::from(clones), same_guid, at_once)
        }
        Verb::Shell { options } => shell::run(&options),
        Verb::System { options, command } => system::run(&options, &command),
        Verb::Module { kernel } => {
            let kernel = kernel::get(kernel)?;
            let what = format!("building the module for {}", kernel.release);
            match step::step(&what, || products::module(&kernel))? {
                Some(module) => println!("{}", cache::shown(&module)),
                None => bail!("the kernel “{}” has the driver built in", kernel.name),
            }
            Ok(0)
        }
        Verb::Packages { kernel, output } => {
            packages::run(&kernel, &cache::from_caller(&output))?;
            Ok(0)
        }
        Verb::Demo => demo::run(),
        Verb::DemoOverseer => demo::overseer(),
        Verb::Bench {
            parts,
            output,
            page,
        } => {
            let [output, page] = [output, page].map(|path| path.as_deref().map(cache::from_caller));
            bench::run(&parts, output.as_deref(), page.as_deref())
        }
        Verb::Window { icount, picture } => {
            let picture = picture.as_deref().map(cache::from_caller);
            window::run(icount, picture.as_deref())
        }
        Verb::Table { page, only } => {
            let page = page.as_deref().map(cache::from_caller);
            table::run(page.as_deref(), &only)
        }
        Verb::Check(options) => options.run(Lane::Check),
        Verb::Lint(options) => options.run(Lane::Lint),
        Verb::CheckDebug(options) => options.run(Lane::CheckDebug),
        Verb::CheckPackages(options) => options.run(Lane::CheckPackages),
        Verb::CheckSeries { options, page } => {
            let status = options.run(Lane::CheckSeries)?;
            if let Some(page) = page {
                check::write_series(&cache::from_caller(&page))?;
            }
            Ok(status)
        }
        Verb::Update => {
            let release = kernel::update()?;
            system::forget()?;
            say::say(format!("the stock kernel is {release}"));
            Ok(0)
        }
        // lab/lab does it: the tool itself lives in the cache.
        Verb::Clean => unreachable!("lab/lab removes the cache before the tool is started"),
    }
}
