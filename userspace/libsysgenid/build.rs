// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the shared library its soname, by which programs find it.
//!
//! Before 1.0 a minor version may differ from the one before it, so it has a name of its own.

fn main() {
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    let minor = env!("CARGO_PKG_VERSION_MINOR");
    let version = match major {
        "0" => format!("0.{minor}"),
        _ => major.to_owned(),
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsysgenid.so.{version}");
    println!("cargo::rerun-if-changed=build.rs");
}
