// SPDX-License-Identifier: MIT OR Apache-2.0

//! Know when the machine was cloned.
//!
//! A virtual machine that is saved once and resumed twice becomes two machines with one memory: the
//! same random pools, the same “unique” IDs, the same half-done transactions. The kernel's
//! `/dev/sysgenid` has a number, the *generation*, which changes whenever that may have happened.
//! Where the hypervisor's own page can be seen, in `/dev/vmgenid`, a clone has a new ID there from
//! its first instruction on. This crate looks at both, and at the driver's answer to the ID, by the
//! protocol in `Documentation/userspace-api/vmgenid.rst`.
//!
//! # A program that keeps what must be unique
//!
//! [`Cached`] holds a value that is built anew when the machine was cloned. While nothing has
//! changed, using it costs a lock that nobody else holds and a few loads; it makes no system call.
//!
//! ```
//! use sysgenid::Cached;
//! use sysgenid::SysGenId;
//!
//! # sysgenid::__on_the_device(|| {
//! // A session token, which two machines must never share.
//! let token = Cached::new(SysGenId::open()?, |fresh| {
//!     let mut token = [0; 16];
//!     fresh.fill(&mut token)?;
//!     Ok(token)
//! });
//! let mine = token.with(|token| *token)?;
//! assert_eq!(token.with(|token| *token)?, mine, "nothing has changed");
//! # Ok(())
//! # });
//! ```
//!
//! [`SysGenId`] is what is below that: [`look`](SysGenId::look), do the work, and look again. A
//! [`Guard`] does it for work that cannot be done again by calling a closure, such as a transaction.
//!
//! # A program that draws random numbers
//!
//! With the feature `rand`, `rng()` is what `rand::rng()` of the crate rand is, a generator for each
//! thread, and is seeded anew when the machine was cloned; `ReseedOnClone` does that for any other
//! generator. Both implement the traits of `rand_core` 0.10 and, with the feature `rand_0_9`, those of
//! 0.9.
//!
//! # A program that wants to be told
//!
//! A [`Watcher`] is a descriptor for an event loop: it becomes readable when the generation changes,
//! and stays so until the program has rebuilt its state and [acknowledges](Watcher::ack). With the
//! feature `tokio` there is an `AsyncWatcher`.
//!
//! # A program that brings a clone back into service
//!
//! An [`Overseer`] changes the generation, waits until every tracked watcher has acknowledged, and
//! lists those that have not.
//!
//! # What remains
//!
//! A snapshot that is taken between a program's last look and its use of a secret cannot be seen by
//! the program. Only an overseer that quiesces it before the snapshot can exclude that.
//! Where [`SysGenId::id_page`] is neither [`IdPage::Mapped`] nor [`IdPage::Read`], there is a window as
//! well: for some milliseconds after the resume of a clone (seconds, where the hypervisor notifies
//! nobody) the generation is the old one, and even `getrandom()` returns the same bytes in all clones.
//! [`Fresh::freshness`] says where the kernel's random bytes are not known to be fresh.

mod cached;
mod error;
mod examples;
mod fresh;
mod generation;
mod overseer;
mod process;
#[cfg(feature = "rand")]
mod rng;
mod status;
mod survey;
mod sys;
mod sysgenid;
#[cfg(feature = "tokio")]
mod tokio;
mod watcher;

pub use crate::cached::Cached;
pub use crate::cached::Guard;
pub use crate::error::BuildError;
pub use crate::error::Error;
pub use crate::error::Result;
#[doc(hidden)]
pub use crate::examples::__on_the_device;
pub use crate::fresh::Fresh;
pub use crate::fresh::Freshness;
pub use crate::generation::Generation;
pub use crate::generation::VmId;
pub use crate::overseer::Overseer;
#[cfg(feature = "rand")]
pub use crate::rng::ReseedOnClone;
#[cfg(feature = "rand")]
pub use crate::rng::ThreadRng;
#[cfg(feature = "rand")]
pub use crate::rng::rng;
pub use crate::status::Status;
pub use crate::survey::Survey;
pub use crate::survey::SurveyEntry;
pub use crate::sysgenid::IdPage;
pub use crate::sysgenid::Options;
pub use crate::sysgenid::Seen;
pub use crate::sysgenid::SysGenId;
#[cfg(any(test, feature = "__stand-in"))]
#[doc(hidden)]
pub use crate::sysgenid::stand_in;
#[cfg(feature = "tokio")]
pub use crate::tokio::AsyncWatcher;
pub use crate::watcher::Watcher;

/// Where the driver's node is: `/dev/sysgenid`.
pub const GENERATION_NODE: &str = "/dev/sysgenid";

/// Where the node with the hypervisor's own page is: `/dev/vmgenid`.
pub const ID_NODE: &str = "/dev/vmgenid";
