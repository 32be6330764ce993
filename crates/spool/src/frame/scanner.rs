//! Reads frames one after the other, and finds the next one after damage.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{HEADER_LEN, Header, Salt, decode};
use crate::disk::DiskFile;

/// Bytes fetched at a time.
const WINDOW: usize = 256 * 1024;

/// Unit in which unused space is skipped.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Where a scanner reads: a file, or bytes in memory.
pub trait Source {
    /// Reads until `into` is full or the source ends; the number of bytes read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl Source for Arc<dyn DiskFile> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        DiskFile::read_at(&**self, offset, into)
    }

    fn size(&self) -> io::Result<u64> {
        self.len()
    }
}

impl Source for &[u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        let read = into.len().min(self.len() - from);
        into[..read].copy_from_slice(&self[from..from + read]);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// What a scanner finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A frame whose header and payload prove themselves.
    Frame {
        /// Where it begins.
        offset: u64,
        /// Its header.
        header: Header,
        /// Its payload.
        payload: Bytes,
    },
    /// Bytes that are neither a frame nor unused space.
    Damage(Damage),
}

/// A stretch of a file that cannot be read as frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub offset: u64,
    /// How long it is. Two stretches may touch.
    pub len: u64,
    /// The header, when that is intact and only the payload is not.
    pub header: Option<Header>,
    /// Whether a valid frame follows somewhere behind it. Without one it is a torn tail, if
    /// nothing says that what stood here was synced.
    pub followed: bool,
}

/// Reads frames from an offset to an end.
#[derive(Debug)]
pub struct Scanner<S> {
    source: S,
    salt: Salt,
    offset: u64,
    end: u64,
    window: Vec<u8>,
    /// Offset of the window's first byte.
    base: u64,
}

impl<S: Source> Scanner<S> {
    /// Scans from `offset` to the end of the source.
    pub fn new(source: S, salt: Salt, offset: u64) -> io::Result<Self> {
        let end = source.size()?;
        Ok(Self { source, salt, offset, end, window: Vec::new(), base: 0 })
    }

    /// Moves the end: for a file that is still written, whose bytes beyond are not for reading
    /// yet. An end beyond the source is cut to the source.
    pub fn set_end(&mut self, end: u64) -> io::Result<()> {
        let end = end.min(self.source.size()?);
        // What was fetched before the end moved may have been written since.
        let known = self.end.saturating_sub(self.base) as usize;
        self.window.truncate(known);
        self.end = end;
        Ok(())
    }

    /// What it reads from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Where the next item begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item; `None` when nothing but unused space is left. After an error the scanner
    /// stands where it stood, so that the call can be repeated.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        let start = self.offset;
        if start >= self.end {
            return Ok(None);
        }
        if let Some((header, payload_crc)) = self.header_at(start)? {
            return self.after_header(start, header, payload_crc).map(Some);
        }
        match self.find_header(start + 1)? {
            Some(next) => {
                self.offset = next;
                let len = next - start;
                Ok(Some(Item::Damage(Damage { offset: start, len, header: None, followed: true })))
            }
            None => self.last_stretch(start),
        }
    }

    fn after_header(&mut self, start: u64, header: Header, crc: u32) -> io::Result<Item> {
        let next = start + header.frame_len();
        let payload = if next <= self.end {
            let payload = self.bytes(start + HEADER_LEN as u64, header.length as usize)?;
            (crc32c::crc32c(payload) == crc).then(|| Bytes::copy_from_slice(payload))
        } else {
            None
        };
        if let Some(payload) = payload {
            self.offset = next;
            return Ok(Item::Frame { offset: start, header, payload });
        }
        let next = next.min(self.end);
        let followed = match self.header_at(next)? {
            Some(_) => true,
            None => next < self.end && self.find_header(next + 1)?.is_some(),
        };
        self.offset = next;
        let damage = Damage { offset: start, len: next - start, header: Some(header), followed };
        Ok(Item::Damage(damage))
    }

    /// Nothing but damage and unused space from here to the end.
    fn last_stretch(&mut self, start: u64) -> io::Result<Option<Item>> {
        let used = self.end_of_data(start)?;
        self.offset = self.end;
        if used <= start {
            return Ok(None);
        }
        let damage = Damage { offset: start, len: used - start, header: None, followed: false };
        Ok(Some(Item::Damage(damage)))
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<(Header, u32)>> {
        let salt = self.salt;
        Ok(decode(salt, self.bytes(offset, HEADER_LEN)?))
    }

    /// The first offset at or behind `from` where a valid header stands.
    fn find_header(&mut self, from: u64) -> io::Result<Option<u64>> {
        let needle = self.salt.bytes();
        let mut at = from;
        while at + HEADER_LEN as u64 <= self.end {
            let stretch = self.bytes(at, BLOCK)?;
            if stretch == &ZEROS[..stretch.len()] {
                // A salt does not begin with a zero.
                at += stretch.len() as u64;
                continue;
            }
            match find(stretch, needle) {
                Some(hit) => {
                    at += hit as u64;
                    if self.header_at(at)?.is_some() {
                        return Ok(Some(at));
                    }
                    at += 1;
                }
                // The beginning of a salt may stand at the stretch's end.
                None => at += (stretch.len() - (needle.len() - 1).min(stretch.len() - 1)) as u64,
            }
        }
        Ok(None)
    }

    /// The offset behind the last byte that is not zero.
    fn end_of_data(&mut self, from: u64) -> io::Result<u64> {
        let mut last = from;
        let mut at = from;
        while at < self.end {
            let stretch = self.bytes(at, BLOCK)?;
            let len = stretch.len();
            if len == 0 {
                break;
            }
            if stretch != &ZEROS[..len]
                && let Some(byte) = stretch.iter().rposition(|byte| *byte != 0)
            {
                last = at + byte as u64 + 1;
            }
            at += len as u64;
        }
        Ok(last)
    }

    /// Up to `len` bytes from `offset`, fewer at the end.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let held = self.base + self.window.len() as u64;
        if offset < self.base || offset + len as u64 > held {
            self.fetch(offset, len.max(WINDOW.min(left)))?;
        }
        let from = (offset - self.base) as usize;
        let to = (from + len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or(&[]))
    }

    fn fetch(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.window.clear();
        self.window.resize(len, 0);
        self.base = offset;
        let read = self.source.read_at(offset, &mut self.window);
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        // A large record must not hold its memory for ever.
        self.window.shrink_to(WINDOW);
        read.map(|_| ())
    }
}

fn find(haystack: &[u8], needle: [u8; 8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
