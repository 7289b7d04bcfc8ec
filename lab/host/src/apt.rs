// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's archive, by an apt that keeps all that it writes in the cache.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::cache;
use crate::step;
use crate::step::execute;

/// The suite that the toolchain root is of.
pub fn suite() -> Result<String> {
    env::var("LAB_SUITE").context("the lab's tool is started by lab/lab")
}

/// An apt of its own: it knows some of the archives that the toolchain root was made from, and of
/// what is installed what it is told.
pub struct Apt {
    state: PathBuf,
    status: PathBuf,
}

impl Apt {
    /// One that keeps its state in that directory of the cache, knows the archives that `wanted`
    /// makes of the lines in the root's list of sources, and believes installed what is in `status`.
    pub fn new(name: &str, wanted: impl Fn(&str) -> Option<String>, status: &Path) -> Result<Self> {
        let state = cache::directory(name)?;
        for directory in ["lists/partial", "archives/partial"] {
            cache::directory(&format!("{name}/{directory}"))?;
        }
        let sources = fs::read_to_string("/etc/apt/sources.list").context("no apt sources")?;
        let sources: String = sources
            .lines()
            .filter_map(wanted)
            .fold(String::new(), |all, line| all + &line + "\n");
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

/// A root directory with the files of a package as it is in another one of Debian's suites.
pub fn files_of(suite: &str, package: &str) -> Result<PathBuf> {
    for name in [suite, package] {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        ensure!(
            !name.is_empty() && name.bytes().all(is_plain),
            "“{name}” is no name of a suite or a package"
        );
    }
    cache::made(&format!("debian-files/{suite}-{package}"), |directory| {
        let _lock = cache::lock("apt")?;
        let archive = format!(" {} ", self::suite()?);
        let wanted = |line: &str| {
            line.contains(&archive)
                .then(|| line.replace(&archive, &format!(" {suite} ")))
        };
        // Nothing is installed, or apt would look for the version that is.
        let status = Path::new("/dev/null");
        let apt = Apt::new(&format!("apt-{suite}-only"), wanted, status)?;
        step::step(
            &format!("fetching the package {package} of Debian's {suite}"),
            || {
                apt.update()?;
                let mut download = apt.command("apt-get");
                download.args(["download", "-qq", package]);
                execute(download.current_dir(directory), "apt-download")?;
                unpack_all(directory, directory)
            },
        )
    })
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
