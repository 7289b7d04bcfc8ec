// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's archive: which kernels it has, and their packages.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

use crate::apt;
use crate::apt::Apt;
use crate::cache;
use crate::step;
use crate::step::execute;
use crate::step::output_of;

/// What a kernel's source and its objects may need, in bytes.
const NEEDED: u64 = 5 << 30;

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

/// For what Debian has configured a kernel.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Flavour {
    /// For virtual machines.
    Cloud,
    /// For real time: with `PREEMPT_RT`, in which most locks are mutexes, and most interrupts threads.
    Rt,
}

impl Flavour {
    const ALL: [Self; 2] = [Self::Cloud, Self::Rt];

    /// What packages and releases of it end with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud-amd64",
            Self::Rt => "rt-amd64",
        }
    }
}

/// One series as the archive offers it, in one flavour.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// The series.
    pub series: Series,
    /// The flavour.
    pub flavour: Flavour,
    /// The packages' version.
    pub version: String,
    /// The kernel's release.
    pub release: String,
    /// The packages that make up the kernel.
    pub packages: Vec<String>,
}

/// What keeps its state, for that suite.
fn state() -> Result<String> {
    let suite = apt::suite()?;
    Ok(if suite == "trixie" {
        "apt".into()
    } else {
        format!("apt-{suite}")
    })
}

/// An apt that knows one archive only, the one which has the kernels: a stable suite's backports.
fn apt() -> Result<Apt> {
    let archive = match apt::suite()?.as_str() {
        "unstable" => " unstable ".into(),
        stable => format!(" {stable}-backports "),
    };
    let wanted = |line: &str| line.contains(&archive).then(|| line.to_owned());
    Apt::new(&state()?, wanted, Path::new("/var/lib/dpkg/status"))
}

/// What the archive offers with sources, the oldest series first.
pub fn offers(look_again: bool) -> Result<Vec<Offer>> {
    let state = state()?;
    let path = cache::directory(&state)?.join("flavoured-offers.json");
    if !look_again && path.exists() {
        if let Ok(offers) = serde_json::from_slice(&fs::read(&path)?) {
            return Ok(offers);
        }
    }
    let _lock = cache::lock("apt")?;
    let apt = apt()?;
    step::step("asking the archive for its kernels", || apt.update())
        .context("cannot look for kernels")?;
    let available = output_of(apt.command("apt-cache").arg("dumpavail"))?;
    let offers = parse_offers(&available);
    if offers.is_empty() {
        bail!("the archive has no kernel with its sources");
    }
    let mut file = tempfile::NamedTempFile::new_in(cache::directory(&state)?)?;
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
        for flavour in Flavour::ALL {
            let Some((image, depends)) = known.iter().find_map(|((package, of), depends)| {
                (of == version && package.ends_with(flavour.name()))
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
                    flavour,
                    version: (*version).to_owned(),
                    release,
                    packages,
                });
            }
        }
    }
    offers.sort_by_key(|offer| offer.series);
    offers
}

/// Fetches packages of the offer and unpacks them.
pub fn unpack(offer: &Offer, packages: &[String], into: &Path) -> Result<()> {
    let _lock = cache::lock("apt")?;
    fs::create_dir_all(into)?;
    let mut download = apt()?.command("apt-get");
    download.arg("download").arg("-qq").current_dir(into);
    for package in packages {
        download.arg(format!("{package}={}", offer.version));
    }
    execute(&mut download, "apt-download").context("cannot fetch the kernel's packages")?;
    apt::unpack_all(into, into)
}

/// Whether the offered kernel is built with Rust, by its configuration package.
pub fn has_rust(offer: &Offer) -> Result<bool> {
    let package = format!("linux-config-{}", offer.series);
    let directory = cache::made(&format!("configs/{}", offer.version), |directory| {
        unpack(offer, &[package], directory)
    })?;
    let config = packaged_config(&directory, offer)?;
    Ok(config.lines().any(|line| line == "CONFIG_RUST=y"))
}

/// The packaged kernel's configuration, out of the unpacked configuration package.
pub fn packaged_config(unpacked: &Path, offer: &Offer) -> Result<String> {
    let config = format!("config.amd64_none_{}.xz", offer.flavour.name());
    let path = unpacked.join(format!("usr/src/linux-config-{}/{config}", offer.series));
    output_of(Command::new("xz").arg("-dc").arg(&path))
        .with_context(|| format!("no configuration {config}"))
}

/// The pristine source of the offered kernel. Nothing is ever built in it.
pub fn source(offer: &Offer) -> Result<PathBuf> {
    let made = cache::made(&format!("sources/{}", offer.version), |directory| {
        step::step(
            &format!("unpacking the source of Linux {}", offer.version),
            || {
                if cache::free_space()? < NEEDED {
                    bail!(
                        "less than 5 GB are free for the cache; make room, or let SYSGENID_CACHE name another place"
                    );
                }
                let unpacked = directory.join("unpacked");
                let package = format!("linux-source-{}", offer.series);
                unpack(offer, std::slice::from_ref(&package), &unpacked)?;
                let tree = directory.join("tree");
                fs::create_dir(&tree)?;
                execute(
                    Command::new("tar")
                        .args(["--strip-components=1", "--no-same-owner"])
                        .arg("-C")
                        .arg(&tree)
                        .arg("-xf")
                        .arg(unpacked.join(format!("usr/src/{package}.tar.xz"))),
                    "kernel-unpack",
                )?;
                fs::remove_dir_all(&unpacked)?;
                Ok(())
            },
        )
    })?;
    Ok(made.join("tree"))
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

Package: linux-headers-7.3.4+deb13-rt-amd64
Version: 7.3.4-1~bpo13+1

Package: linux-image-7.3.4+deb13-rt-amd64
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
            2,
            "7.2 has sources and no image of their version"
        );
        assert_eq!(offers[0].series, Series(7, 3));
        assert_eq!(offers[0].release, "7.3.4+deb13-cloud-amd64");
        assert!(
            offers[0]
                .packages
                .contains(&"linux-binary-7.3.4+deb13-cloud-amd64".to_owned())
        );
        assert_eq!(offers[1].flavour, Flavour::Rt);
        assert_eq!(offers[1].release, "7.3.4+deb13-rt-amd64");
    }

    #[test]
    fn series_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<Series>().expect("a series");
        assert!(parse("7.10") > parse("7.9"));
        assert!("7".parse::<Series>().is_err());
    }
}
