// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built from this checkout: the module, the selftests, the guests' programs of the demo and of
//! the measurements.
//!
//! All of it goes to the cache, in a directory of this checkout's own; the checkout itself is
//! read-only to the lab.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use tempfile::TempDir;

use crate::cache;
use crate::kernel;
use crate::kernel::Kernel;
use crate::kernel::Module;
use crate::step::execute;
use crate::step::output_of;

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

/// Modules of a packaged kernel that a guest with systemd has, if it has the hardware. What they
/// depend on comes along.
const PACKAGED_MODULES: [&str; 1] = ["virtio_net"];

/// A directory with modules where `modprobe` and udev look for them: some of a packaged kernel's own,
/// and the driver where `make modules_install` puts it.
pub fn modules(kernel: &Kernel, driver: Option<&Path>) -> Result<TempDir> {
    let packaged = kernel.modules()?;
    let release = &kernel.release;
    let root = tempfile::tempdir()?;
    let directory = root.path().join("usr/lib/modules").join(release);
    fs::create_dir_all(directory.join("updates"))?;
    // Where depmod looks.
    symlink("usr/lib", root.path().join("lib"))?;
    for module in PACKAGED_MODULES {
        let listed = output_of(
            Command::new("modprobe")
                .arg("--dirname")
                .arg(&packaged)
                .args(["--set-version", release, "--show-depends", module]),
        )?;
        for file in listed
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
        {
            let file = Path::new(file.trim());
            let name = file.file_name().context("modprobe names no file")?;
            fs::copy(file, directory.join(name))?;
        }
    }
    if let Some(driver) = driver {
        fs::copy(driver, directory.join("updates/sysgenid.ko"))?;
    }
    kernel::depmod(root.path(), release)?;
    Ok(root)
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

/// The directory with the selftests of the C library that is installed in `installed`.
pub fn library_selftests(kernel: &Kernel, installed: &Path) -> Result<PathBuf> {
    let installed = installed.display();
    let arguments = [
        format!("KDIR={}", kernel.source.display()),
        format!("PKG_CONFIG_SYSROOT_DIR={installed}"),
        format!("PKG_CONFIG_LIBDIR={installed}/usr/lib/pkgconfig"),
    ];
    made(
        "selftests/libsysgenid",
        "selftests-libsysgenid",
        &arguments.each_ref().map(String::as_str),
    )
    .context("cannot build the selftests of the C library")
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

/// The directory with the tests of OpenSSL's provider, linked with Debian's OpenSSL.
pub fn openssl_tests() -> Result<PathBuf> {
    made("userspace/openssl-provider/tests", "openssl-tests", &[])
        .context("cannot build the tests of OpenSSL's provider")
}

/// The program of the table of clones that draws from the crate rand.
pub fn rust_rand() -> Result<PathBuf> {
    let directory = guest_programs("Documentation/clones/rust")
        .context("cannot build the table's program in Rust")?;
    Ok(directory.join("rust-rand"))
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

/// A directory in which everything is installed as a package would install it. It is this process's
/// own, so that nobody changes what others are reading.
pub fn installed() -> Result<PathBuf> {
    static INSTALLED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(directory) = &*installed {
        return Ok(directory.clone());
    }
    let _lock = cache::lock("installed")?;
    // In the sandbox's own /tmp, which goes with it.
    let directory = tempfile::tempdir()?.keep();
    execute(
        Command::new("make")
            .arg("-C")
            .arg(cache::SOURCE)
            .arg("install")
            .arg("PREFIX=/usr")
            .arg(format!("DESTDIR={}", directory.display()))
            .env("CARGO_TARGET_DIR", userspace_target()?),
        "install",
    )
    .context("cannot build and install user space")?;
    Ok(installed.insert(directory).clone())
}

/// Where cargo builds `userspace/`.
fn userspace_target() -> Result<PathBuf> {
    cache::build_directory("userspace")
}

/// Cargo, for all of `userspace/`, as it is installed: what its packages are made from is built once.
pub fn userspace_cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(arguments)
        .args(["--release", "--locked", "--workspace", "--manifest-path"])
        .arg(Path::new(cache::SOURCE).join("userspace/Cargo.toml"))
        .env("CARGO_TARGET_DIR", userspace_target()?);
    Ok(cargo)
}

/// Cargo, for the lab itself, as `root.sh` builds it.
pub fn tool_cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(arguments)
        .args(["--release", "--locked", "--workspace", "--target", TARGET])
        .arg("--manifest-path")
        .arg(Path::new(cache::SOURCE).join("lab/Cargo.toml"))
        .env("CARGO_TARGET_DIR", cache::build_directory("lab")?)
        .env("RUSTFLAGS", STATIC);
    Ok(cargo)
}

/// What every statically linked program of Rust is built for. With a target, RUSTFLAGS does not reach
/// build scripts and procedural macros, which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What makes it static.
const STATIC: &str = "-C target-feature=+crt-static";

/// Cargo, for the library crate with all its features, and a statically linked program.
fn library_cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(arguments)
        .args([
            "--release",
            "--locked",
            "--all-features",
            "--target",
            TARGET,
        ])
        .args(["--package", "sysgenid", "--manifest-path"])
        .arg(Path::new(cache::SOURCE).join("userspace/Cargo.toml"))
        .env("CARGO_TARGET_DIR", userspace_target()?)
        .env("RUSTFLAGS", STATIC);
    Ok(cargo)
}

/// A program with tests of the library crate.
pub fn library_tests(name: &str) -> Result<PathBuf> {
    let mut cargo = library_cargo(&["test", "--no-run", "--message-format", "json"])?;
    let messages = output_of(cargo.args(["--test", name]))
        .with_context(|| format!("cannot build the library's tests “{name}”"))?;
    let program = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    program.with_context(|| format!("cargo did not say where the tests “{name}” are"))
}

/// An example of the library crate.
pub fn library_example(name: &str) -> Result<PathBuf> {
    let mut cargo = library_cargo(&["build", "--example", name])?;
    execute(&mut cargo, "library-example")
        .with_context(|| format!("cannot build the library's example “{name}”"))?;
    let directory = userspace_target()?.join(TARGET).join("release/examples");
    Ok(directory.join(name))
}

/// The program with all examples in the documentation of the library crate.
///
/// To keep that program, instead of running it, is not a stable feature of rustdoc yet.
pub fn library_doctests() -> Result<PathBuf> {
    let _lock = cache::lock("library-doctests")?;
    let directory = cache::build_directory("library-doctests")?;
    // What is no longer an example must not be there.
    fs::remove_dir_all(&directory)?;
    fs::create_dir(&directory)?;
    let flags = format!(
        "-Z unstable-options --persist-doctests {} --runtool /bin/true {STATIC}",
        directory.display()
    );
    let mut cargo = library_cargo(&["test", "--doc"])?;
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTDOCFLAGS", flags);
    // With it, cargo makes another library of the same name, which must not replace the first.
    cargo
        .arg("--target-dir")
        .arg(cache::build_directory("userspace-doctests")?);
    execute(&mut cargo, "library-doctests").context("cannot build the library's examples")?;
    let mut programs = Vec::new();
    for entry in fs::read_dir(&directory)? {
        programs.push(entry?.path().join("rust_out"));
    }
    match programs.as_slice() {
        [program] => Ok(program.clone()),
        // An example that is not built together with the others has a program of its own.
        _ => bail!("the library's examples are in {} programs", programs.len()),
    }
}

/// The directory with the selftests in Rust, statically linked.
pub fn rust_selftests() -> Result<PathBuf> {
    guest_programs("selftests/rust").context("cannot build the selftests in Rust")
}

/// The selftest of AWS-LC, statically linked.
pub fn awslc_selftest() -> Result<PathBuf> {
    Ok(awslc_programs()?.join("sysgenid-awslc-test"))
}

/// The program of the table of clones that draws from AWS-LC.
pub fn awslc_rand() -> Result<PathBuf> {
    Ok(awslc_programs()?.join("aws_lc_rand"))
}

fn awslc_programs() -> Result<PathBuf> {
    guest_programs("selftests/awslc").context("cannot build the selftest of AWS-LC")
}

/// The directory with the programs of a package in Rust, statically linked.
fn guest_programs(package: &str) -> Result<PathBuf> {
    execute(&mut guest_cargo(package, "build")?, &key_of(package))?;
    Ok(cache::build_directory(&key_of(package))?
        .join(TARGET)
        .join("release"))
}

/// Cargo's verb for a package whose programs run in guests. All verbs share what the package's build
/// scripts have made: compiling AWS-LC takes a minute or more.
pub fn guest_cargo(package: &str, verb: &str) -> Result<Command> {
    let mut command = Command::new("cargo");
    command
        .env("RUSTFLAGS", STATIC)
        .args([verb, "--release", "--locked", "--target", TARGET])
        .arg("--manifest-path")
        .arg(Path::new(cache::SOURCE).join(package).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(cache::build_directory(&key_of(package))?);
    Ok(command)
}

/// What a package's build directory and its logs are called.
fn key_of(package: &str) -> String {
    package.replace('/', "-")
}
