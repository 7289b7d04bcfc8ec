// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine for the unit tests and the fuzzers, that is killed, or fails, where they say.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::sync::broadcast;

use super::engine::Engine;
use super::refusal::Code;
use super::refusal::Refusal;
use super::request::Expect;
use super::state::Frozen;
use super::state::Phase;
use super::state::State;
use super::token::Point;
use super::world::Attempt;
use super::world::Caller;
use super::world::Seen;
use super::world::Stage;
use super::world::World;
use crate::table::Watchers;
use crate::table::made::watcher;
use crate::table::made::watchers;

/// What is left when the service was killed.
pub struct Played {
    /// What was noted last.
    pub saved: State,
    /// What the device says.
    pub point: Point,
    /// The hypervisor has cloned the machine.
    pub pending: Option<bool>,
    /// What stands still.
    pub frozen: BTreeSet<PathBuf>,
    /// The hooks have quiesced it.
    pub quiesced: bool,
    /// Since the last change by the hypervisor, entropy was mixed in.
    pub mixed: bool,
    /// What was done, in its order.
    pub log: Vec<String>,
    /// Tracked watchers that are outdated.
    pub outdated: u64,
    /// They do not acknowledge: those in this control group, or outside of all (“”).
    pub stubborn: Option<PathBuf>,
    /// What fails.
    pub fails: Option<Code>,
    /// What the service finds when it has begun, and not before.
    pub meanwhile: Option<Code>,
    /// The policy.
    pub thaws_late: bool,
    /// The clock goes on by that much at each look.
    pub tick: Duration,
    /// The hooks wait for that.
    pub gate: Option<Receiver<()>>,
    /// In which turn the service is killed.
    pub dies: Option<usize>,
    turn: usize,
    now: Duration,
}

/// The machine.
#[derive(Clone)]
pub struct Play {
    played: Arc<Mutex<Played>>,
    /// Who listens.
    pub events: broadcast::Sender<String>,
}

/// With what it is killed.
struct Killed;

impl Play {
    /// Where all goes well.
    pub fn new() -> Self {
        Self {
            played: Arc::new(Mutex::new(Played {
                saved: State::default(),
                point: Point {
                    instance: 1,
                    epoch: 5,
                    generation: 3,
                },
                pending: Some(false),
                frozen: BTreeSet::new(),
                quiesced: false,
                mixed: false,
                log: Vec::new(),
                outdated: 0,
                stubborn: None,
                fails: None,
                meanwhile: None,
                thaws_late: false,
                tick: Duration::from_millis(1),
                gate: None,
                dies: None,
                turn: 0,
                now: Duration::from_secs(1),
            })),
            events: broadcast::Sender::new(256),
        }
    }

    /// All of it.
    pub fn played(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it could have been killed.
    pub fn turn(&self) -> usize {
        self.played().turn
    }

    /// A service that is started now.
    pub fn start(&self) -> Engine<Self> {
        let saved = self.played().saved.clone();
        Engine::new(self.clone(), saved)
    }

    /// The machine is saved and resumed as a clone.
    pub fn clone_machine(&self) {
        let mut played = self.played();
        played.pending = Some(true);
        played.mixed = false;
    }

    /// `None` if the service was killed meanwhile.
    pub fn unless_killed<T>(&self, what: impl FnOnce() -> T) -> Option<T> {
        match panic::catch_unwind(AssertUnwindSafe(what)) {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Killed>() => {
                self.played().dies = None;
                None
            }
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// The service may be killed here.
    fn may_die(&self) {
        let mut played = self.played();
        played.turn += 1;
        let dies = played.dies == Some(played.turn);
        drop(played);
        if dies {
            panic::resume_unwind(Box::new(Killed));
        }
    }

    /// Does something, before and after which the service may be killed.
    fn act<T>(&self, what: impl FnOnce(&mut Played) -> T) -> T {
        self.may_die();
        let done = what(&mut self.played());
        self.may_die();
        done
    }

    fn fails(&self, code: Code) -> Result<(), Refusal> {
        match self.played().fails {
            Some(fails) if fails == code => Err(Refusal::new(code, "the test wants it")),
            _ => Ok(()),
        }
    }
}

impl World for Play {
    fn now(&self) -> Duration {
        let mut played = self.played();
        let tick = played.tick;
        played.now += tick;
        played.now
    }

    fn save(&self, state: &State) -> Result<(), Refusal> {
        self.fails(Code::StateFailed)?;
        self.act(|played| played.saved = state.clone());
        Ok(())
    }

    fn look(&self) -> Result<Seen, Refusal> {
        self.fails(Code::DeviceFailed)?;
        let played = self.played();
        Ok(Seen {
            point: played.point,
            pending: played.pending,
            outdated: played.outdated,
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        self.fails(Code::HookRefused)?;
        let played = self.played();
        match played.meanwhile {
            Some(code) if played.saved.phase == Phase::Preparing => {
                return Err(Refusal::new(code, "the test wants it"));
            }
            _ => {}
        }
        drop(played);
        self.fails(Code::QuiescedElsewhere)
    }

    fn find(&self, names: &[String], _: &Caller) -> Result<Vec<Frozen>, Refusal> {
        self.fails(Code::ProtectedCgroup)?;
        let found = names.iter().map(|name| Frozen {
            name: name.clone(),
            cgroup: name.into(),
        });
        Ok(found.collect())
    }

    fn hooks(&self, stage: Stage, phase: &str, _: Point, _: Point, _: Duration) -> Attempt {
        let gate = self.played().gate.take();
        if let Some(gate) = gate {
            let _ = gate.recv_timeout(Duration::from_secs(60));
        }
        let failed = (phase != "undo").then(|| self.fails(Code::HookFailed).err());
        self.act(|played| {
            match (stage, phase) {
                (Stage::Pre, _) => played.quiesced = true,
                (Stage::Post, "post") => {
                    assert!(
                        played.frozen.is_empty(),
                        "it serves, and not all of it goes on"
                    );
                    assert_ne!(played.pending, Some(true), "it serves, and a change is due");
                    assert!(
                        played.thaws_late || played.outdated == 0,
                        "it serves too early"
                    );
                    played.quiesced = false;
                }
                (Stage::Post, _) => played.quiesced = false,
                (Stage::Thaw, _) => {}
            }
            played.log.push(format!("{stage:?} for {phase}"));
        });
        Attempt {
            detail: json!([]),
            failed: failed.flatten(),
        }
    }

    fn freeze(&self, place: &Path, _: Duration) -> Result<(), Refusal> {
        self.fails(Code::FreezeFailed)?;
        self.act(|played| {
            let is_named = |group: &Frozen| group.cgroup == place;
            assert!(
                played.saved.frozen.iter().any(is_named),
                "nobody would thaw it"
            );
            played.frozen.insert(place.to_owned());
            played.log.push(format!("freeze {}", place.display()));
        });
        Ok(())
    }

    fn thaw(&self, place: &Path) -> Result<(), Refusal> {
        self.act(|played| {
            played.frozen.remove(place);
            played.log.push(format!("thaw {}", place.display()));
        });
        Ok(())
    }

    fn mix(&self, _: &[u8]) -> Result<(), Refusal> {
        self.fails(Code::EntropyFailed)?;
        self.act(|played| {
            played.mixed = true;
            played.log.push("mix".into());
        });
        Ok(())
    }

    fn set_clock(&self, _: Duration) -> Result<(), Refusal> {
        self.act(|played| played.log.push("clock".into()));
        Ok(())
    }

    fn change(&self, before: Point, _: u32, expect: Expect, _: Duration) -> Result<(), Refusal> {
        self.fails(Code::ChangeLate)?;
        self.act(|played| {
            let is_due = played.pending == Some(true);
            if is_due || (expect == Expect::Clone && played.point.epoch == before.epoch) {
                assert!(played.mixed, "those who are told draw what others draw");
                played.point.epoch += 1;
                played.point.generation += 1;
                played.outdated = 2;
                played.pending = Some(false);
            }
            played.log.push("change".into());
        });
        Ok(())
    }

    fn identity(&self, _: Duration) -> Attempt {
        self.act(|played| played.log.push("identity".into()));
        Attempt {
            detail: json!({ "units": [] }),
            failed: self.fails(Code::IdentityFailed).err(),
        }
    }

    fn watchers(&self, inside: Option<&Path>, _: &[Frozen], _: Duration) -> Attempt {
        self.act(|played| {
            let place = inside.unwrap_or(Path::new(""));
            let late = played.stubborn.as_deref() == Some(place);
            let stubborn = u64::from(played.stubborn.is_some());
            played.outdated = played.outdated.min(stubborn);
            played.log.push(format!("watchers {}", place.display()));
            let left = if late {
                vec![watcher(71, true, true)]
            } else {
                Vec::new()
            };
            Attempt {
                detail: json!({ "all_acked": !late, "watchers": left }),
                failed: late.then(|| Refusal::new(Code::WatchersLate, "process 71 (nginx)")),
            }
        })
    }

    fn thaws_late(&self) -> bool {
        self.played().thaws_late
    }

    fn status(&self) -> Result<Value, Refusal> {
        self.fails(Code::DeviceFailed)?;
        Ok(json!({ "generation": self.played().point.generation }))
    }

    fn survey(&self) -> Result<Watchers, Refusal> {
        self.fails(Code::DeviceFailed)?;
        Ok(watchers(vec![watcher(71, true, true)], 0))
    }

    fn changes(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("vmfork".to_owned(), 2)])
    }

    fn tell(&self, event: Value) {
        let _ = self.events.send(event.to_string());
    }
}
