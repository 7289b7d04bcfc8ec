// SPDX-License-Identifier: MIT OR Apache-2.0

//! The service as its callers see it, and what is described of that.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use serde_json::json;

use super::api::ROUTES;
use super::engine::Engine;
use super::http::Service;
use super::listen::Listener;
use super::play::Play;
use super::refusal::Code;
use super::request::MOST;
use super::serial;
use super::state::Phase;
use super::token::Point;
use super::token::Token;

static DESCRIBED: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../openapi.json")).expect("the description is JSON")
});

/// A service that runs in this process, for as long as the test.
struct Served {
    play: Play,
    engine: Arc<Engine<Play>>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("socket");
        let play = Play::new();
        let engine = Arc::new(play.start());
        let listener = UnixListener::bind(&path).expect("there is room");
        listener.set_nonblocking(true).expect("it is a socket");
        let service = Service {
            engine: Arc::clone(&engine),
            events: play.events.clone(),
        };
        thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener);
                let listener = Listener::Unix(listener.expect("it is a socket"));
                listener.serve(service).await;
            });
        });
        Self {
            play,
            engine,
            path,
            _directory: directory,
        }
    }

    fn connect(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("it is a socket");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream
    }

    /// Calls, and compares the answer with the description.
    fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        let mut stream = self.connect(&request(method, target, body));
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let answer = Answer::of(&text);
        let path = target.split('?').next().unwrap_or_default();
        if ROUTES.contains(&(method, path)) {
            answer.check(method, path);
        }
        answer
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &body.to_string())
    }

    fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "")
    }

    fn prepared(&self) -> String {
        let answer = self.post("/v1/prepare", &prepare());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"]
            .as_str()
            .expect("it is text")
            .to_owned()
    }

    fn until(&self, phase: Phase) {
        while self.engine.state().phase != phase {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn prepare() -> Value {
    json!({ "deadline": 60, "freeze": ["/a", "b.service"] })
}

fn resumed(token: &str) -> Value {
    json!({
        "token": token,
        "entropy": BASE64_STANDARD.encode([7; 32]),
        "time": "2026-11-27T12:00:00Z",
        "least_generation": 2,
        "expect": "clone",
        "deadline": 60,
    })
}

#[derive(Debug)]
struct Answer {
    status: u16,
    kind: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("it is HTTP");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let kind = lines.find_map(|line| line.strip_prefix("content-type: "));
        Self {
            status: status
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            kind: kind.unwrap_or_default().to_owned(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("it is JSON")
    }

    fn code(&self) -> String {
        let json = self.json();
        json["error"]["code"]
            .as_str()
            .expect("it is an error")
            .to_owned()
    }

    /// The description has it.
    fn check(&self, method: &str, path: &str) {
        let what = format!("{method} {path} {}", self.status);
        let described = described(method, path)["responses"][self.status.to_string()].clone();
        let contents = described["content"].as_object();
        let contents = contents.unwrap_or_else(|| panic!("{what} is not described"));
        let (kind, content) = contents.iter().next().expect("there is one");
        assert!(
            self.kind.starts_with(kind.as_str()),
            "{what}: {}",
            self.kind
        );
        if kind == "application/json" {
            fits(&self.json(), &content["schema"]).unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
}

fn described(method: &str, path: &str) -> &'static Value {
    &DESCRIBED["paths"][path][method.to_lowercase()]
}

/// Why a value is not what a schema says, of what is used of JSON Schema here.
fn fits(value: &Value, schema: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{value} is not as {schema} says: {why}"));
    for (key, rule) in schema.as_object().expect("a schema is an object") {
        let is_so = match key.as_str() {
            "$ref" => {
                let name = rule.as_str().and_then(|text| text.rsplit('/').next());
                let schema = &DESCRIBED["components"]["schemas"][name.unwrap_or_default()];
                assert!(schema.is_object(), "{rule} is nowhere");
                fits(value, schema)?;
                true
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is_a(value, kind)),
                kind => is_a(value, kind),
            },
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
            "oneOf" => {
                let all = rule.as_array().expect("it is a list");
                all.iter()
                    .filter(|schema| fits(value, schema).is_ok())
                    .count()
                    == 1
            }
            "minimum" => value
                .as_f64()
                .is_none_or(|value| Some(value) >= rule.as_f64()),
            "exclusiveMinimum" => value
                .as_f64()
                .is_none_or(|value| Some(value) > rule.as_f64()),
            "maximum" => value
                .as_f64()
                .is_none_or(|value| Some(value) <= rule.as_f64()),
            "maxItems" => value
                .as_array()
                .is_none_or(|all| Some(all.len() as u64) <= rule.as_u64()),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(item, rule)?;
                }
                true
            }
            "required" => {
                let keys = rule.as_array().expect("it is a list").iter();
                keys.filter_map(Value::as_str)
                    .all(|key| value.get(key).is_some())
            }
            "properties" => {
                for (key, schema) in rule.as_object().expect("it is an object") {
                    if let Some(value) = value.get(key) {
                        fits(value, schema)?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().expect("it has some");
                let keys = value.as_object().into_iter().flatten();
                keys.into_iter().all(|(key, _)| known.contains_key(key))
            }
            "pattern" => value
                .as_str()
                .is_none_or(|text| text.parse::<Token>().is_ok()),
            "description" | "format" | "contentEncoding" => true,
            other => panic!("what is {other}?"),
        };
        if !is_so {
            return wrong(key);
        }
    }
    Ok(())
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("it is a word") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("what is {other}?"),
    }
}

/// What was answered to what.
type Seen = BTreeSet<(String, String, u16)>;

fn see(seen: &mut Seen, method: &str, path: &str, answer: &Answer) {
    seen.insert((method.to_owned(), path.to_owned(), answer.status));
}

fn see_what_is_no_request(seen: &mut Seen) {
    let too_long = "x".repeat(2 << 20);
    let served = Served::new();
    for (method, path) in ROUTES {
        see(
            seen,
            method,
            path,
            &served.call(method, &format!("{path}?x"), ""),
        );
        see(seen, method, path, &served.call(method, path, &too_long));
    }
}

fn see_what_is_read(seen: &mut Seen) {
    let served = Served::new();
    let paths = ["/v1/status", "/v1/watchers", "/metrics", "/ready"];
    let mut see_all = || {
        for path in paths {
            see(seen, "GET", path, &served.get(path));
        }
    };
    see_all();
    served.prepared();
    see_all();
    served.post(
        "/v1/cancel",
        &json!({ "token": served.engine.state().token }),
    );
    served.play.played().fails = Some(Code::DeviceFailed);
    see_all();
    let (answer, _) = events(&Served::new());
    answer.check("GET", "/v1/events");
    see(seen, "GET", "/v1/events", &answer);
}

fn see_prepare(seen: &mut Seen) {
    let path = "/v1/prepare";
    let short = Duration::from_millis(1);
    for (fails, tick) in [
        (None, short),
        (Some(Code::ProtectedCgroup), short),
        (Some(Code::HookFailed), short),
        (None, Duration::from_secs(60)),
    ] {
        let served = Served::new();
        served.play.played().fails = fails;
        served.play.played().tick = tick;
        let answer = served.post(path, &prepare());
        see(seen, "POST", path, &answer);
        if answer.status == 200 {
            see(seen, "POST", path, &served.post(path, &prepare()));
        }
    }
}

fn see_resumed(seen: &mut Seen) {
    let path = "/v1/resumed";
    let served = Served::new();
    let token = served.prepared();
    served.play.clone_machine();
    let mut post = || {
        let answer = served.post(path, &resumed(&token));
        see(seen, "POST", path, &answer);
        answer
    };
    served.play.played().fails = Some(Code::EntropyFailed);
    post();
    served.play.played().fails = None;
    served.play.played().stubborn = Some(PathBuf::new());
    let late = post().json();
    let message = late["error"]["message"].as_str().expect("it is text");
    assert!(message.contains("nginx"), "{message}");
    let schema = json!({ "$ref": "#/components/schemas/Report" });
    fits(&late["report"], &schema).expect("it is one");
    served.get("/v1/status");
    served.play.played().stubborn = None;
    post();
    post();
}

fn see_cancel(seen: &mut Seen) {
    let path = "/v1/cancel";
    let served = Served::new();
    let body = json!({ "token": served.prepared() });
    let mut post = || see(seen, "POST", path, &served.post(path, &body));
    served.play.played().fails = Some(Code::StateFailed);
    post();
    served.play.played().fails = None;
    post();
    post();
}

/// Every status that is described is seen, and every one that is seen is described.
#[test]
fn the_description_is_what_is_served() {
    let mut seen = Seen::new();
    see_what_is_no_request(&mut seen);
    see_what_is_read(&mut seen);
    see_prepare(&mut seen);
    see_resumed(&mut seen);
    see_cancel(&mut seen);

    let mut described = Seen::new();
    for (path, methods) in DESCRIBED["paths"].as_object().expect("there are some") {
        for (method, call) in methods.as_object().expect("there are some") {
            let responses = call["responses"].as_object().expect("there are some");
            for status in responses.keys() {
                let status = status.parse().expect("it is a number");
                described.insert((method.to_uppercase(), path.clone(), status));
            }
        }
    }
    assert_eq!(seen, described);
    let routes = ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned()));
    let calls = described
        .into_iter()
        .map(|(method, path, _)| (method, path));
    assert_eq!(calls.collect::<BTreeSet<_>>(), BTreeSet::from(routes));
}

#[test]
fn requests_are_as_described() {
    let schema =
        |path| &described("POST", path)["requestBody"]["content"]["application/json"]["schema"];
    let token = Token::numbered(Point::default(), 1).to_string();
    for (path, mut body) in [
        ("/v1/prepare", prepare()),
        ("/v1/resumed", resumed(&token)),
        ("/v1/cancel", json!({ "token": token })),
    ] {
        fits(&body, schema(path)).expect("it is right");
        // Of each, what is required, and what is not, is known to both.
        for key in body.as_object().expect("it is one").clone().keys() {
            let mut without = body.clone();
            without.as_object_mut().expect("it is one").remove(key);
            let served = Served::new();
            let is_required =
                served.post(path, &without).json()["error"]["code"] == "missing_field";
            assert_eq!(
                fits(&without, schema(path)).is_err(),
                is_required,
                "{path} without {key}"
            );
        }
        body["more"] = 1.into();
        assert!(fits(&body, schema(path)).is_err());
        assert_eq!(Served::new().post(path, &body).code(), "unknown_field");
    }
}

#[test]
fn every_word_for_what_is_wrong_is_described() {
    let words = DESCRIBED["components"]["schemas"]["Code"]["enum"].clone();
    let source = include_str!("refusal.rs");
    let list = source
        .split("pub enum Code {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next());
    let known = list.expect("it is there").lines().filter_map(|line| {
        let name = line.trim().strip_suffix(',')?;
        name.starts_with(char::is_uppercase)
            .then(|| format!("\"{name}\""))
    });
    let mut count = 0;
    for (name, word) in known.zip(words.as_array().expect("it is a list")) {
        let word = word.as_str().expect("it is text").replace('_', "");
        assert_eq!(name.to_lowercase(), format!("\"{word}\""));
        count += 1;
    }
    assert_eq!(Some(count), words.as_array().map(Vec::len));
}

/// The answer's head, and what comes after it.
fn events(served: &Served) -> (Answer, BufReader<UnixStream>) {
    let mut lines = BufReader::new(served.connect(&request("GET", "/v1/events", "")));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(lines.read_line(&mut head).expect("it answers"), 0);
    }
    (Answer::of(&head), lines)
}

#[test]
fn events_are_told() {
    let served = Served::new();
    let (answer, lines) = events(&served);
    assert_eq!(answer.kind, "text/event-stream");
    let token = served.prepared();
    served.play.clone_machine();
    assert_eq!(served.post("/v1/resumed", &resumed(&token)).status, 200);
    let mut told = Vec::new();
    for line in lines.lines() {
        let line = line.expect("it goes on");
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(event).expect("it is JSON");
        fits(&event, &json!({ "$ref": "#/components/schemas/Event" })).expect("it is described");
        let what = if event["event"] == "phase" {
            &event["phase"]
        } else {
            &event["step"]
        };
        told.push(what.as_str().expect("it is text").to_owned());
        if told.last().is_some_and(|last| last == "idle") {
            break;
        }
    }
    let expected = "preparing prepared resuming entropy clock change identity thaw_hooks watchers thaw \
                    post_hooks idle";
    assert_eq!(told.join(" "), expected);
}

#[test]
fn who_hangs_up_changes_nothing() {
    let served = Served::new();
    let (open, gate) = mpsc::channel();
    served.play.played().gate = Some(gate);
    let stream = served.connect(&request("POST", "/v1/prepare", &prepare().to_string()));
    served.until(Phase::Preparing);
    assert_eq!(served.post("/v1/prepare", &prepare()).code(), "busy");
    let status = served.get("/v1/status");
    assert_eq!(status.json()["phase"], "preparing");
    drop(stream);
    drop(open);
    served.until(Phase::Prepared);
    let token = served.get("/v1/status").json()["token"].clone();
    let stream = served.connect(&request(
        "POST",
        "/v1/resumed",
        &resumed(token.as_str().expect("text")).to_string(),
    ));
    served.until(Phase::Idle);
    drop(stream);
    assert_eq!(served.engine.state().spent.len(), 1);
}

#[test]
fn what_is_no_call_is_refused() {
    let served = Served::new();
    let code = |method, path| served.call(method, path, "").code();
    assert_eq!(code("GET", "/"), "no_such_path");
    assert_eq!(code("POST", "/v1/prepare/"), "no_such_path");
    assert_eq!(code("GET", "/v1/prepare"), "method_not_allowed");
    assert_eq!(code("DELETE", "/ready"), "method_not_allowed");
    assert_eq!(code("GET", "/ready?x=1"), "unknown_field");
    // Of a body that is said to be longer than it is, nothing is done.
    let text =
        "POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{\"deadline\": 60}";
    let mut stream = served.connect(text);
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("it is a socket");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(served.engine.state().phase, Phase::Idle);
    assert_eq!(served.play.played().log, [""; 0]);
}

#[test]
fn ready_says_when_it_serves() {
    let served = Served::new();
    assert_eq!(served.get("/ready").status, 200);
    served.play.played().outdated = 1;
    assert_eq!(served.get("/ready").status, 503);
    served.play.played().outdated = 0;
    served.play.played().pending = Some(true);
    assert_eq!(served.get("/ready").status, 503);
    served.play.played().pending = None;
    assert_eq!(served.get("/ready").status, 200);
    served.prepared();
    assert_eq!(served.get("/ready").code(), "not_ready");
}

#[test]
fn numbers_are_for_prometheus() {
    let served = Served::new();
    let token = served.prepared();
    served.play.clone_machine();
    assert_eq!(served.post("/v1/resumed", &resumed(&token)).status, 200);
    let text = served.get("/metrics").body;
    for line in [
        "sysgenid_generation 4",
        "sysgenid_changes_total{source=\"vmfork\"} 2",
        "sysgenid_change_pending 0",
        "sysgenid_watchers_unconfirmed 1",
        "sysgenid_watchers_tracked 2",
        "sysgenid_watchers_outdated 1",
        "sysgenid_quiesced 0",
        "sysgenid_hooks_failed_total 0",
        "sysgenid_resumes_total{outcome=\"ready\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert_eq!(text.matches("sysgenid_step_seconds{").count(), 8);
}

#[test]
fn lines_are_answered_with_lines() {
    let play = Play::new();
    let engine = Arc::new(play.start());
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let writer = theirs.try_clone().expect("it is a socket");
    thread::spawn(move || serial::serve(theirs, writer, &engine));
    let mut lines = BufReader::new(ours.try_clone().expect("it is a socket"));
    let mut call = |line: &str| -> Value {
        (&ours).write_all(line.as_bytes()).expect("it reads");
        (&ours).write_all(b"\n").expect("it reads");
        let mut answer = String::new();
        lines.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).expect("it is JSON")
    };
    let request = |path: &str, method: &str, body: Value| {
        json!({ "id": path, "method": method, "path": path, "body": body }).to_string()
    };
    let answer = call(&request("/v1/prepare", "POST", prepare()));
    assert_eq!(
        (&answer["id"], &answer["status"]),
        (&json!("/v1/prepare"), &json!(200))
    );
    let token = answer["body"]["token"]
        .as_str()
        .expect("it is text")
        .to_owned();
    play.clone_machine();
    let answer = call(&request("/v1/resumed", "POST", resumed(&token)));
    assert_eq!(
        (&answer["status"], &answer["body"]["outcome"]),
        (&json!(200), &json!("ready"))
    );
    // An empty line is none.
    let answer = call(&format!("\n{}", request("/metrics", "GET", Value::Null)));
    assert!(
        answer["body"]
            .as_str()
            .is_some_and(|text| text.starts_with("# HELP"))
    );
    let code = |answer: Value| answer["body"]["error"]["code"].clone();
    assert_eq!(code(call("{")), "malformed_json");
    assert_eq!(code(call("{\"method\": \"GET\"}")), "missing_field");
    assert_eq!(code(call("{\"more\": 1}")), "unknown_field");
    assert_eq!(code(call(&"x".repeat(MOST + 1))), "body_too_large");
    assert_eq!(
        code(call(&request("/v1/events", "GET", Value::Null))),
        "http_only"
    );
    assert_eq!(
        code(call(&request("/v1/prepare", "GET", Value::Null))),
        "method_not_allowed"
    );
}
