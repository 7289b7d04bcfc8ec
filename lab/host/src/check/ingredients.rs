// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a test's commands need, made from what its manifest calls it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::apt;
use crate::cache;
use crate::kernel;
use crate::kernel::Kernel;
use crate::packages;
use crate::products;
use crate::setup::Addition;

/// What separates a thing from the place that it gets in the guest.
const AS: &str = " as ";

/// Where a thing comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source<'a> {
    /// It is a file of the checkout.
    File(&'a str),
    /// `make` makes it.
    Make(&'a str),
    /// The same, with the libraries that are installed.
    MakeInstalled(&'a str),
    /// The kernel's build system makes it.
    Kbuild(&'a str),
    /// It is a program of the Cargo workspace: the package, and the program's name.
    Program(&'a str, &'a str),
    /// It is a program with tests of a package.
    Tests(&'a str, &'a str),
    /// It is an example of a package.
    Example(&'a str, &'a str),
    /// It is the program with the examples in a package's documentation.
    Doctests(&'a str),
    /// It is installed.
    Installed(&'a str),
    /// It is our module.
    Module,
    /// It is our module, signed by the kernel's own key.
    Signed,
    /// It is a module of the kernel itself.
    InTree(&'a str),
    /// It is a root directory with the kernel's headers package.
    Headers,
    /// It is a root directory with the files of a package of another suite of Debian: the suite, and
    /// the package.
    Debian(&'a str, &'a str),
    /// It is the directory with Debian's packages.
    Packages,
    /// It is the one with those for a kernel, which is the run's if there is no name.
    KernelPackages(&'a str),
}

impl<'a> Source<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let Some((word, rest)) = text.split_once(':') else {
            return Ok(Self::File(text));
        };
        let pair = || {
            rest.split_once('/').with_context(|| {
                format!("{word}: “{rest}” is not one name, and another one after a slash")
            })
        };
        Ok(match word {
            "make" => Self::Make(rest),
            "make-installed" => Self::MakeInstalled(rest),
            "kbuild" => Self::Kbuild(rest),
            "cargo" => pair().map(|(package, name)| Self::Program(package, name))?,
            "cargo-test" => pair().map(|(package, name)| Self::Tests(package, name))?,
            "cargo-example" => pair().map(|(package, name)| Self::Example(package, name))?,
            "cargo-doctests" => Self::Doctests(rest),
            "installed" => Self::Installed(rest),
            "module" if rest.is_empty() => Self::Module,
            "signed" if rest.is_empty() => Self::Signed,
            "in-tree" => Self::InTree(rest),
            "headers" if rest.is_empty() => Self::Headers,
            "debian" => pair().map(|(suite, package)| Self::Debian(suite, package))?,
            "packages" if rest.is_empty() => Self::Packages,
            "kernel-packages" => Self::KernelPackages(rest),
            _ => bail!("files: nothing comes from “{word}:”"),
        })
    }

    /// Makes it; returns where it is. `directory` is the manifest's.
    fn make(self, directory: &Path, kernel: &Kernel) -> Result<PathBuf> {
        match self {
            Self::File(name) => Ok(directory.join(name)),
            Self::Make(name) => {
                let (place, name) = split(directory, name);
                Ok(products::made(&place, kernel, None)?.join(name))
            }
            Self::MakeInstalled(name) => {
                let (place, name) = split(directory, name);
                let installed = products::installed()?;
                Ok(products::made(&place, kernel, Some(&installed))?.join(name))
            }
            Self::Kbuild(name) => {
                let (place, name) = split(directory, name);
                Ok(products::kbuild(&place, kernel)?.join(name))
            }
            Self::Program(package, name) => products::program(package, name),
            Self::Tests(package, name) => products::tests(package, name),
            Self::Example(package, name) => products::example(package, name),
            Self::Doctests(package) => products::doctests(package),
            Self::Installed(name) => Ok(products::installed()?.join(name)),
            Self::Module => products::module(kernel)?.context("the kernel has the driver built in"),
            Self::Signed => products::signed_module(kernel),
            Self::InTree(name) => kernel.own_module(name),
            Self::Headers => Ok(kernel.package()?.1),
            Self::Debian(suite, package) => apt::files_of(suite, package),
            Self::Packages => packages::general(),
            Self::KernelPackages("") => packages::of_kernel(kernel),
            Self::KernelPackages(name) => packages::of_kernel(&kernel::named(name)?),
        }
    }

    /// What it is called in the guest if the manifest does not say.
    fn name(self) -> Result<PathBuf> {
        let name = match self {
            Self::Installed(name) => return Ok(Path::new("/").join(name)),
            Self::Module | Self::Signed => "sysgenid.ko",
            Self::Headers => "headers",
            Self::Packages | Self::KernelPackages(_) => "packages",
            Self::Doctests(_) => "doctests",
            Self::Program(_, name)
            | Self::Tests(_, name)
            | Self::Example(_, name)
            | Self::Debian(_, name) => name,
            Self::File(name)
            | Self::Make(name)
            | Self::MakeInstalled(name)
            | Self::Kbuild(name)
            | Self::InTree(name) => {
                let name = Path::new(name).file_name().and_then(OsStr::to_str);
                name.context("it has no name")?
            }
        };
        Ok(Path::new("/").join(name))
    }
}

/// The directory that a path leads to, and the name that is left.
fn split<'a>(directory: &Path, path: &'a str) -> (PathBuf, &'a str) {
    match path.rsplit_once('/') {
        Some((place, name)) => (directory.join(place), name),
        None => (directory.to_owned(), path),
    }
}

/// Makes all that a manifest in `directory` names.
///
/// # Errors
///
/// With the words of the manifest in front.
pub fn make(files: &[String], directory: &Path, kernel: &Kernel) -> Result<Vec<Addition>> {
    let make_one = |text: &String| -> Result<Addition> {
        let (source, guest) = match text.split_once(AS) {
            Some((source, guest)) => (source, Some(guest)),
            None => (text.as_str(), None),
        };
        let source = Source::parse(source)?;
        let guest = match guest {
            Some(guest) => {
                ensure!(guest.starts_with('/'), "“{guest}” is no absolute path");
                guest.into()
            }
            None => source.name()?,
        };
        let from = source.make(directory, kernel)?;
        ensure!(from.exists(), "there is no {}", cache::shown(&from));
        Ok(Addition { from, guest })
    };
    files
        .iter()
        .map(|text| make_one(text).with_context(|| format!("files: “{text}”")))
        .collect()
}

/// Makes the ACPI tables that a manifest names, where `*` is each of them.
pub fn tables(tables: &[String], directory: &Path, kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for text in tables {
        let made = || -> Result<Vec<PathBuf>> {
            let (place, name) = split(directory, text);
            let made = products::made(&place, kernel, None)?;
            let mut paths = Vec::new();
            if name == "*" {
                for entry in fs::read_dir(&made)? {
                    paths.push(entry?.path());
                }
                paths.retain(|path| path.extension() == Some(OsStr::new("aml")));
                paths.sort();
            } else {
                paths.push(made.join(name).with_extension("aml"));
            }
            ensure!(
                !paths.is_empty() && paths.iter().all(|path| path.exists()),
                "there is no such table"
            );
            Ok(paths)
        };
        found.extend(made().with_context(|| format!("tables: “{text}”"))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (text, source, name) in [
            ("a/b.sh", Source::File("a/b.sh"), "/b.sh"),
            ("make:../x/y", Source::Make("../x/y"), "/y"),
            ("kbuild:d/m.ko", Source::Kbuild("d/m.ko"), "/m.ko"),
            ("cargo:p/b", Source::Program("p", "b"), "/b"),
            ("installed:usr/x", Source::Installed("usr/x"), "/usr/x"),
            ("installed:", Source::Installed(""), "/"),
            ("module:", Source::Module, "/sysgenid.ko"),
            ("signed:", Source::Signed, "/sysgenid.ko"),
            ("in-tree:v.ko", Source::InTree("v.ko"), "/v.ko"),
            ("headers:", Source::Headers, "/headers"),
            (
                "debian:bookworm/libssl3",
                Source::Debian("bookworm", "libssl3"),
                "/libssl3",
            ),
            ("packages:", Source::Packages, "/packages"),
            (
                "kernel-packages:7.2",
                Source::KernelPackages("7.2"),
                "/packages",
            ),
        ] {
            let parsed = Source::parse(text).expect("this is a source");
            assert_eq!(parsed, source, "{text}");
            let guest = parsed.name().expect("it has a name");
            assert_eq!(guest, Path::new(name), "{text}");
        }
        for (wrong, word) in [
            ("git:x", "git:"),
            ("cargo:x", "cargo: “x” is not"),
            ("debian:x", "debian: “x” is not"),
            ("module:x", "module:"),
            ("packages:x", "packages:"),
        ] {
            let error = Source::parse(wrong).expect_err("it is no source");
            assert!(error.to_string().contains(word), "{wrong}: {error}");
        }
    }
}
