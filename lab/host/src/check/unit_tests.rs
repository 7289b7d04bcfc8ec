// SPDX-License-Identifier: MIT OR Apache-2.0

//! The unit tests of what is written in Rust, but for the module: on the host.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::products;
use crate::tap;
use crate::tap::Outcome;
use crate::tap::Test;

/// Packages with unit tests, by the names under which their results come.
const PACKAGES: [(&str, &[&str]); 2] = [
    ("lab", &["lab", "init", "wire"]),
    (
        "userspace",
        &[
            "sysgenid",
            "sysgenctl",
            "libsysgenid",
            "sysgenid-openssl-provider",
        ],
    ),
];

/// The unit tests of the lab and of user space, on the host.
pub fn unit_tests() -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (name, packages) in PACKAGES {
        let mut cargo = products::cargo(&["test", "--quiet", "--all-features", "--lib", "--bins"])?;
        for package in packages {
            cargo.args(["--package", package]);
        }
        cargo.args(["--", "--format", "pretty"]);
        let output = cargo.output().context("cannot start cargo")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = tap::parse_libtest(name, &text);
        let failed = found.iter().any(|test| test.outcome == Outcome::Failed);
        if output.status.success() == failed {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{name}: cargo test: {}\n{text}\n{errors}", output.status);
        }
        tests.extend(found);
    }
    Ok(tests)
}
