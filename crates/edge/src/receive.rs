//! One request, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use actix_web::http::{ConnectionType, Method};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use tollgate_schema::v1::Authenticity;
use tollgate_spool::Request;
use tollgate_voicecall::{Peek, is_well_formed, peek};

use crate::ack::{Acknowledger, Held};
use crate::admission::Budget;
use crate::applications::{Applications, Known};
use crate::body::{self, Body, Limits, NoBody};
use crate::connections::Busy;
use crate::decode::Decoder;
use crate::meters::Acknowledged;
use crate::metrics::{ABORTED, REFUSED, REQUESTS};
use crate::quota::Quota;
use crate::refusal::Refusal;
use crate::settings::Ack;

/// What the platform reads when its notification was taken.
const SUCCESS: &str = r#"{"resultcode":"0","resultdesc":"Success"}"#;

/// Bytes of an authentication header that are kept; a longer one cannot be right.
const HEADER_BYTES: usize = 4096;

/// Everything a request needs, shared by all workers.
pub struct Receiver {
    /// Name of this edge.
    pub edge_id: String,
    /// Contract where the application does not say.
    pub ack: Ack,
    /// Limits of a body.
    pub limits: Limits,
    /// Memory of bodies.
    pub budget: Budget,
    /// Malformed bytes by path.
    pub quota: Arc<Quota>,
    /// Who is configured.
    pub applications: Arc<Applications>,
    /// Reads bodies, where a rule needs it before the answer.
    pub decoder: Arc<Decoder>,
    /// Makes it durable.
    pub acknowledger: Acknowledger,
    /// Set while the process shuts down: connections are closed after their answer.
    pub draining: AtomicBool,
    /// Requests between head and answer.
    pub open: AtomicUsize,
    /// Notifications that came since the start.
    pub taken: AtomicU64,
    /// Those answered 200.
    pub acknowledged: AtomicU64,
    /// Counts those.
    pub meters: Acknowledged,
}

/// `/status` and `/fee`: no application is named by the path.
pub async fn open_path(
    request: HttpRequest,
    payload: web::Payload,
    receiver: web::Data<Receiver>,
) -> HttpResponse {
    answer(&receiver, &request, payload, Ok(None)).await
}

/// `/<secret>/status` and `/<secret>/fee`.
pub async fn secret_path(
    request: HttpRequest,
    payload: web::Payload,
    receiver: web::Data<Receiver>,
) -> HttpResponse {
    let secret = request.match_info().get("secret").unwrap_or_default();
    let known = receiver.applications.by_path_secret(secret).ok_or(Refusal::UnknownPath);
    answer(&receiver, &request, payload, known.map(Some)).await
}

/// Anything else.
pub async fn unknown_path(
    request: HttpRequest,
    payload: web::Payload,
    receiver: web::Data<Receiver>,
) -> HttpResponse {
    answer(&receiver, &request, payload, Err(Refusal::UnknownPath)).await
}

/// `path` is what the path says about the application.
async fn answer(
    receiver: &Receiver,
    request: &HttpRequest,
    payload: web::Payload,
    path: Result<Option<&Known>, Refusal>,
) -> HttpResponse {
    let started = Instant::now();
    let mut payload = payload.into_inner();
    let mut open = Open::new(receiver, request);
    let taken = match path {
        Ok(known) => receiver.take(request, &mut payload, known).await,
        Err(refusal) => Err(NoBody::Refused(refusal)),
    };
    let mut response = match taken {
        Ok((held, length)) => {
            open.answered = true;
            receiver.acknowledged.fetch_add(1, Ordering::Relaxed);
            receiver.meters.count(held, length, started.elapsed().as_secs_f64());
            HttpResponse::Ok().content_type("application/json;charset=UTF-8").body(SUCCESS)
        }
        Err(NoBody::Refused(refusal)) => {
            open.answered = true;
            count(refusal);
            refusal.response(payload)
        }
        // Read only by a sender that broke off and still listens.
        Err(NoBody::Aborted) => Refusal::BrokenBody.response(payload),
    };
    if receiver.draining.load(Ordering::Relaxed) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

fn count(refusal: Refusal) {
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
}

/// A request between its head and its answer. Dropped without an answer it counts as aborted:
/// actix-web drops a request's future when its connection breaks.
struct Open<'a> {
    receiver: &'a Receiver,
    answered: bool,
    _busy: Busy,
}

impl<'a> Open<'a> {
    fn new(receiver: &'a Receiver, request: &HttpRequest) -> Self {
        receiver.open.fetch_add(1, Ordering::Relaxed);
        Self { receiver, answered: false, _busy: Busy::on(request) }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.receiver.open.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            metrics::counter!(ABORTED.name).increment(1);
        }
    }
}

impl Receiver {
    async fn take(
        &self,
        request: &HttpRequest,
        payload: &mut Payload,
        known: Option<&Known>,
    ) -> Result<(Held, u64), NoBody> {
        if request.method() != Method::POST {
            return Err(NoBody::Refused(Refusal::Method));
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        let reserved = self.is_reserved();
        let Body { bytes, share } =
            body::read(payload, announced(request), self.limits, &self.budget, reserved).await?;
        let length = bytes.len() as u64;
        let notification = self.notification(request, bytes, known);
        self.look(&notification, reserved, known).map_err(NoBody::Refused)?;
        let contract = known.and_then(|known| known.settings.ack).unwrap_or(self.ack);
        let held = self.acknowledger.acknowledge(notification, share, contract).await;
        Ok((held.map_err(NoBody::Refused)?, length))
    }

    fn is_reserved(&self) -> bool {
        self.acknowledger.spool_usage().is_in_reserve() || self.budget.is_reserved()
    }

    fn notification(&self, request: &HttpRequest, body: Bytes, known: Option<&Known>) -> Request {
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            let bytes = value.as_bytes();
            let kept = &bytes[..bytes.len().min(HEADER_BYTES)];
            Some(String::from_utf8_lossy(kept).into_owned())
        };
        Request {
            application: known.map_or_else(String::new, |known| known.settings.app_key.clone()),
            received_at_ms: now_ms(),
            edge_id: self.edge_id.clone(),
            peer: request.peer_addr().map_or_else(String::new, |peer| peer.ip().to_string()),
            authorization: header(AUTHORIZATION.as_str()),
            signature: header("x-aksk").or_else(|| header("x-wsse")),
            body,
        }
    }

    /// The few looks into a body that must come before the answer. Most requests pass untouched.
    fn look(
        &self,
        notification: &Request,
        reserved: bool,
        known: Option<&Known>,
    ) -> Result<(), Refusal> {
        if reserved && peek(&notification.body) == Peek::Cdr {
            return Err(Refusal::Reserved);
        }
        let path = known.map_or("", |known| known.settings.app_key.as_str());
        if self.quota.is_spent(path, notification.received_at_ms)
            && !is_well_formed(&notification.body)
        {
            return Err(Refusal::MalformedQuota);
        }
        if self.applications.any_enforces() {
            self.authenticate(notification)?;
        }
        Ok(())
    }

    fn authenticate(&self, notification: &Request) -> Result<(), Refusal> {
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
        Err(Refusal::NotAuthenticated)
    }
}

fn announced(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
