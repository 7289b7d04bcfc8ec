// SPDX-License-Identifier: MIT OR Apache-2.0

//! Manifests: how tests describe themselves where they stand. `selftests/README.md` explains the words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use serde::Deserialize;

use crate::cache;
use crate::kernel::Choice;
use crate::port;

/// What the names of manifests end with.
const SUFFIX: &str = ".test.toml";

/// A file with the descriptions of one or several runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    run: Vec<Run>,
}

/// How something is tested: what is run, where, and what must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// What the results call it.
    pub name: String,
    /// Where the manifest lies.
    #[serde(skip)]
    pub directory: PathBuf,
    /// The manifest, from the top of the checkout.
    #[serde(skip)]
    pub place: String,
    /// What it is run with.
    #[serde(default)]
    pub lane: Lane,
    /// It is run in each of them.
    #[serde(default = "stock")]
    pub kernels: Vec<Kernels>,
    /// Whether the commands run on the host.
    #[serde(default)]
    pub host: bool,
    /// What the commands need.
    #[serde(default)]
    pub files: Vec<String>,
    /// Lines for a shell.
    pub commands: Vec<String>,
    /// How what they print is read.
    #[serde(default)]
    pub results: Results,
    /// The suites of a kernel's own unit tests.
    #[serde(default)]
    pub suites: Vec<String>,
    /// The exit status that is wanted.
    #[serde(default)]
    pub status: u8,
    /// The output that is wanted.
    pub says: Option<String>,
    /// What the kernel must report.
    pub report: Option<String>,
    /// Whether the command prints results before it is saved, too.
    #[serde(default)]
    pub before: Before,
    /// Whether all clones are resumed at the same time.
    #[serde(default)]
    pub at_once: bool,
    /// The guest.
    #[serde(default)]
    pub guest: Guest,
    /// What becomes of it if it is saved.
    #[serde(default)]
    pub clones: Vec<Clones>,
}

fn stock() -> Vec<Kernels> {
    vec![Kernels(Choice::Stock)]
}

/// One kernel's name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Kernels(pub Choice);

impl TryFrom<String> for Kernels {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Choice::from_str(&name)
            .map(Self)
            .map_err(|error| format!("kernels: {error}"))
    }
}

/// What is run together.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// What has a kernel of the same kind: packaged, or one that the lab builds.
    #[default]
    Kernel,
    /// What takes a machine with a disk, or packages.
    Packages,
}

/// How what a command prints is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Results {
    /// The Test Anything Protocol.
    #[default]
    Tap,
    /// What Rust's own harness prints.
    Libtest,
    /// The log of a kernel whose unit tests have run when it booted.
    Kunit,
    /// Not at all: it is the exit status that tells.
    Status,
    /// Neither what it prints nor its exit status tells anything.
    None,
}

/// What a command prints before it is saved.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// Notes, at most.
    #[default]
    None,
    /// Results, as the Test Anything Protocol has them.
    Tap,
}

/// A guest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are switches of a guest"
)]
pub struct Guest {
    /// Processors.
    pub smp: u32,
    /// Memory, as QEMU's -m takes it.
    pub memory: Option<String>,
    /// What it has besides busybox.
    pub userspace: Userspace,
    /// Debian's packages that it has besides busybox, if it has no user space.
    pub packages: Vec<String>,
    /// Whether the module is loaded before the commands run.
    pub module: bool,
    /// Whether it has QEMU's `VMGenID` device.
    pub vmgenid: bool,
    /// Whether guest time is counted in instructions.
    pub icount: bool,
    /// More ACPI tables.
    pub tables: Vec<String>,
    /// More arguments for QEMU.
    pub qemu: Vec<String>,
    /// Its virtio-serial ports, and lines for a shell whose standard input is the port's other end.
    pub ports: BTreeMap<String, String>,
    /// More words for the kernel's command line.
    pub append: Vec<String>,
    /// Whether it boots anew each time.
    pub boot: bool,
    /// How many seconds it may take. A limit is for hangs.
    pub limit: u64,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            smp: 1,
            memory: None,
            userspace: Userspace::None,
            packages: Vec::new(),
            module: true,
            vmgenid: true,
            icount: false,
            tables: Vec::new(),
            qemu: Vec::new(),
            ports: BTreeMap::new(),
            append: Vec::new(),
            boot: false,
            limit: 300,
        }
    }
}

/// What a guest has besides busybox.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Userspace {
    /// Nothing.
    None,
    /// Debian's.
    Debian,
    /// Debian's, and what `make install` installs.
    Installed,
    /// The same, and systemd is the first process.
    Systemd,
}

/// Clones of one saved machine, and what must hold for them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clones {
    /// The ID that each of them is resumed with.
    pub ids: Vec<Id>,
    /// How what they print is read.
    #[serde(default)]
    pub results: Results,
    /// The exit status that is wanted.
    #[serde(default)]
    pub status: u8,
    /// The output that is wanted.
    pub says: Option<String>,
    /// Under these names nothing is noted twice.
    #[serde(default)]
    pub different: Vec<String>,
    /// Under each of these names, at least two clones note the same.
    #[serde(default)]
    pub repeated: Vec<String>,
    /// Under each of these names, all clones note the same.
    #[serde(default)]
    pub equal: Vec<String>,
    /// Under each of these names, each clone notes just that.
    #[serde(default)]
    pub is: BTreeMap<String, String>,
    /// Under each of these names, each clone notes so many.
    #[serde(default)]
    pub count: BTreeMap<String, usize>,
    /// What was noted under these names before the machine was saved counts as another clone's.
    #[serde(default)]
    pub and_before: Vec<String>,
    /// The proof by the saved machine's memory.
    pub turns: Option<Turns>,
}

/// The ID that a clone is resumed with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Id {
    /// One of its own.
    New,
    /// The one that the machine had.
    Same,
}

/// What must hold for the turns that threads took in clones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Turns {
    /// The first look after the resume found a new ID.
    pub first_look: bool,
    /// No draw is seen twice.
    pub nothing_twice: bool,
    /// In each of these places a draw is seen in two clones; “” is any place.
    pub twice: Vec<String>,
    /// Only turns that began after the snapshot count.
    pub whole: bool,
}

/// All runs that the checkout describes.
pub fn all() -> Result<Vec<Run>> {
    let mut paths = Vec::new();
    find(Path::new(cache::SOURCE), &mut paths)?;
    paths.sort();
    let mut runs: Vec<Run> = Vec::new();
    for path in paths {
        for run in read(&path)? {
            if let Some(other) = runs.iter().find(|other| other.name == run.name) {
                bail!(
                    "{}: there is a run “{}” in {}, too",
                    cache::shown(&path),
                    run.name,
                    other.place
                );
            }
            runs.push(run);
        }
    }
    ensure!(!runs.is_empty(), "the checkout has no *{SUFFIX}");
    Ok(runs)
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != ".git" && name != "target" {
                find(&path, found)?;
            }
        } else if name.to_string_lossy().ends_with(SUFFIX) {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads one manifest.
fn read(path: &Path) -> Result<Vec<Run>> {
    let text = fs::read_to_string(path)?;
    parse(&text, path).with_context(|| cache::shown(path))
}

fn parse(text: &str, path: &Path) -> Result<Vec<Run>> {
    let manifest: Manifest = basic_toml::from_str(text).map_err(|error| anyhow!("{error}"))?;
    let directory = path.parent().context("it lies in a directory")?;
    let mut runs = manifest.run;
    for run in &mut runs {
        directory.clone_into(&mut run.directory);
        run.place = cache::shown_in_source(path);
        run.check().with_context(|| format!("run “{}”", run.name))?;
    }
    Ok(runs)
}

impl Run {
    /// Refuses what would be of no effect, or never hold.
    fn check(&self) -> Result<()> {
        ensure!(!self.name.is_empty(), "its name is empty");
        ensure!(!self.kernels.is_empty(), "kernels: there is none");
        ensure!(!self.commands.is_empty(), "commands: there is none");
        ensure!(
            (self.results == Results::Kunit) != self.suites.is_empty(),
            "suites: they belong to results = \"kunit\""
        );
        ensure!(
            self.says.is_none() || self.results == Results::Status,
            "says: it belongs to results = \"status\""
        );
        ensure!(
            self.status == 0 || self.results == Results::Status,
            "status: it belongs to results = \"status\""
        );
        ensure!(
            self.results != Results::None,
            "results: without any nothing is tested"
        );
        ensure!(
            self.guest.packages.is_empty() || self.guest.userspace == Userspace::None,
            "packages: a user space has its own"
        );
        for name in self.guest.ports.keys() {
            ensure!(port::is_name(name), "ports: “{name}” is no name of a port");
        }
        if self.host {
            ensure!(
                self.guest.ports.is_empty(),
                "ports: there is no guest that has any"
            );
            ensure!(
                self.clones.is_empty() && self.report.is_none(),
                "host: there is no guest to be saved, and no kernel that reports"
            );
        }
        if self.clones.is_empty() {
            ensure!(
                self.before == Before::None && !self.at_once,
                "before, at-once: there are no clones"
            );
        } else {
            ensure!(
                self.commands.len() == 1,
                "commands: of several nobody knows which one is saved"
            );
            ensure!(
                self.results == Results::Tap && self.report.is_none(),
                "results, report: with clones, these belong to [[run.clones]]"
            );
        }
        self.clones.iter().try_for_each(Clones::check)
    }
}

impl Clones {
    fn check(&self) -> Result<()> {
        ensure!(!self.ids.is_empty(), "ids: there is none");
        ensure!(
            self.says.is_none() || self.results == Results::Status,
            "says: it belongs to results = \"status\""
        );
        ensure!(
            self.status == 0 || self.results == Results::Status,
            "status: it belongs to results = \"status\""
        );
        for (word, names) in [("repeated", &self.repeated), ("equal", &self.equal)] {
            ensure!(
                names.is_empty() || self.ids.len() > 1,
                "{word}: one clone alone has nothing to compare with"
            );
        }
        for name in &self.and_before {
            ensure!(
                self.different.contains(name),
                "and-before: “{name}” is not among those that are to be different"
            );
        }
        if let Some(value) = self
            .is
            .values()
            .find(|value| value.starts_with('@') && !KNOWN.contains(&value.as_str()))
        {
            bail!(
                "is: “{value}” is nothing that the host knows ({})",
                KNOWN.join(", ")
            );
        }
        Ok(())
    }
}

/// What the host knows of a clone, by the names that manifests have for it.
pub const KNOWN: [&str; 3] = ["@id", "@new", "@time"];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = parse(text, Path::new("/src/x/a.test.toml")).expect_err("it is refused");
        format!("{error:#}")
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let runs = parse(
            "[[run]]\nname = \"a\"\ncommands = [\"x\"]\n[[run.clones]]\nids = [\"new\"]\n",
            Path::new("/src/x/a.test.toml"),
        )
        .expect("it is complete");
        let run = &runs[0];
        assert_eq!(run.lane, Lane::Kernel);
        assert_eq!(run.kernels.len(), 1);
        assert_eq!(run.results, Results::Tap);
        assert_eq!(run.guest.smp, 1);
        assert!(run.guest.module && run.guest.vmgenid && !run.guest.boot);
        assert_eq!(run.clones[0].ids, [Id::New]);
        assert_eq!(run.directory, Path::new("/src/x"));
        assert_eq!(run.place, "x/a.test.toml");
    }

    #[test]
    fn a_lane_can_be_chosen() {
        let runs = parse(
            "[[run]]\nname = \"a\"\nlane = \"packages\"\ncommands = [\"x\"]\n",
            Path::new("/src/x/a.test.toml"),
        )
        .expect("it is complete");
        assert_eq!(runs[0].lane, Lane::Packages);
    }

    #[test]
    fn what_is_unknown_is_named() {
        const RUN: &str = "[[run]]\nname = \"a\"\ncommands = [\"x\"]\n";
        for (more, words) in [
            ("colour = 1\n", "colour"),
            ("results = \"yaml\"\n", "yaml"),
            ("kernels = [\"big\"]\n", "big"),
            ("lane = \"fast\"\n", "fast"),
            ("[run.guest]\ncpus = 2\n", "cpus"),
            ("[run.guest]\nuserspace = \"fedora\"\n", "fedora"),
            (
                "[run.guest]\nuserspace = \"debian\"\npackages = [\"p\"]\n",
                "packages",
            ),
            ("[[run.clones]]\nids = [\"old\"]\n", "old"),
            (
                "[[run.clones]]\nids = [\"new\"]\nis = { a = \"@b\" }\n",
                "@b",
            ),
            (
                "[[run.clones]]\nids = [\"new\"]\nequal = [\"a\"]\n",
                "equal",
            ),
            (
                "[[run.clones]]\nids = [\"new\"]\nand-before = [\"a\"]\n",
                "and-before",
            ),
            ("[[run.clones]]\nids = []\n", "ids"),
            ("[[run.clones]]\nids = [\"new\"]\nstatus = 3\n", "status"),
            ("suites = [\"s\"]\n", "suites"),
            ("says = \"s\"\n", "says"),
            ("status = 1\n", "status"),
            ("at-once = true\n", "at-once"),
            ("host = true\nreport = \"BUG\"\n", "host"),
            ("[run.guest]\nports = { \"a,b\" = \"x\" }\n", "a,b"),
            ("host = true\n[run.guest]\nports = { a = \"x\" }\n", "ports"),
            ("commands = [\"twice\"]\n", "commands"),
        ] {
            let error = refused(&format!("{RUN}{more}"));
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(refused("").contains("run"));
        assert!(refused("[[run]]\nname = \"a\"\n").contains("commands"));
        assert!(refused("[[run]]\nname = \"a\"\ncommands = []\n").contains("commands"));
    }
}
