// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl serve`

mod api;
mod engine;
#[cfg(test)]
mod engine_tests;
#[cfg(fuzzing)]
pub mod fuzz;
mod http;
#[cfg(test)]
mod http_tests;
mod listen;
mod machine;
mod metrics;
#[cfg(any(test, fuzzing))]
mod play;
mod refusal;
mod request;
mod serial;
mod state;
mod token;
mod world;

use std::sync::Arc;
use std::sync::mpsc;

use sd_notify::NotifyState;

use self::engine::Engine;
use self::http::Service;
use self::listen::Listener;
use self::machine::Machine;
use self::machine::spawn;
pub use self::state::Store;
use crate::cli::ServeArguments;
use crate::exit::Failure;
use crate::lock::Lock;

/// Serves until it is killed. There is no other way to end it, so that one is tried.
pub fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let store = Store::new(&arguments.state)?;
    let _lock = Lock::take(&arguments.state.join("state"))?;
    let state = store.load()?;
    let machine = Machine::new(arguments, store)?;
    let events = machine.events();
    let engine = Arc::new(Engine::new(machine, state));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("start to serve"))?;
    let guard = runtime.enter();
    let listeners = Listener::all(arguments)?;
    drop(guard);
    if listeners.is_empty() && arguments.serial.is_none() {
        return Err(Failure::Refused(
            "nobody could call: say --socket, --vsock-port or --serial, or let systemd make the sockets"
                .into(),
        ));
    }
    recover(&engine);
    watch(&engine);
    if let Some(path) = &arguments.serial {
        serial::start(path, Arc::clone(&engine))?;
    }
    // Where nobody waits for that, nobody has to be told.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let service = Service { engine, events };
    runtime.block_on(async {
        for listener in listeners {
            tokio::spawn(listener.serve(service.clone()));
        }
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// Finishes or undoes what the one before was killed at, before anybody else has a turn.
fn recover(engine: &Arc<Engine<Machine>>) {
    let engine = Arc::clone(engine);
    let (sender, has_turn) = mpsc::channel();
    spawn(move || {
        // Nobody else has begun.
        let Ok(turn) = engine.turn() else { return };
        let _ = sender.send(());
        if let Err(refusal) = engine.recover(turn) {
            anstream::eprintln!("sysgenctl: what was begun before has failed: {refusal}");
        }
    });
    let _ = has_turn.recv();
}

/// Tells of changes.
fn watch(engine: &Arc<Engine<Machine>>) {
    let engine = Arc::clone(engine);
    spawn(move || {
        if let Err(failure) = engine.world().watch() {
            anstream::eprintln!("sysgenctl: changes are not told any more: {failure}");
        }
    });
}
