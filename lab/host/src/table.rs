// SPDX-License-Identifier: MIT OR Apache-2.0

//! `lab table`: what common software does after a clone, tried.
//!
//! The programs lie in Documentation/clones, and so does the page with the table. One guest runs
//! several of them at once, and `witness.c` asks them for random bytes, before the snapshot and in
//! each of two clones. Here is compared what they answered.

mod debian;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use self::debian::Debian;
use crate::cache;
use crate::clone::Saved;
use crate::guest::FAILED;
use crate::kernel;
use crate::kernel::Kernel;
use crate::page::Marks;
use crate::products;
use crate::say;
use crate::setup::Addition;
use crate::setup::GuestOptions;
use crate::setup::Setup;
use crate::setup::Userland;
use crate::step;
use crate::step::execute;
use crate::tap::Test;

/// Where the programs' source and the page are, in the checkout.
const DIRECTORY: &str = "Documentation/clones";

/// The page.
const PAGE: &str = "README.md";

/// What the table lies between, in the page.
const MARKS: Marks = Marks(["<!-- lab table: begin -->", "<!-- lab table: end -->"]);

/// How long a guest may take until it can be saved, and a clone until it ends; seconds. Emulated by
/// a busy host, Java and `PostgreSQL` take minutes to start.
const LIMIT: u64 = 1200;

/// Where the programs are in a guest.
const PROGRAMS: &str = "/programs";

/// What the programs are built with.
const COMPILERS: [&str; 8] = [
    "gcc",
    "golang-go",
    "libc6-dev",
    "libgnutls28-dev",
    "libsodium-dev",
    "libssl-dev",
    "make",
    "openjdk-21-jdk-headless",
];

/// Where the version of some software comes from.
enum Version {
    /// It is the packaged kernel's.
    Kernel,
    /// It is that of a package in the guest.
    Package(&'static str),
    /// It is that of a package that the program was built with.
    Compiler(&'static str),
    /// It is that of a crate, in the lock file.
    Crate(&'static str),
}

/// A row of the table: some software, and the program that draws from it.
struct Row {
    /// What the witness calls it.
    id: &'static str,
    /// The software, and how it is asked.
    name: (&'static str, &'static str),
    version: Version,
    /// The program's source, by its path from Documentation/clones.
    source: &'static str,
    /// The command, in `/programs`.
    command: &'static str,
}

impl Row {
    /// As the table has it.
    fn name(&self) -> String {
        let (software, how) = self.name;
        format!("{software}, {how}")
    }
}

/// Programs that share a guest.
struct Scene {
    rows: &'static [Row],
    packages: &'static [&'static str],
    /// What the scripts of the packages would have done.
    finish: Option<fn(&Debian) -> Result<()>>,
    memory: &'static str,
}

const SCENES: [Scene; 4] = [
    Scene {
        rows: &[
            Row {
                id: "getrandom",
                name: ("Linux", "the system call `getrandom()`"),
                version: Version::Kernel,
                source: "getrandom_syscall.c",
                command: "getrandom_syscall",
            },
            Row {
                id: "vdso",
                name: ("glibc", "`getrandom()`, by the vDSO"),
                version: Version::Package("libc6"),
                source: "getrandom_vdso.c",
                command: "getrandom_vdso",
            },
            Row {
                id: "arc4random",
                name: ("glibc", "`arc4random_buf()`"),
                version: Version::Package("libc6"),
                source: "arc4random.c",
                command: "arc4random",
            },
            Row {
                id: "openssl",
                name: ("OpenSSL", "`RAND_bytes()`"),
                version: Version::Package("libssl3t64"),
                source: "openssl.c",
                command: "openssl",
            },
            Row {
                id: "openssl-provider",
                name: ("OpenSSL", "`RAND_bytes()`, with the provider"),
                version: Version::Package("libssl3t64"),
                source: "openssl.c",
                command: "env OPENSSL_CONF=/etc/ssl/sysgenid.cnf openssl",
            },
            Row {
                id: "aws-lc",
                name: ("AWS-LC, without RDRAND", "`RAND_bytes()`"),
                version: Version::Crate("aws-lc-sys"),
                source: "../../selftests/awslc/src/bin/aws_lc_rand.rs",
                command: "env OPENSSL_ia32cap=~0x4000000000000000 aws_lc_rand",
            },
            Row {
                id: "gnutls",
                name: ("GnuTLS", "`gnutls_rnd(GNUTLS_RND_RANDOM)`"),
                version: Version::Package("libgnutls30t64"),
                source: "gnutls.c",
                command: "gnutls random",
            },
            Row {
                id: "gnutls-key",
                name: ("GnuTLS", "`gnutls_rnd(GNUTLS_RND_KEY)`"),
                version: Version::Package("libgnutls30t64"),
                source: "gnutls.c",
                command: "gnutls key",
            },
            Row {
                id: "gnutls-preloaded",
                name: (
                    "GnuTLS",
                    "`gnutls_rnd(GNUTLS_RND_RANDOM)`, with the library preloaded",
                ),
                version: Version::Package("libgnutls30t64"),
                source: "gnutls.c",
                command: "env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so gnutls random",
            },
            Row {
                id: "gnutls-key-preloaded",
                name: (
                    "GnuTLS",
                    "`gnutls_rnd(GNUTLS_RND_KEY)`, with the library preloaded",
                ),
                version: Version::Package("libgnutls30t64"),
                source: "gnutls.c",
                command: "env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so gnutls key",
            },
            Row {
                id: "gnutls-generate-preloaded",
                name: (
                    "GnuTLS",
                    "`gnutls_key_generate()`, with the library preloaded",
                ),
                version: Version::Package("libgnutls30t64"),
                source: "gnutls.c",
                command: "env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so gnutls generate",
            },
            Row {
                id: "libsodium",
                name: ("libsodium", "`randombytes_buf()`"),
                version: Version::Package("libsodium23"),
                source: "libsodium.c",
                command: "libsodium",
            },
        ],
        packages: &["libgcc-s1", "libgnutls30t64", "libsodium23", "libssl3t64"],
        finish: None,
        memory: "512M",
    },
    Scene {
        rows: &[
            Row {
                id: "go-crypto",
                name: ("Go", "`crypto/rand`"),
                version: Version::Compiler("golang-1.24-go"),
                source: "go_rand.go",
                command: "go_rand crypto",
            },
            Row {
                id: "go-math",
                name: ("Go", "`math/rand/v2`"),
                version: Version::Compiler("golang-1.24-go"),
                source: "go_rand.go",
                command: "go_rand math",
            },
            Row {
                id: "go-heedful",
                name: ("Go", "`math/rand/v2`, with a source that looks"),
                version: Version::Compiler("golang-1.24-go"),
                source: "go_rand.go",
                command: "go_rand heedful",
            },
            Row {
                id: "rust",
                name: ("Rust, the crate rand", "`rand::rng()`"),
                version: Version::Crate("rand"),
                source: "rust/src/main.rs",
                command: "rust_rand rand",
            },
            Row {
                id: "rust-sysgenid",
                name: ("Rust, the crate sysgenid", "`sysgenid::rng()`"),
                version: Version::Crate("sysgenid"),
                source: "rust/src/main.rs",
                command: "rust_rand sysgenid",
            },
            Row {
                id: "python-random",
                name: ("Python", "`random`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py random",
            },
            Row {
                id: "python-sysgenid-random",
                name: ("Python", "`sysgenid.Random`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py sysgenid.Random",
            },
            Row {
                id: "python-sysgenid-system",
                name: ("Python", "`sysgenid.SystemRandom`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py sysgenid.SystemRandom",
            },
            Row {
                id: "python-secrets",
                name: ("Python", "`secrets`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py secrets",
            },
            Row {
                id: "python-uuid4",
                name: ("Python", "`uuid.uuid4()`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py uuid4",
            },
            Row {
                id: "python-uuid1",
                name: ("Python", "`uuid.uuid1()`"),
                version: Version::Package("python3.13-minimal"),
                source: "python_rand.py",
                command: "python_rand.py uuid1",
            },
        ],
        packages: &["libgcc-s1", "python3"],
        finish: None,
        memory: "512M",
    },
    Scene {
        rows: &[
            Row {
                id: "java",
                name: ("OpenJDK", "`SecureRandom`"),
                version: Version::Package("openjdk-21-jre-headless"),
                source: "JavaRand.java",
                command: "java -Xmx128m -cp /programs JavaRand default",
            },
            Row {
                id: "java-random",
                name: ("OpenJDK", "`java.util.Random`"),
                version: Version::Package("openjdk-21-jre-headless"),
                source: "JavaRand.java",
                command: "java -Xmx128m -cp /programs JavaRand random",
            },
            Row {
                id: "java-drbg",
                name: ("OpenJDK", "`SecureRandom` of the kind DRBG"),
                version: Version::Package("openjdk-21-jre-headless"),
                source: "JavaRand.java",
                command: "java -Xmx128m -cp /programs JavaRand drbg",
            },
            Row {
                id: "java-heedful",
                name: (
                    "OpenJDK",
                    "`SecureRandom` of the kind DRBG, with a thread that watches",
                ),
                version: Version::Package("openjdk-21-jre-headless"),
                source: "JavaRand.java",
                command: "java -Xmx128m -cp /programs JavaRand heedful",
            },
        ],
        packages: &["openjdk-21-jre-headless"],
        finish: Some(java_on_the_path),
        memory: "2G",
    },
    Scene {
        rows: &[
            Row {
                id: "postgresql",
                name: ("PostgreSQL", "`gen_random_uuid()`"),
                version: Version::Package("postgresql-17"),
                source: "postgresql.sh",
                command: "postgresql.sh plain",
            },
            Row {
                id: "postgresql-provider",
                name: ("PostgreSQL", "`gen_random_uuid()`, with the provider"),
                version: Version::Package("postgresql-17"),
                source: "postgresql.sh",
                command: "env OPENSSL_CONF=/etc/ssl/sysgenid.cnf postgresql.sh provider",
            },
        ],
        packages: &["postgresql-17"],
        finish: Some(make_cluster),
        memory: "1G",
    },
];

/// What helps where a row is equal with the module.
struct Remedy {
    /// The row that it helps.
    of: &'static str,
    /// The row that shows that it does. Where nothing helps there is none, and the page says why.
    by: Option<&'static str>,
    /// What it is, for the table.
    what: &'static str,
}

const REMEDIES: [Remedy; 9] = [
    Remedy {
        of: "openssl",
        by: Some("openssl-provider"),
        what: "the provider",
    },
    Remedy {
        of: "gnutls",
        by: Some("gnutls-preloaded"),
        what: "a library to preload",
    },
    Remedy {
        of: "gnutls-key",
        by: Some("gnutls-key-preloaded"),
        what: "a library to preload",
    },
    Remedy {
        of: "go-math",
        by: Some("go-heedful"),
        what: "a source that looks",
    },
    Remedy {
        of: "rust",
        by: Some("rust-sysgenid"),
        what: "`sysgenid::rng()`",
    },
    Remedy {
        of: "python-random",
        by: Some("python-sysgenid-random"),
        what: "`sysgenid.Random`",
    },
    Remedy {
        of: "java-random",
        by: Some("java"),
        what: "`SecureRandom`",
    },
    Remedy {
        of: "java-drbg",
        by: Some("java-heedful"),
        what: "a thread that watches",
    },
    Remedy {
        of: "postgresql",
        by: Some("postgresql-provider"),
        what: "the provider",
    },
];

/// What helps a row.
fn remedy(row: &Row) -> Option<&'static Remedy> {
    REMEDIES.iter().find(|remedy| remedy.of == row.id)
}

fn rows() -> impl Iterator<Item = &'static Row> {
    SCENES.iter().flat_map(|scene| scene.rows)
}

/// The link that the package's script makes.
fn java_on_the_path(debian: &Debian) -> Result<()> {
    let machines = debian.tree().join("usr/lib/jvm");
    let machine = fs::read_dir(&machines)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("java-21-openjdk-"))
        .context("the package of Java has no Java")?;
    std::os::unix::fs::symlink(
        format!("../lib/jvm/{machine}/bin/java"),
        debian.tree().join("usr/bin/java"),
    )?;
    Ok(())
}

/// A database, as an administrator makes it. The server's user owns it.
fn make_cluster(debian: &Debian) -> Result<()> {
    const POSTGRES: u32 = 70;
    // Not in the tree yet: nothing that runs in it can write there.
    let home = debian.tree().with_file_name("postgresql");
    fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(POSTGRES), Some(POSTGRES))?;
    let mut initdb = debian.command(POSTGRES, &home);
    initdb.args(["/usr/lib/postgresql/17/bin/initdb", "--pgdata=/mnt/cluster"]);
    initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
    initdb.args(["--no-sync", "--wal-segsize=1"]);
    execute(&mut initdb, "initdb").context("cannot make PostgreSQL's cluster")?;
    fs::rename(&home, debian.tree().join("var/lib/postgresql"))?;
    Ok(())
}

/// Builds the programs. Returns where they are, and the versions of what built them.
fn build() -> Result<(Vec<Addition>, BTreeMap<String, String>)> {
    let debian = Debian::get(&COMPILERS, None)?;
    let _lock = cache::lock("clones")?;
    let output = cache::build_directory("clones")?;
    let mut make = debian.command(0, &output);
    make.args(["make", "-C"])
        .arg(Path::new("/srv").join(DIRECTORY))
        .arg("OUTPUT=/mnt");
    execute(&mut make, "clones").context("cannot build the programs")?;
    let addition = |from: PathBuf, guest: &str| Addition {
        from,
        guest: Path::new(PROGRAMS).join(guest),
    };
    let mut programs = vec![
        addition(output.join("programs"), ""),
        addition(products::program("rust-rand", "rust-rand")?, "rust_rand"),
        addition(
            products::program("sysgenid-awslc-test", "aws_lc_rand")?,
            "aws_lc_rand",
        ),
    ];
    programs.extend(Addition::openssl_provider()?);
    programs.push(Addition::gnutls_library()?);
    Ok((programs, debian.versions))
}

/// What a clone's programs have drawn.
#[derive(Default)]
struct Draws<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Draws<'a> {
    /// Reads what the witness says.
    fn parse(output: &'a str) -> Result<Self> {
        let mut draws = Self::default();
        for line in output.lines() {
            let Some(draw) = line.strip_prefix("# draw ") else {
                continue;
            };
            let (id, value) = draw
                .split_once(' ')
                .with_context(|| format!("the witness says “{line}”"))?;
            // What does that is no random number generator, and no clone is needed to see it.
            ensure!(
                draws.0.entry(id).or_default().insert(value),
                "{id} has drawn {value} twice in one machine"
            );
        }
        Ok(draws)
    }

    fn of(&self, id: &str) -> BTreeSet<&'a str> {
        self.0.get(id).cloned().unwrap_or_default()
    }
}

/// What came of comparing two clones: how many of so many draws both have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Compared {
    equal: usize,
    of: usize,
}

impl Compared {
    fn new(clones: &[Draws<'_>; 2], id: &str) -> Result<Self> {
        let [one, other] = clones.each_ref().map(|clone| clone.of(id));
        ensure!(
            !one.is_empty() && one.len() == other.len(),
            "{id} has drawn {} times in the one clone, and {} times in the other",
            one.len(),
            other.len()
        );
        Ok(Self {
            equal: one.intersection(&other).count(),
            of: one.len(),
        })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { equal: 0, of } => write!(f, "different (0 of {of})"),
            Self { equal, of } => write!(f, "**equal** ({equal} of {of})"),
        }
    }
}

/// What a scene came to, for each row.
type Results = BTreeMap<&'static str, Compared>;

impl Scene {
    /// Whether one of its rows has that in its name.
    fn has(&self, text: &str) -> bool {
        self.rows.iter().any(|row| row.name().contains(text))
    }

    /// Plays it: a snapshot and two clones.
    fn play(
        &self,
        kernel: &Kernel,
        debian: &Debian,
        programs: &[Addition],
        module: bool,
    ) -> Result<Results> {
        let mut command = vec![format!("{PROGRAMS}/witness")];
        for row in self.rows {
            command.push(row.id.into());
            command.push(format!("PATH={PROGRAMS}:$PATH; exec {}", row.command));
        }
        let options = GuestOptions {
            memory: Some(self.memory.into()),
            no_module: !module,
            limit: LIMIT,
            ..GuestOptions::plain()
        };
        let userland = Userland::Tree(debian.tree());
        let setup = Setup::with(&options, kernel, userland, programs, &command, None)?;
        let (saved, _) = Saved::with_output(&setup)?;
        let [one, other] = ["clone 1", "clone 2"].map(|name| resume(&saved, name, module));
        let (one, other) = (one?, other?);
        let clones = [Draws::parse(&one)?, Draws::parse(&other)?];
        let results = self.rows.iter();
        results
            .map(|row| Ok((row.id, Compared::new(&clones, row.id)?)))
            .collect()
    }
}

/// Resumes a clone, and returns what its witness says. The generation has changed where there is
/// one.
fn resume(saved: &Saved<'_>, name: &str, module: bool) -> Result<String> {
    let output = String::from_utf8(saved.resume_well(name)?.stdout)?;
    let generation = if module { "1" } else { "none" };
    ensure!(
        output
            .lines()
            .any(|line| line == format!("# generation {generation}")),
        "the generation of {name} is not {generation}"
    );
    Ok(output)
}

/// Tries everything, prints the table, and puts it into the page, or else returns success only if
/// the page says the same.
///
/// With `only`, no more is tried and compared than the guests need that have such a row.
pub fn run(page: Option<&Path>, only: &str) -> Result<u8> {
    // What is wrong with the page is said before anything takes long.
    let path = page.map_or_else(|| in_checkout(PAGE), Path::to_owned);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", cache::shown(&path)))?;
    let [_, known, _] = MARKS.parts(&text)?;
    let known = Said::parse(known)?;

    let scenes: Vec<_> = SCENES.iter().filter(|scene| scene.has(only)).collect();
    ensure!(!scenes.is_empty(), "no row has “{only}” in its name");
    let table = try_out(&scenes)?;
    print!("{table}");
    if page.is_some() {
        fs::write(&path, MARKS.replaced(&text, &table)?)
            .with_context(|| format!("cannot write {}", cache::shown(&path)))?;
        return Ok(0);
    }
    let said = Said::parse(&table)?;
    let differences = said.differences(&if only.is_empty() {
        known
    } else {
        known.of(&said.names())
    });
    for name in &differences {
        say::say(format!("the page says something else: {name}"));
    }
    Ok(if differences.is_empty() { 0 } else { FAILED })
}

/// Plays scenes, each without the module and with it, and returns the table.
fn try_out(scenes: &[&Scene]) -> Result<String> {
    let kernel = kernel::get(GuestOptions::plain().kernel)?;
    let (programs, compilers) = step::step("building the programs", build)?;
    let mut results = [Results::new(), Results::new()];
    let mut versions = BTreeMap::new();
    for scene in scenes {
        let debian = Debian::get(scene.packages, scene.finish)?;
        let ids: Vec<_> = scene.rows.iter().map(|row| row.id).collect();
        for (results, module) in results.iter_mut().zip([false, true]) {
            let with = if module { "with" } else { "without" };
            let what = format!("cloning {}, {with} the module", ids.join(", "));
            results.extend(step::step(&what, || {
                scene.play(&kernel, &debian, &programs, module)
            })?);
        }
        for row in scene.rows {
            let version = match row.version {
                Version::Kernel => kernel.release.clone(),
                Version::Package(name) => packaged(&debian.versions, name)?,
                Version::Compiler(name) => packaged(&compilers, name)?,
                Version::Crate(name) => locked(name)?,
            };
            versions.insert(row.id, version);
        }
    }
    let rows = scenes.iter().flat_map(|scene| scene.rows);
    table(rows, &results, &versions)
}

fn in_checkout(name: &str) -> PathBuf {
    Path::new(cache::SOURCE).join(DIRECTORY).join(name)
}

fn packaged(versions: &BTreeMap<String, String>, name: &str) -> Result<String> {
    let version = versions
        .get(name)
        .with_context(|| format!("there is no package {name}"))?;
    Ok(debian::upstream(version).to_owned())
}

/// The version of a crate that programs in Rust are built with: the newest, where others want an
/// older one as well.
fn locked(name: &str) -> Result<String> {
    let lock = fs::read_to_string(cache::source("Cargo.lock"))?;
    let header = format!("name = \"{name}\"\nversion = \"");
    lock.rsplit_once(&header)
        .and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()))
        .with_context(|| format!("the lock file has no crate {name}"))
}

fn table<'a>(
    rows: impl Iterator<Item = &'a Row>,
    results: &[Results; 2],
    versions: &BTreeMap<&str, String>,
) -> Result<String> {
    let mut table = String::from(
        "| drawn from | version | no module | with the module | what helps |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        write!(table, "| {} | {} |", row.name(), versions[row.id])?;
        for results in results {
            write!(table, " {} |", results[row.id])?;
        }
        match remedy(row) {
            Some(remedy) => writeln!(table, " {} |", remedy.what)?,
            None => table.push_str(" |\n"),
        }
    }
    Ok(table)
}

/// What a table says: of each row the name, and whether the draws were equal. How many there were,
/// and of which version, is another one each time.
#[derive(Debug, PartialEq, Eq)]
struct Said(Vec<(String, Vec<String>)>);

impl Said {
    fn parse(table: &str) -> Result<Self> {
        let rows = table.lines().skip(2).filter(|line| !line.is_empty());
        rows.map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, cells @ ..] = cells.as_slice() else {
                bail!("“{line}” is no row of the table");
            };
            let words = cells.iter().map(|cell| {
                let word = cell.split_once(" (").map_or(*cell, |(word, _)| word);
                word.to_owned()
            });
            Ok(((*name).to_owned(), words.collect()))
        })
        .collect::<Result<_>>()
        .map(Self)
    }

    /// What one of the columns says of a row.
    fn of_row(&self, name: &str, column: usize) -> Option<&str> {
        let (_, cells) = self.0.iter().find(|row| row.0 == name)?;
        cells.get(column).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Only those rows.
    fn of(self, names: &[&str]) -> Self {
        let mut rows = self.0;
        rows.retain(|(name, _)| names.contains(&name.as_str()));
        Self(rows)
    }

    /// In which rows another table says something else.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = self.0.iter().chain(&other.0).collect::<Vec<_>>();
        all.retain(|row| !(self.0.contains(row) && other.0.contains(row)));
        all.sort();
        all.dedup_by_key(|row| &row.0);
        all.into_iter().map(|row| row.0.clone()).collect()
    }
}

/// Whether the page, the programs and what `lab table` tries agree. Whether the page's results hold
/// is what `lab table` itself sees.
pub fn check() -> Result<Vec<Test>> {
    let page = fs::read_to_string(in_checkout(PAGE))?;
    let [before, table, after] = MARKS.parts(&page)?;
    let said = Said::parse(table)?;
    let same_rows = || {
        let names: Vec<_> = rows().map(Row::name).collect();
        ensure!(
            said.names() == names,
            "the page has the rows {:?}, and lab table tries {names:?}",
            said.names()
        );
        Ok(())
    };
    let all_explained = || {
        for row in rows() {
            let (_, how) = row.name;
            ensure!(
                before.contains(how) || after.contains(how),
                "nothing but the table has {how}"
            );
        }
        Ok(())
    };
    let all_helped = || {
        for row in rows() {
            let with_the_module = |row: &Row| said.of_row(&row.name(), 1);
            let remedy = remedy(row);
            let is_needed = with_the_module(row) == Some("**equal**");
            ensure!(
                is_needed == remedy.is_some(),
                "{} is {}, and has {} remedy",
                row.name(),
                if is_needed { "equal" } else { "different" },
                if is_needed { "no" } else { "a" },
            );
            let Some(remedy) = remedy else { continue };
            match remedy.by.map(|id| rows().find(|row| row.id == id)) {
                None => ensure!(
                    before.contains(remedy.what) || after.contains(remedy.what),
                    "nothing but the table says of {}: {}",
                    row.name(),
                    remedy.what
                ),
                Some(by) => ensure!(
                    by.and_then(with_the_module) == Some("different"),
                    "what helps {} does not",
                    row.name()
                ),
            }
        }
        Ok(())
    };
    let sources = || {
        let mut used: BTreeSet<_> = rows().map(|row| PathBuf::from(row.source)).collect();
        // What lies elsewhere is there for everybody to see.
        used.retain(|path| !path.starts_with(".."));
        let others = ["Makefile", PAGE, "draw.h", "rust", "witness.c"].map(PathBuf::from);
        let mut found: BTreeSet<_> = fs::read_dir(in_checkout(""))?
            .map(|entry| Ok(PathBuf::from(entry?.file_name())))
            .collect::<Result<_>>()?;
        found.retain(|path| !others.contains(path));
        found.insert("rust/src/main.rs".into());
        ensure!(
            found == used,
            "{DIRECTORY} has {found:?}, and the rows use {used:?}"
        );
        Ok(())
    };
    Ok(vec![
        Test::from_result("clones: the page has the rows that are tried", same_rows()),
        Test::from_result("clones: each row is explained", all_explained()),
        Test::from_result("clones: what is equal has a remedy", all_helped()),
        Test::from_result("clones: each program is in a row", sources()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
# draw one aa
# draw two bb
# draw one cc
# generation none
";

    #[test]
    fn what_both_clones_have_drawn_is_equal() {
        let draws = |output| Draws::parse(output).expect("this is the witness's output");
        let compared = |other| Compared::new(&[draws(OUTPUT), draws(other)], "one");
        let equal = compared(OUTPUT).expect("as many draws");
        assert_eq!(equal, Compared { equal: 2, of: 2 });
        let other = OUTPUT.replace("aa", "xx").replace("cc", "yy");
        let different = compared(&other).expect("as many draws");
        assert_eq!(different.to_string(), "different (0 of 2)");
        // Who has not drawn, or not as often, has not been compared.
        for output in ["", "# draw one aa\n"] {
            assert!(compared(output).is_err());
        }
        assert!(Compared::new(&[draws(""), draws("")], "one").is_err());
    }

    #[test]
    fn a_program_that_repeats_itself_is_none() {
        let error = Draws::parse(&OUTPUT.replace("cc", "aa")).err();
        let error = error.expect("aa comes twice").to_string();
        assert!(error.contains("twice"), "{error}");
    }

    const TABLE: &str = "\
| drawn from | version | a | b |
| --- | --- | --- | --- |
| one | 1.0 | **equal** (3 of 4) | different (0 of 32) |
| two | 2.0 | **equal** (3 of 4) | **equal** (3 of 4) |
";

    #[test]
    fn tables_are_compared_by_what_they_say() {
        let said = |table: &str| Said::parse(table).expect("this is a table");
        let changed = TABLE.replace("3 of 4", "8 of 9").replace("1.0", "1.1");
        assert!(said(TABLE).differences(&said(&changed)).is_empty());
        let changed = TABLE.replace("different (0", "**equal** (1");
        assert_eq!(said(TABLE).differences(&said(&changed)), ["one"]);
        let (fewer, _) = TABLE.split_once("| two").expect("it has this row");
        assert_eq!(said(fewer).differences(&said(TABLE)), ["two"]);
    }
}
