// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab packages`: Debian's packages of this checkout, and those of one kernel.
//!
//! `packaging/README.md` tells what they are. The scripts there do the work; here is known what has
//! been built before.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::cache;
use crate::cache::source;
use crate::kernel;
use crate::kernel::Kernel;
use crate::products;
use crate::step;
use crate::step::execute;
use crate::step::output_of;

/// Builds the packages, and those of these kernels; puts them into a directory, and prints where
/// each one is.
pub fn run(kernels: &[String], output: &Path) -> Result<()> {
    let mut built = vec![general()?];
    for name in kernels {
        built.push(of_kernel(&kernel::named(name)?)?);
    }
    fs::create_dir_all(output)
        .with_context(|| format!("cannot make the directory {}", cache::shown(output)))?;
    for directory in built {
        for package in packages_in(&directory)? {
            let name = package.file_name().context("a package has a name")?;
            let copy = output.join(name);
            fs::copy(&package, &copy)
                .with_context(|| format!("cannot write {}", cache::shown(&copy)))?;
            println!("{}", cache::shown(&copy));
        }
    }
    Ok(())
}

/// The directory with all packages that belong to no kernel.
pub fn general() -> Result<PathBuf> {
    products::once("packages", make_general)
}

/// The directory with the packages that belong to that kernel.
pub fn of_kernel(kernel: &Kernel) -> Result<PathBuf> {
    products::once(&format!("packages {}", kernel.release), || make_of(kernel))
}

fn make_general() -> Result<PathBuf> {
    let _lock = cache::lock("packages")?;
    let work = cache::build_directory("packages")?;
    let tree = work.join("sysgenid");
    cache::empty(&work)?;
    execute(
        Command::new(source("packaging/source.sh")).arg(&tree),
        "packages-source",
    )?;
    // What the tree has is all that the packages are made from, but for the tools of the root.
    let made = cache::made(&format!("packages/{}", key(&tree)?), |directory| {
        step::step("building the packages (some minutes)", || {
            execute(
                Command::new(source("packaging/vendor.sh")).arg(&tree),
                "packages-crates",
            )
            .context("cannot get the crates that the packages are built from")?;
            build(&tree, directory, "packages").context("cannot build the packages")
        })
    })?;
    cache::empty(&work)?;
    Ok(made)
}

fn make_of(kernel: &Kernel) -> Result<PathBuf> {
    let (version, headers) = kernel.package()?;
    let module = products::module(kernel)?.context("a packaged kernel has no driver of its own")?;
    let _lock = cache::lock("packages-kernel")?;
    let work = cache::build_directory("packages-kernel")?;
    cache::empty(&work)?;
    let tree = work.join("tree");
    let mut script = Command::new(source("packaging/kernel-source.sh"));
    script
        .arg(&tree)
        .args([&kernel.release, version])
        .arg(&headers)
        .arg(&kernel.tree)
        .arg(&module);
    execute(&mut script, "packages-kernel-source")?;
    let made = cache::made(&format!("packages/{}", key(&tree)?), |directory| {
        let what = format!("building the packages for kernel {}", kernel.release);
        step::step(&what, || {
            build(&tree, directory, "packages-kernel")
                .with_context(|| format!("cannot build the packages for {}", kernel.release))
        })
    })?;
    cache::empty(&work)?;
    Ok(made)
}

/// Builds the packages of a source tree.
fn build(tree: &Path, output: &Path, log: &str) -> Result<()> {
    let mut script = Command::new(source("packaging/build.sh"));
    execute(script.arg(tree).arg(output), log)
}

/// The packages that lie in a directory.
fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory)? {
        packages.push(entry?.path());
    }
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    ensure!(
        !packages.is_empty(),
        "there is no package in {}",
        cache::shown(directory)
    );
    Ok(packages)
}

/// A key for what is in a tree, and for the tools.
fn key(tree: &Path) -> Result<String> {
    let root = env::var("LAB_ROOT_KEY").context("the lab's tool is started by lab/lab")?;
    // The names, the modes and the contents, in an order that depends on nothing else.
    let script = "find . ! -type d -printf '%M %p %l\\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let content = output_of(Command::new("sh").args(["-c", script]).current_dir(tree))?;
    Ok(cache::key(&[&root, &content]))
}
