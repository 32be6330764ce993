//! HTTP listeners besides ingest: small, with one worker, loopback or behind a token.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer, ResponseError as _, web};
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::metrics::QUERY_REQUESTS;
use crate::query::Refusal;

/// Connections at a time for whoever looks how a process is.
const MAX_OPEN: usize = 64;
/// Connections at a time for queries, watchers of a feed among them.
const MAX_WITH_TOKEN: usize = 10_000;

/// How long an answer may take to begin, which for checks of a large ledger is minutes: what asks a
/// database that is gone without a word would keep its connection for ever.
const ANSWER: Duration = Duration::from_mins(30);

/// A listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {what}: {reason}; is another instance running? choose another address in the settings"
)]
pub struct ListenError {
    /// For what.
    pub what: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub reason: std::io::Error,
}

/// Opens a listening socket with this backlog.
pub fn bind(
    what: &'static str,
    address: SocketAddr,
    backlog: i32,
) -> Result<TcpListener, ListenError> {
    let open = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|reason| ListenError { what, address, reason })
}

/// Who may ask.
#[derive(Clone)]
pub enum Access {
    /// Everybody who reaches the port: no personal data there.
    Open,
    /// Whoever shows this bearer token; without one, everybody on loopback.
    Token(Option<Arc<str>>),
}

/// Serves the routes until the token is cancelled. The future ends when the last request is done
/// or five seconds have passed; it must be awaited or spawned for anything to be served.
pub fn serve(
    listener: TcpListener,
    access: Access,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<Server> {
    serve_patiently(listener, access, ANSWER, routes, stop)
}

fn serve_patiently(
    listener: TcpListener,
    access: Access,
    patience: Duration,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<Server> {
    let connections = limits::within_open_files(match access {
        Access::Open => MAX_OPEN,
        Access::Token(_) => MAX_WITH_TOKEN,
    });
    let factory = move || {
        let access = access.clone();
        App::new()
            .wrap(from_fn(move |request, next| guard(access.clone(), patience, request, next)))
            .configure(routes.clone())
            .default_service(web::route().to(not_found))
    };
    let server = HttpServer::new(factory)
        .workers(1)
        .max_connections(connections)
        .client_request_timeout(Duration::from_secs(5))
        .shutdown_timeout(5)
        .shutdown_signal(async move { stop.cancelled().await })
        .listen(listener)?
        .run();
    Ok(server)
}

async fn not_found() -> HttpResponse {
    Refusal::new(StatusCode::NOT_FOUND, "no such page", "see docs/api.md for the paths")
        .error_response()
}

async fn guard(
    access: Access,
    patience: Duration,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if let Access::Token(Some(token)) = &access {
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let right = shown.is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(token.as_bytes())));
        if !right {
            metrics::counter!(QUERY_REQUESTS.name, "status" => "401").increment(1);
            let refusal = Refusal::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed",
                "send `Authorization: Bearer …` with the content of listeners.query_token_file",
            );
            let mut answer = refusal.error_response();
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Ok(request.into_response(answer).map_into_right_body());
        }
    }
    let counted = matches!(access, Access::Token(_));
    let Ok(response) = timeout(patience, next.call(request)).await else {
        metrics::counter!(QUERY_REQUESTS.name, "status" => "5xx").increment(1);
        let refusal = Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer",
            "ask again; if that helps nothing, look at the database and the network to it",
        );
        return Err(refusal.into());
    };
    let response = response?;
    if counted {
        let status = match response.status().as_u16() {
            200..=299 => "2xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        metrics::counter!(QUERY_REQUESTS.name, "status" => status).increment(1);
    }
    Ok(response.map_into_left_body())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Health;

    async fn get(address: SocketAddr, token: Option<&str>) -> u16 {
        let mut request = reqwest::Client::new().get(format!("http://{address}/page"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    }

    #[actix_web::test]
    async fn a_query_listener_with_a_token_answers_only_those_who_show_it() {
        let listener = bind("test", ([127, 0, 0, 1], 0).into(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = |config: &mut web::ServiceConfig| {
            config.route("/page", web::get().to(|| async { "page" }));
        };
        let access = Access::Token(Some("open-sesame".into()));
        let serving = tokio::spawn(serve(listener, access, routes, stop.clone()).unwrap());
        assert_eq!(get(address, None).await, 401);
        let refused = reqwest::get(format!("http://{address}/page")).await.unwrap();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        assert_eq!(get(address, Some("wrong")).await, 401);
        assert_eq!(get(address, Some("open-sesame")).await, 200);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[actix_web::test]
    async fn what_is_not_answered_in_time_is_answered_503() {
        let listener = bind("test", ([127, 0, 0, 1], 0).into(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = |config: &mut web::ServiceConfig| {
            config.route("/page", web::get().to(std::future::pending::<HttpResponse>));
        };
        let patience = Duration::from_millis(50);
        let access = Access::Token(None);
        let serving = serve_patiently(listener, access, patience, routes, stop.clone()).unwrap();
        let serving = tokio::spawn(serving);
        assert_eq!(get(address, None).await, 503);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[test]
    fn a_process_is_ready_when_it_has_started_and_no_check_fails() {
        let health = Health::default();
        assert!(!health.failing().is_empty());
        health.started();
        assert!(health.failing().is_empty());
        health.add("spool", || Err("disk is full".into()));
        assert_eq!(health.failing(), vec![("spool", "disk is full".to_owned())]);
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind("test", ([127, 0, 0, 1], 0).into(), 16).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("health", address, 16).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()));
    }
}
