// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built from this checkout: the module, the selftests, the demo's guest program.
//!
//! All of it goes to the cache, in a directory of this checkout's own; the checkout itself is
//! read-only to the lab.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::cache;
use crate::kernel::Kernel;
use crate::step::execute;

/// The module for that kernel.
pub fn module(kernel: &Kernel) -> Result<PathBuf> {
    let name = module_name(kernel);
    let _lock = cache::lock(&name)?;
    let output = cache::build_directory(&name)?;
    execute(&mut module_command(kernel, &output), "module").context("cannot build the module")?;
    Ok(output.join("sysgenid.ko"))
}

/// The module that changes the generation from within the kernel, for the selftests.
pub fn bump_module(kernel: &Kernel) -> Result<PathBuf> {
    module(kernel)?;
    let name = format!("bump-{}", kernel.release);
    let _lock = cache::lock(&name)?;
    let output = cache::build_directory(&name)?;
    let symbols = cache::build_directory(&module_name(kernel))?.join("Module.symvers");
    execute(
        Command::new("make")
            .arg("-C")
            .arg(kernel.tree())
            .arg(format!("M={}/selftests/bump", cache::SOURCE))
            .arg(format!("MO={}", output.display()))
            .arg(format!("KBUILD_EXTRA_SYMBOLS={}", symbols.display()))
            .arg("modules"),
        "bump",
    )
    .context("cannot build the selftests' module")?;
    Ok(output.join("sysgenid_bump.ko"))
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
        .arg(format!("KDIR={}", kernel.tree().display()))
        .arg(format!("MO={}", output.display()));
    command
}

/// The directory with the selftests in C.
pub fn c_selftests(kernel: &Kernel) -> Result<PathBuf> {
    let _lock = cache::lock("selftests-c")?;
    let output = cache::build_directory("selftests-c")?;
    execute(
        Command::new("make")
            .arg("-C")
            .arg(Path::new(cache::SOURCE).join("selftests"))
            .arg(format!("KDIR={}", kernel.tree().display()))
            .arg(format!("OUTPUT={}", output.display()))
            .arg("M32=1"),
        "selftests-c",
    )
    .context("cannot build the selftests in C")?;
    Ok(output)
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

/// The demo's guest program, linked with Debian's OpenSSL.
pub fn demo_guest() -> Result<PathBuf> {
    let _lock = cache::lock("demo")?;
    let output = cache::build_directory("demo")?;
    execute(
        Command::new("make")
            .arg("-C")
            .arg(Path::new(cache::SOURCE).join("demo"))
            .arg(format!("OUTPUT={}", output.display())),
        "demo",
    )
    .context("cannot build the demo's guest program")?;
    Ok(output.join("demo_guest"))
}
