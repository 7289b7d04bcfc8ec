// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the examples in the documentation run in. No part of the interface.

use std::env;
use std::path::Path;

use crate::Error;
use crate::GENERATION_NODE;
use crate::Result;

/// The examples must find the device, if this is `required`.
const VARIABLE: &str = "SYSGENID_DEVICE";

/// Runs an example that opens the device. Where there is none it ends there, and passes: who builds
/// the crate and tests it has no clone, and may have no module.
#[doc(hidden)]
#[track_caller]
pub fn __on_the_device(example: impl FnOnce() -> Result<()>) {
    let required = env::var_os(VARIABLE).is_some_and(|value| value == "required");
    if let Err(error) = example() {
        assert!(may_end(&error, required), "{error}");
    }
}

/// Whether an example may end with that. With any other error, it has failed.
fn may_end(error: &Error, required: bool) -> bool {
    match error {
        Error::NoDevice { node } => !required && node == Path::new(GENERATION_NODE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_ends_without_the_device_and_by_nothing_else() {
        let missing = |node: &str| Error::NoDevice { node: node.into() };
        assert!(may_end(&missing(GENERATION_NODE), false));
        assert!(!may_end(&missing(GENERATION_NODE), true));
        assert!(!may_end(&missing("/dev/other"), false));
        assert!(!may_end(&Error::Changed, false));
        assert!(!may_end(&Error::NotPrivileged, false));
    }
}
