//! Entry points for fuzzing: plain functions over bytes, which must neither panic nor hang.

use bytes::Bytes;

use crate::frame::{Item, Salt, Scanner};
use crate::record::Encoded;

/// Takes the first eight bytes as a salt and the rest as a file.
///
/// # Panics
///
/// When the items found do not cover the file in order, or a frame lies about its payload.
pub fn frames(data: &[u8]) {
    let Some((salt, file)) = data.split_first_chunk::<8>() else { return };
    let salt = Salt::new(u64::from_le_bytes(*salt));
    let Ok(mut scanner) = Scanner::new(file, salt, 0) else { return };
    let mut at = 0;
    while let Ok(Some(item)) = scanner.next_item() {
        let (offset, len) = match item {
            Item::Frame { offset, header, payload } => {
                assert_eq!(payload.len(), header.length as usize);
                let _ = Encoded::from_payload(payload, header.time_ms);
                (offset, header.frame_len())
            }
            Item::Damage(damage) => (damage.offset, damage.len),
        };
        assert_eq!(offset, at, "items follow each other");
        assert!(len > 0 && offset + len <= file.len() as u64);
        at = offset + len;
    }
}

/// Takes the bytes as a frame's payload.
pub fn payload(data: &[u8]) {
    let _ = Encoded::from_payload(Bytes::copy_from_slice(data), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Header, encode};
    use crate::record::Request;

    fn corpus() -> Vec<u8> {
        let salt = Salt::new(0x0102_0304_0506_0708);
        let mut data = salt.number().to_le_bytes().to_vec();
        for sequence in 1..6 {
            let header =
                Header { kind: 1, epoch: 3, sequence, synced: sequence - 1, time_ms: 5, length: 0 };
            let body = vec![b'{'; sequence as usize * 1000];
            let request = Request { body: &body, ..Request::default() }.encode();
            encode(&mut data, salt, &header, |out| request.put_payload(out));
        }
        data
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn mutated_files_neither_panic_nor_hang(
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..12),
        ) {
            let mut data = corpus();
            for (at, byte, what) in edits {
                if data.len() < 9 {
                    break;
                }
                let at = at.index(data.len() - 8) + 8;
                match what {
                    0 => data[at] = byte,
                    1 => data[at] ^= 1 << (byte % 8),
                    2 => { data.remove(at); }
                    _ => { let copy = data[8..at].to_vec(); data.extend(copy); data.truncate(9000); }
                }
            }
            frames(&data);
            payload(&data);
        }

        #[test]
        fn arbitrary_bytes_neither_panic_nor_hang(data: Vec<u8>) {
            frames(&data);
            payload(&data);
        }
    }

    #[test]
    fn the_corpus_itself_is_read_whole() {
        frames(&corpus());
        frames(b"short");
    }
}
