// SPDX-License-Identifier: MIT OR Apache-2.0

//! A system that reacts by itself: real systemd and udev, in a guest and in clones of it.

use std::thread;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
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
        // The units run beside systemd, and most of the time goes to the start of programs.
        smp: 2,
        systemd: true,
        qemu_arg: NETWORK.map(str::to_owned).to_vec(),
        // A whole system boots, and runs all units, while other checks want the processors: on a
        // busy machine the check has taken more than four minutes.
        limit: 900,
        ..GuestOptions::plain()
    };
    let additions = [script("system_test.sh"), script("module.sh")];
    let setup = setup(bench, &options, &additions, &["/system_test.sh"])?;
    let (saved, template) = Saved::with_output(&setup)?;
    let mut tests = tap::parse("system", &template);

    let started = now()?;
    let ids = [Some(Uuid::new_v4()), Some(Uuid::new_v4()), None];
    let mut clones = at_once(&saved, ids)?;
    let unchanged = clones.split_off(2);
    tests.extend(clone_tests("system", &clones));
    tests.push(Test::from_result(
        "system: the clones' clocks",
        have_time(&clones, started),
    ));
    tests.push(Test::from_result(
        "system: no identity twice",
        all_different(&template, &clones),
    ));
    tests.extend(clone_tests("system, same ID", &unchanged));
    Ok(tests)
}

/// Resumes the machine with each of those IDs, all at once: who waits leaves the processor to others.
fn at_once(saved: &Saved<'_>, ids: [Option<Uuid>; 3]) -> Result<Vec<Said>> {
    thread::scope(|scope| {
        let resumed = ids.map(|id| scope.spawn(move || resume_saved(saved, &[id])));
        let mut machines = Vec::new();
        for machine in resumed {
            machines.extend(
                machine
                    .join()
                    .map_err(|_| anyhow!("a machine's thread panicked"))??,
            );
        }
        Ok(machines)
    })
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Fails unless what each clone noted as the time was so since `started`. It may be one second off,
/// as a real-time clock is. They were saved with a clock that was an hour behind.
fn have_time(clones: &[Said], started: u64) -> Result<()> {
    let ended = now()?;
    for clone in clones {
        let noted = noted(&clone.output, "time");
        let [time] = noted.as_slice() else {
            bail!("one noted {} times", noted.len());
        };
        let time: u64 = time.parse().context("one noted no time")?;
        ensure!(
            (started - 1..=ended + 1).contains(&time),
            "they ran from {started} to {ended}, and one noted {time}"
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
