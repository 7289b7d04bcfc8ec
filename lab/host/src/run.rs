// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab run`: a command in a guest.

use std::time::Instant;

use anyhow::Result;

use crate::guest::Sink;
use crate::guest::Stop;
use crate::setup::Setup;
use crate::setup::Started;

/// Starts the guest, runs its command, and returns what the lab exits with.
pub fn run(setup: &Setup, sink: &mut dyn Sink) -> Result<u8> {
    let Started {
        mut machine,
        mut follower,
        mut stop,
        ..
    } = setup.start(sink)?;
    if stop == Stop::Started {
        let limit = Instant::now() + setup.limit;
        stop = follower.follow(machine.channel(), limit, false, sink)?;
    }
    if matches!(stop, Stop::Ended(_)) {
        let limit = Instant::now() + setup.limit;
        let searched = follower.find_leaks(machine.channel(), limit, sink)?;
        if searched != Stop::Searched {
            stop = searched;
        }
    }
    let status = follower.conclude(&machine, &stop, "", sink);
    setup.finish(&mut machine, &stop, status, sink)
}
