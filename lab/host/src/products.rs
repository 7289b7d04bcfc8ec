// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built from this checkout: modules, programs, and all that is installed.
//!
//! All of it goes to the cache, in a directory of this checkout's own; the checkout itself is
//! read-only to the lab.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use tempfile::TempDir;

use crate::cache;
use crate::cache::source;
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

/// The same, signed by the key that the kernel was built with.
pub fn signed_module(kernel: &Kernel) -> Result<PathBuf> {
    let module = module(kernel)?.context("the kernel has the driver built in")?;
    let name = format!("{}-signed", module_name(kernel));
    once(&name, || {
        let _whole = kernel.hold()?;
        let sign = kernel.tree.join("scripts/sign-file");
        ensure!(
            sign.exists(),
            "the kernel “{}” knows no signatures",
            kernel.name
        );
        let _lock = cache::lock(&name)?;
        let signed = cache::build_directory(&name)?.join("sysgenid.ko");
        let certificates = kernel.tree.join("certs");
        let mut command = Command::new(sign);
        command
            .arg("sha256")
            .args(["signing_key.pem", "signing_key.x509"].map(|key| certificates.join(key)))
            .arg(module)
            .arg(&signed);
        execute(&mut command, &name)
            .with_context(|| format!("cannot sign the module for {}", kernel.release))?;
        Ok(signed)
    })
}

fn external_module(kernel: &Kernel) -> Result<PathBuf> {
    let name = module_name(kernel);
    once(&name, || {
        let _lock = cache::lock(&name)?;
        let output = cache::build_directory(&name)?;
        execute(&mut module_command(kernel, &output), "module")
            .with_context(|| format!("cannot build the module for {}", kernel.release))?;
        Ok(output.join("sysgenid.ko"))
    })
}

/// Modules of a packaged kernel that a guest with systemd has, if it has the hardware. What they
/// depend on comes along.
const PACKAGED_MODULES: [&str; 3] = ["virtio_net", "vmw_vsock_virtio_transport", "vsock_loopback"];

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

/// What the kernel's build system makes in a directory of the checkout that has a module.
pub fn kbuild(directory: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let place = cache::shown_in_source(directory);
    let name = format!("{}-{}", key_of(&place), kernel.name);
    once(&name, || {
        let _whole = kernel.hold()?;
        let _lock = cache::lock(&name)?;
        let output = cache::build_directory(&name)?;
        let mut make = kernel.make();
        make.arg(format!("M={}", directory.display()))
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
        execute(&mut make, &name).with_context(|| format!("cannot build the module in {place}"))?;
        Ok(output)
    })
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

/// What `make` makes in a directory of the checkout, for which it has a directory of its own. With
/// `installed`, it finds the libraries that are installed there.
pub fn made(directory: &Path, kernel: &Kernel, installed: Option<&Path>) -> Result<PathBuf> {
    let place = cache::shown_in_source(directory);
    let name = format!("made-{}-{}", key_of(&place), kernel.name);
    once(&name, || {
        let _lock = cache::lock(&name)?;
        let output = cache::build_directory(&name)?;
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(directory)
            .arg(format!("OUTPUT={}", output.display()))
            .arg(format!("KDIR={}", kernel.source.display()))
            // The selftests have programs of 32 bits, too.
            .arg("M32=1");
        if let Some(installed) = installed {
            let installed = installed.display();
            make.arg(format!("PKG_CONFIG_SYSROOT_DIR={installed}"))
                .arg(format!(
                    "PKG_CONFIG_LIBDIR={installed}/usr/lib/x86_64-linux-gnu/pkgconfig"
                ));
        }
        execute(&mut make, &name).with_context(|| format!("make -C {place}"))?;
        Ok(output)
    })
}

/// The demo's guest program, linked with Debian's OpenSSL.
pub fn demo_guest(kernel: &Kernel) -> Result<PathBuf> {
    Ok(made(&source("demo"), kernel, None)?.join("demo_guest"))
}

/// A program that measures.
pub fn bench(kernel: &Kernel, name: &str) -> Result<PathBuf> {
    Ok(made(&source("bench"), kernel, None)?.join(name))
}

/// A directory in which everything is installed as a package would install it. It is this process's
/// own, so that nobody changes what others are reading.
pub fn installed() -> Result<PathBuf> {
    once("installed", || {
        let _lock = cache::lock("installed")?;
        // In the sandbox's own /tmp, which goes with it.
        let directory = tempfile::tempdir()?.keep();
        for verb in ["userspace", "install"] {
            execute(
                Command::new("make")
                    .arg("-C")
                    .arg(cache::SOURCE)
                    .arg(verb)
                    .arg("PREFIX=/usr")
                    .arg(format!("DESTDIR={}", directory.display()))
                    .env("CARGO_TARGET_DIR", target()?),
                verb,
            )
            .with_context(|| format!("make {verb}"))?;
        }
        Ok(directory)
    })
}

/// Where cargo builds all that is in the workspace.
fn target() -> Result<PathBuf> {
    cache::build_directory("cargo")
}

/// What every statically linked program of Rust is built for. With a target, RUSTFLAGS does not reach
/// build scripts and procedural macros, which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What makes it static.
const STATIC: &str = "-C target-feature=+crt-static";

/// The profile of all that is not installed.
const PROFILE: &str = "quick";

/// Cargo's verb for packages of the workspace, in the way in which everything is built that is not
/// installed: so what they have in common is compiled once.
pub fn cargo(verb: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(verb)
        .args(["--locked", "--profile", PROFILE, "--target", TARGET])
        .arg("--manifest-path")
        .arg(source("Cargo.toml"))
        .arg("--target-dir")
        .arg(target()?)
        .env("RUSTFLAGS", STATIC)
        .env("RUSTDOCFLAGS", STATIC);
    Ok(cargo)
}

/// A program of a package.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    once(&format!("program {package}/{name}"), || {
        let mut cargo = cargo(&["build", "--package", package, "--bin", name])?;
        execute(&mut cargo, &key_of(package))
            .with_context(|| format!("cannot build the program “{name}” of {package}"))?;
        Ok(target()?.join(TARGET).join(PROFILE).join(name))
    })
}

/// An example of a package.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    once(&format!("example {package}/{name}"), || {
        let mut cargo = cargo(&["build", "--package", package, "--example", name])?;
        execute(cargo.arg("--all-features"), &key_of(package))
            .with_context(|| format!("cannot build the example “{name}” of {package}"))?;
        let directory = target()?.join(TARGET).join(PROFILE);
        Ok(directory.join("examples").join(name))
    })
}

/// The same, with those features, as whoever uses the package would build it.
pub fn released_example(package: &str, name: &str, features: &[&str]) -> Result<PathBuf> {
    once(&format!("released example {package}/{name}"), || {
        let mut cargo = Command::new("cargo");
        cargo
            .args(["build", "--release", "--locked"])
            .args(["--package", package, "--example", name])
            .args(["--features", &features.join(",")])
            .arg("--manifest-path")
            .arg(source("Cargo.toml"))
            .arg("--target-dir")
            .arg(target()?);
        execute(&mut cargo, &key_of(package))
            .with_context(|| format!("cannot build the example “{name}” of {package}"))?;
        Ok(target()?.join("release/examples").join(name))
    })
}

/// A program with tests of a package.
pub fn tests(package: &str, name: &str) -> Result<PathBuf> {
    once(&format!("tests {package}/{name}"), || {
        let mut cargo = cargo(&["test", "--no-run", "--package", package, "--test", name])?;
        let messages = output_of(cargo.args(["--all-features", "--message-format", "json"]))
            .with_context(|| format!("cannot build the tests “{name}” of {package}"))?;
        let program = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        });
        program.with_context(|| format!("cargo did not say where the tests “{name}” are"))
    })
}

/// The program with all examples in the documentation of a package.
///
/// To keep that program, instead of running it, is not a stable feature of rustdoc yet.
pub fn doctests(package: &str) -> Result<PathBuf> {
    once(&format!("doctests {package}"), || {
        let name = format!("doctests-{}", key_of(package));
        let _lock = cache::lock(&name)?;
        let directory = cache::build_directory(&name)?;
        // What is no longer an example must not be there.
        fs::remove_dir_all(&directory)?;
        fs::create_dir(&directory)?;
        let help = output_of(Command::new("rustdoc").arg("--help"))?;
        // The name of newer ones, and of older ones.
        let runs = ["--test-runtool", "--runtool"]
            .into_iter()
            .find(|option| help.contains(option))
            .context("rustdoc has no option for what runs examples")?;
        let flags = format!(
            "-Z unstable-options --persist-doctests {} {runs} /bin/true {STATIC}",
            directory.display()
        );
        let mut cargo = cargo(&["test", "--doc", "--package", package, "--all-features"])?;
        // Only rustdoc is told, so that the library is the one that the tests have as well.
        cargo.env("RUSTDOC", "/src/lab/rustdoc-unstable.sh");
        cargo.env("RUSTDOCFLAGS", flags);
        execute(&mut cargo, &name)
            .with_context(|| format!("cannot build the examples of {package}"))?;
        let mut programs = Vec::new();
        for entry in fs::read_dir(&directory)? {
            programs.push(entry?.path().join("rust_out"));
        }
        match programs.as_slice() {
            [program] => Ok(program.clone()),
            // An example that is not built together with the others has a program of its own.
            _ => bail!(
                "the examples of {package} are in {} programs",
                programs.len()
            ),
        }
    })
}

/// What is called by that name, made at most once in this process: nothing changes meanwhile.
pub fn once(name: &str, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    type Slot = Arc<Mutex<Option<PathBuf>>>;
    static SLOTS: Mutex<BTreeMap<String, Slot>> = Mutex::new(BTreeMap::new());
    let slot = {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(name.to_owned()).or_default())
    };
    // Whoever else wants it waits, and nobody waits for something else.
    let mut filled = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*filled {
        return Ok(path.clone());
    }
    Ok(filled.insert(make()?).clone())
}

/// What a directory for what is built, and a log, are called.
fn key_of(place: &str) -> String {
    place.replace('/', "-")
}
