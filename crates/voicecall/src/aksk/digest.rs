//! The five formulas of P 2.2.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tollgate_schema::v1::Authenticity;

use super::headers::{Headers, Token};

/// How a PasswordDigest is computed; the numbers are those of P 2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Formula {
    /// Base64(HMAC-SHA256(secret, url + nonce + created)).
    P1,
    /// Base64(HMAC-SHA256(secret, url + LF + nonce + LF + created)).
    P2,
    /// Base64(HMAC-SHA256(secret, nonce + created)); also that of every outbound API call.
    P3,
    /// Base64(SHA-256(nonce + created + secret)).
    P4,
    /// Base64 of the lower-case hex text of what P4 encodes raw. The page can also be read as
    /// the hex text itself; [`verify`] takes both, [`sign`] makes the first.
    P5,
}

impl Formula {
    /// The order in which they are tried: the newest documentation first.
    const ORDER: [Self; 5] = [Self::P2, Self::P1, Self::P3, Self::P4, Self::P5];

    /// The finding that this formula reproduced the digest.
    pub const fn authenticity(self) -> Authenticity {
        match self {
            Self::P1 => Authenticity::VerifiedP1,
            Self::P2 => Authenticity::VerifiedP2,
            Self::P3 => Authenticity::VerifiedP3,
            Self::P4 => Authenticity::VerifiedP4,
            Self::P5 => Authenticity::VerifiedP5,
        }
    }

    /// Whether the configured URL is part of what is signed.
    pub const fn covers_url(self) -> bool {
        matches!(self, Self::P1 | Self::P2)
    }

    /// The PasswordDigest. `url` is the push URL as configured at the platform; only P1 and P2
    /// look at it.
    pub fn digest(self, secret: &[u8], url: &str, nonce: &str, created: &str) -> String {
        match self {
            Self::P1 => BASE64.encode(hmac(secret, &[url, nonce, created])),
            Self::P2 => BASE64.encode(hmac(secret, &[url, "\n", nonce, "\n", created])),
            Self::P3 => BASE64.encode(hmac(secret, &[nonce, created])),
            Self::P4 => BASE64.encode(plain(secret, nonce, created)),
            Self::P5 => BASE64.encode(hex(&plain(secret, nonce, created))),
        }
    }

    fn matches(self, secret: &[u8], url: &str, token: &Token<'_>) -> bool {
        let given = token.digest.as_bytes();
        let same = |expected: String| expected.as_bytes().ct_eq(given);
        let mut found = same(self.digest(secret, url, token.nonce, token.created));
        if self == Self::P5 {
            found |= same(hex(&plain(secret, token.nonce, token.created)));
        }
        Choice::into(found)
    }
}

fn hmac(secret: &[u8], parts: &[&str]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("hmac takes any key");
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn plain(secret: &[u8], nonce: &str, created: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(nonce.as_bytes());
    hasher.update(created.as_bytes());
    hasher.update(secret);
    hasher.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Cannot fail: a String takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Finds out whether a push comes from somebody who knows one of the secrets.
///
/// `secrets` are those of the application named by [`username`](super::username), `urls` the
/// status and the CDR URL as configured at the platform (the pages disagree which of them is
/// signed). Each comparison takes the same time whatever the digest is. Freshness is another
/// question, see [`created_is_fresh`](super::created_is_fresh).
pub fn verify<S: AsRef<[u8]>, U: AsRef<str>>(
    headers: &Headers<'_>,
    secrets: &[S],
    urls: &[U],
) -> Authenticity {
    if !headers.any() {
        return Authenticity::Absent;
    }
    let Some(token) = Token::of(headers) else { return Authenticity::Failed };
    for formula in Formula::ORDER {
        // An empty secret would make everybody's signature good.
        for secret in secrets.iter().map(AsRef::as_ref).filter(|secret| !secret.is_empty()) {
            let matches = |url: &str| formula.matches(secret, url, &token);
            let verified = if formula.covers_url() {
                urls.iter().any(|url| matches(url.as_ref()))
            } else {
                matches("")
            };
            if verified {
                return formula.authenticity();
            }
        }
    }
    Authenticity::Failed
}

/// Under which header names a signature travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spelling {
    /// `Authorization: AKSK …` with `X-AKSK`.
    Aksk,
    /// `Authorization: WSSE …` with `X-WSSE`, on older platforms.
    Wsse,
}

/// Headers to send with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// Value of `Authorization`.
    pub authorization: &'static str,
    /// Name of the token header.
    pub token_name: &'static str,
    /// Its value.
    pub token: String,
}

impl SignedHeaders {
    /// The same headers as a receiver sees them.
    pub fn as_headers(&self) -> Headers<'_> {
        let own = [
            ("Authorization", self.authorization.as_bytes()),
            (self.token_name, self.token.as_bytes()),
        ];
        Headers::pick(own)
    }
}

/// Signs a request. `created` is `yyyy-MM-ddTHH:mm:ssZ`, `nonce` 1 to 128 letters and digits;
/// neither is checked, so that a simulator can send wrong ones.
pub fn sign(
    formula: Formula,
    spelling: Spelling,
    (username, secret): (&str, &[u8]),
    url: &str,
    nonce: &str,
    created: &str,
) -> SignedHeaders {
    let digest = formula.digest(secret, url, nonce, created);
    let (authorization, token_name) = match spelling {
        Spelling::Aksk => (r#"AKSK realm="SDP",profile="UsernameToken",type="Appkey""#, "X-AKSK"),
        Spelling::Wsse => (r#"WSSE realm="SDP",profile="UsernameToken",type="Appkey""#, "X-WSSE"),
    };
    let token = format!(
        r#"UsernameToken Username="{username}", PasswordDigest="{digest}", Nonce="{nonce}", Created="{created}""#
    );
    SignedHeaders { authorization, token_name, token }
}
