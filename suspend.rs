// SPDX-License-Identifier: GPL-2.0

//! Source: a look at the ID after the system was suspended, or has hibernated.
//!
//! A system that has hibernated can be started again in another virtual machine, with another ID, of
//! which nobody notifies it.

#![forbid(unsafe_code)]

use crate::{
    abstractions::{
        notifier::{
            self,
            Handler, //
        },
        suspend::{
            Transitions,
            POST_HIBERNATION,
            POST_SUSPEND, //
        }, //
    },
    settling::Settler, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The source, which looks for as long as it exists.
pub(crate) type Registration = notifier::Registration<Transitions, Listener>;

/// Looks.
pub(crate) struct Listener(Arc<Settler>);

/// Registers the source.
pub(crate) fn register(settler: Arc<Settler>) -> impl PinInit<Registration, Error> {
    Registration::register(Listener(settler))
}

impl Handler<Transitions> for Listener {
    fn called(&self, action: c_ulong) {
        if matches!(action, POST_HIBERNATION | POST_SUSPEND) {
            self.0.look();
        }
    }
}
