// SPDX-License-Identifier: MIT OR Apache-2.0

//! How large everything is: the module beside some of the kernel's own, which are written in C, and
//! what a program pays that is built with the crate or the library. `bench/load.c` loads the modules in
//! a guest.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use object::Object as _;
use object::ObjectSection as _;
use object::SectionFlags;
use object::SectionKind;
use object::elf;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;

use super::Measured;
use super::chart::Bar;
use super::chart::Chart;
use super::chart::Kind;
use super::guest;
use super::guest::instructions;
use super::table::Table;
use crate::cache::source;
use crate::kernel::Kernel;
use crate::products;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Userland;
use crate::step::execute;
use crate::step::output_of;
use crate::step::step;

const OURS: &str = "sysgenid";

/// Modules of the kernel that have a device in /dev and not much else, and what they are. The first one
/// also finds its hardware by ACPI, and has a page to be mapped.
const OTHERS: [(&str, &str); 3] = [
    ("ptp_vmclock", "the VM's clock"),
    ("ntsync", "Windows' locks"),
    ("nsm", "an enclave's hardware"),
];

/// One that is there when they are loaded.
const LOADED: &str = "virtio-rng";

/// The functions of the kernel that `bench/load.c` has the tracer note.
const UNWINDER: &str = "unwind_module_init";
const SYSFS: &str = "mod_sysfs_setup";
const INIT: &str = "do_one_initcall";
const REGISTER: &str = "misc_register";
const RESEED: &str = "random_ioctl";

/// Where sections of an ELF file go to, in bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Sections {
    text: u64,
    rodata: u64,
    data: u64,
    bss: u64,
    /// What a module does not keep when it is loaded.
    init: u64,
    /// The symbols and their names, which a module keeps.
    symbols: u64,
}

impl Sections {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        let file = object::File::parse(bytes.as_slice())
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let mut sections = Self::default();
        for section in file.sections() {
            let flags = match section.flags() {
                SectionFlags::Elf { sh_flags } => sh_flags,
                _ => 0,
            };
            sections.add(section.name()?, flags, section.kind(), section.size());
        }
        Ok(sections)
    }

    fn add(&mut self, name: &str, flags: u64, kind: SectionKind, size: u64) {
        let has = |flag: u32| flags & u64::from(flag) != 0;
        let place = match (name, kind) {
            (".symtab" | ".strtab", _) => &mut self.symbols,
            _ if !has(elf::SHF_ALLOC) => return,
            // The kernel takes these for not allocated.
            (".modinfo" | "__versions", _) => return,
            (name, _) if name.starts_with(".init.") => &mut self.init,
            (_, SectionKind::UninitializedData | SectionKind::UninitializedTls) => &mut self.bss,
            _ if has(elf::SHF_EXECINSTR) => &mut self.text,
            _ if has(elf::SHF_WRITE) => &mut self.data,
            _ => &mut self.rodata,
        };
        *place += size;
    }
}

/// A line of `bench/load.c`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Module(Loaded),
    Trace(String),
}

/// What it takes to load a module, in nanoseconds that are instructions, really.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Loaded {
    name: String,
    load: f64,
    unload: f64,
    memory: u64,
}

/// A module: its file, without what only a debugger wants, and how it is loaded.
#[derive(Debug, Serialize)]
struct Module {
    name: String,
    sections: Sections,
    file: u64,
    compressed: u64,
    /// What the kernel has allocated for its sections, whole pages of them.
    memory: u64,
    load: f64,
    unload: f64,
    /// Instructions of some functions while it was loaded, the functions that they call included.
    functions: BTreeMap<String, f64>,
}

/// A program or a library, without what only a debugger wants.
#[derive(Debug, Serialize)]
struct Binary {
    name: String,
    sections: Sections,
    file: u64,
}

#[derive(Debug, Serialize)]
struct Sizes {
    modules: Vec<Module>,
    binaries: Vec<Binary>,
    installed: Vec<Binary>,
}

/// Measures everything.
pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let directory = tempfile::tempdir()?;
    let modules = step("loading modules", || modules(kernel, &directory))?;
    let binaries = step("building programs with the crate and the library", || {
        binaries(&directory)
    })?;
    let sizes = Sizes {
        modules,
        binaries,
        installed: installed(&directory)?,
    };
    let release = &kernel.release;
    let tables = vec![
        module_table(&sizes.modules),
        load_table(&sizes.modules),
        binary_table(
            "The same program with and without the crate or the library, in bytes",
            &sizes.binaries,
        ),
        binary_table("What is installed, in bytes", &sizes.installed),
    ];
    Measured::new(&sizes, tables, vec![chart(&sizes.modules, release)])
}

fn modules(kernel: &Kernel, directory: &TempDir) -> Result<Vec<Module>> {
    let ours = products::module(kernel)?.context("the kernel has the driver built in")?;
    let mut stripped = vec![strip(&ours, "--strip-debug", directory)?];
    for (name, _) in OTHERS {
        let packaged = packaged_module(kernel, name, directory)?;
        stripped.push(strip(&packaged, "--strip-debug", directory)?);
    }
    let other = packaged_module(kernel, LOADED, directory)?;
    let lines = load(kernel, &other, &stripped)?;
    let loaded = put_together(lines)?;
    let modules = stripped
        .iter()
        .zip(loaded)
        .map(|(path, (loaded, functions))| {
            Ok(Module {
                name: loaded.name,
                sections: Sections::read(path)?,
                file: fs::metadata(path)?.len(),
                compressed: compressed(path)?,
                memory: loaded.memory,
                load: instructions(loaded.load),
                unload: instructions(loaded.unload),
                functions,
            })
        });
    modules.collect()
}

/// A module of the kernel, unpacked. Signatures go when it is stripped: to check one would take
/// longer than all the rest, and ours has none.
fn packaged_module(kernel: &Kernel, name: &str, directory: &TempDir) -> Result<PathBuf> {
    let root = kernel.modules()?;
    let named = output_of(Command::new("modinfo").arg("--basedir").arg(&root).args([
        "-k",
        &kernel.release,
        "--field",
        "filename",
        name,
    ]))?;
    let packed = Path::new(named.trim());
    let file = packed.file_name().context("modinfo names no file")?;
    let copy = directory.path().join(file);
    fs::copy(packed, &copy)?;
    execute(Command::new("xz").arg("--decompress").arg(&copy), "xz")?;
    Ok(copy.with_extension(""))
}

/// A copy that is stripped.
fn strip(path: &Path, how: &str, directory: &TempDir) -> Result<PathBuf> {
    let name = path.file_name().context("it has no name")?;
    let stripped = directory.path().join("stripped").join(name);
    fs::create_dir_all(directory.path().join("stripped"))?;
    let mut strip = Command::new("strip");
    strip.args([how, "-o"]).arg(&stripped).arg(path);
    execute(&mut strip, "strip")?;
    Ok(stripped)
}

/// How large a file is when it is compressed as modules are in packages.
fn compressed(path: &Path) -> Result<u64> {
    let mut xz = Command::new("xz");
    xz.args(["--check=crc32", "--keep", "--force"]).arg(path);
    execute(&mut xz, "xz")?;
    let mut name = path.as_os_str().to_owned();
    name.push(".xz");
    Ok(fs::metadata(name)?.len())
}

/// Has a guest that counts instructions load them, when another one is there.
fn load(kernel: &Kernel, other: &Path, modules: &[PathBuf]) -> Result<Vec<Line>> {
    let (program, mut command) = guest::program(kernel, &["load"])?;
    let mut additions = vec![program];
    let modules = modules.iter().map(PathBuf::as_path);
    for module in [other].into_iter().chain(modules) {
        let name = module.file_name().context("it has no name")?;
        let guest = Path::new("/").join(name);
        command.push(guest.display().to_string());
        additions.push(Addition {
            from: module.to_owned(),
            guest,
        });
    }
    let options = GuestOptions {
        no_module: true,
        ..guest::counting()
    };
    guest::measure_in(kernel, &options, Userland::Busybox, &additions, &command)
}

/// Each module with the functions that the trace after it shows.
fn put_together(lines: Vec<Line>) -> Result<Vec<(Loaded, BTreeMap<String, f64>)>> {
    let mut all = Vec::new();
    for line in lines {
        match line {
            Line::Module(loaded) => all.push((loaded, BTreeMap::new())),
            Line::Trace(line) => {
                let (_, functions) = all.last_mut().context("a trace of no module")?;
                if let Some((name, nanoseconds)) = took(&line) {
                    *functions.entry(name).or_default() += instructions(nanoseconds);
                }
            }
        }
    }
    Ok(all)
}

/// How long a function took, in nanoseconds, by a line of the function graph on which it ends: one that
/// calls others ends with its name in a comment.
fn took(line: &str) -> Option<(String, f64)> {
    let (left, right) = line.split_once('|')?;
    let microseconds: f64 = left
        .trim()
        .strip_suffix("us")?
        .split_whitespace()
        .next_back()?
        .parse()
        .ok()?;
    let right = right.trim();
    let name = right.strip_suffix("();").or_else(|| {
        let name = right.strip_prefix("} /*")?;
        name.strip_suffix("*/")
    })?;
    Some((name.trim().to_owned(), microseconds * 1e3))
}

/// The same small program, with and without.
fn binaries(directory: &TempDir) -> Result<Vec<Binary>> {
    let examples = [
        ("Rust, without the crate", "token_plain"),
        ("Rust, with the crate", "token"),
    ];
    let mut binaries = Vec::new();
    for (name, example) in examples {
        let built = products::released_example("sysgenid", example, &[])?;
        binaries.push(binary(name, &built, directory)?);
    }
    let installed = products::installed()?;
    let include = format!("-I{}", installed.join("usr/include").display());
    let libraries = installed.join("usr/lib/x86_64-linux-gnu");
    let shared = format!("-L{}", libraries.display());
    let archive = libraries.join("libsysgenid.a").display().to_string();
    // What is linked last is what is needed first.
    let with = ["-DSYSGENID", &include];
    let programs: [(&str, &str, &[&str], &[&str]); 3] = [
        ("C, without the library", "plain", &[], &[]),
        (
            "C, with the shared library",
            "shared",
            &with,
            &[&shared, "-lsysgenid"],
        ),
        (
            "C, with the static library",
            "static",
            &with,
            &[&archive, "-lgcc_s", "-Wl,--gc-sections"],
        ),
    ];
    for (name, file, before, after) in programs {
        let output = directory.path().join(file);
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-Wall", "-Wextra", "-Werror"])
            .args(before)
            .arg(source("bench/token.c"))
            .args(after)
            .arg("-o")
            .arg(&output);
        execute(&mut compiler, "token")?;
        binaries.push(binary(name, &output, directory)?);
    }
    Ok(binaries)
}

/// What `make install` installs.
fn installed(directory: &TempDir) -> Result<Vec<Binary>> {
    let installed = products::installed()?;
    let library = format!("libsysgenid.so.{}", env!("CARGO_PKG_VERSION"));
    let names = [
        ("sysgenctl", "usr/bin/sysgenctl"),
        (
            "OpenSSL's provider",
            "usr/lib/x86_64-linux-gnu/ossl-modules/sysgenid.so",
        ),
        (
            "the C library",
            &format!("usr/lib/x86_64-linux-gnu/{library}"),
        ),
        (
            "GnuTLS's library",
            "usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so",
        ),
    ];
    let binaries = names.map(|(name, path)| binary(name, &installed.join(path), directory));
    binaries.into_iter().collect()
}

fn binary(name: &str, path: &Path, directory: &TempDir) -> Result<Binary> {
    let stripped = strip(path, "--strip-unneeded", directory)?;
    Ok(Binary {
        name: name.into(),
        sections: Sections::read(&stripped)?,
        file: fs::metadata(&stripped)?.len(),
    })
}

fn module_table(modules: &[Module]) -> Table {
    let rows = modules.iter().map(|module| {
        let sections = &module.sections;
        let numbers = [
            sections.text,
            sections.rodata,
            sections.data,
            sections.bss,
            sections.symbols,
            sections.init,
            module.memory,
            module.file,
            module.compressed,
        ];
        row(&module.name, &numbers)
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "Modules, in bytes",
            [
                "module", "text", "rodata", "data", "bss", "symbols", "init", "loaded", "file",
                "file.xz",
            ],
        )
    }
}

fn load_table(modules: &[Module]) -> Table {
    let rows = modules.iter().map(|module| {
        let function = |name: &str| module.functions.get(name).copied().unwrap_or(0.0);
        let numbers = [
            module.load,
            function(UNWINDER),
            function(SYSFS),
            function(INIT),
            function(RESEED),
            function(REGISTER),
            module.unload,
        ];
        let cells = numbers.map(|number| format!("{:.0}", number / 1e3));
        [module.name.clone()].into_iter().chain(cells).collect()
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "To load a module, in thousands of instructions",
            [
                "module",
                "load",
                "sort the unwinder's table",
                "enter it in sysfs",
                "its initialization",
                "… reseed",
                "… register devices",
                "unload",
            ],
        )
    }
}

fn binary_table(caption: &str, binaries: &[Binary]) -> Table {
    let rows = binaries.iter().map(|binary| {
        let sections = &binary.sections;
        let numbers = [
            sections.text,
            sections.rodata,
            sections.data,
            sections.bss,
            binary.file,
        ];
        row(&binary.name, &numbers)
    });
    Table {
        rows: rows.collect(),
        ..Table::new(caption, ["", "text", "rodata", "data", "bss", "file"])
    }
}

fn row(name: &str, numbers: &[u64]) -> Vec<String> {
    let cells = numbers.iter().map(u64::to_string);
    [name.to_owned()].into_iter().chain(cells).collect()
}

fn chart(modules: &[Module], release: &str) -> Chart {
    let bars = modules.iter().map(|module| {
        let what = OTHERS.iter().find(|(name, _)| *name == module.name);
        let name = &module.name;
        #[expect(clippy::cast_precision_loss, reason = "it is no more than some pages")]
        let value = module.memory as f64 / 1024.0;
        Bar {
            label: what.map_or_else(|| name.clone(), |(_, what)| format!("{name} ({what})")),
            value,
            shown: format!("{value:.0} KiB"),
            ours: name == OURS,
        }
    });
    Chart {
        name: "sizes",
        title: "What a loaded module takes of memory".into(),
        subtitle: format!("beside some of the kernel's own, in C; Linux {release}"),
        kind: Kind::Bars(bars.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_counts_where_it_is_when_it_is_loaded() {
        let (read, run) = (elf::SHF_ALLOC, elf::SHF_ALLOC | elf::SHF_EXECINSTR);
        let write = elf::SHF_ALLOC | elf::SHF_WRITE;
        let mut sections = Sections::default();
        for (name, flags, kind, size) in [
            (".text", run, SectionKind::Text, 1),
            (".exit.text", run, SectionKind::Text, 2),
            (".init.text", run, SectionKind::Text, 4),
            (".rodata", read, SectionKind::ReadOnlyData, 8),
            (".modinfo", read, SectionKind::ReadOnlyData, 16),
            (".data", write, SectionKind::Data, 32),
            (".bss", write, SectionKind::UninitializedData, 64),
            (".symtab", 0, SectionKind::Metadata, 128),
            (".comment", 0, SectionKind::OtherString, 256),
        ] {
            sections.add(name, flags.into(), kind, size);
        }
        let expected = Sections {
            text: 3,
            rodata: 8,
            data: 32,
            bss: 64,
            init: 4,
            symbols: 128,
        };
        assert_eq!(sections, expected);
    }

    #[test]
    fn a_program_has_sections() {
        let own = std::env::current_exe().expect("this is a program");
        let sections = Sections::read(&own).expect("it is an ELF file");
        assert!(sections.text > 0 && sections.bss > 0, "{sections:?}");
        assert!(Sections::read(Path::new("/proc/self/maps")).is_err());
    }

    #[test]
    fn a_function_counts_where_it_ends() {
        let ends = [
            (" 0) + 14.546 us   |  random_ioctl();", 14546.0),
            (" 0) # 1175.510 us |  } /* random_ioctl */", 1_175_510.0),
            (" 0)   0.500 us    |    random_ioctl();", 500.0),
        ];
        for (line, expected) in ends {
            let (name, nanoseconds) = took(line).expect("it ends there");
            assert_eq!(name, "random_ioctl");
            assert!((nanoseconds - expected).abs() < 0.1, "{nanoseconds}");
        }
        let others = [
            " 0)               |  do_one_initcall() {",
            " 0)    load-94     =>  kworker-129  ",
            " ------------------------------------------",
        ];
        assert!(others.iter().all(|line| took(line).is_none()));
    }

    #[test]
    fn a_trace_belongs_to_the_module_before_it() {
        let output = r#"{"module": {"name": "a", "load": 8.0, "unload": 4.0, "memory": 4096}}
{"trace": " 0) 1.000 us |  misc_register();"}
{"trace": " 0) 2.000 us |  misc_register();"}
{"module": {"name": "b", "load": 8.0, "unload": 4.0, "memory": 4096}}
{"trace": " 0) 4.000 us |  do_one_initcall();"}
"#;
        let lines = guest::parse(output).expect("it is well-formed");
        let all = put_together(lines).expect("each trace has a module");
        let [(_, first), (other, second)] = all.as_slice() else {
            panic!("there are not two of them: {all:?}");
        };
        assert_eq!(first.get(REGISTER), Some(&1500.0));
        assert_eq!(
            (other.name.as_str(), second.get(INIT)),
            ("b", Some(&2000.0))
        );
        assert!(put_together(vec![Line::Trace(String::new())]).is_err());
    }
}
