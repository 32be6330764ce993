//! Query strings, read so that numbers and session ids survive them.

use percent_encoding::percent_decode_str;

/// The value of a parameter. `%XX` is decoded and `+` is not: numbers and session ids begin
/// with it, and people paste them as they are. A value that is not UTF-8 is an error.
pub(super) fn parameter(query: &str, name: &str) -> Result<Option<String>, NotUtf8> {
    let value = query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) if key == name => Some(value),
        _ => None,
    });
    let decoded = value.map(|value| percent_decode_str(value).decode_utf8());
    decoded.transpose().map(|text| text.map(std::borrow::Cow::into_owned)).map_err(|_| NotUtf8)
}

/// A parameter that is not UTF-8 when decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_encoded_or_pasted() {
        for query in ["number=+8613800000021", "a=b&number=%2B8613800000021&c"] {
            assert_eq!(parameter(query, "number"), Ok(Some("+8613800000021".to_owned())));
        }
        assert_eq!(parameter("numbers=1", "number"), Ok(None));
        assert_eq!(parameter("number=%FF", "number"), Err(NotUtf8));
        assert_eq!(parameter("number=%00", "number"), Ok(Some("\0".to_owned())));
    }
}
