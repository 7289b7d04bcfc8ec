// SPDX-License-Identifier: MIT OR Apache-2.0

//! The proof by the saved machine's memory: what threads drew in clones, turn by turn, and in which
//! turn each was frozen.
//!
//! What a program cannot know is when it was frozen. So it counts its turns in memory, and notes
//! `turns ADDRESS THREADS`, where that is: a word of 64 bits for each thread, four times the number
//! of the turn and how far it has come. Of each thread it notes `place NUMBER NAME` if it has a name;
//! in a clone, `new THREAD TURN` when a look has found a new ID, and `draws THREAD TURN HEX,HEX,…`,
//! what left from that turn on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;

use super::manifest::Turns;
use super::words::Clone;
use super::words::noted;
use crate::clone::Saved;
use crate::tap::Test;

/// How far a thread had come in a turn when it was frozen; as the program has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The turn had begun.
    Begun,
    /// The second look was to come, or had just been.
    SecondLook,
    /// The bytes had left.
    Left,
}

/// Where a thread was frozen.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    turn: u64,
    stage: Stage,
}

impl Frozen {
    /// Reads what the program counts.
    fn parse(count: u64) -> Result<Self> {
        let stage = match count % 4 {
            0 => Stage::Begun,
            1 => Stage::SecondLook,
            2 => Stage::Left,
            _ => return Err(anyhow!("{count} is no count of a turn")),
        };
        Ok(Self {
            turn: count / 4,
            stage,
        })
    }

    /// Whether the first look of that turn came after the resume: yes, no, or nobody knows.
    fn looked_after(self, turn: u64) -> Option<bool> {
        if turn == self.turn && self.stage == Stage::Begun {
            None
        } else {
            Some(turn > self.turn)
        }
    }

    /// Whether the second look of that turn came after the resume, for sure.
    fn looked_again_after(self, turn: u64) -> bool {
        turn > self.turn || (turn == self.turn && self.stage == Stage::Begun)
    }
}

/// What left the threads of one clone, by thread and turn.
type Draws<'a> = BTreeMap<(usize, u64), &'a str>;

/// Reads what the clone said.
fn draws(output: &str) -> Result<Draws<'_>> {
    let mut draws = Draws::new();
    for line in noted(output, "draws") {
        let mut words = line.split(' ');
        let mut word = || words.next().context("a line of draws is too short");
        let (thread, first): (usize, u64) = (word()?.parse()?, word()?.parse()?);
        for (turn, draw) in (first..).zip(word()?.split(',')) {
            if !draw.is_empty() {
                draws.insert((thread, turn), draw);
            }
        }
    }
    Ok(draws)
}

/// A machine that was saved while threads took turns, and what came of its clones.
struct Scene<'a> {
    frozen: Vec<Frozen>,
    places: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

impl Scene<'_> {
    /// The draws of each clone that count: those that have left after a second look after the resume,
    /// or only those of turns that began after the snapshot. Where a library looks by itself, at some
    /// moment of a turn that nobody can know, what was left half way counts for nothing.
    fn late(&self, whole: bool) -> Result<Vec<Draws<'_>>> {
        let counts = |thread: usize, turn: u64| {
            let frozen = self.frozen[thread];
            if whole {
                turn > frozen.turn
            } else {
                frozen.looked_again_after(turn)
            }
        };
        self.outputs
            .iter()
            .map(|output| {
                let mut draws = draws(output)?;
                ensure!(
                    draws.keys().all(|&(thread, _)| thread < self.frozen.len()),
                    "a thread has drawn that was not there"
                );
                draws.retain(|&(thread, turn), _| counts(thread, turn));
                Ok(draws)
            })
            .collect()
    }

    /// In every clone and thread, the first look after the resume found a new ID.
    fn new_at_first_look(&self) -> Result<()> {
        for (number, output) in self.outputs.iter().enumerate() {
            let lines = noted(output, "new");
            ensure!(
                lines.len() == self.frozen.len(),
                "clone {}: {} of {} threads have seen a new ID",
                number + 1,
                lines.len(),
                self.frozen.len()
            );
            for line in lines {
                let (thread, turn) = line.split_once(' ').context("a line “new” is too short")?;
                let (thread, turn): (usize, u64) = (thread.parse()?, turn.parse()?);
                let frozen = self.frozen[thread];
                let first = match frozen.looked_after(frozen.turn) {
                    None => frozen.turn..=frozen.turn + 1,
                    Some(_) => frozen.turn + 1..=frozen.turn + 1,
                };
                ensure!(
                    first.contains(&turn),
                    "clone {}, thread {thread}: new in turn {turn}, frozen in {frozen:?}",
                    number + 1
                );
            }
        }
        Ok(())
    }

    /// Nothing that counts is seen twice, in whatever clone; and each place that has a name has drawn
    /// something, or at least one has where they have none.
    fn nothing_twice(&self, whole: bool) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (number, late) in self.late(whole)?.iter().enumerate() {
            let clone = number + 1;
            ensure!(!late.is_empty(), "clone {clone}: nothing has left it");
            for (place, name) in self.places.iter().enumerate() {
                ensure!(
                    late.keys().any(|&(other, _)| other == place),
                    "clone {clone}: nothing was drawn in the place {name}"
                );
            }
            for (&(thread, turn), draw) in late {
                ensure!(
                    seen.insert(*draw),
                    "clone {clone}: {draw}, drawn by thread {thread} in turn {turn}, is seen twice"
                );
            }
        }
        Ok(())
    }

    /// In the place of that name, or anywhere if it is empty, two clones have drawn the same.
    fn something_twice(&self, whole: bool, name: &str) -> Result<()> {
        let place = if name.is_empty() {
            None
        } else {
            let ends = format!(" {name}");
            let found = self.places.iter().position(|place| place.ends_with(&ends));
            Some(found.context("there is no such place")?)
        };
        let mut seen = BTreeSet::new();
        let mut twice = 0;
        for late in self.late(whole)? {
            let here = late
                .iter()
                .filter(|((thread, _), _)| place.is_none_or(|place| *thread == place));
            let here: BTreeSet<_> = here.map(|(_, draw)| *draw).collect();
            twice += here.intersection(&seen).count();
            seen.extend(here);
        }
        ensure!(twice > 0, "{} draws, all of them different", seen.len());
        Ok(())
    }
}

/// A test for each thing that must hold. `before` is what was written before the machine was saved.
pub fn tests(
    name: &str,
    words: &Turns,
    saved: &Saved<'_>,
    clones: &[Clone],
    before: &str,
) -> Result<Vec<Test>> {
    let scene = Scene {
        frozen: frozen(saved, before)?,
        places: noted(before, "place"),
        outputs: clones.iter().map(|clone| clone.output.as_str()).collect(),
    };
    let mut tests = Vec::new();
    let mut test = |what: &str, result: Result<()>| {
        tests.push(Test::from_result(format!("{name}: {what}"), result));
    };
    if words.first_look {
        test("the ID is new at the first look", scene.new_at_first_look());
    }
    if words.nothing_twice {
        test("nothing leaves twice", scene.nothing_twice(words.whole));
    }
    for place in &words.twice {
        let what = if place.is_empty() {
            "the same leaves twice".into()
        } else {
            format!("{place} draws the same twice")
        };
        test(&what, scene.something_twice(words.whole, place));
    }
    Ok(tests)
}

/// Where the threads of a saved machine were frozen.
fn frozen(saved: &Saved<'_>, output: &str) -> Result<Vec<Frozen>> {
    let turns = noted(output, "turns");
    let place = turns.first().and_then(|line| line.split_once(' '));
    let (address, threads) = place.context("the program does not say where it counts")?;
    let address = address.trim_start_matches("0x");
    let memory = saved.memory(
        u64::from_str_radix(address, 16)?,
        8 * threads.parse::<u64>()?,
    )?;
    memory
        .chunks_exact(8)
        .map(|count| Frozen::parse(u64::from_le_bytes(count.try_into()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene<'a>(count: u64, outputs: &[&'a str]) -> Scene<'a> {
        Scene {
            frozen: vec![Frozen::parse(count).expect("this is a count")],
            places: Vec::new(),
            outputs: outputs.to_vec(),
        }
    }

    #[test]
    fn first_look_after_the_snapshot() {
        let held = |count, output| scene(count, &[output]).new_at_first_look().is_ok();
        // Turn 7 has begun: its first look may have been before or after.
        assert!(held(28, "# new 0 7\n"));
        assert!(held(28, "# new 0 8\n"));
        assert!(!held(28, "# new 0 9\n"));
        // It was before.
        assert!(!held(29, "# new 0 7\n"));
        assert!(held(29, "# new 0 8\n"));
        assert!(held(30, "# new 0 8\n"));
        assert!(!held(30, "# new 0 9\n"));
        assert!(!held(30, ""));
    }

    #[test]
    fn what_left_after_the_snapshot() {
        let clones = ["# draws 0 6 aa,bb,cc,\n", "# draws 0 6 aa,bb,dd,\n"];
        // In turn 7, one was frozen after the second look, and the other one before.
        assert!(scene(30, &clones).nothing_twice(false).is_ok());
        assert!(scene(30, &clones).something_twice(false, "").is_err());
        assert!(scene(28, &clones).nothing_twice(false).is_err());
        assert!(scene(28, &clones).something_twice(false, "").is_ok());
        assert!(scene(40, &clones).nothing_twice(false).is_err());
    }

    #[test]
    fn what_was_drawn_in_whole_turns() {
        let clones = ["# draws 0 6 aa,bb,cc,\n", "# draws 0 6 aa,bb,cc,\n"];
        // It was frozen in turn 7, before the second look: turn 8 is the first one that counts.
        assert!(scene(28, &clones).something_twice(true, "").is_ok());
        assert!(scene(32, &clones).something_twice(true, "").is_err());
        let mut scene = scene(28, &["# draws 0 8 cc\n", "# draws 0 8 dd\n"]);
        assert!(scene.nothing_twice(true).is_ok());
        scene.places = vec!["0 RAND_bytes"];
        assert!(scene.nothing_twice(true).is_ok());
        assert!(scene.something_twice(true, "RAND_bytes").is_err());
        assert!(scene.something_twice(true, "elsewhere").is_err());
        scene.places.push("1 child");
        assert!(scene.nothing_twice(true).is_err(), "it has drawn nothing");
    }
}
