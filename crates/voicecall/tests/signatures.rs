//! Signatures against digests that Python's own libraries computed (`vectors/aksk.py`).

use tollgate_schema::v1::Authenticity;
use tollgate_voicecall::aksk::{Formula, Headers, SignedHeaders, Spelling, sign, username, verify};

const FORMULAS: [(&str, Formula); 5] = [
    ("P1", Formula::P1),
    ("P2", Formula::P2),
    ("P3", Formula::P3),
    ("P4", Formula::P4),
    ("P5", Formula::P5),
];

#[derive(serde::Deserialize)]
struct Vector {
    username: String,
    secret: String,
    url: String,
    nonce: String,
    created: String,
    digests: std::collections::BTreeMap<String, String>,
}

impl Vector {
    fn sign(&self, formula: Formula, spelling: Spelling) -> SignedHeaders {
        let application = (self.username.as_str(), self.secret.as_bytes());
        sign(formula, spelling, application, &self.url, &self.nonce, &self.created)
    }

    fn token(&self, digest: &str) -> String {
        let Self { username, nonce, created, .. } = self;
        format!(
            r#"UsernameToken Username="{username}",PasswordDigest="{digest}",Nonce="{nonce}",Created="{created}""#
        )
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors/aksk.json")).unwrap()
}

fn with_token(token: &str) -> Headers<'_> {
    Headers { x_aksk: Some(token.as_bytes()), ..Headers::default() }
}

#[test]
fn every_formula_makes_the_digest_that_python_makes() {
    for vector in vectors() {
        for (name, formula) in FORMULAS {
            let Vector { secret, url, nonce, created, .. } = &vector;
            let digest = formula.digest(secret.as_bytes(), url, nonce, created);
            assert_eq!(digest, vector.digests[name], "{name}");
        }
    }
}

#[test]
fn a_signature_is_verified_by_the_formula_that_made_it() {
    for vector in vectors() {
        for (name, formula) in FORMULAS {
            for spelling in [Spelling::Aksk, Spelling::Wsse] {
                let signed = vector.sign(formula, spelling);
                let headers = signed.as_headers();
                let found = verify(&headers, &[&vector.secret], &[&vector.url]);
                assert_eq!(found, formula.authenticity(), "{name}");
                assert_eq!(username(&headers), Some(vector.username.as_str()));
            }
        }
    }
}

#[test]
fn the_hex_text_itself_is_the_other_reading_of_p5() {
    for vector in vectors() {
        let token = vector.token(&vector.digests["P5 without Base64"]);
        let found = verify(&with_token(&token), &[&vector.secret], &[&vector.url]);
        assert_eq!(found, Authenticity::VerifiedP5);
    }
}

#[test]
fn every_secret_and_every_url_is_tried() {
    let vector = &vectors()[0];
    let signed = vector.sign(Formula::P2, Spelling::Aksk);
    let headers = signed.as_headers();
    let (other, url) = ("https://push.example.com/other", vector.url.as_str());
    assert_eq!(
        verify(&headers, &["old", vector.secret.as_str()], &[other, url]),
        Authenticity::VerifiedP2
    );
    assert_eq!(verify(&headers, &["old"], &[other, url]), Authenticity::Failed);
    assert_eq!(verify(&headers, &[vector.secret.as_str()], &[other]), Authenticity::Failed);
    assert_eq!(verify(&headers, &[vector.secret.as_str()], &[] as &[&str]), Authenticity::Failed);
    assert_eq!(verify(&headers, &[] as &[&str], &[url]), Authenticity::Failed);
}

#[test]
fn formulas_without_a_url_need_none_configured() {
    let vector = &vectors()[0];
    let signed = vector.sign(Formula::P3, Spelling::Aksk);
    let found = verify(&signed.as_headers(), &[&vector.secret], &[] as &[&str]);
    assert_eq!(found, Authenticity::VerifiedP3);
}

#[test]
fn a_change_of_any_signed_part_fails() {
    for vector in vectors() {
        let digest = &vector.digests["P2"];
        let token = vector.token(digest);
        let mut flipped = digest.clone().into_bytes();
        flipped[0] = if flipped[0] == b'A' { b'B' } else { b'A' };
        let cut = &digest[..digest.len() - 1];
        for wrong in [
            token.replace(&vector.created, "2020-01-01T00:00:00Z"),
            token.replace(&format!("Nonce=\"{}", vector.nonce), "Nonce=\"0"),
            vector.token(std::str::from_utf8(&flipped).unwrap()),
            vector.token(cut),
            vector.token(""),
        ] {
            let found = verify(&with_token(&wrong), &[&vector.secret], &[&vector.url]);
            assert_eq!(found, Authenticity::Failed, "{wrong}");
        }
    }
}

#[test]
fn absent_headers_are_absent_and_incomplete_ones_fail() {
    let verify = |headers: Headers<'_>| verify(&headers, &["s"], &["https://example.com"]);
    assert_eq!(verify(Headers::default()), Authenticity::Absent);
    let authorization = Some(&b"Basic dXNlcg=="[..]);
    assert_eq!(verify(Headers { authorization, ..Headers::default() }), Authenticity::Absent);
    let authorization = Some(&b"AKSK realm=\"SDP\""[..]);
    assert_eq!(verify(Headers { authorization, ..Headers::default() }), Authenticity::Failed);
    assert_eq!(verify(with_token("")), Authenticity::Failed);
    assert_eq!(verify(with_token("UsernameToken Username=\"a\"")), Authenticity::Failed);
}

#[test]
fn an_empty_secret_verifies_nothing() {
    let signed = sign(Formula::P3, Spelling::Aksk, ("a", b""), "", "n", "2024-05-20T03:04:24Z");
    assert_eq!(verify(&signed.as_headers(), &[""], &[""]), Authenticity::Failed);
}

#[test]
fn a_header_as_captured_from_an_old_platform_is_read() {
    // No blank after the commas, other attribute order, and the older header name.
    let digest = Formula::P4.digest(b"s", "", "9f", "2022-05-01T08:00:00Z");
    let token = format!(
        r#"UsernameToken Username="app",Nonce="9f",Created="2022-05-01T08:00:00Z",PasswordDigest="{digest}""#
    );
    let headers = Headers::pick([
        ("authorization", &b"WSSE realm=\"SDP\",profile=\"UsernameToken\",type=\"Appkey\""[..]),
        ("x-wsse", token.as_bytes()),
    ]);
    assert_eq!(verify(&headers, &[b"s"], &[] as &[&str]), Authenticity::VerifiedP4);
}
