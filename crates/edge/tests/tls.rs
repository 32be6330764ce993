//! HTTPS at the edge itself.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use common::{Bench, SUCCESS, bodies, post};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Tls = StreamOwned<ClientConnection, std::net::TcpStream>;

fn connect(address: SocketAddr, roots: RootCertStore) -> Tls {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("voice.example.com").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(common::LONG)).unwrap();
    StreamOwned::new(client, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_with_a_certificate_speaks_https_and_cuts_who_asks_for_nothing() {
    let made = rcgen::generate_simple_self_signed(vec!["voice.example.com".to_owned()]).unwrap();
    let mut bench = Bench::new().await;
    bench.settings.tls_certificate_file = Some(bench.secret("cert.pem", &made.cert.pem()));
    bench.settings.tls_key_file = Some(bench.secret("key.pem", &made.signing_key.serialize_pem()));
    bench.settings.keep_alive_seconds = 3;
    bench.settings.head_deadline_ms = 3000;
    let node = bench.start();
    let address = node.address;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut tls = connect(address, roots);
        tls.write_all(&post("/status", bodies::status("private").as_bytes())).unwrap();
        // The head of the next request, which never ends.
        tls.write_all(b"POST /status HT").unwrap();
        let mut said = Vec::new();
        // However the connection ends: it does.
        let ended = tls.read_to_end(&mut said);
        if let Err(error) = ended {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was not cut");
        }
        String::from_utf8(said).unwrap()
    })
    .await
    .unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with(SUCCESS), "{said}");
    node.settled().await;
    assert!(bench.topics().await.sessions().contains("private"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_read_is_named_at_start() {
    let mut bench = Bench::new().await;
    bench.settings.tls_certificate_file = Some(bench.secret("cert.pem", "nothing"));
    bench.settings.tls_key_file = Some(bench.secret("key.pem", "nothing"));
    let error = bench.try_start().err().unwrap().to_string();
    assert!(error.contains("tls_key_file") || error.contains("tls_certificate_file"), "{error}");
    bench.settings.tls_key_file = None;
    let error = bench.try_start().err().unwrap().to_string();
    assert!(error.contains("need each other"), "{error}");
}
