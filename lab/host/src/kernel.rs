// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's packaged kernels, and source trees that build modules for them.
//!
//! A headers package has no Rust metadata, so a module in Rust cannot be built against it. But
//! the same version's source, with the packaged configuration, the packaged `Module.symvers`
//! and Debian's own compilers, prepared with the packaged kernel's release string, makes
//! modules that the packaged kernel loads.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

use crate::cache;
use crate::step;
use crate::step::execute;
use crate::step::output_of;

/// The flavour of the packaged kernel, and of its configuration.
const FLAVOUR: &str = "cloud-amd64";
const CONFIG: &str = "config.amd64_none_cloud-amd64.xz";

/// Options in which a prepared tree may differ from the packaged kernel: how the compiler is
/// called, the build's salt, and keys that only Debian has. None of them reaches a module.
const MAY_DIFFER: [&str; 5] = [
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_BUILD_SALT",
    "CONFIG_MODULE_SIG_ALL",
    "CONFIG_MODULE_SIG_KEY",
    "CONFIG_SYSTEM_TRUSTED_KEYS",
];

/// A kernel series, such as 7.3.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Series(u32, u32);

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            Some(Self(major.parse().ok()?, minor.parse().ok()?))
        };
        parse().with_context(|| format!("“{text}” is no kernel series such as 7.3"))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Which kernel a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest packaged series that is built with Rust.
    Stock,
    /// That packaged series.
    Series(Series),
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stock" => Ok(Self::Stock),
            other => other
                .parse()
                .map(Self::Series)
                .map_err(|error| anyhow!("{error}; “stock” is the newest one with Rust")),
        }
    }
}

/// A packaged kernel, ready to be booted and to have modules built for it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` shows it.
    pub release: String,
    directory: PathBuf,
}

impl Kernel {
    /// The image to boot.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The tree to build modules against.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }
}

/// One series as the archive offers it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Offer {
    series: Series,
    version: String,
    release: String,
    packages: Vec<String>,
}

/// Returns the kernel that was asked for, fetched and prepared when the cache has none.
pub fn get(choice: Choice) -> Result<Kernel> {
    let offers = offers(false)?;
    let offer = match choice {
        Choice::Series(series) => {
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
            if !has_rust(offer)? {
                bail!(
                    "kernel {series} is built without CONFIG_RUST: modules in Rust cannot be loaded into it"
                );
            }
            offer
        }
        Choice::Stock => newest_with_rust(&offers)?,
    };
    let directory = cache::made(&format!("kernels/{}", offer.version), |directory| {
        step::step(
            &format!("preparing kernel {} (about two minutes)", offer.release),
            || prepare(offer, directory),
        )
    })?;
    Ok(Kernel {
        release: offer.release.clone(),
        directory,
    })
}

/// Looks at the archive again, and returns what its newest kernel with Rust is.
pub fn update() -> Result<String> {
    let offers = offers(true)?;
    Ok(newest_with_rust(&offers)?.release.clone())
}

fn newest_with_rust(offers: &[Offer]) -> Result<&Offer> {
    for offer in offers.iter().rev() {
        if has_rust(offer)? {
            return Ok(offer);
        }
    }
    bail!("no kernel in the archive is built with CONFIG_RUST")
}

/// An apt that writes to the cache only, and knows the backports archive only.
fn apt(program: &str) -> Result<Command> {
    let state = cache::directory("apt")?;
    for directory in ["lists/partial", "archives/partial"] {
        cache::directory(&format!("apt/{directory}"))?;
    }
    let sources = fs::read_to_string("/etc/apt/sources.list").context("no apt sources")?;
    let backports: String = sources
        .lines()
        .filter(|line| line.contains("-backports "))
        .fold(String::new(), |all, line| all + line + "\n");
    fs::write(state.join("sources.list"), backports)?;
    let state = state.display();
    let mut command = Command::new(program);
    for option in [
        format!("Dir::State={state}"),
        "Dir::State::status=/var/lib/dpkg/status".into(),
        format!("Dir::Cache={state}"),
        format!("Dir::Etc::SourceList={state}/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".into(),
        "APT::Sandbox::User=root".into(),
        "Acquire::Retries=3".into(),
    ] {
        command.arg("-o").arg(option);
    }
    Ok(command)
}

/// The series that the archive offers with sources, oldest first.
fn offers(look_again: bool) -> Result<Vec<Offer>> {
    let path = cache::directory("apt")?.join("offers.json");
    if !look_again && path.exists() {
        if let Ok(offers) = serde_json::from_slice(&fs::read(&path)?) {
            return Ok(offers);
        }
    }
    let _lock = cache::lock("apt")?;
    step::step("asking the archive for its kernels", || {
        execute(
            apt("apt-get")?
                .arg("update")
                .arg("-qq")
                .arg("--error-on=any"),
            "apt-update",
        )
    })
    .context("cannot look for kernels")?;
    let available = output_of(apt("apt-cache")?.arg("dumpavail"))?;
    let offers = parse_offers(&available);
    if offers.is_empty() {
        bail!("the archive has no kernel of the flavour {FLAVOUR} with its sources");
    }
    let mut file = tempfile::NamedTempFile::new_in(cache::directory("apt")?)?;
    serde_json::to_writer_pretty(&mut file, &offers)?;
    file.persist(&path)?;
    Ok(offers)
}

/// Finds in the archive's index what belongs together: source, configuration, headers and
/// image of one version.
fn parse_offers(index: &str) -> Vec<Offer> {
    // (package, version) to what it depends on; several versions of a package are normal.
    let mut known: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for stanza in index.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        if let (Some(package), Some(version)) = (field("Package"), field("Version")) {
            if package.starts_with("linux-") {
                known.insert((package, version), field("Depends").unwrap_or_default());
            }
        }
    }
    let mut offers: Vec<Offer> = Vec::new();
    for (source, version) in known.keys() {
        let Some(series) = source
            .strip_prefix("linux-source-")
            .and_then(|series| series.parse::<Series>().ok())
        else {
            continue;
        };
        let Some((image, depends)) = known.iter().find_map(|((package, of), depends)| {
            (of == version && package.starts_with("linux-image-") && package.ends_with(FLAVOUR))
                .then_some((*package, *depends))
                .filter(|(package, _)| package.starts_with(&format!("linux-image-{series}.")))
        }) else {
            continue;
        };
        let release = image.trim_start_matches("linux-image-").to_owned();
        let mut packages = vec![
            (*source).to_owned(),
            format!("linux-config-{series}"),
            format!("linux-headers-{release}"),
            image.to_owned(),
        ];
        // A newer packaging splits the image into packages that carry the same release.
        packages.extend(
            depends
                .split([',', '|'])
                .filter_map(|dependency| dependency.split_whitespace().next())
                .filter(|package| package.ends_with(&release))
                .map(str::to_owned),
        );
        if packages
            .iter()
            .all(|package| known.contains_key(&(package.as_str(), version)))
        {
            offers.push(Offer {
                series,
                version: (*version).to_owned(),
                release,
                packages,
            });
        }
    }
    offers.sort_by_key(|offer| offer.series);
    offers
}

/// Fetches packages of the offer and unpacks them.
fn unpack(offer: &Offer, packages: &[String], into: &Path) -> Result<()> {
    let _lock = cache::lock("apt")?;
    fs::create_dir_all(into)?;
    let mut download = apt("apt-get")?;
    download.arg("download").arg("-qq").current_dir(into);
    for package in packages {
        download.arg(format!("{package}={}", offer.version));
    }
    execute(&mut download, "apt-download").context("cannot fetch the kernel's packages")?;
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            execute(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(&path)
                    .arg(into),
                "dpkg-deb",
            )?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether the offered kernel is built with Rust, by its configuration package.
fn has_rust(offer: &Offer) -> Result<bool> {
    let package = format!("linux-config-{}", offer.series);
    let directory = cache::made(&format!("configs/{}", offer.version), |directory| {
        unpack(offer, &[package], directory)
    })?;
    let config = packaged_config(&directory, offer)?;
    Ok(config.lines().any(|line| line == "CONFIG_RUST=y"))
}

fn packaged_config(unpacked: &Path, offer: &Offer) -> Result<String> {
    let path = unpacked.join(format!("usr/src/linux-config-{}/{CONFIG}", offer.series));
    output_of(Command::new("xz").arg("-dc").arg(&path))
        .with_context(|| format!("no configuration {CONFIG}"))
}

fn prepare(offer: &Offer, directory: &Path) -> Result<()> {
    const NEEDED: u64 = 5 << 30;
    if cache::free_space()? < NEEDED {
        bail!(
            "less than 5 GB are free for the cache; make room, or let SYSGENID_CACHE name another place"
        );
    }
    let unpacked = directory.join("unpacked");
    unpack(offer, &offer.packages, &unpacked)?;

    let tree = directory.join("tree");
    fs::create_dir(&tree)?;
    let source = format!("usr/src/linux-source-{}.tar.xz", offer.series);
    execute(
        Command::new("tar")
            .args(["--strip-components=1", "--no-same-owner"])
            .arg("-C")
            .arg(&tree)
            .arg("-xf")
            .arg(unpacked.join(source)),
        "kernel-unpack",
    )?;
    fs::write(tree.join(".config"), packaged_config(&unpacked, offer)?)?;
    make(&tree, offer, &["olddefconfig"])?;
    let packaged = find(&unpacked, offer, "config")?;
    same_configuration(
        &fs::read_to_string(&packaged)?,
        &fs::read_to_string(tree.join(".config"))?,
    )?;
    make(&tree, offer, &["prepare", "modules_prepare"])?;

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

fn make(tree: &Path, offer: &Offer, targets: &[&str]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    execute(
        Command::new("make")
            .arg("-C")
            .arg(tree)
            .arg(format!("-j{jobs}"))
            .arg(format!("KERNELRELEASE={}", offer.release))
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

    const INDEX: &str = "\
Package: linux-source-7.3
Version: 7.3.4-1~bpo13+1

Package: linux-config-7.3
Version: 7.3.4-1~bpo13+1

Package: linux-headers-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1

Package: linux-binary-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | initramfs-tools (>= 0.120), linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)

Package: linux-image-7.3.4+deb13-cloud-amd64-dbg
Version: 7.3.4-1~bpo13+1

Package: linux-source-7.2
Version: 7.2.12-1~bpo13+1

Package: linux-image-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1~bpo13+1
";

    #[test]
    fn an_offer_is_one_version_throughout() {
        let offers = parse_offers(INDEX);
        assert_eq!(
            offers.len(),
            1,
            "7.2 has sources and no image of their version"
        );
        assert_eq!(offers[0].series, Series(7, 3));
        assert_eq!(offers[0].release, "7.3.4+deb13-cloud-amd64");
        assert!(
            offers[0]
                .packages
                .contains(&"linux-binary-7.3.4+deb13-cloud-amd64".to_owned())
        );
    }

    #[test]
    fn series_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<Series>().expect("a series");
        assert!(parse("7.10") > parse("7.9"));
        assert!("7".parse::<Series>().is_err());
    }

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
