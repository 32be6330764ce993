//! Headers of a record as one column: a count, then name and value, each with its length.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tollgate_stream::Headers;

/// Packs headers, order and repetition kept.
pub(crate) fn encode(headers: &Headers) -> Vec<u8> {
    let length: usize = headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    let mut out = BytesMut::with_capacity(4 + length);
    out.put_u32(headers.len() as u32);
    for (name, value) in headers {
        out.put_u32(name.len() as u32);
        out.put_slice(name.as_bytes());
        out.put_u32(value.len() as u32);
        out.put_slice(value);
    }
    out.into()
}

/// Unpacks what [`encode`] packed; `None` when it did not.
pub(crate) fn decode(bytes: Vec<u8>) -> Option<Headers> {
    let mut rest = Bytes::from(bytes);
    let count = rest.try_get_u32().ok()? as usize;
    // Each header takes eight bytes at least: a damaged count must not reserve memory.
    let mut headers = Vec::with_capacity(count.min(rest.remaining() / 8));
    for _ in 0..count {
        let name = part(&mut rest)?;
        let name = tollgate_stream::name(std::str::from_utf8(&name).ok()?);
        headers.push((name, part(&mut rest)?));
    }
    rest.is_empty().then_some(headers)
}

fn part(rest: &mut Bytes) -> Option<Bytes> {
    let length = rest.try_get_u32().ok()? as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back_as_they_were(
            headers in prop::collection::vec((".{0,20}", prop::collection::vec(any::<u8>(), 0..50)), 0..8)
        ) {
            let headers: Headers =
                headers.into_iter().map(|(n, v)| (n.into(), Bytes::from(v))).collect();
            prop_assert_eq!(decode(encode(&headers)), Some(headers));
        }

        #[test]
        fn damaged_headers_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(headers) = decode(bytes.clone()) {
                prop_assert_eq!(encode(&headers), bytes);
            }
        }
    }
}
