//! HTTP listeners besides ingest: small, with one worker, loopback or behind a token.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{self, BoxBody, MessageBody};
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::guard::{Any, Get, Guard, Head, Post};
use actix_web::http::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{
    App, FromRequest, Handler, HttpResponse, HttpServer, Resource, Responder, ResponseError as _,
    web,
};
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

/// A page to be looked at: GET, or HEAD, which is answered the same without a body.
pub fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    page(path, Any(Get()).or(Head()), "GET, HEAD", handler)
}

/// A page to which a question is posted.
pub fn post<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    page(path, Post(), "POST", handler)
}

/// The methods are the route's, not the page's: `ServiceConfig::route` would make a page of each, and
/// another method find none.
fn page<F, Args>(
    path: &str,
    methods: impl Guard + 'static,
    allow: &'static str,
    handler: F,
) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::route().guard(methods).to(handler))
        .default_service(web::to(move || async move { not_allowed(allow) }))
}

fn not_allowed(allow: &'static str) -> HttpResponse {
    let error = "this page does not know the method";
    let hint = "use one that the header `Allow` names";
    let mut answer = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error, hint).error_response();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
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
    let is_head = request.method() == Method::HEAD;
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
    if is_head {
        // The body of a feed would never end.
        return Ok(response.map_body(|_, _| BoxBody::new(body::None::new())).map_into_right_body());
    }
    Ok(response.map_into_left_body())
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use actix_web::body::BodySize;
    use actix_web::web::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

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
            config.service(super::get("/page", || async { "page" }));
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
            config.service(super::get("/page", std::future::pending::<HttpResponse>));
        };
        let patience = Duration::from_millis(50);
        let access = Access::Token(None);
        let serving = serve_patiently(listener, access, patience, routes, stop.clone()).unwrap();
        let serving = tokio::spawn(serving);
        assert_eq!(get(address, None).await, 503);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    struct Endless;

    impl MessageBody for Endless {
        type Error = std::io::Error;

        fn size(&self) -> BodySize {
            BodySize::Stream
        }

        fn poll_next(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, Self::Error>>> {
            Poll::Pending
        }
    }

    /// What is answered to this request, and behind it on the same connection to one for `/page`.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let both = format!(
            "{request} HTTP/1.1\r\nHost: test\r\n\r\n\
             GET /page HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        );
        connection.write_all(both.as_bytes()).await.unwrap();
        let mut answers = String::new();
        let read = connection.read_to_string(&mut answers);
        timeout(Duration::from_mins(1), read).await.expect("a body without an end").unwrap();
        answers.to_lowercase()
    }

    #[actix_web::test]
    async fn a_page_answers_head_like_get_without_a_body_and_405_to_other_methods() {
        let listener = bind("test", ([127, 0, 0, 1], 0).into(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = |config: &mut web::ServiceConfig| {
            config
                .service(super::get("/page", || async { "the body" }))
                .service(super::get("/feed", || async { HttpResponse::Ok().body(Endless) }))
                .service(post("/page/question", || async { "the body" }))
                .service(super::get("/page/{name}", || async { "the body" }));
        };
        let access = Access::Token(None);
        let serving = tokio::spawn(serve(listener, access, routes, stop.clone()).unwrap());
        for request in ["HEAD /page", "HEAD /feed", "HEAD /page/name"] {
            let answers = ask(address, request).await;
            assert_eq!(answers.matches("200 ok").count(), 2, "{request}: {answers}");
            assert_eq!(answers.matches("the body").count(), 1, "{request}: {answers}");
        }
        for (request, allow) in [
            ("POST /page", "get, head"),
            ("DELETE /feed", "get, head"),
            ("GET /page/question", "post"),
            ("HEAD /page/question", "post"),
        ] {
            let answers = ask(address, request).await;
            assert!(answers.starts_with("http/1.1 405"), "{request}: {answers}");
            assert!(answers.contains(&format!("allow: {allow}\r\n")), "{request}: {answers}");
            let has_hint = answers.contains("\"hint\":");
            assert_eq!(has_hint, !request.starts_with("HEAD"), "{request}: {answers}");
        }
        assert!(ask(address, "HEAD /nothing").await.starts_with("http/1.1 404"));
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
