//! Questions to the query listener and why they are refused: the same for whoever answers them.

use std::fmt::Display;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::Query;
use actix_web::{HttpResponse, ResponseError};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Seconds after which a client may ask again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A question that is not answered. No text of it repeats what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    status: StatusCode,
    error: String,
    hint: &'static str,
}

impl Refusal {
    /// `hint` says what to ask, or to do, instead.
    pub fn new(status: StatusCode, error: impl Into<String>, hint: &'static str) -> Self {
        Self { status, error: error.into(), hint }
    }

    /// The question makes no sense.
    pub fn invalid(error: impl Into<String>, hint: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    /// The database could not be asked; some of its errors pass by themselves.
    pub fn of_database(error: &impl Display, passes: bool) -> Self {
        let (status, hint) = if passes {
            (StatusCode::SERVICE_UNAVAILABLE, "ask again in a few seconds")
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, "an operator has to look at the database")
        };
        Self::new(status, error.to_string(), hint)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        response.json(json!({ "error": self.error, "hint": self.hint }))
    }
}

/// Reads a query string into a `T` that denies unknown fields. A plus sign is a plus sign: numbers,
/// session ids and zone offsets contain it, and none of the parameters contains a blank.
pub fn read<T: DeserializeOwned>(query: &str, hint: &'static str) -> Result<T, Refusal> {
    // Decoding replaces what is not UTF-8, and so would ask for something else.
    let is_utf8 = percent_decode_str(query).decode_utf8().is_ok();
    match Query::from_query(&query.replace('+', "%2B")) {
        Ok(Query(parameters)) if is_utf8 => Ok(parameters),
        _ => {
            Err(Refusal::invalid("a parameter is missing, not known, doubled, or malformed", hint))
        }
    }
}

/// Refuses whatever parameter is given to a question that takes none.
pub fn read_none(query: &str) -> Result<(), Refusal> {
    if query.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid("a parameter is not known", "ask without any"))
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        number: String,
        limit: Option<usize>,
    }

    fn number(query: &str) -> Option<String> {
        read::<Parameters>(query, "hint").ok().map(|it| it.number)
    }

    #[test]
    fn a_number_survives_encoded_or_pasted() {
        for query in ["number=+8613800000021", "limit=1&number=%2B8613800000021"] {
            assert_eq!(number(query).as_deref(), Some("+8613800000021"));
        }
        assert_eq!(number("number=a%20b%00").as_deref(), Some("a b\0"));
    }

    #[test]
    fn what_is_missing_unknown_doubled_or_malformed_is_refused() {
        for query in [
            "",
            "limit=1",
            "nubmer=1",
            "number=1&limti=1",
            "number=1&number=1",
            "number=1&limit=x",
            "number=%FF",
            "number=1&%FF",
        ] {
            assert_eq!(number(query), None, "{query}");
        }
        assert_eq!(read_none(""), Ok(()));
        assert!(read_none("number=1").is_err());
    }

    #[actix_web::test]
    async fn a_refusal_has_a_hint_and_says_when_to_come_again_if_that_helps() {
        for (refusal, status, retry_after) in [
            (Refusal::invalid("wrong", "hint"), 400, None),
            (Refusal::of_database(&"away", true), 503, Some("1")),
            (Refusal::of_database(&"wrong password", false), 500, None),
        ] {
            let response = refusal.error_response();
            assert_eq!(response.status(), status);
            let shown = response.headers().get(RETRY_AFTER).map(|it| it.to_str().unwrap());
            assert_eq!(shown, retry_after);
            let body: Value =
                serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!(body["error"], refusal.to_string());
            assert!(body["hint"].is_string(), "{body}");
        }
    }
}
