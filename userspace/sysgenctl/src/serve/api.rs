// SPDX-License-Identifier: MIT OR Apache-2.0

//! The calls, whatever they come by.

use serde_json::Value;
use serde_json::json;

use super::engine::Engine;
use super::metrics;
use super::refusal::Code;
use super::refusal::Refusal;
use super::request::Cancel;
use super::request::Prepare;
use super::request::Resumed;
use super::state::Phase;
use super::world::Caller;
use super::world::World;

/// Where events are told.
pub const EVENTS: &str = "/v1/events";

/// All calls.
pub const ROUTES: [(&str, &str); 8] = [
    ("POST", "/v1/prepare"),
    ("POST", "/v1/resumed"),
    ("POST", "/v1/cancel"),
    ("GET", "/v1/status"),
    ("GET", EVENTS),
    ("GET", "/v1/watchers"),
    ("GET", "/metrics"),
    ("GET", "/ready"),
];

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// As in HTTP.
    pub status: u16,
    /// What it is.
    pub body: Body,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// For programs.
    Json(Value),
    /// For Prometheus.
    Metrics(String),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.code.status(),
            body: Body::Json(refusal.body()),
        }
    }
}

impl From<Result<Value, Refusal>> for Reply {
    fn from(result: Result<Value, Refusal>) -> Self {
        result.map_or_else(Self::from, |body| Self {
            status: 200,
            body: Body::Json(body),
        })
    }
}

/// A refusal of what is no call.
pub fn route(method: &str, path: &str) -> Result<(), Refusal> {
    if ROUTES.contains(&(method, path)) {
        return Ok(());
    }
    match ROUTES.iter().find(|(_, known)| *known == path) {
        Some((method, _)) => Err(Refusal::new(
            Code::MethodNotAllowed,
            format!("{path} is called with {method}"),
        )),
        None => Err(Refusal::new(
            Code::NoSuchPath,
            format!("there is no {path}: GET /v1/status is a beginning"),
        )),
    }
}

/// Does what is asked for, which may take as long as its deadline.
pub fn answer<W: World>(
    engine: &Engine<W>,
    method: &str,
    path: &str,
    body: &[u8],
    caller: &Caller,
) -> Reply {
    if let Err(refusal) = route(method, path) {
        return refusal.into();
    }
    match path {
        "/v1/prepare" => Prepare::parse(body)
            .and_then(|request| engine.prepare(&request, caller))
            .into(),
        "/v1/resumed" => Resumed::parse(body)
            .and_then(|request| engine.resumed(&request))
            .map(|report| json!(report))
            .into(),
        "/v1/cancel" => Cancel::parse(body)
            .and_then(|request| engine.cancel(&request))
            .into(),
        "/v1/status" => status(engine).into(),
        "/v1/watchers" => {
            let watchers = engine.world().survey();
            watchers.map(|watchers| json!(watchers)).into()
        }
        "/metrics" => metrics::text(engine).map_or_else(Reply::from, |text| Reply {
            status: 200,
            body: Body::Metrics(text),
        }),
        "/ready" => ready(engine).into(),
        _ => Refusal::new(Code::HttpOnly, format!("{path} is told over HTTP only")).into(),
    }
}

fn status<W: World>(engine: &Engine<W>) -> Result<Value, Refusal> {
    let device = engine.world().status()?;
    let state = engine.state();
    Ok(json!({
        "phase": state.phase,
        "token": state.token,
        "frozen": state.frozen,
        "doing": state.doing,
        "steps": state.steps,
        "last": state.last,
        "device": device,
    }))
}

/// Whether the machine serves: for a load balancer.
fn ready<W: World>(engine: &Engine<W>) -> Result<Value, Refusal> {
    let phase = engine.state().phase;
    if phase != Phase::Idle {
        return Err(Refusal::new(
            Code::NotReady,
            "the machine is quiesced, or not brought back yet",
        ));
    }
    let seen = engine.world().look()?;
    if seen.pending == Some(true) {
        return Err(Refusal::new(Code::NotReady, "a change is due"));
    }
    match seen.outdated {
        0 => Ok(json!({ "ready": true, "generation": seen.point.generation })),
        outdated => Err(Refusal::new(
            Code::NotReady,
            format!("tracked watchers that are outdated: {outdated}"),
        )),
    }
}
