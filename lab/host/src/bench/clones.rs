// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole clones: how many resumes of one saved machine there are in a second, and how long it takes
//! until a clone of a TLS server has served a handshake with keys of its own.
//!
//! In the guest is nginx, which is not changed and knows nothing of clones, and `bench/handshakes.c`,
//! which prints what the server draws. Which of that is a clone's own shows when it is compared with
//! what the others print.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use super::Measured;
use super::guest;
use super::guest::instructions;
use super::table::Table;
use crate::cache::source;
use crate::clone::Ready;
use crate::clone::Saved;
use crate::clone::several;
use crate::guest::Kept;
use crate::guest::Sink;
use crate::guest::Source;
use crate::kernel::Kernel;
use crate::machine::Virtualisation;
use crate::products;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step::step;

/// So many clones run at the same time, and so many are resumed one after the other or at once.
const AT_ONCE: [usize; 2] = [1, 10];
const RESUMES: usize = 20;
const SERVERS: usize = 10;
/// The same where instructions are counted, which repeats.
const COUNTED: usize = 5;

/// So many of the last handshakes of a clone were when all else was over.
const AFTERWARDS: usize = 4;

/// It says READY once more when the kernel has told it of a change.
const SMALL: &str =
    "exec 3</dev/sysgenid; echo READY; head -c 4 <&3 >/dev/null; echo READY; sleep 60";

/// A server, and a client of it. Only the server has OpenSSL configured.
const SERVER: &str = "set -e; \
    ip link set lo up; \
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
        -keyout /tmp/key.pem -out /tmp/certificate.pem 2>/tmp/log; \
    OPENSSL_CONF=$1 nginx -c /nginx.conf; \
    exec /handshakes";

/// Of nginx's test with the provider.
const CONFIGURATION: &str = "userspace/openssl-provider/tests/nginx.conf";

/// A line of `bench/handshakes.c`, with times in nanoseconds of the guest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Handshake(Handshake),
    Change(Moment),
    Interrupt(Moment),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Handshake {
    at: f64,
    random: String,
    key: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Moment {
    at: f64,
}

/// What a clone of the server has said. Times are in milliseconds since QEMU was started.
#[derive(Clone, Debug, Serialize)]
struct Clone {
    /// When it was loaded, and ran from then on.
    loaded: f64,
    said: Vec<(f64, Said)>,
}

impl Clone {
    fn handshakes(&self) -> impl Iterator<Item = (f64, &Handshake)> {
        self.said.iter().filter_map(|(at, said)| match said {
            Said::Handshake(handshake) => Some((*at, handshake)),
            _ => None,
        })
    }

    fn change(&self) -> Result<(f64, f64)> {
        let mut changes = self.said.iter().filter_map(|(at, said)| match said {
            Said::Change(moment) => Some((*at, moment.at)),
            _ => None,
        });
        changes.next().context("a clone saw no change")
    }

    fn interrupt(&self) -> Result<f64> {
        let mut interrupts = self.said.iter().filter_map(|(_, said)| match said {
            Said::Interrupt(moment) => Some(moment.at),
            _ => None,
        });
        interrupts.next().context("a clone was not interrupted")
    }
}

/// The middle of some values, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        match values.as_slice() {
            [least, .., most] => Ok(Self {
                median: values[values.len() / 2],
                least: *least,
                most: *most,
            }),
            _ => Err(anyhow!("there are too few values")),
        }
    }

    /// Two cells of a table: the median, and the rest.
    fn cells(&self) -> [String; 2] {
        let Self {
            median,
            least,
            most,
        } = self;
        [format!("{median:.0}"), format!("{least:.0} to {most:.0}")]
    }
}

/// Resumes of a machine that end as soon as the guest has said that it runs.
#[derive(Debug, Serialize)]
struct Resumes {
    machine: &'static str,
    at_once: usize,
    number: usize,
    per_second: f64,
    loaded: Spread,
    ready: Spread,
}

/// How long it took until a clone served, in milliseconds since QEMU was started.
#[derive(Debug, Serialize)]
struct Serving {
    at_once: usize,
    number: usize,
    loaded: Spread,
    change: Spread,
    own: Spread,
    /// From one handshake to the next one, later.
    next: Spread,
}

/// The same in instructions of the guest, since the kernel was interrupted.
#[derive(Debug, Serialize)]
struct Counted {
    number: usize,
    change: Spread,
    own: Spread,
    next: Spread,
}

/// What was the same in more than one clone, of the handshakes that all of them have served.
#[derive(Debug, PartialEq, Serialize)]
struct Keys {
    provider: bool,
    number: usize,
    handshakes: usize,
    same_random: usize,
    same_key: usize,
}

#[derive(Debug, Serialize)]
struct Clones {
    processors: usize,
    emulated: bool,
    resumes: Vec<Resumes>,
    serving: Vec<Serving>,
    counted: Counted,
    keys: [Keys; 2],
}

/// Measures everything.
pub fn measure(kernel: &Kernel) -> Result<Measured> {
    let mut resumes = Vec::new();
    let shell = shell(kernel)?;
    let (saved, _) = Saved::with_output(&shell)?;
    step("resuming a small machine", || {
        resume(&saved, "a shell", &mut resumes)
    })?;

    let plain = GuestOptions::plain();
    let nginx = server(kernel, &plain, true)?;
    let (saved, _) = Saved::with_output(&nginx)?;
    step("resuming a server", || {
        resume(&saved, "nginx", &mut resumes)
    })?;
    let served = AT_ONCE.map(|at_once| {
        let what = format!("having clones serve, {at_once} at once");
        step(&what, || serve(&saved, at_once, SERVERS))
    });
    let served: Vec<_> = served.into_iter().collect::<Result<_>>()?;
    let all = served.concat();
    let serving = AT_ONCE.into_iter().zip(&served);
    let serving = serving.map(|(at_once, clones)| Serving::of(at_once, clones, &all));

    let nginx = server(kernel, &plain, false)?;
    let (saved, _) = Saved::with_output(&nginx)?;
    let control = step("having clones serve without the provider", || {
        serve(&saved, 1, SERVERS)
    })?;

    let nginx = server(kernel, &guest::counting(), true)?;
    let (saved, _) = Saved::with_output(&nginx)?;
    let counted = step("having clones serve, and counting instructions", || {
        serve(&saved, 1, COUNTED)
    })?;

    let clones = Clones {
        processors: thread::available_parallelism().map_or(1, usize::from),
        emulated: !Virtualisation::find().is_usable(),
        resumes,
        serving: serving.collect::<Result<_>>()?,
        counted: Counted::of(&counted)?,
        keys: [Keys::of(true, &all), Keys::of(false, &control)],
    };
    Measured::new(&clones, clones.tables(), Vec::new())
}

fn shell(kernel: &Kernel) -> Result<Setup> {
    let command = ["sh", "-c", SMALL].map(str::to_owned);
    let options = GuestOptions::plain();
    Setup::with(&options, kernel, Userland::Busybox, &[], &command, None)
}

fn server(kernel: &Kernel, options: &GuestOptions, provider: bool) -> Result<Setup> {
    let mut additions = Vec::from(Addition::openssl_provider()?);
    additions.push(Addition {
        from: products::bench(kernel, "handshakes")?,
        guest: "/handshakes".into(),
    });
    additions.push(Addition {
        from: source(CONFIGURATION),
        guest: "/nginx.conf".into(),
    });
    let configured = if provider {
        "/etc/ssl/sysgenid.cnf"
    } else {
        ""
    };
    let command = ["sh", "-c", SERVER, "sh", configured].map(str::to_owned);
    Setup::with(
        options,
        kernel,
        Userland::Debian,
        &additions,
        &command,
        None,
    )
}

/// Resumes a machine again and again.
fn resume(saved: &Saved<'_>, machine: &'static str, all: &mut Vec<Resumes>) -> Result<()> {
    for at_once in AT_ONCE {
        let start = Instant::now();
        let ready = several(at_once, RESUMES, |_| {
            saved.resume_until_ready(Uuid::new_v4(), &mut Kept::default())
        })?;
        let took = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "it is no more than some")]
        let per_second = RESUMES as f64 / took;
        let moments = |of: fn(&Ready) -> Duration| {
            Spread::of(ready.iter().map(|ready| milliseconds(of(ready))))
        };
        all.push(Resumes {
            machine,
            at_once,
            number: RESUMES,
            per_second,
            loaded: moments(|ready| ready.loaded)?,
            ready: moments(|ready| ready.ready)?,
        });
    }
    Ok(())
}

/// Has clones of the server serve.
fn serve(saved: &Saved<'_>, at_once: usize, number: usize) -> Result<Vec<Clone>> {
    several(at_once, number, |turn| {
        let name = format!("clone {turn}");
        let mut timed = Timed::new();
        let mut loaded = Duration::ZERO;
        let status = saved.resume(&name, Uuid::new_v4(), &mut timed, |took| loaded = took)?;
        let Kept {
            remarks, stderr, ..
        } = &timed.kept;
        let words = String::from_utf8_lossy(stderr);
        ensure!(
            status == 0,
            "{name}: exit status {status}: {remarks}{words}"
        );
        Ok(Clone {
            loaded: milliseconds(loaded),
            said: timed.said()?,
        })
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Notes when each line came.
struct Timed {
    start: Instant,
    line: Vec<u8>,
    lines: Vec<(Duration, String)>,
    kept: Kept,
}

impl Timed {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            line: Vec::new(),
            lines: Vec::new(),
            kept: Kept::default(),
        }
    }

    fn said(&self) -> Result<Vec<(f64, Said)>> {
        let lines = self.lines.iter().filter(|(_, line)| line != "READY");
        let said = lines.map(|(at, line)| {
            let said = serde_json::from_str(line);
            let said = said.with_context(|| format!("not understood: {line}"))?;
            Ok((milliseconds(*at), said))
        });
        said.collect()
    }
}

impl Sink for Timed {
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()> {
        if source == Source::Stderr {
            return self.kept.take(source, bytes);
        }
        let at = self.start.elapsed();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.lines.push((at, line));
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    fn remark(&mut self, remark: &str) {
        self.kept.remark(remark);
    }
}

/// In how many clones something was drawn.
struct Drawn<'a>(BTreeMap<&'a str, usize>);

impl<'a> Drawn<'a> {
    fn of(clones: &'a [Clone], what: fn(&Handshake) -> &str) -> Self {
        let mut drawn = BTreeMap::new();
        for clone in clones {
            let mut own: Vec<_> = clone.handshakes().map(|(_, one)| what(one)).collect();
            own.sort_unstable();
            own.dedup();
            for value in own {
                *drawn.entry(value).or_default() += 1;
            }
        }
        Self(drawn)
    }

    fn is_own(&self, value: &str) -> bool {
        self.0.get(value) == Some(&1)
    }
}

fn random(handshake: &Handshake) -> &str {
    &handshake.random
}

fn key(handshake: &Handshake) -> &str {
    &handshake.key
}

/// When each clone had served its first handshake of which no other clone has either the random bytes
/// or the key: by the host's clock, and by the guest's.
fn first_own(clones: &[Clone], all: &[Clone]) -> Result<Vec<(f64, f64)>> {
    let (randoms, keys) = (Drawn::of(all, random), Drawn::of(all, key));
    let firsts = clones.iter().map(|clone| {
        let mut handshakes = clone.handshakes();
        let own = handshakes.find(|(_, one)| randoms.is_own(random(one)) && keys.is_own(key(one)));
        let (at, handshake) = own.context("a clone has no keys of its own")?;
        Ok((at, handshake.at))
    });
    firsts.collect()
}

/// The times between the handshakes after the change, each of a clone and the next one of it.
fn between(clones: &[Clone], when: fn((f64, &Handshake)) -> f64) -> Vec<f64> {
    let of_one = |clone: &Clone| {
        let times: Vec<_> = clone.handshakes().map(when).collect();
        let last = times.len().saturating_sub(AFTERWARDS);
        let pairs = times[last..].windows(2);
        pairs.map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    clones.iter().flat_map(of_one).collect()
}

impl Serving {
    fn of(at_once: usize, clones: &[Clone], all: &[Clone]) -> Result<Self> {
        let changes: Vec<_> = clones.iter().map(Clone::change).collect::<Result<_>>()?;
        let own = first_own(clones, all)?;
        Ok(Self {
            at_once,
            number: clones.len(),
            loaded: Spread::of(clones.iter().map(|clone| clone.loaded))?,
            change: Spread::of(changes.iter().map(|(host, _)| *host))?,
            own: Spread::of(own.iter().map(|(host, _)| *host))?,
            next: Spread::of(between(clones, |(host, _)| host))?,
        })
    }
}

impl Counted {
    fn of(clones: &[Clone]) -> Result<Self> {
        let interrupts = clones.iter().map(Clone::interrupt);
        let interrupts: Vec<_> = interrupts.collect::<Result<_>>()?;
        let since = |moments: Vec<(f64, f64)>| {
            let pairs = moments.iter().zip(&interrupts);
            Spread::of(pairs.map(|((_, guest), start)| instructions(guest - start)))
        };
        let changes = clones.iter().map(Clone::change).collect::<Result<_>>()?;
        let next = between(clones, |(_, handshake)| handshake.at);
        Ok(Self {
            number: clones.len(),
            change: since(changes)?,
            own: since(first_own(clones, clones)?)?,
            next: Spread::of(next.into_iter().map(instructions))?,
        })
    }
}

impl Keys {
    fn of(provider: bool, clones: &[Clone]) -> Self {
        // What only the one has that went on for longer than the others says nothing.
        let each = clones.iter().map(|clone| clone.handshakes().count());
        let each = each.min().unwrap_or(0);
        let (randoms, keys) = (Drawn::of(clones, random), Drawn::of(clones, key));
        let compared = || {
            let handshakes = clones.iter().map(|clone| clone.handshakes().take(each));
            handshakes.flatten().map(|(_, handshake)| handshake)
        };
        Self {
            provider,
            number: clones.len(),
            handshakes: compared().count(),
            same_random: compared()
                .filter(|one| !randoms.is_own(random(one)))
                .count(),
            same_key: compared().filter(|one| !keys.is_own(key(one))).count(),
        }
    }
}

impl Clones {
    fn tables(&self) -> Vec<Table> {
        let how = if self.emulated {
            "emulated (TCG)"
        } else {
            "virtualised (KVM)"
        };
        let host = format!("on {} processors of the host, {how}", self.processors);
        vec![
            self.resume_table(&host),
            self.serving_table(&host),
            self.counted_table(),
            self.key_table(),
        ]
    }

    fn resume_table(&self, host: &str) -> Table {
        let rows = self.resumes.iter().map(|one| {
            let [median, spread] = one.ready.cells();
            vec![
                one.machine.into(),
                one.at_once.to_string(),
                format!("{:.1}", one.per_second),
                format!("{:.0}", one.loaded.median),
                median,
                spread,
            ]
        });
        let caption = format!("Resumes of one saved machine, {host}");
        Table {
            rows: rows.collect(),
            ..Table::new(
                caption,
                [
                    "what runs in it",
                    "at once",
                    "resumes a second",
                    "loaded after (ms)",
                    "has said so after (ms)",
                    "least to most",
                ],
            )
        }
    }

    fn serving_table(&self, host: &str) -> Table {
        let rows = self.serving.iter().map(|one| {
            let [median, spread] = one.own.cells();
            vec![
                one.at_once.to_string(),
                format!("{:.0}", one.loaded.median),
                format!("{:.0}", one.change.median),
                median,
                spread,
                format!("{:.0}", one.next.median),
            ]
        });
        let caption = format!("Until a clone serves with keys of its own, in ms, {host}");
        Table {
            rows: rows.collect(),
            ..Table::new(
                caption,
                [
                    "clones at once",
                    "loaded",
                    "a program was told",
                    "first handshake with own keys",
                    "least to most",
                    "each later handshake",
                ],
            )
        }
    }

    fn counted_table(&self) -> Table {
        let Counted {
            change, own, next, ..
        } = &self.counted;
        let row = |what: &str, spread: &Spread| {
            let thousands = [spread.median, spread.least, spread.most];
            let cells = thousands.map(|number| format!("{:.0}", number / 1e3));
            [what.to_owned()].into_iter().chain(cells).collect()
        };
        Table {
            rows: vec![
                row("a program that slept in poll() runs", change),
                row("the first handshake with own keys is done", own),
                row("each later handshake, for comparison", next),
            ],
            ..Table::new(
                "The same since the first interrupt of a clone, in thousands of instructions",
                ["", "median", "least", "most"],
            )
        }
    }

    fn key_table(&self) -> Table {
        let rows = self.keys.iter().map(|keys| {
            let provider = if keys.provider { "with" } else { "without" };
            let numbers = [
                keys.number,
                keys.handshakes,
                keys.same_random,
                keys.same_key,
            ];
            let cells = numbers.map(|number| number.to_string());
            [format!("{provider} the provider")]
                .into_iter()
                .chain(cells)
                .collect()
        });
        Table {
            rows: rows.collect(),
            ..Table::new(
                "What the server in one clone drew that the one in another clone drew as well",
                [
                    "OpenSSL",
                    "clones",
                    "handshakes",
                    "with the same random bytes",
                    "with the same key",
                ],
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(at: f64, random: &str, key: &str) -> (f64, Said) {
        let (random, key) = (random.into(), key.into());
        let guest = at * 1e6;
        (
            at,
            Said::Handshake(Handshake {
                at: guest,
                random,
                key,
            }),
        )
    }

    fn clone(said: Vec<(f64, Said)>) -> Clone {
        Clone { loaded: 1.0, said }
    }

    /// Two clones that were saved in the middle of a handshake.
    fn pair() -> [Clone; 2] {
        [
            clone(vec![
                handshake(10.0, "a", "b"),
                (11.0, Said::Change(Moment { at: 5e6 })),
                handshake(20.0, "c", "b"),
                handshake(30.0, "d", "e"),
                handshake(44.0, "f", "g"),
                (45.0, Said::Interrupt(Moment { at: 4e6 })),
            ]),
            clone(vec![
                handshake(12.0, "a", "b"),
                (13.0, Said::Change(Moment { at: 5e6 })),
                handshake(21.0, "h", "i"),
                handshake(32.0, "j", "k"),
                (45.0, Said::Interrupt(Moment { at: 4e6 })),
            ]),
        ]
    }

    #[test]
    fn lines_are_read_with_their_times() {
        let mut timed = Timed::new();
        let output = r#"{"handshake": {"at": 1, "random": "ab", "key": "cd"}}
{"change": {"at": 2}}
READY
{"inter"#;
        let rest = "rupt\": {\"at\": 3}}\n";
        for piece in [output, rest] {
            let taken = timed.take(Source::Stdout, piece.as_bytes());
            taken.expect("it takes everything");
        }
        let said: Vec<_> = timed.said().expect("they are well-formed");
        let said: Vec<_> = said.into_iter().map(|(_, said)| said).collect();
        let expected = [
            handshake(1e-6, "ab", "cd").1,
            Said::Change(Moment { at: 2.0 }),
            Said::Interrupt(Moment { at: 3.0 }),
        ];
        assert_eq!(said, expected);
        let taken = timed.take(Source::Stdout, b"something else\n");
        taken.expect("it takes everything");
        let error = timed.said().expect_err("it is no JSON");
        assert!(error.to_string().contains("something else"), "{error}");
    }

    #[test]
    fn own_is_what_no_other_clone_has() {
        let clones = pair();
        let own = first_own(&clones, &clones).expect("both have some");
        // The random bytes alone do not make it so, nor the key.
        assert_eq!(own, [(30.0, 30e6), (21.0, 21e6)]);
        let twins = [clones[1].clone(), clones[1].clone()];
        let error = first_own(&twins, &twins).expect_err("they have the same");
        assert!(error.to_string().contains("of its own"), "{error}");
    }

    #[test]
    fn what_is_the_same_is_counted_where_all_have_served() {
        let keys = Keys::of(true, &pair());
        let expected = Keys {
            provider: true,
            number: 2,
            handshakes: 6,
            same_random: 2,
            same_key: 3,
        };
        assert_eq!(keys, expected);
    }

    #[test]
    fn instructions_count_from_the_interrupt() {
        let counted = Counted::of(&pair()).expect("both have all");
        let spread = |values: [f64; 3]| Spread {
            median: instructions(values[0]),
            least: instructions(values[1]),
            most: instructions(values[2]),
        };
        assert_eq!(counted.change, spread([1e6, 1e6, 1e6]));
        assert_eq!(counted.own, spread([26e6, 17e6, 26e6]));
        assert_eq!(counted.next, spread([10e6, 9e6, 14e6]));
    }

    #[test]
    fn a_spread_has_a_middle() {
        let spread = Spread::of([3.0, 1.0, 20.0]).expect("there are values");
        assert_eq!(spread.cells(), ["3", "1 to 20"]);
        assert!(Spread::of([]).is_err());
    }
}
