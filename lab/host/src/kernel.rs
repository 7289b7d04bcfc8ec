// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernels that guests run: Debian's packaged ones, and ours that catch mistakes.

mod archive;
mod debug;
mod stock;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;

use self::archive::Flavour;
use self::archive::Offer;
use crate::cache;

pub use self::archive::Series;
pub use self::debug::Build;
pub use self::debug::Variant;
pub use self::stock::depmod;

/// Which kernel a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// The newest packaged series that is built with Rust.
    Stock,
    /// The same one, as it is packaged for real time.
    Rt,
    /// That packaged series.
    Series(Series),
    /// One that the lab builds, of the newest series, with the driver in its tree.
    Debug(Variant),
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "stock" {
            return Ok(Self::Stock);
        }
        if text == "rt" {
            return Ok(Self::Rt);
        }
        if let Some(variant) = Variant::named(text) {
            return Ok(Self::Debug(variant));
        }
        text.parse().map(Self::Series).map_err(|error| {
            anyhow!("{error}; “stock” is the newest one with Rust, “rt” is that one with PREEMPT_RT, and the lab builds debug, debug-builtin and kcsan")
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stock => f.write_str("stock"),
            Self::Rt => f.write_str("rt"),
            Self::Series(series) => series.fmt(f),
            Self::Debug(variant) => variant.fmt(f),
        }
    }
}

/// Where the module of a kernel comes from.
#[derive(Clone, Debug)]
pub enum Module {
    /// It is built out of tree.
    External,
    /// It was built with the kernel, and lies there.
    InTree(PathBuf),
    /// It is a part of the kernel.
    BuiltIn,
}

/// What has become of the kernel's own `VMGenID` driver.
#[derive(Clone, Debug)]
pub enum Vmgenid {
    /// It is a part of the kernel, and holds the device.
    BuiltIn,
    /// It is a module, and lies there. Nobody loads it unasked.
    Module(PathBuf),
    /// There is none.
    Absent,
}

/// A kernel, ready to be booted and to have modules built for it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What --kernel calls it.
    pub name: String,
    /// As `uname -r` shows it.
    pub release: String,
    /// Its source, in which nothing is built.
    pub source: PathBuf,
    /// The object tree, to build modules against.
    pub tree: PathBuf,
    /// The image to boot.
    pub image: PathBuf,
    /// Where the driver is.
    pub module: Module,
    /// Where the other one is.
    pub vmgenid: Vmgenid,
    /// What it is in the archive, if Debian has built it.
    packaged: Option<Offer>,
}

impl Kernel {
    /// Whether it is one of those that the lab builds.
    pub fn is_debug(&self) -> bool {
        !matches!(self.module, Module::External)
    }

    /// A root directory with the modules of a packaged kernel, none of them ours.
    pub fn modules(&self) -> Result<PathBuf> {
        let offer = self.packaged.as_ref().with_context(|| {
            format!(
                "the kernel “{}” has not what systemd needs; --systemd wants a packaged one (stock, or a series)",
                self.name
            )
        })?;
        stock::modules(offer)
    }

    /// What packages for this kernel are made from, if Debian has built it: the version of its packages,
    /// and a root directory with its headers.
    pub fn package(&self) -> Result<(&str, PathBuf)> {
        let offer = self.packaged.as_ref().with_context(|| {
            format!(
                "the kernel “{}” is not one of Debian's: there is nothing to package for it",
                self.name
            )
        })?;
        Ok((&offer.version, stock::headers(offer)?))
    }

    /// A module of the kernel itself, which nobody loads unasked.
    pub fn own_module(&self, name: &str) -> Result<PathBuf> {
        match &self.vmgenid {
            Vmgenid::Module(path) if path.ends_with(name) => Ok(path.clone()),
            _ => bail!("the kernel “{}” has no module {name}", self.name),
        }
    }

    /// A `make` in the object tree, with the compiler that this kernel was built with.
    pub fn make(&self) -> Command {
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.tree);
        if self.is_debug() {
            make.arg("LLVM=1")
                // It was built elsewhere, and remembers that.
                .arg(format!("KBUILD_OUTPUT={}", self.tree.display()));
        }
        make
    }

    /// Keeps the object tree as it is, for as long as the result lives.
    pub fn hold(&self) -> Result<Option<cache::Lock>> {
        self.is_debug().then(debug::hold).transpose()
    }
}

/// Returns the kernel that was asked for, fetched and built when the cache has none.
pub fn get(choice: Choice) -> Result<Kernel> {
    match choice {
        Choice::Stock => stock::get(&newest(false)?, choice),
        Choice::Rt => {
            let version = newest(false)?.version;
            let offers = archive::offers(false)?;
            let mut offers = offers.iter().filter(|offer| offer.flavour == Flavour::Rt);
            let offer = offers
                .find(|offer| offer.version == version)
                .with_context(|| format!("the archive has no kernel {version} with PREEMPT_RT"))?;
            packaged(offer, choice)
        }
        Choice::Debug(variant) => build(variant).map(|build| build.kernel),
        Choice::Series(series) => {
            let mut offers = archive::offers(false)?;
            offers.retain(|offer| offer.flavour == Flavour::Cloud);
            let offer = offers
                .iter()
                .find(|offer| offer.series == series)
                .with_context(|| {
                    let known: Vec<_> = offers.iter().map(|o| o.series.to_string()).collect();
                    format!(
                        "the archive has no sources for kernel {series}; it has {} (lab update looks again)",
                        known.join(", ")
                    )
                })?;
            packaged(offer, choice)
        }
    }
}

/// Returns the packaged kernel that has this release, or that `--kernel` would call so.
pub fn named(name: &str) -> Result<Kernel> {
    if let Ok(choice) = name.parse() {
        return get(choice);
    }
    let offers = archive::offers(false)?;
    let offer = offers.iter().find(|offer| offer.release == name);
    let offer = offer.with_context(|| {
        let known: Vec<_> = offers.iter().map(|offer| offer.release.as_str()).collect();
        format!(
            "the archive has no kernel {name}; it has {} (lab update looks again)",
            known.join(", ")
        )
    })?;
    packaged(offer, Choice::Series(offer.series))
}

/// Returns the packaged kernel of that offer, if our module can be loaded into it.
fn packaged(offer: &Offer, choice: Choice) -> Result<Kernel> {
    if !archive::has_rust(offer)? {
        bail!(
            "kernel {} is built without CONFIG_RUST: modules in Rust cannot be loaded into it",
            offer.release
        );
    }
    stock::get(offer, choice)
}

/// Returns a kernel that the lab builds, and how that went.
pub fn build(variant: Variant) -> Result<Build> {
    debug::get(&newest(false)?, variant)
}

/// Has make make `target` in a kernel that the lab builds; returns what it says.
pub fn make(variant: Variant, target: &str) -> Result<String> {
    debug::make(&newest(false)?, variant, target)
}

/// Has the kernel's build system write the documentation of that kernel's Rust code.
pub fn document(variant: Variant) -> Result<()> {
    debug::document(&newest(false)?, variant)
}

/// Looks at the archive again, and returns what its newest kernel with Rust is.
pub fn update() -> Result<String> {
    Ok(newest(true)?.release)
}

/// All series of the suite that are built with Rust.
pub fn all_series() -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for offer in archive::offers(false)? {
        if offer.flavour == Flavour::Cloud && archive::has_rust(&offer)? {
            all.push(offer.series);
        }
    }
    Ok(all)
}

/// The newest kernel that is built with Rust.
fn newest(look_again: bool) -> Result<Offer> {
    for offer in archive::offers(look_again)?.into_iter().rev() {
        if offer.flavour == Flavour::Cloud && archive::has_rust(&offer)? {
            return Ok(offer);
        }
    }
    bail!("no kernel in the archive is built with CONFIG_RUST")
}
