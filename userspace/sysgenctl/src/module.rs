// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module as a file, and as it runs.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use object::Object as _;

/// What stands at the end of a module that is signed (Documentation/admin-guide/module-signing.rst).
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// The build ID of the module that runs, as an ELF note.
const RUNNING: &str = "/sys/module/sysgenid/notes/.note.gnu.build-id";
/// The greatest file that is taken for a module, unpacked.
const LARGEST: u64 = 64 << 20;

/// The module that would be loaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    /// Where it is.
    pub path: PathBuf,
    /// Whether somebody has signed it. Nobody knows whether the kernel trusts him.
    pub signed: bool,
    /// What tells one build from another.
    build: Option<Vec<u8>>,
}

impl Installed {
    /// Reads the file, which may be compressed as kernels have their modules.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let image = unpacked(path)?;
        let signed = image.ends_with(SIGNED);
        let build = object::File::parse(image.as_slice())
            .ok()
            .and_then(|file| file.build_id().ok().flatten().map(<[u8]>::to_vec));
        Ok(Self {
            path: path.to_owned(),
            signed,
            build,
        })
    }

    /// Whether another build of the module runs, as after an upgrade. Where it cannot be told, it is
    /// not said.
    pub fn is_another_than_runs(&self) -> bool {
        let running = fs::read(RUNNING).ok();
        let running = running.as_deref().and_then(described);
        running.is_some() && self.build.is_some() && running != self.build.as_deref()
    }
}

/// Whether the kernel loads signed modules only.
pub fn signatures_are_demanded() -> bool {
    let says = |path, what| fs::read_to_string(path).is_ok_and(|text| text.contains(what));
    says("/sys/module/module/parameters/sig_enforce", "Y")
        // “none [integrity] confidentiality”: the bracketed one holds.
        || says("/sys/kernel/security/lockdown", "[integrity]")
        || says("/sys/kernel/security/lockdown", "[confidentiality]")
}

fn unpacked(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut image = Vec::new();
    let name = path.extension().unwrap_or_default();
    match name.to_str() {
        Some("xz") => lzma_rs::xz_decompress(&mut BufReader::new(file), &mut image)
            .map_err(|error| io::Error::other(format!("{error:?}")))?,
        Some("zst") => {
            let decoder =
                ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?;
            decoder.take(LARGEST).read_to_end(&mut image).map(drop)?;
        }
        Some("gz") => {
            let decoder = flate2::read::GzDecoder::new(file);
            decoder.take(LARGEST).read_to_end(&mut image).map(drop)?;
        }
        _ => file.take(LARGEST).read_to_end(&mut image).map(drop)?,
    }
    Ok(image)
}

/// What an ELF note describes: it has three numbers, a name, and that.
fn described(note: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = note.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let start = 12 + number(0)?.next_multiple_of(4);
    note.get(start..start.checked_add(number(4)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// An object file with that build ID, as a compiler would make it.
    fn object_file(build: &[u8]) -> Vec<u8> {
        use object::write::Object;

        let (format, machine) = (object::BinaryFormat::Elf, object::Architecture::X86_64);
        let mut file = Object::new(format, machine, object::Endianness::Little);
        let name = b".note.gnu.build-id".to_vec();
        let section = file.add_section(Vec::new(), name, object::SectionKind::Note);
        file.append_section_data(section, &note(build), 4);
        file.write().expect("it can be written")
    }

    fn note(build: &[u8]) -> Vec<u8> {
        let length = u32::try_from(build.len()).expect("it is short");
        let mut note = Vec::new();
        for number in [4, length, 3] {
            note.extend(u32::to_ne_bytes(number));
        }
        note.extend(b"GNU\0");
        note.extend(build);
        note
    }

    #[test]
    fn a_note_is_taken_apart() {
        assert_eq!(
            described(&note(b"0123456789")),
            Some(b"0123456789".as_slice())
        );
        for short in 0..note(b"ab").len() {
            assert_eq!(described(&note(b"ab")[..short]), None, "{short}");
        }
    }

    #[test]
    fn a_module_is_read_however_it_is_packed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut image = object_file(b"a build");
        let mut check = |signed| {
            let mut packed = vec![("ko", image.clone())];
            let mut xz = Vec::new();
            lzma_rs::xz_compress(&mut image.as_slice(), &mut xz).expect("it can be packed");
            packed.push(("ko.xz", xz));
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(&image).expect("it can be packed");
            packed.push(("ko.gz", gz.finish().expect("it can be packed")));
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            let zst = ruzstd::encoding::compress_to_vec(image.as_slice(), level);
            packed.push(("ko.zst", zst));
            for (name, bytes) in packed {
                let path = directory.path().join(format!("sysgenid.{name}"));
                fs::write(&path, bytes).expect("it can be written");
                let found = Installed::read(&path).expect("it can be read");
                let expected = Installed {
                    path,
                    signed,
                    build: Some(b"a build".to_vec()),
                };
                assert_eq!(found, expected);
            }
            image.extend(SIGNED);
        };
        check(false);
        check(true);
    }

    #[test]
    fn what_is_no_module_has_no_build() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"text").expect("it can be written");
        let found = Installed::read(file.path()).expect("it can be read");
        assert_eq!((found.signed, found.build), (false, None));
        assert!(Installed::read(Path::new("/no/such/file")).is_err());
    }
}
