// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lab itself, called as a user calls it.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::Bench;
use crate::guest::FAILED;
use crate::guest::LIMIT_REACHED;
use crate::guest::NOT_STARTED;
use crate::tap::Test;

/// Calls this very tool, as a user would.
fn lab(arguments: &[&str]) -> Result<(i32, String, String)> {
    let tool = env::var("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
    let output = Command::new(Path::new(&tool).join("lab"))
        .args(arguments)
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Ok((code, text(&output.stdout), text(&output.stderr)))
}

/// A test that calls the lab, and compares the exit status and what it says.
pub fn says(
    name: &str,
    arguments: &[&str],
    status: u8,
    stdout: &str,
    stderr: &str,
) -> Result<Test> {
    let (code, out, err) = lab(arguments)?;
    let compare = || {
        ensure!(
            code == i32::from(status),
            "exit status {code}, not {status}: {err}"
        );
        ensure!(
            out.contains(stdout),
            "standard output lacks “{stdout}”: {out}"
        );
        ensure!(
            err.contains(stderr),
            "standard error lacks “{stderr}”: {err}"
        );
        Ok(())
    };
    Ok(Test::from_result(name, compare()))
}

pub fn demo(_: &Bench) -> Result<Vec<Test>> {
    Ok(vec![says(
        "the demo's claims hold",
        &["demo"],
        0,
        "All of it held",
        "",
    )?])
}

/// How a run can end, and what the lab exits with then.
pub fn ends(_: &Bench) -> Result<Vec<Test>> {
    Ok(vec![
        says(
            "an unknown flag",
            &["run", "--bogus"],
            2,
            "",
            "unexpected argument '--bogus'",
        )?,
        says("no command", &["run"], 2, "", "required")?,
        says(
            "an --add file that does not exist",
            &["run", "--add", "/no/such/file", "--", "true"],
            FAILED,
            "",
            "/no/such/file: there is no such file",
        )?,
        says(
            "an unknown kernel",
            &["run", "--kernel", "1.0", "--", "true"],
            FAILED,
            "",
            "no sources for kernel 1.0",
        )?,
        says(
            "the command's output and exit status",
            &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"],
            7,
            "out\n",
            "err\n",
        )?,
        says(
            "a command that a signal kills",
            &["run", "--no-module", "--", "sh", "-c", "kill -9 $$"],
            137,
            "",
            "killed by signal 9",
        )?,
        says(
            "a command that is not there",
            &["run", "--no-module", "--", "/no/such/command"],
            NOT_STARTED,
            "",
            "bring it with --add",
        )?,
        says(
            "a command that hangs",
            &["run", "--no-module", "--limit", "3", "--", "sleep", "1000"],
            LIMIT_REACHED,
            "",
            "the console ends with",
        )?,
        says(
            "a command that never says READY",
            &["clone", "--no-module", "--", "echo", "NOT READY"],
            FAILED,
            "NOT READY",
            "did not print a line READY",
        )?,
        says(
            "an argument that QEMU does not know",
            &["run", "--no-module", "--qemu-arg=-bogus", "--", "true"],
            FAILED,
            "",
            "-bogus: invalid option",
        )?,
    ])
}

/// Reports of the kernel fail a run, whatever the command says.
pub fn reports(_: &Bench) -> Result<Vec<Test>> {
    let report = "the kernel reports a problem";
    Ok(vec![
        says(
            "a warning",
            &[
                "run",
                "--no-module",
                "--",
                "sh",
                "-c",
                "echo '<4>WARNING: a test' > /dev/kmsg; echo fine",
            ],
            FAILED,
            "fine",
            report,
        )?,
        says(
            "a panic",
            &[
                "run",
                "--no-module",
                "--",
                "sh",
                "-c",
                "echo c > /proc/sysrq-trigger; sleep 60",
            ],
            FAILED,
            "",
            report,
        )?,
    ])
}

pub fn userspace(_: &Bench) -> Result<Vec<Test>> {
    let script =
        "openssl version && python3 -c 'print(6 * 7)' && udevadm --version && cat /proc/uptime";
    Ok(vec![says(
        "OpenSSL, Python and udev run",
        &["run", "--userspace", "--", "sh", "-c", script],
        0,
        "42\n",
        "",
    )?])
}
