// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a hypervisor says to the QEMU guest agent in a machine that is frozen, saved, and thawed in each
//! clone. Standard input is the host's end of the agent's virtio-serial port, for reading and for
//! writing. Prints TAP.
//!
//! The guest's side is `packaging/tests/system/fsfreeze.py`. It says by files how far it is, which the
//! agent looks for.

use std::env;
use std::io;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use qapi::ExecuteError;
use qapi::Qga;
use qapi::Stream;
use qapi::qga;
use qapi::qga::GuestFsfreezeStatus;

/// How long the agent may be silent before it is asked again: it may have been started again meanwhile,
/// and what it was asked before is lost.
const SILENCE: Duration = Duration::from_secs(5);

/// How long anything may take. A limit is for hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where the guest says how far it is.
const PROGRESS: &str = "/run/fsfreeze-test";

/// The agent.
struct Agent {
    qga: Qga<Stream<BufReader<UnixStream>, UnixStream>>,
    socket: UnixStream,
    asked: i32,
}

impl Agent {
    fn new() -> Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let reader = BufReader::new(socket.try_clone()?);
        let qga = Qga::new(Stream::new(reader, socket.try_clone()?));
        Ok(Self {
            qga,
            socket,
            asked: 0,
        })
    }

    /// Until the agent answers what it was asked last, and not something older.
    fn sync(&mut self) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        self.socket.set_read_timeout(Some(SILENCE))?;
        while Instant::now() < limit {
            self.asked += 1;
            let id = self.asked.into();
            let written = self.qga.write_command(&qga::guest_sync { id });
            written.map_err(ExecuteError::Io)?;
            loop {
                match self.qga.read_response::<qga::guest_sync>() {
                    Ok(answer) if answer == id => return Ok(()),
                    Err(ExecuteError::Io(error)) if is_silence(&error) => break,
                    Err(error) if is_end(&error) => return Err(error.into()),
                    // An answer to something older, or a part of one.
                    Ok(_) | Err(_) => {}
                }
            }
        }
        bail!("the agent does not answer")
    }

    /// Gives a command, and waits for what comes of it.
    fn execute<C: qapi::Command>(&mut self, command: &C) -> Result<C::Ok> {
        self.sync()?;
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let done = self.qga.execute(command);
        done.with_context(|| C::NAME)
    }

    /// Waits until the guest is so far.
    fn wait_for(&mut self, step: &str) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            let opened = self.execute(&qga::guest_file_open {
                path: format!("{PROGRESS}/{step}"),
                mode: None,
            });
            match opened {
                Ok(handle) => {
                    self.execute(&qga::guest_file_close { handle })?;
                    return Ok(());
                }
                Err(error) if is_closed(&error) => return Err(error),
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the guest does not come to “{step}”")
    }

    /// Tells the guest that this is over.
    fn is_over(&mut self, step: &str) -> Result<()> {
        let handle = self.execute(&qga::guest_file_open {
            path: format!("{PROGRESS}/{step}.over"),
            mode: Some("w".into()),
        })?;
        self.execute(&qga::guest_file_close { handle })?;
        Ok(())
    }

    /// Does something when the guest is so far, and tells it when that is over.
    fn when(&mut self, step: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.wait_for(step)?;
        let done = work(self);
        self.is_over(step)?;
        done
    }

    /// Freezes, and returns how many file systems were frozen.
    fn freeze(&mut self) -> Result<i64> {
        self.execute(&qga::guest_fsfreeze_freeze {})
    }

    /// Thaws likewise.
    fn thaw(&mut self) -> Result<i64> {
        self.execute(&qga::guest_fsfreeze_thaw {})
    }

    /// All is thawed already, and the hook is run.
    fn thaws_nothing(&mut self) -> Result<()> {
        let thawed = self.thaw()?;
        ensure!(thawed == 0, "{thawed} file systems were thawed");
        Ok(())
    }

    fn is(&mut self, wanted: GuestFsfreezeStatus) -> Result<()> {
        let status = self.execute(&qga::guest_fsfreeze_status {})?;
        ensure!(status == wanted, "it is {status:?}, expected {wanted:?}");
        Ok(())
    }

    fn freezes_and_thaws(&mut self) -> Result<()> {
        let frozen = self.freeze()?;
        ensure!(frozen > 0, "no file system was frozen");
        self.is(GuestFsfreezeStatus::frozen)?;
        let thawed = self.thaw()?;
        ensure!(thawed == frozen, "{frozen} were frozen, {thawed} thawed");
        self.is(GuestFsfreezeStatus::thawed)
    }

    // --- What is tested ---------------------------------------------------------

    /// As Debian has it, nobody calls a hook.
    fn without_configuration(&mut self) -> Result<()> {
        self.when("unconfigured", Self::freezes_and_thaws)
    }

    /// QEMU's own script runs all hooks, and succeeds whatever they do.
    fn by_qemus_script(&mut self) -> Result<()> {
        self.when("script", Self::freezes_and_thaws)
    }

    /// And nothing is frozen then.
    fn a_hook_that_fails(&mut self) -> Result<()> {
        self.when("failing", |agent| {
            let Err(error) = agent.freeze() else {
                agent.thaw()?;
                bail!("it freezes all the same");
            };
            let error = format!("{error:#}");
            ensure!(
                error.contains("the hook 90-bad failed; the system was thawed again"),
                "the host is told: {error}"
            );
            agent.is(GuestFsfreezeStatus::thawed)
        })
    }

    fn in_the_same_machine(&mut self) -> Result<()> {
        self.when("same", |agent| {
            agent.freezes_and_thaws()?;
            // Once more, though nothing is frozen.
            agent.thaws_nothing()
        })
    }

    /// The file systems are thawed all the same, and the same command does the rest.
    fn a_hook_that_fails_at_the_thaw(&mut self) -> Result<()> {
        self.when("thawing", |agent| {
            ensure!(agent.freeze()? > 0, "no file system was frozen");
            let Err(error) = agent.thaw() else {
                bail!("the host is told nothing");
            };
            let error = format!("{error:#}");
            ensure!(
                error.contains("the hook 90-bad failed"),
                "the host is told: {error}"
            );
            agent.is(GuestFsfreezeStatus::thawed)?;
            agent.thaws_nothing()
        })
    }

    /// The machine is saved next: as soon as it sees itself that it is frozen, so that the answer may be
    /// left in it.
    fn freezes_to_be_saved(&mut self) -> Result<()> {
        self.wait_for("saved")?;
        match self.freeze() {
            Ok(frozen) => ensure!(frozen > 0, "no file system was frozen"),
            Err(error) if is_closed(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn saved_frozen(&mut self) -> Result<()> {
        self.is(GuestFsfreezeStatus::frozen)
    }

    fn thawed(&mut self) -> Result<()> {
        ensure!(self.thaw()? > 0, "no file system was thawed");
        self.is(GuestFsfreezeStatus::thawed)
    }
}

/// Whether the machine has ended.
fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(is_end)
}

/// The same, as it is found first: nothing can be written, or read, any more.
fn is_end(error: &ExecuteError) -> bool {
    match error {
        ExecuteError::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        ),
        ExecuteError::Qapi(_) => false,
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A test, and its name.
type Test = (&'static str, fn(&mut Agent) -> Result<()>);

const BOOTED: [Test; 6] = [
    (
        "without configuration, it freezes and thaws",
        Agent::without_configuration,
    ),
    (
        "QEMU's script: it freezes and thaws, though a hook fails",
        Agent::by_qemus_script,
    ),
    (
        "the hook itself: it does not freeze where one in pre.d fails",
        Agent::a_hook_that_fails,
    ),
    (
        "the hook itself: it freezes and thaws the same machine",
        Agent::in_the_same_machine,
    ),
    (
        "the hook itself: it says where one in post.d fails",
        Agent::a_hook_that_fails_at_the_thaw,
    ),
    (
        "the hook itself: it freezes a machine that is saved",
        Agent::freezes_to_be_saved,
    ),
];

const RESUMED: [Test; 2] = [
    ("a clone is frozen", Agent::saved_frozen),
    ("a clone is thawed", Agent::thawed),
];

fn run() -> Result<bool> {
    let machine = env::var("MACHINE").context("the lab says what machine it is")?;
    let tests = match machine.as_str() {
        "booted" => BOOTED.as_slice(),
        _ => RESUMED.as_slice(),
    };
    println!("TAP version 13\n1..{}", tests.len());
    let mut agent = Agent::new()?;
    let mut failed = false;
    for (number, (name, test)) in tests.iter().enumerate() {
        let word = match test(&mut agent) {
            Ok(()) => "ok",
            Err(error) => {
                failed = true;
                println!("# {error:#}");
                "not ok"
            }
        };
        println!("{word} {} {name}", number + 1);
    }
    Ok(failed)
}

fn main() -> ExitCode {
    match run() {
        Ok(failed) => ExitCode::from(u8::from(failed)),
        Err(error) => {
            println!("# {error:#}");
            ExitCode::FAILURE
        }
    }
}
