//! The handlers of plain queries.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use jiff::Timestamp;
use serde::Deserialize;
use tollgate_schema::time::to_millis;
use tollgate_stream::StoreError;

use super::answer::{Freshness, NumberAnswer};
use super::parameters::parameter;
use super::timeline::timeline;
use super::{Api, now_ms};
use crate::fold::{derive, rewind};
use crate::keys::{Key, Pseudonyms, number_key, session_key};
use crate::message::user_state;

/// Most numbers in one question.
const MAX_NUMBERS: usize = 1_000;
/// Longest body of a question, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A question that cannot be answered. Says nothing of what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The question is wrong.
    #[error("{0}")]
    BadRequest(&'static str),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// Too much at once.
    #[error("{0}")]
    Busy(&'static str),
    /// The database does not answer.
    #[error("state cannot be read: {0}")]
    Store(#[from] StoreError),
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Busy(_) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if matches!(self, Self::Busy(_) | Self::Store(_)) {
            response.insert_header(("Retry-After", "1"));
        }
        response.json(serde_json::json!({ "error": self.to_string() }))
    }
}

/// A list of numbers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    numbers: Vec<String>,
    #[serde(default)]
    at: Option<Timestamp>,
}

pub(super) async fn number(
    api: web::Data<Api>,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let at = instant(request.query_string())?;
    let number = path.into_inner();
    let mut answers = api.numbers(std::slice::from_ref(&number), at, None).await?;
    let freshness = api.freshness().await?;
    // One answer for one number.
    let answer = answers.pop().map(|it| NumberAnswer { freshness: Some(freshness), ..it });
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

pub(super) async fn numbers(
    api: web::Data<Api>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = read(payload).await?;
    let question: Numbers = serde_json::from_slice(&body)
        .map_err(|_| ApiError::BadRequest("body must be {\"numbers\": [text, ...]}"))?;
    if question.numbers.len() > MAX_NUMBERS {
        return Err(ApiError::BadRequest("at most 1000 numbers can be asked for at once"));
    }
    let answers = api.numbers(&question.numbers, question.at.map(to_millis), None).await?;
    let freshness = api.freshness().await?;
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(serde_json::json!({ "numbers": answers, "freshness": freshness })))
}

pub(super) async fn call(
    api: web::Data<Api>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let session_id = parameter(request.query_string(), "session_id")
        .map_err(|_| ApiError::BadRequest("session_id must be UTF-8"))?
        .filter(|text| !text.is_empty())
        .ok_or(ApiError::BadRequest("say which call: ?session_id=..."))?;
    let now_ms = now_ms();
    let as_of_ms = instant(request.query_string())?.unwrap_or(now_ms);
    let row = api.store.call(&session_key(&session_id, &[])).await?;
    let row = row.ok_or(ApiError::NotFound("no event of such a call has been applied"))?;
    let freshness = api.freshness().await?;
    let answer = timeline(&row, api.store.expiry(), as_of_ms, as_of_ms < now_ms, freshness)?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

impl Api {
    /// What these numbers are doing now, or were doing at an instant; one answer for each, in
    /// their order. With pseudonyms, numbers and session ids are replaced.
    pub(super) async fn numbers(
        &self,
        numbers: &[String],
        at_ms: Option<i64>,
        pseudonyms: Option<&Pseudonyms>,
    ) -> Result<Vec<NumberAnswer>, StoreError> {
        let now_ms = now_ms();
        let as_of_ms = at_ms.unwrap_or(now_ms);
        let past = as_of_ms < now_ms && at_ms.is_some();
        let keys: Vec<Key> = numbers.iter().map(|number| number_key(number)).collect();
        let found = self.store.numbers(&keys, as_of_ms, past).await?;
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

    async fn freshness(&self) -> Result<Freshness, StoreError> {
        Ok(Freshness::of(self.store.applied().await?))
    }
}

/// The instant asked for, in milliseconds.
fn instant(query: &str) -> Result<Option<i64>, ApiError> {
    const WRONG: ApiError =
        ApiError::BadRequest("at must be RFC 3339, such as 2026-01-31T12:00:00Z");
    let Some(text) = parameter(query, "at").map_err(|_| WRONG)? else { return Ok(None) };
    text.parse::<Timestamp>().map(|instant| Some(to_millis(instant))).map_err(|_| WRONG)
}

async fn read(payload: web::Payload) -> Result<web::Bytes, ApiError> {
    payload
        .to_bytes_limited(MAX_BODY_BYTES)
        .await
        .map_err(|_| ApiError::BadRequest("body is larger than 1 MiB"))?
        .map_err(|_| ApiError::BadRequest("body broke off"))
}
