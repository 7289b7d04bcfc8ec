// SPDX-License-Identifier: MIT OR Apache-2.0

//! What AWS-LC says of itself. All unsafe code of this package is here.
//!
//! AWS-LC exports these functions (`OPENSSL_EXPORT` in `crypto/ube/vm_ube_detect.h`,
//! `crypto/ube/internal.h`, `crypto/fipsmodule/rand/internal.h` and
//! `crypto/fipsmodule/rand/entropy/internal.h`), but the crate has no bindings for them. Its build
//! puts a prefix with the version before each name, which is why `Cargo.toml` wants exactly this
//! version: with another one, this does not link.

#![expect(unsafe_code)]

use std::ffi::c_int;

// The declarations have no other effect than these, and the crate brings what they name.
use aws_lc_sys as _;

// SAFETY: These are the prototypes in the headers of the version that `Cargo.toml` names. `safe`
// are those without an argument: each returns a number, may be called at any time and by any thread,
// and initializes by itself what it needs.
unsafe extern "C" {
    #[link_name = "aws_lc_0_47_0_CRYPTO_get_vm_ube_supported"]
    safe fn vm_ube_supported() -> c_int;
    #[link_name = "aws_lc_0_47_0_CRYPTO_get_vm_ube_active"]
    safe fn vm_ube_active() -> c_int;
    #[link_name = "aws_lc_0_47_0_CRYPTO_get_vm_ube_generation"]
    fn vm_ube_generation(generation: *mut u32) -> c_int;
    #[link_name = "aws_lc_0_47_0_CRYPTO_get_ube_generation_number"]
    fn ube_generation_number(number: *mut u64) -> c_int;
    #[link_name = "aws_lc_0_47_0_get_private_thread_reseed_calls_since_initialization"]
    safe fn private_thread_reseed_calls() -> u64;
    #[link_name = "aws_lc_0_47_0_get_entropy_source_method_id_FOR_TESTING"]
    safe fn entropy_source_method_id() -> c_int;
    #[link_name = "aws_lc_0_47_0_have_hw_rng_x86_64_for_testing"]
    safe fn have_hw_rng() -> c_int;
}

/// Whether AWS-LC has found the node.
pub fn node_is_found() -> bool {
    vm_ube_supported() == 1
}

/// Whether AWS-LC has the node open and mapped.
pub fn node_is_used() -> bool {
    vm_ube_active() == 1
}

/// The generation that AWS-LC reads in the node: 0 where there is no node, and none where there is
/// one that cannot be used.
pub fn generation() -> Option<u32> {
    let mut generation = 0;
    // SAFETY: The function writes one `u32` there, and keeps no pointer to it.
    let known = unsafe { vm_ube_generation(&raw mut generation) };
    (known == 1).then_some(generation)
}

/// How many events AWS-LC has seen that make two of what must be unique (the forks of this process
/// and the changes of the generation), if it can see them.
pub fn events() -> Option<u64> {
    let mut number = 0;
    // SAFETY: The function writes one `u64` there, and keeps no pointer to it.
    let known = unsafe { ube_generation_number(&raw mut number) };
    (known == 1).then_some(number)
}

/// How often this thread's generator, which `RAND_bytes` draws from, was reseeded since it was made.
pub fn reseeds() -> u64 {
    private_thread_reseed_calls()
}

/// Where AWS-LC takes seeds from.
pub fn seeds_from() -> &'static str {
    match entropy_source_method_id() {
        1 => "jitter",
        2 => "kernel",
        _ => "unknown",
    }
}

/// Whether AWS-LC uses the CPU's RDRAND.
pub fn rdrand_is_used() -> bool {
    have_hw_rng() == 1
}
