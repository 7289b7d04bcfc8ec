// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels that catch mistakes: built here, small, with the driver in their tree.
//!
//! The tree is the archive's source with two lines more (one of Kconfig, one of a Makefile). The
//! driver's files are the checkout's own, mounted where they belong in the tree. The objects of
//! the whole kernel are kept, and only the driver is built again when it has changed.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use super::Kernel;
use super::Module;
use super::Vmgenid;
use super::archive;
use super::archive::Offer;
use crate::cache;
use crate::step;
use crate::step::execute;
use crate::step::execute_logged;
use crate::step::output_of;

/// Where the driver goes in the tree.
const DRIVER: &str = "drivers/virt/sysgenid";

/// What else of the checkout goes into the tree.
const OTHERS: [(&str, &str); 3] = [
    ("include/linux/sysgenid.h", "include/linux/sysgenid.h"),
    ("uapi/linux/sysgenid.h", "include/uapi/linux/sysgenid.h"),
    ("selftests", "tools/testing/selftests/sysgenid"),
];

/// The lines that make the driver a part of the tree, in files of drivers/virt.
const EDITS: [(&str, &str); 2] = [
    ("Kconfig", "source \"drivers/virt/sysgenid/Kconfig\"\n"),
    ("Makefile", "obj-$(CONFIG_SYSGENID)\t\t+= sysgenid/\n"),
];

/// How it is built: with the compiler that Rust and KASAN agree on, and with Clippy in place of the
/// Rust compiler.
const FLAGS: [&str; 2] = ["LLVM=1", "CLIPPY=1"];

/// One of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// KASAN, lockdep and the rest, the driver a module.
    Debug,
    /// The same, the driver built in.
    DebugBuiltin,
    /// KCSAN, the driver a module, and no other one for `VMGenID` devices.
    Kcsan,
}

impl Variant {
    /// The one that --kernel calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Debug, Self::DebugBuiltin, Self::Kcsan]
            .into_iter()
            .find(|variant| variant.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::DebugBuiltin => "debug-builtin",
            Self::Kcsan => "kcsan",
        }
    }

    /// The fragments of its configuration, in lab/kernels.
    fn fragments(self) -> [&'static str; 3] {
        match self {
            Self::Debug => ["guest", "debug", "module"],
            Self::DebugBuiltin => ["guest", "debug", "builtin"],
            Self::Kcsan => ["guest", "kcsan", "alone"],
        }
    }

    /// The one whose objects are nearly the same, so that they can be taken to begin with.
    fn relative(self) -> Option<Self> {
        match self {
            Self::DebugBuiltin => Some(Self::Debug),
            Self::Debug | Self::Kcsan => None,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel that was built, and what make said when it built the driver.
pub struct Build {
    /// The kernel.
    pub kernel: Kernel,
    /// The output of make.
    pub log: String,
}

/// Returns that kernel, built as far as the cache has it not.
pub fn get(offer: &Offer, variant: Variant) -> Result<Build> {
    let name = variant.name();
    let tree = in_tree(offer)?;
    let configuration = configuration(variant)?;
    let place = cached_at(offer, variant, &configuration)?;
    let directory = cache::directory(&place)?;

    let products = cache::made(&format!("{place}/{}", driver_key()?), |products| {
        // Taken here, for what it is made from needs it as well.
        let begin_with = match variant.relative() {
            Some(relative) if !is_whole(&directory) => Some(get(offer, relative)?.kernel.tree),
            _ => None,
        };
        let what = if is_whole(&directory) || begin_with.is_some() {
            format!("building the driver in the kernel “{name}”")
        } else {
            format!("building the kernel “{name}” (about ten minutes on two processors)")
        };
        step::step(&what, || {
            let objects = Objects::new(&directory, begin_with.as_deref())?;
            objects.build(&tree, &configuration, products)
        })
    })?;

    let built = |name| Some(products.join(name)).filter(|path| path.exists());
    let objects = directory.join("objects");
    Ok(Build {
        log: fs::read_to_string(products.join("log"))?,
        kernel: Kernel {
            name: name.into(),
            release: fs::read_to_string(objects.join("include/config/kernel.release"))?
                .trim()
                .to_owned(),
            source: archive::source(offer)?,
            tree: objects,
            module: built("sysgenid.ko").map_or(Module::BuiltIn, Module::InTree),
            vmgenid: built("vmgenid.ko").map_or(Vmgenid::Absent, Vmgenid::Module),
            image: products.join("bzImage"),
            packaged: None,
        },
    })
}

/// Where the kernel with that configuration is in the cache: a directory for the objects, and one for
/// what was made of each state of the driver.
fn cached_at(offer: &Offer, variant: Variant, configuration: &str) -> Result<String> {
    let key = cache::key(&[
        &offer.version,
        &compilers()?,
        configuration,
        &FLAGS.concat(),
    ]);
    Ok(format!("debug/{variant}-{key}"))
}

/// Which compilers there are, as they say it. What else the toolchain root holds makes no other kernel.
fn compilers() -> Result<String> {
    let mut versions = String::new();
    for compiler in ["clang", "ld.lld", "rustc", "bindgen"] {
        versions += &output_of(Command::new(compiler).arg("--version"))?;
    }
    Ok(versions)
}

/// Has make make `target` in that kernel, which is built before; returns what it says.
pub fn make(offer: &Offer, variant: Variant, target: &str) -> Result<String> {
    let built = get(offer, variant)?.kernel.tree;
    let directory = built.parent().context("the objects lie in a directory")?;
    let objects = Objects::new(directory, None)?;
    execute_logged(objects.make(&in_tree(offer)?).arg(target), target)
}

/// Has make write the documentation of that kernel's Rust code, if it has not done so for the driver
/// as it is. That takes longer than a test of it is worth each time.
pub fn document(offer: &Offer, variant: Variant) -> Result<()> {
    let target = "rustdoc";
    let place = cached_at(offer, variant, &configuration(variant)?)?;
    cache::made(&format!("{place}/{}-{target}", driver_key()?), |made| {
        let log = make(offer, variant, target)?;
        Ok(fs::write(made.join("log"), log)?)
    })?;
    Ok(())
}

/// The configuration that is wanted: what allnoconfig starts from.
fn configuration(variant: Variant) -> Result<String> {
    let mut wanted = String::new();
    for name in variant.fragments() {
        let path = Path::new(cache::SOURCE).join(format!("lab/kernels/{name}.config"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", cache::shown(&path)))?;
        for line in text.lines() {
            // A line that turns an option off looks like a comment, and is none.
            let line = if line.ends_with(" is not set") {
                line
            } else {
                line.split('#').next().unwrap_or_default().trim_end()
            };
            if !line.is_empty() {
                wanted.push_str(line);
                wanted.push('\n');
            }
        }
    }
    Ok(wanted)
}

/// Compares a configuration with what was wanted: an option that cannot be had is dropped silently.
fn all_taken(wanted: &str, configuration: &str) -> Result<()> {
    let missing: Vec<_> = wanted
        .lines()
        .filter(|line| {
            let off = line
                .strip_prefix("# ")
                .and_then(|line| line.strip_suffix(" is not set"));
            match off {
                Some(option) => configuration
                    .lines()
                    .any(|line| line.starts_with(&format!("{option}="))),
                None => !configuration.lines().any(|taken| taken == *line),
            }
        })
        .collect();
    ensure!(
        missing.is_empty(),
        "the kernel's configuration does not take these lines of lab/kernels: {}",
        missing.join(", ")
    );
    Ok(())
}

/// The driver's files in the checkout, by the names that they have there.
fn driver_files() -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("Kbuild"), PathBuf::from("Kconfig")];
    for directory in ["", "abstractions"] {
        for entry in fs::read_dir(Path::new(cache::SOURCE).join(directory))? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("rs")) {
                files.push(path.strip_prefix(cache::SOURCE)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What tells one state of the driver from another one. Not times: those differ between checkouts.
fn driver_key() -> Result<String> {
    let headers = OTHERS.iter().map(|(from, _)| PathBuf::from(from));
    let mut files = driver_files()?;
    files.extend(headers.filter(|path| path.extension() == Some(OsStr::new("h"))));
    let mut parts = Vec::new();
    for file in files {
        parts.push(file.display().to_string());
        parts.push(fs::read_to_string(Path::new(cache::SOURCE).join(&file))?);
    }
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    Ok(cache::key(&parts))
}

/// The source with the driver in it: links to the files of the pristine one, and places at which
/// the checkout's files are mounted, for as long as this sandbox lives.
fn in_tree(offer: &Offer) -> Result<PathBuf> {
    static MOUNTING: Mutex<()> = Mutex::new(());
    let source = archive::source(offer)?;
    let recipe = EDITS
        .iter()
        .chain(&OTHERS)
        .flat_map(|(one, other)| [*one, *other]);
    let key = cache::key(&recipe.collect::<Vec<_>>());
    let made = cache::made(&format!("in-tree/{}-{key}", offer.version), |directory| {
        let tree = directory.join("tree");
        execute(
            Command::new("cp").arg("-al").arg(&source).arg(&tree),
            "in-tree",
        )?;
        for (file, line) in EDITS {
            let path = tree.join("drivers/virt").join(file);
            let text = fs::read_to_string(&path)?;
            let text = match text.rfind("\nendif") {
                Some(end) if file == "Kconfig" => {
                    format!("{}\n{line}{}", &text[..end], &text[end..])
                }
                _ => text + line,
            };
            // A new file: the old one is the pristine source's as well.
            fs::remove_file(&path)?;
            fs::write(&path, text)?;
        }
        fs::create_dir(tree.join(DRIVER))?;
        for (from, to) in OTHERS {
            if Path::new(cache::SOURCE).join(from).is_dir() {
                fs::create_dir(tree.join(to))?;
            } else {
                File::create_new(tree.join(to))?;
            }
        }
        Ok(())
    })?;
    let tree = made.join("tree");

    let _one_at_a_time = MOUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    // A lab that this one starts finds them mounted.
    if !tree.join(DRIVER).join("Kbuild").exists() {
        mount_checkout(&tree)?;
    }
    Ok(tree)
}

fn mount_checkout(tree: &Path) -> Result<()> {
    let bind = |from: &Path, to: &Path| {
        let from = Path::new(cache::SOURCE).join(from);
        rustix::mount::mount_bind(&from, to)
            .with_context(|| format!("cannot mount {} in the tree", cache::shown(&from)))
    };
    let empty = |directory: &Path| {
        let (kind, flags) = ("tmpfs", MountFlags::empty());
        rustix::mount::mount(kind, directory, kind, flags, c"mode=0755")
            .context("cannot mount the driver in the tree")
    };
    let driver = tree.join(DRIVER);
    empty(&driver)?;
    for file in driver_files()? {
        let to = driver.join(&file);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create_new(&to)?;
        bind(&file, &to)?;
    }
    for (from, to) in OTHERS {
        bind(Path::new(from), &tree.join(to))?;
        for package in cargo_packages(Path::new(from))? {
            empty(&tree.join(to).join(package))?;
        }
    }
    Ok(())
}

/// What of a directory of the checkout has no place in a tree: Cargo packages, which are formatted by the
/// rules of their edition, and not by those of the tree.
fn cargo_packages(directory: &Path) -> Result<Vec<OsString>> {
    let directory = Path::new(cache::SOURCE).join(directory);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            packages.push(entry.file_name());
        }
    }
    Ok(packages)
}

/// Keeps the objects of all kernels as they are, for as long as the result lives.
pub fn hold() -> Result<cache::Lock> {
    cache::lock(LOCK)
}

/// The lock that whoever changes the objects of a kernel holds.
const LOCK: &str = "debug-objects";

/// Whether the objects there are of a whole kernel, and nothing was interrupted.
fn is_whole(directory: &Path) -> bool {
    directory.join("whole").exists()
}

/// The objects of a kernel, in the place where they are built.
///
/// Make compares the commands that it would run with those that it ran, and the place is a part of
/// them. So it is the same one for all kernels, and objects can be copied.
struct Objects {
    directory: PathBuf,
    place: PathBuf,
    _one_at_a_time: cache::Lock,
}

impl Objects {
    fn new(directory: &Path, begin_with: Option<&Path>) -> Result<Self> {
        let one_at_a_time = hold()?;
        let objects = directory.join("objects");
        if !is_whole(directory) {
            if objects.exists() {
                fs::remove_dir_all(&objects)?;
            }
            match begin_with {
                Some(other) => execute(
                    Command::new("cp").arg("-a").arg(other).arg(&objects),
                    "objects",
                )?,
                None => fs::create_dir(&objects)?,
            }
        }
        let place = cache::directory("debug/objects")?;
        rustix::mount::mount_bind(&objects, &place).context("cannot mount the objects")?;
        Ok(Self {
            directory: directory.to_owned(),
            place,
            _one_at_a_time: one_at_a_time,
        })
    }

    fn make(&self, tree: &Path) -> Command {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(tree)
            .arg(format!("O={}", self.place.display()))
            .arg(format!("-j{jobs}"))
            .args(FLAGS);
        make
    }

    /// Builds the kernel, and puts what came of it into `products`.
    fn build(&self, tree: &Path, configuration: &str, products: &Path) -> Result<()> {
        self.remove_what_depends_on_the_driver()?;
        let wanted = products.join("config");
        fs::write(&wanted, configuration)?;
        execute(
            self.make(tree)
                .arg(format!("KCONFIG_ALLCONFIG={}", wanted.display()))
                .arg("allnoconfig"),
            "kernel-config",
        )?;
        let taken = fs::read_to_string(self.place.join(".config"))?;
        all_taken(configuration, &taken)?;
        // All warnings, for the driver only: for the whole kernel they would take minutes.
        let mut driver = self.make(tree);
        driver.arg("W=1").arg(format!("{DRIVER}/"));
        let mut log = execute_logged(&mut driver, "driver-build")?;
        let mut kernel = self.make(tree);
        kernel.args(["bzImage", "modules"]);
        log += &execute_logged(&mut kernel, "kernel-build")?;
        fs::write(products.join("log"), log)?;
        File::create(self.directory.join("whole"))?.sync_all()?;

        for (file, always) in [
            ("arch/x86/boot/bzImage", true),
            ("drivers/virt/sysgenid/sysgenid.ko", false),
            ("drivers/virt/vmgenid.ko", false),
        ] {
            let from = self.place.join(file);
            let name = Path::new(file).file_name().unwrap_or_default();
            if always || from.exists() {
                fs::copy(&from, products.join(name))
                    .with_context(|| format!("the build made no {file}"))?;
            }
        }
        Ok(())
    }

    /// Removes the objects of the driver, and what is linked from them. Times do not tell whether
    /// they are old, and whoever was killed has left some of them unfinished.
    fn remove_what_depends_on_the_driver(&self) -> Result<()> {
        let driver = self.place.join(DRIVER);
        if driver.exists() {
            fs::remove_dir_all(&driver)?;
        }
        for directory in ["", "arch/x86/boot", "arch/x86/boot/compressed"] {
            let directory = self.place.join(directory);
            if !directory.exists() {
                continue;
            }
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let name = name.trim_start_matches('.').trim_start_matches("tmp_");
                let linked = ["vmlinux", "bzImage", "Module.symvers", "modules"]
                    .iter()
                    .any(|start| name.starts_with(start));
                if linked && entry.file_type()?.is_file() {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // If this fails then the next one is mounted above it, and all of them go with the sandbox.
        rustix::mount::unmount(&self.place, UnmountFlags::empty()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_not_taken_is_named() {
        let wanted = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"-x\"\n";
        assert!(all_taken(wanted, "CONFIG_A=y\nCONFIG_C=\"-x\"\n").is_ok());
        for (taken, named) in [
            ("CONFIG_A=m\nCONFIG_C=\"-x\"\n", "CONFIG_A=y"),
            ("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=\"-x\"\n", "CONFIG_B"),
            ("CONFIG_A=y\n", "CONFIG_C"),
        ] {
            let error = all_taken(wanted, taken).expect_err("it differs");
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn variants_have_their_names() {
        assert_eq!(Variant::named("kcsan"), Some(Variant::Kcsan));
        assert_eq!(Variant::named("stock"), None);
    }
}
