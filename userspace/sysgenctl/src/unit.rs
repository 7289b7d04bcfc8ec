// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl unit`

use std::env;
use std::fmt;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::HOOKS_DIR;
use crate::cli::UnitArguments;
use crate::exit::Failure;
use crate::followers::systemctl;
use crate::followers::systemctl_within;
use crate::output::Output;
use crate::output::plain;
use crate::replace;
use crate::unit_file::How;
use crate::unit_file::MARK;
use crate::unit_file::MIXED;
use crate::unit_file::PROPERTIES;
use crate::unit_file::Properties;
use crate::unit_file::command_line;
use crate::unit_file::drop_in;

/// Where the administrator's drop-ins are.
const UNITS: &str = "/etc/systemd/system";
/// Behind those by which others set `ExecStart=`, of which the last one counts.
const DROP_IN: &str = "zz-sysgenid-track.conf";
/// Where the names of those are that are to stand still, below the directory of the hooks.
pub const FREEZE: &str = "freeze.d";
/// What units are called that have processes.
const KINDS: [&str; 3] = [".service", ".scope", ".slice"];

/// How long systemd may take to read all units anew, which a busy machine needs time for.
const RELOAD: Duration = Duration::from_secs(90);

/// What is true of a unit.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
struct Report {
    /// Its whole name.
    unit: String,
    /// Its program is started by way of `sysgenctl exec`.
    tracked: bool,
    /// `sysgenctl serve` makes it stand still.
    frozen: bool,
    /// This command has changed that, or would have.
    changed: bool,
    /// It only would have.
    dry_run: bool,
    /// The files that say so, or said so.
    files: Vec<Change>,
    /// What people should know besides.
    notes: Vec<String>,
}

/// What becomes of a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    path: PathBuf,
    /// What is in it, unless it goes.
    text: Option<String>,
}

impl Change {
    fn is_made(&self) -> bool {
        fs::read_to_string(&self.path).ok() == self.text
    }

    fn make(&self) -> Result<(), Failure> {
        let Some(text) = &self.text else {
            return remove(&self.path);
        };
        let write = || -> io::Result<()> {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(directory)?;
            replace::put(&self.path, text.as_bytes(), 0o644)
        };
        write().map_err(Failure::io(format!("write {}", self.path.display())))
    }
}

/// Removes a file, and its directory if it was the last one there.
fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::io(format!("remove {}", path.display()))(error));
        }
        _ => {}
    }
    if let Some(directory) = path.parent() {
        // There may be others, which is no failure.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// Where what is noted of a unit.
struct Places {
    drop_in: PathBuf,
    freeze: PathBuf,
}

impl Places {
    fn of(unit: &str, units: &Path, hooks: &Path) -> Self {
        Self {
            drop_in: units.join(format!("{unit}.d")).join(DROP_IN),
            freeze: hooks.join(FREEZE).join(unit),
        }
    }

    /// What is so.
    fn report(&self, unit: String) -> Report {
        let mut files = Vec::new();
        for path in [&self.drop_in, &self.freeze] {
            if let Ok(text) = fs::read_to_string(path) {
                let (path, text) = (path.clone(), Some(text));
                files.push(Change { path, text });
            }
        }
        Report {
            unit,
            tracked: self.drop_in.exists(),
            frozen: self.freeze.exists(),
            changed: false,
            dry_run: false,
            files,
            notes: Vec::new(),
        }
    }
}

/// Does what is asked for, and says what became of it.
pub fn run(arguments: &UnitArguments, output: Output) -> Result<(), Failure> {
    let unit = whole_name(&arguments.name)?;
    let places = Places::of(&unit, Path::new(UNITS), Path::new(HOOKS_DIR));
    let both = !arguments.track && !arguments.freeze;
    let mut report = places.report(unit.clone());
    if both && !arguments.remove {
        if report.tracked {
            report.notes.extend(stale(&unit, &places));
        }
        return output.show(&report);
    }
    let mut changes = Vec::new();
    if arguments.track || (both && report.tracked) {
        check_ours(&places.drop_in)?;
        let text = (!arguments.remove).then(|| made_for(&unit, arguments.reload, &places));
        changes.push(Change {
            path: places.drop_in.clone(),
            text: text.transpose()?,
        });
    }
    if arguments.freeze || (both && report.frozen) {
        changes.push(Change {
            path: places.freeze.clone(),
            text: (!arguments.remove).then(|| "# Written by sysgenctl unit --freeze\n".into()),
        });
    }
    changes.retain(|change| !change.is_made());
    let reaches_systemd = changes.iter().any(|change| change.path == places.drop_in);
    if !arguments.dry_run {
        for change in &changes {
            change.make()?;
        }
        if reaches_systemd {
            tell_systemd(&unit, &places)?;
        }
        report = places.report(unit);
    }
    report.changed = !changes.is_empty();
    report.dry_run = arguments.dry_run;
    if arguments.dry_run || arguments.remove {
        report.files = changes;
    }
    if reaches_systemd && !arguments.dry_run {
        let note = format!(
            "it is so from when it is started again: systemctl restart {}",
            report.unit
        );
        report.notes.push(note);
    }
    output.show(&report)
}

/// A file that somebody else has put there stays.
fn check_ours(path: &Path) -> Result<(), Failure> {
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => Err(Failure::Refused(format!(
            "{} is left as it is: sysgenctl has not written it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The drop-in by which a unit's program is started by way of `sysgenctl exec`.
fn made_for(unit: &str, reload: bool, places: &Places) -> Result<String, Failure> {
    let refused = |why: String| {
        Failure::Refused(format!(
            "{unit} cannot be tracked this way: {}",
            plain(&why)
        ))
    };
    if !unit.ends_with(".service") {
        return Err(refused("it is no service".into()));
    }
    let said = systemctl(&["show", PROPERTIES, "--", unit]).map_err(refused)?;
    let mut properties = Properties::of(&said);
    if fs::read_to_string(&places.drop_in).is_ok_and(|text| text.contains(MIXED)) {
        // By that one.
        properties.set("KillMode", "control-group");
    }
    let load = properties.value("LoadState");
    if load != "loaded" {
        return Err(refused(format!("systemd says that it is “{load}”")));
    }
    let drop_ins = properties.value("DropInPaths").split_whitespace();
    let paths = [properties.value("FragmentPath")]
        .into_iter()
        .chain(drop_ins);
    let others = paths.map(Path::new).filter(|path| *path != places.drop_in);
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(Failure::io(format!("read {}", path.display())))
    };
    let files = others.map(read).collect::<Result<Vec<_>, _>>()?;
    let command = command_line(&files).map_err(refused)?;
    let how = if reload { How::Reload } else { How::Restart };
    let own = env::current_exe().map_err(Failure::io("find sysgenctl itself"))?;
    drop_in(&properties, &command, how, &own).map_err(refused)
}

/// Has systemd read it. What it does not understand is taken away again.
fn tell_systemd(unit: &str, places: &Places) -> Result<(), Failure> {
    let reload = || systemctl_within(RELOAD, &["daemon-reload"]).map(drop);
    let check = || {
        reload()?;
        let load = systemctl(&["show", "--value", "--property=LoadState", "--", unit])?;
        // Where nothing is added, nothing is made worse.
        if load.trim() == "loaded" || !places.drop_in.exists() {
            Ok(())
        } else {
            Err(format!("systemd says that it is “{}” then", load.trim()))
        }
    };
    check().map_err(|why| {
        let removed = remove(&places.drop_in).map_err(|failure| failure.to_string());
        let undone = match removed.and_then(|()| reload()) {
            Ok(()) => "which was taken away again".to_owned(),
            Err(error) => format!("which cannot be taken away again ({})", plain(&error)),
        };
        Failure::Refused(format!(
            "{unit} cannot be tracked by {}, {undone}: {}",
            places.drop_in.display(),
            plain(&why)
        ))
    })
}

/// What there is to say where the unit says something else by now, as after an upgrade.
fn stale(unit: &str, places: &Places) -> Option<String> {
    let text = fs::read_to_string(&places.drop_in).ok()?;
    let reload = text.contains(" --signal ");
    // Where systemd cannot be asked, nobody knows.
    let now = made_for(unit, reload, places).ok()?;
    let command = |text: &str| {
        let found = text.lines().rfind(|line| line.starts_with("ExecStart="));
        found.map(str::to_owned)
    };
    (command(&text) != command(&now)).then(|| {
        let reload = if reload { " --reload" } else { "" };
        format!(
            "the unit itself has another command line since: sysgenctl unit --track{reload} {unit} \
             takes it over"
        )
    })
}

/// The units that are to stand still, by the names of the files there.
pub fn to_freeze(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    // What an editor has left, or a README, is none.
    names.retain(|name| is_unit(name));
    names.sort_unstable();
    Ok(names)
}

fn is_unit(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = KINDS.iter().find_map(|kind| name.strip_suffix(kind));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
        && name.chars().all(is_allowed)
}

fn whole_name(name: &str) -> Result<String, Failure> {
    let is_whole = KINDS.iter().any(|kind| name.ends_with(kind));
    let whole = format!("{name}{}", if is_whole { "" } else { KINDS[0] });
    if is_unit(&whole) {
        return Ok(whole);
    }
    Err(Failure::Refused(format!(
        "{} is no name of a service, a scope or a slice",
        plain(name)
    )))
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |is| if is { "is" } else { "is not" };
        let Self { unit, .. } = self;
        writeln!(
            f,
            "{unit} {} tracked by sysgenctl exec, and {} among what sysgenctl serve freezes",
            is(self.tracked),
            is(self.frozen)
        )?;
        for Change { path, text } in &self.files {
            let path = path.display();
            match (self.dry_run, text) {
                (false, Some(_)) => writeln!(f, "as {path} says")?,
                (false, None) => writeln!(f, "{path} was removed")?,
                (true, None) => writeln!(f, "{path} would be removed")?,
                (true, Some(text)) => {
                    writeln!(f, "{path} would have:")?;
                    text.lines()
                        .try_for_each(|line| writeln!(f, "  {}", plain(line)))?;
                }
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_those_of_units_with_processes() {
        for (name, whole) in [
            ("nginx", "nginx.service"),
            ("getty@tty1.service", "getty@tty1.service"),
            ("a.slice", "a.slice"),
            ("dev-a\\x2db", "dev-a\\x2db.service"),
        ] {
            assert_eq!(whole_name(name).expect("it is one"), whole);
        }
        for name in ["", "a/b", "../x", ".service", "..service", "a b", "a\n"] {
            assert!(whole_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_is_to_stand_still_is_listed_by_name() {
        let directory = tempfile::tempdir().expect("there is room");
        let at = directory.path();
        assert_eq!(to_freeze(&at.join("none")).expect("none"), [""; 0]);
        for name in [
            "b.service",
            "a.slice",
            "README",
            "b.service~",
            ".x.service",
            "c.dpkg-new",
        ] {
            fs::write(at.join(name), "").expect("there is room");
        }
        assert_eq!(
            to_freeze(at).expect("they are there"),
            ["a.slice", "b.service"]
        );
        assert!(to_freeze(&at.join("README")).is_err());
    }

    #[test]
    fn files_are_written_and_go_with_their_directory() {
        let directory = tempfile::tempdir().expect("there is room");
        let places = Places::of("x.service", directory.path(), directory.path());
        let mut change = Change {
            path: places.drop_in.clone(),
            text: Some(format!("{MARK}\n")),
        };
        assert!(!change.is_made());
        change.make().expect("there is room");
        assert!(change.is_made());
        let mode = fs::metadata(&change.path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        check_ours(&change.path).expect("it is ours");
        assert!(places.report("x.service".into()).tracked);
        change.text = None;
        change.make().expect("it can go");
        assert!(!directory.path().join("x.service.d").exists());
        assert!(directory.path().exists() && change.is_made());
        change.make().expect("it need not be there");
    }

    #[test]
    fn what_others_wrote_stays() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("x");
        fs::write(&path, "[Service]\n").expect("there is room");
        assert!(check_ours(&path).is_err());
        assert!(check_ours(&directory.path().join("none")).is_ok());
    }

    fn report(dry_run: bool, text: Option<&str>) -> Report {
        Report {
            unit: "x.service".into(),
            tracked: false,
            frozen: true,
            changed: true,
            dry_run,
            files: vec![Change {
                path: "/etc/sysgenid/freeze.d/x.service".into(),
                text: text.map(str::to_owned),
            }],
            notes: vec!["so".into()],
        }
    }

    #[test]
    fn people_see_what_is_so() {
        let first = "x.service is not tracked by sysgenctl exec, and is among what sysgenctl serve \
                     freezes\n";
        let file = "/etc/sysgenid/freeze.d/x.service";
        for (dry_run, text, says) in [
            (false, Some("a\n"), format!("as {file} says\n")),
            (false, None, format!("{file} was removed\n")),
            (true, None, format!("{file} would be removed\n")),
            (
                true,
                Some("a\nb\n"),
                format!("{file} would have:\n  a\n  b\n"),
            ),
        ] {
            let expected = format!("{first}{says}so\n");
            assert_eq!(report(dry_run, text).to_string(), expected);
        }
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = serde_json::to_value(report(true, Some("a\n"))).expect("plain data");
        let expected = serde_json::json!({
            "unit": "x.service",
            "tracked": false,
            "frozen": true,
            "changed": true,
            "dry_run": true,
            "files": [{ "path": "/etc/sysgenid/freeze.d/x.service", "text": "a\n" }],
            "notes": ["so"],
        });
        assert_eq!(json, expected);
    }
}
