// SPDX-License-Identifier: MIT OR Apache-2.0

//! An OpenSSL provider that makes `RAND_bytes()` heed the system generation.
//!
//! OpenSSL keeps the state of its random number generators in the memory of the program. When the machine
//! is cloned, the clones have the same state, and draw the same bytes. This provider offers a
//! `CTR-DRBG` that is OpenSSL's own, of its default provider, and does one thing more: it looks at
//! `/dev/sysgenid` and `/dev/vmgenid` before bytes are drawn and before they leave, and reseeds the
//! generator from the kernel when the machine was cloned. Configuration alone makes OpenSSL take this
//! one instead of its own: see `Documentation/userspace-api/openssl-provider.rst`.
//!
//! - `heed` is the protocol, in safe Rust;
//! - `message` is what an operator can read of it;
//! - `openssl` is the border to OpenSSL, with all unsafe code.

mod heed;
mod message;
mod openssl;
