// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's packaged kernels, and object trees that build modules for them.
//!
//! A headers package has no Rust metadata, so a module in Rust cannot be built against it. But
//! the same version's source, with the packaged configuration, the packaged `Module.symvers`
//! and Debian's own compilers, prepared with the packaged kernel's release string, makes
//! modules that the packaged kernel loads.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::Choice;
use super::Kernel;
use super::Module;
use super::Vmgenid;
use super::archive;
use super::archive::Flavour;
use super::archive::Offer;
use crate::cache;
use crate::step;
use crate::step::execute;

/// Options in which a prepared tree may differ from the packaged kernel: how the compiler is
/// called, the build's salt, and keys that only Debian has. None of them reaches a module.
const MAY_DIFFER: [&str; 5] = [
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_BUILD_SALT",
    "CONFIG_MODULE_SIG_ALL",
    "CONFIG_MODULE_SIG_KEY",
    "CONFIG_SYSTEM_TRUSTED_KEYS",
];

/// The packaged kernel of that offer, which `choice` has chosen.
pub fn get(offer: &Offer, choice: Choice) -> Result<Kernel> {
    let source = archive::source(offer)?;
    let directory = cache::made(&place(offer), |directory| {
        step::step(
            &format!("preparing kernel {} (about a minute)", offer.release),
            || prepare(offer, &source, directory),
        )
    })?;
    Ok(Kernel {
        name: choice.to_string(),
        release: offer.release.clone(),
        source,
        tree: directory.join("tree"),
        image: directory.join("vmlinuz"),
        module: Module::External,
        vmgenid: Vmgenid::BuiltIn,
        packaged: Some(offer.clone()),
    })
}

/// Where it is in the cache.
fn place(offer: &Offer) -> String {
    let version = &offer.version;
    match offer.flavour {
        Flavour::Cloud => format!("stock/{version}"),
        Flavour::Rt => format!("stock/{version}-rt"),
    }
}

/// A root directory with all modules of the packaged kernel, for `modprobe --dirname`.
pub fn modules(offer: &Offer) -> Result<PathBuf> {
    let release = &offer.release;
    cache::made(&format!("{}-modules", place(offer)), |directory| {
        step::step(&format!("fetching the modules of kernel {release}"), || {
            // Before the image was split into several packages, it had them.
            let split = format!("linux-modules-{release}");
            let whole = format!("linux-image-{release}");
            let mut packages = offer.packages.iter();
            let package = packages.find(|&name| *name == split).unwrap_or(&whole);
            archive::unpack(offer, std::slice::from_ref(package), directory)?;
            let lib = directory.join("lib");
            if !lib.exists() {
                symlink("usr/lib", lib)?;
            }
            depmod(directory, release)
        })
    })
}

/// Has depmod list the modules below a root directory.
pub fn depmod(root: &Path, release: &str) -> Result<()> {
    execute(
        Command::new("depmod").arg("-b").arg(root).arg(release),
        "depmod",
    )
}

fn prepare(offer: &Offer, source: &Path, directory: &Path) -> Result<()> {
    let unpacked = directory.join("unpacked");
    let source_package = format!("linux-source-{}", offer.series);
    let others: Vec<_> = offer
        .packages
        .iter()
        .filter(|&package| *package != source_package)
        .cloned()
        .collect();
    archive::unpack(offer, &others, &unpacked)?;

    let tree = directory.join("tree");
    fs::create_dir(&tree)?;
    fs::write(
        tree.join(".config"),
        archive::packaged_config(&unpacked, offer)?,
    )?;
    make(source, &tree, offer, &["olddefconfig"])?;
    let packaged = find(&unpacked, offer, "config")?;
    same_configuration(
        &fs::read_to_string(&packaged)?,
        &fs::read_to_string(tree.join(".config"))?,
    )?;
    // Modules get no BTF here: there is no vmlinux that it could refer to. The tool that would make it
    // takes long to build. The configuration stays as it is.
    let targets = ["prepare", "modules_prepare", "CONFIG_DEBUG_INFO_BTF="];
    make(source, &tree, offer, &targets)?;

    let headers = format!("usr/src/linux-headers-{}", offer.release);
    fs::copy(
        unpacked.join(headers).join("Module.symvers"),
        tree.join("Module.symvers"),
    )
    .context("the headers package has no Module.symvers")?;
    // With it, modules_install runs depmod.
    fs::copy(
        find(&unpacked, offer, "System.map")?,
        tree.join("System.map"),
    )?;
    fs::copy(
        find(&unpacked, offer, "vmlinuz")?,
        directory.join("vmlinuz"),
    )?;
    fs::remove_dir_all(&unpacked)?;
    Ok(())
}

/// Makes in the tree what modules are built against. They want metadata of the kernel's crates, and no
/// objects.
fn make(source: &Path, tree: &Path, offer: &Offer, targets: &[&str]) -> Result<()> {
    let rustc = cache::source("lab/rustc-metadata.sh");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    execute(
        Command::new("make")
            .arg("-C")
            .arg(source)
            .arg(format!("O={}", tree.display()))
            .arg(format!("-j{jobs}"))
            .arg(format!("KERNELRELEASE={}", offer.release))
            .arg(format!("RUSTC={}", rustc.display()))
            .args(targets),
        "kernel-prepare",
    )
}

/// Finds a file of the packaged kernel, in either of the places that Debian's packaging uses.
fn find(unpacked: &Path, offer: &Offer, what: &str) -> Result<PathBuf> {
    let release = &offer.release;
    [
        format!("usr/lib/modules/{release}/{what}"),
        format!("boot/{what}-{release}"),
    ]
    .iter()
    .map(|path| unpacked.join(path))
    .find(|path| path.exists())
    .with_context(|| format!("the packages of kernel {release} have no {what}"))
}

/// Refuses a tree whose configuration is not the packaged kernel's: its modules would have
/// other structures than the kernel that loads them.
fn same_configuration(packaged: &str, prepared: &str) -> Result<()> {
    fn options(text: &str) -> BTreeSet<&str> {
        text.lines()
            .filter(|line| line.starts_with("CONFIG_"))
            .filter(|line| {
                let name = line.split('=').next().unwrap_or_default();
                !MAY_DIFFER.contains(&name)
            })
            .collect()
    }
    let (packaged, prepared) = (options(packaged), options(prepared));
    let differences: Vec<_> = packaged.symmetric_difference(&prepared).copied().collect();
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "the toolchain does not reproduce the packaged kernel's configuration; these differ: {}",
        differences.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_may_differ_only_where_it_does_not_matter() {
        let packaged = "CONFIG_A=y\nCONFIG_CC_VERSION_TEXT=\"one\"\n# CONFIG_B is not set\n";
        assert!(
            same_configuration(packaged, "CONFIG_A=y\nCONFIG_CC_VERSION_TEXT=\"two\"\n").is_ok()
        );
        let error = same_configuration(packaged, "CONFIG_A=m\n").expect_err("A differs");
        assert!(error.to_string().contains("CONFIG_A=m"), "{error}");
    }
}
