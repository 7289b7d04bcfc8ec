// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built from this checkout: the module, the selftests, the guests' programs of the demo and of
//! the measurements.
//!
//! All of it goes to the cache, in a directory of this checkout's own; the checkout itself is
//! read-only to the lab.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::cache;
use crate::kernel::Kernel;
use crate::kernel::Module;
use crate::step::execute;

/// The module for that kernel, which is none if the kernel has the driver built in.
pub fn module(kernel: &Kernel) -> Result<Option<PathBuf>> {
    match &kernel.module {
        Module::BuiltIn => Ok(None),
        Module::InTree(module) => Ok(Some(module.clone())),
        Module::External => external_module(kernel).map(Some),
    }
}

fn external_module(kernel: &Kernel) -> Result<PathBuf> {
    let name = module_name(kernel);
    let _lock = cache::lock(&name)?;
    let output = cache::build_directory(&name)?;
    execute(&mut module_command(kernel, &output), "module").context("cannot build the module")?;
    Ok(output.join("sysgenid.ko"))
}

/// The directory with a module that the selftests have in the directory `name`.
pub fn selftest_module(kernel: &Kernel, name: &str) -> Result<PathBuf> {
    let _whole = kernel.hold()?;
    let key = format!("{name}-{}", kernel.name);
    let _lock = cache::lock(&key)?;
    let output = cache::build_directory(&key)?;
    let mut make = kernel.make();
    make.arg(format!("M={}/selftests/{name}", cache::SOURCE))
        .arg(format!("MO={}", output.display()))
        .arg("modules");
    if let Module::External = kernel.module {
        external_module(kernel)?;
        let symbols = cache::build_directory(&module_name(kernel))?;
        // A kernel with the driver in its tree has its symbols in its own table.
        make.arg(format!(
            "KBUILD_EXTRA_SYMBOLS={}/Module.symvers",
            symbols.display()
        ));
    }
    execute(&mut make, name)
        .with_context(|| format!("cannot build the selftests' module {name}"))?;
    Ok(output)
}

/// What the module's build directory and its lock are called.
fn module_name(kernel: &Kernel) -> String {
    format!("module-{}", kernel.release)
}

/// The command that builds the module for that kernel, by the front door.
pub fn module_command(kernel: &Kernel, output: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(cache::SOURCE)
        .arg("modules")
        .arg(format!("KDIR={}", kernel.tree.display()))
        .arg(format!("MO={}", output.display()));
    command
}

/// The directory with the selftests in C.
pub fn c_selftests(kernel: &Kernel) -> Result<PathBuf> {
    let kdir = format!("KDIR={}", kernel.source.display());
    made("selftests", "selftests-c", &[&kdir, "M32=1"]).context("cannot build the selftests in C")
}

/// The directory with the selftests' ACPI tables.
pub fn acpi_tables() -> Result<PathBuf> {
    made("selftests/acpi", "selftests-acpi", &[]).context("cannot compile the ACPI tables")
}

/// The demo's guest program, linked with Debian's OpenSSL.
pub fn demo_guest() -> Result<PathBuf> {
    let directory = made("demo", "demo", &[]).context("cannot build the demo's guest program")?;
    Ok(directory.join("demo_guest"))
}

/// The directory with the programs that measure.
pub fn bench() -> Result<PathBuf> {
    made("bench", "bench", &[]).context("cannot build the programs that measure")
}

/// The program of the table of clones that is in Rust.
pub fn rust_rand() -> Result<PathBuf> {
    let output = cache::build_directory("clones-rust")?;
    execute(
        Command::new("cargo")
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(Path::new(cache::SOURCE).join("Documentation/clones/rust/Cargo.toml"))
            .arg("--target-dir")
            .arg(&output),
        "clones-rust",
    )
    .context("cannot build the table's program in Rust")?;
    Ok(output.join("release/rust-rand"))
}

/// Runs make in a directory of the checkout, with a directory of its own for what it makes.
fn made(directory: &str, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let _lock = cache::lock(name)?;
    let output = cache::build_directory(name)?;
    execute(
        Command::new("make")
            .arg("-C")
            .arg(Path::new(cache::SOURCE).join(directory))
            .arg(format!("OUTPUT={}", output.display()))
            .args(arguments),
        name,
    )?;
    Ok(output)
}

/// A directory in which `userspace/` and `packaging/` are installed as a package would install them.
pub fn installed() -> Result<PathBuf> {
    let _lock = cache::lock("installed")?;
    let target = cache::build_directory("userspace")?;
    let directory = cache::build_directory("installed")?;
    // What is no longer installed must not be there.
    fs::remove_dir_all(&directory)?;
    fs::create_dir(&directory)?;
    execute(
        Command::new("make")
            .arg("-C")
            .arg(cache::SOURCE)
            .arg("install")
            .arg("PREFIX=/usr")
            .arg(format!("DESTDIR={}", directory.display()))
            .env("CARGO_TARGET_DIR", target),
        "install",
    )
    .context("cannot build and install user space")?;
    Ok(directory)
}

/// The directory with the selftests in Rust, statically linked.
pub fn rust_selftests() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let output = cache::build_directory("selftests-rust")?;
    execute(
        Command::new("cargo")
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .args(["build", "--release", "--locked", "--target", TARGET])
            .arg("--manifest-path")
            .arg(Path::new(cache::SOURCE).join("selftests/rust/Cargo.toml"))
            .arg("--target-dir")
            .arg(&output),
        "selftests-rust",
    )
    .context("cannot build the selftests in Rust")?;
    Ok(output.join(TARGET).join("release"))
}
