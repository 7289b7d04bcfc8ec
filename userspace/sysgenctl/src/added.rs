// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lines that switch the provider on in a configuration of OpenSSL: which these are, and how they
//! are put there and taken out again. The rest of the file stays as it is, byte for byte.

use std::fmt::Write;
use std::path::Path;

use crate::configuration::Configuration;
use crate::configuration::DEFAULT;
use crate::configuration::Includes;
use crate::configuration::Strange;
use crate::configuration::Value;
use crate::openssl::PROVIDER;

/// What the lines lie between.
const BEGIN: &str = "# sysgenctl openssl: begin";
const END: &str = "# sysgenctl openssl: end";
/// Behind the first one, where a newline was added as well.
const NEWLINE: &str = ", in a file that did not end in a newline";

/// The sections that are ours.
const INIT: &str = "sysgenid_init";
const PROVIDERS: &str = "sysgenid_providers";
const DEFAULT_PROVIDER: &str = "sysgenid_default";
const OURS: &str = "sysgenid_sect";
const RANDOM: &str = "sysgenid_random";
const NODE: &str = "sysgenid_nodejs";
const NODE_PROVIDERS: &str = "sysgenid_nodejs_providers";

/// What Node.js reads in the place of `openssl_conf`.
const NODE_KEY: &str = "nodejs_conf";

/// Why a file is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not understood.
    #[error("{0}; mend that, or switch the provider on by hand")]
    Strange(Strange),
    /// Somebody has had another idea. The text says which, and what to do.
    #[error("{0}")]
    Taken(String),
}

impl From<Strange> for Refusal {
    fn from(strange: Strange) -> Self {
        Self::Strange(strange)
    }
}

/// A file with the lines in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    pub text: Vec<u8>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// The file without the lines, if it has them.
pub fn without(text: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let starts = |marker: &str| -> Vec<usize> {
        let at_line = |at: &usize| *at == 0 || text[at - 1] == b'\n';
        let found = memchr::memmem::find_iter(text, marker.as_bytes());
        found.filter(at_line).collect()
    };
    let (begin, end) = match (&starts(BEGIN)[..], &starts(END)[..]) {
        ([], []) => return Ok(None),
        (&[begin], &[end]) if begin < end => (begin, end),
        _ => {
            return Err(Refusal::Taken(format!(
                "it has the lines “{BEGIN}” and “{END}” not once each: remove by hand what \
                 lies between them"
            )));
        }
    };
    let head = &text[begin + BEGIN.len()..end];
    let after = text[end..].iter().position(|byte| *byte == b'\n');
    let rest = after.map_or(&[][..], |newline| &text[end + newline + 1..]);
    let newline = usize::from(head.starts_with(NEWLINE.as_bytes()));
    let Some(before) = begin.checked_sub(newline) else {
        return Err(Refusal::Taken(format!(
            "the line “{BEGIN}” is not as it was"
        )));
    };
    Ok(Some([&text[..before], rest].concat()))
}

/// The file with the lines at its end, which were not in it.
pub fn with(text: &[u8], file: &Path) -> Result<Added, Refusal> {
    let found = Configuration::parse(text, file, Includes::Read)?;
    let mut notes = Vec::new();
    let lines = lines(&found, &mut notes)?;
    let is_whole = text.is_empty() || text.ends_with(b"\n");
    let (newline, behind) = if is_whole { ("", "") } else { ("\n", NEWLINE) };
    let added = format!("{newline}{BEGIN}{behind}\n{lines}{END}\n");
    Ok(Added {
        text: [text, added.as_bytes()].concat(),
        notes,
    })
}

fn lines(found: &Configuration, notes: &mut Vec<String>) -> Result<String, Refusal> {
    if let Some(name) = found.names().find(|name| name.starts_with("sysgenid_")) {
        return Err(Refusal::Taken(format!(
            "it has a section “{name}” already, as from lines that were put there by hand: remove \
             all of those first"
        )));
    }
    let mut sections = Sections::default();
    let init = if let Some(value) = found.value(DEFAULT, "openssl_conf") {
        there(found, value)?
    } else {
        sections.set(DEFAULT, "openssl_conf", INIT);
        INIT
    };
    if let Some(random) = module(found, init, "random")? {
        return Err(Refusal::Taken(format!(
            "{}: “random = {}”: somebody has chosen OpenSSL's generators already; to have the \
             provider's, take that line out, or add the provider and “properties = \
             ?provider={PROVIDER}” there by hand, as in sysgenid.cnf",
            random.location(),
            random.text,
        )));
    }
    let providers = if let Some(value) = module(found, init, "providers")? {
        there(found, value)?
    } else {
        sections.set(init, "providers", PROVIDERS);
        PROVIDERS
    };
    sections.set(init, "random", RANDOM);
    let default = match Active::among(found, providers)? {
        Active {
            ours: Some(ours), ..
        } => {
            return Err(Refusal::Taken(format!(
                "{}: the provider is named already, and not chosen: take that line out first",
                ours.location()
            )));
        }
        Active {
            all: 0,
            default: Some(default),
            ..
        } => {
            let name = there(found, default)?;
            if let Some(no) = found.value(name, "activate") {
                return Err(Refusal::Taken(format!(
                    "{}: the default provider is switched off; OpenSSL's generators are its, and \
                     so is what this provider puts in their place",
                    no.location()
                )));
            }
            sections.set(name, "activate", "1");
            name
        }
        Active {
            all: 0,
            default: None,
            ..
        } => {
            sections.set(providers, "default", DEFAULT_PROVIDER);
            sections.set(DEFAULT_PROVIDER, "activate", "1");
            DEFAULT_PROVIDER
        }
        Active {
            default: Some(default),
            is_default: true,
            ..
        } => there(found, default)?,
        Active { .. } => {
            return Err(Refusal::Taken(format!(
                "the section [{providers}] activates other providers and not the default one (as for \
                 FIPS), whose generators this provider puts in clones' service: activate that one, too"
            )));
        }
    };
    sections.set(providers, PROVIDER, OURS);
    sections.set(OURS, "activate", "1");
    sections.set(OURS, "soft_load", "1");
    sections.comment(OURS, "hasten = 1");
    sections.set(RANDOM, "properties", &format!("?provider={PROVIDER}"));
    match found.value(DEFAULT, NODE_KEY) {
        None => {
            sections.set(DEFAULT, NODE_KEY, NODE);
            sections.set(NODE, "providers", NODE_PROVIDERS);
            sections.set(NODE, "random", RANDOM);
            sections.set(NODE_PROVIDERS, "default", default);
            sections.set(NODE_PROVIDERS, PROVIDER, OURS);
        }
        Some(node) if node.text == init => {}
        Some(node) => notes.push(format!(
            "{}: “{NODE_KEY} = {}” is left as it is, so that Node.js does not have the provider",
            node.location(),
            node.text
        )),
    }
    Ok(sections.text(found.last()))
}

/// The section that a value names, which has to be there.
fn there<'a>(found: &Configuration, value: &'a Value) -> Result<&'a str, Refusal> {
    let name = value.name()?;
    if found.has(name) {
        return Ok(name);
    }
    Err(Refusal::Taken(format!(
        "{}: “{} = {name}”, and there is no section [{name}]: mend that first",
        value.location(),
        value.key
    )))
}

/// What a module of OpenSSL's is set to, of whose name only what is before the last dot counts.
fn module<'a>(
    found: &'a Configuration,
    section: &str,
    name: &str,
) -> Result<Option<&'a Value>, Refusal> {
    let is_it = |value: &&Value| {
        let key = &value.key;
        key.rsplit_once('.')
            .map_or(key.as_str(), |(before, _)| before)
            == name
    };
    let mut all = found.values(section).into_iter().filter(is_it);
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(second) => Err(Refusal::Taken(format!(
            "{}: “{}” is there twice: mend that first",
            second.location(),
            second.key
        ))),
    }
}

/// The providers of a section.
#[derive(Default)]
struct Active<'a> {
    /// How many are activated.
    all: usize,
    /// The default one, if it is named, and whether it is activated.
    default: Option<&'a Value>,
    is_default: bool,
    /// This one, if it is named.
    ours: Option<&'a Value>,
}

impl<'a> Active<'a> {
    fn among(found: &'a Configuration, section: &str) -> Result<Self, Refusal> {
        let mut active = Self::default();
        for value in found.values(section) {
            let own = there(found, value)?;
            // What is before the first dot tells lines apart.
            let key = value
                .key
                .split_once('.')
                .map_or(&*value.key, |(_, key)| key);
            let name = match found.value(own, "identity") {
                Some(identity) => identity.name()?,
                None => key,
            };
            let is_active = match found.value(own, "activate") {
                Some(activate) => activate.truth()?,
                None => false,
            };
            active.all += usize::from(is_active);
            if name == "default" {
                active.default = Some(value);
                active.is_default = is_active;
            } else if name == PROVIDER {
                active.ours = Some(value);
            }
        }
        Ok(active)
    }
}

/// Sections in the order in which they came up, and their lines.
#[derive(Default)]
struct Sections(Vec<(String, Vec<String>)>);

impl Sections {
    fn set(&mut self, section: &str, key: &str, value: &str) {
        self.line(section, format!("{key} = {value}"));
    }

    fn comment(&mut self, section: &str, what: &str) {
        self.line(section, format!("#{what}"));
    }

    fn line(&mut self, section: &str, line: String) {
        match self.0.iter_mut().find(|(name, _)| name == section) {
            Some((_, lines)) => lines.push(line),
            None => self.0.push((section.into(), vec![line])),
        }
    }

    /// All of them; what comes after is in that section again.
    fn text(&self, last: &str) -> String {
        let mut text = String::from(
            "# These lines make random numbers heed clones of this machine. They were added by \
             “sysgenctl\n# openssl enable”, and “sysgenctl openssl disable” takes them out.\n",
        );
        for (section, lines) in &self.0 {
            let _ = writeln!(text, "[ {section} ]");
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
        let _ = writeln!(
            text,
            "# What follows belongs where it would without these lines."
        );
        let _ = writeln!(text, "[ {last} ]");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
HOME = .
openssl_conf = openssl_init

[openssl_init]
providers = provider_sect

[provider_sect]
default = default_sect
[default_sect]
# activate = 1
[ req ]
string_mask = utf8only
";

    fn with_text(text: &str) -> Result<Added, Refusal> {
        with(text.as_bytes(), Path::new("/x.cnf"))
    }

    fn added(text: &str) -> String {
        let added = with_text(text).expect("it is understood").text;
        let all = String::from_utf8(added).expect("it is text");
        let own = all.strip_prefix(text).expect("the file is left as it is");
        own.to_owned()
    }

    fn refused(text: &str) -> String {
        with_text(text).expect_err("it is refused").to_string()
    }

    /// What the file says with the lines in it.
    fn says(text: &str, section: &str, key: &str) -> Option<String> {
        let all = with_text(text).expect("it is understood").text;
        let found = Configuration::parse(&all, Path::new("/x.cnf"), Includes::Read);
        let found = found.expect("it is understood");
        found.value(section, key).map(|value| value.text.clone())
    }

    #[test]
    fn the_lines_are_those_for_the_systems_own_file() {
        let expected = "\
# sysgenctl openssl: begin
# These lines make random numbers heed clones of this machine. They were added by “sysgenctl
# openssl enable”, and “sysgenctl openssl disable” takes them out.
[ openssl_init ]
random = sysgenid_random
[ default_sect ]
activate = 1
[ provider_sect ]
sysgenid = sysgenid_sect
[ sysgenid_sect ]
activate = 1
soft_load = 1
#hasten = 1
[ sysgenid_random ]
properties = ?provider=sysgenid
[ default ]
nodejs_conf = sysgenid_nodejs
[ sysgenid_nodejs ]
providers = sysgenid_nodejs_providers
random = sysgenid_random
[ sysgenid_nodejs_providers ]
default = default_sect
sysgenid = sysgenid_sect
# What follows belongs where it would without these lines.
[ req ]
# sysgenctl openssl: end
";
        assert_eq!(added(DEBIAN), expected);
    }

    #[test]
    fn what_is_missing_is_made() {
        for text in ["", "[ a ]\nb = c\n"] {
            let says = |section, key| says(text, section, key).expect("it is said");
            assert_eq!(says(DEFAULT, "openssl_conf"), INIT);
            assert_eq!(says(INIT, "providers"), PROVIDERS);
            assert_eq!(says(PROVIDERS, "default"), DEFAULT_PROVIDER);
            assert_eq!(says(DEFAULT_PROVIDER, "activate"), "1");
            assert_eq!(says(PROVIDERS, PROVIDER), OURS);
        }
        let no_providers = "openssl_conf = i\n[ i ]\nssl_conf = s\n[ s ]\n";
        assert_eq!(
            says(no_providers, "i", "providers").as_deref(),
            Some(PROVIDERS)
        );
    }

    #[test]
    fn providers_stay_what_they_are() {
        let both = "openssl_conf = i\n[ i ]\nproviders = p\n[ p ]\n1.default = d\nlegacy = l\n\
                    [ d ]\nactivate = yes\n[ l ]\nactivate = 1\n";
        let lines = added(both);
        assert_eq!(lines.matches("activate").count(), 1, "{lines}");
        assert!(lines.contains("default = d\n"), "{lines}");
        let fips = "openssl_conf = i\n[ i ]\nproviders = p\n[ p ]\nfips = f\n[ f ]\nactivate = 1\n";
        assert!(refused(fips).contains("(as for FIPS)"));
        let named = fips.replace("fips = f\n", "fips = f\ndefault = d\n[ d ]\n");
        assert!(refused(&named).contains("(as for FIPS)"));
        let off =
            "openssl_conf = i\n[ i ]\nproviders = p\n[ p ]\ndefault = d\n[ d ]\nactivate = 0\n";
        assert!(refused(off).contains("/x.cnf, line 7: the default provider is switched off"));
        let other = "openssl_conf = i\n[ i ]\nproviders = p\n[ p ]\nx = d\n[ d ]\nidentity = default\n\
                     activate = 1\n";
        assert!(added(other).contains("[ sysgenid_nodejs_providers ]\ndefault = d\n"));
    }

    #[test]
    fn what_others_chose_is_refused() {
        let random = DEBIAN.replace(
            "[provider_sect]",
            "random = mine\n[ mine ]\nrandom = HASH-DRBG\n[provider_sect]",
        );
        assert!(refused(&random).starts_with("/x.cnf, line 7: “random = mine”: somebody"));
        let dotted = random.replace("random = mine", "random.1 = mine");
        assert!(refused(&dotted).contains("somebody has chosen"));
        let twice = DEBIAN.replace(
            "[provider_sect]",
            "providers.2 = provider_sect\n[provider_sect]",
        );
        assert!(refused(&twice).contains("is there twice"));
        let by_hand = format!("{DEBIAN}[ sysgenid_sect ]\n");
        assert!(refused(&by_hand).contains("a section “sysgenid_sect” already"));
        let named = DEBIAN.replace("default = ", "sysgenid = default_sect\ndefault = ");
        assert!(refused(&named).contains("line 8: the provider is named already"));
        assert!(refused("openssl_conf = x\n").contains("there is no section [x]"));
        assert!(refused("openssl_conf = $x\n").contains("no plain name"));
        assert!(refused("what\n").ends_with("by hand"));
    }

    #[test]
    fn node_has_a_section_of_its_own() {
        assert_eq!(says(DEBIAN, DEFAULT, NODE_KEY).as_deref(), Some(NODE));
        let other = format!("{NODE_KEY} = mine\n{DEBIAN}");
        assert_eq!(says(&other, DEFAULT, NODE_KEY).as_deref(), Some("mine"));
        let notes = with_text(&other).expect("it is understood").notes;
        assert!(
            notes[0].starts_with("/x.cnf, line 1: “nodejs_conf = mine”"),
            "{notes:?}"
        );
        let same = format!("{NODE_KEY} = openssl_init\n{DEBIAN}");
        assert_eq!(with_text(&same).expect("it is understood").notes, [""; 0]);
    }

    #[test]
    fn taken_out_they_leave_the_very_bytes() {
        for text in [
            DEBIAN,
            "",
            "\n",
            "[ a ]",
            "a = b",
            "a = \u{e9}\r\n",
            "# no newline",
        ] {
            let all = with_text(text).expect("it is understood").text;
            assert_eq!(
                without(&all),
                Ok(Some(text.as_bytes().to_vec())),
                "{text:?}"
            );
            // What comes behind them stays, and means the same.
            let more = [&all[..], b"c = d\n"].concat();
            let rest = without(&more)
                .expect("it is understood")
                .expect("they are there");
            assert!(rest.ends_with(b"c = d\n") && rest.starts_with(text.as_bytes()));
        }
        assert_eq!(without(b"[ a ]\n# sysgenctl\n"), Ok(None));
        // In the middle of a line, the marker is none.
        assert_eq!(without(b"a = b # sysgenctl openssl: begin\n"), Ok(None));
    }

    #[test]
    fn half_of_them_are_refused() {
        let all = with_text(DEBIAN).expect("it is understood").text;
        let all = String::from_utf8(all).expect("it is text");
        let once = all.replace("# sysgenctl openssl: end\n", "");
        for text in [once, [&*all, &*all].concat()] {
            let refusal = without(text.as_bytes()).expect_err("it is refused");
            assert!(refusal.to_string().contains("not once each"), "{refusal}");
        }
    }
}
