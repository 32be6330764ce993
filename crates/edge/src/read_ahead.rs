//! How far a connection is read ahead of what is looked at. No socket: it is told what was read.

use std::task::Waker;

use actix_web::web::Bytes;

/// What is read of a connection before what came is looked at. actix-http would read 128 KiB, make
/// parts of 32 bytes of all chunks in it, and keep the room for both: with chunks of one byte 1.3 MiB
/// for a connection.
pub const READ_AT_ONCE: usize = 12 * 1024;

/// What was read of a connection, and whether more is to be.
#[derive(Debug)]
pub struct ReadAhead {
    /// Bytes that may be read before the dispatcher looks at them.
    readable: usize,
    /// Address behind the last byte that was read.
    read_to: usize,
    /// Whether that byte was the last one of a body.
    is_read_up: bool,
    /// Whether nothing is read for the time being.
    is_held: bool,
    /// To be woken when it is read again, since something has come meanwhile.
    held_back: Option<Waker>,
}

impl ReadAhead {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self {
            readable: READ_AT_ONCE,
            read_to: 0,
            is_read_up: false,
            is_held: false,
            held_back: None,
        }
    }

    /// What was read so far is looked at now.
    pub fn looked_at(&mut self) {
        self.readable = READ_AT_ONCE;
    }

    /// Bytes that may be read before what has come is looked at.
    pub fn readable(&self) -> usize {
        self.readable
    }

    /// These were read, into this place.
    pub fn reads(&mut self, bytes: &[u8]) {
        self.readable = self.readable.saturating_sub(bytes.len());
        self.read_to = bytes.as_ptr_range().end.addr();
        self.is_read_up = false;
    }

    /// Notes a part of a request's body as actix-http hands it over. It is a part of the buffer
    /// that was read into, not a copy, so it tells by its place whether anything was read beyond
    /// it: bytes of a next request, which must not be dropped with that buffer.
    pub fn takes(&mut self, part: &Bytes) {
        self.is_read_up = !part.is_empty() && part.as_ptr_range().end.addr() == self.read_to;
    }

    /// Whether all that was read was taken as a body.
    pub fn is_read_up(&self) -> bool {
        self.is_read_up
    }

    /// Reads nothing until [`Self::go_on`].
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// Whether nothing is read for the time being.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Something has come that is not read now.
    pub fn hold_back(&mut self, waker: Waker) {
        self.held_back = Some(waker);
    }

    /// Reads again: whom to wake, since something has come meanwhile.
    pub fn go_on(&mut self) -> Option<Waker> {
        self.is_held = false;
        self.held_back.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_read_until_it_is_looked_at() {
        let mut ahead = ReadAhead::new();
        ahead.reads(&[0; READ_AT_ONCE - 1]);
        assert_eq!(ahead.readable(), 1);
        ahead.reads(&[0; 2]);
        assert_eq!(ahead.readable(), 0);
        ahead.looked_at();
        assert_eq!(ahead.readable(), READ_AT_ONCE);
    }

    #[test]
    fn a_body_that_ends_where_the_reading_ended_leaves_nothing_behind() {
        let buffer = Bytes::from_static(b"head body head of the next");
        let mut ahead = ReadAhead::new();
        assert!(!ahead.is_read_up(), "there was no body");
        ahead.reads(&buffer[..9]);
        ahead.takes(&buffer.slice(5..9));
        assert!(ahead.is_read_up());
        ahead.reads(&buffer);
        assert!(!ahead.is_read_up());
        ahead.takes(&buffer.slice(5..9));
        assert!(!ahead.is_read_up());
        // The end of a body in chunks is handed over as nothing.
        ahead.takes(&buffer.slice(26..26));
        assert!(!ahead.is_read_up());
    }
}
