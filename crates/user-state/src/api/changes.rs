//! Changes as they happen: server-sent events.
//!
//! - `state`: a number's new state, as `/v1/numbers/{number}` shows it; its id is the version.
//!   With `?number=` the first one is the present state, so that nothing lies between asking and
//!   listening.
//! - `gap`: changes may have been missed; ask again for what matters. The stream goes on.
//! - `lagged`: this client read too slowly; the stream ends.
//! - `bye`: this instance is shutting down; connect again.
//!
//! `Last-Event-ID` is tolerated and ignored: the present state is worth more than a replay.

use std::collections::VecDeque;

use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::Stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use tollgate_runtime::query::{Refusal, read};

use super::Api;
use super::feed::{Change, Client, state_event};
use crate::metrics;

const HINT: &str = "GET /v1/changes takes number; without it, it tells of all numbers";

/// Which changes are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    /// Of this number only.
    number: Option<String>,
    /// What some clients send in place of the header, which is ignored as well.
    #[serde(rename = "lastEventId")]
    _last_event_id: Option<String>,
}

pub(super) async fn changes(
    api: web::Data<Api>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    let question: Changes = read(request.query_string(), HINT)?;
    let number = question.number;
    // A variable that is not set must not ask for everybody.
    if number.as_ref().is_some_and(String::is_empty) {
        return Err(Refusal::invalid("number is empty", HINT));
    }
    let Some(client) = api.feed.subscribe() else {
        ::metrics::counter!(metrics::CLIENTS_DROPPED.name, "reason" => "too_many").increment(1);
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many clients are connected",
            "connect again later, or to another instance",
        ));
    };
    // A first byte, so that the client knows that it is connected.
    let mut ready = VecDeque::from([Bytes::from_static(b": connected\n\n")]);
    let mut only = None;
    if let Some(number) = number {
        // Subscribed before, so that no change falls between.
        let pseudonyms = api.store.pseudonyms();
        let answer = api.numbers(&[number], None, pseudonyms).await?.pop();
        ready.extend(answer.as_ref().and_then(state_event));
        only = answer.map(|answer| (answer.number, answer.version));
    }
    let mut keep_alive = tokio::time::interval(api.feed.keep_alive);
    keep_alive.reset();
    let stopped = api.feed.stopped.clone();
    let listening = Listening { client, only, ready, keep_alive, stopped, ending: false };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(listening.into_stream()))
}

/// One client's connection.
struct Listening {
    client: Client,
    /// The only number wanted, as the feed shows it, and the version that was sent last.
    only: Option<(String, u64)>,
    ready: VecDeque<Bytes>,
    keep_alive: Interval,
    stopped: CancellationToken,
    ending: bool,
}

impl Listening {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        futures_util::stream::unfold(self, |mut listening| async move {
            let bytes = listening.next().await?;
            Some((Ok(bytes), listening))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ending {
                return None;
            }
            tokio::select! {
                () = self.stopped.cancelled() => self.end("shutdown", "bye", "{}"),
                change = self.client.changes.recv() => match change {
                    Ok(change) => self.take(&change),
                    Err(RecvError::Lagged(missed)) => {
                        self.end("slow", "lagged", &format!("{{\"missed\":{missed}}}"));
                    }
                    Err(RecvError::Closed) => self.end("shutdown", "bye", "{}"),
                },
                _ = self.keep_alive.tick() => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Gap => self.ready.push_back(Bytes::from_static(b"event: gap\ndata: {}\n\n")),
            Change::State(state) => {
                if let Some((number, version)) = &mut self.only {
                    if *number != state.number || *version >= state.version {
                        return;
                    }
                    *version = state.version;
                }
                self.keep_alive.reset();
                self.ready.push_back(state.event.clone());
            }
        }
    }

    fn end(&mut self, reason: &'static str, event: &str, data: &str) {
        ::metrics::counter!(metrics::CLIENTS_DROPPED.name, "reason" => reason).increment(1);
        self.ready.push_back(Bytes::from(format!("event: {event}\ndata: {data}\n\n")));
        self.ending = true;
    }
}
