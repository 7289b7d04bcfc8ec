// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which copies of OpenSSL's libcrypto a process has: the distribution's library, one that a package
//! brought along, or one that is part of a program or of another library.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use memchr::memmem::Finder;
use serde::Serialize;

use crate::process::Mapping;
use crate::process::Process;

/// Where distributions keep libraries; one directory more if it is called after the machine.
const DIRECTORIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];
const OF_A_MACHINE: &str = "-linux-";
/// How much of a file is searched at once.
const CHUNK: usize = 1 << 18;

/// A copy of libcrypto.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    pub path: PathBuf,
    pub kind: Kind,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is a library where the distribution has its own.
    System,
    /// It is a library elsewhere.
    Bundled,
    /// It is part of another file.
    Static,
}

/// Finds copies, and remembers in which files there are none.
pub struct Search {
    mark: Finder<'static>,
    seen: HashMap<String, bool>,
}

impl Search {
    pub fn new() -> Self {
        // The file of OpenSSL's source in which its generators are, from 1.1 on. It stands in errors,
        // and so in each build, unless that was told to leave names out. It must not stand in this one.
        let mark = ["crypto", "rand", "rand_lib.c"].join("/");
        Self {
            mark: Finder::new(&mark).into_owned(),
            seen: HashMap::new(),
        }
    }

    /// All that the process has, each once.
    pub fn copies(&mut self, process: &Process, mappings: &[Mapping]) -> Vec<Copy> {
        let mut copies: Vec<Copy> = Vec::new();
        for mapping in mappings {
            let kind = if is_libcrypto(mapping.file_name()) {
                kind_of(&mapping.path)
            } else if mapping.is_executable && self.has_mark(process, mapping) {
                Kind::Static
            } else {
                continue;
            };
            if copies.iter().all(|copy| copy.path != mapping.path) {
                copies.push(Copy {
                    path: mapping.path.clone(),
                    kind,
                });
            }
        }
        copies
    }

    /// A file that cannot be read has none, as far as can be seen.
    fn has_mark(&mut self, process: &Process, mapping: &Mapping) -> bool {
        if let Some(has) = self.seen.get(&mapping.identity) {
            return *has;
        }
        let found = process.open(mapping);
        let has = found
            .and_then(|file| has_mark(file, &self.mark))
            .unwrap_or(false);
        self.seen.insert(mapping.identity.clone(), has);
        has
    }
}

fn has_mark(mut file: File, mark: &Finder<'_>) -> io::Result<bool> {
    let overlap = mark.needle().len() - 1;
    let mut chunk = vec![0; CHUNK + overlap];
    // What is kept of the chunk before.
    let mut kept = 0;
    loop {
        let length = file.read(&mut chunk[kept..])?;
        if length == 0 {
            return Ok(false);
        }
        let end = kept + length;
        if mark.find(&chunk[..end]).is_some() {
            return Ok(true);
        }
        let start = end.saturating_sub(overlap);
        chunk.copy_within(start..end, 0);
        kept = end - start;
    }
}

/// `libcrypto.so.3`, and what wheels make of it, as `libcrypto-81d66ed9.so.3`.
fn is_libcrypto(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"libcrypto");
    rest.is_some_and(|rest| {
        let is_another = rest.first().is_some_and(u8::is_ascii_alphanumeric);
        !is_another && memchr::memmem::find(rest, b".so").is_some()
    })
}

fn kind_of(path: &Path) -> Kind {
    let directory = path.parent().unwrap_or(path);
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let of_all = match directory.parent() {
        Some(parent) if name.contains(OF_A_MACHINE) => parent,
        _ => directory,
    };
    if DIRECTORIES.iter().any(|known| of_all == Path::new(known)) {
        Kind::System
    } else {
        Kind::Bundled
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::io::Write;

    use super::*;

    #[test]
    fn libraries_are_known_by_their_names() {
        for name in [
            "libcrypto.so.3",
            "libcrypto.so.1.1",
            "libcrypto-81d66ed9.so.3",
            "libcrypto.so",
        ] {
            assert!(is_libcrypto(name.as_bytes()), "{name}");
        }
        for name in [
            "libcryptopp.so.8",
            "libcrypto++.a",
            "libssl.so.3",
            "libcrypto.txt",
        ] {
            assert!(!is_libcrypto(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_distributions_own_is_told_from_others() {
        for path in [
            "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
            "/lib/aarch64-linux-gnu/libcrypto.so.3",
            "/usr/lib64/libcrypto.so.3",
            "/usr/lib/libcrypto.so.3",
        ] {
            assert_eq!(kind_of(Path::new(path)), Kind::System, "{path}");
        }
        for path in [
            "/opt/venv/lib/python3.13/site-packages/psycopg_binary.libs/libcrypto-8.so.3",
            "/usr/local/lib/libcrypto.so.3",
            "/usr/lib/app/libcrypto.so.3",
            "/srv/x86_64-linux-gnu/libcrypto.so",
        ] {
            assert_eq!(kind_of(Path::new(path)), Kind::Bundled, "{path}");
        }
    }

    #[test]
    fn the_mark_is_found_wherever_it_is() {
        let search = Search::new();
        let mark = search.mark.needle().to_vec();
        let has = |before: usize, mark: &[u8]| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&vec![b'x'; before])
                .expect("it can be written");
            file.write_all(mark).expect("it can be written");
            file.rewind().expect("it can be read");
            has_mark(file, &search.mark).expect("it can be read")
        };
        for before in [0, CHUNK - 1, CHUNK, CHUNK + mark.len() - 1, 3 * CHUNK - 7] {
            assert!(has(before, &mark), "{before}");
            assert!(!has(before, &mark[1..]), "{before}");
        }
        // This program is none that has OpenSSL, though it looks for the mark.
        let own = File::open("/proc/self/exe").expect("it is there");
        assert!(!has_mark(own, &search.mark).expect("it can be read"));
    }
}
