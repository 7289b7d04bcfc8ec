// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver as a part of the kernel: it builds there without a warning, and the kernel's own
//! checks are content with it.

use anyhow::Result;
use anyhow::ensure;

use crate::kernel;
use crate::kernel::Variant;
use crate::tap::Test;

/// Each of the kernels is built, with `CLIPPY=1 W=1`.
pub fn builds() -> Result<Vec<Test>> {
    [Variant::Debug, Variant::DebugBuiltin, Variant::Kcsan]
        .into_iter()
        .map(|variant| {
            let log = kernel::build(variant)?.log;
            Ok(Test::from_result(
                format!("{variant}: no warnings"),
                without_warnings(&log),
            ))
        })
        .collect()
}

/// Fails if the compiler of C or of Rust, or modpost, warns of something in the driver. Other code
/// of the kernel may have warnings.
fn without_warnings(log: &str) -> Result<()> {
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("sysgenid"))
        .filter(|line| line.contains("--> ") || line.to_ascii_lowercase().contains("warning"))
        .collect();
    ensure!(warnings.is_empty(), "{}", warnings.join("\n"));
    ensure!(
        log.contains("drivers/virt/sysgenid/sysgenid.o"),
        "the driver was not built"
    );
    Ok(())
}

/// What the kernel's build system offers besides building.
pub fn kernel_checks() -> Vec<Test> {
    let formatted = kernel::make(Variant::Debug, "rustfmtcheck").map(drop);
    vec![
        Test::from_result("make rustfmtcheck", formatted),
        Test::from_result("make rustdoc", kernel::document(Variant::Debug)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_the_driver_counts() {
        const BUILT: &str = "  CLIPPY [M] drivers/virt/sysgenid/sysgenid.o\n";
        assert!(without_warnings(BUILT).is_ok());
        assert!(without_warnings("").is_err());
        for (warning, counts) in [
            (" --> /tree/drivers/virt/sysgenid/device.rs:1:1", true),
            ("WARNING: modpost: sysgenid: missing MODULE_LICENSE()", true),
            (" --> /tree/rust/kernel/lib.rs:1:1", false),
            ("fs/exec.c:1:1: warning: unused", false),
        ] {
            assert_eq!(
                without_warnings(&format!("{BUILT}{warning}\n")).is_err(),
                counts,
                "{warning}"
            );
        }
    }
}
