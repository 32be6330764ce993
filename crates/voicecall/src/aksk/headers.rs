//! Attributes of the token header, found by name.

/// The headers of a request that have to do with authentication, as received. A header that came
/// more than once is the first of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `X-AKSK`.
    pub x_aksk: Option<&'a [u8]>,
    /// `X-WSSE`, the older name of the same.
    pub x_wsse: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// Picks them out of a request's headers; names are compared without case.
    pub fn pick(all: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut headers = Self::default();
        for (name, value) in all {
            let slot = match name {
                name if name.eq_ignore_ascii_case("authorization") => &mut headers.authorization,
                name if name.eq_ignore_ascii_case("x-aksk") => &mut headers.x_aksk,
                name if name.eq_ignore_ascii_case("x-wsse") => &mut headers.x_wsse,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        headers
    }

    /// Whether the sender authenticates itself at all. An `Authorization` of another scheme, such
    /// as a proxy's own, is none of the platform's.
    pub(super) fn any(&self) -> bool {
        self.x_aksk.is_some() || self.x_wsse.is_some() || self.has_scheme()
    }

    fn has_scheme(&self) -> bool {
        let scheme = |value: &[u8]| {
            let word = value.trim_ascii_start().split(u8::is_ascii_whitespace).next();
            word.is_some_and(|word| {
                word.eq_ignore_ascii_case(b"AKSK") || word.eq_ignore_ascii_case(b"WSSE")
            })
        };
        self.authorization.is_some_and(scheme)
    }
}

/// What a token header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) digest: &'a str,
    pub(super) nonce: &'a str,
    pub(super) created: &'a str,
}

impl<'a> Token<'a> {
    /// Reads the token header; `None` if there is none or an attribute the formulas need is
    /// missing.
    pub(super) fn of(headers: &Headers<'a>) -> Option<Self> {
        let text = token_text(headers)?;
        Some(Self {
            digest: attribute(text, "PasswordDigest")?,
            nonce: attribute(text, "Nonce")?,
            created: attribute(text, "Created")?,
        })
    }
}

/// The Username of the token header: the app_key of the application that signs. Says nothing
/// about whether the signature is right.
pub fn username<'a>(headers: &Headers<'a>) -> Option<&'a str> {
    attribute(token_text(headers)?, "Username").filter(|name| !name.is_empty())
}

fn token_text<'a>(headers: &Headers<'a>) -> Option<&'a str> {
    let value = headers.x_aksk.or(headers.x_wsse)?;
    std::str::from_utf8(value).ok()
}

/// The value of the first attribute of this name, compared without case. Values are quoted, or
/// end at a comma; blanks around names, signs and bare values do not count.
fn attribute<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        // The word before the sign; a scheme such as UsernameToken may stand before it.
        let name = rest[..equals].trim_end();
        let name = name.rsplit([' ', '\t', ',']).next().unwrap_or(name);
        let after = rest[equals + 1..].trim_start();
        let (value, following) = if let Some(quoted) = after.strip_prefix('"') {
            quoted.split_once('"').unwrap_or((quoted, ""))
        } else {
            let (bare, following) = after.split_once(',').unwrap_or((after, ""));
            (bare.trim_end(), following)
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = following;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<(&str, &str, &str, &str)> {
        let headers = Headers { x_aksk: Some(text.as_bytes()), ..Headers::default() };
        let token = Token::of(&headers)?;
        Some((username(&headers).unwrap_or_default(), token.digest, token.nonce, token.created))
    }

    #[test]
    fn attributes_are_found_by_name_in_any_order_and_spacing() {
        let expected = ("app", "d+/=", "n", "t");
        for text in [
            r#"UsernameToken Username="app", PasswordDigest="d+/=", Nonce="n", Created="t""#,
            r#"UsernameToken Username="app",PasswordDigest="d+/=",Nonce="n",Created="t""#,
            r#"UsernameToken  Created = "t" ,	NONCE= "n",passwordDigest="d+/=" , username="app""#,
            "Username=app, PasswordDigest=d+/=, Nonce=n, Created=t ",
            r#"UsernameToken Username="app" PasswordDigest="d+/=" Nonce="n" Created="t""#,
        ] {
            assert_eq!(token(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_name_inside_a_value_or_at_the_end_of_another_name_does_not_count() {
        let text = r#"X="Nonce=1", MyNonce="2", Nonce="3", PasswordDigest="d", Created="t""#;
        assert_eq!(token(text).unwrap().2, "3");
    }

    #[test]
    fn a_token_without_digest_nonce_or_created_is_none() {
        assert_eq!(token(r#"Username="a", Nonce="n", Created="t""#), None);
        assert_eq!(token(""), None);
        assert_eq!(token("====\"\"\","), None);
        let binary = Headers { x_aksk: Some(b"\xff"), ..Headers::default() };
        assert_eq!(Token::of(&binary), None);
    }

    #[test]
    fn headers_are_picked_without_case_and_the_older_name_stands_in() {
        let headers = Headers::pick([
            ("AUTHORIZATION", &b"WSSE realm=\"SDP\""[..]),
            ("x-Wsse", b"UsernameToken Username=\"old\""),
            ("X-WSSE", b"UsernameToken Username=\"second\""),
            ("Host", b"h"),
        ]);
        assert_eq!(username(&headers), Some("old"));
        assert!(headers.any());
    }

    #[test]
    fn the_authorization_of_another_scheme_is_not_the_platforms() {
        let with = |value| Headers { authorization: Some(value), ..Headers::default() };
        assert!(!with(b"Bearer AKSK").any());
        assert!(with(b" aksk realm=\"SDP\"").any());
        assert!(with(b"WSSE").any());
        assert!(!Headers::default().any());
    }
}
