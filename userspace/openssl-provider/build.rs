// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes Rust of OpenSSL's headers: the numbers, names and types by which the core and a provider talk.
//!
//! They are taken from the headers that are installed, and not from a crate: openssl-sys has nothing of
//! the provider's side. The program `bindgen` does it, which distributions have; as a crate it takes
//! longer to build than everything else here. Nothing is linked with libcrypto: a provider gets all
//! that it calls from the core, and so it works with the libcrypto of the program, wherever that is.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const HEADER: &str = "src/openssl.h";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={HEADER}");
    let openssl = pkg_config::Config::new()
        .atleast_version("3.0")
        .cargo_metadata(false)
        .probe("libcrypto")
        .map_err(|error| {
            format!(
                "the headers of OpenSSL 3 are needed (on Debian: apt-get install libssl-dev \
                 pkgconf)\n{error}"
            )
        })?;
    let output = PathBuf::from(env::var("OUT_DIR")?).join("openssl.rs");
    let mut bindgen = Command::new("bindgen");
    bindgen
        .arg(HEADER)
        .arg("--output")
        .arg(output)
        .args(["--generate-cstr", "--no-layout-tests"])
        .args(["--default-macro-constant-type", "signed"])
        .args([
            "--allowlist-type",
            "OSSL_(ALGORITHM|CORE_HANDLE|DISPATCH|PARAM)",
        ])
        .args([
            "--allowlist-type",
            "OSSL_FUNC_(core_get_params|provider_.*|rand_.*)_fn",
        ])
        .args(["--allowlist-var", "OSSL_OP_RAND"])
        .args([
            "--allowlist-var",
            "OSSL_FUNC_(CORE_GET_PARAMS|PROVIDER_.*|RAND_.*)",
        ])
        .args(["--allowlist-var", "OSSL_(DRBG|PROV)_PARAM_.*"])
        .args(["--allowlist-var", "OSSL_PARAM_[A-Z0-9_]*"])
        .arg("--");
    for path in openssl.include_paths {
        bindgen.arg(format!("-I{}", path.display()));
    }
    let status = bindgen.status().map_err(|error| {
        format!(
            "cannot run bindgen, which is needed (on Debian 13: apt-get install bindgen): {error}"
        )
    })?;
    if !status.success() {
        return Err(format!(
            "bindgen cannot read OpenSSL's headers ({status}); it has to be of version 0.66 or newer, \
             as that of Debian 13 is"
        )
        .into());
    }
    Ok(())
}
