//! Fixed-length keys: what is indexed instead of a sender's text.

use sha2::{Digest, Sha256};

/// The key under which a session's entries are found.
pub fn session_key(session_id: &str) -> [u8; 16] {
    hash("session", session_id)
}

/// The key of an application's name.
pub fn application_key(application: &str) -> [u8; 16] {
    hash("application", application)
}

/// The key of any other text.
pub fn text_key(text: &str) -> [u8; 16] {
    hash("text", text)
}

/// First 128 bits of SHA-256 over what the text is, a NUL, and the text.
fn hash(what: &str, text: &str) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(b"tollgate-billing-1\0");
    hasher.update(what.as_bytes());
    hasher.update(b"\0");
    hasher.update(text.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}
