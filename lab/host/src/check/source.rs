// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks of the source itself: formatting, lints, licences.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use anyhow::ensure;

use super::Bench;
use super::CARGO;
use super::cargo;
use super::source;
use crate::cache;
use crate::products;
use crate::step::execute;
use crate::tap::Test;

pub fn formatting(_: &Bench) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let kernel_code: Vec<_> = files()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter(|path| {
            !CARGO
                .iter()
                .any(|package| path.starts_with(source(package)))
        })
        .collect();
    let mut rustfmt = Command::new("rustfmt");
    rustfmt
        .args(["--check", "--edition", "2021", "--config-path"])
        .arg(source(".rustfmt.toml"))
        .args(kernel_code);
    tests.push(Test::from_result(
        "rustfmt: the module",
        execute(&mut rustfmt, "rustfmt"),
    ));
    for package in CARGO {
        let result = execute(
            &mut cargo(package, &["fmt", "--check", "--all"])?,
            "cargo-fmt",
        );
        tests.push(Test::from_result(format!("rustfmt: {package}"), result));
    }
    Ok(tests)
}

pub fn lints(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for package in CARGO {
        let mut clippy = cargo(
            package,
            &["clippy", "--locked", "--all-targets", "--workspace"],
        )?;
        clippy.args(["--", "-D", "warnings"]);
        let result = execute(&mut clippy, "clippy");
        tests.push(Test::from_result(format!("clippy: {package}"), result));
    }

    // The kernel's own lints, in a directory that is always fresh: what is already built would
    // be silent.
    let output = tempfile::tempdir()?;
    let mut build = products::module_command(&bench.kernel, output.path());
    build.args(["CLIPPY=1", "W=1"]);
    tests.push(Test::from_result(
        "clippy: the module",
        without_warnings(&mut build),
    ));

    let scripts: Vec<_> = files()?
        .into_iter()
        .filter(|path| {
            fs::read(path).is_ok_and(|text| {
                text.starts_with(b"#!/bin/sh") || text.starts_with(b"#!/usr/bin/env bash")
            })
        })
        .collect();
    let result = execute(Command::new("shellcheck").args(scripts), "shellcheck");
    tests.push(Test::from_result("shellcheck", result));

    // What would go into a kernel tree. The demo is C11 for user space.
    let code: Vec<_> = files()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "c" || e == "h"))
        .filter(|path| !path.starts_with(source("demo")))
        .collect();
    let mut checkpatch = Command::new("perl");
    checkpatch
        .arg(bench.kernel.tree().join("scripts/checkpatch.pl"))
        // No tree: MAINTAINERS has no entry for files that are not in it yet.
        .args(["--no-tree", "--quiet", "--terse", "--strict", "--file"])
        .args([
            "--ignore",
            "FILE_PATH_CHANGES,SPDX_LICENSE_TAG,PREFER_KERNEL_TYPES",
        ])
        .args(code);
    tests.push(Test::from_result(
        "checkpatch",
        execute(&mut checkpatch, "checkpatch"),
    ));
    Ok(tests)
}

fn without_warnings(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the build fails:\n{text}");
    let warnings: Vec<_> = text
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    ensure!(warnings.is_empty(), "the build warns:\n{text}");
    Ok(())
}

/// All files of the checkout, without git's own.
fn files() -> Result<Vec<PathBuf>> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if name != ".git" && name != "target" {
                    walk(&entry.path(), found)?;
                }
            } else {
                found.push(entry.path());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(Path::new(cache::SOURCE), &mut found)?;
    found.sort();
    Ok(found)
}

/// Every file names its licence, and LICENSES/ has the text of each that is named.
pub fn licences(_: &Bench) -> Result<Vec<Test>> {
    let mut unnamed = Vec::new();
    let mut unknown = Vec::new();
    for path in files()? {
        let shown = path
            .strip_prefix(cache::SOURCE)
            .unwrap_or(&path)
            .display()
            .to_string();
        if shown.ends_with("Cargo.lock") || shown.starts_with("LICENSES/") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        // In two pieces, so that this line is not one that names a licence.
        let tag = concat!("SPDX-License", "-Identifier: ");
        let Some(line) = text.lines().take(3).find_map(|line| line.split_once(tag)) else {
            unnamed.push(shown);
            continue;
        };
        let expression = line.1.trim_end_matches(['*', '/', '-', '>', ' ']);
        for word in expression
            .split([' ', '(', ')'])
            .filter(|word| !word.is_empty())
        {
            let known = ["OR", "AND", "WITH"].contains(&word)
                || source(&format!("LICENSES/{word}.txt")).exists();
            if !known {
                unknown.push(format!("{shown}: {word}"));
            }
        }
    }
    let none = |list: Vec<String>| {
        ensure!(list.is_empty(), "{}", list.join("\n"));
        Ok(())
    };
    Ok(vec![
        Test::from_result("every file names its licence", none(unnamed)),
        Test::from_result("LICENSES/ has the text of every licence", none(unknown)),
    ])
}
