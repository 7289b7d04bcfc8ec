// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the lab's tool and the guest's init say to each other, over one virtio-serial port.
//!
//! Each message is a frame: one byte that says what it is, the length of what follows as a
//! little-endian `u32`, and that many bytes. The channel is no console: nothing but init
//! writes to it, so that a guest's output can never be mistaken for its result.

use std::io;
use std::io::Write;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// The virtio-serial port's name, as `/sys/class/virtio-ports/*/name` shows it.
pub const PORT: &str = "sysgenid.lab";

/// A file that is there if systemd is the first process of the guest.
pub const SYSTEMD: &str = "/.lab/systemd";

/// Where the module lies in the guest, when the job has one.
pub const MODULE: &str = "/.lab/sysgenid.ko";

/// The largest payload; a sender splits what is longer.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What init is to do.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The command and its arguments. The command is looked for in `PATH`.
    pub command: Vec<String>,
    /// Whether to load [`MODULE`] first.
    pub load_module: bool,
    /// What time it is, since the epoch. A guest that stood still for days has another one.
    pub now: Option<Duration>,
    /// Whether the command gets a pseudo-terminal instead of pipes, and this size at first.
    pub terminal: Option<Size>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How the command ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// It was never started, and this is why.
    NotStarted(String),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The guest is up, and waits for its job. At this point a machine can be saved for all that is
    /// to run in it later. For so long it has been up, by its own clock.
    Waiting(Duration),
    /// Host to guest: the next piece of an archive (cpio, newc) with files for the guest.
    Files(Vec<u8>),
    /// Host to guest, after the files: the job.
    Begin(Job),
    /// The command starts now.
    Started,
    /// Bytes that the command wrote to its standard output.
    Stdout(Vec<u8>),
    /// Bytes that the command wrote to its standard error.
    Stderr(Vec<u8>),
    /// One record of `/dev/kmsg`.
    Kernel(String),
    /// What init has to say of the guest.
    Remark(String),
    /// The command is done.
    Ended(End),
    /// Host to guest, after the end: look for memory that was leaked.
    FindLeaks,
    /// What was found, as `/sys/kernel/debug/kmemleak` shows it; empty if nothing was, or if this
    /// kernel cannot look.
    Leaks(String),
    /// Host to guest: bytes for the command's terminal.
    Input(Vec<u8>),
    /// Host to guest: the terminal's new size.
    Resized(Size),
}

impl Frame {
    fn tag(&self) -> u8 {
        match self {
            Self::Waiting(_) => b'W',
            Self::Files(_) => b'f',
            Self::Begin(_) => b'B',
            Self::Started => b'S',
            Self::Stdout(_) => b'o',
            Self::Stderr(_) => b'e',
            Self::Kernel(_) => b'k',
            Self::Remark(_) => b'R',
            Self::Ended(_) => b'E',
            Self::FindLeaks => b'l',
            Self::Leaks(_) => b'L',
            Self::Input(_) => b'i',
            Self::Resized(_) => b'r',
        }
    }

    /// Writes the frame in one piece.
    ///
    /// # Errors
    ///
    /// What `to` answers; [`io::ErrorKind::InvalidInput`] for more than [`MAX_PAYLOAD`] bytes.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let payload = match self {
            Self::Started | Self::FindLeaks => Vec::new(),
            Self::Waiting(uptime) => serde_json::to_vec(uptime)?,
            Self::Stdout(bytes) | Self::Stderr(bytes) | Self::Input(bytes) | Self::Files(bytes) => {
                bytes.clone()
            }
            Self::Begin(job) => serde_json::to_vec(job)?,
            Self::Kernel(text) | Self::Remark(text) | Self::Leaks(text) => {
                text.clone().into_bytes()
            }
            Self::Ended(end) => serde_json::to_vec(end)?,
            Self::Resized(size) => serde_json::to_vec(size)?,
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut frame = Vec::with_capacity(payload.len() + 5);
        frame.push(self.tag());
        frame.extend(
            u32::try_from(payload.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        frame.extend(payload);
        to.write_all(&frame)?;
        to.flush()
    }

    fn parse(tag: u8, payload: &[u8]) -> Result<Self, String> {
        let text = || String::from_utf8_lossy(payload).into_owned();
        Ok(match tag {
            b'W' => Self::Waiting(serde_json::from_slice(payload).map_err(|e| e.to_string())?),
            b'f' => Self::Files(payload.to_vec()),
            b'B' => Self::Begin(serde_json::from_slice(payload).map_err(|e| e.to_string())?),
            b'S' => Self::Started,
            b'o' => Self::Stdout(payload.to_vec()),
            b'e' => Self::Stderr(payload.to_vec()),
            b'k' => Self::Kernel(text()),
            b'R' => Self::Remark(text()),
            b'E' => Self::Ended(serde_json::from_slice(payload).map_err(|e| e.to_string())?),
            b'l' => Self::FindLeaks,
            b'L' => Self::Leaks(text()),
            b'i' => Self::Input(payload.to_vec()),
            b'r' => Self::Resized(serde_json::from_slice(payload).map_err(|e| e.to_string())?),
            other => return Err(format!("no frame has the tag {other:#x}")),
        })
    }
}

/// Takes frames out of a stream of bytes, however it is cut.
///
/// A decoder is `Clone`, because a virtual machine may be saved in the middle of a frame: what
/// has arrived of it then belongs to each of the clones that send the rest.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// Says what is wrong with bytes that are no frame; the stream is of no use after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let Some((header, rest)) = self.pending.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(format!("a frame of {length} bytes is longer than any"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::parse(tag, payload)?;
        self.pending.drain(..5 + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Waiting(Duration::new(3, 4)),
            Frame::Files(vec![7; 3]),
            Frame::Begin(Job {
                command: vec!["true".into()],
                now: Some(Duration::new(1, 2)),
                ..Job::default()
            }),
            Frame::Started,
            Frame::Stdout(b"one\ntwo".to_vec()),
            Frame::Stderr(vec![0xff, 0]),
            Frame::Kernel("6,1,2,-;text".into()),
            Frame::Remark("a unit has failed".into()),
            Frame::Input(b"\x03".to_vec()),
            Frame::Resized(Size {
                rows: 24,
                columns: 80,
            }),
            Frame::FindLeaks,
            Frame::Leaks("unreferenced object".into()),
            Frame::Ended(End::Signaled(9)),
            Frame::Ended(End::NotStarted("no such file".into())),
        ]
    }

    #[test]
    fn every_frame_comes_back_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for frame in frames() {
            frame.write(&mut stream).expect("a vector takes everything");
        }
        for cut in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().expect("these are frames") {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames(), "pieces of {cut} bytes");
        }
    }

    #[test]
    fn a_clone_of_the_decoder_continues_in_the_middle_of_a_frame() {
        let mut stream = Vec::new();
        Frame::Stdout(b"shared".to_vec())
            .write(&mut stream)
            .expect("a vector takes everything");
        let mut original = Decoder::default();
        original.push(&stream[..7]);
        let mut clone = original.clone();
        assert_eq!(original.next_frame(), Ok(None));
        clone.push(&stream[7..]);
        assert_eq!(
            clone.next_frame(),
            Ok(Some(Frame::Stdout(b"shared".to_vec())))
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(b"garbage that is longer than a header");
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_by_the_sender() {
        let frame = Frame::Stdout(vec![0; MAX_PAYLOAD + 1]);
        assert!(frame.write(&mut Vec::new()).is_err());
    }
}
