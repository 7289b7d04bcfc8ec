// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab demo`: one machine, saved once and resumed three times, and what came of it.
//!
//! `demo/demo_guest.c` runs in the guest and says what happens there, in lines that begin with
//! `event`; the comment at its top describes them. Here they are put side by side, and each
//! claim that the demonstration makes is checked.

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use uuid::Uuid;

use crate::cache;
use crate::clone::Saved;
use crate::guest::FAILED;
use crate::guest::Sink;
use crate::guest::Source;
use crate::kernel;
use crate::products;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;

const GUEST_PROGRAM: &str = "/demo_guest";

/// How long a resumed guest waits for a change before it says that there was none. The longest
/// change seen under emulation took a fifth of a second.
const QUIET_SECONDS: &str = "4";

/// One line of the guest program.
#[derive(Clone, Debug)]
struct Event(BTreeMap<String, String>);

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let fields = line
            .strip_prefix("event ")?
            .split_whitespace()
            .filter_map(|field| field.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self(fields))
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// When it happened, on the guest's clock.
    fn at(&self) -> Duration {
        Duration::from_nanos(self.get("at_ns").parse().unwrap_or_default())
    }
}

/// Collects the events, and passes everything else on to standard error.
#[derive(Default)]
struct Collector {
    line: Vec<u8>,
    events: Vec<Event>,
}

impl Sink for Collector {
    fn take(&mut self, source: Source, bytes: &[u8]) -> Result<()> {
        if source == Source::Stderr {
            eprint!("{}", String::from_utf8_lossy(bytes));
            return Ok(());
        }
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            match Event::parse(&line) {
                Some(event) => self.events.push(event),
                None if line == "READY" => {}
                None => eprintln!("{line}"),
            }
        }
        Ok(())
    }
}

/// What one resume came to.
struct Resumed {
    id: Uuid,
    /// When the machine was stopped, on the guest's clock, which goes on from there.
    stopped: Duration,
    took: Duration,
    status: u8,
    events: Vec<Event>,
}

impl Resumed {
    fn new(saved: &Saved<'_>, name: &str, id: Uuid, stopped: Duration) -> Result<Self> {
        let mut collector = Collector::default();
        let mut resumed = None;
        let status = saved.resume(name, id, &mut collector, |took| {
            resumed = Some(took);
        })?;
        Ok(Self {
            id,
            stopped,
            took: resumed.context("the clone was not resumed")?,
            status,
            events: collector.events,
        })
    }

    fn find(&self, name: &str, what: &str) -> Option<&Event> {
        self.events
            .iter()
            .find(|event| event.get("name") == name && event.get("what") == what)
    }

    /// How long after the resume something happened.
    fn after(&self, name: &str, what: &str) -> String {
        self.find(name, what).map_or_else(
            || "never".into(),
            |event| format!("{} ms", event.at().saturating_sub(self.stopped).as_millis()),
        )
    }

    fn generation(&self) -> &str {
        self.find("parent", "done")
            .map_or("?", |event| event.get("generation"))
    }

    fn bytes(&self, name: &str) -> &str {
        self.find(name, "drew")
            .map_or("(none)", |event| event.get("bytes"))
    }
}

/// What the demonstration claims, and whether it held.
#[derive(Default)]
struct Claims(Vec<(String, bool)>);

impl Claims {
    fn add(&mut self, claim: impl Into<String>, held: bool) {
        self.0.push((claim.into(), held));
    }
}

/// Runs the demonstration of the overseer, which is a program of its own that calls the lab, and
/// returns what the lab exits with.
pub fn overseer() -> Result<u8> {
    let tool = env::var("LAB_TOOL").context("the lab's tool is started by lab/lab")?;
    let status = Command::new("python3")
        .arg("-B")
        .arg(cache::source("demo/overseer.py"))
        .env("LAB", Path::new(&tool).join("lab"))
        .env(cache::INSIDE, "1")
        .status()
        .context("cannot start python3")?;
    Ok(if status.success() { 0 } else { FAILED })
}

/// Runs the demonstration and returns what the lab exits with.
pub fn run() -> Result<u8> {
    let options = GuestOptions::plain();
    let kernel = kernel::get(options.kernel)?;
    let program = Addition {
        from: products::demo_guest(&kernel)?,
        guest: GUEST_PROGRAM.into(),
    };
    let setup = Setup::with(
        &options,
        &kernel,
        Userland::Packages(&["libssl3t64"]),
        &[program],
        &[GUEST_PROGRAM.into(), QUIET_SECONDS.into()],
        None,
    )?;
    let mut before = Collector::default();
    let saved = match Saved::new(&setup, &mut before)? {
        Ok(saved) => saved,
        Err(status) => return Ok(status),
    };
    let Some(ready) = before
        .events
        .iter()
        .find(|event| event.get("what") == "ready")
    else {
        bail!("the guest program never said that its watchers were ready");
    };
    let first = ready.get("generation").to_owned();
    let stopped = ready.at() + saved.ran_on;
    // One after the other: two clones that share the host's processors would slow each other.
    let clones = [
        Resumed::new(&saved, "clone 1", Uuid::new_v4(), stopped)?,
        Resumed::new(&saved, "clone 2", Uuid::new_v4(), stopped)?,
    ];
    let control = Resumed::new(&saved, "control", saved.id, stopped)?;

    show(&kernel.release, &saved, &first, &clones, &control);
    let claims = claims(&first, &clones, &control);
    let failed: Vec<_> = claims.0.iter().filter(|(_, held)| !held).collect();
    println!();
    for (claim, _) in &failed {
        println!("  {} {claim}", paint("did not hold:", RED));
    }
    if failed.is_empty() {
        println!(
            "  {} ({} claims, each checked)",
            paint("All of it held", GREEN),
            claims.0.len()
        );
        return Ok(0);
    }
    Ok(FAILED)
}

fn claims(first: &str, clones: &[Resumed; 2], control: &Resumed) -> Claims {
    let mut claims = Claims::default();
    let next = first
        .parse::<u32>()
        .map_or("?".into(), |n| (n + 1).to_string());
    claims.add("before the snapshot the generation is 0", first == "0");
    for (number, clone) in clones.iter().enumerate() {
        let number = number + 1;
        claims.add(format!("clone {number} exits with 0"), clone.status == 0);
        claims.add(
            format!("in clone {number} the generation is one more"),
            clone.generation() == next,
        );
        for (name, _) in WATCHERS {
            for what in ["noticed", "acked"] {
                let event = clone.find(name, what);
                claims.add(
                    format!("in clone {number} the one in {name} {what} generation {next}"),
                    event.is_some_and(|event| event.get("generation") == next),
                );
            }
        }
        let released = clone.find("overseer", "released");
        let last_ack = WATCHERS
            .iter()
            .filter_map(|(name, _)| clone.find(name, "acked"))
            .map(Event::at)
            .max();
        claims.add(
            format!("in clone {number} the overseer is released after the last ack"),
            released.is_some_and(|event| {
                event.get("result") == "0" && last_ack.is_some_and(|ack| event.at() >= ack)
            }),
        );
    }
    let [one, two] = clones;
    let drew = |name: &str| clones.iter().all(|clone| clone.bytes(name).len() == 32);
    claims.add(
        "OpenSSL gives both clones the same bytes when nobody looks",
        drew(IGNORES) && one.bytes(IGNORES) == two.bytes(IGNORES),
    );
    claims.add(
        "OpenSSL gives the clones different bytes when the program looks",
        drew(LOOKS) && one.bytes(LOOKS) != two.bytes(LOOKS),
    );
    claims.add("the control exits with 0", control.status == 0);
    claims.add(
        "in the control the generation stays",
        control.generation() == first,
    );
    claims.add(
        "in the control nobody noticed anything",
        !control
            .events
            .iter()
            .any(|event| event.get("what") == "noticed"),
    );
    claims.add(
        "in the control each of the watchers says so",
        WATCHERS
            .iter()
            .all(|(name, _)| control.find(name, "unnoticed").is_some()),
    );
    claims
}

const IGNORES: &str = "openssl-ignores";
const LOOKS: &str = "openssl-looks";

/// The watchers by their names in the guest program, and what they are.
const WATCHERS: [(&str, &str); 3] = [
    ("poll", "asleep in poll()"),
    ("read", "asleep in read()"),
    ("mmap", "by the mapped word"),
];

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";

fn paint(text: &str, colour: &str) -> String {
    if std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn title(text: &str) {
    println!("\n  {}", paint(text, BOLD));
}

fn row(label: &str, cells: [&str; 2]) {
    println!("    {label:<34}{:<34}{}", cells[0], cells[1]);
}

fn show(release: &str, saved: &Saved<'_>, first: &str, clones: &[Resumed; 2], control: &Resumed) {
    let both = |cell: &dyn Fn(&Resumed) -> String| [cell(&clones[0]), cell(&clones[1])];
    let line = |label: &str, cell: &dyn Fn(&Resumed) -> String| {
        let [one, two] = both(cell);
        row(label, [&one, &two]);
    };

    println!(
        "\n  One virtual machine is saved once and resumed twice: two machines with one memory."
    );
    println!("  It runs Debian's own kernel {release} with the sysgenid module.");

    title("Before");
    println!(
        "    generation {first}; three programs watch /dev/sysgenid, and an overseer waits for them"
    );
    println!("    two other programs have drawn random bytes from OpenSSL");
    println!("    saved in {:.1} s", saved.took.as_secs_f32());

    title(&format!("After{:<33}{:<34}clone 2", "", "clone 1"));
    line("hypervisor's ID for this machine", &|clone| {
        format!("{:.18}…", clone.id.to_string())
    });
    line("resumed in", &|clone| {
        format!("{:.1} s", clone.took.as_secs_f32())
    });
    line("generation", &|clone| {
        format!("{first} → {}", clone.generation())
    });
    for (name, what) in WATCHERS {
        line(&format!("noticed: {what}"), &|clone| {
            clone.after(name, "noticed")
        });
    }
    for (name, what) in WATCHERS {
        line(&format!("acked:   {what}"), &|clone| {
            clone.after(name, "acked")
        });
    }
    line("overseer told that all have acked", &|clone| {
        clone.after("overseer", "released")
    });
    println!("    (times since the resume, on the clock of the clone; good to a few milliseconds)");

    title("Why it matters: the next 16 bytes from OpenSSL, in a program that");
    let drawn = |label: &str, program: &str, same: String, different: String| {
        let [one, two] = both(&|clone| clone.bytes(program).to_owned());
        row(label, [&one, &two]);
        println!("{:38}{}", "", if one == two { same } else { different });
    };
    drawn(
        "ignores the generation",
        IGNORES,
        paint("the same “secret” in two machines", RED),
        "different".into(),
    );
    drawn(
        "looks at it, and reseeds",
        LOOKS,
        paint("the same", RED),
        paint("different, as they must be", GREEN),
    );

    title("The control: resumed with the ID that it had, which is no clone");
    let noticed = control
        .events
        .iter()
        .filter(|event| event.get("what") == "noticed")
        .count();
    println!(
        "    generation {first} → {}; {}",
        control.generation(),
        if noticed == 0 {
            "nobody was woken".into()
        } else {
            format!("{noticed} were woken")
        }
    );
}
