// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's packaged kernels, and object trees that build modules for them.
//!
//! A headers package has no Rust metadata, so a module in Rust cannot be built against it. But
//! the same version's source, with the packaged configuration, the packaged `Module.symvers`
//! and Debian's own compilers, prepared with the packaged kernel's release string, makes
//! modules that the packaged kernel loads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

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

/// The packaged kernel of that offer, which `choice` has chosen.
pub fn get(offer: &Offer, choice: Choice) -> Result<Kernel> {
    let source = archive::source(offer)?;
    let scripts = ["prepare-kernel.sh", "rustc-metadata.sh"]
        .map(|name| fs::read_to_string(cache::source("scripts").join(name)));
    let [prepare_kernel, rustc] = scripts;
    let key = cache::key(&[&prepare_kernel?, &rustc?]);
    let directory = cache::made(&format!("{}-{key}", place(offer)), |directory| {
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

/// A root directory with the headers package of the kernel, and with what that one refers to for its
/// scripts. Nothing can be built there: the compiler would look for it below `/usr/src`.
pub fn headers(offer: &Offer) -> Result<PathBuf> {
    cache::made(&format!("{}-headers", place(offer)), |directory| {
        let release = &offer.release;
        // All flavours have the scripts of one package.
        let common = release.strip_suffix(offer.flavour.name());
        let common = common.and_then(|release| release.strip_suffix('-'));
        let common = common.with_context(|| format!("{release} is of no flavour that is known"))?;
        let packages = [
            format!("linux-headers-{release}"),
            format!("linux-kbuild-{common}"),
        ];
        archive::unpack(offer, &packages, directory)
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
    let config = directory.join("config");
    fs::write(&config, archive::packaged_config(&unpacked, offer)?)?;
    execute(
        Command::new(cache::source("scripts/prepare-kernel.sh"))
            .arg(source)
            .arg(&config)
            .arg(&offer.release)
            .arg(&tree),
        "kernel-prepare",
    )?;

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
