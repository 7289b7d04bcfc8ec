// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random bytes that no other clone has.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use rustix::rand::getrandom;
use sha2::Digest as _;
use sha2::Sha256;
use zeroize::Zeroize as _;
use zeroize::Zeroizing;

use crate::Error;
use crate::Result;
use crate::Seen;

/// Whether the kernel's random number generator is known to have been reseeded for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The driver says that it was, with the hypervisor's ID of this machine in it.
    Reseeded,
    /// The driver says that it was not: the hypervisor has given no ID, or the kernel could not be
    /// made to reseed.
    NotReseeded,
    /// The driver is an older one, which does not say.
    NotSaid,
    /// The driver has not answered the hypervisor's ID within the limit.
    TimedOut,
    /// There is no device, and so nothing that could be known.
    NoDevice,
}

/// What a value is built from after a change: what was seen, and random bytes that no other clone
/// has.
///
/// [`SysGenId::settle`](crate::SysGenId::settle) returns it.
#[derive(Debug)]
pub struct Fresh {
    seen: Seen,
    freshness: Freshness,
}

impl Fresh {
    /// What [`SysGenId::settle`](crate::SysGenId::settle) has returned and an interface for another
    /// language has carried: `seen` and `freshness` are its [`seen`](Fresh::seen) and
    /// [`freshness`](Fresh::freshness). Of other values it is a wrong promise.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Fresh;
    ///
    /// let fresh = sysgenid::SysGenId::open()?.settle();
    /// let carried = Fresh::new(fresh.seen(), fresh.freshness());
    /// assert_eq!(carried.seen(), fresh.seen());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub const fn new(seen: Seen, freshness: Freshness) -> Self {
        Self { seen, freshness }
    }

    /// What a value is built from where there is no device.
    ///
    /// ```
    /// use sysgenid::Fresh;
    /// use sysgenid::Freshness;
    ///
    /// assert_eq!(Fresh::without_device().freshness(), Freshness::NoDevice);
    /// ```
    #[must_use]
    pub fn without_device() -> Self {
        Self::new(Seen::without_device(), Freshness::NoDevice)
    }

    /// What was seen. A value that is built now belongs to it: compare with the next look.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let sysgenid = sysgenid::SysGenId::open()?;
    /// let fresh = sysgenid.settle();
    /// assert_eq!(fresh.seen(), sysgenid.look());
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Whether the kernel's random number generator is known to have been reseeded for this machine,
    /// and if not, why not.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::Freshness;
    ///
    /// let fresh = sysgenid::SysGenId::open()?.settle();
    /// if fresh.freshness() == Freshness::TimedOut {
    ///     eprintln!("the hypervisor has cloned this machine, and the kernel was not told");
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Whether the kernel's random number generator is known to have been reseeded for this machine.
    ///
    /// If not, then other clones may draw the same bytes from the kernel. Where there is a device, an
    /// operator should hear of it, with [`Fresh::freshness`] as the reason.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let fresh = sysgenid::SysGenId::open()?.settle();
    /// if !fresh.is_confirmed() {
    ///     eprintln!("is this machine a clone? {:?}", fresh.freshness());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.freshness == Freshness::Reseeded
    }

    /// Fills `bytes` with random bytes from the kernel, to which a stream is added (XOR) that is derived
    /// from the ID, the processor's own random number generator (where there is one) and the moment.
    ///
    /// What all that is put together is never worse than the kernel's bytes alone. Where
    /// [`is_confirmed`](Fresh::is_confirmed) is `false` it may be all that tells them from those of
    /// another clone: of two clones to whom neither the hypervisor nor the processor gives anything of
    /// their own, nothing can.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let mut seed = [0; 32];
    /// sysgenid::SysGenId::open()?.settle().fill(&mut seed)?;
    /// # assert_ne!(seed, [0; 32]);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system call is forbidden, by a sandbox for example. Then `bytes` holds
    /// zeroes.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.fill_from(fill_from_kernel, bytes)
    }

    fn fill_from(&self, source: impl Fn(&mut [u8]) -> Result<()>, bytes: &mut [u8]) -> Result<()> {
        let mut key = Zeroizing::new(Block::default());
        let drawn = source(bytes).and_then(|()| source(&mut *key));
        if drawn.is_err() {
            bytes.zeroize();
            return drawn;
        }
        add_stream(&self.seed(&key, &moment()), bytes);
        Ok(())
    }

    /// What the stream that is added begins with: bytes of the kernel, which may be those of a clone;
    /// what tells this machine from its clones; and what tells this moment from others.
    fn seed(&self, key: &Block, moment: &Block) -> Zeroizing<Block> {
        let mut hash = Sha256::new();
        hash.update(b"sysgenid: added to the kernel's");
        hash.update(key);
        hash.update(self.seen.id().map_or([0; 16], |id| *id.as_bytes()));
        hash.update(self.seen.generation().get().to_ne_bytes());
        hash.update(self.seen.epoch().to_ne_bytes());
        hash.update(self.seen.process().to_ne_bytes());
        hash.update(moment);
        Zeroizing::new(hash.finalize().into())
    }
}

type Block = [u8; 32];

/// What differs from call to call.
fn moment() -> Zeroizing<Block> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hash = Sha256::new();
    hash.update(CALLS.fetch_add(1, Ordering::Relaxed).to_ne_bytes());
    hash.update(ticks().to_ne_bytes());
    hash.update(*processor_random());
    Zeroizing::new(hash.finalize().into())
}

/// The time, by whatever clock is read without a system call: where the processor has none that the
/// kernel trusts, even the time of day takes one, which a sandbox may forbid.
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    return crate::sys::processor_clock();
    // The kernel lets programs read these processors' clocks in the time of day.
    #[cfg(not(target_arch = "x86_64"))]
    return std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() << 30 | u64::from(now.subsec_nanos()));
}

/// Adds (XOR) a stream to `bytes` that is derived from `seed`.
fn add_stream(seed: &Block, bytes: &mut [u8]) {
    for (number, block) in (0u64..).zip(bytes.chunks_mut(32)) {
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(number.to_ne_bytes());
        let stream = Zeroizing::new(Block::from(hash.finalize()));
        for (byte, added) in block.iter_mut().zip(*stream) {
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

/// 32 bytes of the processor's own random number generator; zeroes where it has none, or none to rely on
/// (AMD's before Zen).
pub(crate) fn processor_random() -> Zeroizing<Block> {
    let mut bytes = Zeroizing::new(Block::default());
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if let Ok(mut generator) = rdrand::RdRand::new() {
        if generator.try_fill_bytes(&mut *bytes).is_err() {
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
            Fresh::new(sysgenid.look(), Freshness::TimedOut).seed(&[key; 32], &[moment; 32])
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

    const ALL: [Freshness; 5] = [
        Freshness::Reseeded,
        Freshness::NotReseeded,
        Freshness::NotSaid,
        Freshness::TimedOut,
        Freshness::NoDevice,
    ];

    /// A kernel that gives all clones the same.
    #[test]
    fn more_is_mixed_in_whatever_is_confirmed() {
        for freshness in ALL {
            let fill = || {
                let mut bytes = [0; 40];
                let source = |bytes: &mut [u8]| {
                    bytes.fill(7);
                    Ok(())
                };
                let fresh = Fresh::new(Seen::without_device(), freshness);
                fresh.fill_from(source, &mut bytes).expect("it has some");
                bytes
            };
            let bytes = fill();
            assert!(!bytes.chunks(8).any(|chunk| chunk == [7; 8]), "{bytes:?}");
            assert_ne!(fill(), bytes, "{freshness:?}");
        }
    }

    #[test]
    fn what_nobody_has_confirmed_is_not_confirmed() {
        let is_confirmed = |freshness| Fresh::new(Seen::without_device(), freshness).is_confirmed();
        let confirmed: Vec<_> = ALL.into_iter().filter(|&one| is_confirmed(one)).collect();
        assert_eq!(confirmed, [Freshness::Reseeded]);
    }

    /// Neither the first bytes that were drawn nor the key are left, if the kernel gives no more.
    #[test]
    fn what_fails_leaves_nothing() {
        for works in 0..2 {
            let calls = AtomicU64::new(0);
            let source = |bytes: &mut [u8]| {
                bytes.fill(7);
                if calls.fetch_add(1, Ordering::Relaxed) < works {
                    return Ok(());
                }
                Err(Error::io("get random bytes from", "the kernel")(
                    Errno::PERM,
                ))
            };
            let mut bytes = [1; 40];
            let fresh = Fresh::new(Seen::without_device(), Freshness::Reseeded);
            assert!(fresh.fill_from(source, &mut bytes).is_err());
            assert_eq!(bytes, [0; 40]);
        }
    }

    #[test]
    fn no_two_moments_are_equal() {
        assert_ne!(moment(), moment());
    }

    #[test]
    fn the_clock_goes_on() {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(2));
        assert_ne!(ticks(), before);
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
        let fresh = Fresh::without_device();
        let mut or = [0; 300];
        for _ in 0..16 {
            let mut bytes = [0; 300];
            fresh.fill(&mut bytes).expect("the kernel has some");
            or.iter_mut().zip(bytes).for_each(|(or, byte)| *or |= byte);
        }
        assert!(!or.contains(&0));
    }
}
