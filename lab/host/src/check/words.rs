// SPDX-License-Identifier: MIT OR Apache-2.0

//! What must hold between clones: the words of a manifest, applied to the notes that clones made.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use uuid::Uuid;

use super::manifest::Clones;
use crate::tap::Test;

/// One clone: what it said, and what the host knows of it.
pub struct Clone {
    /// What it wrote to standard output.
    pub output: String,
    /// The VM generation ID that it was given.
    pub id: Uuid,
    /// Whether that is another one than the machine had.
    pub is_new: bool,
    /// When it ran, in seconds since the epoch.
    pub ran: RangeInclusive<u64>,
}

/// What was noted under that name: the rest of each line `# name `.
pub fn noted<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!("# {name} ");
    output
        .lines()
        .filter_map(|line| line.strip_prefix(mark.as_str()))
        .collect()
}

/// The host's time, in seconds.
pub fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// A test for each thing that must hold. `before` is what was written before the machine was saved.
pub fn tests(name: &str, words: &Clones, clones: &[Clone], before: &str) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut test = |what: String, result: Result<()>| {
        tests.push(Test::from_result(format!("{name}: {what}"), result));
    };
    if !words.different.is_empty() {
        let what = format!("no {} twice", words.different.join(", "));
        test(what, different(words, clones, before));
    }
    for name in &words.repeated {
        test(format!("the same {name} twice"), repeated(clones, name));
    }
    for name in &words.equal {
        test(format!("all have the same {name}"), equal(clones, name));
    }
    for (name, value) in &words.is {
        test(format!("{name} is {value}"), is(clones, name, value));
    }
    for (name, &number) in &words.count {
        test(format!("{number} of {name}"), count(clones, name, number));
    }
    tests
}

/// Fails if a value was noted twice, in whatever clone and under whatever of the names, or if one was
/// not noted at all.
fn different(words: &Clones, clones: &[Clone], before: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in &words.different {
        let first = words.and_before.contains(name).then_some(before);
        let others = clones.iter().map(|clone| clone.output.as_str());
        for output in first.into_iter().chain(others) {
            let noted = noted(output, name);
            ensure!(
                noted.iter().any(|value| !value.is_empty()),
                "a machine noted no {name}"
            );
            for value in noted {
                ensure!(seen.insert(value), "{name} {value} is there twice");
            }
        }
    }
    Ok(())
}

/// Fails unless a value was noted by two clones.
fn repeated(clones: &[Clone], name: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for clone in clones {
        let here: BTreeSet<_> = noted(&clone.output, name).into_iter().collect();
        if !seen.is_disjoint(&here) {
            return Ok(());
        }
        seen.extend(here);
    }
    bail!("{} values, all of them different", seen.len())
}

/// Fails unless all clones noted the same values, in the same order.
fn equal(clones: &[Clone], name: &str) -> Result<()> {
    let mut all = clones.iter().map(|clone| noted(&clone.output, name));
    let first = all.next().context("there are no clones")?;
    ensure!(!first.is_empty(), "a clone noted no {name}");
    for other in all {
        ensure!(first == other, "one noted {first:?}, another {other:?}");
    }
    Ok(())
}

/// Fails unless each clone noted that value, and no other.
fn is(clones: &[Clone], name: &str, value: &str) -> Result<()> {
    for (number, clone) in clones.iter().enumerate() {
        let noted = noted(&clone.output, name);
        let [one] = noted[..] else {
            bail!("clone {} noted {name} {} times", number + 1, noted.len());
        };
        if value == "@time" {
            let time: u64 = one
                .parse()
                .with_context(|| format!("{one} is no time in seconds"))?;
            ensure!(
                clone.ran.contains(&time),
                "clone {} ran in {:?}, and noted {one}",
                number + 1,
                clone.ran
            );
            continue;
        }
        let expected = match value {
            // In memory the first three parts of a UUID are numbers of a little-endian machine.
            "@id" => Uuid::from_bytes(clone.id.to_bytes_le())
                .simple()
                .to_string(),
            "@new" => if clone.is_new { "yes" } else { "no" }.into(),
            _ => value.to_owned(),
        };
        ensure!(
            one == expected,
            "clone {} noted {one}, and not {expected}",
            number + 1
        );
    }
    Ok(())
}

/// Fails unless each clone noted so many values.
fn count(clones: &[Clone], name: &str, number: usize) -> Result<()> {
    for clone in clones {
        let noted = noted(&clone.output, name).len();
        ensure!(noted == number, "a clone noted {noted}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::check::manifest::Id;
    use crate::check::manifest::Results;

    fn words() -> Clones {
        Clones {
            ids: vec![Id::New, Id::New],
            results: Results::None,
            status: 0,
            says: None,
            different: Vec::new(),
            repeated: Vec::new(),
            equal: Vec::new(),
            is: BTreeMap::new(),
            count: BTreeMap::new(),
            and_before: Vec::new(),
            turns: None,
        }
    }

    fn clones(outputs: &[&str]) -> Vec<Clone> {
        let clone = |output: &&str| Clone {
            output: (*output).to_owned(),
            id: Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f),
            is_new: true,
            ran: 100..=110,
        };
        outputs.iter().map(clone).collect()
    }

    #[test]
    fn what_is_to_be_different() {
        let mut words = words();
        words.different = vec!["a".into(), "b".into()];
        let holds = |words: &Clones, outputs: &[&str], before: &str| {
            different(words, &clones(outputs), before).is_ok()
        };
        assert!(holds(
            &words,
            &["# a 1\n# b 2\n", "# a 3\n# b 4\n"],
            "# a 1\n"
        ));
        assert!(!holds(&words, &["# a 1\n# b 2\n", "# a 2\n# b 4\n"], ""));
        assert!(!holds(&words, &["# a 1\n# b 2\n", "# a 3\n"], ""));
        assert!(!holds(&words, &["# a 1\n# b 2\n", "# a 3\n# b \n"], ""));
        words.and_before.push("a".into());
        assert!(!holds(
            &words,
            &["# a 1\n# b 2\n", "# a 3\n# b 4\n"],
            "# a 1\n"
        ));
        assert!(!holds(&words, &["# a 1\n# b 2\n", "# a 3\n# b 4\n"], ""));
        assert!(holds(
            &words,
            &["# a 1\n# b 2\n", "# a 3\n# b 4\n"],
            "# a 5\n"
        ));
    }

    #[test]
    fn what_is_to_be_the_same() {
        assert!(repeated(&clones(&["# a 1\n# a 2\n", "# a 2\n"]), "a").is_ok());
        // Twice in one clone is not in two.
        assert!(repeated(&clones(&["# a 1\n# a 1\n", "# a 2\n"]), "a").is_err());
        assert!(repeated(&clones(&["", ""]), "a").is_err());
        assert!(equal(&clones(&["# a 1\n# a 2\n", "# a 1\n# a 2\n"]), "a").is_ok());
        assert!(equal(&clones(&["# a 1\n# a 2\n", "# a 2\n# a 1\n"]), "a").is_err());
        assert!(equal(&clones(&["", ""]), "a").is_err());
    }

    #[test]
    fn what_is_to_be_one_value() {
        let holds = |output: &str, value: &str| is(&clones(&[output]), "a", value).is_ok();
        assert!(holds("# a 7\n", "7"));
        assert!(!holds("# a 8\n", "7"));
        assert!(!holds("# a 7\n# a 7\n", "7"));
        assert!(!holds("", "7"));
        assert!(holds("# a 030201000504070608090a0b0c0d0e0f\n", "@id"));
        assert!(!holds("# a 000102030405060708090a0b0c0d0e0f\n", "@id"));
        assert!(holds("# a yes\n", "@new"));
        assert!(!holds("# a no\n", "@new"));
        assert!(holds("# a 105\n", "@time"));
        assert!(!holds("# a 111\n", "@time"));
        assert!(count(&clones(&["# a 1\n# a 1\n"]), "a", 2).is_ok());
        assert!(count(&clones(&["# a 1\n# a 1\n"]), "a", 1).is_err());
    }
}
