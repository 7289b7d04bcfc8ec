// SPDX-License-Identifier: MIT OR Apache-2.0

//! The window between the moment when a clone is resumed and the moment when its kernel has reseeded
//! the random number generator: by the protocol, nothing leaves a program in it.
//!
//! What a program cannot know is when it was frozen. The saved machine's memory shows it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests;
use super::guests::Said;
use super::guests::noted;
use crate::clone::Saved;
use crate::products;
use crate::setup::GuestOptions;
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
pub struct Frozen {
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

    /// The turn in which it was.
    pub fn turn(self) -> u64 {
        self.turn
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
pub type Draws<'a> = BTreeMap<(usize, u64), &'a str>;

/// Reads what the clone said.
pub fn draws(output: &str) -> Result<Draws<'_>> {
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

/// The draws that have left after a second look after the resume.
fn late<'a>(draws: &Draws<'a>, frozen: &[Frozen]) -> Vec<&'a str> {
    let is_late = |(thread, turn): (usize, u64)| frozen[thread].looked_again_after(turn);
    let late = draws.iter().filter(|(place, _)| is_late(**place));
    late.map(|(_, draw)| *draw).collect()
}

/// A program that takes turns.
type Program = fn() -> Result<PathBuf>;

/// The one that follows the protocol by itself.
fn by_hand() -> Result<PathBuf> {
    Ok(products::rust_selftests()?.join("sysgenid-window-test"))
}

/// The one that leaves it to the library crate.
fn by_the_library() -> Result<PathBuf> {
    products::library_tests("window")
}

/// Some machine, saved while the program takes turns, and what came of its clones.
struct Scene {
    frozen: Vec<Frozen>,
    clones: Vec<Said>,
}

impl Scene {
    fn play(
        bench: &Bench,
        program: Program,
        smp: u32,
        arguments: &[&str],
        clones: usize,
    ) -> Result<Self> {
        let mut command = vec!["/window-test"];
        command.extend(arguments);
        let options = GuestOptions {
            smp,
            ..GuestOptions::plain()
        };
        let additions = [guests::addition(program()?, "/window-test")];
        let setup = guests::setup(bench, &options, &additions, &command)?;
        let (saved, output) = Saved::with_output(&setup)?;
        let ids: Vec<_> = (0..clones).map(|_| Some(Uuid::new_v4())).collect();
        Ok(Self {
            frozen: frozen(&saved, &output)?,
            clones: guests::resume_saved(&saved, &ids)?,
        })
    }

    /// In every clone and thread, the first look after the resume found a new ID.
    fn new_at_first_look(&self) -> Result<()> {
        for (number, clone) in self.clones.iter().enumerate() {
            let lines = noted(&clone.output, "new");
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

    /// The draws of each clone that have left after the resume.
    fn late(&self) -> Result<Vec<Vec<&str>>> {
        self.clones
            .iter()
            .map(|clone| Ok(late(&draws(&clone.output)?, &self.frozen)))
            .collect()
    }

    /// Nothing that has left is seen twice, in whatever clone.
    fn nothing_twice(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (number, late) in self.late()?.iter().enumerate() {
            ensure!(!late.is_empty(), "nothing has left clone {}", number + 1);
            for draw in late {
                ensure!(
                    seen.insert(*draw),
                    "clone {}: {draw} is seen twice",
                    number + 1
                );
            }
        }
        Ok(())
    }

    /// Something that has left one clone has left another one as well.
    fn something_twice(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut twice = 0;
        for late in self.late()? {
            let late: BTreeSet<_> = late.into_iter().collect();
            twice += late.intersection(&seen).count();
            seen.extend(late);
        }
        ensure!(twice > 0, "{} draws, all of them different", seen.len());
        Ok(())
    }
}

/// Where the threads of a saved machine were frozen.
pub fn frozen(saved: &Saved<'_>, output: &str) -> Result<Vec<Frozen>> {
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

fn proof(
    bench: &Bench,
    name: &str,
    program: Program,
    (smp, threads): (u32, u32),
    clones: usize,
) -> Result<Vec<Test>> {
    let name = format!("{name}, {smp} CPUs, {threads} threads");
    let arguments = ["--threads", &threads.to_string()];
    let scene = Scene::play(bench, program, smp, &arguments, clones)?;
    let mut tests = guests::clone_tests(&name, &scene.clones);
    tests.push(Test::from_result(
        format!("{name}: the ID is new at the first look"),
        scene.new_at_first_look(),
    ));
    tests.push(Test::from_result(
        format!("{name}: nothing leaves twice"),
        scene.nothing_twice(),
    ));
    Ok(tests)
}

/// A thread on the only processor, and more threads than that.
pub fn one_processor(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = proof(bench, "window", by_hand, (1, 1), 13)?;
    tests.extend(proof(bench, "window", by_hand, (1, 3), 13)?);
    Ok(tests)
}

/// A thread on each processor.
pub fn several_processors(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = proof(bench, "window", by_hand, (2, 2), 12)?;
    tests.extend(proof(bench, "window", by_hand, (4, 4), 12)?);
    Ok(tests)
}

/// The same for a program whose secret the library crate keeps, and its control.
pub fn library(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = proof(bench, "library, window", by_the_library, (1, 1), 4)?;
    tests.extend(proof(bench, "library, window", by_the_library, (2, 3), 4)?);
    tests.extend(control_of(bench, "library, window", by_the_library)?);
    Ok(tests)
}

/// Without a look at the ID, the same bytes do leave several clones. A single thread may be stopped at
/// once by the work that ends in the change; not all of several ones are.
pub fn control(bench: &Bench) -> Result<Vec<Test>> {
    control_of(bench, "window", by_hand)
}

fn control_of(bench: &Bench, name: &str, program: Program) -> Result<Vec<Test>> {
    let arguments = ["--threads", "3", "--generation-only"];
    let scene = Scene::play(bench, program, 2, &arguments, 3)?;
    let mut tests = guests::clone_tests(&format!("{name}, control"), &scene.clones);
    tests.push(Test::from_result(
        format!("{name}, control: without the ID the same leaves twice"),
        scene.something_twice(),
    ));
    Ok(tests)
}

/// On the way from the resume to the change everything comes in its order, and the driver's own part
/// is short, with the uevent and the log line. Instructions are counted: the host's speed makes no
/// difference.
pub fn own_part(bench: &Bench) -> Result<Vec<Test>> {
    const MOST_US: i64 = 50;
    let options = GuestOptions {
        icount: true,
        ..GuestOptions::plain()
    };
    let scene = crate::window::Scene::play(&bench.kernel, &options, false, 3)?;
    let took = scene.own_part().context("there are no clones")?;
    let result = || {
        ensure!(took <= MOST_US, "{took} µs of guest time");
        Ok(())
    };
    Ok(vec![Test::from_result(
        format!("window: our part takes at most {MOST_US} µs"),
        result(),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(count: u64, outputs: &[&str]) -> Scene {
        let clone = |output: &&str| Said {
            status: 0,
            remarks: String::new(),
            output: (*output).to_owned(),
        };
        Scene {
            frozen: vec![Frozen::parse(count).expect("this is a count")],
            clones: outputs.iter().map(clone).collect(),
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
        assert!(scene(30, &clones).nothing_twice().is_ok());
        assert!(scene(30, &clones).something_twice().is_err());
        assert!(scene(28, &clones).nothing_twice().is_err());
        assert!(scene(28, &clones).something_twice().is_ok());
        assert!(scene(40, &clones).nothing_twice().is_err());
    }
}
