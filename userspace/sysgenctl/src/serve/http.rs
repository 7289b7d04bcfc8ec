// SPDX-License-Identifier: MIT OR Apache-2.0

//! HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::api;
use super::api::Reply;
use super::engine::Engine;
use super::refusal::Code;
use super::refusal::Refusal;
use super::request::MOST;
use super::world::Caller;
use super::world::World;

/// How long a head, or a body, may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a body is read that is too long.
const TAKEN: usize = 16 << 20;
/// How often who listens to events is told that there are none, so that one who is gone is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// What all connections have in common.
pub struct Service<W> {
    /// Who does it.
    pub engine: Arc<Engine<W>>,
    /// What is told.
    pub events: broadcast::Sender<String>,
}

impl<W> Clone for Service<W> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            events: self.events.clone(),
        }
    }
}

impl<W: World + 'static> Service<W> {
    /// Serves one connection to its end.
    pub async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send, caller: Caller) {
        let service = service_fn(|request| {
            let (service, caller) = (self.clone(), caller.clone());
            async move { Ok::<_, Infallible>(service.respond(request, caller).await) }
        });
        // Who hangs up, or writes no HTTP, has an answer by that.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn respond(
        self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let (method, path) = (head.method, head.uri.path().to_owned());
        let checked = api::route(method.as_str(), &path).and(match head.uri.query() {
            None => Ok(()),
            Some(_) => Err(Refusal::new(
                Code::UnknownField,
                "there is nothing to ask after “?”",
            )),
        });
        if let Err(refusal) = checked {
            return response(Reply::from(refusal));
        }
        let body = match read(body).await {
            Ok(body) => body,
            Err(refusal) => return response(Reply::from(refusal)),
        };
        if path == api::EVENTS {
            return events(self.events.subscribe());
        }
        // It goes on when whoever called hangs up.
        let answered = spawn_blocking(move || {
            api::answer(&self.engine, method.as_str(), &path, &body, &caller)
        });
        response(answered.await.unwrap_or_else(|_| {
            Refusal::new(
                Code::StateFailed,
                "the call has ended by a fault of the service",
            )
            .into()
        }))
    }
}

/// What is too long is taken to its end, within reason: who still writes would not see the answer.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let incomplete = |why: String| Refusal::new(Code::BodyIncomplete, why);
    let (mut kept, mut length) = (Vec::new(), 0);
    let take = async {
        while let Some(frame) = body.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            length += data.len();
            if length <= MOST {
                kept.extend_from_slice(&data);
            } else if length > TAKEN {
                break;
            }
        }
        Ok::<_, hyper::Error>(())
    };
    match timeout(PATIENCE, take).await {
        Ok(Ok(())) if length <= MOST => Ok(kept),
        Ok(Ok(())) => {
            let message = format!("a body has {MOST} bytes at most");
            Err(Refusal::new(Code::BodyTooLarge, message))
        }
        Ok(Err(error)) => Err(incomplete(error.to_string())),
        Err(_) => Err(incomplete("the body has not come in time".into())),
    }
}

fn response(reply: Reply) -> Response<BoxBody<Bytes, Infallible>> {
    let (kind, text) = match reply.body {
        api::Body::Json(body) => ("application/json", body.to_string() + "\n"),
        api::Body::Metrics(text) => ("text/plain; version=0.0.4; charset=utf-8", text),
    };
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = reply.status.try_into().unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Server-sent events, from now on.
fn events(mut told: broadcast::Receiver<String>) -> Response<BoxBody<Bytes, Infallible>> {
    let (mut sender, body) = Channel::new(1);
    tokio::spawn(async move {
        let mut text = ": from now on\n\n".to_owned();
        while sender.send_data(Bytes::from(text)).await.is_ok() {
            text = match timeout(SILENCE, told.recv()).await {
                Err(_) => ":\n\n".into(),
                Ok(Ok(event)) => format!("data: {event}\n\n"),
                Ok(Err(RecvError::Lagged(number))) => {
                    format!("data: {{\"event\":\"lost\",\"number\":{number}}}\n\n")
                }
                Ok(Err(RecvError::Closed)) => return,
            };
        }
    });
    let mut response = Response::new(body.boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
