// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads what test programs print: the Test Anything Protocol, and what Rust's own harness says.

use serde::Serialize;

/// How one test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It could not run, and said why.
    Skipped,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What it said: the reason of a skip, the diagnostics of a failure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Test {
    /// A test that passed if `result` is no error.
    pub fn from_result(name: impl Into<String>, result: anyhow::Result<()>) -> Self {
        let (outcome, detail) = match result {
            Ok(()) => (Outcome::Passed, String::new()),
            Err(error) => (Outcome::Failed, format!("{error:#}")),
        };
        Self {
            name: name.into(),
            outcome,
            detail,
        }
    }
}

/// Reads the output of one program. Names get `prefix` in front. What the plan promises and the
/// output does not have counts as failed, and so does output without a plan.
pub fn parse(prefix: &str, output: &str) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut planned = None;
    let mut diagnostics = String::new();
    for line in output.lines() {
        if let Some(count) = line.strip_prefix("1..") {
            planned = count
                .split_whitespace()
                .next()
                .and_then(|n| n.parse::<usize>().ok());
        } else if let Some(test) = parse_line(prefix, line, &diagnostics) {
            tests.push(test);
            diagnostics.clear();
        } else if let Some(diagnostic) = line.strip_prefix("# ") {
            if !diagnostic.starts_with(" RUN") {
                diagnostics.push_str(diagnostic);
                diagnostics.push('\n');
            }
        }
    }
    let missing = match planned {
        Some(planned) if planned == tests.len() => return tests,
        Some(planned) => format!("{planned} tests were planned, {} reported", tests.len()),
        None => "the program printed no plan".into(),
    };
    tests.push(Test {
        name: format!("{prefix}: all of it ran"),
        outcome: Outcome::Failed,
        detail: missing,
    });
    tests
}

/// Reads the results of one `KUnit` suite out of a kernel's log, whose lines have no times in
/// front.
/// A suite that is not there has failed.
pub fn parse_suite(suite: &str, log: &str) -> Vec<Test> {
    // A suite is a subtest, which is indented; other lines of the log come in between. It ends with
    // its own result, which is not.
    const INDENTATION: &str = "    ";
    let start = format!("{INDENTATION}# Subtest: {suite}");
    let ends = |line: &str| {
        let result = line.strip_prefix("not ").unwrap_or(line);
        result.starts_with("ok ") && result.split_whitespace().nth(2) == Some(suite)
    };
    let output = log
        .lines()
        .skip_while(|line| *line != start)
        .take_while(|line| !ends(line))
        .filter_map(|line| line.strip_prefix(INDENTATION))
        .filter(|line| !line.contains("speed: "))
        .fold(String::new(), |all, line| all + line + "\n");
    parse(&format!("KUnit: {suite}"), &output)
}

/// Reads what one program with Rust's own harness printed. What it counted and did not list, or did
/// not get to count, counts as failed.
pub fn parse_libtest(prefix: &str, output: &str) -> Vec<Test> {
    let mut tests: Vec<_> = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.rsplit_once(" ... "))
        .map(|(name, outcome)| Test {
            name: format!("{prefix}: {name}"),
            outcome: match outcome {
                "ok" => Outcome::Passed,
                other if other.starts_with("ignored") => Outcome::Skipped,
                _ => Outcome::Failed,
            },
            detail: failure(output, name),
        })
        .collect();
    let planned: Vec<usize> = output
        .lines()
        .filter_map(|line| {
            line.strip_prefix("running ")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    if planned.is_empty() || planned.iter().sum::<usize>() != tests.len() {
        tests.push(Test {
            name: format!("{prefix}: all of it ran"),
            outcome: Outcome::Failed,
            detail: format!("{planned:?} planned, {} reported\n{output}", tests.len()),
        });
    }
    tests
}

/// What the harness shows of a test that has failed.
fn failure(output: &str, name: &str) -> String {
    let start = format!("---- {name} stdout ----");
    let lines = output.lines().skip_while(|line| *line != start).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join("\n")
}

fn parse_line(prefix: &str, line: &str, diagnostics: &str) -> Option<Test> {
    let (good, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let rest = rest
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let skip = directive
        .get(..4)
        .is_some_and(|word| word.eq_ignore_ascii_case("skip"));
    let (outcome, detail) = match (good, skip) {
        (true, true) => (Outcome::Skipped, directive[4..].trim().to_owned()),
        (true, false) => (Outcome::Passed, String::new()),
        (false, _) => (Outcome::Failed, diagnostics.trim_end().to_owned()),
    };
    Some(Test {
        name: format!("{prefix}: {name}"),
        outcome,
        detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(output: &str) -> Vec<Outcome> {
        parse("x", output).iter().map(|test| test.outcome).collect()
    }

    #[test]
    fn all_three_outcomes_are_told_apart() {
        let output = "TAP version 13\n1..3\n# why\nnot ok 1 a\nok 2 b\nok 3 c # SKIP no device\n";
        let tests = parse("x", output);
        assert_eq!(
            outcomes(output),
            [Outcome::Failed, Outcome::Passed, Outcome::Skipped]
        );
        assert_eq!(tests[0].detail, "why");
        assert_eq!(tests[2].detail, "no device");
        assert_eq!(tests[1].name, "x: b");
    }

    #[test]
    fn a_suite_is_found_in_the_log() {
        const LOG: &str = "\
KTAP version 1
1..2
    KTAP version 1
    # Subtest: other
    1..1
    ok 1 elsewhere
ok 1 other
    KTAP version 1
    # Subtest: mine
    # speed: normal
    1..2
    # first.speed: normal
    ok 1 first
sysgenid: generation changed from 0 to 1, source test
    # second: EXPECTATION FAILED at x.rs:1
    not ok 2 second
# mine: pass:1 fail:1 skip:0 total:2
not ok 2 mine
";
        let tests = parse_suite("mine", LOG);
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["KUnit: mine: first", "KUnit: mine: second"]);
        assert_eq!(tests[1].outcome, Outcome::Failed);
        assert!(tests[1].detail.contains("EXPECTATION FAILED"));
        assert_eq!(
            parse_suite("absent", LOG)[0].outcome,
            Outcome::Failed,
            "a suite that did not run"
        );
    }

    #[test]
    fn the_harness_of_rust_is_read() {
        const OUTPUT: &str = "\
running 3 tests
test tests::good ... ok
test tests::bad ... FAILED
test src/lib.rs - item (line 3) ... ignored, why

failures:

---- tests::bad stdout ----
thread 'tests::bad' panicked at x.rs:1:
no

failures:
    tests::bad
";
        let tests = parse_libtest("x", OUTPUT);
        let outcomes: Vec<_> = tests.iter().map(|test| test.outcome).collect();
        let expected = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];
        assert_eq!(outcomes, expected);
        assert_eq!(tests[1].name, "x: tests::bad");
        assert!(tests[1].detail.contains("panicked"), "{:?}", tests[1]);
        for cut in ["", "running 2 tests\ntest a ... ok\n"] {
            let tests = parse_libtest("x", cut);
            assert!(tests.iter().any(|test| test.outcome == Outcome::Failed));
        }
    }

    #[test]
    fn what_is_missing_has_failed() {
        assert_eq!(
            outcomes("1..2\nok 1 a\n"),
            [Outcome::Passed, Outcome::Failed]
        );
        assert_eq!(outcomes(""), [Outcome::Failed]);
        assert_eq!(outcomes("ok 1 a\n"), [Outcome::Passed, Outcome::Failed]);
    }
}
