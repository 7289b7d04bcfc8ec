// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a configuration of OpenSSL says, by config(5): as far as it can be read without running it.
//!
//! Whatever is not understood is an error: nobody is to change what he cannot read.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The section that a file begins in.
pub const DEFAULT: &str = "default";
/// How deep files may include others. OpenSSL itself has no limit but the memory.
const DEEPEST: usize = 8;
/// Directives that change nothing of what is read here.
const HARMLESS: [&str; 2] = ["dollarid", "abspath"];

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    file: PathBuf,
    line: usize,
}

/// What a key is set to, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub key: String,
    pub text: String,
    location: Location,
}

/// Something that was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Strange {
    location: Location,
    what: String,
}

/// What becomes of files that a file includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Includes {
    Read,
    PassOver,
}

/// All sections.
#[derive(Debug, Default)]
pub struct Configuration {
    sections: BTreeMap<String, Vec<Value>>,
    /// The section in which it ends.
    last: String,
    /// Files that it includes are not read.
    passes_over: bool,
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

impl Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.what)
    }
}

impl Location {
    fn strange(&self, what: impl Into<String>) -> Strange {
        Strange {
            location: self.clone(),
            what: what.into(),
        }
    }
}

impl Value {
    /// Where it is set.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The name of a section that this is.
    pub fn name(&self) -> Result<&str, Strange> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if !self.text.is_empty() && self.text.chars().all(is_plain) {
            return Ok(&self.text);
        }
        Err(self.location.strange(format!(
            "“{} = {}”: that is no plain name of a section",
            self.key, self.text
        )))
    }

    /// Whether it says yes.
    pub fn truth(&self) -> Result<bool, Strange> {
        match self.text.to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" | "on" => Ok(true),
            "0" | "no" | "false" | "off" => Ok(false),
            _ => Err(self.location.strange(format!(
                "“{} = {}”: that is neither yes nor no",
                self.key, self.text
            ))),
        }
    }
}

impl Configuration {
    /// Reads the text of a file.
    pub fn parse(text: &[u8], file: &Path, includes: Includes) -> Result<Self, Strange> {
        let mut found = Self {
            last: DEFAULT.into(),
            passes_over: includes == Includes::PassOver,
            ..Self::default()
        };
        found.add(text, file, 0)?;
        Ok(found)
    }

    /// The section in which it ends.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Whether there is such a section.
    pub fn has(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    /// The names of all sections.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// All that is in a section. Of a key that is there twice, the last one counts.
    pub fn values(&self, section: &str) -> Vec<&Value> {
        let all = self.sections.get(section).map_or(&[][..], Vec::as_slice);
        let counts = |(number, value): &(usize, &Value)| {
            all[number + 1..].iter().all(|later| later.key != value.key)
        };
        let counting = all.iter().enumerate().filter(counts);
        counting.map(|(_, value)| value).collect()
    }

    /// What a key of a section is set to.
    pub fn value(&self, section: &str, key: &str) -> Option<&Value> {
        let all = self.sections.get(section)?;
        all.iter().rfind(|value| value.key == key)
    }

    fn add(&mut self, text: &[u8], file: &Path, depth: usize) -> Result<(), Strange> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = String::from_utf8_lossy(text);
        let mut lines = text.split('\n').enumerate();
        while let Some((number, line)) = lines.next() {
            let location = Location {
                file: file.to_owned(),
                line: number + 1,
            };
            let mut whole = line.trim_end_matches('\r').to_owned();
            while ends_in_backslash(&whole) {
                whole.pop();
                let Some((_, next)) = lines.next() else {
                    return Err(location.strange("the last line goes on, and there is none"));
                };
                whole.push_str(next.trim_end_matches('\r'));
            }
            self.line(without_comment(&whole).trim(), &location, depth)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, location: &Location, depth: usize) -> Result<(), Strange> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix('[') {
            let Some((name, _)) = rest.split_once(']') else {
                return Err(location.strange("the name of a section does not end"));
            };
            name.trim().clone_into(&mut self.last);
            self.sections.entry(self.last.clone()).or_default();
            return Ok(());
        }
        for (directive, is_include) in [(".include", true), (".pragma", false)] {
            if let Some(rest) = line.strip_prefix(directive) {
                if rest.starts_with([' ', '\t', '=']) {
                    let rest = rest.trim_start();
                    let argument = rest.strip_prefix('=').unwrap_or(rest).trim();
                    return if is_include {
                        self.include(argument, location, depth)
                    } else {
                        pragma(argument, location)
                    };
                }
            }
        }
        let Some((key, text)) = line.split_once('=') else {
            return Err(location.strange(format!("“{line}” sets nothing")));
        };
        let key = key.trim();
        let (section, key) = key.split_once("::").unwrap_or((&self.last, key));
        let value = Value {
            key: key.into(),
            text: text.trim().into(),
            location: location.clone(),
        };
        let section = self.sections.entry(section.into()).or_default();
        section.push(value);
        Ok(())
    }

    /// Reads a file that is included, or all of a directory.
    fn include(&mut self, path: &str, location: &Location, depth: usize) -> Result<(), Strange> {
        if self.passes_over {
            return Ok(());
        }
        let strange = |why: &str| location.strange(format!("“.include {path}”: {why}"));
        if !path.starts_with('/') || path.contains(['$', '"', '\'', '\\', '`']) {
            return Err(strange("that is not the plain path of a file, from / on"));
        }
        if depth == DEEPEST {
            return Err(strange("too many files include each other"));
        }
        let path = Path::new(path);
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(|error| strange(&error.to_string()))?;
            files = entries.flatten().map(|entry| entry.path()).collect();
            let is_configuration = |path: &PathBuf| {
                let extension = path.extension().unwrap_or_default();
                extension == "cnf" || extension == "conf"
            };
            files.retain(is_configuration);
            files.sort();
        }
        for file in files {
            match fs::read(&file) {
                Ok(text) => self.add(&text, &file, depth + 1)?,
                // OpenSSL passes over it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(strange(&error.to_string())),
            }
        }
        Ok(())
    }
}

fn pragma(argument: &str, location: &Location) -> Result<(), Strange> {
    let name = argument.split([':', '=']).next().unwrap_or_default().trim();
    if HARMLESS.contains(&name) {
        return Ok(());
    }
    Err(location.strange(format!("“.pragma {argument}” is not understood")))
}

/// Whether the line goes on with the next one.
fn ends_in_backslash(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

/// The line up to its comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (None, '#') => return &line[..at],
            (None, '"' | '\'' | '`') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Configuration, Strange> {
        Configuration::parse(text.as_bytes(), Path::new("/x.cnf"), Includes::Read)
    }

    fn value(text: &str, section: &str, key: &str) -> Option<String> {
        let found = parse(text).expect("it is understood");
        found.value(section, key).map(|value| value.text.clone())
    }

    #[test]
    fn keys_are_in_sections() {
        let text = "\u{feff}a = 1 # one\n[ s ] # here\nb=2\n t::c = 3\n[default]\na = 4\n\n[s]\r\nd = x\r\n";
        assert_eq!(value(text, DEFAULT, "a").as_deref(), Some("4"));
        assert_eq!(value(text, "s", "b").as_deref(), Some("2"));
        assert_eq!(value(text, "t", "c").as_deref(), Some("3"));
        assert_eq!(value(text, "s", "d").as_deref(), Some("x"));
        assert_eq!(value(text, "s", "a"), None);
        let found = parse(text).expect("it is understood");
        assert_eq!(found.last(), "s");
        assert_eq!(found.values(DEFAULT).len(), 1);
        let line = &found.value("t", "c").expect("it is there").location;
        assert_eq!(line.to_string(), "/x.cnf, line 4");
    }

    #[test]
    fn lines_go_on_and_comments_end_them() {
        let text = "a = x\\\ny # z\nb = \"#\" # c\nc = \\# d\ne = \\\\\n";
        assert_eq!(value(text, DEFAULT, "a").as_deref(), Some("xy"));
        assert_eq!(value(text, DEFAULT, "b").as_deref(), Some("\"#\""));
        assert_eq!(value(text, DEFAULT, "c").as_deref(), Some("\\# d"));
        assert_eq!(value(text, DEFAULT, "e").as_deref(), Some("\\\\"));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, what) in [
            ("[ s\n", "does not end"),
            ("nothing\n", "“nothing” sets nothing"),
            ("a = b\\", "goes on"),
            (".include here.cnf\n", "plain path"),
            (".include $ENV::X\n", "plain path"),
            (".pragma includedir:/x\n", "“.pragma includedir:/x”"),
        ] {
            let strange = parse(text).expect_err("it is strange");
            assert!(strange.to_string().contains(what), "{strange}");
            assert!(
                strange.to_string().starts_with("/x.cnf, line 1: "),
                "{strange}"
            );
        }
        assert!(parse(".pragma = dollarid:on\n.includes = x\n").is_ok());
    }

    #[test]
    fn names_and_truths_are_plain() {
        let text = "a = $b\nc = \"d\"\ne = f_1\ng = On\nh = 0\ni = maybe\n";
        let found = parse(text).expect("it is understood");
        let value = |key| found.value(DEFAULT, key).expect("it is there");
        assert!(value("a").name().is_err());
        assert!(value("c").name().is_err());
        assert_eq!(value("e").name(), Ok("f_1"));
        assert_eq!(value("g").truth(), Ok(true));
        assert_eq!(value("h").truth(), Ok(false));
        assert!(value("i").truth().is_err());
    }

    #[test]
    fn files_are_included() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("it can be written");
            path
        };
        let one = write("one.conf", "[ s ]\na = 1\n");
        write("two.cnf", "b = 2\n");
        write("three.txt", "c = 3\n");
        let all = format!(".include {}\n", directory.path().display());
        assert_eq!(value(&all, "s", "a").as_deref(), Some("1"));
        assert_eq!(value(&all, "s", "b").as_deref(), Some("2"));
        assert_eq!(value(&all, "s", "c"), None);
        let found = parse(&format!(".include = {}\n", one.display())).expect("it is understood");
        let line = &found.value("s", "a").expect("it is there").location;
        assert_eq!(line.to_string(), format!("{}, line 2", one.display()));
        // One that is not there is none.
        assert!(parse(".include /no/such/file\n").is_ok());
        let itself = directory.path().join("itself.cnf");
        let text = format!(".include {}\n", itself.display());
        fs::write(&itself, &text).expect("it can be written");
        let strange = parse(&text).expect_err("it has no end");
        assert!(
            strange.to_string().contains("include each other"),
            "{strange}"
        );
    }
}
