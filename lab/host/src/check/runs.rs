// SPDX-License-Identifier: MIT OR Apache-2.0

//! Does what a manifest describes.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use uuid::Uuid;

use super::ingredients;
use super::manifest::Before;
use super::manifest::Id;
use super::manifest::Results;
use super::manifest::Run;
use super::manifest::Userspace;
use super::turns;
use super::words;
use super::words::Clone;
use crate::cache;
use crate::clone::Saved;
use crate::guest::FAILED;
use crate::guest::Kept;
use crate::kernel::Kernel;
use crate::port::Port;
use crate::port::Spoken;
use crate::run;
use crate::scratch::Scratch;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::tap;
use crate::tap::Test;

/// What several commands in one guest are told apart by.
const MARK: &str = "### lab:";

/// Does it, in that kernel, and returns what came of it.
pub fn perform(run: &Run, kernel: &Kernel) -> Result<Vec<Test>> {
    if run.host {
        on_the_host(run, kernel)
    } else if run.clones.is_empty() {
        in_a_guest(run, kernel)
    } else {
        in_clones(run, kernel)
    }
}

/// What a command said, and how that ended.
struct Said {
    /// What the lab exits with, or the command where it was not alone.
    status: u8,
    /// What the lab says of the end.
    remarks: String,
    /// What was written to standard output.
    output: String,
    /// What came of the programs at the machine's ports.
    spoken: Vec<Spoken>,
}

impl Said {
    fn new(status: u8, kept: Kept) -> Self {
        Self {
            status,
            output: kept.output(),
            remarks: kept.remarks,
            spoken: kept.spoken,
        }
    }
}

/// How a command is to end, and all that it is to say if that is known.
type Wanted<'a> = (u8, Option<&'a str>);

/// Reads results. The exit status is one, unless nothing is.
fn results(run: &Run, name: &str, kind: Results, wanted: Wanted<'_>, said: &Said) -> Vec<Test> {
    let mut tests = match kind {
        Results::Tap => tap::parse(name, &said.output),
        Results::Libtest => tap::parse_libtest(name, &said.output),
        Results::Kunit => {
            // The times in front of the lines go; the indentation is a part of the results.
            let log = said
                .output
                .lines()
                .map(|line| line.split_once("] ").map_or(line, |(_, text)| text))
                .fold(String::new(), |all, line| all + line + "\n");
            let suites = run.suites.iter();
            suites
                .flat_map(|suite| tap::parse_suite(suite, &log))
                .collect()
        }
        Results::Status | Results::None => Vec::new(),
    };
    if kind != Results::None {
        tests.push(ended(name, wanted, said));
    }
    tests
}

/// The results of programs at ports.
fn at_ports(name: &str, spoken: &[Spoken]) -> Vec<Test> {
    let mut tests = Vec::new();
    for spoken in spoken {
        let name = format!("{name}, {}", spoken.port);
        tests.extend(tap::parse(&name, &spoken.output));
        let ended = || {
            let (status, said) = (spoken.status, shortened(&spoken.output));
            ensure!(status == 0, "{status}, expected 0: {said}");
            Ok(())
        };
        tests.push(Test::from_result(format!("{name}: exit status"), ended()));
    }
    tests
}

/// A test of how a command ended, and of what it said.
fn ended(name: &str, (status, says): Wanted<'_>, said: &Said) -> Test {
    let result = || {
        ensure!(
            said.status == status,
            "{}, expected {status}: {}{}",
            said.status,
            said.remarks,
            shortened(&said.output)
        );
        ensure!(
            says.is_none_or(|says| said.output == says),
            "said {:?}, expected {says:?}",
            said.output
        );
        Ok(())
    };
    Test::from_result(format!("{name}: exit status"), result())
}

/// The end of what was said: a clone may have noted very much.
fn shortened(output: &str) -> String {
    const LINES: usize = 30;
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The commands run one after the other, in the directory of the manifest.
fn on_the_host(run: &Run, kernel: &Kernel) -> Result<Vec<Test>> {
    let files = tempfile::tempdir()?;
    for file in ingredients::make(&run.files, &run.directory, kernel)? {
        let guest = file.guest.strip_prefix("/").unwrap_or(&file.guest);
        let link = files.path().join(guest);
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(&file.from, &link)?;
    }
    let tool = env::var("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
    let scratch = Scratch::new()?;
    let name = run.name.replace(|c: char| !c.is_alphanumeric(), "-");
    let kept = cache::build_directory(&format!("host-{name}"))?;
    let mut tests = Vec::new();
    for (number, command) in run.commands.iter().enumerate() {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(&run.directory)
            .env("FILES", files.path())
            .env("SCRATCH", scratch.path())
            .env("KEPT", &kept)
            .env("LAB", Path::new(&tool).join("lab"))
            .env(cache::INSIDE, "1")
            .env("KDIR", &kernel.tree)
            .env("KERNEL_SOURCE", &kernel.source)
            .env("KERNEL_RELEASE", &kernel.release)
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            status: output
                .status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(FAILED),
            remarks: text(&output.stderr),
            output: text(&output.stdout),
            spoken: Vec::new(),
        };
        tests.extend(results_of(run, number, &said));
    }
    Ok(tests)
}

/// What came of one of the commands.
fn results_of(run: &Run, number: usize, said: &Said) -> Vec<Test> {
    let mut name = run.name.clone();
    if run.commands.len() > 1 {
        // The program's name tells more than a number.
        let words = run.commands[number].split_whitespace();
        let mut programs = words.filter(|word| !word.contains('='));
        let program = Path::new(programs.next().unwrap_or_default());
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        name = format!("{name}: {}: {program}", number + 1);
    }
    let wanted = (run.status, run.says.as_deref());
    results(run, &name, run.results, wanted, said)
}

/// A guest in which a line for a shell runs. The programs at its ports share a directory.
fn setup(run: &Run, kernel: &Kernel, line: &str, shared: &Path) -> Result<Setup> {
    let guest = &run.guest;
    let mut qemu_arg = guest.qemu.clone();
    for table in ingredients::tables(&guest.tables, &run.directory, kernel)? {
        qemu_arg.extend(["-acpitable".into(), format!("file={}", table.display())]);
    }
    let ports = guest.ports.iter().map(|(name, command)| Port {
        name: name.clone(),
        command: command.clone(),
        directory: run.directory.clone(),
        environment: vec![("SCRATCH", shared.to_owned())],
    });
    let options = GuestOptions {
        smp: guest.smp,
        memory: guest.memory.clone(),
        icount: guest.icount,
        no_module: !guest.module,
        no_vmgenid: !guest.vmgenid,
        // A table is a file, and not all of it is in its name.
        boot: guest.boot || !guest.tables.is_empty(),
        qemu_arg,
        append: guest.append.clone(),
        port: ports.collect(),
        limit: guest.limit,
        ..GuestOptions::plain()
    };
    let packages: Vec<_> = guest.packages.iter().map(String::as_str).collect();
    let userland = match guest.userspace {
        Userspace::None if packages.is_empty() => Userland::Busybox,
        Userspace::None => Userland::Packages(&packages),
        Userspace::Debian => Userland::Debian,
        Userspace::Installed => Userland::Whole,
        Userspace::Systemd => Userland::System,
    };
    let files = ingredients::make(&run.files, &run.directory, kernel)?;
    let command = ["sh", "-c", line].map(str::to_owned);
    Setup::with(&options, kernel, userland, &files, &command, None)
}

fn in_a_guest(run: &Run, kernel: &Kernel) -> Result<Vec<Test>> {
    // Each command's output and status between marks, whatever it prints itself.
    let lines: Vec<_> = run
        .commands
        .iter()
        .map(|command| format!("echo '{MARK} begin'; ({command}); echo \"{MARK} end $?\""))
        .collect();
    let shared = tempfile::tempdir()?;
    let setup = setup(run, kernel, &lines.join("; "), shared.path())?;
    let mut kept = Kept::default();
    let status = run::run(&setup, &mut kept)?;
    let whole = Said::new(status, kept);

    if let Some(report) = &run.report {
        let reported = || {
            ensure!(
                whole.status == FAILED && whole.remarks.contains(report),
                "exit status {}, expected {FAILED} for “{report}”: {}",
                whole.status,
                whole.remarks
            );
            Ok(())
        };
        let name = format!("{}: the kernel's report fails the run", run.name);
        return Ok(vec![Test::from_result(name, reported())]);
    }
    let mut tests = Vec::new();
    let mut parts = parts(&whole.output);
    for number in 0..run.commands.len() {
        let said = parts.next().unwrap_or_else(|| Said {
            status: whole.status,
            remarks: "the guest did not come to it. ".into(),
            output: String::new(),
            spoken: Vec::new(),
        });
        tests.extend(results_of(run, number, &said));
    }
    let result = if whole.status == 0 {
        Ok(())
    } else {
        Err(anyhow!("{}: {}", whole.status, whole.remarks))
    };
    let name = format!("{}: the guest ends well", run.name);
    tests.push(Test::from_result(name, result));
    tests.extend(at_ports(&run.name, &whole.spoken));
    Ok(tests)
}

/// What each of several commands said. The last one may not have come to its end.
fn parts(output: &str) -> impl Iterator<Item = Said> {
    let begin = format!("{MARK} begin\n");
    let end = format!("{MARK} end ");
    let parts: Vec<_> = output
        .split(begin.as_str())
        .skip(1)
        .map(|part| match part.rsplit_once(end.as_str()) {
            Some((output, status)) => Said {
                status: status.trim().parse().unwrap_or(FAILED),
                remarks: String::new(),
                output: output.to_owned(),
                spoken: Vec::new(),
            },
            None => Said {
                status: FAILED,
                remarks: "it did not come to its end. ".into(),
                output: part.to_owned(),
                spoken: Vec::new(),
            },
        })
        .collect();
    parts.into_iter()
}

fn in_clones(run: &Run, kernel: &Kernel) -> Result<Vec<Test>> {
    let [command] = run.commands.as_slice() else {
        bail!("commands: of several nobody knows which one is saved");
    };
    let shared = tempfile::tempdir()?;
    let setup = setup(run, kernel, command, shared.path())?;
    let (saved, kept) = Saved::with_output(&setup)?;
    let before = kept.output();
    let mut tests = match run.before {
        Before::Tap => tap::parse(&run.name, &before),
        Before::None => Vec::new(),
    };
    tests.extend(at_ports(&run.name, &kept.spoken));
    let ids: Vec<_> = run.clones.iter().flat_map(|group| &group.ids).collect();
    let mut resumed = if run.at_once {
        // Who waits leaves the processor to others.
        thread::scope(|scope| {
            let threads: Vec<_> = ids
                .iter()
                .map(|id| scope.spawn(|| resume(&saved, **id)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("a clone's thread panicked"))?
            });
            joined.collect::<Result<Vec<_>>>()
        })?
    } else {
        ids.iter()
            .map(|id| resume(&saved, **id))
            .collect::<Result<Vec<_>>>()?
    }
    .into_iter();

    for group in &run.clones {
        let members: Vec<_> = resumed.by_ref().take(group.ids.len()).collect();
        let mut clones = Vec::new();
        for (number, (said, clone)) in members.into_iter().enumerate() {
            let kind = if clone.is_new { "clone" } else { "same ID" };
            let name = format!("{}, {kind} {} of {}", run.name, number + 1, group.ids.len());
            let wanted = (group.status, group.says.as_deref());
            tests.extend(results(run, &name, group.results, wanted, &said));
            tests.extend(at_ports(&name, &said.spoken));
            clones.push(Clone {
                output: said.output,
                ..clone
            });
        }
        tests.extend(words::tests(&run.name, group, &clones, &before));
        if let Some(turns) = &group.turns {
            tests.extend(turns::tests(&run.name, turns, &saved, &clones, &before)?);
        }
    }
    Ok(tests)
}

/// Resumes a clone and follows it to its end.
fn resume(saved: &Saved<'_>, id: Id) -> Result<(Said, Clone)> {
    let is_new = id == Id::New;
    let id = if is_new { Uuid::new_v4() } else { saved.id };
    let mut kept = Kept::default();
    let began = words::now()?;
    let status = saved.resume("clone", id, &mut kept, |_| ())?;
    let clone = Clone {
        output: String::new(),
        id,
        is_new,
        // As exact as a real-time clock is.
        ran: began - 1..=words::now()? + 1,
    };
    Ok((Said::new(status, kept), clone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_apart() {
        let output = format!(
            "{MARK} begin\n1..1\nok 1\n{MARK} end 0\n{MARK} begin\nno line's end{MARK} end 3\n{MARK} begin\nhangs\n"
        );
        let said: Vec<_> = parts(&output).collect();
        assert_eq!(said.len(), 3);
        assert_eq!(
            (said[0].status, said[0].output.as_str()),
            (0, "1..1\nok 1\n")
        );
        assert_eq!(
            (said[1].status, said[1].output.as_str()),
            (3, "no line's end")
        );
        assert_eq!(said[2].status, FAILED);
        assert!(parts("").next().is_none());
    }
}
