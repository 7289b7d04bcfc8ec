// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random bytes that no other clone has.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use rustix::rand::getrandom;
use sha2::Digest as _;
use sha2::Sha256;

use crate::Error;
use crate::Result;
use crate::Seen;

/// What a value is built from after a change: what was seen, and random bytes that no other clone
/// has.
///
/// [`SysGenId::settle`](crate::SysGenId::settle) and [`SysGenId::fresh`](crate::SysGenId::fresh)
/// return it.
#[derive(Debug)]
pub struct Fresh {
    seen: Seen,
    confirmed: bool,
}

impl Fresh {
    /// What [`SysGenId::settle`](crate::SysGenId::settle) has returned and an interface for another
    /// language has carried: `seen` and `confirmed` are its [`seen`](Fresh::seen) and
    /// [`is_confirmed`](Fresh::is_confirmed). Of other values it is a wrong promise.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use sysgenid::Fresh;
    ///
    /// let fresh = sysgenid::SysGenId::open()?.fresh();
    /// let carried = Fresh::new(fresh.seen(), fresh.is_confirmed());
    /// assert_eq!(carried.seen(), fresh.seen());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn new(seen: Seen, confirmed: bool) -> Self {
        Self { seen, confirmed }
    }

    /// What was seen. A value that is built now belongs to it: compare with the next look.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let fresh = sysgenid.fresh();
    /// assert_eq!(fresh.seen(), sysgenid.look());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether the kernel's random number generator is known to have been reseeded for this machine.
    ///
    /// If not, then the hypervisor has written a new ID, and the kernel did not say within the limit
    /// that it has heard of it. That deserves a message: the hypervisor, or the driver, does not work
    /// as it should.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let fresh = sysgenid::SysGenId::open()?.fresh();
    /// if !fresh.is_confirmed() {
    ///     eprintln!("the hypervisor has cloned this machine, and the kernel was not told");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Fills `bytes` with random bytes from the kernel.
    ///
    /// Where [`is_confirmed`](Fresh::is_confirmed) is `false`, a stream that is derived from the new
    /// ID, the processor's own random number generator (where there is one) and the clocks is added
    /// to them: what all that is put together is never worse than the kernel's bytes alone.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let mut seed = [0; 32];
    /// sysgenid::SysGenId::open()?.fresh().fill(&mut seed)?;
    /// # assert_ne!(seed, [0; 32]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system call is forbidden, by a sandbox for example.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        fill_from_kernel(bytes)?;
        if !self.confirmed {
            let mut key = Block::default();
            fill_from_kernel(&mut key)?;
            add_stream(&self.seed(&key, &moment()), bytes);
        }
        Ok(())
    }

    /// What the stream that is added begins with: bytes of the kernel, which may be those of a clone;
    /// what tells this machine from its clones; and what tells this moment from others.
    fn seed(&self, key: &Block, moment: &Block) -> Block {
        let mut hash = Sha256::new();
        hash.update(b"sysgenid: no reseed was seen");
        hash.update(key);
        hash.update(self.seen.id().map_or([0; 16], |id| *id.as_bytes()));
        hash.update(self.seen.generation().get().to_ne_bytes());
        hash.update(moment);
        hash.finalize().into()
    }
}

type Block = [u8; 32];

/// What differs from call to call, and from process to process.
fn moment() -> Block {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hash = Sha256::new();
    hash.update(CALLS.fetch_add(1, Ordering::Relaxed).to_ne_bytes());
    hash.update(std::process::id().to_ne_bytes());
    if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
        hash.update(now.as_nanos().to_ne_bytes());
    }
    hash.update(processor_random());
    hash.finalize().into()
}

/// Adds (XOR) a stream to `bytes` that is derived from `seed`.
fn add_stream(seed: &Block, bytes: &mut [u8]) {
    for (number, block) in (0u64..).zip(bytes.chunks_mut(32)) {
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(number.to_ne_bytes());
        for (byte, added) in block.iter_mut().zip(hash.finalize()) {
            *byte ^= added;
        }
    }
}

fn fill_from_kernel(mut bytes: &mut [u8]) -> Result<()> {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(length) => bytes = &mut bytes[length..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("get random bytes from", "the kernel")(error)),
        }
    }
    Ok(())
}

/// 32 bytes of the processor's own random number generator; zeroes where it has none.
fn processor_random() -> Block {
    let mut bytes = Block::default();
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if let Ok(mut generator) = rdrand::RdRand::new() {
        if generator.try_fill_bytes(&mut bytes).is_err() {
            // What it has given until it failed does no harm.
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysgenid::stand_in::StandIn;
    use std::time::Duration;

    /// Even if all else were the same in two clones, and each part of it alone tells two streams apart.
    #[test]
    fn the_id_alone_makes_another_stream() {
        let device = StandIn::new();
        let sysgenid = device.open(Duration::ZERO);
        let seed = |id, generation, key, moment| {
            device.set_id(id);
            device.set_generation(generation);
            Fresh::new(sysgenid.look(), false).seed(&[key; 32], &[moment; 32])
        };
        assert_eq!(seed(1, 1, 1, 1), seed(1, 1, 1, 1));
        for other in [
            seed(2, 1, 1, 1),
            seed(1, 2, 1, 1),
            seed(1, 1, 2, 1),
            seed(1, 1, 1, 2),
        ] {
            assert_ne!(seed(1, 1, 1, 1), other);
        }
    }

    #[test]
    fn no_two_moments_are_equal() {
        assert_ne!(moment(), moment());
    }

    #[test]
    fn a_stream_covers_all_bytes_and_does_not_repeat() {
        let mut bytes = [0; 100];
        add_stream(&[0; 32], &mut bytes);
        let mut words: Vec<_> = bytes.chunks(4).collect();
        assert!(!words.contains(&&[0; 4][..]), "{bytes:?}");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 25, "{bytes:?}");
        // It is added to what is there.
        add_stream(&[0; 32], &mut bytes);
        assert_eq!(bytes, [0; 100]);
    }

    #[test]
    fn every_byte_is_filled() {
        let fresh = Fresh::new(Seen::NOTHING, true);
        let mut or = [0; 300];
        for _ in 0..16 {
            let mut bytes = [0; 300];
            fresh.fill(&mut bytes).expect("the kernel has some");
            or.iter_mut().zip(bytes).for_each(|(or, byte)| *or |= byte);
        }
        assert!(!or.contains(&0));
    }
}
