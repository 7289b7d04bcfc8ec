// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Test Anything Protocol, version 13, from a table of named functions.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic::{self, UnwindSafe};
use std::process::ExitCode;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Outcome {
    /// It cannot run here, and says why.
    Skip(String),
    /// What it found is wrong.
    Fail(String),
}

impl<E: Display> From<E> for Outcome {
    fn from(error: E) -> Self {
        Self::Fail(error.to_string())
    }
}

/// What a test returns.
pub type Result<T = ()> = std::result::Result<T, Outcome>;

/// A test: its name, and what it does with the context that all tests of a program share.
pub type Test<C> = (&'static str, fn(&C) -> Result);

/// Says that nothing can be tested, and why, and returns failure.
pub fn bail_out(why: impl Into<Outcome>) -> ExitCode {
    let (Outcome::Fail(why) | Outcome::Skip(why)) = why.into();
    println!("Bail out! {why}");
    ExitCode::FAILURE
}

/// Runs all tests in order, prints TAP, and returns failure where any test failed.
pub fn run<C>(context: &C, tests: &[Test<C>]) -> ExitCode
where
    for<'a> &'a C: UnwindSafe,
{
    let mut out = io::stdout().lock();
    let mut failed = 0;
    // Each line is written at once: were the guest to die, the last line would say where. A
    // standard output that is gone is no reason to stop testing; the exit status remains.
    let _ = write!(out, "TAP version 13\n1..{}\n", tests.len());
    for (number, (name, test)) in tests.iter().enumerate() {
        let number = number + 1;
        let outcome = panic::catch_unwind(|| test(context))
            .unwrap_or_else(|_| Err(Outcome::Fail("panicked".to_owned())));
        let _ = match outcome {
            Ok(()) => writeln!(out, "ok {number} {name}"),
            Err(Outcome::Skip(why)) => writeln!(out, "ok {number} {name} # SKIP {why}"),
            Err(Outcome::Fail(why)) => {
                failed += 1;
                // A description ends at the first `#`, so the reason has a line of its own.
                writeln!(out, "# {name}: {why}\nnot ok {number} {name}")
            }
        };
    }
    let _ = writeln!(out, "# {} of {} failed", failed, tests.len());
    ExitCode::from(u8::from(failed > 0))
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr $(,)?) => {
        if !$condition {
            return ::std::result::Result::Err($crate::tap::Outcome::Fail(format!(
                "line {}: not so: {}",
                line!(),
                stringify!($condition)
            )));
        }
    };
}

/// Fails the test unless what was seen equals what was expected.
#[macro_export]
macro_rules! check_eq {
    ($seen:expr, $expected:expr $(,)?) => {
        match (&$seen, &$expected) {
            (seen, expected) => {
                if seen != expected {
                    return ::std::result::Result::Err($crate::tap::Outcome::Fail(format!(
                        "line {}: {} is {:?}, expected {:?}",
                        line!(),
                        stringify!($seen),
                        seen,
                        expected
                    )));
                }
            }
        }
    };
}
