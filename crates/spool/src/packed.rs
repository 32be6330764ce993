//! What a frame holds of a request: its encoding, or that encoding compressed.
//!
//! ```text
//!  | 1 | fields ...                               small, or nothing is gained
//!  | 2 | length of the encoding, u32 | LZ4 block  the rest
//! ```
//!
//! Fifty CDRs say much the same fifty times. Bytes that are not written need not be copied into the
//! page cache, written, synced and read again, which costs more than to compress them.

use bytes::Bytes;

use crate::record::Undecodable;

/// First byte of a compressed encoding.
const PACKED: u8 = 2;

/// Bytes before the block.
const HEAD: usize = 5;

/// An encoding shorter than this, in bytes, has too little in it that repeats.
const SHORT: usize = 4096;

/// No LZ4 block holds more than this for each of its bytes.
const HIGHEST_RATIO: usize = 255;

/// Appends an encoding as a frame holds it; never more bytes than it has.
pub(crate) fn pack(encoding: &[u8], out: &mut Vec<u8>) {
    if encoding.len() >= SHORT {
        let start = out.len();
        out.push(PACKED);
        out.extend_from_slice(&(encoding.len() as u32).to_le_bytes());
        out.resize(start + HEAD + lz4_flex::block::get_maximum_output_size(encoding.len()), 0);
        let packed = lz4_flex::block::compress_into(encoding, &mut out[start + HEAD..]);
        // An eighth at least: otherwise it is not worth the unpacking.
        if let Some(len) = packed.ok().filter(|len| HEAD + len <= encoding.len() / 8 * 7) {
            return out.truncate(start + HEAD + len);
        }
        out.truncate(start);
    }
    out.extend_from_slice(encoding);
}

/// The encoding again.
pub(crate) fn unpack(payload: Bytes) -> Result<Bytes, Undecodable> {
    let Some((len, block)) = packed(&payload) else { return Ok(payload) };
    if len > block.len().saturating_mul(HIGHEST_RATIO) {
        return Err(Undecodable);
    }
    let mut encoding = vec![0; len];
    match lz4_flex::block::decompress_into(block, &mut encoding) {
        Ok(filled) if filled == len => Ok(encoding.into()),
        _ => Err(Undecodable),
    }
}

/// As much of the encoding as can be read of a payload that is not what was written. Behind the
/// damage it may say anything.
pub(crate) fn salvage(payload: &[u8]) -> Vec<u8> {
    let Some((len, block)) = packed(payload) else { return payload.to_vec() };
    let mut encoding = vec![0; len.min(block.len().saturating_mul(HIGHEST_RATIO))];
    // What was read up to an error stays.
    let _ = lz4_flex::block::decompress_into(block, &mut encoding);
    let end = encoding.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    encoding.truncate(end);
    encoding
}

/// Length of the encoding and its block, if it is compressed.
fn packed(payload: &[u8]) -> Option<(usize, &[u8])> {
    match payload.split_first_chunk::<HEAD>()? {
        (&[PACKED, ref len @ ..], block) => Some((u32::from_le_bytes(*len) as usize, block)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(encoding: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        pack(encoding, &mut out);
        out.split_off(6)
    }

    /// An encoding begins with its version.
    fn encoding(text: &[u8], times: usize) -> Vec<u8> {
        [&[1], text.repeat(times).as_slice()].concat()
    }

    proptest! {
        #[test]
        fn an_encoding_survives_and_never_grows(text: Vec<u8>, times in 0..500_usize) {
            let encoding = encoding(&text, times);
            let packed = packed(&encoding);
            prop_assert!(packed.len() <= encoding.len());
            prop_assert_eq!(unpack(packed.into()), Ok(encoding.into()));
        }

        #[test]
        fn what_is_cut_or_changed_is_refused_or_has_its_length(
            at: prop::sample::Index,
            byte: u8,
            cut: prop::sample::Index,
        ) {
            let mut packed = packed(&encoding(b"a telephone number, ", 400));
            let at = at.index(packed.len());
            packed[at] = byte;
            packed.truncate(cut.index(packed.len()) + 1);
            if packed.len() > HEAD && packed[0] == PACKED {
                let named = u32::from_le_bytes([packed[1], packed[2], packed[3], packed[4]]);
                if let Ok(encoding) = unpack(packed.into()) {
                    prop_assert_eq!(encoding.len(), named as usize);
                }
            }
        }
    }

    #[test]
    fn what_repeats_is_packed_and_what_is_short_or_does_not_is_kept_as_it_is() {
        assert!(packed(&encoding(b"a telephone number, ", 400)).len() < 200);
        let short = encoding(b"a telephone number, ", 40);
        assert_eq!(packed(&short), short);
        let noise: Vec<u8> = std::iter::once(1).chain((0..9000).map(|_| rand::random())).collect();
        assert_eq!(packed(&noise), noise);
    }

    #[test]
    fn a_length_that_no_block_can_have_takes_no_memory() {
        let lie = [&[PACKED][..], &u32::MAX.to_le_bytes(), &[0; 100]].concat();
        assert_eq!(unpack(lie.into()), Err(Undecodable));
    }
}
