// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that draws from AWS-LC when it is asked to, and tells what AWS-LC says of itself.
//!
//! AWS-LC looks for the device once in the life of a process, and for the CPU's random number
//! generator, too; and whoever may change the generation is no ordinary user. So each kind of user
//! is a process of its own, a child of the one that asks.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{getuid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use sysgenid_selftests::check_eq;
use sysgenid_selftests::tap::{Outcome, Result};
use sysgenid_selftests::vmgenid::VmGenId;
use sysgenid_selftests::watcher::Watcher;

use crate::awslc;
use crate::handshake::Peers;

/// The argument that makes this program a drawer.
pub const ARGUMENT: &str = "draw";

/// Who nobody is, on Debian and elsewhere.
const NOBODY: u32 = 65534;

/// Hides RDRAND from AWS-LC: it is one bit of what CPUID says.
const WITHOUT_RDRAND: (&str, &str) = ("OPENSSL_ia32cap", "~0x4000000000000000");

/// How many bytes a draw has that takes long.
const LONG: usize = 4 << 20;

/// What a drawer is asked for, in one line; it answers with one line.
mod ask {
    /// [`super::State`].
    pub const STATE: &str = "state";
    /// So many draws; it answers with the last one.
    pub const DRAWS: &str = "draws ";
    /// The client's random bytes and ephemeral key, and the server's.
    pub const HANDSHAKE: &str = "handshake";
    /// Draws that take long, one after the other; it answers before the first one.
    pub const FOR_EVER: &str = "for ever";
    /// An empty answer at once, and a second one when this is another machine: a draw, if it was made
    /// before the generation changed.
    pub const EARLY: &str = "early";
}

/// What AWS-LC says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whose process it is.
    pub user: u32,
    /// Whether it uses the CPU's random number generator.
    pub rdrand: bool,
    /// Whether it has found the node.
    pub found: bool,
    /// Whether it has the node open and mapped.
    pub used: bool,
    /// The generation that it reads there.
    pub generation: u32,
    /// How many changes and forks it has seen.
    pub events: u64,
    /// How often its generator was reseeded.
    pub reseeds: u64,
    /// Where it takes seeds from.
    pub seeds_from: String,
}

impl State {
    fn line() -> std::result::Result<String, &'static str> {
        Ok(format!(
            "{} {} {} {} {} {} {} {}",
            getuid().as_raw(),
            awslc::rdrand_is_used(),
            awslc::node_is_found(),
            awslc::node_is_used(),
            awslc::generation().ok_or("AWS-LC cannot use the node that it has found")?,
            awslc::events().ok_or("AWS-LC can see neither forks nor changes")?,
            awslc::reseeds(),
            awslc::seeds_from()
        ))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let state = Self {
            user: words.next()?.parse().ok()?,
            rdrand: words.next()?.parse().ok()?,
            found: words.next()?.parse().ok()?,
            used: words.next()?.parse().ok()?,
            generation: words.next()?.parse().ok()?,
            events: words.next()?.parse().ok()?,
            reseeds: words.next()?.parse().ok()?,
            seeds_from: words.next()?.to_owned(),
        };
        words.next().is_none().then_some(state)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Draws by `RAND_bytes`.
fn draw(bytes: &mut [u8]) -> std::result::Result<(), &'static str> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| "AWS-LC drew nothing")
}

/// Waits until this is another machine, and draws before the generation has changed, if there is the
/// time. AWS-LC aborts where the change comes during the draw.
fn early(bytes: &mut [u8]) -> std::result::Result<Option<&[u8]>, Box<dyn Error>> {
    let page = Watcher::open()?.map()?;
    let vmgenid = VmGenId::open()?;
    let (id, generation) = (vmgenid.id(), page.generation());
    // Before whoever handles the notification, which is the first CPU.
    let cpus = thread::available_parallelism()?.get();
    if cpus < 2 {
        return Err("the only CPU handles the notification first".into());
    }
    let mut cpu = CpuSet::new();
    cpu.set(cpus - 1);
    sched_setaffinity(None, &cpu)?;
    setpriority_process(None, -20)?;
    println!();
    while vmgenid.id() == id {}
    draw(bytes)?;
    Ok((page.generation() == generation).then_some(bytes))
}

/// Answers until nobody asks any more.
///
/// # Errors
///
/// Whatever AWS-LC, rustls and the pipes answer.
pub fn serve() -> std::result::Result<(), Box<dyn Error>> {
    let peers = Peers::new()?;
    let mut bytes = [0; 32];
    for asked in io::stdin().lock().lines() {
        let asked = asked?;
        let answer = if asked == ask::STATE {
            State::line()?
        } else if asked == ask::HANDSHAKE {
            let [client, server] = peers.shake_hands()?;
            [
                client.random,
                client.key_share,
                server.random,
                server.key_share,
            ]
            .map(|part| hex(&part))
            .join(" ")
        } else if asked == ask::FOR_EVER {
            println!();
            let mut bytes = vec![0; LONG];
            loop {
                draw(&mut bytes)?;
            }
        } else if asked == ask::EARLY {
            early(&mut bytes)?.map_or_else(String::new, hex)
        } else if let Some(number) = asked.strip_prefix(ask::DRAWS) {
            for _ in 0..number.parse::<u32>()? {
                draw(&mut bytes)?;
            }
            hex(&bytes)
        } else {
            return Err(format!("nobody knows what “{asked}” is").into());
        };
        println!("{answer}");
    }
    Ok(())
}

/// Whose process a drawer is, and what it has to draw from.
pub struct Kind {
    /// What it is called in what the program prints.
    pub name: &'static str,
    /// Whether it is root's process, and not nobody's.
    pub root: bool,
    /// Whether AWS-LC uses the CPU's random number generator.
    pub rdrand: bool,
}

/// A drawer, as its parent sees it.
pub struct Drawer {
    /// What it is called in what the program prints.
    pub name: &'static str,
    child: Child,
    questions: ChildStdin,
    answers: File,
}

impl Drawer {
    /// Starts one, and lets it draw: from here on its generator has a state.
    ///
    /// # Errors
    ///
    /// Where the process cannot be started, does not answer, or is another user's.
    pub fn start(kind: &Kind) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if !kind.root {
            // So it is from the first instruction on; root's groups go, too.
            command.uid(NOBODY).gid(NOBODY);
        }
        if !kind.rdrand {
            command.env(WITHOUT_RDRAND.0, WITHOUT_RDRAND.1);
        }
        let mut child = command.spawn()?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail("a drawer without pipes"));
        };
        let drawer = Self {
            name: kind.name,
            child,
            questions,
            answers: OwnedFd::from(answers).into(),
        };
        drawer.draws(1)?;
        let state = drawer.state()?;
        check_eq!(state.user, if kind.root { 0 } else { NOBODY });
        if state.rdrand != kind.rdrand {
            return Err(fail(if kind.rdrand {
                "AWS-LC does not use RDRAND on this CPU; it does on one that says it is Intel's"
            } else {
                "AWS-LC uses RDRAND, and was told not to"
            }));
        }
        Ok(drawer)
    }

    fn ask(&self, question: &str) -> Result<String> {
        (&self.questions).write_all(format!("{question}\n").as_bytes())?;
        self.answer()
    }

    fn answer(&self) -> Result<String> {
        // There is one line, and no more before it was read: nothing is lost with the buffer.
        let mut line = String::new();
        BufReader::new(&self.answers).read_line(&mut line)?;
        line.strip_suffix('\n')
            .map(str::to_owned)
            .ok_or_else(|| fail(&format!("{} ended", self.name)))
    }

    /// What AWS-LC says of itself there.
    ///
    /// # Errors
    ///
    /// Where the drawer does not answer.
    pub fn state(&self) -> Result<State> {
        let answer = self.ask(ask::STATE)?;
        State::parse(&answer).ok_or_else(|| fail(&format!("{}: “{answer}”", self.name)))
    }

    /// Draws so often, 32 bytes at once; the last ones.
    ///
    /// # Errors
    ///
    /// Where the drawer does not answer.
    pub fn draws(&self, number: u32) -> Result<String> {
        self.ask(&format!("{}{number}", ask::DRAWS))
    }

    /// Makes a TLS connection: the client's random bytes and ephemeral key, and the server's.
    ///
    /// # Errors
    ///
    /// Where the drawer does not answer.
    pub fn handshake(&self) -> Result<Vec<String>> {
        let answer = self.ask(ask::HANDSHAKE)?;
        Ok(answer.split(' ').map(str::to_owned).collect())
    }

    /// Draws until it ends, 4 MiB at once.
    ///
    /// # Errors
    ///
    /// Where the drawer does not answer.
    pub fn draw_for_ever(&self) -> Result {
        self.ask(ask::FOR_EVER).map(drop)
    }

    /// From now on, waits for the moment when this is another machine, and draws then.
    ///
    /// # Errors
    ///
    /// Where the drawer does not answer.
    pub fn draw_early(&self) -> Result {
        self.ask(ask::EARLY).map(drop)
    }

    /// What was drawn at that moment: nothing, if the generation had changed by then, or if that
    /// change ended the drawer.
    pub fn drawn_early(&self) -> Option<String> {
        self.answer().ok().filter(|bytes| !bytes.is_empty())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// Whatever `waitpid` answers.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Drawer {
    fn drop(&mut self) {
        // One that has ended already is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A failure with that reason.
pub fn fail(why: &str) -> Outcome {
    Outcome::Fail(why.to_owned())
}
