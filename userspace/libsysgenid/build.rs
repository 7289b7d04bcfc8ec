// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the shared library its soname, by which programs find it.

fn main() {
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsysgenid.so.{major}");
    println!("cargo::rerun-if-changed=build.rs");
}
