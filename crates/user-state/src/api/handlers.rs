//! The handlers of plain queries.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Deserialize;
use tollgate_runtime::query::{Refusal, read, read_none};
use tollgate_schema::time::to_millis;
use tollgate_stream::{StoreError, now_ms};

use super::Api;
use super::answer::{Freshness, NumberAnswer};
use super::timeline::timeline;
use crate::fold::{derive, rewind};
use crate::keys::{Key, Pseudonyms, number_key, session_key};
use crate::message::user_state;

/// Most numbers in one question.
const MAX_NUMBERS: usize = 1_000;
/// Longest body of a question, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

const NUMBER_HINT: &str =
    "GET /v1/numbers/{number} takes at (RFC 3339, such as 2026-11-23T00:00:00Z)";
const NUMBERS_HINT: &str = "POST /v1/numbers/query takes {\"numbers\": [text, ...]}, at most 1000 of \
    them and 1 MiB, and \"at\" (RFC 3339, such as 2026-11-23T00:00:00Z)";
const CALL_HINT: &str =
    "GET /v1/calls takes session_id, and at (RFC 3339, such as 2026-11-23T00:00:00Z)";

/// A question about one number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    at: Option<Timestamp>,
}

/// A list of numbers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    numbers: Vec<String>,
    #[serde(default)]
    at: Option<Timestamp>,
}

/// A question about one call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    session_id: String,
    at: Option<Timestamp>,
}

pub(super) async fn number(
    api: web::Data<Api>,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    let question: Number = read(request.query_string(), NUMBER_HINT)?;
    let number = path.into_inner();
    let mut answers = api.numbers(std::slice::from_ref(&number), question.at, None).await?;
    let freshness = api.freshness().await?;
    // One answer for one number.
    let answer = answers.pop().map(|it| NumberAnswer { freshness: Some(freshness), ..it });
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

pub(super) async fn numbers(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    read_none(request.query_string())?;
    let question: Numbers = serde_json::from_slice(&body(payload).await?)
        .map_err(|_| Refusal::invalid("body is not such a question", NUMBERS_HINT))?;
    if question.numbers.len() > MAX_NUMBERS {
        return Err(Refusal::invalid("more than 1000 numbers", NUMBERS_HINT));
    }
    let answers = api.numbers(&question.numbers, question.at, None).await?;
    let freshness = api.freshness().await?;
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(serde_json::json!({ "numbers": answers, "freshness": freshness })))
}

pub(super) async fn call(
    api: web::Data<Api>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    let question: Call = read(request.query_string(), CALL_HINT)?;
    if question.session_id.is_empty() {
        return Err(Refusal::invalid("session_id is empty", CALL_HINT));
    }
    let now_ms = now_ms();
    let as_of_ms = question.at.map_or(now_ms, to_millis);
    let row = api.store.call(&session_key(&question.session_id, &[])).await.map_err(unread)?;
    let row = row.ok_or_else(|| {
        let error = "no event of such a call has been applied";
        Refusal::new(StatusCode::NOT_FOUND, error, "ask with the whole session_id, as it was sent")
    })?;
    let freshness = api.freshness().await?;
    let answer = timeline(&row, api.store.expiry(), as_of_ms, as_of_ms < now_ms, freshness)
        .map_err(unread)?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

impl Api {
    /// What these numbers are doing now, or were doing at an instant; one answer for each, in
    /// their order. With pseudonyms, numbers and session ids are replaced.
    pub(super) async fn numbers(
        &self,
        numbers: &[String],
        at: Option<Timestamp>,
        pseudonyms: Option<&Pseudonyms>,
    ) -> Result<Vec<NumberAnswer>, Refusal> {
        let now_ms = now_ms();
        let as_of_ms = at.map_or(now_ms, to_millis);
        let past = as_of_ms < now_ms;
        let keys: Vec<Key> = numbers.iter().map(|number| number_key(number)).collect();
        let found = self.store.numbers(&keys, as_of_ms, past).await.map_err(unread)?;
        let answers: HashMap<Key, NumberAnswer> = found
            .into_iter()
            .map(|it| {
                let legs = if past {
                    it.legs.iter().filter_map(|leg| rewind(leg, as_of_ms)).collect()
                } else {
                    it.legs
                };
                let state = derive(&legs, as_of_ms);
                let row = it.row;
                let (number, version) = (&row.number, row.version);
                let message = user_state(number, version, as_of_ms, &state, pseudonyms);
                (row.key, NumberAnswer::from(message))
            })
            .collect();
        Ok(keys
            .iter()
            .zip(numbers)
            .map(|(key, number)| {
                let known = answers.get(key).cloned();
                known.unwrap_or_else(|| {
                    let shown = pseudonyms.map_or_else(|| number.clone(), |it| it.of(number));
                    NumberAnswer::unknown(shown, as_of_ms)
                })
            })
            .collect())
    }

    async fn freshness(&self) -> Result<Freshness, Refusal> {
        Ok(Freshness::of(self.store.applied().await.map_err(unread)?))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unread(error: StoreError) -> Refusal {
    Refusal::of_database(&error, error.is_transient())
}

async fn body(payload: web::Payload) -> Result<web::Bytes, Refusal> {
    payload
        .to_bytes_limited(MAX_BODY_BYTES)
        .await
        .map_err(|_| Refusal::invalid("body is larger than 1 MiB", NUMBERS_HINT))?
        .map_err(|_| Refusal::invalid("body broke off", NUMBERS_HINT))
}
