// SPDX-License-Identifier: MIT OR Apache-2.0

//! A service's own command line, by its unit files, and the drop-in that has `sysgenctl exec` run it.
//!
//! The command line is taken over as it is written. So whatever systemd makes of it (quotes, variables,
//! specifiers), it makes of it in the drop-in as well.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::signal_name;

use crate::exec::PASSED_ON;

/// What a drop-in of ours begins with.
pub const MARK: &str = "# Written by sysgenctl unit --track";
/// What else is in it, where signals would go to all processes of the service.
pub const MIXED: &str = "KillMode=mixed";
/// What `systemctl show` is asked for.
pub const PROPERTIES: &str = "--property=LoadState,Type,FragmentPath,DropInPaths,ReloadSignal,\
    KillSignal,KillMode,TimeoutStartUSec,TimeoutStopUSec,RootDirectory,RootImage,PrivateDevices,\
    DevicePolicy,DeviceAllow";

/// For how long `systemctl` says that there is no limit, in words that are no time.
const FOR_EVER: &str = "infinity";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What systemd says of a unit.
#[derive(Debug, Default)]
pub struct Properties<'a>(HashMap<&'a str, &'a str>);

/// How a program takes note of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Restart,
    Reload,
}

impl<'a> Properties<'a> {
    /// By what `systemctl show` prints.
    pub fn of(said: &'a str) -> Self {
        Self(
            said.lines()
                .filter_map(|line| line.split_once('='))
                .collect(),
        )
    }

    pub fn value(&self, key: &str) -> &'a str {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub fn set(&mut self, key: &'a str, value: &'a str) {
        self.0.insert(key, value);
    }

    fn signal(&self, key: &str) -> Option<i32> {
        self.value(key).parse().ok()
    }

    /// As an argument.
    fn time(&self, key: &str) -> Option<String> {
        let time = match self.value(key) {
            FOR_EVER => YEAR,
            // Which spells some units in another way.
            time => humantime::parse_duration(time).ok()?,
        };
        Some(format!("{}ms", time.as_millis()))
    }

    /// Whether not all devices can be seen.
    fn hides_devices(&self) -> bool {
        self.value("PrivateDevices") == "yes"
            || !matches!(self.value("DevicePolicy"), "" | "auto")
            || !self.value("DeviceAllow").is_empty()
    }
}

/// The drop-in for a service with these properties, and with this command line.
///
/// # Errors
///
/// Why there can be none.
pub fn drop_in(
    properties: &Properties<'_>,
    command: &str,
    how: How,
    own: &Path,
) -> Result<String, String> {
    let mut options = Vec::new();
    let kind = properties.value("Type");
    match kind {
        "simple" | "exec" | "idle" => {}
        "notify" | "notify-reload" => options.push("--notify".to_owned()),
        _ => {
            return Err(format!(
                "it is of the type {kind}, and its program does not stay in the foreground, or there \
                 is none that stays"
            ));
        }
    }
    for key in ["RootDirectory", "RootImage"] {
        if !properties.value(key).is_empty() {
            return Err(format!("it has another root ({key}=)"));
        }
    }
    if how == How::Reload {
        let signal = match kind {
            "notify" => {
                return Err(
                    "services of the type notify need not say when they have reloaded: those of the \
                     type notify-reload do"
                        .into(),
                );
            }
            "notify-reload" => properties.signal("ReloadSignal").unwrap_or(SIGHUP),
            _ => SIGHUP,
        };
        options.push(format!("--signal {}", name_of(signal)?));
    }
    let stop = properties.signal("KillSignal").unwrap_or(SIGTERM);
    if stop != SIGTERM {
        options.push(format!("--stop-signal {}", name_of(stop)?));
    }
    for (option, key) in [
        ("--start-timeout", "TimeoutStartUSec"),
        ("--stop-timeout", "TimeoutStopUSec"),
    ] {
        options.extend(properties.time(key).map(|time| format!("{option} {time}")));
    }
    let (prefix, rest) = without_prefix(command)?;
    let own = own.to_str().filter(|path| is_plain(path));
    let own = own.ok_or("the path of sysgenctl has characters that are not plain ones")?;
    let options = options.join(" ");
    let mut lines = vec![
        format!("{MARK}, and taken away by sysgenctl unit --remove."),
        "# The unit's own command line, as it was:".into(),
        format!("#ExecStart={command}"),
        "[Service]".into(),
        "ExecStart=".into(),
        format!("ExecStart={prefix}{own} exec {options} -- {rest}").replace("  ", " "),
    ];
    if properties.value("KillMode") == "control-group" {
        lines.push("# sysgenctl exec passes signals on. The program would get each twice.".into());
        lines.push(MIXED.into());
    }
    if properties.hides_devices() {
        lines.push("# See devices.conf: not all devices can be seen.".into());
        lines.push("DeviceAllow=/dev/sysgenid rw".into());
        lines.push("BindReadOnlyPaths=-/dev/sysgenid".into());
    }
    Ok(lines.join("\n") + "\n")
}

/// A signal that `sysgenctl exec` passes on, for its command line.
fn name_of(signal: i32) -> Result<&'static str, String> {
    let name = signal_name(signal).filter(|_| PASSED_ON.contains(&signal));
    let name = name.and_then(|name| name.strip_prefix("SIG"));
    name.ok_or_else(|| format!("it is told things by signal {signal}, which is not passed on"))
}

fn is_plain(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    path.chars().all(is_plain)
}

/// What is before the path of the program (systemd.service(5)), and the rest.
fn without_prefix(command: &str) -> Result<(&str, &str), String> {
    let rest = command.trim_start_matches(['-', ':', '+', '!', '@', '|']);
    let prefix = &command[..command.len() - rest.len()];
    if prefix.contains(['@', '|']) {
        return Err(format!(
            "its command line begins with “{prefix}”, which would not be true of sysgenctl exec"
        ));
    }
    let program = rest.split_whitespace().next().unwrap_or_default();
    // There, systemd takes these as they stand, and elsewhere it does not.
    if program.is_empty() || program.contains(['$', '"', '\'', '\\']) {
        return Err("the path of its program is no plain one".into());
    }
    Ok((prefix, rest))
}

/// The one command line that the files set, of which later ones come later.
///
/// # Errors
///
/// There is none, or more than one.
pub fn command_line(files: &[String]) -> Result<String, String> {
    let mut found = Vec::new();
    for file in files {
        for (section, line) in logical_lines(file) {
            let set = line
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()));
            match set {
                Some(("ExecStart", "")) if section == "Service" => found.clear(),
                Some(("ExecStart", value)) if section == "Service" => found.push(value.to_owned()),
                _ => {}
            }
        }
    }
    match <[String; 1]>::try_from(found) {
        Ok([command]) => Ok(command),
        Err(found) => Err(format!("it has {} command lines (ExecStart=)", found.len())),
    }
}

/// The lines of a file (systemd.syntax(7)), each with its section.
fn logical_lines(file: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    let mut begun = String::new();
    for line in file.lines() {
        let line = line.trim();
        // Also in the middle of one that goes on.
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            begun.push_str(part);
            begun.push(' ');
            continue;
        }
        begun.push_str(line);
        let whole = std::mem::take(&mut begun);
        let name = whole
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        match name {
            Some(name) => name.clone_into(&mut section),
            None if whole.is_empty() => {}
            None => found.push((section.clone(), whole)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/usr/bin/sysgenctl";

    fn made(said: &str, command: &str, how: How) -> Result<Vec<String>, String> {
        let made = drop_in(&Properties::of(said), command, how, Path::new(OWN))?;
        let is_said = |line: &&str| !line.starts_with('#');
        Ok(made.lines().filter(is_said).map(str::to_owned).collect())
    }

    #[test]
    fn the_command_line_is_taken_over_as_it_stands() {
        let said = "Type=simple\nKillMode=process\nKillSignal=15\n";
        let command = "-!/usr/sbin/x -a \"b c\" ${D} %i \\x20";
        let expected = [
            "[Service]",
            "ExecStart=",
            "ExecStart=-!/usr/bin/sysgenctl exec -- /usr/sbin/x -a \"b c\" ${D} %i \\x20",
        ];
        assert_eq!(
            made(said, command, How::Restart).expect("it can be"),
            expected
        );
        let whole = drop_in(&Properties::of(said), command, How::Restart, Path::new(OWN));
        let whole = whole.expect("it can be");
        assert!(whole.starts_with(MARK));
        assert!(
            whole.contains(&format!("\n#ExecStart={command}\n")),
            "{whole}"
        );
    }

    #[test]
    fn what_the_unit_says_of_signals_times_and_devices_stays_true() {
        let said = "Type=notify-reload\nKillMode=control-group\nKillSignal=3\nReloadSignal=10\n\
                    TimeoutStartUSec=infinity\nTimeoutStopUSec=1min 30s\nPrivateDevices=yes\n";
        let made = made(said, "/x", How::Reload).expect("it can be");
        assert_eq!(
            made[2],
            "ExecStart=/usr/bin/sysgenctl exec --notify --signal USR1 --stop-signal QUIT \
             --start-timeout 31536000000ms --stop-timeout 90000ms -- /x"
        );
        assert_eq!(
            made[3..],
            [
                "KillMode=mixed",
                "DeviceAllow=/dev/sysgenid rw",
                "BindReadOnlyPaths=-/dev/sysgenid"
            ]
        );
    }

    #[test]
    fn what_would_not_work_is_refused() {
        for (said, command, how, why) in [
            ("Type=forking", "/x", How::Restart, "type forking"),
            ("Type=oneshot", "/x", How::Restart, "type oneshot"),
            ("Type=notify", "/x", How::Reload, "notify-reload"),
            (
                "Type=simple\nRootDirectory=/r",
                "/x",
                How::Restart,
                "another root",
            ),
            (
                "Type=simple\nKillSignal=37",
                "/x",
                How::Restart,
                "signal 37",
            ),
            ("Type=simple", "@/x y", How::Restart, "begins with “@”"),
            ("Type=simple", "\"/a b\"", How::Restart, "no plain one"),
            ("Type=simple", "/$X", How::Restart, "no plain one"),
        ] {
            let refusal = made(said, command, how).expect_err("it is refused");
            assert!(refusal.contains(why), "{refusal}");
        }
        let said = Properties::of("Type=simple");
        assert!(drop_in(&said, "/x", How::Restart, Path::new("/a b")).is_err());
    }

    #[test]
    fn command_lines_are_found_as_systemd_finds_them() {
        let unit = "[Unit]\nExecStart=no\n[Service]\nExecStartPre=/no\n ExecStart = /a \\\n\
                    # no\n  -b \\\n;no\n c\n[Install]\nExecStart=no\n";
        let found = |files: &[&str]| {
            let files: Vec<_> = files.iter().map(|file| (*file).to_owned()).collect();
            command_line(&files)
        };
        assert_eq!(found(&[unit]).expect("there is one"), "/a  -b  c");
        let other = "[Service]\nExecStart=\nExecStart=/d\n";
        assert_eq!(found(&[unit, other]).expect("there is one"), "/d");
        assert!(
            found(&[other, unit])
                .expect_err("two")
                .contains("2 command lines")
        );
        assert!(found(&[]).expect_err("none").contains("0 command lines"));
    }
}
