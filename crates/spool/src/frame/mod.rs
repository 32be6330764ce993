//! Record framing that finds its way again after damage.
//!
//! ```text
//!  0        8       12       16      20    21      24      32         40       48        56
//!  | salt   | header | payload | length | kind | zeros | epoch | sequence | synced | time_ms | payload ...
//!             CRC32C   CRC32C
//! ```
//!
//! All integers are little endian. The salt is a random number of its own for each file, and also
//! part of the file's name: a damaged file header costs nothing, and whoever can only send
//! payloads cannot make one that is taken for a frame after damage. Frames follow each other
//! without gaps; a file that was reserved in advance ends in zeros.
//!
//! A damaged header costs its own record: the [`Scanner`] looks for the next salt whose header
//! proves itself. A damaged payload costs its own record: the header says where the next begins.

mod scanner;

pub use scanner::{Damage, Item, Scanner, Source};

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 56;

/// A file's random mark, at the head of each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Salt(u64);

impl Salt {
    /// Draws one from the operating system's generator.
    pub fn random() -> Self {
        Self::new(rand::random())
    }

    /// Makes one of a number. Its first byte on disk is never zero, so that unused space cannot
    /// look like the beginning of a frame.
    pub fn new(number: u64) -> Self {
        Self(if number.to_le_bytes()[0] == 0 { number | 0x5a } else { number })
    }

    /// The number, for the file's name.
    pub fn number(self) -> u64 {
        self.0
    }

    fn bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

/// What a frame says about its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The user's kind of frame.
    pub kind: u8,
    /// The log's epoch.
    pub epoch: u64,
    /// The record's number within the epoch.
    pub sequence: u64,
    /// The highest sequence of this epoch that was synced when this frame was written: a hole at
    /// or below it is damage, one above it was never acknowledged.
    pub synced: u64,
    /// Milliseconds since 1970, so that a record whose payload is damaged can be named.
    pub time_ms: i64,
    /// Length of the payload in bytes; set by [`encode`].
    pub length: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.length)
    }
}

/// Appends one frame to `out`; `payload` appends the payload. `header.length` is ignored.
///
/// A payload must be shorter than 4 GiB: the spool and the embedded log both bound it by the
/// segment, far below.
pub fn encode(out: &mut Vec<u8>, salt: Salt, header: &Header, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    payload(out);
    let (head, body) = out[start..].split_at_mut(HEADER_LEN);
    head[0..8].copy_from_slice(&salt.bytes());
    head[12..16].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    head[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[20] = header.kind;
    head[24..32].copy_from_slice(&header.epoch.to_le_bytes());
    head[32..40].copy_from_slice(&header.sequence.to_le_bytes());
    head[40..48].copy_from_slice(&header.synced.to_le_bytes());
    head[48..56].copy_from_slice(&header.time_ms.to_le_bytes());
    let crc = header_crc(head);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Length of the payload as a header says that need not be whole.
pub(crate) fn payload_len(head: &[u8; HEADER_LEN]) -> usize {
    u32_at(head, 16) as usize
}

/// Over everything in the header but the CRC itself.
fn header_crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..8]), &head[12..HEADER_LEN])
}

/// Reads a header and the CRC of its payload, if these bytes are one.
fn decode(salt: Salt, head: &[u8]) -> Option<(Header, u32)> {
    if head.len() < HEADER_LEN || head[..8] != salt.bytes() || head[21..24] != [0; 3] {
        return None;
    }
    if u32_at(head, 8) != header_crc(head) {
        return None;
    }
    let header = Header {
        kind: head[20],
        epoch: u64_at(head, 24),
        sequence: u64_at(head, 32),
        synced: u64_at(head, 40),
        time_ms: u64_at(head, 48) as i64,
        length: u32_at(head, 16),
    };
    Some((header, u32_at(head, 12)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests;
