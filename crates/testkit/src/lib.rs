//! Real Kafka and real PostgreSQL for tests, and nothing left behind.
//!
//! ```text
//!  test ──▶ Kafka::shared() ────▶ jars under target/ ──▶ java ──────┐ killed by the kernel when
//!       ──▶ Postgres::shared() ─▶ template under target/ ▶ postgres ┤ the test process dies,
//!                                                                   │ however it dies
//!                     run directory in the temp dir ◀───────────────┘
//!                           ▲ removed on drop, or by a watcher once the test process is gone
//! ```
//!
//! Everything here blocks the calling thread, on purpose: a test that kills a broker wants to go
//! on when the broker is dead. In a test on a current-thread runtime, call it before the first
//! task is spawned, or through `tokio::task::spawn_blocking`.
//!
//! What is missing on the machine is an error that names the Debian package. Never used outside
//! tests, never skips a test, never talks to a server that it did not start.

mod kafka;
mod machine;
mod noise;
mod ports;
mod postgres;
mod process;
mod run_dir;
mod wait;

pub use kafka::{Broker, Kafka, KafkaOptions, PASSWORD, STRANGER, USER};
pub use machine::{program, run};
pub use noise::noise;
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Server, dies_with_us};
pub use run_dir::TestDir;
pub use rustix::process::Signal;
pub use wait::{blocking_until, eventually, eventually_true};
