// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest gets after it has booted: files, and then its job.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use cpio::newc;
use wire::Decoder;
use wire::Frame;
use wire::Job;

/// The part of an archive's mode field that tells what an entry is, and the values that come.
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Takes files and a job from the lab, and puts the files below `root`.
///
/// # Errors
///
/// If something else comes, or if a file cannot be written.
pub fn receive(port: impl Read, root: &Path) -> Result<Job> {
    let mut pieces = Pieces {
        port,
        buffer: vec![0; wire::MAX_PAYLOAD],
        decoder: Decoder::default(),
        piece: io::Cursor::default(),
        job: None,
    };
    // An archive of no files is one, too.
    loop {
        let reader = newc::Reader::new(pieces).context("what the lab sent is no archive")?;
        if reader.entry().is_trailer() {
            pieces = reader.finish()?;
            break;
        }
        pieces = unpack(reader, root)?;
    }
    // The kernel may want the rest of its block, but what the lab sends ends here.
    io::copy(&mut pieces, &mut io::sink()).context("cannot read the job")?;
    pieces.job.context("the lab sent no job")
}

/// Puts one entry in its place. What is there already is replaced, but a directory stays as it is.
fn unpack<R: Read>(reader: newc::Reader<R>, root: &Path) -> Result<R> {
    let name = reader.entry().name().to_owned();
    let mode = reader.entry().mode();
    let path = root.join(&name);
    let unpacked = || -> Result<R> {
        match mode & KIND {
            DIRECTORY => {
                if !path.is_dir() {
                    fs::create_dir(&path)?;
                    fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
                }
                Ok(reader.finish()?)
            }
            REGULAR => {
                fs::remove_file(&path).or_else(absent)?;
                let mut file = BufWriter::new(File::create_new(&path)?);
                let rest = reader.to_writer(&mut file)?;
                let file = file.into_inner()?;
                file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
                Ok(rest)
            }
            SYMLINK => {
                let mut target = Vec::new();
                let rest = reader.to_writer(&mut target)?;
                fs::remove_file(&path).or_else(absent)?;
                symlink(String::from_utf8(target)?, &path)?;
                Ok(rest)
            }
            _ => bail!("it is of no kind that is expected (mode {mode:o})"),
        }
    };
    unpacked().with_context(|| format!("cannot make /{name}"))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// The bytes of the archive, out of the frames in which they come, until the job.
struct Pieces<R> {
    port: R,
    buffer: Vec<u8>,
    decoder: Decoder,
    piece: io::Cursor<Vec<u8>>,
    job: Option<Job>,
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.job.is_none() {
            let length = self.piece.read(to)?;
            if length > 0 || to.is_empty() {
                return Ok(length);
            }
            match self.decoder.next_frame().map_err(io::Error::other)? {
                Some(Frame::Files(piece)) => self.piece = io::Cursor::new(piece),
                Some(Frame::Begin(job)) => self.job = Some(job),
                Some(other) => return Err(io::Error::other(format!("the lab sent {other:?}"))),
                None => {
                    let length = self.port.read(&mut self.buffer)?;
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.decoder.push(&self.buffer[..length]);
                }
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, mode, content) in entries {
            let length = u32::try_from(content.len()).expect("it is short");
            let mut writer = newc::Builder::new(name)
                .mode(*mode)
                .write(&mut archive, length);
            writer.write_all(content).expect("a vector takes it");
            writer.finish().expect("a vector takes it");
        }
        newc::trailer(&mut archive).expect("a vector takes it");
        archive
    }

    fn sent(archive: &[u8], piece: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        for piece in archive.chunks(piece) {
            let frame = Frame::Files(piece.to_vec());
            frame.write(&mut stream).expect("a vector takes it");
        }
        let job = Job {
            command: vec!["true".into()],
            ..Job::default()
        };
        Frame::Begin(job)
            .write(&mut stream)
            .expect("a vector takes it");
        stream
    }

    #[test]
    fn files_come_whole_however_they_are_cut() {
        let archive = archive(&[
            ("d", DIRECTORY | 0o755, b""),
            ("d/f", REGULAR | 0o640, b"content"),
            ("l", SYMLINK | 0o777, b"d/f"),
        ]);
        for piece in [1, 7, 4096] {
            let root = tempfile::tempdir().expect("a directory");
            let link = root.path().join("l");
            fs::write(&link, "it was here before").expect("it can be written");
            let job = receive(sent(&archive, piece).as_slice(), root.path()).expect("it is whole");
            assert_eq!(job.command, ["true"]);
            assert_eq!(fs::read(&link).expect("the link leads to it"), b"content");
            let mode = fs::metadata(&link).expect("it is there").permissions();
            assert_eq!(mode.mode() & 0o7777, 0o640);
        }
    }

    #[test]
    fn a_directory_stays_as_it_is() {
        let root = tempfile::tempdir().expect("a directory");
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).expect("it can be made");
        fs::set_permissions(&tmp, Permissions::from_mode(0o1777)).expect("it is ours");
        let archive = archive(&[("tmp", DIRECTORY | 0o755, b"")]);
        receive(sent(&archive, 64).as_slice(), root.path()).expect("it is whole");
        let mode = fs::metadata(&tmp).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o7777, 0o1777);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let whole = sent(&archive(&[("f", REGULAR | 0o644, b"content")]), 64);
        for length in 0..whole.len() {
            assert!(
                receive(&whole[..length], root.path()).is_err(),
                "{length} bytes"
            );
        }
        assert!(
            receive(
                sent(&archive(&[("pipe", 0o010_644, b"")]), 64).as_slice(),
                root.path()
            )
            .is_err()
        );
    }
}
