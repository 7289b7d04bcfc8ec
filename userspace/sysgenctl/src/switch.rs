// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl openssl`

use std::ffi::OsString;
use std::fmt;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::added;
use crate::added::Refusal;
use crate::cli::Action;
use crate::cli::OpensslArguments;
use crate::exit::Failure;
use crate::openssl::Installed;
use crate::openssl::State;
use crate::output::Output;
use crate::output::plain;
use crate::replace::Original;

/// Behind the name of the file as it was.
const BACKUP: &str = ".before-sysgenid";

/// What has become of the file.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    /// The file that symbolic links lead to.
    file: PathBuf,
    /// The lines of sysgenctl are in it.
    enabled: bool,
    /// This command has put them there, or taken them out.
    changed: bool,
    /// What becomes of the provider by that file.
    provider: Provider,
    /// The file as it was.
    backup: Option<PathBuf>,
    /// What people should know besides.
    notes: Vec<String>,
}

/// [`State`], in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    On,
    /// It is on, and has no device.
    Blind,
    /// It is loaded, and is not what all draw from.
    Unused,
    Off,
    Unknown,
}

impl From<&State> for Provider {
    fn from(state: &State) -> Self {
        match state {
            State::On(_) => Self::On,
            State::Blind(_) => Self::Blind,
            State::Unused(..) => Self::Unused,
            State::Off => Self::Off,
            State::Broken(_) => Self::Unknown,
        }
    }
}

impl Provider {
    fn under(file: &Path) -> Self {
        Self::from(&State::under(Some(file.as_os_str())))
    }

    fn is_on(self) -> bool {
        matches!(self, Self::On | Self::Blind)
    }
}

/// Does what is asked for, and says what became of it.
pub fn run(arguments: &OpensslArguments, output: Output) -> Result<(), Failure> {
    let file = match &arguments.config {
        Some(file) => file.clone(),
        None => configuration()?,
    };
    output.show(&match arguments.action {
        Action::Status => status(&file)?,
        Action::Enable => enable(&file)?,
        Action::Disable => disable(&file)?,
    })
}

/// The system's own one.
fn configuration() -> Result<PathBuf, Failure> {
    match Installed::find() {
        Installed::Fit(place) => Ok(place.configuration),
        Installed::NoProgram => Err(Failure::Refused(
            "there is no program openssl to ask where its configuration is: install it".into(),
        )),
        Installed::Unfit(what) => Err(Failure::Refused(format!(
            "this OpenSSL has no providers ({}): it takes OpenSSL 3",
            plain(&what)
        ))),
    }
}

fn status(file: &Path) -> Result<Report, Failure> {
    let original = Original::open(file)?;
    let is_enabled = without(&original)?.is_some();
    Ok(Report::new(&original, is_enabled, Provider::under(file)))
}

fn enable(file: &Path) -> Result<Report, Failure> {
    let original = Original::lock(file)?;
    let provider = Provider::under(file);
    let is_enabled = without(&original)?.is_some();
    if is_enabled && !provider.is_on() {
        return Err(Failure::Refused(format!(
            "{} has the lines already, and the provider is off nevertheless: look with sysgenctl \
             doctor, or take them out first (sysgenctl openssl disable)",
            original.path().display()
        )));
    }
    if is_enabled || provider.is_on() {
        return Ok(Report::new(&original, is_enabled, provider));
    }
    let added = added::with(original.text(), original.path());
    let added = added.map_err(|why| refusal(&original, &why))?;
    let candidate = original.candidate(&added.text)?;
    // It is tried before anybody else can read it.
    let state = State::under(Some(candidate.path().as_os_str()));
    let provider = Provider::from(&state);
    if !provider.is_on() {
        return Err(Failure::Refused(format!(
            "{} is left as it is: with the lines in it, {}",
            original.path().display(),
            why_not(&state)
        )));
    }
    original.keep(&backup(&original))?;
    original.replace(candidate)?;
    Ok(Report {
        changed: true,
        notes: added.notes,
        ..Report::new(&original, true, provider)
    })
}

fn disable(file: &Path) -> Result<Report, Failure> {
    let original = Original::lock(file)?;
    let Some(rest) = without(&original)? else {
        let provider = Provider::under(file);
        if provider.is_on() {
            return Err(Failure::Refused(format!(
                "{} has the provider on by lines that sysgenctl did not put there (such as the section \
                 [sysgenid_sect]): take them out by hand",
                original.path().display()
            )));
        }
        return Ok(Report::new(&original, false, provider));
    };
    original.replace(original.candidate(&rest)?)?;
    // If nobody has edited anything since, it is of no use any more.
    let backup = backup(&original);
    if fs::read(&backup).is_ok_and(|before| before == rest) {
        original.remove(&backup)?;
    }
    Ok(Report {
        changed: true,
        ..Report::new(&original, false, Provider::under(file))
    })
}

/// The file without the lines, if it has them.
fn without(original: &Original) -> Result<Option<Vec<u8>>, Failure> {
    added::without(original.text()).map_err(|why| refusal(original, &why))
}

fn refusal(original: &Original, why: &Refusal) -> Failure {
    let why = plain(&why.to_string());
    Failure::Refused(format!(
        "{} is left as it is: {why}",
        original.path().display()
    ))
}

fn why_not(state: &State) -> String {
    match state {
        State::Broken(said) => format!("OpenSSL fails ({})", plain(said)),
        State::Unused(ours, all) => format!("only {ours} of {all} generators were the provider's"),
        _ => "OpenSSL does not load the provider; if it is installed, this says why: openssl list \
              -providers -provider sysgenid"
            .into(),
    }
}

fn backup(original: &Original) -> PathBuf {
    let mut name = OsString::from(original.path());
    name.push(BACKUP);
    name.into()
}

impl Report {
    fn new(original: &Original, enabled: bool, provider: Provider) -> Self {
        Self {
            file: original.path().to_owned(),
            enabled,
            changed: false,
            provider,
            backup: Some(backup(original)).filter(|path| path.exists()),
            notes: Vec::new(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let how = match (self.enabled, self.changed) {
            (true, true) => "now, by the lines that were added",
            (true, false) => "by the lines of sysgenctl",
            (false, true) => "now, the lines were taken out",
            (false, false) if self.provider.is_on() => "by lines that sysgenctl did not put there",
            (false, false) => "without lines of sysgenctl",
        };
        let state = match self.provider {
            Provider::On => "on",
            Provider::Blind => "on, but looks at nothing,",
            Provider::Unused => "loaded, but not what programs draw from,",
            Provider::Off => "off",
            Provider::Unknown => "not known to be on,",
        };
        writeln!(f, "the provider is {state} in {file} {how}")?;
        if let Some(backup) = &self.backup {
            writeln!(f, "the file as it was: {}", backup.display())?;
        }
        for note in &self.notes {
            writeln!(f, "{}", plain(note))?;
        }
        if self.changed {
            writeln!(f, "programs that are running must be started again")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(enabled: bool, changed: bool, provider: Provider) -> Report {
        Report {
            file: "/etc/ssl/openssl.cnf".into(),
            enabled,
            changed,
            provider,
            backup: enabled.then(|| "/etc/ssl/openssl.cnf.before-sysgenid".into()),
            notes: Vec::new(),
        }
    }

    #[test]
    fn people_see_what_became_of_it() {
        let first = |enabled, changed, provider| {
            let text = report(enabled, changed, provider).to_string();
            text.lines().next().unwrap_or_default().to_owned()
        };
        let file = "/etc/ssl/openssl.cnf";
        assert_eq!(
            first(true, false, Provider::On),
            format!("the provider is on in {file} by the lines of sysgenctl")
        );
        assert_eq!(
            first(false, false, Provider::On),
            format!("the provider is on in {file} by lines that sysgenctl did not put there")
        );
        assert_eq!(
            first(false, false, Provider::Off),
            format!("the provider is off in {file} without lines of sysgenctl")
        );
        assert_eq!(
            report(true, true, Provider::Blind).to_string(),
            format!(
                "the provider is on, but looks at nothing, in {file} now, by the lines that were \
                 added\nthe file as it was: {file}.before-sysgenid\nprograms that are running must \
                 be started again\n"
            )
        );
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = serde_json::to_value(report(true, false, Provider::On)).expect("plain data");
        let expected = serde_json::json!({
            "file": "/etc/ssl/openssl.cnf",
            "enabled": true,
            "changed": false,
            "provider": "on",
            "backup": "/etc/ssl/openssl.cnf.before-sysgenid",
            "notes": [],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_file_that_is_not_there_is_left_so() {
        let failure = enable(Path::new("/no/such/file")).expect_err("it is not there");
        assert!(
            failure.to_string().contains("cannot find /no/such/file"),
            "{failure}"
        );
    }
}
