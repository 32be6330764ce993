//! One stored request, and how it looks inside a frame.

use std::sync::Arc;

use bytes::Bytes;

/// Version of the encoding below.
const ENCODING: u8 = 1;

const APPLICATION: u8 = 1;
const EDGE_ID: u8 = 2;
const PEER: u8 = 3;
const AUTHORIZATION: u8 = 4;
const SIGNATURE: u8 = 5;
const BODY: u8 = 6;

/// A request as it was received.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The application that the path names; empty when it names none.
    pub application: String,
    /// When its body was complete, milliseconds since 1970.
    pub received_at_ms: i64,
    /// The edge that answers it.
    pub edge_id: String,
    /// Address it came from, as text.
    pub peer: String,
    /// Header `Authorization`, if it came.
    pub authorization: Option<String>,
    /// Header `X-AKSK` or `X-WSSE`, if one came.
    pub signature: Option<String>,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl std::fmt::Debug for Request {
    /// Shows lengths only: bodies and headers hold phone numbers and secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("received_at_ms", &self.received_at_ms)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Where a request stands in the spool.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Position {
    /// Begins anew, and higher, with every start and after every failed write.
    pub epoch: u64,
    /// From 1, without gaps within an epoch.
    pub sequence: u64,
}

impl Position {
    /// The position behind this one in the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, sequence: self.sequence + 1 }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.epoch, self.sequence)
    }
}

/// A request that is safe on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// What was received.
    pub request: Arc<Request>,
}

/// Why a payload is not a request of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload is not a request in the encoding of this version")]
pub struct Undecodable;

impl Request {
    /// Length of the encoding in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        let optional = |field: &Option<String>| field.as_ref().map_or(0, |text| 5 + text.len());
        1 + 20
            + self.application.len()
            + self.edge_id.len()
            + self.peer.len()
            + self.body.len()
            + optional(&self.authorization)
            + optional(&self.signature)
    }

    /// What it occupies in memory, roughly, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        (self.encoded_len() + size_of::<Self>()) as u64
    }

    /// Appends the encoding. The received-at travels in the frame's header.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(ENCODING);
        put_field(out, APPLICATION, self.application.as_bytes());
        put_field(out, EDGE_ID, self.edge_id.as_bytes());
        put_field(out, PEER, self.peer.as_bytes());
        if let Some(authorization) = &self.authorization {
            put_field(out, AUTHORIZATION, authorization.as_bytes());
        }
        if let Some(signature) = &self.signature {
            put_field(out, SIGNATURE, signature.as_bytes());
        }
        put_field(out, BODY, &self.body);
    }

    /// Reads an encoding; the body shares the payload's memory.
    pub fn decode(payload: &Bytes, received_at_ms: i64) -> Result<Self, Undecodable> {
        let mut request = Self { received_at_ms, ..Self::default() };
        for field in Fields::new(payload)? {
            let (tag, value) = field?;
            match tag {
                APPLICATION => request.application = text(&value)?,
                EDGE_ID => request.edge_id = text(&value)?,
                PEER => request.peer = text(&value)?,
                AUTHORIZATION => request.authorization = Some(text(&value)?),
                SIGNATURE => request.signature = Some(text(&value)?),
                BODY => request.body = value,
                // A later version may add a field that this one does not need.
                _ => {}
            }
        }
        Ok(request)
    }
}

fn text(value: &Bytes) -> Result<String, Undecodable> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| Undecodable)
}

/// Begins an encoding of fields.
pub(crate) fn begin_fields(out: &mut Vec<u8>) {
    out.push(ENCODING);
}

/// Appends one field: tag, length, value.
pub(crate) fn put_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// Reads tagged fields one after the other.
pub(crate) struct Fields {
    rest: Bytes,
}

impl Fields {
    /// Checks the version and begins.
    pub(crate) fn new(payload: &Bytes) -> Result<Self, Undecodable> {
        if payload.first() != Some(&ENCODING) {
            return Err(Undecodable);
        }
        Ok(Self { rest: payload.slice(1..) })
    }

    fn field(&mut self) -> Result<(u8, Bytes), Undecodable> {
        let head: [u8; 5] =
            self.rest.get(..5).and_then(|head| head.try_into().ok()).ok_or(Undecodable)?;
        let [tag, length @ ..] = head;
        let end = u32::from_le_bytes(length) as usize + head.len();
        if end > self.rest.len() {
            return Err(Undecodable);
        }
        let field = self.rest.split_to(end);
        Ok((tag, field.slice(head.len()..)))
    }
}

impl Iterator for Fields {
    type Item = Result<(u8, Bytes), Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = Bytes::new();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(request: &Request) -> Bytes {
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out.len(), request.encoded_len());
        out.into()
    }

    proptest! {
        #[test]
        fn a_request_survives_its_encoding(
            application: String,
            received_at_ms: i64,
            peer: String,
            authorization: Option<String>,
            signature: Option<String>,
            body: Vec<u8>,
        ) {
            let request = Request {
                application, received_at_ms, peer, authorization, signature,
                edge_id: "edge-1".into(), body: body.into(),
            };
            prop_assert_eq!(Request::decode(&encoded(&request), received_at_ms), Ok(request));
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
            let _ = Request::decode(&payload.into(), 0);
        }
    }

    #[test]
    fn an_unknown_field_is_skipped_and_an_unknown_version_refused() {
        let mut out = encoded(&Request { peer: "p".into(), ..Request::default() }).to_vec();
        put_field(&mut out, 200, b"later");
        assert_eq!(Request::decode(&out.clone().into(), 0).unwrap().peer, "p");
        out[0] = 9;
        assert!(Request::decode(&out.into(), 0).is_err());
        assert!(Request::decode(&Bytes::new(), 0).is_err());
    }

    #[test]
    fn debug_output_shows_no_content() {
        let request = Request { body: "8613800001111".into(), ..Request::default() };
        assert!(!format!("{request:?}").contains("138"));
    }
}
