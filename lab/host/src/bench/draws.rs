// SPDX-License-Identifier: MIT OR Apache-2.0

//! What random numbers cost that are safe in clones: OpenSSL's with the provider, beside its own
//! (`bench/openssl_cost.c`), and `sysgenid::rng()` beside `rand::rng()` (the example `draw_cost`).

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use serde::Serialize;

use super::Measured;
use super::guest;
use super::guest::instructions;
use super::table::Table;
use crate::kernel::Kernel;
use crate::products;
use crate::setup::Addition;
use crate::setup::Userland;
use crate::step::step;

/// A line of either program: nanoseconds that are instructions, really.
#[derive(Debug, PartialEq, Serialize)]
struct Draw {
    what: String,
    plain: f64,
    ours: f64,
    /// The median of the quotients of all rounds.
    quotient: f64,
}

impl Draw {
    /// “16 bytes: plain 301.5 ns, sysgenid 310.2 ns, quotient 1.029”
    fn parse(who: &str, line: &str) -> Result<Self> {
        let read = || {
            let (what, numbers) = line.rsplit_once(": ")?;
            let mut numbers = numbers.split(", ").map(|part| {
                let words: Vec<_> = part.split_whitespace().collect();
                words.get(1)?.parse().ok()
            });
            Some(Self {
                what: format!("{who}: {what}"),
                plain: numbers.next()??,
                ours: numbers.next()??,
                quotient: numbers.next()??,
            })
        };
        read().with_context(|| format!("not understood: {line}"))
    }
}

pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let mut draws = step("measuring OpenSSL's provider", || openssl(kernel))?;
    draws.extend(step("measuring the generator in Rust", || rust(kernel))?);
    let table = table(&draws);
    Measured::new(&draws, vec![table], Vec::new())
}

fn openssl(kernel: &Kernel) -> Result<Vec<Draw>> {
    let (program, _) = guest::program(kernel, &["openssl_cost"])?;
    let [provider, configuration] = Addition::openssl_provider()?;
    let command = "OPENSSL_CONF=/etc/ssl/sysgenid.cnf exec /openssl_cost --rounds 51";
    let output = guest::output_in(
        kernel,
        &guest::counting(),
        Userland::Debian,
        &[program, provider, configuration],
        &["sh", "-c", command].map(str::to_owned),
    )?;
    parse("RAND_bytes()", &output)
}

/// The example as it would be in a program that is released.
fn rust(kernel: &Kernel) -> Result<Vec<Draw>> {
    let program = Addition {
        from: products::released_example("sysgenid", "draw_cost", &["rand"])?,
        guest: "/draw_cost".into(),
    };
    let output = guest::output_in(
        kernel,
        &guest::counting(),
        Userland::Debian,
        &[program],
        &["/draw_cost".to_owned()],
    )?;
    parse("rng()", &output)
}

fn parse(who: &str, output: &str) -> Result<Vec<Draw>> {
    let draws = output.lines().map(|line| Draw::parse(who, line));
    let draws = draws.collect::<Result<Vec<_>>>()?;
    if draws.is_empty() {
        return Err(anyhow!("{who}: nothing was measured"));
    }
    Ok(draws)
}

fn table(draws: &[Draw]) -> Table {
    let rows = draws.iter().map(|one| {
        vec![
            one.what.clone(),
            format!("{:.0}", instructions(one.plain)),
            format!("{:.0}", instructions(one.ours)),
            format!("{:.3}", one.quotient),
        ]
    });
    Table {
        rows: rows.collect(),
        ..Table::new(
            "Instructions for one draw: of OpenSSL or of the crate rand, and with what is here",
            ["draw", "plain", "with sysgenid", "quotient"],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_both_programs_are_read() {
        let output = "16 bytes: plain 301.5 ns, sysgenid 310.2 ns, quotient 1.029\n\
            fill_bytes, 32: rand 3.1 ns, sysgenid 9.7 ns, quotient 3.129\n";
        let draws = parse("one", output).expect("it is well-formed");
        assert_eq!(draws[0].what, "one: 16 bytes");
        assert_eq!(draws[1].what, "one: fill_bytes, 32");
        assert_eq!(
            table(&draws).rows[1],
            ["one: fill_bytes, 32", "2", "5", "3.129"]
        );
        assert!(parse("one", "").is_err());
        assert!(parse("one", "openssl_cost: something else\n").is_err());
    }
}
