// SPDX-License-Identifier: GPL-2.0

//! Source: the kernel's own notification of a virtual machine fork.
//!
//! The kernel's VMGenID driver (`drivers/virt/vmgenid.c`) holds the device. When the identity of the
//! virtual machine has changed it calls `add_vmfork_randomness()` (`drivers/char/random.c`), which
//! reseeds the random number generator and only then notifies us, in process context. An identity
//! that has not changed is no fork, so there is no notification.

use crate::{
    abstractions::vmfork::{
        VmForkHandler,
        VmForkRegistration, //
    },
    generation::Generation, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The source, which changes the generation for as long as it exists.
pub(crate) type Source = VmForkRegistration<Handler>;

/// Changes the generation at each fork.
pub(crate) struct Handler {
    generation: Arc<Generation>,
}

/// Registers the source.
pub(crate) fn register(generation: Arc<Generation>) -> impl PinInit<Source, Error> {
    Source::register(Handler { generation })
}

impl VmForkHandler for Handler {
    fn vm_forked(&self) {
        self.generation.bump_for_sign("vmfork");
    }
}
