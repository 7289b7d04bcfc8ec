// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line. The manual pages and the completions are made from it.

#![expect(
    clippy::doc_markdown,
    reason = "the comments are shown to people as they stand"
)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use signal_hook::consts::SIGKILL;
use signal_hook::consts::SIGSTOP;
use signal_hook::low_level::signal_name;

/// Look at the system generation, and bring clones back into service
///
/// The system generation is a number that changes when this system may have been cloned or restored.
/// Programs watch it, and some of them ask to be waited for: they are tracked, and outdated from a
/// change on until they acknowledge it.
#[derive(Debug, Parser)]
#[command(name = "sysgenctl", version)]
#[command(
    subcommand_help_heading = "COMMANDS",
    subcommand_value_name = "COMMAND"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the generation and its watchers
    ///
    /// Shows the generation, what changed it last and when, whether the kernel was reseeded before,
    /// whether a change is due, and the watchers that can be seen: those of all processes for root, else those of your own.
    Status,
    /// Print a line for each change, or run a command
    ///
    /// Prints a line for each change of the generation. With --exec it runs a command as well, and
    /// acknowledges the change only if the command succeeded.
    Watch(WatchArguments),
    /// Run a program, and restart it after each change
    ///
    /// Runs a program that knows nothing of generations, and has it waited for: it is restarted after each
    /// change, or is sent a signal, and the change is acknowledged when it is up again.
    Exec(ExecArguments),
    /// Wait until no tracked watcher is outdated
    ///
    /// Waits until no tracked watcher is outdated, and then until all units have ended that follow a
    /// change (sysgenid-changed.target). When the time is over, it names those that are left.
    Wait(WaitArguments),
    /// Wait until no change is due
    ///
    /// Has the driver make the change that the hypervisor has caused, if one is due, and waits for it:
    /// not for the kernel to be notified, which some hypervisors do late or never.
    Settle(SettleArguments),
    /// Change the generation
    ///
    /// Changes the generation, as if the system had been cloned. Every watcher becomes outdated. A
    /// change that is due comes first. The kernel mixes in what --entropy hands over, and random numbers
    /// of the processor, and reseeds its random number generator, before anybody is told. This needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user namespace.
    Trigger(TriggerArguments),
    /// Quiesce the system for a snapshot, and thaw it
    ///
    /// Runs the hooks that quiesce the system before a snapshot is taken, or those that thaw it after
    /// the resume, when all tracked watchers have acknowledged.
    SnapshotHooks(SnapshotArguments),
    /// Serve those who take snapshots of this machine, and resume them
    ///
    /// Is called over HTTP, or in lines of JSON, by whoever has this machine snapshotted: quiesces it
    /// before that, and brings each clone back, in an order in which nothing serves others before all that
    /// has to be renewed is. Sockets can come from systemd (LISTEN_FDS). There is no TCP.
    Serve(ServeArguments),
    /// Say whether this system is ready for clones
    ///
    /// Looks at all that it takes for programs to notice a clone: the kernel and the driver, the nodes,
    /// and OpenSSL's provider. Says of each what it found and, where that is not well, what to do. With
    /// an option it looks at processes that are running instead: which of them have OpenSSL's library and
    /// do not notice clones, and why.
    Doctor(DoctorArguments),
    /// Have a service take part that knows nothing of generations
    ///
    /// Has a unit of systemd's started again after each change, and waited for, or made to stand still
    /// while the machine is quiesced. Says what of that is so, unless it is told to change it.
    Unit(UnitArguments),
    /// Switch OpenSSL's provider on for all programs, or off
    ///
    /// Adds the lines to OpenSSL's configuration that switch the provider on for all programs that
    /// read it, or takes them out again. Nothing else in the file changes, and one that says something
    /// else about OpenSSL's generators is left as it is.
    Openssl(OpensslArguments),
}

/// The arguments of `watch`.
#[derive(Args, Debug)]
pub struct WatchArguments {
    /// End after the first change
    #[arg(long)]
    pub once: bool,

    /// Ask to be waited for
    #[arg(long)]
    pub track: bool,

    /// Run this command after each change, with SYSGENID_OLD and SYSGENID_NEW in its environment.
    /// All that follows belongs to the command, so this comes last (or ends with an argument “;”)
    #[arg(
        long,
        value_name = "CMD",
        num_args = 1..,
        allow_hyphen_values = true,
        value_terminator = ";"
    )]
    pub exec: Vec<OsString>,
}

/// The arguments of `exec`.
#[derive(Args, Debug)]
pub struct ExecArguments {
    /// The program says itself when it is up, as sd_notify(3) has it
    #[arg(long)]
    pub notify: bool,

    /// Send it this signal after a change, such as HUP, instead of restarting it
    #[arg(long, value_name = "SIG", value_parser = signal)]
    pub signal: Option<i32>,

    /// Without --notify: for how long it has to run until it counts as up
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", conflicts_with = "notify")]
    pub up_after: Duration,

    /// The longest time that it may take to be up
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "90s")]
    pub start_timeout: Duration,

    /// The signal that asks it to end
    #[arg(long, value_name = "SIG", value_parser = signal, default_value = "TERM")]
    pub stop_signal: i32,

    /// The longest time that it may take to end when it is asked to, before it is killed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub stop_timeout: Duration,

    /// Become the program, as a child of that process
    #[arg(long, value_name = "PID", hide = true)]
    pub child_of: Option<i32>,

    /// The program, and its arguments
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// The arguments of `wait`.
#[derive(Args, Debug)]
pub struct WaitArguments {
    /// The longest time to wait, such as 30s, 500ms or “1m 30s” [no limit]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Wait for watchers only, and for no unit
    #[arg(long)]
    pub no_units: bool,
}

/// The arguments of `settle`.
#[derive(Args, Debug)]
pub struct SettleArguments {
    /// The longest time to wait, such as 30s, 500ms or “1m 30s” [no limit]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// The arguments of `trigger`.
#[derive(Args, Debug)]
pub struct TriggerArguments {
    /// The least new generation
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub min: u32,

    /// Random bytes from outside that no other clone gets, in a file, or in standard input (-)
    ///
    /// The kernel mixes them in before it reseeds. There have to be 16 of them at least, and 4096 at
    /// most.
    #[arg(long, value_name = "FILE")]
    pub entropy: Option<PathBuf>,

    /// Wait then, as sysgenctl wait does
    #[arg(long)]
    pub wait: bool,

    /// Let --wait wait for watchers only, and for no unit
    #[arg(long, requires = "wait")]
    pub no_units: bool,

    /// The longest time that --wait waits, such as 30s, 500ms or “1m 30s” [no limit]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// The arguments of `snapshot-hooks`.
#[derive(Args, Debug)]
pub struct SnapshotArguments {
    /// Before a snapshot, or after the resume
    pub phase: Phase,

    /// The longest time that post waits for the change of the generation, for the watchers and for the
    /// units that follow a change, such as 30s, 500ms or “1m 30s” (2m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// What post does when that time is over: whether the system stays quiesced, or is thawed all the
    /// same (stay)
    #[arg(long, value_name = "WHAT")]
    pub on_timeout: Option<OnTimeout>,

    /// Let post wait for watchers of root only, and of the users that --user names
    #[arg(long)]
    pub privileged_only: bool,

    /// Let post wait for watchers of this user, too; can be repeated
    #[arg(long, value_name = "NAME", requires = "privileged_only")]
    pub user: Vec<String>,

    /// Let post wait for no unit
    #[arg(long)]
    pub no_units: bool,

    /// Where the hooks are, and how long they may take.
    #[command(flatten)]
    pub hooks: HookArguments,

    /// Where pre notes the generation for post
    #[arg(long, value_name = "FILE", default_value = "/run/sysgenid/snapshot")]
    pub state: PathBuf,
}

/// The arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArguments {
    /// Listen at a Unix socket that is made here
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// The mode of that socket: who can write to it can call
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600", requires = "socket")]
    pub socket_mode: u32,

    /// The group of that socket [that of the process]
    #[arg(long, value_name = "NAME", requires = "socket")]
    pub socket_group: Option<String>,

    /// Listen at this AF_VSOCK port, for the host (CID 2) only
    #[arg(long, value_name = "PORT")]
    pub vsock_port: Option<u32>,

    /// Serve lines of JSON at this virtio-serial port
    #[arg(long, value_name = "PATH")]
    pub serial: Option<PathBuf>,

    /// The directory, in memory, where what is done is noted
    #[arg(long, value_name = "DIR", default_value = SERVE_DIR)]
    pub state: PathBuf,

    /// What is done when the deadline is over and not all have acknowledged: whether the machine stays
    /// quiesced, or is thawed all the same
    #[arg(long, value_name = "WHAT", default_value = "stay")]
    pub on_timeout: OnTimeout,

    /// Wait for watchers of root only, and of the users that --user names
    #[arg(long)]
    pub privileged_only: bool,

    /// Wait for watchers of this user, too; can be repeated
    #[arg(long, value_name = "NAME", requires = "privileged_only")]
    pub user: Vec<String>,

    /// Wait for no unit
    #[arg(long)]
    pub no_units: bool,

    /// Where the hooks are, and how long they may take.
    #[command(flatten)]
    pub hooks: HookArguments,
}

/// Where the hooks are, and how long they may take.
#[derive(Args, Clone, Debug)]
pub struct HookArguments {
    /// The longest time that a hook may take
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m")]
    pub hook_timeout: Duration,

    /// The longest time that all hooks may take that are run one after the other
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub hooks_timeout: Duration,

    /// The directory that has pre.d, thaw.d and post.d; and, for serve, freeze.d
    #[arg(long, value_name = "DIR", default_value = HOOKS_DIR)]
    pub hooks_dir: PathBuf,
}

/// Where hooks are if nobody says it.
pub const HOOKS_DIR: &str = "/etc/sysgenid";

/// Where `serve` notes what it does.
pub const SERVE_DIR: &str = "/run/sysgenid-serve";

/// What post does when tracked watchers have not acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnTimeout {
    /// Run no hook that serves others: the system stays quiesced.
    Stay,
    /// Run all hooks.
    Thaw,
}

/// The arguments of `doctor`.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct DoctorArguments {
    /// Look at this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Look at the processes of this unit of systemd's
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,

    /// Look at all processes
    #[arg(long)]
    pub all: bool,
}

impl DoctorArguments {
    /// Whether processes are to be looked at, and not the system.
    pub(crate) fn is_of_processes(&self) -> bool {
        self.all || self.pid.is_some() || self.unit.is_some()
    }
}

/// The arguments of `unit`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct UnitArguments {
    /// Start its program by way of sysgenctl exec, which is waited for
    #[arg(long)]
    pub track: bool,

    /// Let that send the program a signal, rather than restart it
    #[arg(long, requires = "track", conflicts_with = "remove")]
    pub reload: bool,

    /// Let sysgenctl serve make it stand still
    #[arg(long)]
    pub freeze: bool,

    /// Undo that: what --track and --freeze name, or both
    #[arg(long)]
    pub remove: bool,

    /// Change nothing, and show what would be
    #[arg(long)]
    pub dry_run: bool,

    /// The unit; without an ending, it is a service
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// The arguments of `openssl`.
#[derive(Args, Debug)]
pub struct OpensslArguments {
    /// What to do with the configuration
    pub action: Action,

    /// The configuration [the system's, where the program openssl looks for it]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do with OpenSSL's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// switch the provider on
    Enable,
    /// switch it off again
    Disable,
    /// say whether it is on, and change nothing
    Status,
}

/// Before a snapshot, or after a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// run the hooks in pre.d
    Pre,
    /// wait for the change, if one is due; run the hooks in thaw.d; wait for the watchers and for the
    /// units that follow a change; and run the hooks in post.d
    Post,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text.parse::<f64>().is_ok() {
        return Err(format!("say the unit, as in {text}s"));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A signal's number, by its name with or without SIG, or by itself.
fn signal(text: &str) -> Result<i32, String> {
    let named = |number: &i32| {
        let is_its = |name: &str| text == name || name.strip_prefix("SIG") == Some(text);
        signal_name(*number).is_some_and(is_its) || text == number.to_string()
    };
    match (1..32).find(named) {
        None => Err("there is no such signal: say one such as HUP".into()),
        Some(SIGKILL | SIGSTOP) => Err("no program can act upon that one".into()),
        Some(number) => Ok(number),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "say an octal number, such as 0660".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["sysgenctl"], arguments].concat())
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_exec_belongs_to_the_command() {
        let cli = parse(&["watch", "--track", "--exec", "logger", "--once", "-t", "x"]);
        let Verb::Watch(watch) = cli.expect("it is right").verb else {
            panic!("another verb");
        };
        assert!(watch.track && !watch.once);
        assert_eq!(watch.exec, ["logger", "--once", "-t", "x"]);
    }

    #[test]
    fn a_semicolon_ends_the_command() {
        let cli = parse(&["watch", "--exec", "true", "-x", ";", "--once"]);
        let Verb::Watch(watch) = cli.expect("it is right").verb else {
            panic!("another verb");
        };
        assert!(watch.once);
        assert_eq!(watch.exec, ["true", "-x"]);
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        for arguments in [
            ["exec", "--notify", "--", "sleep", "--notify"].as_slice(),
            &["exec", "--notify", "sleep", "--notify"],
        ] {
            let Verb::Exec(exec) = parse(arguments).expect("it is right").verb else {
                panic!("another verb");
            };
            assert!(exec.notify);
            assert_eq!(exec.command, ["sleep", "--notify"]);
        }
        assert!(parse(&["exec", "--notify"]).is_err());
        assert!(parse(&["exec", "--notify", "--up-after", "1s", "true"]).is_err());
    }

    #[test]
    fn signals_have_names() {
        for text in ["HUP", "SIGHUP", "1"] {
            assert_eq!(signal(text), Ok(1), "{text}");
        }
        for text in ["KILL", "STOP", "x", "0", "", "SIG"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), Err("say the unit, as in 30s".to_owned()));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn a_timeout_of_trigger_wants_wait() {
        let error = parse(&["trigger", "--timeout", "1s"]).expect_err("nobody waits");
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        assert!(parse(&["trigger", "--wait", "--timeout", "1s"]).is_ok());
        assert!(parse(&["trigger", "--no-units"]).is_err());
    }

    #[test]
    fn generations_have_32_bits() {
        assert!(parse(&["trigger", "--min", "4294967295"]).is_ok());
        assert!(parse(&["trigger", "--min", "4294967296"]).is_err());
    }

    #[test]
    fn json_is_understood_everywhere() {
        for arguments in [["--json", "status"], ["status", "--json"]] {
            assert!(parse(&arguments).expect("it is right").json);
        }
    }
}
