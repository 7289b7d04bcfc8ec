// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks of the source itself: formatting, lints, licences, documentation, and what is claimed.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::manifest;
use crate::cache;
use crate::cache::source;
use crate::kernel::Choice;
use crate::kernel::Kernel;
use crate::products;
use crate::step::execute;
use crate::step::execute_logged;
use crate::tap::Test;

/// Where Cargo's packages are, in whose style they are written.
const CARGO: [&str; 6] = [
    "Documentation/clones/rust",
    "lab",
    "selftests/awslc",
    "selftests/guest-agent",
    "selftests/rust",
    "userspace",
];

pub fn formatting() -> Result<Vec<Test>> {
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
    let mut cargo = Command::new("cargo");
    cargo
        .args(["fmt", "--check", "--all", "--manifest-path"])
        .arg(source("Cargo.toml"));
    Ok(vec![
        Test::from_result("rustfmt: the module", execute(&mut rustfmt, "rustfmt")),
        Test::from_result("rustfmt: the workspace", execute(&mut cargo, "cargo-fmt")),
    ])
}

/// What the crates are documented by.
pub fn documentation() -> Result<Vec<Test>> {
    let mut cargo = products::cargo(&["doc", "--workspace", "--all-features", "--no-deps"])?;
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    let crates = execute(&mut cargo, "cargo-doc");
    Ok(vec![Test::from_result("cargo doc", crates)])
}

pub fn lints(kernel: &Kernel) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let mut clippy = products::cargo(&["clippy", "--workspace", "--all-targets"])?;
    clippy.args(["--all-features", "--", "-D", "warnings"]);
    tests.push(Test::from_result(
        "clippy: the workspace",
        execute(&mut clippy, "clippy"),
    ));

    // The kernel's own lints, in a directory that is always fresh: what is already built would
    // be silent.
    let output = tempfile::tempdir()?;
    let mut build = products::module_command(kernel, output.path());
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
    let mut shellcheck = Command::new("shellcheck");
    // A file that a script reads lies beside it, and belongs to it.
    shellcheck
        .args(["--external-sources", "--source-path=SCRIPTDIR"])
        .args(scripts);
    let result = execute(&mut shellcheck, "shellcheck");
    tests.push(Test::from_result("shellcheck", result));

    // What would go into a kernel tree. The others are C11 for user space.
    let code: Vec<_> = files()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "c" || e == "h"))
        .filter(|path| {
            let outside = ["demo", "bench", "userspace"];
            !outside.iter().any(|part| path.starts_with(source(part)))
        })
        .collect();
    let mut checkpatch = Command::new("perl");
    checkpatch
        .arg(kernel.source.join("scripts/checkpatch.pl"))
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

/// What is for the documentation of a kernel tree, by that tree's own tools.
pub fn kernel_documentation(kernel: &Kernel) -> Vec<Test> {
    // They warn, and are content.
    let silent = |command: &mut Command, name: &str| {
        let log = execute_logged(command, name)?;
        ensure!(log.is_empty(), "{log}");
        Ok(())
    };
    let tool = |name: &str| {
        let mut python = Command::new("python3");
        python.arg(kernel.source.join("tools/docs").join(name));
        python
    };
    let mut kernel_doc = tool("kernel-doc");
    kernel_doc
        .args(["-none", "-Wall"])
        .arg(source("uapi/linux/sysgenid.h"))
        .arg(source("include/linux/sysgenid.h"));
    let mut abi = tool("get_abi.py");
    abi.arg("--dir")
        .arg(source("Documentation/ABI"))
        .arg("validate");
    let mut patch = Command::new("busybox");
    patch
        .args(["patch", "--dry-run", "-p", "1", "-i"])
        .arg(source(
            "Documentation/userspace-api/ioctl/ioctl-number.patch",
        ))
        .current_dir(&kernel.source);
    vec![
        Test::from_result(
            "kernel-doc of the headers",
            silent(&mut kernel_doc, "kernel-doc"),
        ),
        Test::from_result("Documentation/ABI", silent(&mut abi, "get_abi")),
        Test::from_result(
            "the numbers of the ioctls can be reserved",
            execute(&mut patch, "ioctl-number"),
        ),
    ]
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
            if name == ".git" || name == "target" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), found)?;
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

/// Files in which nothing can be said but what they are for.
const WITHOUT_LICENCE: [&str; 6] = [
    "Cargo.lock",
    "userspace/sysgenctl/fuzz/Cargo.lock",
    "packaging/debian-kernel/copyright",
    "packaging/debian/changelog",
    "packaging/debian/copyright",
    "packaging/debian/source/format",
];

/// Every file names its licence, and LICENSES/ has the text of each that is named.
pub fn licences() -> Result<Vec<Test>> {
    let mut unnamed = Vec::new();
    let mut unknown = Vec::new();
    for path in files()? {
        let shown = path
            .strip_prefix(cache::SOURCE)
            .unwrap_or(&path)
            .display()
            .to_string();
        // What is published by itself has the texts of its licences in a directory of its own.
        let is_text = shown.starts_with("LICENSES/") || shown.contains("/LICENSES/");
        if WITHOUT_LICENCE.contains(&shown.as_str()) || is_text {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        // In two pieces, so that this line is not one that names a licence.
        let tag = concat!("SPDX-License", "-Identifier: ");
        let Some(line) = text.lines().take(3).find_map(|line| line.split_once(tag)) else {
            unnamed.push(shown);
            continue;
        };
        let expression = line.1.trim_end_matches(['*', '/', '-', '>', ' ', '"', ',']);
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

/// Each row of the contract is held by at least one test that exists, by the table in
/// `selftests/README.md`.
pub fn contract() -> Result<Vec<Test>> {
    let page = fs::read_to_string(source("selftests/README.md"))?;
    let programs: Vec<(String, String)> = table(&page, "| prefix | source |")?
        .into_iter()
        .map(|(prefix, path)| {
            let (prefix, path) = (prefix.trim_matches('`'), path.trim_matches('`'));
            let program = fs::read_to_string(source("selftests").join(path))
                .with_context(|| format!("selftests/README.md: {path}"))?;
            Ok((prefix.trim_matches(NO_PREFIX).to_owned(), program))
        })
        .collect::<Result<_>>()?;
    let mut tests = Vec::new();
    for (row, names) in table(&page, "| row | tests |")? {
        let held = || -> Result<()> {
            let names: Vec<_> = names.split(", ").collect();
            for name in names {
                let (prefix, name) = name
                    .split_once('`')
                    .with_context(|| format!("“{name}” names no test"))?;
                let name = name.trim_end_matches('`');
                let (_, program) = programs
                    .iter()
                    .find(|(known, _)| *known == prefix)
                    .with_context(|| format!("no program has the prefix “{prefix}”"))?;
                ensure!(defines(program, name), "there is no test {prefix}{name}");
            }
            Ok(())
        };
        tests.push(Test::from_result(format!("row: {row}"), held()));
    }
    Ok(tests)
}

/// What stands for no prefix.
const NO_PREFIX: char = '–';

/// The rows of the table with that head, in two columns.
fn table<'a>(page: &'a str, head: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let rows: Vec<_> = page
        .lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2)
        .map_while(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .rsplit_once(" | ")
        })
        .collect();
    ensure!(
        !rows.is_empty(),
        "selftests/README.md has no table “{head}”"
    );
    Ok(rows)
}

/// Each kernel series that the README claims is one that tests run in.
pub fn series(kernel: &Kernel) -> Result<Vec<Test>> {
    let readme = fs::read_to_string(source("README.md"))?;
    let runs = manifest::all()?;
    let tried: Vec<_> = runs
        .iter()
        .flat_map(|run| &run.kernels)
        .filter_map(|kernel| match kernel.0 {
            Choice::Series(series) => Some(series.to_string()),
            Choice::Stock | Choice::Rt | Choice::Debug(_) => None,
        })
        .collect();
    let claimed = claimed(&readme);
    ensure!(
        !claimed.is_empty(),
        "README.md does not say “(Linux X.Y or X.Z)”"
    );
    let is_stock = |series: &str| kernel.release.starts_with(&format!("{series}."));
    Ok(claimed
        .into_iter()
        .map(|series| {
            let result = || {
                ensure!(
                    is_stock(series) || tried.iter().any(|tried| tried == series),
                    "no manifest has a run in {series}, and the stock kernel is {}",
                    kernel.release
                );
                Ok(())
            };
            Test::from_result(format!("claimed: Linux {series}"), result())
        })
        .collect())
}

/// The series in `(Linux X.Y, X.Z or X.W)`.
fn claimed(readme: &str) -> Vec<&str> {
    let Some((_, rest)) = readme.split_once("(Linux ") else {
        return Vec::new();
    };
    let (list, _) = rest.split_once(')').unwrap_or((rest, ""));
    list.split([' ', ','])
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Whether a program has the test: in C `TEST_F(sysgenid, name)`, or `TEST_F(fixture, name)` for
/// `fixture.name`, perhaps with a limit after it; elsewhere the name as a word of its own.
fn defines(program: &str, name: &str) -> bool {
    let (fixture, test) = name.split_once('.').unwrap_or(("sysgenid", name));
    let in_c = [")", ","].map(|end| format!("({fixture}, {test}{end}"));
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    in_c.iter().any(|definition| program.contains(definition))
        || (!program.contains("TEST_F(") && program.split(|c| !is_part(c)).any(|word| word == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_claims_are_read() {
        let page = "| a | b |\n| --- | --- |\n| one, `x \\| y` | `two` |\n\n| no | more |\n";
        let rows = table(page, "| a | b |").expect("it is there");
        assert_eq!(rows, [("one, `x \\| y`", "`two`")]);
        assert!(table(page, "| c | d |").is_err());
        assert_eq!(
            claimed("with `y` (Linux 7.1, 7.2 or 7.3), by"),
            ["7.1", "7.2", "7.3"]
        );
        assert!(claimed("Linux 7.2").is_empty());
    }

    #[test]
    fn tests_are_found_by_their_definitions() {
        let c = "TEST_F(sysgenid, one)\nTEST_F_TIMEOUT(sysgenid, two, 60)\nTEST_F(wrap, three)\n";
        for name in ["one", "two", "wrap.three"] {
            assert!(defines(c, name), "{name}");
        }
        for name in ["on", "three", "wrap.one"] {
            assert!(!defines(c, name), "{name}");
        }
        let rust = "(\"four\", four),";
        assert!(defines(rust, "four"));
        assert!(!defines(rust, "our"));
    }
}
