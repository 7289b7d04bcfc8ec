// SPDX-License-Identifier: MIT OR Apache-2.0

//! What only a kernel that catches mistakes can show.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Bench;
use super::guests;
use super::lab;
use crate::cache;
use crate::guest::FAILED;
use crate::kernel::Module;
use crate::kernel::Vmgenid;
use crate::products;
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
        &with_tables(bench, &[products::acpi_tables()?.join("reserved.aml")]),
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
        &guests::options(bench, 2),
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
        &with_tables(bench, &tables),
        &additions,
        &["sh", "-c", SCRIPT],
    )
}

/// The options of a guest with one processor whose firmware has these tables, too.
fn with_tables(bench: &Bench, tables: &[PathBuf]) -> GuestOptions {
    let mut options = guests::options(bench, 1);
    for table in tables {
        let file = format!("file={}", table.display());
        options.qemu_arg.extend(["-acpitable".into(), file]);
    }
    options
}

/// Mistakes by the name that `selftests/mistakes` has for them, and how their report begins.
const MISTAKES: [(&str, &str); 12] = [
    ("use-after-free", "BUG: KASAN: slab-use-after-free"),
    ("vmalloc-out-of-bounds", "BUG: KASAN: vmalloc-out-of-bounds"),
    (
        "lock-order",
        "WARNING: possible circular locking dependency",
    ),
    ("sleep-in-atomic", "BUG: sleeping function called from"),
    ("rcu-without-lock", "WARNING: suspicious RCU usage"),
    ("leak", "unreferenced object"),
    ("free-active-object", "ODEBUG: free active"),
    ("shift-out-of-bounds", "UBSAN: shift-out-of-bounds"),
    ("delete-twice", "list_del corruption"),
    ("count-from-zero", "at refcount_warn_saturate"),
    ("warning", "WARNING: "),
    ("null-pointer", "Oops: "),
];

/// A report of each kind fails a run, although the command in the guest is content.
pub fn mistakes(bench: &Bench) -> Result<Vec<Test>> {
    let modules = products::selftest_module(&bench.kernel, "mistakes")?;
    let mut tests = Vec::new();
    for (kind, report) in MISTAKES {
        tests.push(found(bench, &modules, kind, &mistake(kind), report)?);
    }
    let overflow = "insmod /sysgenid_overflow.ko";
    tests.push(found(
        bench,
        &modules,
        "overflow",
        overflow,
        "rust_kernel: panicked",
    )?);
    Ok(tests)
}

/// The same for what KCSAN finds.
pub fn data_race(bench: &Bench) -> Result<Vec<Test>> {
    const KIND: &str = "data-race";
    let modules = products::selftest_module(&bench.kernel, "mistakes")?;
    let report = "BUG: KCSAN: data-race in race";
    Ok(vec![found(bench, &modules, KIND, &mistake(KIND), report)?])
}

/// The command that makes a mistake of that kind.
fn mistake(kind: &str) -> String {
    format!("insmod /sysgenid_mistakes.ko kind={kind}")
}

/// A test that fails unless the run fails, and the kernel's report of that is shown.
fn found(bench: &Bench, modules: &Path, kind: &str, command: &str, report: &str) -> Result<Test> {
    let add = |name: &str| cache::shown(&modules.join(name));
    lab::says(
        &format!("found: {kind}"),
        &[
            "run",
            "--kernel",
            &bench.kernel.name,
            "--no-module",
            "--add",
            &add("sysgenid_mistakes.ko"),
            "--add",
            &add("sysgenid_overflow.ko"),
            "--",
            "sh",
            "-c",
            &format!("{command}; exit 0"),
        ],
        FAILED,
        "",
        report,
    )
}
