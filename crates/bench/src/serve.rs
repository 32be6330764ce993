//! What Tollgate's edge is compared with: the least that can be, and what anybody would write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Result;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tollgate_kafka::{Settings, producer_config};

/// The edge's answer.
const SUCCESS: &str = r#"{"resultcode":"0","resultdesc":"Success"}"#;
const TOPIC: &str = "call-events";
/// Larger than any body here.
const MAX_BODY: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Reads the body and throws it away
    Floor,
    /// Parses, sends to Kafka, answers at once
    PlainEnqueued,
    /// Parses, sends to Kafka, answers when Kafka has it
    PlainDelivered,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(value_enum)]
    what: What,
    #[arg(long)]
    listen: SocketAddr,
    /// Kafka, for the plain ones
    #[arg(long, default_value = "127.0.0.1:9092")]
    brokers: String,
}

/// Of a confirmation that is waited for: nothing is given up while it is measured.
const DEADLINE: Duration = Duration::from_mins(1);

struct Plain {
    producer: FutureProducer,
    waits: bool,
}

pub fn run(options: Options) -> Result<()> {
    actix_web::rt::System::new().block_on(serve(options))
}

async fn serve(options: Options) -> Result<()> {
    let plain = match options.what {
        What::Floor => None,
        What::PlainEnqueued | What::PlainDelivered => {
            let settings = Settings { brokers: options.brokers, ..Settings::default() };
            let waits = options.what == What::PlainDelivered;
            let producer = producer_config(&settings, waits.then_some(DEADLINE))?.create()?;
            Some(web::Data::from(Arc::new(Plain { producer, waits })))
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    HttpServer::new(move || {
        let app = App::new().app_data(web::PayloadConfig::new(MAX_BODY));
        match &plain {
            None => app
                .route("/pending", web::get().to(async || "0"))
                .route("/status", web::post().to(floor))
                .route("/fee", web::post().to(floor)),
            Some(plain) => app
                .app_data(plain.clone())
                .route("/pending", web::get().to(pending))
                .route("/status", web::post().to(take))
                .route("/fee", web::post().to(take)),
        }
    })
    .workers(workers)
    .backlog(4096)
    // As the edge: connections that are counted while they are idle must stay.
    .keep_alive(Duration::from_secs(75))
    .tcp_nodelay(true)
    .bind(options.listen)?
    .run()
    .await?;
    Ok(())
}

fn success() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(SUCCESS)
}

async fn floor(_body: web::Bytes) -> HttpResponse {
    success()
}

async fn pending(plain: web::Data<Plain>) -> String {
    plain.producer.in_flight_count().to_string()
}

async fn take(body: web::Bytes, plain: web::Data<Plain>) -> HttpResponse {
    let Ok(parsed) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let session = parsed
        .pointer("/statusInfo/sessionId")
        .or_else(|| parsed.pointer("/feeLst/0/sessionId"))
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    let record = FutureRecord::to(TOPIC).key(session).payload(&body[..]);
    if plain.waits {
        return match plain.producer.send(record, Duration::from_secs(5)).await {
            Ok(_) => success(),
            Err(_) => HttpResponse::ServiceUnavailable().finish(),
        };
    }
    match plain.producer.send_result(record) {
        // What becomes of it nobody hears.
        Ok(_) => success(),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}
