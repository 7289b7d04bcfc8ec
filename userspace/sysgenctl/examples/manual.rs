// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes the manual pages and the shells' completions out of the command itself:
//!
//! ```text
//! cargo run --example manual -- DIRECTORY
//! ```
//!
//! What clap knows is in no other place. What it does not know, such as examples, is in `man/`, one
//! file for each page: text before its first section goes to the end of the description, and its
//! sections come after the options. An option or an exit status that such a file names, and that
//! the command does not have, is an error.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;

use clap::Arg;
use clap::Command;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use roff::Inline;
use roff::Roff;
use roff::bold;
use roff::italic;
use roff::roman;
use sysgenctl::cli::Cli;
use sysgenctl::exit::Exit;

const SECTION: &str = "8";
/// When what is in `man/` was last changed in more than its wording.
const DATE: &str = "2026-11-27";

/// What is written by hand, for each page.
const SECTIONS: [(&str, &str); 12] = [
    ("sysgenctl", include_str!("../man/sysgenctl.roff")),
    (
        "sysgenctl-doctor",
        include_str!("../man/sysgenctl-doctor.roff"),
    ),
    ("sysgenctl-exec", include_str!("../man/sysgenctl-exec.roff")),
    (
        "sysgenctl-openssl",
        include_str!("../man/sysgenctl-openssl.roff"),
    ),
    (
        "sysgenctl-serve",
        include_str!("../man/sysgenctl-serve.roff"),
    ),
    (
        "sysgenctl-settle",
        include_str!("../man/sysgenctl-settle.roff"),
    ),
    (
        "sysgenctl-snapshot-hooks",
        include_str!("../man/sysgenctl-snapshot-hooks.roff"),
    ),
    (
        "sysgenctl-status",
        include_str!("../man/sysgenctl-status.roff"),
    ),
    (
        "sysgenctl-trigger",
        include_str!("../man/sysgenctl-trigger.roff"),
    ),
    ("sysgenctl-unit", include_str!("../man/sysgenctl-unit.roff")),
    ("sysgenctl-wait", include_str!("../man/sysgenctl-wait.roff")),
    (
        "sysgenctl-watch",
        include_str!("../man/sysgenctl-watch.roff"),
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        return Err("usage: manual DIRECTORY".into());
    };
    let directory = Path::new(&directory);

    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "sysgenctl", &completions)?;
    }

    let pages = directory.join("man");
    // A page of a command that is no more must not be installed.
    match fs::remove_dir_all(&pages) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&pages)?,
    }
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let commands: Vec<&Command> = [&command].into_iter().chain(verbs).collect();
    for (name, _) in SECTIONS {
        if !commands.iter().any(|command| page_name(command) == name) {
            return Err(format!("man/{name}.roff belongs to no command").into());
        }
    }
    for command in &commands {
        let name = page_name(command);
        let (_, sections) = SECTIONS
            .iter()
            .find(|(page, _)| *page == name)
            .ok_or(format!("there is no man/{name}.roff"))?;
        check_options(&commands, sections)
            .and_then(|()| check_statuses(sections))
            .map_err(|error| format!("man/{name}.roff: {error}"))?;
        let mut page = File::create(pages.join(format!("{name}.{SECTION}")))?;
        write_page(command, sections, &mut page)?;
    }
    Ok(())
}

fn page_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn write_page(command: &Command, sections: &str, page: &mut impl Write) -> io::Result<()> {
    let man = Man::new(for_people(command))
        .title(page_name(command).to_uppercase())
        .section(SECTION)
        .date(DATE)
        .source(format!("sysgenctl {}", env!("CARGO_PKG_VERSION")))
        .manual("System generation");
    man.render_title(page)?;
    man.render_name_section(page)?;
    synopsis(command).to_writer(page)?;
    man.render_description_section(page)?;
    let first_section = sections.find(".SH ").unwrap_or(sections.len());
    let (description, sections) = sections.split_at(first_section);
    page.write_all(description.as_bytes())?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
        exit_status().to_writer(page)?;
    }
    page.write_all(sections.as_bytes())
}

/// Without what a page says elsewhere: the NAME section has the first paragraph of the description,
/// and values are explained by hand.
fn for_people(command: &Command) -> Command {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let (_, rest) = about.split_once("\n\n").unwrap_or(("", &about));
    let rest = rest.to_owned();
    let hide = |argument: Arg| argument.hide_possible_values(true);
    command.clone().long_about(rest).mut_args(hide)
}

/// All that can be said on the command line, with the values: `clap_mangen` leaves out those of options,
/// what excludes what, and what a word may be.
fn synopsis(command: &Command) -> Roff {
    let mut line = vec![bold(command.get_bin_name().unwrap_or(command.get_name()))];
    let options = command
        .get_arguments()
        .filter(|argument| !argument.is_positional());
    // What takes all that follows comes last.
    let (last, options): (Vec<&Arg>, Vec<&Arg>) = options
        .filter(|option| !option.is_hide_set())
        .partition(|option| takes_more_than_one(option));
    let alternatives = alternatives(command);
    for option in options {
        let alternatives = alternatives.iter().find(|all| all.contains(&option));
        match alternatives {
            Some(all) if all[0] != option => {}
            Some(all) => line.extend(in_brackets(all)),
            None => line.extend(in_brackets(&[option])),
        }
    }
    for positional in command.get_positionals() {
        let (before, after) = if positional.is_required_set() {
            (" ", "")
        } else {
            (" [", "]")
        };
        line.push(roman(before));
        let words = positional.get_possible_values();
        if words.is_empty() {
            line.push(italic(value_names(positional)));
        }
        if takes_more_than_one(positional) {
            line.extend([roman(" ["), italic("ARGUMENT"), roman("]...")]);
        }
        for (number, word) in words.iter().enumerate() {
            line.push(roman(if number == 0 { "" } else { "|" }));
            line.push(bold(word.get_name()));
        }
        line.push(roman(after));
    }
    for option in last {
        line.extend(in_brackets(&[option]));
    }
    if command.has_subcommands() {
        line.extend([
            roman(" "),
            italic("COMMAND"),
            roman(" ["),
            italic("ARGUMENT"),
            roman("]..."),
        ]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(line);
    roff
}

/// The groups of options of which one can be given.
fn alternatives(command: &Command) -> Vec<Vec<&Arg>> {
    let groups = command
        .get_groups()
        .filter(|group| !(*group).clone().is_multiple());
    let members = |group: &clap::ArgGroup| {
        let ids: Vec<_> = group.get_args().collect();
        let arguments = command.get_arguments();
        arguments
            .filter(|argument| ids.contains(&argument.get_id()))
            .collect()
    };
    groups.map(members).collect()
}

/// ` [-a|--all]`, ` [--of VALUE | --all]`.
fn in_brackets(options: &[&Arg]) -> Vec<Inline> {
    let mut line = vec![roman(" [")];
    for (number, option) in options.iter().enumerate() {
        line.push(roman(if number == 0 { "" } else { " | " }));
        let short = option.get_short().map(|short| format!("-{short}"));
        let long = option.get_long().map(|long| format!("--{long}"));
        let both = short.is_some() && long.is_some();
        line.extend(short.map(bold));
        line.push(roman(if both { "|" } else { "" }));
        line.extend(long.map(bold));
        if option.get_action().takes_values() {
            line.extend([roman(" "), italic(value_names(option))]);
        }
        if takes_more_than_one(option) {
            line.extend([roman(" ["), italic("ARGUMENT"), roman("]...")]);
        }
    }
    line.push(roman("]"));
    line
}

fn takes_more_than_one(option: &Arg) -> bool {
    option
        .get_num_args()
        .is_some_and(|number| number.max_values() > 1)
}

fn value_names(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names
        .iter()
        .map(clap::builder::Str::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for exit in Exit::ALL {
        roff.control("TP", []);
        roff.text([bold((exit as u8).to_string())]);
        roff.text([roman(exit.meaning())]);
    }
    roff
}

/// Every `\-\-option` must be one of these commands.
fn check_options(commands: &[&Command], sections: &str) -> Result<(), String> {
    let arguments = commands.iter().flat_map(|command| command.get_arguments());
    let known: BTreeSet<&str> = arguments.filter_map(Arg::get_long).collect();
    for option in sections.split("\\-\\-").skip(1) {
        let option = option.replace("\\-", "-");
        let end = option.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        let option = &option[..end.unwrap_or(option.len())];
        if !known.contains(option) {
            return Err(format!("there is no option --{option}"));
        }
    }
    Ok(())
}

/// Every `status N` must be one that there is.
fn check_statuses(sections: &str) -> Result<(), String> {
    // In an example, it may be the status of another command.
    let own = sections.replace("exit status ", "");
    for named in own.split("status ").skip(1) {
        let end = named.find(|c: char| !c.is_ascii_digit());
        let number = &named[..end.unwrap_or(named.len())];
        let exists = |exit: Exit| (exit as u8).to_string() == number;
        if !number.is_empty() && !Exit::ALL.into_iter().any(exists) {
            return Err(format!("there is no exit status {number}"));
        }
    }
    Ok(())
}
