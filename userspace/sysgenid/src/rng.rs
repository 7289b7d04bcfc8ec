// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random number generators that are seeded anew when the machine was cloned.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use chacha20::ChaCha12Rng;
use rand_core::SeedableRng as _;

use crate::Error;
use crate::Fresh;
use crate::Freshness;
use crate::Result;
use crate::Seen;
use crate::SysGenId;
use crate::cached::ATTEMPTS;

/// After so many bytes the generator of a thread is seeded anew, whether or not anything has changed;
/// the crate rand does the same.
const RESEED_AFTER: usize = 64 << 10;

/// How long a thread does without looking for a device that was not there.
const LOOK_FOR_IT_AFTER: Duration = Duration::from_secs(1);

/// What the infallible methods say when they panic.
const FAILED: &str = "no random number that no other clone has";

/// What tells that a generator must be seeded anew.
#[derive(Clone, Debug)]
enum Sign {
    /// All that the protocol looks at.
    Device(SysGenId),
    /// There is no device. Whether the process was forked can be seen all the same, but in a kernel
    /// before 4.14.
    Process,
}

impl Sign {
    #[inline]
    fn look(&self) -> Seen {
        match self {
            Self::Device(sysgenid) => sysgenid.look(),
            Self::Process => Seen::without_device(),
        }
    }

    fn settle(&self) -> Fresh {
        match self {
            Self::Device(sysgenid) => sysgenid.settle(),
            Self::Process => Fresh::without_device(),
        }
    }
}

/// Makes a generator.
type Make<R> = Box<dyn Fn(&Fresh) -> Result<R> + Send + Sync>;

/// A random number generator that is seeded anew when the machine was cloned, the generation was
/// changed, or the process was forked.
///
/// It wraps a generator of whatever kind that can be made from a seed, and implements the traits of
/// `rand_core` that the generator implements: `TryRng`, `Rng` and `CryptoRng` of `rand_core` 0.10 and,
/// with the feature `rand_0_9`, `RngCore` and `CryptoRng` of `rand_core` 0.9.
///
/// Each draw costs one look, which comes *after* it: what was drawn leaves only if nothing has changed
/// since the generator was seeded. Otherwise it is thrown away, the generator is seeded anew, and the
/// draw is done again, 16 times at most. `fill_bytes` looks before as well, so that a generator that
/// is known to be a clone's writes nothing into the caller's memory.
///
/// A snapshot that is taken between that look and the use of what was drawn cannot be seen by the
/// generator. Where a secret leaves the program, look again: [`SysGenId::guard`].
///
/// ```
/// # sysgenid::__on_the_device(|| {
/// use rand::RngExt as _;
/// use rand::SeedableRng as _;
/// use rand::rngs::StdRng;
/// use sysgenid::ReseedOnClone;
/// use sysgenid::SysGenId;
///
/// let mut rng = ReseedOnClone::new(SysGenId::open()?, StdRng::from_seed)?;
/// let key: [u8; 32] = rng.random();
/// # assert_ne!(key, [0; 32]);
/// # Ok(())
/// # });
/// ```
///
/// # Panics
///
/// The methods of `rand_core`'s traits panic where [`with`](ReseedOnClone::with) returns an error.
pub struct ReseedOnClone<R> {
    generator: R,
    /// What was seen when it was seeded; nothing may come of it if this is `None`.
    seen: Option<Seen>,
    freshness: Freshness,
    sign: Sign,
    make: Make<R>,
}

impl<R> ReseedOnClone<R> {
    /// A generator that `from_seed` makes, from bytes that no other clone has. That is a generator's
    /// own `from_seed` (`SeedableRng::from_seed`), of whatever release of `rand_core`.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use sysgenid::ReseedOnClone;
    /// use sysgenid::SysGenId;
    ///
    /// // With the feature `rand_0_9`, the same for generators of `rand_core` 0.9:
    /// use rand_0_9::Rng as _;
    /// use rand_0_9::SeedableRng as _;
    /// use rand_0_9::rngs::StdRng;
    ///
    /// let mut rng = ReseedOnClone::new(SysGenId::open()?, StdRng::from_seed)?;
    /// let dice = rng.random_range(1..=6);
    /// # assert!((1..=6).contains(&dice));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system call `getrandom()` is forbidden, by a sandbox for example. Where
    /// there is no device, [`SysGenId::open`] says so before.
    pub fn new<S: Default + AsMut<[u8]>>(
        sysgenid: SysGenId,
        from_seed: impl Fn(S) -> R + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::seeded(Sign::Device(sysgenid), from_seed)
    }

    fn seeded<S: Default + AsMut<[u8]>>(
        sign: Sign,
        from_seed: impl Fn(S) -> R + Send + Sync + 'static,
    ) -> Result<Self> {
        let make: Make<R> = Box::new(move |fresh| {
            let mut seed = S::default();
            fresh.fill(seed.as_mut())?;
            Ok(from_seed(seed))
        });
        let fresh = sign.settle();
        Ok(Self {
            generator: make(&fresh)?,
            seen: Some(fresh.seen()),
            freshness: fresh.freshness(),
            sign,
            make,
        })
    }

    /// Uses the generator, and returns what the closure makes of it: for more than one draw at the cost
    /// of one look, and for an error instead of a panic.
    ///
    /// If the machine was cloned before or while the closure ran, then what it returned is thrown away,
    /// the generator is seeded anew, and the closure runs again. So it should have no effect besides
    /// what it returns.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// use rand::SeedableRng as _;
    /// use rand::rngs::StdRng;
    /// use rand::seq::SliceRandom as _;
    /// use sysgenid::ReseedOnClone;
    /// use sysgenid::SysGenId;
    ///
    /// let mut rng = ReseedOnClone::new(SysGenId::open()?, StdRng::from_seed)?;
    /// let order = rng.with(|rng| {
    ///     let mut order = [1, 2, 3, 4, 5];
    ///     order.shuffle(rng);
    ///     order
    /// })?;
    /// # assert_eq!(order.iter().sum::<i32>(), 15);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the generator has to be seeded anew, and the system call `getrandom()` is
    /// forbidden; the next use tries again. [`Error::Unsettled`] if the generation changes all the time.
    #[inline]
    pub fn with<T>(&mut self, mut draw: impl FnMut(&mut R) -> T) -> Result<T> {
        let drawn = draw(&mut self.generator);
        if self.is_current() {
            return Ok(drawn);
        }
        drop(drawn);
        self.anew(draw)
    }

    /// How the kernel's random bytes were when the generator was seeded last: where they were not known
    /// to be fresh, an operator should hear of it.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// # use rand::SeedableRng as _;
    /// # use rand::rngs::StdRng;
    /// use sysgenid::Freshness;
    /// use sysgenid::ReseedOnClone;
    /// use sysgenid::SysGenId;
    ///
    /// let rng = ReseedOnClone::new(SysGenId::open()?, StdRng::from_seed)?;
    /// if rng.freshness() != Freshness::Reseeded {
    ///     eprintln!("is this machine a clone? {:?}", rng.freshness());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Looks whether what was drawn may leave.
    #[inline]
    fn is_current(&self) -> bool {
        self.seen == Some(self.sign.look())
    }

    #[cold]
    fn anew<T>(&mut self, mut draw: impl FnMut(&mut R) -> T) -> Result<T> {
        for _ in 0..ATTEMPTS {
            self.reseed()?;
            let drawn = draw(&mut self.generator);
            if self.is_current() {
                return Ok(drawn);
            }
        }
        Err(Error::Unsettled { attempts: ATTEMPTS })
    }

    #[cold]
    fn reseed(&mut self) -> Result<()> {
        // Whatever fails from here on, nothing comes of the old state any more.
        self.seen = None;
        let fresh = self.sign.settle();
        self.generator = (self.make)(&fresh)?;
        self.freshness = fresh.freshness();
        self.seen = Some(fresh.seen());
        Ok(())
    }

    /// Looks, has `bytes` filled, and looks again. They are zeroes where it fails.
    fn fill(&mut self, bytes: &mut [u8], fill: impl Fn(&mut R, &mut [u8])) -> Result<()> {
        let filled = if self.is_current() {
            self.with(|generator| fill(generator, bytes))
        } else {
            self.anew(|generator| fill(generator, bytes))
        };
        filled.inspect_err(|_| bytes.fill(0))
    }
}

/// Does not show the generator, whose state is a secret.
impl<R> fmt::Debug for ReseedOnClone<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReseedOnClone")
            .field("freshness", &self.freshness)
            .finish_non_exhaustive()
    }
}

impl<R: rand_core::Rng> rand_core::TryRng for ReseedOnClone<R> {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        Ok(self.with(R::next_u32).expect(FAILED))
    }

    #[inline]
    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        Ok(self.with(R::next_u64).expect(FAILED))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.fill(bytes, R::fill_bytes).expect(FAILED);
        Ok(())
    }
}

impl<R: rand_core::CryptoRng> rand_core::TryCryptoRng for ReseedOnClone<R> {}

#[cfg(feature = "rand_0_9")]
impl<R: rand_core_0_9::RngCore> rand_core_0_9::RngCore for ReseedOnClone<R> {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        self.with(R::next_u32).expect(FAILED)
    }

    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.with(R::next_u64).expect(FAILED)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.fill(bytes, R::fill_bytes).expect(FAILED);
    }
}

#[cfg(feature = "rand_0_9")]
impl<R: rand_core_0_9::CryptoRng> rand_core_0_9::CryptoRng for ReseedOnClone<R> {}

/// What all threads of the process have in common.
struct Shared {
    device: Option<SysGenId>,
    /// When somebody looked for a device in vain.
    looked: Option<Instant>,
}

/// Nobody waits for it: after a fork, it may stay locked by a thread that is not there.
static SHARED: Mutex<Shared> = Mutex::new(Shared {
    device: None,
    looked: None,
});

/// The device, opened once for all threads, or why it cannot be.
fn device() -> Result<SysGenId> {
    let Ok(mut shared) = SHARED.try_lock() else {
        return SysGenId::open();
    };
    if let Some(device) = &shared.device {
        return Ok(device.clone());
    }
    let device = SysGenId::open().inspect_err(|_| shared.looked = Some(Instant::now()))?;
    shared.device = Some(device.clone());
    Ok(device)
}

/// What a new generator looks at. Who finds no device makes others not look for it for a second.
fn sign() -> Sign {
    let lately = |looked: Instant| looked.elapsed() < LOOK_FOR_IT_AFTER;
    let in_vain = SHARED
        .try_lock()
        .is_ok_and(|shared| shared.looked.is_some_and(lately));
    match if in_vain { None } else { device().ok() } {
        Some(device) => Sign::Device(device),
        None => Sign::Process,
    }
}

/// The generator of a thread.
struct Local {
    rng: ReseedOnClone<ChaCha12Rng>,
    /// How many bytes may be drawn until it is seeded anew.
    left: usize,
}

impl Local {
    fn new(sign: Sign) -> Result<Self> {
        Ok(Self {
            rng: ReseedOnClone::seeded(sign, ChaCha12Rng::from_seed)?,
            left: RESEED_AFTER,
        })
    }

    /// What is drawn from, when so many bytes are to be drawn.
    #[inline]
    fn rng(&mut self, bytes: usize) -> Result<&mut ReseedOnClone<ChaCha12Rng>> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.renew(bytes)?,
        }
        Ok(&mut self.rng)
    }

    #[cold]
    fn renew(&mut self, bytes: usize) -> Result<()> {
        self.rng.reseed()?;
        self.left = RESEED_AFTER.saturating_sub(bytes);
        Ok(())
    }

    #[inline]
    fn next_u32(&mut self) -> Result<u32> {
        self.rng(4)?.with(rand_core::Rng::next_u32)
    }

    #[inline]
    fn next_u64(&mut self) -> Result<u64> {
        self.rng(8)?.with(rand_core::Rng::next_u64)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.rng(bytes.len())
            .and_then(|rng| rng.fill(bytes, rand_core::Rng::fill_bytes))
            .inspect_err(|_| bytes.fill(0))
    }
}

thread_local! {
    static LOCAL: Rc<RefCell<Local>> =
        Rc::new(RefCell::new(Local::new(sign()).expect(FAILED)));
}

/// The generator of this thread: a handle, as `rand::rng()` of the crate rand returns one, for a
/// generator that is seeded anew when the machine was cloned, the generation was changed, or the
/// process was forked.
///
/// ```
/// use rand::RngExt as _;
///
/// let key: [u8; 32] = sysgenid::rng().random();
/// # assert_ne!(key, [0; 32]);
/// ```
///
/// **Where there is no device** (the module is not loaded, or this process may not open it) it is a
/// generator like any other: seeded by the kernel, and after a fork, but not protected from clones.
/// [`ThreadRng::is_protected`] says so, and [`ThreadRng::protect`] says why, or protects it. The
/// generator of a new thread looks for the device again, but no more than once a second in all threads.
///
/// A program that forbids itself system calls calls this before: the first generator of the process
/// opens the device, and from then on those of all threads make no system call but `clock_nanosleep()`
/// and `getrandom()`. Without a device, those of new threads try to open it.
///
/// # Panics
///
/// Where the system call `getrandom()` is forbidden, by a sandbox for example, and the thread has drawn
/// nothing yet.
#[must_use]
pub fn rng() -> ThreadRng {
    ThreadRng(LOCAL.with(Rc::clone))
}

/// The handle for a thread's generator that [`rng`] returns.
///
/// The generator is `ChaCha12` and seeded anew every 64 KiB, as that of the crate rand is; besides, it
/// does what is said of [`ReseedOnClone`]: one look after each draw.
///
/// # Panics
///
/// The methods of `rand_core`'s traits panic where [`try_fill`](ThreadRng::try_fill) returns an error.
#[derive(Clone)]
pub struct ThreadRng(Rc<RefCell<Local>>);

impl ThreadRng {
    /// Whether the generator looks at the device, so that no clone draws what another one does.
    ///
    /// ```
    /// if !sysgenid::rng().is_protected() {
    ///     eprintln!("clones of this machine draw the same random numbers");
    /// }
    /// ```
    #[must_use]
    pub fn is_protected(&self) -> bool {
        matches!(self.0.borrow().rng.sign, Sign::Device(_))
    }

    /// Protects the generator if it is not yet: the way to find out why it is not, and for a program
    /// that does without random numbers rather than to share them.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// let rng = sysgenid::rng();
    /// rng.protect()?;
    /// assert!(rng.is_protected());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SysGenId::open`]: [`Error::NoDevice`] where there is none.
    pub fn protect(&self) -> Result<()> {
        if !self.is_protected() {
            let local = Local::new(Sign::Device(device()?))?;
            *self.0.borrow_mut() = local;
        }
        Ok(())
    }

    /// What the generator looks at, for who looks again before a secret leaves: [`SysGenId::guard`].
    /// `None` if it is not protected.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// use rand::RngExt as _;
    ///
    /// let mut rng = sysgenid::rng();
    /// let guard = rng.sysgenid().map(|sysgenid| sysgenid.guard());
    /// let token: u128 = rng.random();
    /// // … encrypt it …
    /// if let Some(guard) = guard {
    ///     guard.check()?;
    /// }
    /// // … and send it.
    /// # assert_ne!(token, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sysgenid(&self) -> Option<SysGenId> {
        match &self.0.borrow().rng.sign {
            Sign::Device(sysgenid) => Some(sysgenid.clone()),
            Sign::Process => None,
        }
    }

    /// As [`ReseedOnClone::freshness`]; [`Freshness::NoDevice`] if it is not protected.
    ///
    /// ```
    /// let rng = sysgenid::rng();
    /// let without = rng.freshness() == sysgenid::Freshness::NoDevice;
    /// assert_eq!(rng.is_protected(), !without);
    /// ```
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.0.borrow().rng.freshness
    }

    /// Fills `bytes`, or returns an error where the methods of `rand_core`'s traits panic.
    ///
    /// ```
    /// # fn main() -> Result<(), sysgenid::Error> {
    /// let mut key = [0; 32];
    /// sysgenid::rng().try_fill(&mut key)?;
    /// # assert_ne!(key, [0; 32]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the generator has to be seeded anew, and the system call `getrandom()` is
    /// forbidden; the next use tries again. [`Error::Unsettled`] if the generation changes all the time.
    /// The bytes are zeroes then.
    pub fn try_fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.0.borrow_mut().fill(bytes)
    }
}

/// The same as [`rng`].
impl Default for ThreadRng {
    fn default() -> Self {
        rng()
    }
}

/// Does not show the generator, whose state is a secret.
impl fmt::Debug for ThreadRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadRng").finish_non_exhaustive()
    }
}

impl rand_core::TryRng for ThreadRng {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        Ok(self.0.borrow_mut().next_u32().expect(FAILED))
    }

    #[inline]
    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        Ok(self.0.borrow_mut().next_u64().expect(FAILED))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.try_fill(bytes).expect(FAILED);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for ThreadRng {}

#[cfg(feature = "rand_0_9")]
impl rand_core_0_9::RngCore for ThreadRng {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        self.0.borrow_mut().next_u32().expect(FAILED)
    }

    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.0.borrow_mut().next_u64().expect(FAILED)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.try_fill(bytes).expect(FAILED);
    }
}

#[cfg(feature = "rand_0_9")]
impl rand_core_0_9::CryptoRng for ThreadRng {}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use rand_core::CryptoRng;
    use rand_core::Rng as _;
    use rand_core::TryRng;

    use super::*;
    use crate::sys;
    use crate::sysgenid::stand_in::StandIn;

    const LONG: Duration = Duration::from_secs(60);

    /// When the machine is cloned: never, while the first generator draws, or at each draw.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Cloned {
        Never,
        Once,
        Always,
    }

    /// What several generators have in common.
    struct Scene {
        device: StandIn,
        cloned: Cloned,
        /// How many generators were made.
        made: Mutex<u32>,
        /// Which of them has drawn, each time.
        drawn: Mutex<Vec<u32>>,
    }

    /// A generator that draws its own number, from 1 on.
    struct Numbered {
        number: u32,
        scene: Arc<Scene>,
    }

    impl TryRng for Numbered {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
            let scene = &*self.scene;
            let mut drawn = scene.drawn.lock().expect("no test panics here");
            drawn.push(self.number);
            let count = u8::try_from(drawn.len()).expect("a few draws");
            if scene.cloned == Cloned::Always || (scene.cloned == Cloned::Once && count == 1) {
                scene.device.set_id(count);
                scene.device.set_generation(count.into());
            }
            Ok(self.number)
        }

        fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
            self.try_next_u32().map(u64::from)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
            bytes.fill(self.next_u32().to_le_bytes()[0]);
            Ok(())
        }
    }

    impl Scene {
        fn new(cloned: Cloned) -> Arc<Self> {
            Arc::new(Self {
                device: StandIn::new(),
                cloned,
                made: Mutex::new(0),
                drawn: Mutex::default(),
            })
        }

        fn rng(self: &Arc<Self>) -> ReseedOnClone<Numbered> {
            let scene = Arc::clone(self);
            let make = move |_: [u8; 1]| {
                let mut made = scene.made.lock().expect("no test panics here");
                *made += 1;
                Numbered {
                    number: *made,
                    scene: Arc::clone(&scene),
                }
            };
            ReseedOnClone::new(self.device.open(LONG), make).expect("the kernel has some")
        }

        fn drawn(&self) -> Vec<u32> {
            self.drawn.lock().expect("no test panics here").clone()
        }
    }

    /// Each way to draw once, and the number of the generator that has.
    const WAYS: [fn(&mut ReseedOnClone<Numbered>) -> u32; 4] = [
        |rng| rng.next_u32(),
        |rng| u32::try_from(rng.next_u64()).expect("a small number"),
        |rng| {
            let mut bytes = [0; 3];
            rng.fill_bytes(&mut bytes);
            assert_eq!(bytes, [bytes[0]; 3]);
            bytes[0].into()
        },
        |rng| rng.with(Numbered::next_u32).expect("it settles"),
    ];

    #[test]
    fn one_generator_while_nothing_changes() {
        let scene = Scene::new(Cloned::Never);
        let mut rng = scene.rng();
        for draw in WAYS {
            assert_eq!(draw(&mut rng), 1);
        }
        assert_eq!(scene.drawn(), [1; 4]);
    }

    #[test]
    fn another_generator_for_each_change() {
        let scene = Scene::new(Cloned::Never);
        let mut rng = scene.rng();
        for (generation, draw) in (1..).zip(WAYS) {
            scene.device.set_generation(generation);
            assert_eq!(draw(&mut rng), generation + 1);
            assert_eq!(draw(&mut rng), generation + 1);
        }
    }

    #[test]
    fn what_was_drawn_across_a_change_is_thrown_away() {
        for draw in WAYS {
            let scene = Scene::new(Cloned::Once);
            assert_eq!(draw(&mut scene.rng()), 2);
            assert_eq!(scene.drawn(), [1, 2]);
        }
    }

    /// Only the bytes of the caller could show it.
    #[test]
    fn a_generator_that_is_known_to_be_a_clones_fills_nothing() {
        let scene = Scene::new(Cloned::Never);
        let mut rng = scene.rng();
        scene.device.set_generation(1);
        rng.fill_bytes(&mut [0]);
        assert_eq!(scene.drawn(), [2]);
    }

    #[test]
    fn a_generation_that_never_rests_is_an_error_and_leaves_nothing() {
        let scene = Scene::new(Cloned::Always);
        let mut rng = scene.rng();
        let result = rng.with(Numbered::next_u32);
        assert!(matches!(result, Err(Error::Unsettled { .. })), "{result:?}");
        assert_eq!(scene.drawn().len(), 1 + ATTEMPTS as usize);
        let mut bytes = [7; 3];
        let result = rng.fill(&mut bytes, Numbered::fill_bytes);
        assert!(matches!(result, Err(Error::Unsettled { .. })), "{result:?}");
        assert_eq!(bytes, [0; 3]);
        for draw in WAYS {
            let panicked = catch_unwind(AssertUnwindSafe(|| draw(&mut rng)));
            assert!(panicked.is_err());
        }
    }

    /// As in a sandbox that forbids `getrandom()`.
    #[test]
    fn what_cannot_be_seeded_draws_nothing() {
        let scene = Scene::new(Cloned::Never);
        let mut rng = scene.rng();
        scene.device.set_generation(1);
        let make = std::mem::replace(&mut rng.make, Box::new(|_| Err(Error::Changed)));
        for _ in 0..2 {
            assert!(rng.with(Numbered::next_u32).is_err());
            // Even if the old generation were to come back.
            scene.device.set_generation(0);
        }
        rng.make = make;
        assert_eq!(rng.next_u32(), 2);
    }

    #[test]
    fn a_kernel_that_was_not_reseeded_is_reported() {
        let scene = Scene::new(Cloned::Never);
        let mut rng = scene.rng();
        assert_eq!(rng.freshness(), Freshness::Reseeded);
        scene.device.change(1, 0);
        rng.next_u32();
        assert_eq!(rng.freshness(), Freshness::NotReseeded);
    }

    fn seed(local: &Local) -> [u8; 32] {
        local.rng.generator.get_seed()
    }

    #[test]
    fn the_generator_of_a_thread_is_seeded_anew_in_a_clone() {
        let device = StandIn::new();
        let mut local = Local::new(Sign::Device(device.open(LONG))).expect("the kernel has some");
        let first = seed(&local);
        local.next_u64().expect("no change");
        assert_eq!(seed(&local), first);
        device.set_id(1);
        device.set_generation(1);
        local.next_u64().expect("it settles");
        assert_ne!(seed(&local), first);
    }

    #[test]
    fn the_generator_of_a_thread_is_seeded_anew_after_64_kib() {
        let sign = Sign::Process;
        let ways: [fn(&mut Local) -> usize; 3] = [
            |local| local.next_u32().map(|_| 4).expect("no change"),
            |local| local.next_u64().map(|_| 8).expect("no change"),
            |local| {
                local
                    .fill(&mut [0; 1000])
                    .map(|()| 1000)
                    .expect("no change")
            },
        ];
        for draw in ways {
            let mut local = Local::new(sign.clone()).expect("the kernel has some");
            let first = seed(&local);
            let mut length = draw(&mut local);
            while seed(&local) == first {
                length += draw(&mut local);
                assert!(length < 2 * RESEED_AFTER);
            }
            assert!(length > RESEED_AFTER, "{length}");
        }
        let mut local = Local::new(sign).expect("the kernel has some");
        let first = seed(&local);
        local
            .fill(&mut vec![0; RESEED_AFTER + 1])
            .expect("no change");
        assert_ne!(seed(&local), first);
    }

    #[test]
    fn without_a_device_a_fork_is_noticed() {
        let mut local = Local::new(Sign::Process).expect("the kernel has some");
        let first = seed(&local);
        local.next_u32().expect("no change");
        assert_eq!(seed(&local), first);
        assert!(sys::holds_in_child(|| {
            local.next_u32().expect("it settles");
            seed(&local) != first
        }));
    }

    #[test]
    fn a_thread_has_one_generator() {
        let (one, other) = (rng(), rng());
        assert!(Rc::ptr_eq(&one.0, &other.0));
        // It goes on where the other handle has stopped.
        assert_ne!(rng().next_u64(), rng().next_u64());
    }

    /// Nobody who holds the lock is waited for: it may be a thread that a fork has left behind.
    #[test]
    fn a_lock_that_is_held_holds_up_nobody() {
        let _held = SHARED.lock();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(rng().next_u64()));
        assert!(receiver.recv_timeout(LONG).is_ok());
    }

    #[test]
    fn every_byte_is_filled() {
        let rng = rng();
        let mut or = [0; 300];
        for _ in 0..16 {
            let mut bytes = [0; 300];
            rng.try_fill(&mut bytes).expect("the kernel has some");
            or.iter_mut().zip(bytes).for_each(|(or, byte)| *or |= byte);
        }
        assert!(!or.contains(&0));
    }

    #[test]
    fn the_traits_are_those_of_the_generator() {
        fn is_secure(_: impl CryptoRng) {}
        let device = StandIn::new();
        is_secure(rng());
        is_secure(
            ReseedOnClone::new(device.open(LONG), ChaCha12Rng::from_seed).expect("it has some"),
        );
    }

    #[cfg(feature = "rand_0_9")]
    #[test]
    fn the_traits_of_rand_core_0_9() {
        use rand_0_9::Rng as _;
        use rand_0_9::SeedableRng as _;
        use rand_0_9::rngs::StdRng;

        fn is_secure(rng: impl rand_core_0_9::CryptoRng) -> impl rand_core_0_9::CryptoRng {
            rng
        }
        let device = StandIn::new();
        let rng = ReseedOnClone::new(device.open(LONG), StdRng::from_seed);
        let mut rng = is_secure(rng.expect("the kernel has some"));
        let drawn: (u32, u64, [u8; 16]) = rng.random();
        device.set_generation(1);
        assert_ne!(rng.random::<(u32, u64, [u8; 16])>(), drawn);
        is_secure(super::rng()).random::<u128>();
    }
}
