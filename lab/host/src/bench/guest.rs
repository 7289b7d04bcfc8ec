// SPDX-License-Identifier: MIT OR Apache-2.0

//! A program of bench/ in a guest of its own, which prints what it has measured as lines of JSON.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::de::DeserializeOwned;

use crate::guest::Kept;
use crate::kernel::Kernel;
use crate::machine::NS_PER_INSTRUCTION;
use crate::products;
use crate::run;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;

/// A guest of one processor that counts instructions.
pub fn counting() -> GuestOptions {
    GuestOptions {
        icount: true,
        ..GuestOptions::plain()
    }
}

/// A program of bench/ for a guest, and its arguments.
pub fn program(kernel: &Kernel, words: &[&str]) -> Result<(Addition, Vec<String>)> {
    let [name, arguments @ ..] = words else {
        return Err(anyhow::anyhow!("no program is named"));
    };
    let guest = format!("/{name}");
    let command = [guest.as_str()]
        .into_iter()
        .chain(arguments.iter().copied());
    let command = command.map(str::to_owned).collect();
    let addition = Addition {
        from: products::bench(kernel, name)?,
        guest: guest.into(),
    };
    Ok((addition, command))
}

/// Runs a program of bench/ in such a guest, where there is nothing else, and reads what it prints.
pub fn measure<T: DeserializeOwned>(
    kernel: &Kernel,
    options: &GuestOptions,
    words: &[&str],
) -> Result<Vec<T>> {
    let (program, command) = program(kernel, words)?;
    measure_in(kernel, options, Userland::Busybox, &[program], &command)
}

/// The same for any command, in a guest that has what that needs.
pub fn measure_in<T: DeserializeOwned>(
    kernel: &Kernel,
    options: &GuestOptions,
    userland: Userland<'_>,
    additions: &[Addition],
    command: &[String],
) -> Result<Vec<T>> {
    parse(&output_in(kernel, options, userland, additions, command)?)
}

/// What such a command prints.
pub fn output_in(
    kernel: &Kernel,
    options: &GuestOptions,
    userland: Userland<'_>,
    additions: &[Addition],
    command: &[String],
) -> Result<String> {
    let setup = Setup::with(options, kernel, userland, additions, command, None)?;
    let mut kept = Kept::default();
    let status = run::run(&setup, &mut kept)?;
    let said = String::from_utf8_lossy(&kept.stderr);
    ensure!(
        status == 0,
        "{}: exit status {status}: {said}{}",
        command.join(" "),
        kept.remarks
    );
    Ok(kept.output())
}

/// What a program has printed: a value on each line.
pub fn parse<T: DeserializeOwned>(output: &str) -> Result<Vec<T>> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not understood: {line}")))
        .collect()
}

/// What a time of a guest that counts instructions is really.
pub fn instructions(nanoseconds: f64) -> f64 {
    nanoseconds / f64::from(NS_PER_INSTRUCTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_shown() {
        let error = parse::<u32>("1\nsomething else\n").expect_err("it is not a number");
        assert!(error.to_string().contains("something else"), "{error}");
        assert_eq!(parse::<u32>("1\n2\n").expect("two numbers"), [1, 2]);
    }
}
