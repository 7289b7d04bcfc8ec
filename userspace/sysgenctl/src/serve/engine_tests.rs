// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of a machine whose service is killed, or called by several.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::engine::Engine;
use super::play::Play;
use super::refusal::Code;
use super::refusal::Refusal;
use super::request::Cancel;
use super::request::Expect;
use super::request::Prepare;
use super::request::Resumed;
use super::state::Ended;
use super::state::Name;
use super::state::Outcome;
use super::state::Phase;
use super::state::Report;
use super::token::Point;
use super::token::Token;
use super::world::Caller;

const MINUTE: Duration = Duration::from_secs(60);

fn prepare(engine: &Engine<Play>) -> Result<Token, Refusal> {
    let request = Prepare {
        deadline: MINUTE,
        freeze: vec!["/a".into(), "/b".into()],
    };
    engine.prepare(&request, &Caller::default())?;
    Ok(engine.state().token.expect("it is quiesced"))
}

fn request(token: &Token, expect: Expect) -> Resumed {
    Resumed {
        token: token.clone(),
        entropy: (expect == Expect::Clone).then(|| vec![7; 32]),
        time: Some(Duration::from_secs(1_795_780_800)),
        least: 0,
        expect,
        deadline: MINUTE,
    }
}

fn resumed(engine: &Engine<Play>, token: &Token) -> Result<Report, Refusal> {
    engine.resumed(&request(token, Expect::Clone))
}

fn cancel(engine: &Engine<Play>, token: &Token) -> Result<(), Code> {
    let request = Cancel {
        token: token.clone(),
    };
    engine
        .cancel(&request)
        .map(drop)
        .map_err(|refusal| refusal.code)
}

fn recover(engine: &Engine<Play>) -> Result<(), Refusal> {
    engine.recover(engine.turn()?)
}

fn assert_serves(play: &Play) {
    let played = play.played();
    assert_eq!(played.saved.phase, Phase::Idle);
    assert!(played.frozen.is_empty(), "{:?}", played.log);
    assert!(!played.quiesced, "{:?}", played.log);
}

#[test]
fn a_clone_is_brought_back_in_order() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    assert_eq!(play.played().log, ["Pre for pre", "freeze /a", "freeze /b"]);
    play.clone_machine();
    play.played().log.clear();
    let report = resumed(&engine, &token).expect("all goes well");
    assert_eq!(
        play.played().log,
        [
            "mix",
            "clock",
            "change",
            "identity",
            "Thaw for thaw",
            "watchers ",
            "thaw /b",
            "watchers /b",
            "thaw /a",
            "watchers /a",
            "Post for post",
        ]
    );
    assert_eq!(report.outcome, Ended::Ready);
    assert_eq!((report.generation_before, report.generation), (3, 4));
    let names: Vec<_> = report.steps.iter().map(|step| step.name).collect();
    assert_eq!(names, Name::ALL);
    assert_serves(&play);
    assert_eq!(engine.state().last, Some(report));
}

#[test]
fn a_plain_resume_changes_nothing() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    let report = engine.resumed(&request(&token, Expect::Same));
    let report = report.expect("it is the same");
    assert_eq!((report.generation_before, report.generation), (3, 3));
    assert_eq!(report.steps[0].outcome, Outcome::Skipped);
    assert_serves(&play);
}

#[test]
fn a_clone_is_no_plain_resume() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    play.clone_machine();
    play.played().log.clear();
    let refusal = engine.resumed(&request(&token, Expect::Same));
    assert_eq!(refusal.expect_err("it is a clone").code, Code::IsAClone);
    assert_eq!(engine.state().phase, Phase::Prepared);
    assert_eq!(play.played().log, [""; 0]);
    resumed(&engine, &token).expect("it is a clone");
}

#[test]
fn without_a_hypervisors_change_one_is_made() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    let report = resumed(&engine, &token).expect("all goes well");
    assert_eq!((report.generation_before, report.generation), (3, 4));
}

#[test]
fn tokens_are_of_one_snapshot() {
    let play = Play::new();
    let engine = play.start();
    let code = |engine, token: &Token| resumed(engine, token).expect_err("it is wrong").code;
    let other = Token::numbered(Point::default(), 1);
    assert_eq!(code(&engine, &other), Code::NotPrepared);
    let first = prepare(&engine).expect("all goes well");
    assert_eq!(code(&engine, &other), Code::TokenOfAnotherSnapshot);
    assert_eq!(cancel(&engine, &other), Err(Code::TokenOfAnotherSnapshot));
    play.clone_machine();
    resumed(&engine, &first).expect("it is the token");
    assert_eq!(code(&engine, &first), Code::TokenSpent);
    // A clone of the clone has the old one behind it.
    let second = prepare(&engine).expect("all goes well");
    play.clone_machine();
    let engine = play.start();
    assert_eq!(code(&engine, &first), Code::TokenSpent);
    assert_eq!(cancel(&engine, &first), Err(Code::TokenSpent));
    resumed(&engine, &second).expect("it is the token");
    assert_serves(&play);
    // What a driver counts that was loaded again says nothing about before.
    let third = prepare(&engine).expect("all goes well");
    play.played().point.instance += 1;
    assert_eq!(code(&engine, &third), Code::TokenOfAnotherSnapshot);
    assert_eq!(cancel(&engine, &third), Ok(()));
    assert_serves(&play);
}

#[test]
fn it_is_quiesced_once() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    let refusal = prepare(&engine).expect_err("it is quiesced");
    assert_eq!(refusal.code, Code::AlreadyPrepared);
    assert_eq!(cancel(&engine, &token), Ok(()));
    assert_serves(&play);
    assert_eq!(cancel(&engine, &token), Err(Code::TokenSpent));
}

#[test]
fn what_fails_while_quiescing_is_undone() {
    for code in [Code::HookFailed, Code::FreezeFailed] {
        let play = Play::new();
        play.played().fails = Some(code);
        let engine = play.start();
        assert_eq!(prepare(&engine).expect_err("it fails").code, code);
        assert_serves(&play);
    }
    for code in [
        Code::HookRefused,
        Code::QuiescedElsewhere,
        Code::StateFailed,
    ] {
        let play = Play::new();
        play.played().fails = Some(code);
        let engine = play.start();
        assert_eq!(prepare(&engine).expect_err("it fails").code, code);
        assert_eq!(play.played().log, [""; 0], "something was done");
    }
}

#[test]
fn who_quiesces_it_by_hand_meanwhile_is_left_alone() {
    let play = Play::new();
    play.played().meanwhile = Some(Code::QuiescedElsewhere);
    let engine = play.start();
    let refusal = prepare(&engine).expect_err("somebody else does it");
    assert_eq!(refusal.code, Code::QuiescedElsewhere);
    let played = play.played();
    assert_eq!(played.log, [""; 0], "something was done");
    assert_eq!(played.saved.phase, Phase::Idle);
}

#[test]
fn what_takes_too_long_while_quiescing_is_undone() {
    let play = Play::new();
    play.played().tick = MINUTE;
    let engine = play.start();
    let refusal = prepare(&engine).expect_err("the deadline is over");
    assert_eq!(refusal.code, Code::DeadlineOver);
    assert_serves(&play);
}

#[test]
fn what_fails_while_resuming_keeps_it_quiesced() {
    for code in [
        Code::EntropyFailed,
        Code::ChangeLate,
        Code::IdentityFailed,
        Code::HookFailed,
    ] {
        let play = Play::new();
        let engine = play.start();
        let token = prepare(&engine).expect("all goes well");
        play.clone_machine();
        play.played().fails = Some(code);
        let refusal = resumed(&engine, &token).expect_err("it fails");
        assert_eq!(refusal.code, code);
        assert_eq!(refusal.report.expect("there is one")["outcome"], "held");
        assert!(play.played().quiesced, "{code:?}");
        assert_eq!(engine.state().phase, Phase::Held);
        // Once it is mended, the same call succeeds.
        play.played().fails = None;
        resumed(&engine, &token).expect("it is mended");
        assert_serves(&play);
    }
}

#[test]
fn who_does_not_acknowledge_is_named_and_stands_still() {
    for (stubborn, still) in [
        ("", vec!["/a", "/b"]),
        ("/b", vec!["/a", "/b"]),
        ("/a", vec!["/a"]),
    ] {
        let play = Play::new();
        let engine = play.start();
        let token = prepare(&engine).expect("all goes well");
        play.clone_machine();
        play.played().stubborn = Some(stubborn.into());
        let refusal = resumed(&engine, &token).expect_err("one does not acknowledge");
        assert_eq!(refusal.code, Code::WatchersLate);
        assert!(refusal.message.contains("nginx"), "{refusal}");
        let frozen = play.played().frozen.clone();
        assert_eq!(
            frozen,
            still.iter().map(|&path| path.into()).collect(),
            "{stubborn:?}"
        );
        assert!(play.played().quiesced);
        play.played().stubborn = None;
        resumed(&engine, &token).expect("it has ended");
        assert_serves(&play);
    }
}

#[test]
fn the_policy_can_be_to_thaw_late() {
    for stubborn in ["", "/b"] {
        let play = Play::new();
        let engine = play.start();
        let token = prepare(&engine).expect("all goes well");
        play.clone_machine();
        play.played().stubborn = Some(stubborn.into());
        play.played().thaws_late = true;
        let report = resumed(&engine, &token).expect("it goes on");
        assert_eq!(report.outcome, Ended::Late);
        assert_serves(&play);
    }
}

#[test]
fn a_deadline_that_is_over_keeps_it_quiesced() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    play.clone_machine();
    play.played().tick = MINUTE;
    let refusal = resumed(&engine, &token).expect_err("the deadline is over");
    assert_eq!(refusal.code, Code::DeadlineOver);
    assert!(play.played().quiesced);
    assert_eq!(play.played().frozen.len(), 2);
}

#[test]
fn two_do_not_interleave() {
    let play = Play::new();
    let (open, gate) = mpsc::channel();
    play.played().gate = Some(gate);
    let engine = play.start();
    thread::scope(|scope| {
        let first = scope.spawn(|| prepare(&engine));
        while engine.state().phase != Phase::Preparing {
            thread::sleep(Duration::from_millis(1));
        }
        let code = |result: Result<(), Refusal>| result.expect_err("it goes on").code;
        assert_eq!(code(prepare(&engine).map(drop)), Code::Busy);
        let token = engine.state().token.expect("it is noted");
        assert_eq!(code(resumed(&engine, &token).map(drop)), Code::Busy);
        assert_eq!(cancel(&engine, &token), Err(Code::Busy));
        drop(open);
        assert!(first.join().expect("it does not panic").is_ok());
    });
    assert_eq!(engine.state().phase, Phase::Prepared);
}

/// Starts the service again, as often as it was killed, until it has a machine that serves or is
/// quiesced for a token that is known.
fn restarted(play: &Play) -> Engine<Play> {
    loop {
        let engine = play.start();
        // What it cannot finish, it holds.
        if play.unless_killed(|| recover(&engine)).is_some() {
            return engine;
        }
    }
}

/// All that an orchestrator does; says whether the service was killed meanwhile.
fn bring_back(play: &Play, mut engine: Engine<Play>) -> bool {
    let mut was_killed = false;
    let token = if let Some(token) = play.unless_killed(|| prepare(&engine)) {
        token.expect("all goes well")
    } else {
        was_killed = true;
        engine = restarted(play);
        let state = engine.state();
        if let (Phase::Prepared, Some(token)) = (state.phase, state.token) {
            token
        } else {
            assert_serves(play);
            prepare(&engine).expect("all goes well")
        }
    };
    play.clone_machine();
    if let Some(report) = play.unless_killed(|| resumed(&engine, &token)) {
        assert_eq!(report.expect("all goes well").outcome, Ended::Ready);
    } else {
        was_killed = true;
        engine = restarted(play);
        if engine.state().phase != Phase::Idle {
            resumed(&engine, &token).expect("all goes well");
        }
        let last = engine.state().last.expect("there is one");
        assert_eq!((last.token, last.outcome), (token, Ended::Ready));
    }
    assert_serves(play);
    was_killed
}

#[test]
fn killed_at_any_step_it_finishes_or_undoes() {
    let mut kills = 0;
    for turn in 1.. {
        let play = Play::new();
        play.played().dies = Some(turn);
        if !bring_back(&play, play.start()) {
            break;
        }
        kills += 1;
    }
    assert!(kills > 60, "it was killed {kills} times only");
}

#[test]
fn killed_at_any_step_of_cancel_it_undoes() {
    let mut kills = 0;
    for turn in 1.. {
        let play = Play::new();
        let engine = play.start();
        let token = prepare(&engine).expect("all goes well");
        let play_from = play.turn();
        play.played().dies = Some(play_from + turn);
        let ended = play.unless_killed(|| cancel(&engine, &token));
        if let Some(ended) = ended {
            assert_eq!(ended, Ok(()));
            break;
        }
        kills += 1;
        let engine = restarted(&play);
        if engine.state().phase == Phase::Prepared {
            assert_eq!(cancel(&engine, &token), Ok(()));
        }
        assert_serves(&play);
        assert_eq!(cancel(&engine, &token), Err(Code::TokenSpent));
    }
    assert!(kills > 8, "it was killed {kills} times only");
}

#[test]
fn entropy_that_is_gone_is_asked_for_again() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    play.clone_machine();
    // It is noted that the step is begun, and that is all.
    let play_from = play.turn();
    play.played().dies = Some(play_from + 5);
    assert!(play.unless_killed(|| resumed(&engine, &token)).is_none());
    assert_eq!(play.played().saved.doing, Some(Name::Entropy));
    let engine = play.start();
    let refusal = recover(&engine).expect_err("it is gone");
    assert_eq!(refusal.code, Code::Interrupted);
    assert_eq!(engine.state().phase, Phase::Held);
    assert!(play.played().quiesced);
    resumed(&engine, &token).expect("there is other entropy");
    assert_serves(&play);
}

#[test]
fn a_clone_of_a_half_resumed_machine_needs_entropy_of_its_own() {
    let play = Play::new();
    let engine = play.start();
    let token = prepare(&engine).expect("all goes well");
    play.clone_machine();
    // It is saved once more when all of it but the last hooks is done.
    play.played().fails = Some(Code::IdentityFailed);
    assert!(resumed(&engine, &token).is_err());
    let mut half = play.played().saved.clone();
    half.phase = Phase::Resuming;
    half.steps.retain(|step| step.name < Name::Identity);
    play.played().saved = half;
    play.played().fails = None;
    play.clone_machine();
    let engine = play.start();
    let refusal = recover(&engine).expect_err("it is another clone");
    assert_eq!(refusal.code, Code::ChangedAgain);
    assert!(play.played().quiesced);
    resumed(&engine, &token).expect("it has entropy of its own");
    assert_serves(&play);
}
