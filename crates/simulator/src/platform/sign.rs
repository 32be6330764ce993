//! Signs notifications as the pages say that the platform does (P 2.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::script::words;
use crate::{Options, Scheme, SimulatorError};

/// Signs, or does not.
#[derive(Clone)]
pub(crate) struct Signer {
    scheme: Scheme,
    wsse: bool,
    secret: Vec<u8>,
    public_url: Option<String>,
}

/// Headers of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub authorization: &'static str,
    pub token_name: &'static str,
    pub token: String,
}

impl Signer {
    /// Reads the secret, if one is needed.
    pub fn of(options: &Options) -> Result<Self, SimulatorError> {
        let secret = match &options.app_secret_file {
            Some(path) if options.sign != Scheme::None => {
                let text = std::fs::read(path)
                    .map_err(|error| SimulatorError::file("read", path, &error))?;
                text.trim_ascii().to_vec()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            scheme: options.sign,
            wsse: options.wsse,
            secret,
            public_url: options.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
        })
    }

    /// Signs a request to this path, sent at this instant, in seconds since 1970.
    pub(super) fn sign(
        &self,
        app_key: &str,
        origin: &str,
        path: &str,
        nonce: &str,
        now: i64,
    ) -> Option<Signature> {
        let url = format!("{}{path}", self.public_url.as_deref().unwrap_or(origin));
        let created = words::created(now, self.scheme == Scheme::P2);
        let digest = match self.scheme {
            Scheme::None => return None,
            Scheme::P1 => self.hmac(&[&url, nonce, &created]),
            Scheme::P2 => self.hmac(&[&url, "\n", nonce, "\n", &created]),
            Scheme::P3 => self.hmac(&[nonce, &created]),
            Scheme::P4 => {
                let digest = Sha256::new()
                    .chain_update(nonce)
                    .chain_update(&created)
                    .chain_update(&self.secret)
                    .finalize();
                STANDARD.encode(digest)
            }
        };
        let (authorization, token_name) = if self.wsse {
            (r#"WSSE realm="SDP",profile="UsernameToken",type="Appkey""#, "X-WSSE")
        } else {
            (r#"AKSK realm="SDP",profile="UsernameToken",type="Appkey""#, "X-AKSK")
        };
        let token = format!(
            r#"UsernameToken Username="{app_key}", PasswordDigest="{digest}", Nonce="{nonce}", Created="{created}""#
        );
        Some(Signature { authorization, token_name, token })
    }

    fn hmac(&self, parts: &[&str]) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("hmac takes any key");
        for part in parts {
            mac.update(part.as_bytes());
        }
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(scheme: Scheme, wsse: bool) -> Option<Signature> {
        let signer = Signer {
            scheme,
            wsse,
            secret: b"simSecretOfAnApp".to_vec(),
            public_url: Some("https://voice.example.com".to_owned()),
        };
        signer.sign("simKey", "http://127.0.0.1:1", "/status", "66C92B11FF8A425F", 1_769_486_400)
    }

    // Digests made with Python's hmac and hashlib.
    #[test]
    fn each_formula_gives_the_digest_that_another_tool_gives() {
        for (scheme, created, digest) in [
            (Scheme::P1, "2026-01-27T04:00:00Z", P1),
            (Scheme::P2, "2026-01-27T12:00:00Z", P2),
            (Scheme::P3, "2026-01-27T04:00:00Z", P3),
            (Scheme::P4, "2026-01-27T04:00:00Z", P4),
        ] {
            let token = token(scheme, false).unwrap().token;
            assert!(token.contains(&format!("Created=\"{created}\"")), "{token}");
            assert!(token.contains(&format!("PasswordDigest=\"{digest}\"")), "{token}");
        }
    }

    #[test]
    fn both_spellings_of_the_header_are_known_and_none_is_none() {
        assert_eq!(token(Scheme::None, false), None);
        assert_eq!(token(Scheme::P3, true).unwrap().token_name, "X-WSSE");
        assert!(token(Scheme::P3, false).unwrap().authorization.starts_with("AKSK "));
    }

    const P1: &str = "kxn597Oy0zUagb45YjAeg1xKjVj3KUSIoBfRlpRV7PY=";
    const P2: &str = "G3HaEwTfkXKBIhylAYNOI9DsFSvJAR6Jo/IgOsBZ3Us=";
    const P3: &str = "sz/XAuxdDA/Nc8eD5FUDza11ydHj25jl0wGZk2gUYis=";
    const P4: &str = "4BxbSbeblSnloHL69oi5Mu1m0gRBgsJzfPlTPOa0+hs=";
}
