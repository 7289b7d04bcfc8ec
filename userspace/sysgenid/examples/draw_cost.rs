// SPDX-License-Identifier: MIT OR Apache-2.0

//! What one look a draw costs: `next_u32()`, `next_u64()` and `fill_bytes()` of 32 and of 1024 bytes
//! from `rand::rng()` and from `sysgenid::rng()`, in one process and in alternation.
//!
//! For each it prints the medians of all rounds, and the median of the quotients of the two halves of
//! a round:
//!
//! ```text
//! next_u64: rand 3.1 ns, sysgenid 9.7 ns, quotient 3.129
//! ```
//!
//! In a guest that counts instructions these are not times, but half as many instructions as they say:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --package sysgenid \
//!     --features rand --target x86_64-unknown-linux-gnu --example draw_cost
//! lab/lab run --icount --add target/x86_64-unknown-linux-gnu/release/examples/draw_cost -- /draw_cost
//! ```

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

use rand::Rng;

/// How many draws a half of a round has, and how many rounds there are.
const DRAWS: u32 = 1000;
const ROUNDS: usize = 301;

/// A way to draw, and its name.
type Way<R> = (&'static str, fn(&mut R));

/// What is measured of any generator.
struct Draws<R>([Way<R>; 4]);

impl<R: Rng> Draws<R> {
    const ALL: Self = Self([
        ("next_u32", |rng| {
            black_box(rng.next_u32());
        }),
        ("next_u64", |rng| {
            black_box(rng.next_u64());
        }),
        ("fill_bytes, 32", |rng| {
            rng.fill_bytes(black_box(&mut [0; 32]));
        }),
        ("fill_bytes, 1024", |rng| {
            rng.fill_bytes(black_box(&mut [0; 1024]));
        }),
    ]);
}

/// The nanoseconds that each of some draws takes.
fn cost<R>(rng: &mut R, draw: fn(&mut R)) -> f64 {
    let start = Instant::now();
    for _ in 0..DRAWS {
        draw(rng);
    }
    nanoseconds(start.elapsed()) / f64::from(DRAWS)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut plain, mut ours) = (rand::rng(), sysgenid::rng());
    // Without a device there would be nothing to look at.
    ours.protect()?;
    for ((name, of_plain), (_, of_ours)) in Draws::ALL.0.into_iter().zip(Draws::ALL.0) {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            // Whoever comes second finds a warmer cache.
            let (one, other) = if round % 2 == 0 {
                let one = cost(&mut plain, of_plain);
                (one, cost(&mut ours, of_ours))
            } else {
                let other = cost(&mut ours, of_ours);
                (cost(&mut plain, of_plain), other)
            };
            rounds.push((one, other));
        }
        let of = |value: fn(&(f64, f64)) -> f64| median(rounds.iter().map(value).collect());
        println!(
            "{name}: rand {:.1} ns, sysgenid {:.1} ns, quotient {:.3}",
            of(|(one, _)| *one),
            of(|(_, other)| *other),
            of(|(one, other)| other / one),
        );
    }
    Ok(())
}
