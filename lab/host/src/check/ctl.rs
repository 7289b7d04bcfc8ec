// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl`: its completions, and what it does in guests and in clones of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests;
use super::guests::addition;
use super::guests::script;
use crate::products;
use crate::setup::GuestOptions;
use crate::step::output_of;
use crate::tap::Test;

fn options(bench: &Bench) -> GuestOptions {
    GuestOptions {
        userspace: true,
        ..guests::options(bench, 1)
    }
}

/// What is installed is sound, and does in a guest what its manual says.
pub fn sysgenctl(bench: &Bench) -> Result<Vec<Test>> {
    let usr = products::installed()?.join("usr");
    let mut tests = vec![Test::from_result(
        "sysgenctl: completions",
        completions(&usr),
    )];
    let additions = [
        script("sysgenctl_test.py"),
        script("sysgenctl_common.py"),
        addition(bench.module()?, "/sysgenid.ko"),
    ];
    let command = ["python3", "/sysgenctl_test.py", "/sysgenid.ko"];
    tests.extend(guests::tap_of(
        bench,
        "sysgenctl",
        &options(bench),
        &additions,
        &command,
    )?);
    Ok(tests)
}

/// Those of bash can be loaded, and complete; those of other shells are where these look.
fn completions(usr: &Path) -> Result<()> {
    let share = usr.join("share");
    for file in [
        "zsh/site-functions/_sysgenctl",
        "fish/vendor_completions.d/sysgenctl.fish",
    ] {
        let path = share.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("there is no {file}"))?;
        ensure!(text.contains("snapshot-hooks"), "{file} is not whole");
    }
    let bash = share.join("bash-completion/completions/sysgenctl");
    let script = format!(
        ". {}; COMP_WORDS=(sysgenctl snap); COMP_CWORD=1; _sysgenctl sysgenctl snap sysgenctl; \
         echo \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    let found = output_of(Command::new("bash").args(["-c", &script]))?;
    ensure!(
        found.trim_end() == "snapshot-hooks",
        "bash completes “snap” to {found:?}"
    );
    Ok(())
}

/// A machine that was quiesced is thawed in each of its clones, and where it was not cloned.
pub fn clones(bench: &Bench) -> Result<Vec<Test>> {
    let additions = [
        script("sysgenctl_clone_test.py"),
        script("sysgenctl_common.py"),
    ];
    let command = ["python3", "/sysgenctl_clone_test.py"];
    let setup = guests::setup(bench, &options(bench), &additions, &command)?;
    let ids = [Some(Uuid::new_v4()), Some(Uuid::new_v4()), None];
    let clones = guests::resume_all(&setup, &ids)?;
    let mut tests = guests::clone_tests("sysgenctl in clones", &clones);
    for (number, (clone, id)) in clones.iter().zip(ids).enumerate() {
        let expected = if id.is_some() { "yes" } else { "no" };
        let noted = guests::noted(&clone.output, "cloned");
        let result = || {
            ensure!(noted == [expected], "expected {expected}, noted {noted:?}");
            Ok(())
        };
        tests.push(Test::from_result(
            format!("sysgenctl in clones, {}: whether it is one", number + 1),
            result(),
        ));
    }
    Ok(tests)
}
