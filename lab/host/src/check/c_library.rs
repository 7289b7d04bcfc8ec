// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library, as it is installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests;
use super::guests::addition;
use super::guests::options;
use crate::products;
use crate::setup::GuestOptions;
use crate::step::execute;
use crate::step::output_of;
use crate::tap::Test;

/// What all names of the library begin with.
const PREFIX: &str = "sysgenid_";

/// The library, its header and its manual page fit together; its selftests pass, linked dynamically
/// and statically; and in clones a program that uses it is unique.
pub fn check(bench: &Bench) -> Result<Vec<Test>> {
    let installed = products::installed()?;
    let usr = installed.join("usr");
    let header = fs::read_to_string(usr.join("include/sysgenid.h"))?;
    let manual = fs::read_to_string(usr.join("share/man/man3/sysgenid.3"))?;
    let mut tests = vec![
        Test::from_result(
            "C library: it exports what its header declares",
            exports(&usr.join("lib/libsysgenid.so"), &header),
        ),
        Test::from_result(
            "C library: its header is one for C++, too",
            is_cplusplus(&usr.join("include/sysgenid.h")),
        ),
        Test::from_result(
            "C library: its manual page has all functions",
            manual_is_complete(&manual, &header),
        ),
        Test::from_result(
            "C library: its manual page has the header's example",
            examples_are_equal(&manual, &header),
        ),
    ];

    let programs = products::library_selftests(&bench.kernel, &installed)?;
    let additions = [
        addition(programs.join("libsysgenid_test"), "/dynamic"),
        addition(programs.join("libsysgenid_test_static"), "/static"),
    ];
    let options = GuestOptions {
        userspace: true,
        ..options(bench, 2)
    };
    tests.extend(guests::several(
        bench,
        "C library",
        &options,
        &additions,
        &[("dynamic", ""), ("static", "")],
        1,
    )?);

    let additions = [addition(
        programs.join("libsysgenid_clone_test"),
        "/clone-test",
    )];
    let setup = guests::setup(bench, &options, &additions, &["/clone-test"])?;
    let clones = guests::resume_all(&setup, &[(); 2].map(|()| Some(Uuid::new_v4())))?;
    tests.extend(guests::clone_tests("C library", &clones));
    for name in ["prefix", "random", "id"] {
        tests.push(guests::all_different(
            &format!("C library, {name}"),
            &clones,
            &[name],
        ));
    }
    Ok(tests)
}

/// The functions that the header declares.
fn declared(header: &str) -> BTreeSet<&str> {
    header
        .lines()
        // Neither comments nor types.
        .filter(|line| line.starts_with(|c: char| c.is_alphabetic()))
        .filter_map(|line| {
            let (before, _) = line.split_once('(')?;
            let start = before.rfind(|c: char| c.is_whitespace() || c == '*')? + 1;
            Some(&before[start..])
        })
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

/// Nothing but what the header declares leaves the library, and all of that does.
fn exports(library: &Path, header: &str) -> Result<()> {
    let symbols = output_of(
        Command::new("nm")
            .args(["--dynamic", "--defined-only", "--format=just-symbols"])
            .arg(library),
    )?;
    let exported: BTreeSet<_> = symbols.lines().collect();
    let declared = declared(header);
    ensure!(!declared.is_empty(), "the header declares nothing");
    ensure!(
        exported == declared,
        "exported and declared differ: {:?}",
        exported.symmetric_difference(&declared).collect::<Vec<_>>()
    );
    Ok(())
}

/// A program in C++ can include it, and asks the linker for the functions by their names in C.
fn is_cplusplus(header: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (program, object) = (directory.path().join("main.cc"), directory.path().join("o"));
    fs::write(
        &program,
        "#include <sysgenid.h>\nint main() { sysgenid_close(nullptr); return 0; }\n",
    )?;
    let mut compiler = Command::new("clang");
    compiler
        .args(["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror"])
        .arg("-I")
        .arg(header.parent().context("it lies in a directory")?)
        .args(["-c", "-o"])
        .args([&object, &program]);
    execute(&mut compiler, "header")?;
    let mut nm = Command::new("nm");
    nm.args(["--undefined-only", "--format=just-symbols"])
        .arg(&object);
    let wanted = output_of(&mut nm)?;
    ensure!(
        wanted.lines().any(|symbol| symbol == "sysgenid_close"),
        "the linker would be asked for {wanted}"
    );
    Ok(())
}

fn manual_is_complete(manual: &str, header: &str) -> Result<()> {
    let documented: BTreeSet<_> = manual
        .lines()
        .skip_while(|line| *line != ".Sh SYNOPSIS")
        .take_while(|line| *line != ".Sh DESCRIPTION")
        .filter_map(|line| {
            let name = line.strip_prefix(".Fn ").or(line.strip_prefix(".Fo "))?;
            name.split(' ').next()
        })
        .collect();
    let declared = declared(header);
    ensure!(
        documented == declared,
        "documented and declared differ: {:?}",
        documented
            .symmetric_difference(&declared)
            .collect::<Vec<_>>()
    );
    Ok(())
}

/// The selftests compile the header's.
fn examples_are_equal(manual: &str, header: &str) -> Result<()> {
    let in_manual: Vec<_> = manual
        .lines()
        .skip_while(|line| *line != ".Sh EXAMPLES")
        .skip_while(|line| !line.starts_with(".Bd "))
        .skip(1)
        .take_while(|line| *line != ".Ed")
        .filter(|line| !line.is_empty())
        .map(|line| line.replace("\\e", "\\"))
        .collect();
    let in_header: Vec<_> = header
        .lines()
        .filter_map(|line| line.strip_prefix(" *\t"))
        .collect();
    ensure!(!in_header.is_empty(), "the header has no example");
    ensure!(
        in_manual == in_header,
        "in the manual page:\n{}\nin the header:\n{}",
        in_manual.join("\n"),
        in_header.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found() {
        let header = "\
/**
 * As sysgenid_other(), and more.
 */
struct sysgenid_seen {
        bool flag;
};
SYSGENID_MUST_USE
int sysgenid_one(struct sysgenid **handle,
                 const char *node);
const char *sysgenid_two(void);
";
        let expected = BTreeSet::from(["sysgenid_one", "sysgenid_two"]);
        assert_eq!(declared(header), expected);
    }
}
