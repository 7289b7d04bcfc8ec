// SPDX-License-Identifier: MIT OR Apache-2.0

//! The selftests, in guests and in clones of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::source;
use crate::clone::Saved;
use crate::guest::FAILED;
use crate::guest::Kept;
use crate::kernel::Module;
use crate::kernel::Vmgenid;
use crate::products;
use crate::run;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step::execute;
use crate::tap;
use crate::tap::Test;

/// A file that goes into the guest at that place.
pub fn addition(from: PathBuf, guest: &str) -> Addition {
    Addition {
        from,
        guest: guest.into(),
    }
}

/// A shell script of the selftests. Those that others read go beside them.
pub fn script(name: &str) -> Addition {
    addition(source("selftests").join(name), &format!("/{name}"))
}

/// A module of the selftests.
pub fn selftest_module(bench: &Bench, name: &str, file: &str) -> Result<PathBuf> {
    Ok(products::selftest_module(&bench.kernel, name)?.join(file))
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}

/// A guest in which one command runs.
pub fn setup(
    bench: &Bench,
    options: &GuestOptions,
    additions: &[Addition],
    command: &[&str],
) -> Result<Setup> {
    Setup::with(
        options,
        &bench.kernel,
        Userland::of(options),
        additions,
        &words(command),
        None,
    )
}

/// The programs with selftests, in C (64 and 32 bits) and in Rust; on the stock kernel all of them
/// twice in one guest, because a device that has been used must behave like a fresh one. Others are
/// slow.
pub fn selftests(bench: &Bench) -> Result<Vec<Test>> {
    let c = products::c_selftests(&bench.kernel)?;
    let rust = products::rust_selftests()?;
    let additions = [
        addition(c.join("sysgenid_test"), "/c"),
        addition(c.join("sysgenid_test_32"), "/c32"),
        addition(c.join("vmgenid_page_test"), "/page"),
        addition(c.join("vmgenid_page_test_32"), "/page32"),
        addition(rust.join("sysgenid-rs-test"), "/rust"),
    ];
    // Without a module, nothing can hold it.
    let without = match bench.kernel.module {
        Module::BuiltIn => "-T mmap_holds_the_module",
        Module::InTree(_) | Module::External => "",
    };
    let programs = [
        ("c", without),
        ("c32", without),
        ("page", without),
        ("page32", without),
        ("rust", ""),
    ];
    let rounds = if bench.kernel.is_debug() { 1 } else { 2 };
    several(
        bench,
        "selftests",
        &options(bench, 2),
        &additions,
        &programs,
        rounds,
    )
}

/// The TAP of several programs in one guest, so many times one after the other. Each is `/` and its
/// name, with arguments.
pub fn several(
    bench: &Bench,
    name: &str,
    options: &GuestOptions,
    additions: &[Addition],
    programs: &[(&str, &str)],
    rounds: usize,
) -> Result<Vec<Test>> {
    const MARK: &str = "### ";
    let script = programs
        .iter()
        .map(|(program, arguments)| format!("echo '{MARK}{program}'; /{program} {arguments};"))
        .collect::<Vec<_>>()
        .concat()
        .repeat(rounds);
    let said = said(bench, options, additions, &["sh", "-c", &script])?;
    let parts: Vec<_> = said.output.split(MARK).skip(1).collect();
    ensure!(
        parts.len() == rounds * programs.len(),
        "exit status {}: {}; the guest said: {}",
        said.status,
        said.remarks,
        said.output
    );
    let mut tests = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let (program, output) = part.split_once('\n').unwrap_or((part, ""));
        let round = number / programs.len() + 1;
        tests.extend(tap::parse(
            &format!("{name}: {program}, run {round}"),
            output,
        ));
    }
    tests.push(said.no_report(name));
    Ok(tests)
}

/// The options of a guest with that many processors, in which one command runs.
pub fn options(bench: &Bench, smp: u32) -> GuestOptions {
    GuestOptions {
        smp,
        // A kernel that catches mistakes is slow, and has more to do.
        limit: if bench.kernel.is_debug() { 900 } else { 300 },
        ..GuestOptions::plain()
    }
}

/// What a command said in a guest, and how that ended.
pub struct Said {
    /// What the lab exits with.
    pub status: u8,
    /// What the lab says of the end.
    pub remarks: String,
    /// What the command wrote to standard output.
    pub output: String,
}

impl Said {
    pub fn new(status: u8, kept: Kept) -> Self {
        Self {
            status,
            remarks: kept.remarks,
            output: String::from_utf8_lossy(&kept.stdout).into_owned(),
        }
    }

    /// A test that fails if the kernel reported a problem, or the lab failed.
    pub fn no_report(&self, name: &str) -> Test {
        let result = if self.status == FAILED {
            Err(anyhow!("{}", self.remarks))
        } else {
            Ok(())
        };
        Test::from_result(format!("{name}: no kernel report"), result)
    }
}

/// What a command says in a guest.
pub fn said(
    bench: &Bench,
    options: &GuestOptions,
    additions: &[Addition],
    command: &[&str],
) -> Result<Said> {
    let setup = setup(bench, options, additions, command)?;
    let mut kept = Kept::default();
    let status = run::run(&setup, &mut kept)?;
    Ok(Said::new(status, kept))
}

/// The TAP that a command prints in a guest.
pub fn tap_of(
    bench: &Bench,
    name: &str,
    options: &GuestOptions,
    additions: &[Addition],
    command: &[&str],
) -> Result<Vec<Test>> {
    let said = said(bench, options, additions, command)?;
    let mut tests = tap::parse(name, &said.output);
    tests.push(said.no_report(name));
    Ok(tests)
}

/// The module is loaded and unloaded, and another module changes the generation.
pub fn module_test(bench: &Bench) -> Result<Vec<Test>> {
    let additions = [
        script("module_test.sh"),
        script("module.sh"),
        addition(bench.module()?, "/sysgenid.ko"),
        addition(
            selftest_module(bench, "bump", "sysgenid_bump.ko")?,
            "/sysgenid_bump.ko",
        ),
        addition(
            products::rust_selftests()?.join("sysgenid-rs-test"),
            "/rust",
        ),
    ];
    let command = [
        "/module_test.sh",
        "/sysgenid.ko",
        "/sysgenid_bump.ko",
        "/rust",
    ];
    tap_of(bench, "module", &options(bench, 2), &additions, &command)
}

/// Who has seen the generation change, and then draws from the kernel, never gets what another
/// clone got.
///
/// The control shows that clones do get the same before the change, so that the comparison can
/// fail. A clone learns of its resume by a race, which it may lose; so of three, two are enough,
/// and what a clone itself says of its race does not count.
pub fn ordering(bench: &Bench) -> Result<Vec<Test>> {
    let program = products::rust_selftests()?.join("sysgenid-order-test");
    let additions = [addition(program, "/order-test")];
    let ids = [(); 3].map(|()| Some(Uuid::new_v4()));
    let mut tests = Vec::new();
    for smp in [1, 2] {
        let options = GuestOptions {
            smp,
            ..GuestOptions::plain()
        };
        let setup = setup(bench, &options, &additions, &["/order-test"])?;
        let clones = resume_all(&setup, &ids)?;
        let name = format!("order, {smp} CPUs");
        tests.extend(clone_tests(&name, &clones));
        tests.push(all_different(&name, &clones, &["random", "urandom"]));
    }
    let options = GuestOptions::plain();
    let setup = setup(
        bench,
        &options,
        &additions,
        &["/order-test", "--before-change"],
    )?;
    let clones = resume_all(&setup, &ids)?;
    tests.push(Test::from_result(
        "order, control: before the change clones draw the same",
        some_equal(&clones, "early"),
    ));
    Ok(tests)
}

fn clone_program() -> Result<Addition> {
    let program = products::rust_selftests()?.join("sysgenid-clone-test");
    Ok(addition(program, "/clone-test"))
}

/// Resumes a saved guest with those IDs, one after the other; the clones' outputs.
pub fn resume_all(setup: &Setup, ids: &[Option<Uuid>]) -> Result<Vec<Said>> {
    resume_saved(&Saved::with_output(setup)?.0, ids)
}

/// The same for a guest that has been saved.
pub fn resume_saved(saved: &Saved<'_>, ids: &[Option<Uuid>]) -> Result<Vec<Said>> {
    ids.iter()
        .enumerate()
        .map(|(number, id)| {
            let mut kept = Kept::default();
            let id = id.unwrap_or(saved.id);
            let status = saved.resume(&format!("clone{}", number + 1), id, &mut kept, |_| ())?;
            Ok(Said::new(status, kept))
        })
        .collect()
}

/// What a clone printed after `# name `.
pub fn noted<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!("# {name} ");
    output
        .lines()
        .filter_map(|line| line.strip_prefix(mark.as_str()))
        .collect()
}

/// The TAP of each clone, and its exit status.
pub fn clone_tests(name: &str, clones: &[Said]) -> Vec<Test> {
    let mut tests = Vec::new();
    for (number, clone) in clones.iter().enumerate() {
        let name = format!("{name}, clone {} of {}", number + 1, clones.len());
        tests.extend(tap::parse(&name, &clone.output));
        let result = if clone.status == 0 {
            Ok(())
        } else {
            Err(anyhow!("{}: {}", clone.status, clone.remarks))
        };
        tests.push(Test::from_result(format!("{name}: exit status"), result));
    }
    tests
}

/// Fails unless at least two clones noted the same value under this name.
pub fn some_equal(clones: &[Said], name: &str) -> Result<()> {
    let mut values: Vec<_> = clones
        .iter()
        .flat_map(|clone| noted(&clone.output, name))
        .collect();
    let all = values.len();
    values.sort_unstable();
    values.dedup();
    ensure!(values.len() < all, "{all} draws, all of them different");
    Ok(())
}

/// A test that fails if any two of the values that the clones noted under these names are equal, or
/// if a clone noted none.
pub fn all_different(name: &str, clones: &[Said], names: &[&str]) -> Test {
    let result = || -> Result<()> {
        let mut values = Vec::new();
        for clone in clones {
            for name in names {
                let noted = noted(&clone.output, name);
                ensure!(!noted.is_empty(), "a clone noted no {name} bytes");
                values.extend(noted);
            }
        }
        let all = values.len();
        values.sort_unstable();
        values.dedup();
        ensure!(
            values.len() == all,
            "{all} draws, {} different",
            values.len()
        );
        Ok(())
    };
    Test::from_result(format!("{name}: no random bytes twice"), result())
}

/// Fails unless each clone noted the VM generation ID that it was given.
fn have_ids(clones: &[Said], ids: &[Option<Uuid>]) -> Result<()> {
    for (clone, id) in clones.iter().zip(ids) {
        let id = id.context("each clone has an ID of its own")?;
        // In memory the first three parts of a UUID are numbers of a little-endian machine.
        let id = Uuid::from_bytes(id.to_bytes_le()).simple().to_string();
        let noted = noted(&clone.output, "vmgenid");
        ensure!(noted == [&id], "the ID is {id}, the clone noted {noted:?}");
    }
    Ok(())
}

pub fn clones(bench: &Bench) -> Result<Vec<Test>> {
    let (source, reseeds) = match bench.kernel.vmgenid {
        Vmgenid::Absent => ("vmgenid", false),
        Vmgenid::Module(_) | Vmgenid::BuiltIn => ("vmfork", true),
    };
    let mut tests = Vec::new();
    for smp in [1, 2] {
        let options = GuestOptions {
            smp,
            ..GuestOptions::plain()
        };
        let command = ["/clone-test", &format!("--source={source}")];
        let setup = setup(bench, &options, &[clone_program()?], &command)?;
        let ids = [(); 3].map(|()| Some(Uuid::new_v4()));
        let clones = resume_all(&setup, &ids)?;
        let name = format!("clones, {smp} CPUs");
        tests.extend(clone_tests(&name, &clones));
        tests.push(Test::from_result(
            format!("{name}: the hypervisor's IDs"),
            have_ids(&clones, &ids),
        ));
        if reseeds {
            tests.push(all_different(&name, &clones, &["random", "urandom"]));
        }
    }
    Ok(tests)
}

pub fn same_id(bench: &Bench) -> Result<Vec<Test>> {
    let command = ["/clone-test", "--expect-unchanged"];
    let setup = setup(bench, &GuestOptions::plain(), &[clone_program()?], &command)?;
    let clones = resume_all(&setup, &[None])?;
    let tests = clone_tests("same ID", &clones);
    Ok(tests)
}

/// A guest in which `/dev/vmgenid` is there, or is not, and what the driver says of that.
struct IdNode {
    name: &'static str,
    /// Whether the guest has QEMU's own device.
    own: bool,
    /// What else it has, of the tables in selftests/acpi.
    tables: &'static [&'static str],
    /// Why there is no node, if there is none.
    refusal: Option<&'static str>,
}

const ID_NODES: [IdNode; 8] = [
    IdNode {
        name: "a device",
        own: true,
        tables: &[],
        refusal: None,
    },
    IdNode {
        name: "no device",
        own: false,
        tables: &[],
        refusal: Some("there is no VMGenID device"),
    },
    IdNode {
        name: "another device",
        own: false,
        tables: &["reserved"],
        refusal: None,
    },
    IdNode {
        name: "two devices",
        own: true,
        tables: &["reserved"],
        refusal: Some("there are several VMGenID devices"),
    },
    IdNode {
        name: "a malformed device beside one that is not",
        own: true,
        tables: &["ram"],
        refusal: None,
    },
    IdNode {
        name: "an ID in system RAM",
        own: false,
        tables: &["ram"],
        refusal: Some("ADDR 0x200000 is not in reserved memory"),
    },
    IdNode {
        name: "an ID in two pages",
        own: false,
        tables: &["pages"],
        refusal: Some("the ID at 0xf0ff8 is not in one page"),
    },
    IdNode {
        name: "an ID in a page with system RAM",
        own: false,
        tables: &["shared"],
        refusal: Some("a part of the page of the ID at 0x9fc00 is system RAM"),
    },
];

/// `/dev/vmgenid` is there if it is safe, and if it is clear whose ID it shows.
pub fn id_nodes(bench: &Bench) -> Result<Vec<Test>> {
    const SCRIPT: &str = "\
        if [ -e /dev/vmgenid ]; then dd if=/dev/vmgenid bs=16 count=1 | wc -c; fi
        dmesg | sed -n 's,.*sysgenid: no /dev/vmgenid: ,,p'";
    let compiled = products::acpi_tables()?;
    ID_NODES
        .iter()
        .map(|node| {
            let tables: Vec<_> = node
                .tables
                .iter()
                .map(|table| compiled.join(table).with_extension("aml"))
                .collect();
            let options = GuestOptions {
                no_vmgenid: !node.own,
                qemu_arg: with_tables(&tables),
                ..options(bench, 1)
            };
            let said = said(bench, &options, &[], &["sh", "-c", SCRIPT])?;
            let expected = format!("{}\n", node.refusal.unwrap_or("16"));
            let result = if (said.status, &said.output) == (0, &expected) {
                Ok(())
            } else {
                let Said { status, output, .. } = &said;
                Err(anyhow!(
                    "exit status {status}: {}, expected {expected:?}, got {output:?}",
                    said.remarks
                ))
            };
            Ok(Test::from_result(
                format!("/dev/vmgenid: {}", node.name),
                result,
            ))
        })
        .collect()
}

/// The arguments by which QEMU's firmware has these tables, too.
pub fn with_tables(tables: &[PathBuf]) -> Vec<String> {
    tables
        .iter()
        .flat_map(|table| ["-acpitable".into(), format!("file={}", table.display())])
        .collect()
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
    for (number, clone) in resume_all(&setup, &ids)?.into_iter().enumerate() {
        let result = if (clone.status, clone.output.as_str()) == (3, "alive\n") {
            Ok(())
        } else {
            Err(anyhow!(
                "exit status {}: {}; output {:?}",
                clone.status,
                clone.remarks,
                clone.output
            ))
        };
        tests.push(Test::from_result(
            format!("a static program, clone {}", number + 1),
            result,
        ));
    }
    Ok(tests)
}
