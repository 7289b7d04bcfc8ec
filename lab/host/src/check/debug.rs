// SPDX-License-Identifier: MIT OR Apache-2.0

//! What only a kernel that catches mistakes can show.

use std::ffi::OsStr;
use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Bench;
use super::guests;
use crate::guest::FAILED;
use crate::kernel::Module;
use crate::kernel::Vmgenid;
use crate::products;
use crate::report::Watch;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::tap;
use crate::tap::Test;

/// The driver's unit tests, which have run at boot.
pub fn unit_tests(bench: &Bench) -> Result<Vec<Test>> {
    const SUITES: [&str; 2] = ["sysgenid_generation", "sysgenid_vmgenid_device"];
    let said = guests::said(bench, &guests::options(bench, 1), &[], &["dmesg"])?;
    ensure!(
        said.status == 0,
        "dmesg: exit status {}: {}",
        said.status,
        said.remarks
    );
    // The times in front of the lines go; the indentation is a part of the results.
    let log = said
        .output
        .lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, text)| text))
        .fold(String::new(), |all, line| all + line + "\n");
    Ok(SUITES
        .iter()
        .flat_map(|suite| tap::parse_suite(suite, &log))
        .collect())
}

/// Each allocation fails once.
pub fn faults(bench: &Bench) -> Result<Vec<Test>> {
    let program = products::c_selftests(&bench.kernel)?.join("sysgenid_fault_test");
    guests::tap_of(
        bench,
        "faults",
        &GuestOptions {
            no_vmgenid: true,
            qemu_arg: guests::with_tables(&[products::acpi_tables()?.join("reserved.aml")]),
            ..guests::options(bench, 1)
        },
        &[
            guests::addition(program, "/fault"),
            guests::addition(bench.module()?, "/sysgenid.ko"),
        ],
        &["env", "SYSGENID_MODULE=/sysgenid.ko", "/fault"],
    )
}

/// The module is loaded and unloaded again and again, while others use the device.
pub fn load(bench: &Bench) -> Result<Vec<Test>> {
    let program = products::c_selftests(&bench.kernel)?.join("sysgenid_load_test");
    guests::tap_of(
        bench,
        "load",
        &GuestOptions {
            // Longer than the test's own limit.
            limit: 2400,
            ..guests::options(bench, 2)
        },
        &[
            guests::addition(program, "/load"),
            guests::addition(bench.module()?, "/sysgenid.ko"),
        ],
        &["env", "SYSGENID_MODULE=/sysgenid.ko", "/load"],
    )
}

/// What the driver hears of the `VMGenID` device, from a module that plays the hypervisor.
pub fn vmgenid(bench: &Bench) -> Result<Vec<Test>> {
    let hypervisor = guests::selftest_module(bench, "hypervisor", "sysgenid_hypervisor.ko")?;
    let mut additions = vec![
        guests::script("vmgenid_test.sh"),
        guests::script("module.sh"),
        guests::script("vmgenid.sh"),
        guests::addition(hypervisor, "/sysgenid_hypervisor.ko"),
    ];
    let mut command = vec!["/vmgenid_test.sh"];
    match &bench.kernel.module {
        Module::InTree(module) => {
            additions.push(guests::addition(module.clone(), "/sysgenid.ko"));
            command.push("/sysgenid.ko");
        }
        Module::BuiltIn => command.push("--built-in"),
        Module::External => bail!("the stock kernel's own driver holds the device"),
    }
    command.push("/sysgenid_hypervisor.ko");
    if let Vmgenid::Module(module) = &bench.kernel.vmgenid {
        additions.push(guests::addition(module.clone(), "/vmgenid.ko"));
        command.push("/vmgenid.ko");
    }
    guests::tap_of(
        bench,
        "vmgenid",
        &guests::options(bench, 2),
        &additions,
        &command,
    )
}

/// What the driver makes of malformed devices, and of well-formed ones beside them.
pub fn malformed(bench: &Bench) -> Result<Vec<Test>> {
    const SCRIPT: &str =
        "exec /vmgenid_bad_test.sh /sysgenid.ko /sysgenid_hypervisor.ko /acpi/*.asl";
    let hypervisor = guests::selftest_module(bench, "hypervisor", "sysgenid_hypervisor.ko")?;
    let additions = [
        guests::script("vmgenid_bad_test.sh"),
        guests::script("module.sh"),
        guests::script("vmgenid.sh"),
        guests::addition(super::source("selftests/acpi"), "/acpi"),
        guests::addition(bench.module()?, "/sysgenid.ko"),
        guests::addition(hypervisor, "/sysgenid_hypervisor.ko"),
    ];
    let mut tables: Vec<_> = fs::read_dir(products::acpi_tables()?)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    tables.retain(|path| path.extension() == Some(OsStr::new("aml")));
    guests::tap_of(
        bench,
        "malformed",
        &GuestOptions {
            qemu_arg: guests::with_tables(&tables),
            ..guests::options(bench, 1)
        },
        &additions,
        &["sh", "-c", SCRIPT],
    )
}

/// Mistakes that a kernel survives, by the name that `selftests/mistakes` has for them, and how
/// their report begins. Lockdep turns itself off when it has found a wrong order of locks, and
/// KASAN does that to it, so theirs come last.
const MISTAKES: [(&str, &str); 10] = [
    ("sleep-in-atomic", "BUG: sleeping function called from"),
    ("warning", "WARNING: "),
    ("rcu-without-lock", "WARNING: suspicious RCU usage"),
    ("free-active-object", "ODEBUG: free active"),
    ("shift-out-of-bounds", "UBSAN: shift-out-of-bounds"),
    ("delete-twice", "list_del corruption"),
    ("count-from-zero", "at refcount_warn_saturate"),
    (
        "lock-order",
        "WARNING: possible circular locking dependency",
    ),
    ("use-after-free", "BUG: KASAN: slab-use-after-free"),
    ("vmalloc-out-of-bounds", "BUG: KASAN: vmalloc-out-of-bounds"),
];

/// The kernel reports a mistake of each kind, and such a report fails a run, although the command in
/// the guest is content.
pub fn mistakes(bench: &Bench) -> Result<Vec<Test>> {
    const MARK: &str = "### ";
    let kinds = MISTAKES.map(|(kind, _)| kind).join(" ");
    let make = mistake("$kind");
    let script = format!(
        "for kind in {kinds}; do dmesg -c > /dev/null; {make}; rmmod sysgenid_mistakes; \
         echo '{MARK}'$kind; dmesg; done"
    );
    let modules = added(bench)?;
    let said = guests::said(bench, &alone(bench, 1), &modules, &["sh", "-c", &script])?;
    let failed = || {
        let (status, remarks) = (said.status, &said.remarks);
        ensure!(status == FAILED, "exit status {status}: {remarks}");
        Ok(())
    };
    let mut tests = vec![Test::from_result("found: a report fails a run", failed())];
    let mut parts = said.output.split(MARK).skip(1);
    for (kind, report) in MISTAKES {
        let part = parts.next().unwrap_or_default();
        let reported = || {
            let log = part
                .strip_prefix(kind)
                .context("the guest did not come to it")?;
            let mut watch = Watch::default();
            watch.console(log);
            let found = watch.found().unwrap_or_default();
            ensure!(
                found.iter().any(|line| line.contains(report)),
                "not taken for a report “{report}”: {log}"
            );
            Ok(())
        };
        tests.push(Test::from_result(format!("found: {kind}"), reported()));
    }
    // A leak is looked for once the command has ended, and these two end the guest.
    for (kind, command, report) in [
        ("leak", mistake("leak").as_str(), "unreferenced object"),
        ("null-pointer", &mistake("null-pointer"), "Oops: "),
        (
            "overflow",
            "insmod /sysgenid_overflow.ko",
            "rust_kernel: panicked",
        ),
    ] {
        tests.push(found(bench, 1, &modules, kind, command, report)?);
    }
    Ok(tests)
}

/// The same for what KCSAN finds. It takes two processors, or much luck.
pub fn data_race(bench: &Bench) -> Result<Vec<Test>> {
    const KIND: &str = "data-race";
    let report = "BUG: KCSAN: data-race in race";
    let modules = added(bench)?;
    let test = found(bench, 2, &modules, KIND, &mistake(KIND), report)?;
    Ok(vec![test])
}

/// The command that makes a mistake of that kind.
fn mistake(kind: &str) -> String {
    format!("insmod /sysgenid_mistakes.ko kind={kind}")
}

/// The options of a guest in which nothing but the mistakes is to be reported.
fn alone(bench: &Bench, smp: u32) -> GuestOptions {
    GuestOptions {
        no_module: true,
        ..guests::options(bench, smp)
    }
}

/// The modules that make mistakes.
fn added(bench: &Bench) -> Result<[Addition; 2]> {
    let modules = products::selftest_module(&bench.kernel, "mistakes")?;
    Ok(["sysgenid_mistakes.ko", "sysgenid_overflow.ko"]
        .map(|name| guests::addition(modules.join(name), &format!("/{name}"))))
}

/// A test that fails unless the run fails, and the kernel's report of that is shown.
fn found(
    bench: &Bench,
    smp: u32,
    modules: &[Addition],
    kind: &str,
    command: &str,
    report: &str,
) -> Result<Test> {
    let command = format!("{command}; exit 0");
    let said = guests::said(bench, &alone(bench, smp), modules, &["sh", "-c", &command])?;
    let found = || {
        let (status, remarks) = (said.status, &said.remarks);
        ensure!(
            status == FAILED && remarks.contains(report),
            "exit status {status}, not {FAILED} for “{report}”: {remarks}"
        );
        Ok(())
    };
    Ok(Test::from_result(format!("found: {kind}"), found()))
}
