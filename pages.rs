// SPDX-License-Identifier: GPL-2.0

//! The two pages that user space maps: the generation page, and the answer page.
//!
//! Their layout is described in `uapi/linux/sysgenid.h`. They are the only copy of what they show, so
//! no two ways to ask can disagree.
//!
//! # Memory ordering
//!
//! Whoever writes holds the lock of [`generation`](crate::generation), and nobody who reads needs it.
//! The orderings and their pairs:
//!
//! * A: the release stores of the generation and of the epoch in [`Pages::publish`] pair with acquire
//!   loads of them, in the driver and in user space. So whoever sees the new generation also sees its
//!   flags, and finds done what was done before the change: the kernel's random number generator has
//!   been reseeded. And whoever sees the new epoch sees both.
//! * S: the answer page is a sequence lock. The odd sequence is stored before the rest by a full
//!   exchange, and the even one after the rest with release. They pair with the acquire load of the
//!   sequence before user space, or [`AnswerPage::consistent`], reads the rest, and with a fence before the
//!   load of it afterwards.

#![forbid(unsafe_code)]

use crate::abstractions::{
    atomic::{
        smp_rmb,
        InPlace, //
    },
    shared_page::SharedPage, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Full,
        Relaxed,
        Release, //
    }, //
};

/// `SYSGENID_FLAG_FIELDS`: the generation page has flags and an epoch.
const FLAG_FIELDS: u32 = 1;
/// `SYSGENID_FLAG_RESEEDED`: the random number generator was reseeded with the answered ID in it.
const FLAG_RESEEDED: u32 = 2;

/// The ID of this virtual machine, as the hypervisor gives it: 16 bytes, here in two words, so that it
/// fits into registers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Id {
    first: u64,
    second: u64,
}

impl Id {
    /// Creates an ID.
    #[inline]
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;

        Self {
            first: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            second: u64::from_ne_bytes(rest),
        }
    }

    /// Returns the bytes.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.first.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.second.to_ne_bytes();

        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// What the driver has answered the hypervisor's changes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The ID that was mixed into the random number generator, before the change.
    pub(crate) id: Id,
    /// Whether the random number generator was reseeded then.
    pub(crate) reseeded: bool,
}

/// `struct sysgenid_page`
#[derive(Zeroable)]
#[repr(C)]
pub(crate) struct GenerationPage {
    generation: InPlace<u32>,
    flags: InPlace<u32>,
    epoch: InPlace<u64>,
}

impl GenerationPage {
    /// Returns the generation.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        // ORDERING: Acquire A.
        self.generation.load(Acquire)
    }

    /// Returns the epoch.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // ORDERING: Acquire A.
        self.epoch.load(Acquire)
    }
}

/// `struct vmgenid_answer_page`
#[derive(Zeroable)]
#[repr(C)]
pub(crate) struct AnswerPage {
    sequence: InPlace<u32>,
    flags: InPlace<u32>,
    generation: InPlace<u32>,
    _reserved: InPlace<u32>,
    id: [InPlace<u64>; 2],
    epoch: InPlace<u64>,
}

impl AnswerPage {
    /// Returns the ID. Called with the lock held, or in [`Self::consistent`].
    #[inline]
    pub(crate) fn id(&self) -> Id {
        let [first, second] = &self.id;

        Id {
            first: first.load(Relaxed),
            second: second.load(Relaxed),
        }
    }

    /// Returns what `look` returns, if neither page changes meanwhile. Needs no lock. If this is `None`
    /// then the lock will do: to try again and again could keep who holds it from going on.
    #[inline]
    pub(crate) fn consistent<R>(&self, look: impl FnOnce(&Self) -> R) -> Option<R> {
        // ORDERING: Acquire S, and below the fence S.
        let sequence = self.sequence.load(Acquire);
        let result = look(self);

        smp_rmb();

        let unchanged = sequence == self.sequence.load(Relaxed);

        (sequence % 2 == 0 && unchanged).then_some(result)
    }
}

/// The pages.
pub(crate) struct Pages {
    generation: SharedPage<GenerationPage>,
    answer: SharedPage<AnswerPage>,
}

impl Pages {
    /// Creates the pages: generation 0 in epoch 0, and nothing is answered.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if memory is short.
    pub(crate) fn new() -> Result<Self> {
        let generation = SharedPage::<GenerationPage>::new()?;

        generation.flags.store(FLAG_FIELDS, Relaxed);

        Ok(Self {
            generation,
            answer: SharedPage::new()?,
        })
    }

    /// Returns the page with the generation.
    pub(crate) fn generation_page(&self) -> &SharedPage<GenerationPage> {
        &self.generation
    }

    /// Returns the page with the answer.
    pub(crate) fn answer_page(&self) -> &SharedPage<AnswerPage> {
        &self.answer
    }

    /// Returns the generation.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.generation()
    }

    /// Returns the epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.generation.epoch()
    }

    /// Returns what is answered. Called with the lock held.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            id: self.answer.id(),
            reseeded: self.answer.flags.load(Relaxed) & FLAG_RESEEDED != 0,
        }
    }

    /// Makes both pages show this. `outdate` is called after the one, and before the other. Called with
    /// the lock held.
    pub(crate) fn publish(
        &self,
        generation: u32,
        epoch: u64,
        answer: Answer,
        outdate: impl FnOnce(),
    ) {
        let sequence = self.answer.sequence.load(Relaxed);
        let flags = if answer.reseeded { FLAG_RESEEDED } else { 0 };

        // ORDERING: Full S: what follows is not seen before this.
        self.answer.sequence.xchg(sequence.wrapping_add(1), Full);

        // ORDERING: Release A. The flags come before the generation, and that before the epoch.
        self.generation.flags.store(FLAG_FIELDS | flags, Release);
        self.generation.generation.store(generation, Release);
        self.generation.epoch.store(epoch, Release);

        outdate();

        self.answer.flags.store(flags, Relaxed);
        self.answer.generation.store(generation, Relaxed);
        let [first, second] = &self.answer.id;
        first.store(answer.id.first, Relaxed);
        second.store(answer.id.second, Relaxed);
        self.answer.epoch.store(epoch, Relaxed);

        // ORDERING: Release S.
        self.answer
            .sequence
            .store(sequence.wrapping_add(2), Release);
    }
}
