//! The fuzzers' invariants over the samples, the edge cases and mutations of both.
//!
//! The mutations are the same in every run; `fuzz/` goes on where they end.

mod common;

use tollgate_voicecall::fuzz;

/// Bytes that mean something to the reader.
const DICTIONARY: [&str; 16] = [
    "null",
    "\"\"",
    "[]",
    "{}",
    "true",
    "-0",
    "1e999",
    "\"\\ud800\"",
    "\\u0000",
    ",",
    ":",
    "\"",
    "[",
    "{",
    "\u{feff}",
    "\"eventType\":\"FEE\",",
];

/// xorshift: good enough to choose places, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn mutate(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = body.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..bytes.len().min(at + 1 + dice.below(20)))),
            3 => {
                let chunk = bytes[at..bytes.len().min(at + dice.below(60))].to_vec();
                bytes.splice(at..at, chunk);
            }
            _ => {
                let word = DICTIONARY[dice.below(DICTIONARY.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}

#[test]
fn the_invariants_hold_for_samples_edge_cases_and_their_mutations() {
    let mut dice = Dice(0x5eed_0123_7011_9a7e);
    for (_, body) in common::samples().into_iter().chain(common::edges()) {
        fuzz::body(&body);
        let rounds = if body.len() > 8192 { 10 } else { 60 };
        for _ in 0..rounds {
            fuzz::body(&mutate(&body, &mut dice));
        }
    }
}

#[test]
fn the_invariants_hold_for_headers_and_their_mutations() {
    let mut dice = Dice(0x5eed_0123_4ead_e125);
    for seed in [
        "AKSK realm=\"SDP\"\nUsernameToken Username=\"a\", PasswordDigest=\"b\", Nonce=\"c\", Created=\"2024-05-20T03:04:24Z\"",
        "\n\nUsernameToken Username=\"a\",PasswordDigest=\"b\",Nonce=\"c\",Created=\"d\"",
        "user\nsecret\nhttps://example.com/x\nnonce\n2024-05-20T03:04:24Z",
        "",
    ] {
        fuzz::headers(seed.as_bytes());
        for _ in 0..300 {
            fuzz::headers(&mutate(seed.as_bytes(), &mut dice));
        }
    }
}
