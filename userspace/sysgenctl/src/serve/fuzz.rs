// SPDX-License-Identifier: MIT OR Apache-2.0

//! What fuzzers call: `fuzz/` beside the sources has the programs.

use std::time::Duration;

use super::engine::Engine;
use super::play::Play;
use super::request::Cancel;
use super::request::MOST;
use super::request::Prepare;
use super::request::Resumed;
use super::serial;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A body of any of the calls: it is refused, or what it asks for is within the limits.
pub fn requests(data: &[u8]) {
    let is_deadline = |deadline: Duration| !deadline.is_zero() && deadline <= DAY;
    if let Ok(prepare) = Prepare::parse(data) {
        assert!(is_deadline(prepare.deadline));
    }
    if let Ok(resumed) = Resumed::parse(data) {
        assert!(is_deadline(resumed.deadline));
        let entropy = resumed.entropy.as_deref().map(<[u8]>::len);
        assert!(entropy.is_none_or(|bytes| (16..=65536).contains(&bytes)));
        let token = resumed.token.to_string();
        assert_eq!(token.parse(), Ok(resumed.token));
    }
    if let Ok(cancel) = Cancel::parse(data) {
        let token = cancel.token.to_string();
        assert_eq!(token.parse(), Ok(cancel.token));
    }
}

/// What comes by a serial port: lines that are as long as is allowed, and none is empty.
pub fn lines(data: &[u8]) {
    for line in serial::all_lines(data).into_iter().flatten() {
        assert!(line.len() <= MOST && !line.contains(&b'\n'));
        assert!(!line.trim_ascii().is_empty());
    }
}

/// Requests that a fuzzer would not come to by itself, and what they are called.
const REQUESTS: [(&[u8], &[u8]); 5] = [
    (
        b"p",
        br#"{"method":"POST","path":"/v1/prepare","body":{"deadline":9,"freeze":["/a","/b"]}}"#,
    ),
    (
        b"r",
        br#"{"method":"POST","path":"/v1/resumed","body":{"token":"@","entropy":"AAAAAAAAAAAAAAAAAAAAAAA=","expect":"clone","deadline":9}}"#,
    ),
    (
        b"s",
        br#"{"method":"POST","path":"/v1/resumed","body":{"token":"@","expect":"same","deadline":9}}"#,
    ),
    (
        b"x",
        br#"{"method":"POST","path":"/v1/cancel","body":{"token":"@"}}"#,
    ),
    (b"?", br#"{"method":"GET","path":"/ready"}"#),
];

/// What somebody says at a serial port, a line each time, with `@` in the place of the last token, or the
/// name of one of [`REQUESTS`]; and what happens to the machine meanwhile: it is cloned (`C`), or its
/// watchers do not acknowledge (`W`), or do again (`w`), or the service is killed in the next turn but so
/// many (`K`, and a byte). The machine that is played says if something is done that must not be.
pub fn conversation(data: &[u8]) {
    let play = Play::new();
    let mut engine = play.start();
    let mut token = String::new();
    for line in data.split(|byte| *byte == b'\n') {
        match line {
            b"C" => play.clone_machine(),
            b"W" => play.played().stubborn = Some("".into()),
            b"w" => play.played().stubborn = None,
            [b'K', turns] => {
                let dies = play.turn() + usize::from(*turns);
                play.played().dies = Some(dies);
            }
            said => {
                let named = REQUESTS.iter().find(|(name, _)| *name == said);
                let said = named.map_or(said, |(_, request)| *request);
                let said = said.iter().flat_map(|byte| match byte {
                    b'@' => token.as_bytes(),
                    other => std::slice::from_ref(other),
                });
                let said: Vec<_> = said.copied().collect();
                if !is_answered(&play, &engine, &said) {
                    engine = play.start();
                    let turn = engine.turn().expect("nobody else has begun");
                    // It may be refused, and is to be called again then.
                    let _ = engine.recover(turn);
                }
                token = engine
                    .state()
                    .token
                    .map_or(token, |token| token.to_string());
            }
        }
    }
}

/// Says it. Whatever is refused leaves no trace. Returns whether the service lives on.
fn is_answered(play: &Play, engine: &Engine<Play>, said: &[u8]) -> bool {
    let done = play.played().log.len();
    let Some(answer) = play.unless_killed(|| serial::answer(engine, Some(said))) else {
        return false;
    };
    let status = answer["status"].as_u64().expect("there is a status");
    assert!([200, 500, 503, 504].contains(&status) || (400..=413).contains(&status));
    if (400..=413).contains(&status) {
        assert_eq!(play.played().log.len(), done, "{answer}");
    }
    true
}
