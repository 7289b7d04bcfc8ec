// SPDX-License-Identifier: GPL-2.0

//! Settling: the one place where changes of the generation are made.
//!
//! [`Settler::settle_sign`] reads the hypervisor's ID, and if that is not the answered one, it mixes the
//! ID into the kernel's random number generator, makes that reseed, changes the generation, and
//! publishes which ID it has answered; and then looks again. So what is published is always what was
//! mixed in, whatever happens meanwhile.
//!
//! A program that [looks](Settler::look) does this itself: it has the processor already, which a thread
//! would have to get first. Whoever is told that a change is due, in whatever context, queues the [work
//! item](Settler) of this file, which does the same, and after that makes the changes that somebody has
//! asked for.
//!
//! Several can be at it at once. None waits for another, whom the scheduler may have sent to sleep: each
//! does all of it, and what it has found out it publishes only if nobody else has published anything
//! since it began. Else it looks again.
//!
//! The locks of this file are spin locks, so that nobody who holds one is kept from running, and no
//! other lock is taken with one held.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        random::{
            add_device_randomness,
            Reseeder, //
        },
        shared_page::SharedPage,
        wait_queue::{
            new_wait_queue,
            WaitQueue, //
        },
        workqueue::{
            self,
            OwnedQueue, //
        }, //
    },
    announce::Announcements,
    generation::{
        wait_ended,
        Change,
        Generation,
        Moment, //
    },
    pages::{
        Answer,
        AnswerPage,
        GenerationPage,
        Id, //
    },
    sign::{
        MachineSign,
        Sign, //
    }, //
};
use core::ops::Deref;
use kernel::{
    device::Device,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        impl_has_delayed_work,
        impl_has_work,
        new_delayed_work,
        new_work,
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};

/// How often, in milliseconds, somebody looks at the ID while anybody could want to know.
const LOOK_INTERVAL: u32 = 4000;

/// The random number generator, as far as it is needed here.
pub(crate) trait Random: Send + Sync {
    /// Mixes `id` in.
    fn mix(&self, id: &Id);

    /// Makes it reseed, with all that was mixed in before.
    ///
    /// # Errors
    ///
    /// If it cannot be made to, or not yet.
    fn reseed(&self) -> Result;
}

/// The kernel's random number generator.
pub(crate) struct KernelRandom(Option<Reseeder>);

impl KernelRandom {
    /// Finds out how to make it reseed. If it cannot be made to then this is said in the log.
    pub(crate) fn new() -> Self {
        Self(
            Reseeder::new()
                .inspect_err(|err| {
                    pr_warn!("the random number generator cannot be made to reseed: {err:?}\n");
                })
                .ok(),
        )
    }
}

impl Random for KernelRandom {
    fn mix(&self, id: &Id) {
        add_device_randomness(&id.to_bytes());
    }

    fn reseed(&self) -> Result {
        self.0.as_ref().ok_or(ENODEV)?.reseed()
    }
}

/// What makes the driver change the generation. The names are part of the interface for user space.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Source {
    /// The kernel's notification of virtual machine forks.
    VmFork = 1,
    /// The ACPI device's notification.
    Vmgenid,
    /// Somebody has looked, and the ID was another one.
    Page,
    /// A program, by ioctl.
    Ioctl,
    /// Other kernel code.
    Kernel,
}

impl Source {
    /// Those who tell of what the hypervisor has done.
    const TELLERS: [Self; 2] = [Self::VmFork, Self::Vmgenid];

    const fn name(self) -> &'static str {
        match self {
            Self::VmFork => "vmfork",
            Self::Vmgenid => "vmgenid",
            Self::Page => "page",
            Self::Ioctl => "ioctl",
            Self::Kernel => "kernel",
        }
    }
}

/// A change that a program has asked for by ioctl.
struct Asked {
    ticket: u64,
    least: u32,
    /// Whether it is being made.
    begun: bool,
}

/// Where programs ask for changes, one at a time.
struct Desk {
    asked: Option<Asked>,
    /// The number of those who have asked.
    tickets: u64,
}

impl Desk {
    /// Asks for a change, and returns a ticket, if it is nobody else's turn.
    fn ask(&mut self, least: u32) -> Option<u64> {
        if self.asked.is_some() {
            return None;
        }

        self.tickets += 1;
        self.asked = Some(Asked {
            ticket: self.tickets,
            least,
            begun: false,
        });

        Some(self.tickets)
    }

    /// Returns whether what that ticket is for is done.
    fn is_done(&self, ticket: u64) -> bool {
        self.asked
            .as_ref()
            .is_none_or(|asked| asked.ticket != ticket)
    }

    /// Takes back what that ticket is for. Returns whether this was possible.
    fn take_back(&mut self, ticket: u64) -> bool {
        self.asked
            .take_if(|asked| asked.ticket == ticket && !asked.begun)
            .is_some()
    }

    /// Begins what was asked for.
    fn begin(&mut self) -> Option<u32> {
        let asked = self.asked.as_mut().filter(|asked| !asked.begun)?;

        asked.begun = true;
        Some(asked.least)
    }

    /// What was begun is done.
    fn done(&mut self) {
        self.asked = None;
    }
}

/// The work items that settle, and what they need.
#[pin_data]
pub(crate) struct Settler<S: Sign = MachineSign> {
    #[pin]
    generation: Generation,
    sign: Option<S>,
    random: KBox<dyn Random>,
    queue: OwnedQueue,
    /// Whether this is ending: work enqueues no other work any more.
    ending: Atomic<bool>,
    /// Who has said first that a change is due that nobody has seen to yet, as a number. 0 is nobody.
    noticed: Atomic<u32>,
    /// How many changes other kernel code has asked for that are not made yet.
    bumps: Atomic<u32>,
    /// How many could want to know of a change without asking for it.
    users: Atomic<usize>,
    #[pin]
    desk: SpinLock<Desk>,
    /// Where those wait who ask.
    #[pin]
    waiting: WaitQueue,
    #[pin]
    announcements: Announcements,
    #[pin]
    settle: Work<Self, SETTLE>,
    #[pin]
    look: DelayedWork<Self, LOOK>,
    #[pin]
    announce: DelayedWork<Self, ANNOUNCE>,
}

const SETTLE: u64 = 0;
const LOOK: u64 = 1;
const ANNOUNCE: u64 = 2;

impl_has_work! {
    impl{S: Sign} HasWork<Self, 0> for Settler<S> { self.settle }
}

impl_has_delayed_work! {
    impl{S: Sign} HasDelayedWork<Self, 1> for Settler<S> { self.look }
    impl{S: Sign} HasDelayedWork<Self, 2> for Settler<S> { self.announce }
}

impl<S: Sign> WorkItem<SETTLE> for Settler<S> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.see_to_everything();
        this.announce_if_due();
    }
}

impl<S: Sign> WorkItem<LOOK> for Settler<S> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // What could not be reseeded at first may be possible now.
        if this.is_due() || !this.generation.answer().reseeded {
            this.settle_and_announce();
        }

        if this.users.load(Relaxed) != 0 {
            this.look_later();
        }
    }
}

impl<S: Sign> WorkItem<ANNOUNCE> for Settler<S> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.announcements.deliver();

        // What was asked for has had to wait for this.
        if this.is_asked() && !this.ending.load(Relaxed) {
            this.enqueue();
        }
    }
}

impl<S: Sign> Settler<S> {
    /// Creates a generation, and what settles changes of it.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    fn new(sign: Option<S>, random: KBox<dyn Random>) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new(c"sysgenid")?;

        Arc::pin_init(
            try_pin_init!(Self {
                generation <- Generation::new(),
                sign,
                random,
                queue,
                ending: Atomic::new(false),
                noticed: Atomic::new(0),
                bumps: Atomic::new(0),
                users: Atomic::new(0),
                desk <- new_spinlock!(
                    Desk {
                        asked: None,
                        tickets: 0,
                    },
                    "Settler::desk"
                ),
                waiting <- new_wait_queue!("Settler::waiting"),
                announcements <- Announcements::new(),
                settle <- new_work!("Settler::settle"),
                look <- new_delayed_work!("Settler::look"),
                announce <- new_delayed_work!("Settler::announce"),
            }),
            GFP_KERNEL,
        )
    }

    /// Announces changes by uevents of `device`, those too that were made before.
    pub(crate) fn announce_on(self: &Arc<Self>, device: &Device) {
        self.announcements.set_device(device);
        self.announce_soon();
    }

    fn announce_if_due(self: &Arc<Self>) {
        if self.announcements.are_due() {
            self.announce_soon();
        }
    }

    /// Announces what there is to be announced, at the next tick, so that, as a rule, those whom the
    /// change has woken up run first, even on a single processor.
    fn announce_soon(self: &Arc<Self>) {
        if !self.ending.load(Relaxed) {
            // If it is queued already then it is yet to begin.
            let _ = self.queue.enqueue_delayed::<_, ANNOUNCE>(self.clone(), 1);
        }
    }

    /// Has the work item see to what there is, soon. Can be called in any context.
    fn enqueue(self: &Arc<Self>) {
        // If it is queued already then it is yet to begin, and sees all that the caller has done.
        let _ = self.queue.enqueue::<_, SETTLE>(self.clone());
    }

    /// Says that a change may be due. Can be called in any context.
    pub(crate) fn notice(self: &Arc<Self>, source: Source) {
        // The first one counts.
        let _ = self.noticed.cmpxchg(0, source as u32, Full);
        self.enqueue();
    }

    /// Asks for a change, on behalf of other kernel code, which is made after whatever is due. Can be
    /// called in any context.
    pub(crate) fn bump(self: &Arc<Self>) {
        self.bumps.fetch_add(1, Full);
        self.enqueue();
    }

    /// Returns whether a change is due: the ID is another one than the answered one. Nobody knows if the
    /// ID cannot be seen.
    pub(crate) fn pending(&self) -> Option<bool> {
        self.sign
            .as_ref()
            .map(|sign| sign.value() != self.generation.answer().id)
    }

    /// Returns whether no change is known to be due, without the lock. Also false while a change is
    /// being published: [`Self::pending`] decides.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        // The sign is looked at after the answer, and the fence of `consistent` is in between.
        self.sign.as_ref().is_none_or(|sign| {
            self.generation
                .answered()
                .is_some_and(|answered| answered == sign.value())
        })
    }

    /// Returns whether a change is known to be due.
    fn is_due(&self) -> bool {
        self.pending().unwrap_or(false)
    }

    /// Looks at the ID, and if a change is due, makes it. Does not sleep.
    ///
    /// Called in the context of a process, which keeps the module from going.
    #[inline]
    pub(crate) fn look(self: &Arc<Self>) {
        if !self.is_settled() {
            self.look_closer();
        }
    }

    #[cold]
    fn look_closer(self: &Arc<Self>) {
        if self.is_due() {
            self.settle_and_announce();
        }
    }

    fn settle_and_announce(self: &Arc<Self>) {
        self.settle_sign();
        self.announce_if_due();
    }

    /// Looks at the ID after some seconds.
    #[cold]
    fn look_later(self: &Arc<Self>) {
        let delay = workqueue::rounded(msecs_to_jiffies(LOOK_INTERVAL));

        // If it is queued already then somebody looks soon.
        let _ = self.queue.enqueue_delayed::<_, LOOK>(self.clone(), delay);
    }

    /// Changes the generation, to `least` or more, after whatever is due. 0 asks for nothing in
    /// particular.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`ERESTARTNOHAND`] if a signal is pending; then this has changed nothing.
    pub(crate) fn trigger(self: &Arc<Self>, least: u32) -> Result {
        let ended = |ended| wait_ended(ended, 0);
        let ticket = self
            .waiting
            .wait(None, || self.desk.lock().ask(least))
            .map_err(ended)?;

        self.enqueue();

        let done = || self.desk.lock().is_done(ticket).then_some(());

        if let Err(err) = self.waiting.wait(None, done).map_err(ended) {
            if self.desk.lock().take_back(ticket) {
                self.waiting.wake_all();
                return Err(err);
            }

            // It is being made, and no signal can take it back.
            self.waiting.wait_certain(done);
        }

        Ok(())
    }

    /// Sees to all that is due, and then to what was asked for.
    fn see_to_everything(&self) {
        self.settle_sign();

        while !self.announcements.are_behind() {
            let Some((source, least)) = self.next_asked() else {
                break;
            };

            // What has become due meanwhile comes before.
            self.settle_sign();
            // Whoever asks for a change may have brought entropy. If this fails then the change is made
            // all the same: nothing is said of it, since no ID came.
            let _ = self.random.reseed();
            self.change(source, least);

            if let Source::Ioctl = source {
                self.desk.lock().done();
                self.waiting.wake_all();
            }
        }
    }

    /// Returns whether a change was asked for that is not made yet.
    fn is_asked(&self) -> bool {
        self.bumps.load(Relaxed) != 0 || self.desk.lock().asked.is_some()
    }

    /// Takes the next change that was asked for.
    fn next_asked(&self) -> Option<(Source, u32)> {
        if let Some(least) = self.desk.lock().begin() {
            return Some((Source::Ioctl, least));
        }

        // Nobody else takes any.
        (self.bumps.load(Relaxed) != 0).then(|| {
            self.bumps.fetch_sub(1, Full);
            (Source::Kernel, 0)
        })
    }

    /// Makes the change that is due, if one is, until none is. Does not sleep.
    fn settle_sign(&self) {
        let mut noticed = self.take_noticed();
        let Some(sign) = &self.sign else {
            // Whoever tells of it knows.
            if let Some(source) = noticed {
                let reseeded = self.random.reseed().is_ok();
                let since = self.generation.moment();
                let id = since.answer.id;

                // There is nobody else who could have changed anything.
                self.change_and_answer(since, Answer { id, reseeded }, source);
            }
            return;
        };

        loop {
            // In this order: if somebody else answers a later ID in between then the moment is over.
            let since = self.generation.moment();
            let id = sign.value();
            let answered = since.answer;

            if id == answered.id && answered.reseeded {
                return;
            }

            self.random.mix(&id);

            let reseeded = self.random.reseed().is_ok();
            let answer = Answer { id, reseeded };

            if id != answered.id || (reseeded && since.epoch != 0) {
                let source = noticed.unwrap_or(Source::Page);

                if !self.change_and_answer(since, answer, source) {
                    continue;
                }
                noticed = None;
            } else if reseeded {
                // Since the driver was loaded, nobody was told of anything.
                self.generation.set_answer(since, answer);
            }

            if !reseeded && sign.value() == id {
                // At the next look it may be possible.
                return;
            }
        }
    }

    fn take_noticed(&self) -> Option<Source> {
        let noticed = self.noticed.xchg(0, Full);

        Source::TELLERS
            .into_iter()
            .find(|source| *source as u32 == noticed)
    }

    fn change(&self, source: Source, least: u32) {
        let mut unannounced = None;

        self.generation.change(source.name(), least, |change| {
            unannounced = self.add_announcement(change);
        });
        Self::warn_of(unannounced);
    }

    /// Returns whether that moment is not over yet.
    fn change_and_answer(&self, since: Moment, answer: Answer, source: Source) -> bool {
        let mut unannounced = None;
        let changed = self
            .generation
            .change_and_answer(since, answer, source.name(), |change| {
                unannounced = self.add_announcement(change);
            });

        Self::warn_of(unannounced);

        changed
    }

    /// Returns the change if it cannot be announced.
    fn add_announcement(&self, change: Change) -> Option<Change> {
        self.announcements.add(change).err().map(|_| change)
    }

    fn warn_of(unannounced: Option<Change>) {
        if let Some(Change { new, .. }) = unannounced {
            pr_warn!("no uevent for generation {new}: too many changes\n");
        }
    }
}

/// Settling, for as long as this exists.
///
/// Dropping it waits until all that is queued is done, after which nobody may queue anything.
pub(crate) struct Settling<S: Sign = MachineSign>(Arc<Settler<S>>);

impl<S: Sign> Settling<S> {
    /// Begins to settle changes of a generation, which nobody can see yet: what `sign` shows now is
    /// mixed into the random number generator, and is answered.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    pub(crate) fn begin(sign: Option<S>, random: KBox<dyn Random>) -> Result<Self> {
        let settler = Settler::new(sign, random)?;

        if let Some(sign) = &settler.sign {
            let answer = Answer {
                id: sign.value(),
                reseeded: false,
            };

            settler
                .generation
                .set_answer(settler.generation.moment(), answer);
            settler.settle_sign();

            if !settler.generation.answer().reseeded {
                pr_warn!("the random number generator was not made to reseed\n");
            }
        }

        Ok(Self(settler))
    }

    /// Returns what settles.
    pub(crate) fn settler(&self) -> &Arc<Settler<S>> {
        &self.0
    }
}

impl<S: Sign> Drop for Settling<S> {
    fn drop(&mut self) {
        workqueue::cancel_delayed::<_, LOOK>(&self.0);
        // Work that begins after the first flush sees this, by the lock of the workqueue. What has
        // begun before is waited for.
        self.0.ending.store(true, Relaxed);

        loop {
            self.0.queue.flush();
            workqueue::cancel_delayed::<_, ANNOUNCE>(&self.0);
            // What was queued by what has begun before. There is no timer any more that it could be
            // too late for.
            self.0.queue.drain();

            let delivered = self.0.announcements.deliver();

            // What was asked for has had to wait for this.
            if !delivered || !self.0.is_asked() {
                break;
            }

            self.0.enqueue();
        }
    }
}

/// Somebody who could want to know of a change without asking for it: as long as there is one, somebody
/// looks at the ID every few seconds.
pub(crate) struct User(Arc<Settler>);

impl User {
    /// Creates a user.
    #[inline]
    pub(crate) fn new(settler: Arc<Settler>) -> Self {
        if settler.users.fetch_add(1, Full) == 0 && settler.sign.is_some() {
            settler.look_later();
        }

        Self(settler)
    }

    /// Returns what settles.
    #[inline]
    pub(crate) fn settler(&self) -> &Arc<Settler> {
        &self.0
    }
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

/// A user refers to the generation.
impl Deref for User {
    type Target = Generation;

    #[inline]
    fn deref(&self) -> &Generation {
        &self.0.generation
    }
}

/// Who has mapped a page is a user, and keeps it.
impl AsRef<SharedPage<GenerationPage>> for User {
    fn as_ref(&self) -> &SharedPage<GenerationPage> {
        self.pages().generation_page()
    }
}

impl AsRef<SharedPage<AnswerPage>> for User {
    fn as_ref(&self) -> &SharedPage<AnswerPage> {
        self.pages().answer_page()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Full);
    }
}

#[cfg(CONFIG_SYSGENID_KUNIT_TEST)]
#[kunit_tests(sysgenid_settling)]
mod tests {
    use super::*;
    use crate::generation::Watcher;

    /// What is outside of the driver: a sign that moves at some steps, and what was mixed into the
    /// random number generator. Each look at it, and each thing done with it, is a step.
    #[pin_data]
    struct World {
        step: Atomic<u32>,
        /// The number in the ID before the first of the moves.
        start: Atomic<u32>,
        moves: [Atomic<u32>; 2],
        /// The last ID that was mixed in, and how often one was.
        mixed: Atomic<u32>,
        mixes: Atomic<u32>,
        /// The last ID that was in it when it was reseeded.
        reseeded: Atomic<u32>,
        /// How often a reseed is going to fail.
        failures: Atomic<u32>,
        /// Who comes in between.
        #[pin]
        other: SpinLock<Option<Other>>,
    }

    /// Somebody who does something in the middle of a step, once.
    struct Other {
        step: u32,
        /// Whether the others see the world as it was before.
        late: bool,
        settler: Arc<Settler<Arc<World>>>,
        act: fn(&Settler<Arc<World>>),
    }

    impl World {
        fn new(moves: [u32; 2], failures: u32) -> Result<Arc<Self>> {
            Arc::pin_init(
                try_pin_init!(Self {
                    step: Atomic::new(0),
                    start: Atomic::new(0),
                    moves: moves.map(Atomic::new),
                    mixed: Atomic::new(0),
                    mixes: Atomic::new(0),
                    reseeded: Atomic::new(0),
                    failures: Atomic::new(failures),
                    other <- new_spinlock!(None, "World::other"),
                }),
                GFP_KERNEL,
            )
        }

        /// Begins anew, with that number in the ID.
        fn restart(&self, start: u32, moves: [u32; 2], failures: u32, other: Other) {
            self.start.store(start, Relaxed);
            self.step.store(0, Relaxed);
            for (at, step) in self.moves.iter().zip(moves) {
                at.store(step, Relaxed);
            }
            self.failures.store(failures, Relaxed);
            *self.other.lock() = Some(other);
        }

        /// The number in the ID after the next step.
        fn number(&self) -> u32 {
            let step = self.step.fetch_add(1, Full) + 1;

            self.let_other_act(step, false);

            let now = self.step.load(Relaxed);
            let moved = self.moves.iter().filter(|at| at.load(Relaxed) <= now);
            // CAST: There are two.
            let number = self.start.load(Relaxed) + moved.count() as u32;

            self.let_other_act(step, true);

            number
        }

        fn let_other_act(&self, step: u32, late: bool) {
            let its_turn = |other: &mut Other| other.step == step && other.late == late;
            let other = self.other.lock().take_if(its_turn);

            if let Some(other) = other {
                (other.act)(&other.settler);
            }
        }
    }

    fn id(number: u32) -> Id {
        let mut bytes = [0; 16];

        bytes[12..].copy_from_slice(&number.to_ne_bytes());
        Id::from_bytes(bytes)
    }

    fn number(id: &Id) -> u32 {
        id.to_bytes()[12..]
            .try_into()
            .map_or(u32::MAX, u32::from_ne_bytes)
    }

    impl Sign for Arc<World> {
        fn value(&self) -> Id {
            id(self.number())
        }
    }

    impl Random for Arc<World> {
        fn mix(&self, id: &Id) {
            self.number();
            // What was mixed in before is not lost.
            self.mixed
                .store(self.mixed.load(Relaxed).max(number(id)), Relaxed);
            self.mixes.fetch_add(1, Full);
        }

        fn reseed(&self) -> Result {
            self.number();
            if self.failures.load(Relaxed) != 0 {
                self.failures.fetch_sub(1, Full);
                return Err(EAGAIN);
            }
            self.reseeded.store(self.mixed.load(Relaxed), Relaxed);
            Ok(())
        }
    }

    /// A generation that is settled.
    struct Settled(Arc<Settler<Arc<World>>>);

    impl Deref for Settled {
        type Target = Generation;

        fn deref(&self) -> &Generation {
            &self.0.generation
        }
    }

    /// Settling where ID 0 is answered.
    fn settling(world: &Arc<World>) -> Result<Settling<Arc<World>>> {
        let settler = Settler::new(Some(world.clone()), KBox::new(world.clone(), GFP_KERNEL)?)?;

        let answer = Answer {
            id: id(0),
            reseeded: true,
        };

        settler
            .generation
            .set_answer(settler.generation.moment(), answer);
        Ok(Settling(settler))
    }

    #[test]
    fn what_is_answered_was_mixed_in_whenever_the_sign_moves() -> Result {
        const STEPS: u32 = 14;

        for first in 0..STEPS {
            for second in first..STEPS {
                let world = World::new([first, second], 0)?;
                let settling = settling(&world)?;
                let settler = settling.settler();
                let mut looks = 0;

                // Somebody looks, until nothing moves any more.
                while world.step.load(Relaxed) <= STEPS || settler.is_due() {
                    settler.settle_sign();
                    looks += 1;
                    assert!(looks < 100);

                    let answer = settler.generation.answer();

                    assert!(answer.reseeded);
                    assert_eq!(number(&answer.id), world.reseeded.load(Relaxed));
                    // As many changes as IDs were answered.
                    assert_eq!(
                        settler.generation.pages().epoch(),
                        u64::from(world.mixes.load(Relaxed))
                    );
                }

                assert_eq!(number(&settler.generation.answer().id), 2);
                assert!(settler.generation.pages().epoch() <= 2);
            }
        }

        Ok(())
    }

    /// Has somebody settle, and another one act in the middle of each step in turn, wherever the sign
    /// moves and whatever fails. There must be as many changes as IDs that were answered, and those that
    /// the other one has made besides.
    fn with_another(act: fn(&Settler<Arc<World>>), besides: u64) -> Result {
        // The longest way has less.
        const STEPS: u32 = 20;
        const MOVES: u32 = 7;

        let world = World::new([u32::MAX; 2], 0)?;
        let settling = settling(&world)?;
        let settler = settling.settler();
        let moves = (1..MOVES).flat_map(|first| (first..MOVES).map(move |second| [first, second]));
        let others = (1..STEPS).flat_map(|step| [(step, false), (step, true)]);

        for ((moves, failures), (step, late)) in moves
            .flat_map(|moves| (0..3).map(move |failures| (moves, failures)))
            .flat_map(|script| others.clone().map(move |other| (script, other)))
        {
            let other = Other {
                step,
                late,
                settler: settler.clone(),
                act,
            };
            let before = settler.generation.moment();
            let start = number(&before.answer.id);
            let mut looks = 0;

            world.restart(start, moves, failures, other);
            while world.step.load(Relaxed) <= STEPS || settler.is_due() {
                settler.settle_sign();
                looks += 1;
                assert!(looks < 100);

                let answer = settler.generation.answer();

                if answer.reseeded {
                    assert!(number(&answer.id) <= world.reseeded.load(Relaxed));
                }
            }

            let ids = if moves[0] == moves[1] { 1 } else { 2 };
            let after = settler.generation.moment();
            let changes = after.epoch - before.epoch;

            assert!(world.other.lock().is_none());
            assert!(after.answer.reseeded);
            assert_eq!(number(&after.answer.id), start + 2);
            // Another one for each that could not be mixed in at first.
            assert!(changes > besides);
            assert!(changes <= ids + u64::from(failures) + besides);
        }

        Ok(())
    }

    #[test]
    fn several_can_settle_at_once() -> Result {
        with_another(Settler::settle_sign, 0)
    }

    #[test]
    fn a_change_that_comes_in_between_takes_nothing_away() -> Result {
        with_another(|settler| settler.change(Source::Ioctl, 0), 1)
    }

    #[test]
    fn a_change_is_made_though_nothing_is_reseeded() -> Result {
        let world = World::new([1, 1], 2)?;
        let settling = settling(&world)?;
        let settler = settling.settler();
        let watcher = Watcher::new(Settled(settler.clone()));

        settler.settle_sign();
        assert_eq!(watcher.status().epoch, 1);
        assert!(!watcher.status().answer.reseeded);
        assert!(!settler.is_due());

        // There is nothing to be told of as long as that does not change.
        settler.settle_sign();
        assert_eq!(watcher.status().epoch, 1);
        settler.settle_sign();
        assert_eq!(watcher.status().epoch, 2);
        assert!(watcher.status().answer.reseeded);
        settler.settle_sign();
        assert_eq!(watcher.status().epoch, 2);

        Ok(())
    }

    #[test]
    fn what_is_asked_for_comes_after_what_is_due() -> Result {
        // The sign moves after the first look.
        let world = World::new([2, 2], 0)?;
        let settling = settling(&world)?;
        let settler = settling.settler();
        let watcher = Watcher::new(Settled(settler.clone()));

        settler.bumps.store(1, Relaxed);
        settler.see_to_everything();
        assert_eq!(watcher.status().epoch, 2);
        assert_eq!(watcher.status().source, Some("kernel"));
        assert_eq!(number(&watcher.status().answer.id), 2);
        assert!(watcher.status().answer.reseeded);

        Ok(())
    }

    #[test]
    fn the_first_who_notices_counts() -> Result {
        let world = World::new([1, 1], 0)?;
        let settling = settling(&world)?;
        let settler = settling.settler();
        let watcher = Watcher::new(Settled(settler.clone()));

        settler.notice(Source::Vmgenid);
        settler.notice(Source::VmFork);
        settler.queue.flush();
        assert_eq!(watcher.status().source, Some("vmgenid"));
        assert_eq!(watcher.status().epoch, 1);

        Ok(())
    }

    #[test]
    fn without_a_sign_whoever_notices_knows() -> Result {
        let world = World::new([u32::MAX, u32::MAX], 0)?;
        let random = KBox::new(world.clone(), GFP_KERNEL)?;
        let settling = Settling(Settler::<Arc<World>>::new(None, random)?);
        let settler = settling.settler();
        let watcher = Watcher::new(Settled(settler.clone()));

        assert_eq!(settler.pending(), None);
        assert!(!watcher.status().answer.reseeded);
        settler.settle_sign();
        assert_eq!(watcher.status().epoch, 0);
        settler.notice(Source::VmFork);
        settler.queue.flush();
        assert_eq!(watcher.status().epoch, 1);
        assert_eq!(watcher.status().source, Some("vmfork"));
        assert!(watcher.status().answer.reseeded);

        Ok(())
    }

    #[test]
    fn one_at_a_time_is_served() {
        let mut desk = Desk {
            asked: None,
            tickets: 0,
        };

        assert_eq!(desk.begin(), None);
        assert_eq!(desk.ask(7), Some(1));
        assert_eq!(desk.ask(8), None);
        assert!(!desk.is_done(1));
        assert!(desk.take_back(1));
        assert!(desk.is_done(1));

        assert_eq!(desk.ask(9), Some(2));
        assert_eq!(desk.begin(), Some(9));
        assert_eq!(desk.begin(), None);
        assert!(!desk.take_back(2));
        assert!(!desk.is_done(2));
        desk.done();
        assert!(desk.is_done(2));
    }
}
