// SPDX-License-Identifier: MIT OR Apache-2.0

//! OpenSSL, as Debian ships it, with and without the provider: what it draws in clones, what nginx
//! does with that, that nothing else changes, and what it costs.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests;
use super::guests::Said;
use super::guests::addition;
use super::guests::noted;
use super::source;
use super::window::Draws;
use super::window::Frozen;
use super::window::draws;
use super::window::frozen;
use crate::clone::Saved;
use crate::guest::Kept;
use crate::products;
use crate::run;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::tap;
use crate::tap::Test;

/// What switches the provider on.
const ON: &str = "OPENSSL_CONF=/etc/ssl/sysgenid.cnf";

/// By how much more `RAND_bytes()` may take with the provider.
const MOST_COST: f64 = 1.05;

/// By how much more it takes at least, if the provider looks at all.
const LEAST_COST: f64 = 1.005;

/// A guest with those packages, the provider, and those programs of ours, in which a command runs.
fn setup(
    bench: &Bench,
    options: &GuestOptions,
    packages: &[&str],
    mut additions: Vec<Addition>,
    command: &[&str],
) -> Result<Setup> {
    additions.extend(Addition::openssl_provider()?);
    let command: Vec<_> = command.iter().map(|&word| word.to_owned()).collect();
    let userland = Userland::Packages(packages);
    Setup::with(options, &bench.kernel, userland, &additions, &command, None)
}

fn options(bench: &Bench, smp: u32) -> GuestOptions {
    GuestOptions {
        // The file system is in it.
        memory: Some("512M".into()),
        ..guests::options(bench, smp)
    }
}

fn programs(names: &[&str]) -> Result<Vec<Addition>> {
    let tests = products::openssl_tests()?;
    let programs = names.iter();
    Ok(programs
        .map(|name| addition(tests.join(name), &format!("/{name}")))
        .collect())
}

fn said(setup: &Setup) -> Result<Said> {
    let mut kept = Kept::default();
    let status = run::run(setup, &mut kept)?;
    Ok(Said::new(status, kept))
}

/// A machine that was saved while a program drew in several places, and what came of its clones.
struct Scene {
    frozen: Vec<Frozen>,
    places: Vec<String>,
    clones: Vec<Said>,
}

impl Scene {
    fn play(bench: &Bench, smp: u32, command: &[&str], clones: usize) -> Result<Self> {
        let programs = programs(&["openssl_clone_test"])?;
        let packages = ["coreutils", "libssl3t64", "openssl"];
        let setup = setup(bench, &options(bench, smp), &packages, programs, command)?;
        let (saved, output) = Saved::with_output(&setup)?;
        let ids: Vec<_> = (0..clones).map(|_| Some(Uuid::new_v4())).collect();
        Ok(Self {
            frozen: frozen(&saved, &output)?,
            places: noted(&output, "place")
                .into_iter()
                .map(str::to_owned)
                .collect(),
            clones: guests::resume_saved(&saved, &ids)?,
        })
    }

    /// What was drawn in each clone in turns that began after the snapshot.
    fn late(&self) -> Result<Vec<Draws<'_>>> {
        let clones = self.clones.iter();
        clones
            .map(|clone| {
                let mut draws = draws(&clone.output)?;
                // The library has looked for the last time at some moment of a turn that nobody can
                // know, so that what was left half way counts for nothing.
                draws.retain(|&(place, turn), _| turn > self.frozen[place].turn());
                Ok(draws)
            })
            .collect()
    }

    /// In no place of whatever clone something is drawn that was drawn in another one.
    fn nothing_twice(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (number, late) in self.late()?.iter().enumerate() {
            for place in 0..self.places.len() {
                ensure!(
                    late.keys().any(|&(other, _)| other == place),
                    "clone {}: nothing was drawn in the place {}",
                    number + 1,
                    self.places[place]
                );
            }
            for (&(place, turn), draw) in late {
                ensure!(
                    seen.insert(*draw),
                    "clone {}: {draw}, drawn in the place {} in turn {turn}, is seen twice",
                    number + 1,
                    self.places[place]
                );
            }
        }
        Ok(())
    }

    /// In this place, two clones have drawn the same.
    fn something_twice(&self, place: usize) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut twice = 0;
        for late in self.late()? {
            let here = late.iter().filter(|((other, _), _)| *other == place);
            let here: BTreeSet<_> = here.map(|(_, draw)| *draw).collect();
            twice += here.intersection(&seen).count();
            seen.extend(here);
        }
        ensure!(twice > 0, "{} draws, all of them different", seen.len());
        Ok(())
    }
}

/// What is drawn in clones is different everywhere from the first instruction on, in whatever way a
/// program draws.
pub fn clones(bench: &Bench) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (smp, clones) in [(1, 3), (2, 6)] {
        let name = format!("openssl, {smp} CPUs");
        let scene = Scene::play(bench, smp, &["env", ON, "/openssl_clone_test"], clones)?;
        tests.extend(guests::clone_tests(&name, &scene.clones));
        tests.push(Test::from_result(
            format!("{name}: nothing is drawn twice"),
            scene.nothing_twice(),
        ));
    }
    Ok(tests)
}

/// The damage: without the provider, the same bytes are drawn in several clones, in all places that
/// were there before the snapshot.
pub fn control(bench: &Bench) -> Result<Vec<Test>> {
    const LASTING: [&str; 4] = ["RAND_bytes", "RAND_priv_bytes", "own_context", "child"];
    let scene = Scene::play(bench, 2, &["/openssl_clone_test", "--plain"], 2)?;
    let mut tests = guests::clone_tests("openssl, control", &scene.clones);
    for name in LASTING {
        let place = scene.places.iter().position(|place| {
            place
                .split_once(' ')
                .is_some_and(|(_, its_name)| its_name == name)
        });
        let result = place
            .context("there is no such place")
            .and_then(|place| scene.something_twice(place));
        tests.push(Test::from_result(
            format!("openssl, control: without the provider {name} draws the same twice"),
            result,
        ));
    }
    Ok(tests)
}

/// The parts of the output of a script, which writes a line with `MARK` and a name before each.
const MARK: &str = "### ";

fn part<'a>(output: &'a str, name: &str) -> Result<&'a str> {
    let head = format!("{MARK}{name}\n");
    let (_, rest) = output
        .split_once(&head)
        .with_context(|| format!("the guest did not come to “{name}”: {output}"))?;
    Ok(rest.split(MARK).next().unwrap_or_default())
}

/// The tests of the provider, those in which strace looks on, and OpenSSL's own programs.
pub fn provider(bench: &Bench) -> Result<Vec<Test>> {
    let mut additions = programs(&["openssl_provider_test"])?;
    additions.push(guest_script("openssl_guest.sh"));
    let packages = ["coreutils", "dash", "libssl3t64", "openssl", "strace"];
    let options = options(bench, 2);
    let setup = setup(
        bench,
        &options,
        &packages,
        additions,
        &["sh", "/openssl_guest.sh"],
    )?;
    let said = said(&setup)?;
    let mut tests = tap::parse("openssl, provider", part(&said.output, "provider")?);
    tests.extend(tap::parse("openssl", part(&said.output, "programs")?));
    let calls = |name| {
        let trace = part(&said.output, name)?;
        Ok::<_, anyhow::Error>(names(&between_marks(trace)?))
    };
    let same_calls = || {
        let (with, without) = (calls("trace")?, calls("trace without the provider")?);
        ensure!(
            with == without,
            "{with:?}, without the provider {without:?}"
        );
        Ok(())
    };
    tests.push(Test::from_result(
        "openssl: without a change there is no system call but OpenSSL's own",
        same_calls(),
    ));
    tests.push(Test::from_result(
        "openssl, control: after a change there are system calls",
        part(&said.output, "trace with a change").and_then(|trace| {
            let calls = between_marks(trace)?;
            let fresh = calls.iter().any(|call| call.contains("getrandom("));
            ensure!(fresh, "no getrandom() among {calls:?}");
            Ok(())
        }),
    ));
    tests.push(said.no_report("openssl, provider"));
    Ok(tests)
}

/// The system calls between the two that the program makes as marks.
fn between_marks(trace: &str) -> Result<Vec<&str>> {
    let mut lines = trace.lines().skip_while(|line| !line.contains("\"begin\""));
    lines.next().context("strace has not seen the first mark")?;
    let calls: Vec<_> = lines.collect();
    let end = calls.iter().position(|line| line.contains("\"end\""));
    let end = end.context("strace has not seen the second mark")?;
    Ok(calls[..end].to_vec())
}

/// How often each system call was made.
fn names<'a>(calls: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut names = BTreeMap::new();
    for call in calls {
        let (head, _) = call.split_once('(').unwrap_or((call, ""));
        let name = head.split_whitespace().last().unwrap_or_default();
        *names.entry(name).or_default() += 1;
    }
    names
}

/// A script for the guest, which is beside the provider's tests.
fn guest_script(name: &str) -> Addition {
    let directory = source("userspace/openssl-provider/tests");
    addition(directory.join(name), &format!("/{name}"))
}

/// `RAND_bytes()` takes little more with the provider. Instructions are counted, because the times of
/// an emulated processor mean little, and a host has no device.
pub fn cost(bench: &Bench) -> Result<Vec<Test>> {
    let program = addition(products::bench()?.join("openssl_cost"), "/openssl_cost");
    let options = GuestOptions {
        icount: true,
        ..options(bench, 1)
    };
    let packages = ["coreutils", "libssl3t64", "openssl"];
    let command = ["env", ON, "/openssl_cost", "--rounds", "11"];
    let setup = setup(bench, &options, &packages, vec![program], &command)?;
    let said = said(&setup)?;
    ensure!(said.status == 0, "{}: {}", said.remarks, said.output);
    let tests: Vec<_> = said
        .output
        .lines()
        .map(|line| {
            let (length, rest) = line.split_once(':').unwrap_or((line, ""));
            let result = || {
                let (_, quotient) = rest.split_once("quotient ").context("no quotient")?;
                let quotient: f64 = quotient.trim().parse()?;
                ensure!(quotient <= MOST_COST, "{line}");
                ensure!(quotient >= LEAST_COST, "{line}: is it on?");
                Ok(())
            };
            Test::from_result(
                format!("openssl: {length} cost at most {MOST_COST} times as much"),
                result(),
            )
        })
        .collect();
    ensure!(tests.len() == 3, "three lengths, not: {}", said.output);
    Ok(tests)
}

/// What a server says first: its random bytes and its ephemeral public key.
fn server_hello(output: &str) -> Result<(String, String)> {
    // As `openssl s_client -msg` shows the bytes of a message: lines that are indented.
    let mut lines = output.lines();
    lines
        .find(|line| line.starts_with("<<<") && line.ends_with("ServerHello"))
        .with_context(|| format!("there is no ServerHello: {output}"))?;
    let hex: String = lines
        .take_while(|line| line.starts_with(' '))
        .flat_map(|line| line.chars().filter(char::is_ascii_hexdigit))
        .collect();
    // RFC 8446, 4.1.3: the type, the length (3 bytes), the version (2), and 32 random bytes.
    let random = hex.get(12..76).context("the ServerHello is too short")?;
    // 4.2.8: the extension 51, its length, the group x25519 (29), the length of the key, the key.
    let (_, key) = hex
        .rsplit_once("00330024001d0020")
        .context("the ServerHello has no key for x25519")?;
    let key = key.get(..64).context("the key is too short")?;
    Ok((random.to_owned(), key.to_owned()))
}

/// The random bytes and the public keys of the first handshakes of two clones.
fn handshakes(bench: &Bench, command: &[&str]) -> Result<Vec<(String, String)>> {
    let packages = ["coreutils", "dash", "libssl3t64", "nginx", "openssl"];
    let additions = vec![guest_script("nginx_guest.sh"), guest_script("nginx.conf")];
    let setup = setup(bench, &options(bench, 1), &packages, additions, command)?;
    let (saved, _) = Saved::with_output(&setup)?;
    let ids = [(); 2].map(|()| Some(Uuid::new_v4()));
    let clones = guests::resume_saved(&saved, &ids)?;
    clones
        .iter()
        .map(|clone| {
            if clone.status != 0 {
                bail!("{}: {}: {}", clone.status, clone.remarks, clone.output);
            }
            server_hello(&clone.output)
        })
        .collect()
}

/// The handshakes of an nginx that was running before the snapshot.
pub fn nginx(bench: &Bench) -> Result<Vec<Test>> {
    let with = handshakes(bench, &["env", ON, "sh", "/nginx_guest.sh"])?;
    let without = handshakes(bench, &["sh", "/nginx_guest.sh"])?;
    let compared = |equal: bool, expected: bool, values: [&String; 2]| {
        if equal == expected {
            Ok(())
        } else {
            Err(anyhow!("{} and {}", values[0], values[1]))
        }
    };
    let test = |name: &str, expected: bool, pair: &[(String, String)]| {
        let randoms = [&pair[0].0, &pair[1].0];
        let keys = [&pair[0].1, &pair[1].1];
        [
            Test::from_result(
                format!("nginx{name}: its random bytes"),
                compared(randoms[0] == randoms[1], expected, randoms),
            ),
            Test::from_result(
                format!("nginx{name}: its ephemeral keys"),
                compared(keys[0] == keys[1], expected, keys),
            ),
        ]
    };
    let mut tests = Vec::from(test(" in clones, all different", false, &with));
    tests.extend(test(
        ", control: without the provider, the same",
        true,
        &without,
    ));
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_found() {
        let trace =
            "open()\nwrite(-1, \"begin\", 5) = -1\na()\nb()\nwrite(-1, \"end\", 3) = -1\nc()";
        assert_eq!(between_marks(trace).expect("two marks"), ["a()", "b()"]);
        assert!(between_marks("write(-1, \"begin\", 5)\n").is_err());
        assert!(between_marks("").is_err());
        let calls = ["7 getpid() = 7", "7  getpid() = 7", "7 read(3, \"(\") = 1"];
        assert_eq!(names(&calls), BTreeMap::from([("getpid", 2), ("read", 1)]));
    }

    #[test]
    fn a_server_hello_is_taken_apart() {
        let random = "ab".repeat(32);
        let key = "cd".repeat(32);
        let text = format!(
            "<<< TLS 1.3, Handshake [length 005a], ServerHello\n    02 00 00 56 03 03 {random}\n    \
             00 33 00 24 00 1d 00 20 {key}\n<<< TLS 1.2, RecordHeader [length 0005]\n    17"
        );
        assert_eq!(server_hello(&text).expect("it is whole"), (random, key));
        assert!(server_hello("<<< TLS 1.3, Handshake [length 0004], ServerHello\n    02").is_err());
        assert!(server_hello("").is_err());
    }

    #[test]
    fn parts_are_told_apart() {
        let output = "### a\n1\n2\n### b\n3\n";
        assert_eq!(part(output, "a").expect("it is there"), "1\n2\n");
        assert_eq!(part(output, "b").expect("it is there"), "3\n");
        assert!(part(output, "c").is_err());
    }
}
