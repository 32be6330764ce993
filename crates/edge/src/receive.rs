//! One request, from its head to its answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_http::body::BoxBody;
use actix_http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use actix_http::{ConnectionType, HttpMessage as _, Method, Payload, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tollgate_schema::v1::Authenticity;
use tollgate_spool::{Encoded, Request};
use tollgate_stream::now_ms;
use tollgate_voicecall::{Peek, is_well_formed, peek};

use crate::ack::Acknowledger;
use crate::admission::Budget;
use crate::applications::{Applications, Known};
use crate::body::{self, Body, Limits, NoBody};
use crate::connections::Busy;
use crate::decode::Decoder;
use crate::meters::{Acknowledged, Held};
use crate::metrics::{ABORTED, REFUSED, REQUESTS};
use crate::quota::Quota;
use crate::refusal::{JSON, Refusal};
use crate::settings::{Ack, Settings};

/// Where notifications are taken, by themselves and behind a path secret.
pub const PATHS: [&str; 2] = ["/status", "/fee"];

/// What the platform reads when its notification was taken.
const SUCCESS: &str = r#"{"resultcode":"0","resultdesc":"Success"}"#;

const X_AKSK: HeaderName = HeaderName::from_static("x-aksk");
const X_WSSE: HeaderName = HeaderName::from_static("x-wsse");

/// Bytes of an authentication header that are kept; a longer one cannot be right.
const HEADER_BYTES: usize = 4096;

/// Everything a request needs, shared by all workers.
pub struct Receiver {
    /// Name of this edge.
    edge_id: String,
    /// Contract where the application does not say.
    ack: Ack,
    /// Limits of a body.
    limits: Limits,
    /// Memory of bodies.
    budget: Budget,
    /// Malformed bytes by path.
    quota: Arc<Quota>,
    /// Who is configured.
    applications: Arc<Applications>,
    /// Reads bodies, where a rule needs it before the answer.
    decoder: Arc<Decoder>,
    /// Makes it durable.
    acknowledger: Acknowledger,
    /// Set while the process shuts down: connections are closed after their answer.
    draining: AtomicBool,
    /// How many there are.
    progress: Progress,
    /// Counts those.
    meters: Acknowledged,
}

/// Written by all workers for each request, so apart from what they only read.
#[derive(Default)]
#[repr(align(128))]
struct Progress {
    /// Requests between head and answer.
    open: AtomicUsize,
    /// Notifications that came since the start.
    taken: AtomicU64,
    /// Those answered 200.
    acknowledged: AtomicU64,
}

/// Answers one request.
#[expect(
    clippy::redundant_allocation,
    reason = "a count that all workers write for each request would go to and fro between them"
)]
pub async fn answer(
    receiver: Rc<Arc<Receiver>>,
    mut request: actix_http::Request,
) -> Result<Response<BoxBody>, Infallible> {
    let started = Instant::now();
    let mut payload = request.take_payload();
    let mut open = Open::new(&receiver, &request);
    let taken = match receiver.path(request.path()) {
        Ok(known) => receiver.take(request, &mut payload, known, &open.busy).await,
        Err(refusal) => Err(refusal.into()),
    };
    let mut response = match taken {
        Ok((held, length)) => {
            open.answered = true;
            receiver.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            receiver.meters.count(held, length, started.elapsed().as_secs_f64());
            success()
        }
        Err(NoBody::Refused(refusal)) => {
            open.answered = true;
            refuse(refusal, payload)
        }
        // Read only by a sender that broke off and still listens.
        Err(NoBody::Aborted) => Refusal::BrokenBody.response(payload),
    };
    if receiver.is_draining() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

fn success() -> Response<BoxBody> {
    let mut response = Response::with_body(StatusCode::OK, SUCCESS);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.map_into_boxed_body()
}

/// Counts a refusal and answers it.
fn refuse(refusal: Refusal, unread: Payload) -> Response<BoxBody> {
    let status = match refusal.status().as_u16() {
        400 => "400",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        _ => "503",
    };
    metrics::counter!(REQUESTS.name, "status" => status).increment(1);
    metrics::counter!(REFUSED.name, "reason" => refusal.reason()).increment(1);
    refusal.response(unread)
}

/// A request between its head and its answer. Dropped without an answer it counts as aborted:
/// actix-http drops a request's future when its connection breaks.
struct Open<'a> {
    receiver: &'a Receiver,
    answered: bool,
    busy: Busy,
}

impl<'a> Open<'a> {
    fn new(receiver: &'a Receiver, request: &actix_http::Request) -> Self {
        receiver.progress.open.fetch_add(1, Ordering::Relaxed);
        Self { receiver, answered: false, busy: Busy::on(request) }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.receiver.progress.open.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            metrics::counter!(ABORTED.name).increment(1);
        }
    }
}

impl Receiver {
    /// No request yet.
    pub fn new(
        settings: &Settings,
        applications: Arc<Applications>,
        quota: Arc<Quota>,
        decoder: Arc<Decoder>,
        acknowledger: Acknowledger,
    ) -> Self {
        Self {
            edge_id: settings.edge_id.clone(),
            ack: settings.ack,
            limits: Limits {
                max_bytes: settings.max_body_bytes,
                deadline: Duration::from_millis(settings.body_deadline_ms),
            },
            budget: Budget::new(settings.body_budget_bytes),
            quota,
            applications,
            decoder,
            acknowledger,
            draining: AtomicBool::new(false),
            progress: Progress::default(),
            meters: Acknowledged::new(),
        }
    }

    /// Connections are closed after their answer from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests between head and answer.
    pub fn open(&self) -> usize {
        self.progress.open.load(Ordering::Relaxed)
    }

    /// Notifications that came since the start.
    pub fn taken(&self) -> u64 {
        self.progress.taken.load(Ordering::Relaxed)
    }

    /// Those answered 200.
    pub fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// What a path says about the application: nothing (`/status`, `/fee`), or its secret
    /// (`/<secret>/status`, `/<secret>/fee`).
    fn path(&self, path: &str) -> Result<Option<&Known>, Refusal> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| Refusal::UnknownPath)?;
        let start = PATHS.iter().find_map(|end| path.strip_suffix(end));
        match start.ok_or(Refusal::UnknownPath)? {
            "" => Ok(None),
            start => {
                let secret = start.strip_prefix('/').ok_or(Refusal::UnknownPath)?;
                let known = self.applications.by_path_secret(secret);
                Ok(Some(known.ok_or(Refusal::UnknownPath)?))
            }
        }
    }

    async fn take(
        &self,
        request: actix_http::Request,
        payload: &mut Payload,
        known: Option<&Known>,
        busy: &Busy,
    ) -> Result<(Held, u64), NoBody> {
        if request.method() != Method::POST {
            return Err(Refusal::Method.into());
        }
        self.progress.taken.fetch_add(1, Ordering::Relaxed);
        let reserved = self.is_reserved();
        let Body { bytes, share } =
            body::read(payload, announced(&request), self.limits, &self.budget, reserved, busy)
                .await?;
        let length = bytes.len() as u64;
        let encoded = self.encode(&request, &bytes, known, busy.peer(), reserved)?;
        // The next request gets their memory, while it is in the cache.
        drop((request, bytes));
        let contract = known.and_then(|known| known.settings.ack).unwrap_or(self.ack);
        let held = self.acknowledger.acknowledge(encoded, share, contract).await;
        Ok((held?, length))
    }

    fn is_reserved(&self) -> bool {
        self.acknowledger.spool.is_reserved() || self.budget.is_reserved()
    }

    /// What is kept of a request, unless a look into its body says that it is refused.
    fn encode(
        &self,
        request: &actix_http::Request,
        body: &[u8],
        known: Option<&Known>,
        peer: &str,
        reserved: bool,
    ) -> Result<Encoded, Refusal> {
        let authorization = header(request, AUTHORIZATION);
        let signature = header(request, X_AKSK).or_else(|| header(request, X_WSSE));
        let notification = Request {
            application: known.map_or("", |known| &known.settings.app_key),
            utc_offset_minutes: known.map(|known| known.settings.utc_offset_minutes),
            received_at_ms: now_ms(),
            edge_id: &self.edge_id,
            peer,
            authorization: authorization.as_deref(),
            signature: signature.as_deref(),
            body,
        };
        self.look(&notification, reserved, known)?;
        Ok(notification.encode())
    }

    /// The few looks into a body that must come before the answer. Most requests pass untouched.
    fn look(
        &self,
        notification: &Request<'_>,
        reserved: bool,
        known: Option<&Known>,
    ) -> Result<(), Refusal> {
        if reserved && peek(notification.body) == Peek::Cdr {
            return Err(Refusal::Reserved);
        }
        let path = known.map_or("", |known| known.settings.app_key.as_str());
        if self.quota.is_spent(path, notification.received_at_ms)
            && !is_well_formed(notification.body)
        {
            return Err(Refusal::MalformedQuota);
        }
        if self.applications.any_enforces() {
            self.authenticate(notification)?;
        }
        Ok(())
    }

    fn authenticate(&self, notification: &Request<'_>) -> Result<(), Refusal> {
        let identity = self.decoder.identify(notification);
        let verified =
            !matches!(identity.authenticity, Authenticity::Absent | Authenticity::Failed);
        // Verified as one application is not verified as another.
        let passes = |app_key: &str| {
            let known = self.applications.by_key(app_key);
            let enforces = known.is_some_and(|known| known.settings.enforce_authentication);
            !enforces || (verified && app_key == identity.application)
        };
        // A CDR names its application itself, whatever path it came by.
        if passes(identity.application)
            && self.decoder.app_keys(notification).all(|app_key| passes(&app_key))
        {
            return Ok(());
        }
        self.decoder.count_signature(identity.authenticity);
        Err(Refusal::NotAuthenticated)
    }
}

/// A header as text, as much as is kept of it.
fn header(request: &actix_http::Request, name: HeaderName) -> Option<Cow<'_, str>> {
    let bytes = request.headers().get(name)?.as_bytes();
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(HEADER_BYTES)]))
}

fn announced(request: &actix_http::Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_http::body::to_bytes;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::Value;

    use super::*;

    /// I10. Some of them no test of a whole edge can have.
    #[tokio::test]
    async fn every_refusal_is_counted_once_by_the_reason_and_the_status_that_are_answered() {
        let mut reasons = BTreeSet::new();
        for refusal in Refusal::ALL {
            let recorder = PrometheusBuilder::new().build_recorder();
            let answer = metrics::with_local_recorder(&recorder, || refuse(refusal, Payload::None));
            let status = answer.status().as_u16();
            let body = to_bytes(answer.into_body()).await.unwrap();
            let reason = serde_json::from_slice::<Value>(&body).unwrap()["resultdesc"].to_string();
            let page = recorder.handle().render();
            let mut counted: Vec<_> =
                page.lines().filter(|line| line.starts_with("tollgate_")).collect();
            counted.sort_unstable();
            let expected = [
                format!("tollgate_edge_refused_total{{reason={reason}}} 1"),
                format!("tollgate_edge_requests_total{{status=\"{status}\"}} 1"),
            ];
            assert_eq!(counted, expected);
            reasons.insert(reason);
        }
        assert_eq!(reasons.len(), Refusal::ALL.len());
    }
}
