//! Every answer that is not 200, its reason, and what the sender reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_http::{Payload, Response, StatusCode};
use actix_web::web::Bytes;

/// What every answer is, a 200 too.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");

/// Why a notification was not taken. Nothing of it has been stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The path has spent its quota of bytes that are not JSON, and this body is not either.
    MalformedQuota,
    /// The application enforces authentication and this request is not verified.
    NotAuthenticated,
    /// No such path.
    UnknownPath,
    /// Not POST.
    Method,
    /// The body did not arrive in time.
    SlowBody,
    /// The connection broke before the body was complete.
    BrokenBody,
    /// The body is larger than the limit.
    TooLarge,
    /// The spool has reached its bound.
    SpoolFull,
    /// Kept free for status notifications; this is a CDR, which comes again.
    Reserved,
    /// The spool's disk fails.
    DiskFailing,
    /// More is waiting than can be taken.
    Overloaded,
    /// `delivered` without a fallback, and Kafka did not confirm in time.
    NotDelivered,
    /// Shutting down.
    Draining,
}

impl Refusal {
    /// Each of them.
    #[cfg(test)]
    pub const ALL: [Self; 13] = [
        Self::MalformedQuota,
        Self::NotAuthenticated,
        Self::UnknownPath,
        Self::Method,
        Self::SlowBody,
        Self::BrokenBody,
        Self::TooLarge,
        Self::SpoolFull,
        Self::Reserved,
        Self::DiskFailing,
        Self::Overloaded,
        Self::NotDelivered,
        Self::Draining,
    ];

    /// Label of the metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::MalformedQuota => "malformed_quota",
            Self::NotAuthenticated => "not_authenticated",
            Self::UnknownPath => "unknown_path",
            Self::Method => "method",
            Self::SlowBody => "slow_body",
            Self::BrokenBody => "broken_body",
            Self::TooLarge => "too_large",
            Self::SpoolFull => "spool_full",
            Self::Reserved => "reserved_for_status",
            Self::DiskFailing => "disk_failing",
            Self::Overloaded => "overloaded",
            Self::NotDelivered => "not_delivered",
            Self::Draining => "draining",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedQuota | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::NotAuthenticated => StatusCode::FORBIDDEN,
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SpoolFull
            | Self::Reserved
            | Self::DiskFailing
            | Self::Overloaded
            | Self::NotDelivered
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Seconds after which trying again makes sense.
    fn retry_after(self) -> Option<&'static str> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(match self {
            Self::SpoolFull | Self::Reserved | Self::DiskFailing => "60",
            _ => "1",
        })
    }

    /// The whole answer. `unread` is what the request has of a body beyond what was read.
    pub fn response(self, unread: Payload) -> Response<BoxBody> {
        let text = format!(
            r#"{{"resultcode":"{}","resultdesc":"{}"}}"#,
            self.status().as_u16(),
            self.reason()
        );
        let answer = BoxBody::new(Answer { text: text.into(), _unread: unread });
        let mut response = Response::with_body(self.status(), answer);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// A refusal's text. As long as it is being sent it holds on to the unread rest of the body:
/// actix-http then closes the connection behind it, whereas it would read a chunked body that
/// nobody wants to its end, which need not come.
struct Answer {
    text: Bytes,
    _unread: Payload,
}

impl MessageBody for Answer {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.text.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let text = std::mem::take(&mut self.text);
        Poll::Ready((!text.is_empty()).then_some(Ok(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_503_says_when_to_try_again_and_nothing_is_a_redirect() {
        for refusal in Refusal::ALL {
            let response = refusal.response(Payload::None);
            assert!(response.status().is_client_error() || response.status().is_server_error());
            let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key("Retry-After"), unavailable, "{refusal:?}");
        }
    }
}
