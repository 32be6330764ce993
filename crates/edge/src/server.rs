//! The HTTP server: actix-http's connections on actix-server's workers.
//!
//! actix-web's own `HttpServer` gives no hold on a connection once it is accepted: to end one
//! from outside would take a second file descriptor for each. Without its router and extractors,
//! which two paths hardly need, a request also takes 0.8 µs less, of some ten.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_tls::accept::rustls_0_23::{Acceptor, AcceptorService};
use actix_web::dev::{Server, Service, ServiceFactory, fn_factory, fn_service};
use actix_web::rt::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::connections::{Connection, Connections};
use crate::error::EdgeError;
use crate::idleness::Patience;
use crate::receive::{Receiver, answer};
use crate::settings::Settings;
use crate::socket::{Socket, Stream};
use crate::tls;

/// For what an honest sender and the network take beside the deadlines.
const SLACK: Duration = Duration::from_secs(1);

/// What a worker is started with.
#[derive(Clone)]
struct Worker {
    receiver: Arc<Receiver>,
    tls: Option<Acceptor>,
    head_deadline: Duration,
    keep_alive: Duration,
    closing: CancellationToken,
}

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
    let worker = Worker {
        receiver: Arc::clone(receiver),
        tls: tls::config(settings)?.map(Acceptor::new),
        head_deadline: Duration::from_millis(settings.head_deadline_ms),
        keep_alive: Duration::from_secs(settings.keep_alive_seconds),
        closing,
    };
    // A connection has it from its listener.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections((connections / workers).max(1))
        .shutdown_timeout((settings.body_deadline_ms + settings.delivered_deadline_ms) / 1000 + 5)
        .disable_signals()
        .listen("notifications", listener, move || {
            let worker = worker.clone();
            fn_factory(move || worker.clone().start())
        })?;
    Ok(server.run())
}

impl Worker {
    /// To be called on the worker's thread.
    async fn start(self) -> Result<impl Service<TcpStream, Response = (), Error = ()>, ()> {
        let receiver = Rc::new(self.receiver);
        let http = HttpService::build()
            // Idleness is timed by `connections`.
            .keep_alive(match self.keep_alive {
                Duration::ZERO => KeepAlive::Disabled,
                _ => KeepAlive::Os,
            })
            .client_request_timeout(self.head_deadline)
            .client_disconnect_timeout(SLACK)
            .on_connect_ext(|socket: &Socket, data| {
                data.insert(Rc::clone(socket.connection()));
            })
            .h1(fn_service(move |request| answer(Rc::clone(&receiver), request)));
        let http = Rc::new(http.new_service(()).await?);
        let tls = match self.tls {
            Some(tls) => Some(Rc::new(ServiceFactory::<TcpStream>::new_service(&tls, ()).await?)),
            None => None,
        };
        let connections = Rc::new(Connections::new(Patience {
            idle: self.keep_alive.max(SLACK),
            most: self.keep_alive + self.head_deadline + SLACK,
        }));
        let all = Rc::clone(&connections);
        actix_web::rt::spawn(async move {
            self.closing.cancelled().await;
            all.close();
        });
        Ok(fn_service(move |stream| {
            let (http, tls, all) = (Rc::clone(&http), tls.clone(), Rc::clone(&connections));
            // In a box, or the task would have room for it twice.
            Box::pin(async move {
                serve_connection(stream, tls, all, &*http).await;
                Ok(())
            })
        }))
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<Rc<AcceptorService>>,
    all: Rc<Connections>,
    http: &impl Service<(Socket, Option<SocketAddr>)>,
) {
    let peer = stream.peer_addr().ok();
    let stream = match tls {
        None => Stream::Plain(stream),
        // In a box, since it is large and soon over.
        Some(tls) => match Box::pin(tls.call(stream)).await {
            Ok(stream) => Stream::Tls(Box::new(stream)),
            Err(_) => return,
        },
    };
    let connection = Rc::new(Connection::new(stream, peer, all));
    connection.serve(|socket| http.call((socket, peer))).await;
}
