// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks of what is built, and of what refuses to be built.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;

use super::Bench;
use super::cargo;
use super::source;
use crate::cache;
use crate::products;
use crate::step::execute;
use crate::step::execute_logged;
use crate::step::output_of;
use crate::tap;
use crate::tap::Outcome;
use crate::tap::Test;

/// The unit tests of the lab and of user space, on the host.
pub fn unit_tests(_: &Bench) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let mut userspace = products::userspace_cargo(&["test"])?;
    userspace.args(["--all-features", "--lib", "--bins"]);
    for (package, mut command) in [
        ("lab", products::tool_cargo(&["test"])?),
        ("userspace", userspace),
    ] {
        command.args(["--quiet", "--", "--format", "pretty"]);
        let output = command.output().context("cannot start cargo")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = tap::parse_libtest(package, &text);
        let failed = found.iter().any(|test| test.outcome == Outcome::Failed);
        if output.status.success() == failed {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{package}: cargo test: {}\n{text}\n{errors}", output.status);
        }
        tests.extend(found);
    }
    Ok(tests)
}

/// What user space is documented by: that of the crates, and the manual pages that are installed.
pub fn documentation(_: &Bench) -> Result<Vec<Test>> {
    let arguments = [
        "doc",
        "--locked",
        "--workspace",
        "--all-features",
        "--no-deps",
    ];
    let mut cargo = cargo("userspace", &arguments)?;
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    let crates = execute(&mut cargo, "cargo-doc");

    let pages = || -> Result<()> {
        let manual = products::installed()?.join("usr/share/man");
        let pages = output_of(Command::new("find").arg(&manual).args(["-type", "f"]))?;
        ensure!(!pages.is_empty(), "there are no manual pages");
        let mut mandoc = Command::new("mandoc");
        mandoc
            .args(["-T", "lint", "-W", "warning"])
            .args(pages.lines());
        let log = execute_logged(&mut mandoc, "mandoc")?;
        ensure!(log.is_empty(), "{log}");
        Ok(())
    };
    Ok(vec![
        Test::from_result("cargo doc", crates),
        Test::from_result("manual pages", pages()),
    ])
}

pub fn module_build(bench: &Bench) -> Result<Vec<Test>> {
    let module = bench.module()?;
    let information = output_of(Command::new("modinfo").arg(&module))?;
    let vermagic = information
        .lines()
        .find_map(|line| line.strip_prefix("vermagic:"))
        .map_or("", str::trim);
    let right = vermagic.split_whitespace().next() == Some(&bench.kernel.release);
    let vermagic = if right {
        Ok(())
    } else {
        Err(anyhow!(
            "vermagic is {vermagic}, the kernel is {}",
            bench.kernel.release
        ))
    };

    let installed = || -> Result<()> {
        let target = tempfile::tempdir()?;
        let output = cache::build_directory(&format!("module-{}", bench.kernel.release))?;
        let mut install = Command::new("make");
        install
            .arg("-C")
            .arg(cache::SOURCE)
            .arg("modules_install")
            .arg(format!("KDIR={}", bench.kernel.tree.display()))
            .arg(format!("MO={}", output.display()))
            .arg(format!("INSTALL_MOD_PATH={}", target.path().display()));
        execute(&mut install, "modules_install")?;
        let found = output_of(
            Command::new("find")
                .arg(target.path())
                .args(["-name", "sysgenid.ko*"]),
        )?;
        ensure!(found.lines().count() == 1, "installed: {found:?}");
        Ok(())
    };
    Ok(vec![
        Test::from_result("the module is made for the packaged kernel", vermagic),
        Test::from_result("make modules_install", installed()),
    ])
}

/// Each tree that cannot build Rust modules is refused before the compiler runs, with what is
/// wrong and what to do.
pub fn refused_kdirs(bench: &Bench) -> Result<Vec<Test>> {
    let trees = tempfile::tempdir()?;
    let tree = |name: &str, config: Option<&str>, metadata: bool| -> Result<PathBuf> {
        let path = trees.path().join(name);
        for directory in ["include/config", "scripts", "rust"] {
            fs::create_dir_all(path.join(directory))?;
        }
        fs::write(
            path.join("Makefile"),
            "all:\n\t@echo the compiler ran; false\n",
        )?;
        if let Some(config) = config {
            fs::write(path.join("include/config/auto.conf"), config)?;
        }
        if metadata {
            for name in ["core", "bindings", "pin_init", "kernel"] {
                fs::write(path.join(format!("rust/lib{name}.rmeta")), "")?;
            }
        }
        Ok(path)
    };
    let other = "CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.0.0 (ancient)\"\n";
    let version = output_of(Command::new("rustc").arg("--version"))?;
    let cases = [
        (
            "no directory",
            trees.path().join("absent"),
            vec!["there is no directory"],
        ),
        (
            "not a kernel tree",
            trees.path().to_owned(),
            vec!["not a kernel build tree"],
        ),
        (
            "not prepared",
            tree("raw", None, false)?,
            vec!["not prepared", "modules_prepare"],
        ),
        (
            "no CONFIG_RUST",
            tree("c", Some("CONFIG_SMP=y\n"), false)?,
            vec!["CONFIG_RUST"],
        ),
        (
            "no metadata",
            tree("headers", Some(other), false)?,
            vec!["rmeta"],
        ),
        (
            "another compiler",
            tree("old", Some(other), true)?,
            vec!["rustc 1.0.0 (ancient)", version.trim()],
        ),
    ];
    let mut tests = Vec::new();
    for (name, path, expected) in cases {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(cache::SOURCE)
            .arg("modules")
            .arg(format!("KDIR={}", path.display()));
        let result = refusal(&mut make, &expected);
        tests.push(Test::from_result(format!("refused: {name}"), result));
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(cache::SOURCE).arg("check-kdir");
    make.arg(format!("KDIR={}", bench.kernel.tree.display()));
    tests.push(Test::from_result(
        "a good tree is not refused",
        execute(&mut make, "check-kdir"),
    ));
    Ok(tests)
}

fn refusal(command: &mut Command, expected: &[&str]) -> Result<()> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it was not refused");
    for words in expected {
        ensure!(text.contains(words), "“{words}” is not in: {text}");
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(
        !stdout.contains("the compiler ran"),
        "the kernel's build was started"
    );
    Ok(())
}

/// `make help` names every verb of the Makefile.
pub fn front_door(_: &Bench) -> Result<Vec<Test>> {
    let makefile = fs::read_to_string(source("Makefile"))?;
    let help = output_of(
        Command::new("make")
            .arg("-C")
            .arg(cache::SOURCE)
            .arg("help"),
    )?;
    let verbs: Vec<_> = makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY: "))
        .flat_map(str::split_whitespace)
        .collect();
    ensure!(!verbs.is_empty(), "the Makefile has no verbs");
    let unlisted: Vec<_> = verbs
        .iter()
        .filter(|verb| {
            !help.contains(&format!("make {verb} ")) && !help.contains(&format!("make [{verb}] "))
        })
        .collect();
    let result = if unlisted.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("make help does not list: {unlisted:?}"))
    };
    Ok(vec![Test::from_result(
        "make help lists every verb",
        result,
    )])
}
