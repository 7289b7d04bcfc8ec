// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order in which things are done, and what becomes of them when the service is killed.
//!
//! Where it is, is noted before each step is begun, and after it has ended. So whoever is started next
//! knows what may have been done: what was being quiesced is thawed, what was quiesced stays so, and
//! what was being brought back is brought back, unless that takes entropy that has gone with the one
//! that was killed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::refusal::Code;
use super::refusal::Refusal;
use super::request::Cancel;
use super::request::Expect;
use super::request::Prepare;
use super::request::Resumed;
use super::state::Ended;
use super::state::Frozen;
use super::state::Name;
use super::state::Outcome;
use super::state::Phase;
use super::state::Report;
use super::state::Resume;
use super::state::State;
use super::state::Step;
use super::token::Point;
use super::token::Token;
use super::world::Attempt;
use super::world::Caller;
use super::world::Stage;
use super::world::World;

/// The service.
pub struct Engine<W> {
    world: W,
    /// Whether something goes on.
    busy: AtomicBool,
    state: Mutex<State>,
    tally: Mutex<Tally>,
}

/// What is counted since the service was started.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long each step took the last time.
    pub seconds: BTreeMap<String, f64>,
    /// How many steps of hooks have failed.
    pub hooks_failed: u64,
    /// How many resumes ended like this.
    pub resumes: BTreeMap<String, u64>,
}

/// Nobody else has it.
#[derive(Debug)]
pub struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<W: World> Engine<W> {
    /// Goes on from a state that was noted.
    pub fn new(world: W, state: State) -> Self {
        Self {
            world,
            busy: AtomicBool::new(false),
            state: Mutex::new(state),
            tally: Mutex::default(),
        }
    }

    /// The machine.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// Where the service is.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        let tally = self.tally.lock();
        tally.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, add: impl FnOnce(&mut Tally)) {
        add(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Two orchestrators do not interleave.
    pub fn turn(&self) -> Result<Turn<'_>, Refusal> {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(Refusal::new(
                Code::Busy,
                "another call is being served: GET /v1/status says how far it is",
            ));
        }
        Ok(Turn(&self.busy))
    }

    /// Changes the state, which counts only when it is noted.
    fn note(&self, change: impl FnOnce(&mut State)) -> Result<(), Refusal> {
        let mut state = self.state();
        let phase = state.phase;
        change(&mut state);
        self.world.save(&state)?;
        if state.phase != phase {
            self.world
                .tell(json!({ "event": "phase", "phase": state.phase }));
        }
        *self.lock() = state;
        Ok(())
    }

    /// What is left until then.
    fn left(&self, ends: Duration) -> Duration {
        ends.saturating_sub(self.world.now())
    }

    /// How many seconds have passed since then.
    fn since(&self, start: Duration) -> f64 {
        self.world.now().saturating_sub(start).as_secs_f64()
    }

    // --- prepare ----------------------------------------------------------------

    /// Quiesces the machine, or leaves it as it was.
    pub fn prepare(&self, request: &Prepare, caller: &Caller) -> Result<Value, Refusal> {
        let _turn = self.turn()?;
        let began = self.world.now();
        let ends = began + request.deadline;
        let state = self.state();
        if state.phase != Phase::Idle {
            return Err(Refusal::new(
                Code::AlreadyPrepared,
                "the machine is quiesced already: whoever did that counts on it",
            ));
        }
        self.world.check()?;
        let frozen = self.world.find(&request.freeze, caller)?;
        let before = self.world.look()?.point;
        let token = Token::new(before)?;
        self.note(|state| {
            state.phase = Phase::Preparing;
            state.token = Some(token.clone());
            state.before = before;
        })?;
        // Who quiesces it by hand notes that before it looks here, and one of the two sees the other.
        if let Err(refusal) = self.world.check() {
            self.note(State::spend)?;
            return Err(refusal);
        }
        let mut hooks = Value::Null;
        let quiesced = self.quiesce(&frozen, before, ends, &mut hooks);
        if let Err(refusal) = quiesced {
            let undone = self.undo();
            return Err(refusal.with(&json!({ "hooks": hooks, "undone": undone?, "frozen": [] })));
        }
        let state = self.state();
        Ok(json!({
            "token": token,
            "generation": state.before.generation,
            "epoch": state.before.epoch,
            "hooks": hooks,
            "frozen": state.frozen,
            "seconds": self.since(began),
        }))
    }

    fn quiesce(
        &self,
        frozen: &[Frozen],
        before: Point,
        ends: Duration,
        hooks: &mut Value,
    ) -> Result<(), Refusal> {
        let ran = self
            .world
            .hooks(Stage::Pre, "pre", before, before, self.left(ends));
        *hooks = ran.detail;
        if let Some(failed) = ran.failed {
            self.count(|tally| tally.hooks_failed += 1);
            return Err(failed);
        }
        for group in frozen {
            // Whoever finds it named thaws it, whether or not it stands still by then.
            self.note(|state| state.frozen.push(group.clone()))?;
            self.world.freeze(&group.cgroup, self.left(ends))?;
        }
        if self.left(ends).is_zero() {
            let message = "it took longer than the deadline allows: take no snapshot";
            return Err(Refusal::new(Code::DeadlineOver, message));
        }
        // The newest before the snapshot.
        let before = self.world.look()?.point;
        self.note(|state| {
            state.phase = Phase::Prepared;
            state.before = before;
        })
    }

    // --- cancel -----------------------------------------------------------------

    /// Undoes what `prepare` did.
    pub fn cancel(&self, request: &Cancel) -> Result<Value, Refusal> {
        let _turn = self.turn()?;
        self.expects(&request.token)?;
        let undone = self.undo()?;
        Ok(json!({ "undone": undone }))
    }

    /// Undoes all, and goes on where something fails. What still stands still is held.
    fn undo(&self) -> Result<Value, Refusal> {
        self.note(|state| state.phase = Phase::Undoing)?;
        let state = self.state();
        let now = self.world.look().map_or(state.before, |seen| seen.point);
        let run = |stage| {
            let ran = self
                .world
                .hooks(stage, "undo", now, state.before, Duration::MAX);
            if ran.failed.is_some() {
                self.count(|tally| tally.hooks_failed += 1);
            }
            ran.detail
        };
        let early = run(Stage::Thaw);
        let mut failed = None;
        let mut left = Vec::new();
        for group in state.frozen.iter().rev() {
            if let Err(refusal) = self.world.thaw(&group.cgroup) {
                failed = Some(refusal);
                left.insert(0, group.clone());
            }
        }
        let late = run(Stage::Post);
        let done = json!({ "thaw_hooks": early, "post_hooks": late });
        if let Some(refusal) = failed {
            self.note(|state| {
                state.phase = Phase::Held;
                state.frozen = left;
            })?;
            return Err(refusal.with(&done));
        }
        self.note(State::spend)?;
        Ok(done)
    }

    // --- resumed ----------------------------------------------------------------

    /// A refusal if a token is not of what is quiesced.
    fn expects(&self, token: &Token) -> Result<(), Refusal> {
        let state = self.state();
        let refuse = |code, message: &str| Err(Refusal::new(code, message));
        if state.token.as_ref() == Some(token) {
            return Ok(());
        }
        if state.spent.contains(token) {
            return refuse(
                Code::TokenSpent,
                "what this token is for is over: of this snapshot, or of one that this machine comes from",
            );
        }
        if state.token.is_none() {
            return refuse(Code::NotPrepared, "this machine is not quiesced");
        }
        refuse(
            Code::TokenOfAnotherSnapshot,
            "the machine is quiesced for another snapshot than this token's",
        )
    }

    /// Brings the machine back, or says why it stays quiesced.
    pub fn resumed(&self, request: &Resumed) -> Result<Report, Refusal> {
        let _turn = self.turn()?;
        self.expects(&request.token)?;
        let began = self.world.now();
        let state = self.state();
        let seen = self.world.look()?;
        if seen.point.instance != state.before.instance {
            return Err(Refusal::new(
                Code::TokenOfAnotherSnapshot,
                "the driver was loaded again since: what it counts from then on is another time",
            ));
        }
        let has_changed = seen.pending == Some(true) || seen.point.epoch != state.before.epoch;
        if request.expect == Expect::Same && has_changed {
            return Err(Refusal::new(
                Code::IsAClone,
                "this is no plain resume: the hypervisor, or somebody else, has changed the generation; \
                 nothing was done, call again with expect: clone",
            ));
        }
        self.note(|state| {
            state.phase = Phase::Resuming;
            state.steps.clear();
            state.resume = Some(Resume {
                expect: request.expect,
                time: request.time,
                least: request.least,
                has_entropy: request.entropy.is_some(),
                began,
                ends: began + request.deadline,
                reached: None,
            });
        })?;
        self.go_on(request.entropy.as_deref())
    }

    /// Does what is left to do.
    fn go_on(&self, entropy: Option<&[u8]>) -> Result<Report, Refusal> {
        for name in Name::ALL {
            if self.state().steps.iter().any(|step| step.name == name) {
                continue;
            }
            self.note(|state| state.doing = Some(name))?;
            let start = self.world.now();
            let attempt = self.step(name, entropy);
            let (outcome, failed) = self.judge(name, &attempt);
            let step = Step {
                name,
                outcome,
                seconds: self.since(start),
                detail: attempt.detail,
            };
            self.tell(&step);
            self.note(|state| {
                state.doing = None;
                state.steps.push(step);
            })?;
            if let Some(refusal) = failed {
                return Err(self.hold(refusal));
            }
        }
        let late = |step: &Step| step.outcome == Outcome::Late;
        let outcome = if self.state().steps.iter().any(late) {
            Ended::Late
        } else {
            Ended::Ready
        };
        let report = self.report(outcome)?;
        self.note(|state| {
            state.spend();
            state.last = Some(report.clone());
        })?;
        Ok(report)
    }

    fn tell(&self, step: &Step) {
        let Ok(Value::String(name)) = serde_json::to_value(step.name) else {
            return;
        };
        self.world.tell(json!({
            "event": "step",
            "step": step.name,
            "outcome": step.outcome,
            "seconds": step.seconds,
        }));
        self.count(|tally| {
            let is_of_hooks = matches!(step.name, Name::ThawHooks | Name::PostHooks);
            if is_of_hooks && step.outcome == Outcome::Failed {
                tally.hooks_failed += 1;
            }
            tally.seconds.insert(name, step.seconds);
        });
    }

    /// What came of a step, and whether the machine is held for it.
    fn judge(&self, name: Name, attempt: &Attempt) -> (Outcome, Option<Refusal>) {
        match &attempt.failed {
            None if attempt.detail.is_null() => (Outcome::Skipped, None),
            None => (Outcome::Done, None),
            Some(refusal)
                if refusal.code == Code::WatchersLate
                    && self.world.thaws_late()
                    && matches!(name, Name::Watchers | Name::Thaw) =>
            {
                (Outcome::Late, None)
            }
            Some(refusal) => (Outcome::Failed, Some(refusal.clone())),
        }
    }

    /// The machine stays quiesced.
    fn hold(&self, refusal: Refusal) -> Refusal {
        let held = self.report(Ended::Held).and_then(|report| {
            self.note(|state| {
                state.phase = Phase::Held;
                state.last = Some(report.clone());
            })?;
            Ok(report)
        });
        match held {
            Ok(report) => refusal.with(&report),
            Err(other) => other,
        }
    }

    fn report(&self, outcome: Ended) -> Result<Report, Refusal> {
        let state = self.state();
        let (Some(token), Some(resume)) = (state.token, state.resume) else {
            let message = "what is noted of the resume is gone";
            return Err(Refusal::new(Code::StateFailed, message));
        };
        let now = self.world.look().map_or(state.before, |seen| seen.point);
        let seconds = self.since(resume.began);
        let word = serde_json::to_value(outcome).unwrap_or_default();
        self.count(|tally| {
            let word = word.as_str().unwrap_or_default().to_owned();
            *tally.resumes.entry(word).or_default() += 1;
        });
        Ok(Report {
            token,
            expect: resume.expect,
            outcome,
            generation_before: state.before.generation,
            generation: now.generation,
            epoch: now.epoch,
            seconds,
            steps: state.steps,
        })
    }

    /// Does a step. One that has nothing to tell was skipped.
    fn step(&self, name: Name, entropy: Option<&[u8]>) -> Attempt {
        let state = self.state();
        let Some(resume) = &state.resume else {
            let message = "what is noted of the resume is gone";
            return Err(Refusal::new(Code::StateFailed, message)).into();
        };
        let left = self.left(resume.ends);
        // Of those that stand still, one may go on again that was not waited for: a look at them all makes
        // sure of that.
        if left.is_zero() && name != Name::Thaw && !self.world.thaws_late() {
            let message = "the deadline is over";
            return Err(Refusal::new(Code::DeadlineOver, message)).into();
        }
        let now = || self.world.look().map_or(state.before, |seen| seen.point);
        match name {
            Name::Entropy => entropy.map_or_else(Attempt::skipped, |entropy| {
                let mixed = self.world.mix(entropy);
                mixed.map(|()| json!({ "bytes": entropy.len() })).into()
            }),
            Name::Clock => resume.time.map_or_else(Attempt::skipped, |time| {
                // What has passed since the call came has passed on that clock, too.
                let time = time + self.world.now().saturating_sub(resume.began);
                let set = self.world.set_clock(time);
                set.map(|()| json!({ "time": time.as_secs_f64() })).into()
            }),
            Name::Change => self.change(&state, resume, left).into(),
            Name::Identity => self.world.identity(left),
            Name::ThawHooks => self
                .world
                .hooks(Stage::Thaw, "thaw", now(), state.before, left),
            Name::Watchers => self.world.watchers(None, &state.frozen, left),
            Name::Thaw => self.thaw(&state, resume),
            Name::PostHooks => match self.is_current(resume) {
                Ok(()) => self
                    .world
                    .hooks(Stage::Post, "post", now(), state.before, left),
                Err(refusal) => Err(refusal).into(),
            },
        }
    }

    fn change(&self, state: &State, resume: &Resume, left: Duration) -> Result<Value, Refusal> {
        self.world
            .change(state.before, resume.least, resume.expect, left)?;
        let reached = self.world.look()?.point;
        self.note(|state| {
            if let Some(resume) = &mut state.resume {
                resume.reached = Some(reached);
            }
        })?;
        Ok(json!({
            "changed": reached.epoch != state.before.epoch,
            "generation": reached.generation,
            "epoch": reached.epoch,
        }))
    }

    /// A refusal if this machine was cloned once more, while it was being brought back: what was done
    /// then was done in both.
    fn is_current(&self, resume: &Resume) -> Result<(), Refusal> {
        let seen = self.world.look()?;
        if seen.pending == Some(true) || resume.reached != Some(seen.point) {
            return Err(Refusal::new(
                Code::ChangedAgain,
                "the generation has changed again meanwhile: call again, with other entropy",
            ));
        }
        Ok(())
    }

    /// Who stands still cannot acknowledge. So one after the other goes on, the last one first, and the
    /// next one only when all have acknowledged who are in it; otherwise it stands still again.
    fn thaw(&self, state: &State, resume: &Resume) -> Attempt {
        let mut groups = Vec::new();
        let mut late = None;
        for group in state.frozen.iter().rev() {
            let start = self.world.now();
            let thawed = self.thaw_one(group, resume);
            let (waited, failed) = match thawed {
                Ok(attempt) => (attempt.detail, attempt.failed),
                Err(refusal) => (Value::Null, Some(refusal)),
            };
            let goes_on =
                |refusal: &Refusal| refusal.code == Code::WatchersLate && self.world.thaws_late();
            let stays = failed.as_ref().is_some_and(|refusal| !goes_on(refusal));
            groups.push(json!({
                "name": group.name,
                "cgroup": group.cgroup,
                "thawed": !stays,
                "waited": waited,
                "seconds": self.since(start),
            }));
            let settled = if stays {
                // It has to stand still, whatever time it is.
                self.world.freeze(&group.cgroup, AGAIN)
            } else {
                self.note(|state| state.frozen.retain(|other| other != group))
            };
            let failed = if stays {
                failed
            } else {
                late = late.or(failed);
                None
            };
            if let Some(refusal) = failed.or(settled.err()) {
                return Attempt {
                    detail: json!(groups),
                    failed: Some(refusal),
                };
            }
        }
        Attempt {
            detail: if groups.is_empty() {
                Value::Null
            } else {
                json!(groups)
            },
            failed: late,
        }
    }

    fn thaw_one(&self, group: &Frozen, resume: &Resume) -> Result<Attempt, Refusal> {
        self.is_current(resume)?;
        self.world.thaw(&group.cgroup)?;
        let left = self.left(resume.ends);
        Ok(self.world.watchers(Some(&group.cgroup), &[], left))
    }

    // --- after a death ----------------------------------------------------------

    /// Finishes or undoes what the one before was killed at.
    pub fn recover(&self, _turn: Turn<'_>) -> Result<(), Refusal> {
        let state = self.state();
        match state.phase {
            Phase::Idle | Phase::Prepared | Phase::Held => Ok(()),
            Phase::Preparing | Phase::Undoing => self.undo().map(drop),
            Phase::Resuming => {
                let is_mixed = state.steps.iter().any(|step| step.name == Name::Entropy);
                let had_none = state.resume.is_some_and(|resume| !resume.has_entropy);
                if is_mixed || had_none {
                    return self.go_on(None).map(drop);
                }
                Err(self.hold(Refusal::new(
                    Code::Interrupted,
                    "the service was killed before the entropy was mixed in, and has not kept it: call \
                     again, with other entropy",
                )))
            }
        }
    }
}

/// How long may take what has to be done whatever time it is.
const AGAIN: Duration = Duration::from_secs(10);

impl Attempt {
    fn skipped() -> Self {
        Self::done(Value::Null)
    }
}

impl From<Result<Value, Refusal>> for Attempt {
    fn from(result: Result<Value, Refusal>) -> Self {
        match result {
            Ok(detail) => Self::done(detail),
            Err(refusal) => Self {
                detail: Value::Null,
                failed: Some(refusal),
            },
        }
    }
}
