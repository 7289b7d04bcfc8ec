// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab shell`: an interactive guest.

use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::termios;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use wire::Frame;
use wire::Size;

use crate::guest::Stop;
use crate::guest::Through;
use crate::say;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Started;

/// Ends the guest at once, as in telnet: Ctrl-].
const ESCAPE: u8 = 0x1d;

/// The terminal in raw mode; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}

fn size() -> Size {
    let size = termios::tcgetwinsize(io::stdin());
    size.map_or(
        Size {
            rows: 24,
            columns: 80,
        },
        |size| Size {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}

/// Starts a guest with a shell on this terminal, and returns what the lab exits with.
pub fn run(options: &GuestOptions) -> Result<u8> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("lab shell needs a terminal; for scripts there is lab run -- COMMAND");
    }
    // setsid makes the terminal the shell's controlling one, which job control needs.
    let command = ["setsid", "-c", "sh", "-l"].map(str::to_owned);
    let setup = Setup::new(options, &command, Some(size()))?;
    let mut sink = Through;
    let Started {
        mut machine,
        mut follower,
        mut stop,
        ..
    } = setup.start(&mut sink)?;
    if stop == Stop::Started {
        say::say("Ctrl-D or `exit` ends the guest; Ctrl-] ends it whatever it does");
        let raw = Raw::new()?;
        let input = machine.channel().try_clone()?;
        thread::spawn(move || forward_input(input));
        let limit = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
        stop = follower.follow(machine.channel(), limit, false, &mut sink)?;
        drop(raw);
        if stop == Stop::Gone {
            say::say("the guest is gone");
        }
    }
    let status = follower.conclude(&machine, &stop, "", &mut sink);
    setup.finish(&mut machine, &stop, status, &mut sink)
}

/// Sends what is typed, and the terminal's size when it changes.
fn forward_input(mut channel: UnixStream) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut shown = size();
    let now_and_then = Timespec {
        tv_sec: 0,
        tv_nsec: 250_000_000,
    };
    loop {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&now_and_then))?;
        let now = size();
        if now != shown {
            shown = now;
            Frame::Resized(now).write(&mut channel)?;
        }
        if polled[0].revents().is_empty() {
            continue;
        }
        let length = stdin.lock().read(&mut buffer)?;
        if length == 0 || buffer[..length].contains(&ESCAPE) {
            channel.shutdown(std::net::Shutdown::Both)?;
            return Ok(());
        }
        Frame::Input(buffer[..length].to_vec()).write(&mut channel)?;
    }
}
