// SPDX-License-Identifier: MIT OR Apache-2.0

//! A virtio-serial port, where there is no vsock: a request a line, an answer a line, both JSON.
//!
//! Answers come as they are ready. So whoever asks for the status while something goes on has it at
//! once; the `id` says what an answer is to.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::api;
use super::api::Body;
use super::api::Reply;
use super::engine::Engine;
use super::machine::spawn;
use super::refusal::Code;
use super::refusal::Refusal;
use super::request;
use super::request::MOST;
use super::world::Caller;
use super::world::World;
use crate::exit::Failure;

/// How long is waited for somebody at the other end.
const NAP: Duration = Duration::from_millis(500);
/// How many requests may be in work at once.
const AT_ONCE: usize = 16;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    id: Value,
    method: String,
    path: String,
    #[serde(default)]
    body: Value,
}

/// Opens the port, and serves it from now on.
pub fn start<W: World + 'static>(path: &Path, engine: Arc<Engine<W>>) -> Result<(), Failure> {
    let shown = path.display().to_string();
    let open = || -> io::Result<(File, File)> {
        let port = File::options().read(true).write(true).open(path)?;
        Ok((port.try_clone()?, port))
    };
    let (reader, writer) = open().map_err(Failure::io(format!("open {shown}")))?;
    spawn(move || serve(reader, writer, &engine));
    Ok(())
}

/// Serves what comes, for ever.
pub fn serve<W, R, O>(reader: R, writer: O, engine: &Arc<Engine<W>>)
where
    W: World + 'static,
    R: io::Read,
    O: Write + Send + 'static,
{
    let mut lines = Lines(BufReader::new(reader));
    let port = Arc::new(Port {
        engine: Arc::clone(engine),
        writer: Mutex::new(writer),
        at_once: AtomicUsize::new(0),
    });
    loop {
        match lines.next() {
            Ok(line) => Port::take(&port, line),
            // Nobody is at the other end.
            Err(_) => thread::sleep(NAP),
        }
    }
}

struct Port<W, O> {
    engine: Arc<Engine<W>>,
    writer: Mutex<O>,
    at_once: AtomicUsize,
}

impl<W: World + 'static, O: Write + Send + 'static> Port<W, O> {
    /// Serves a line beside others.
    fn take(port: &Arc<Self>, line: Option<Vec<u8>>) {
        if port.at_once.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            port.at_once.fetch_sub(1, Ordering::SeqCst);
            let refusal = Refusal::new(Code::Busy, "too many requests are in work");
            return port.write(&answered(&Value::Null, refusal.into()));
        }
        let port = Arc::clone(port);
        spawn(move || {
            let answer = answer(&port.engine, line.as_deref());
            port.write(&answer);
            port.at_once.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn write(&self, answer: &Value) {
        let line = format!("{answer}\n");
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is gone needs none.
        let _ = writer.write_all(line.as_bytes());
    }
}

/// The answer to a line; `None` is one that was too long.
pub fn answer<W: World>(engine: &Engine<W>, line: Option<&[u8]>) -> Value {
    let too_long = || {
        Refusal::new(
            Code::BodyTooLarge,
            format!("a line has {MOST} bytes at most"),
        )
    };
    let line: Result<Line, Refusal> = line.ok_or_else(too_long).and_then(request::parse);
    match line {
        Err(refusal) => answered(&Value::Null, refusal.into()),
        Ok(line) => {
            let body = line.body.to_string();
            let (method, path) = (&line.method, &line.path);
            let caller = Caller::default();
            let reply = api::answer(engine, method, path, body.as_bytes(), &caller);
            answered(&line.id, reply)
        }
    }
}

fn answered(id: &Value, reply: Reply) -> Value {
    let body = match reply.body {
        Body::Json(body) => body,
        Body::Metrics(text) => text.into(),
    };
    json!({ "id": id, "status": reply.status, "body": body })
}

/// All lines, up to the end.
#[cfg(fuzzing)]
pub fn all_lines(said: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut lines = Lines(BufReader::new(said));
    std::iter::from_fn(|| lines.next().ok()).collect()
}

/// Lines that have an end to their length.
struct Lines<R>(BufReader<R>);

impl<R: io::Read> Lines<R> {
    /// The next one that is not empty; `None` if it was too long, and is skipped.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut is_too_long = false;
        loop {
            let buffer = match self.0.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                filled => filled?,
            };
            if buffer.is_empty() {
                // Half a line of one who has gone is none.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(buffer.len());
            is_too_long |= line.len() + taken > MOST;
            if !is_too_long {
                line.extend_from_slice(&buffer[..taken]);
            }
            self.0.consume(end.map_or(taken, |end| end + 1));
            if end.is_some() && is_too_long {
                return Ok(None);
            }
            if end.is_some() && !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
            if end.is_some() {
                line.clear();
            }
        }
    }
}
