//! One stored request, and its encoding.

use bytes::Bytes;

use crate::packed;

/// Version of the encoding below.
const ENCODING: u8 = 1;

const APPLICATION: u8 = 1;
const EDGE_ID: u8 = 2;
const PEER: u8 = 3;
const AUTHORIZATION: u8 = 4;
const SIGNATURE: u8 = 5;
const BODY: u8 = 6;
const UTC_OFFSET: u8 = 7;

/// Bytes of a field in front of its value: tag and length.
const FIELD: usize = 5;

/// A request as it was received; all that it says is somebody else's memory.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// The application that the path names; empty when it names none.
    pub application: &'a str,
    /// Of clock texts that name no zone, as that application's settings say when it is received.
    pub utc_offset_minutes: Option<i16>,
    /// When its body was complete, milliseconds since 1970.
    pub received_at_ms: i64,
    /// The edge that answers it.
    pub edge_id: &'a str,
    /// Address it came from, as text.
    pub peer: &'a str,
    /// Header `Authorization`, if it came.
    pub authorization: Option<&'a str>,
    /// Header `X-AKSK` or `X-WSSE`, if one came.
    pub signature: Option<&'a str>,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

impl std::fmt::Debug for Request<'_> {
    /// Shows lengths only: bodies and headers hold phone numbers and secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("received_at_ms", &self.received_at_ms)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A request in its encoding: one piece of memory from the thread that received it to the one that
/// writes it and to whoever publishes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    received_at_ms: i64,
    /// Its fields can be read; the received-at travels in the frame's header.
    bytes: Bytes,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.request().fmt(f)
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
    pub encoded: Encoded,
}

impl Stored {
    /// What was received, to be read.
    pub fn request(&self) -> Request<'_> {
        self.encoded.request()
    }
}

/// Why a payload is not a request of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload is not a request in the encoding of this version")]
pub struct Undecodable;

impl Request<'_> {
    /// Length of the encoding in bytes.
    fn encoded_len(&self) -> usize {
        let optional = |field: Option<&str>| field.map_or(0, |text| FIELD + text.len());
        1 + 4 * FIELD
            + self.application.len()
            + self.edge_id.len()
            + self.peer.len()
            + self.body.len()
            + optional(self.authorization)
            + optional(self.signature)
            + self.utc_offset_minutes.map_or(0, |_| FIELD + size_of::<i16>())
    }

    /// Copies it together.
    pub fn encode(&self) -> Encoded {
        let mut out = Vec::with_capacity(self.encoded_len());
        begin_fields(&mut out);
        put_field(&mut out, APPLICATION, self.application.as_bytes());
        put_field(&mut out, EDGE_ID, self.edge_id.as_bytes());
        put_field(&mut out, PEER, self.peer.as_bytes());
        if let Some(authorization) = self.authorization {
            put_field(&mut out, AUTHORIZATION, authorization.as_bytes());
        }
        if let Some(signature) = self.signature {
            put_field(&mut out, SIGNATURE, signature.as_bytes());
        }
        if let Some(minutes) = self.utc_offset_minutes {
            put_field(&mut out, UTC_OFFSET, &minutes.to_le_bytes());
        }
        put_field(&mut out, BODY, self.body);
        Encoded { received_at_ms: self.received_at_ms, bytes: out.into() }
    }
}

impl<'a> Request<'a> {
    fn decode(bytes: &'a [u8], received_at_ms: i64) -> Result<Self, Undecodable> {
        let mut request = Self { received_at_ms, ..Self::default() };
        for field in Fields::new(bytes)? {
            let (tag, value) = field?;
            match tag {
                APPLICATION => request.application = text(value)?,
                EDGE_ID => request.edge_id = text(value)?,
                PEER => request.peer = text(value)?,
                AUTHORIZATION => request.authorization = Some(text(value)?),
                SIGNATURE => request.signature = Some(text(value)?),
                BODY => request.body = value,
                UTC_OFFSET => {
                    let minutes = value.try_into().map_err(|_| Undecodable)?;
                    request.utc_offset_minutes = Some(i16::from_le_bytes(minutes));
                }
                // A later version may add a field that this one does not need.
                _ => {}
            }
        }
        Ok(request)
    }
}

impl Encoded {
    /// Takes a frame's payload, unless it is of another version.
    pub fn from_payload(payload: Bytes, received_at_ms: i64) -> Result<Self, Undecodable> {
        let bytes = packed::unpack(payload)?;
        Request::decode(&bytes, received_at_ms)?;
        Ok(Self { received_at_ms, bytes })
    }

    /// What it says.
    pub fn request(&self) -> Request<'_> {
        // Whoever makes one knows that it can be read.
        Request::decode(&self.bytes, self.received_at_ms).unwrap_or_default()
    }

    /// When its body was complete, milliseconds since 1970.
    pub fn received_at_ms(&self) -> i64 {
        self.received_at_ms
    }

    /// Appends what a frame holds of it.
    pub(crate) fn put_payload(&self, out: &mut Vec<u8>) {
        packed::pack(&self.bytes, out);
    }

    /// A frame holds at most so many bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What it occupies in memory, roughly, in bytes.
    pub fn weight(&self) -> u64 {
        (self.bytes.len() + size_of::<Self>()) as u64
    }
}

fn text(value: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(value).map_err(|_| Undecodable)
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
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the version and begins.
    pub(crate) fn new(payload: &'a [u8]) -> Result<Self, Undecodable> {
        match payload {
            [ENCODING, rest @ ..] => Ok(Self { rest }),
            _ => Err(Undecodable),
        }
    }

    fn field(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, ref length @ ..], rest) = self.rest.split_first_chunk::<FIELD>()?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some((tag, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Undecodable))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_request_survives_its_encoding(
            application: String,
            utc_offset_minutes: Option<i16>,
            received_at_ms: i64,
            peer: String,
            authorization: Option<String>,
            signature: Option<String>,
            body: Vec<u8>,
        ) {
            let request = Request {
                application: &application,
                utc_offset_minutes,
                received_at_ms,
                edge_id: "edge-1",
                peer: &peer,
                authorization: authorization.as_deref(),
                signature: signature.as_deref(),
                body: &body,
            };
            let encoded = request.encode();
            prop_assert_eq!(encoded.request(), request);
            prop_assert_eq!(encoded.len(), request.encoded_len());
            let mut payload = Vec::new();
            encoded.put_payload(&mut payload);
            prop_assert_eq!(Encoded::from_payload(payload.into(), received_at_ms), Ok(encoded));
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
            let _ = Encoded::from_payload(payload.into(), 0);
        }
    }

    #[test]
    fn an_unknown_field_is_skipped_and_an_unknown_version_refused() {
        let decode = |payload: &[u8]| Encoded::from_payload(Bytes::copy_from_slice(payload), 0);
        let mut out = Request { peer: "p", ..Request::default() }.encode().bytes.to_vec();
        put_field(&mut out, 200, b"later");
        assert_eq!(decode(&out).unwrap().request().peer, "p");
        out[0] = 9;
        assert!(decode(&out).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn a_field_that_is_cut_or_not_text_is_not_a_request() {
        let whole = Request { peer: "peer", body: b"body", ..Request::default() }.encode();
        let decode = |payload: &[u8]| Encoded::from_payload(Bytes::copy_from_slice(payload), 0);
        let ends_of_fields = [1, 6, 11, 20];
        for length in 1..whole.len() {
            let cut = decode(&whole.bytes[..length]);
            assert_eq!(cut.is_ok(), ends_of_fields.contains(&length), "{length}");
        }
        let mut out = whole.bytes.to_vec();
        put_field(&mut out, APPLICATION, b"\xff");
        assert!(decode(&out).is_err());
    }

    #[test]
    fn debug_output_shows_no_content() {
        let request = Request { body: b"8613800001111", ..Request::default() };
        assert!(!format!("{request:?} {:?}", request.encode()).contains("138"));
    }
}
