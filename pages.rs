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
//!   sequence before user space reads the rest, and with an acquire fence before the load of it
//!   afterwards.

#![forbid(unsafe_code)]

use crate::abstractions::shared_page::{
    Shared,
    SharedPage, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Full,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};

/// `SYSGENID_FLAG_FIELDS`: the generation page has flags and an epoch.
const FLAG_FIELDS: u32 = 1;
/// `SYSGENID_FLAG_RESEEDED`: the random number generator was reseeded with the answered ID in it.
const FLAG_RESEEDED: u32 = 2;

/// The ID of this virtual machine, as the hypervisor gives it.
pub(crate) type Id = [u8; 16];

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
    generation: Shared<u32>,
    flags: Shared<u32>,
    epoch: Shared<u64>,
}

/// `struct vmgenid_answer_page`
#[derive(Zeroable)]
#[repr(C)]
pub(crate) struct AnswerPage {
    sequence: Shared<u32>,
    flags: Shared<u32>,
    generation: Shared<u32>,
    _reserved: Shared<u32>,
    id: [Shared<u32>; 4],
    epoch: Shared<u64>,
}

/// The pages.
pub(crate) struct Pages {
    generation: Arc<SharedPage<GenerationPage>>,
    answer: Arc<SharedPage<AnswerPage>>,
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
    pub(crate) fn generation_page(&self) -> &Arc<SharedPage<GenerationPage>> {
        &self.generation
    }

    /// Returns the page with the answer.
    pub(crate) fn answer_page(&self) -> &Arc<SharedPage<AnswerPage>> {
        &self.answer
    }

    /// Returns the generation.
    pub(crate) fn generation(&self) -> u32 {
        // ORDERING: Acquire A.
        self.generation.generation.load(Acquire)
    }

    /// Returns the epoch.
    pub(crate) fn epoch(&self) -> u64 {
        // ORDERING: Acquire A.
        self.generation.epoch.load(Acquire)
    }

    /// Returns what is answered. Called with the lock held.
    pub(crate) fn answer(&self) -> Answer {
        let mut id = Id::default();

        for (bytes, word) in id.chunks_exact_mut(4).zip(&self.answer.id) {
            bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }

        Answer {
            id,
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
        for (bytes, word) in answer.id.chunks_exact(4).zip(&self.answer.id) {
            if let Ok(bytes) = bytes.try_into() {
                word.store(u32::from_ne_bytes(bytes), Relaxed);
            }
        }
        self.answer.epoch.store(epoch, Relaxed);

        // ORDERING: Release S.
        self.answer
            .sequence
            .store(sequence.wrapping_add(2), Release);
    }
}
