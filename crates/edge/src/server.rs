//! The HTTP server: actix-http's connections on actix-server's workers.
//!
//! actix-web's own `HttpServer` gives no hold on a connection once it is accepted: to end one
//! from outside would take a second file descriptor for each. Its router and extractors would be
//! FIGURE of a request, for two paths.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_tls::accept::rustls_0_23::Acceptor;
use actix_web::dev::{Server, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::rt::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connection, Connections, Patience};
use crate::receive::{Receiver, answer};
use crate::service::EdgeError;
use crate::settings::Settings;
use crate::socket::{Socket, Stream};
use crate::tls;

/// For what an honest sender and the network take beside the deadlines.
const SLACK: Duration = Duration::from_secs(1);

/// Serves notifications at the listener, over so many connections at most, once it is awaited or
/// spawned. With `closing` its connections end, each with the request that is in progress on it.
pub fn serve(
    settings: &Settings,
    connections: usize,
    listener: TcpListener,
    receiver: &Arc<Receiver>,
    closing: CancellationToken,
) -> Result<Server, EdgeError> {
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        workers => workers,
    };
    let tls = tls::config(settings)?.map(Acceptor::new);
    let head_deadline = Duration::from_millis(settings.head_deadline_ms);
    let keep_alive = Duration::from_secs(settings.keep_alive_seconds);
    // A connection has it from its listener.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    let receiver = Arc::clone(receiver);
    let worker = move || {
        let (receiver, tls, closing) = (receiver.clone(), tls.clone(), closing.clone());
        let patience =
            Patience { idle: keep_alive.max(SLACK), most: keep_alive + head_deadline + SLACK };
        // Idleness is timed by `connections`.
        let keep_alive = if keep_alive.is_zero() { KeepAlive::Disabled } else { KeepAlive::Os };
        fn_factory(move || {
            let receiver = Rc::new(Arc::clone(&receiver));
            let answer = move |request| answer(Rc::clone(&receiver), request);
            let http = HttpService::build()
                .keep_alive(keep_alive)
                .client_request_timeout(head_deadline)
                .client_disconnect_timeout(SLACK)
                .on_connect_ext(|socket: &Socket, data| {
                    data.insert(Rc::clone(socket.connection()));
                })
                .h1(fn_service(answer));
            let (tls, closing) = (tls.clone(), closing.clone());
            async move {
                let http = Rc::new(http.new_service(()).await?);
                let tls = match tls {
                    Some(tls) => {
                        Some(Rc::new(ServiceFactory::<TcpStream>::new_service(&tls, ()).await?))
                    }
                    None => None,
                };
                let connections = Rc::new(Connections::new(patience));
                let all = Rc::clone(&connections);
                actix_web::rt::spawn(async move {
                    closing.cancelled().await;
                    all.close();
                });
                let serve = move |stream: TcpStream| {
                    let (http, tls) = (Rc::clone(&http), tls.clone());
                    let connections = Rc::clone(&connections);
                    // In a box, or the task would have room for it twice.
                    Box::pin(async move {
                        let peer = stream.peer_addr().ok();
                        let stream = match tls {
                            None => Stream::Plain(stream),
                            Some(tls) => match Box::pin(tls.call(stream)).await {
                                Ok(stream) => Stream::Tls(Box::new(stream)),
                                Err(_) => return Ok(()),
                            },
                        };
                        let connection = Rc::new(Connection::new(stream, peer, connections));
                        connection.serve(|socket| http.call((socket, peer))).await;
                        Ok::<_, ()>(())
                    })
                };
                Ok::<_, ()>(fn_service(serve))
            }
        })
    };
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections((connections / workers).max(1))
        .shutdown_timeout((settings.body_deadline_ms + settings.delivered_deadline_ms) / 1000 + 5)
        .disable_signals()
        .listen("notifications", listener, worker)?;
    Ok(server.run())
}
