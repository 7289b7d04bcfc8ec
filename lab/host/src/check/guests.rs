// SPDX-License-Identifier: MIT OR Apache-2.0

//! The selftests, in guests and in clones of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use crate::clone::Saved;
use crate::guest::FAILED;
use crate::guest::Kept;
use crate::products;
use crate::run;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step::execute;
use crate::tap;
use crate::tap::Test;

fn addition(from: PathBuf, guest: &str) -> Addition {
    Addition {
        from,
        guest: guest.into(),
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}

fn setup(
    bench: &Bench,
    options: &GuestOptions,
    additions: &[Addition],
    command: &[&str],
) -> Result<Setup> {
    let userland = Userland::Busybox;
    Setup::with(
        options,
        &bench.kernel,
        userland,
        additions,
        &words(command),
        None,
    )
}

/// The programs with selftests, in C and in Rust; all of them twice in one guest, because a
/// device that has been used must behave like a fresh one.
pub fn selftests(bench: &Bench) -> Result<Vec<Test>> {
    const MARK: &str = "### ";
    let c = products::c_selftests(&bench.kernel)?.join("sysgenid_test");
    let rust = products::rust_selftests()?.join("sysgenid-rs-test");
    let additions = [addition(c, "/c"), addition(rust, "/rust")];
    let script = format!("for test in c rust c rust; do echo '{MARK}'$test; /$test; done");
    let options = GuestOptions {
        smp: 2,
        ..GuestOptions::plain()
    };
    let setup = setup(bench, &options, &additions, &["sh", "-c", &script])?;
    let mut kept = Kept::default();
    let status = run::run(&setup, &mut kept)?;
    let output = String::from_utf8_lossy(&kept.stdout).into_owned();
    let mut tests = Vec::new();
    for (number, part) in output.split(MARK).skip(1).enumerate() {
        let (name, output) = part.split_once('\n').unwrap_or((part, ""));
        let round = number / 2 + 1;
        tests.extend(tap::parse(
            &format!("selftests: {name}, run {round}"),
            output,
        ));
    }
    ensure!(
        tests.len() >= 4,
        "exit status {status}; the guest said: {output}"
    );
    if status == FAILED {
        let error = Err(anyhow!("the kernel reported a problem, see above"));
        tests.push(Test::from_result("selftests: no kernel report", error));
    }
    Ok(tests)
}

fn clone_program() -> Result<Addition> {
    let program = products::rust_selftests()?.join("sysgenid-clone-test");
    Ok(addition(program, "/clone-test"))
}

/// Resumes a saved guest with those IDs, one after the other; the clones' outputs.
fn resume_all(setup: &Setup, ids: &[Option<Uuid>]) -> Result<Vec<(u8, String)>> {
    let saved = Saved::new(setup, &mut Kept::default())?
        .map_err(|status| anyhow!("the guest could not be saved (exit status {status})"))?;
    ids.iter()
        .enumerate()
        .map(|(number, id)| {
            let mut kept = Kept::default();
            let id = id.unwrap_or(saved.id);
            let status = saved.resume(&format!("clone{}", number + 1), id, &mut kept, |_| ())?;
            Ok((status, String::from_utf8_lossy(&kept.stdout).into_owned()))
        })
        .collect()
}

/// What a clone printed after `# name `.
fn noted<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!("# {name} ");
    output
        .lines()
        .filter_map(|line| line.strip_prefix(mark.as_str()))
        .collect()
}

pub fn clones(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for smp in [1, 2] {
        let options = GuestOptions {
            smp,
            ..GuestOptions::plain()
        };
        let setup = setup(bench, &options, &[clone_program()?], &["/clone-test"])?;
        let ids = [
            Some(Uuid::new_v4()),
            Some(Uuid::new_v4()),
            Some(Uuid::new_v4()),
        ];
        let outputs = resume_all(&setup, &ids)?;
        let mut random = Vec::new();
        for (number, (status, output)) in outputs.iter().enumerate() {
            let name = format!("clone {} of {} on {smp} CPUs", number + 1, ids.len());
            tests.extend(tap::parse(&name, output));
            let result = if *status == 0 {
                Ok(())
            } else {
                Err(anyhow!("{status}"))
            };
            tests.push(Test::from_result(format!("{name}: exit status"), result));
            random.extend(noted(output, "random"));
        }
        let all = random.len();
        random.sort_unstable();
        random.dedup();
        let result = if all >= ids.len() && random.len() == all {
            Ok(())
        } else {
            Err(anyhow!("{all} draws, {} different", random.len()))
        };
        tests.push(Test::from_result(
            format!("clones on {smp} CPUs: no random bytes twice"),
            result,
        ));
    }
    Ok(tests)
}

pub fn same_id(bench: &Bench) -> Result<Vec<Test>> {
    let command = ["/clone-test", "--expect-unchanged"];
    let setup = setup(bench, &GuestOptions::plain(), &[clone_program()?], &command)?;
    let outputs = resume_all(&setup, &[None])?;
    let (status, output) = &outputs[0];
    let mut tests = tap::parse("same ID", output);
    let result = if *status == 0 {
        Ok(())
    } else {
        Err(anyhow!("{status}"))
    };
    tests.push(Test::from_result("same ID: exit status", result));
    Ok(tests)
}

/// A static program that no part of the repository knows, cloned three times.
pub fn unknown_program(bench: &Bench) -> Result<Vec<Test>> {
    const PROGRAM: &str = "\
#include <stdio.h>
#include <unistd.h>
int main(void)
{
	int i;
	puts(\"READY\");
	fflush(stdout);
	for (i = 0; i < 50; i++)
		usleep(20000);
	puts(\"alive\");
	return 3;
}
";
    let directory = tempfile::tempdir()?;
    let code = directory.path().join("program.c");
    let program = directory.path().join("program");
    fs::write(&code, PROGRAM)?;
    execute(
        Command::new("gcc")
            .args(["-static", "-o"])
            .arg(&program)
            .arg(&code),
        "gcc",
    )?;
    let additions = [addition(program, "/program")];
    let setup = setup(bench, &GuestOptions::plain(), &additions, &["/program"])?;
    let ids = [
        Some(Uuid::new_v4()),
        Some(Uuid::new_v4()),
        Some(Uuid::new_v4()),
    ];
    let mut tests = Vec::new();
    for (number, (status, output)) in resume_all(&setup, &ids)?.into_iter().enumerate() {
        let result = if (status, output.as_str()) == (3, "alive\n") {
            Ok(())
        } else {
            Err(anyhow!("exit status {status}, output {output:?}"))
        };
        tests.push(Test::from_result(
            format!("a static program, clone {}", number + 1),
            result,
        ));
    }
    Ok(tests)
}
