//! The public contract with everybody who reads Tollgate's topics.
//!
//! Generated protobuf messages, the identities of records and events, the canonical text those
//! identities are made from, the topic catalogue and the headers of a record. The `.proto` files
//! under `proto/` are the source; `proto/tollgate/v1/ids.md` tells a reader how to recompute the
//! ids, and `docs/topics.md` how to read the topics.
//!
//! ```text
//!  proto/tollgate/v1/*.proto ──build──▶ v1 (types) + FILE_DESCRIPTOR_SET ──▶ json
//!
//!  a record's fields ──▶ ids::record_id ──┐
//!  a record's text ──▶ canonical ─────────┴─▶ ids::event_id ──▶ headers::cloud_event
//!                                                                  ▲
//!                                                     topics ──────┘
//! ```
//!
//! Pure: no IO, no clock, no async. It never reads the platform's dialect (that is
//! `tollgate-voicecall`), never talks to a cluster, and never compares a cluster with the
//! catalogue (that is `tollgate-stream`).

pub mod canonical;
pub mod headers;
pub mod ids;
pub mod json;
pub mod json_text;
mod json_tokens;
pub mod time;
pub mod topics;

/// The messages of package `tollgate.v1`, generated from `proto/tollgate/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tollgate.v1.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of package `tollgate.v1`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/tollgate.v1.descriptors.binpb"));
