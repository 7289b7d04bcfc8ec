// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's archive, by an apt that keeps all that it writes in the cache.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::cache;
use crate::step::execute;

/// An apt of its own: it knows some of the archives that the toolchain root was made from, and of
/// what is installed what it is told.
pub struct Apt {
    state: PathBuf,
    status: PathBuf,
}

impl Apt {
    /// One that keeps its state in that directory of the cache, knows the archives whose lines
    /// `wanted` chooses from the root's list of sources, and believes installed what is in `status`.
    pub fn new(name: &str, wanted: impl Fn(&str) -> bool, status: &Path) -> Result<Self> {
        let state = cache::directory(name)?;
        for directory in ["lists/partial", "archives/partial"] {
            cache::directory(&format!("{name}/{directory}"))?;
        }
        let sources = fs::read_to_string("/etc/apt/sources.list").context("no apt sources")?;
        let sources: String = sources
            .lines()
            .filter(|line| wanted(line))
            .fold(String::new(), |all, line| all + line + "\n");
        fs::write(state.join("sources.list"), sources)?;
        Ok(Self {
            state,
            status: status.to_owned(),
        })
    }

    /// One of apt's programs.
    pub fn command(&self, program: &str) -> Command {
        let state = self.state.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State={state}"),
            format!("Dir::State::status={}", self.status.display()),
            format!("Dir::Cache={state}"),
            format!("Dir::Etc::SourceList={state}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Asks the archive for what it has.
    pub fn update(&self) -> Result<()> {
        let mut update = self.command("apt-get");
        update.arg("update").arg("-qq").arg("--error-on=any");
        execute(&mut update, "apt-update")
    }
}

/// Unpacks the packages that lie in a directory, each into `into`, and removes them.
pub fn unpack_all(packages: &Path, into: &Path) -> Result<()> {
    for entry in fs::read_dir(packages)? {
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
