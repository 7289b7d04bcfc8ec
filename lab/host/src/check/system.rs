// SPDX-License-Identifier: MIT OR Apache-2.0

//! A system that reacts by itself: real systemd and udev, in a guest and in clones of it.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests::Said;
use super::guests::clone_tests;
use super::guests::noted;
use super::guests::resume_saved;
use super::guests::script;
use super::guests::setup;
use crate::clone::Saved;
use crate::setup::GuestOptions;
use crate::tap;
use crate::tap::Test;

/// A network card, and QEMU's own network behind it, with its DHCP server and no way out.
const NETWORK: [&str; 2] = ["-nic", "user,model=virtio-net-pci,restrict=on"];

/// What makes a machine one of its own, by the names under which the guest notes it.
const IDENTITY: [&str; 3] = ["machine-id", "host-key", "client"];

/// One guest runs all tests, and is saved then: twice it is resumed as a clone, and once as it was.
pub fn reacts(bench: &Bench) -> Result<Vec<Test>> {
    let options = GuestOptions {
        systemd: true,
        qemu_arg: NETWORK.map(str::to_owned).to_vec(),
        ..GuestOptions::plain()
    };
    let additions = [script("system_test.sh"), script("module.sh")];
    let setup = setup(bench, &options, &additions, &["/system_test.sh"])?;
    let (saved, template) = Saved::with_output(&setup)?;
    let mut tests = tap::parse("system", &template);

    let mut clones = Vec::new();
    for number in 1..=2 {
        let started = now()?;
        let resumed = resume_saved(&saved, &[Some(Uuid::new_v4())])?;
        tests.push(Test::from_result(
            format!("system, clone {number}: its clock"),
            has_time(&resumed, started),
        ));
        clones.extend(resumed);
    }
    tests.extend(clone_tests("system", &clones));
    tests.push(Test::from_result(
        "system: no identity twice",
        all_different(&template, &clones),
    ));

    let unchanged = resume_saved(&saved, &[None])?;
    tests.extend(clone_tests("system, same ID", &unchanged));
    Ok(tests)
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Fails unless what a clone noted as the time was so since `started`. It may be one second off, as
/// a real-time clock is.
fn has_time(resumed: &[Said], started: u64) -> Result<()> {
    for clone in resumed {
        let noted = noted(&clone.output, "time");
        let [time] = noted.as_slice() else {
            bail!("it noted {} times", noted.len());
        };
        let time: u64 = time.parse().context("it noted no time")?;
        let ended = now()?;
        ensure!(
            (started - 1..=ended + 1).contains(&time),
            "it ran from {started} to {ended}, and noted {time}"
        );
    }
    Ok(())
}

/// Fails unless the template and all clones have noted something else of each part of an identity.
fn all_different(template: &str, clones: &[Said]) -> Result<()> {
    for name in IDENTITY {
        let mut values = Vec::new();
        for output in clones
            .iter()
            .map(|clone| clone.output.as_str())
            .chain([template])
        {
            let noted = noted(output, name);
            ensure!(
                noted.iter().any(|value| !value.is_empty()),
                "a machine noted no {name}"
            );
            values.extend(noted);
        }
        let all = values.len();
        values.sort_unstable();
        values.dedup();
        ensure!(values.len() == all, "the same {name} twice");
    }
    Ok(())
}
