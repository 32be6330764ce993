//! One request, and where it goes.

use bytes::Bytes;
use hyper::Uri;
use tokio::time::Instant;

use crate::journal::Part;
use crate::script::Delivery;
use crate::{Options, SimulatorError};

/// Which of the two notifications a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Status,
    Fee,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub kind: Kind,
    pub application: usize,
    pub body: Bytes,
    /// What it carries.
    pub parts: Vec<Part>,
    /// When it should be sent; waiting for a connection does not change it.
    pub due: Instant,
    pub delivery: Delivery,
    /// Attempts before this one.
    pub attempt: usize,
    /// The answer to the first attempt counts as lost, whatever it is.
    pub loses_answer: bool,
}

/// What the sender saw of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    /// Sent, at least in part, and no answer.
    None,
    /// Nothing was sent.
    NotSent,
}

/// An edge, as its URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub host: String,
    pub port: u16,
    /// Value of the Host header.
    pub authority: String,
    /// Path before `/status`, without a slash at its end.
    pub base: String,
    /// Everything before the path.
    pub origin: String,
}

impl Target {
    /// Reads an edge's URL.
    pub fn of(url: &str) -> Result<Self, SimulatorError> {
        let refuse = |text: &str| SimulatorError::Options(text.to_owned());
        let uri: Uri = url
            .parse()
            .map_err(|_| refuse("--edge is not a URL; give one such as http://127.0.0.1:8080"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refuse(
                "--edge must begin with http://: the simulator speaks no TLS; send to the edge \
                 behind its proxy",
            ));
        }
        let authority = uri.authority().ok_or_else(|| refuse("--edge names no host"))?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            base: uri.path().trim_end_matches('/').to_owned(),
            origin: format!("http://{authority}"),
        })
    }

    /// The edges of the options, at least one.
    pub fn all(options: &Options) -> Result<Vec<Self>, SimulatorError> {
        if options.edges.is_empty() {
            return Err(SimulatorError::Options("--edge is missing".to_owned()));
        }
        options.edges.iter().map(|url| Self::of(url)).collect()
    }
}

/// Path of a notification; the segment is a secret.
pub(super) fn path(base: &str, segment: Option<&str>, kind: Kind) -> String {
    let segment = segment.map(|segment| format!("/{segment}")).unwrap_or_default();
    let name = match kind {
        Kind::Status => "status",
        Kind::Fee => "fee",
    };
    format!("{base}{segment}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edges_url_is_taken_apart() {
        let target = Target::of("http://edge.example:8081/in/").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("edge.example", 8081));
        assert_eq!(path(&target.base, Some("abc"), Kind::Fee), "/in/abc/fee");
        let target = Target::of("http://[::1]:80").unwrap();
        assert_eq!(target.host, "::1");
        assert_eq!(path(&target.base, None, Kind::Status), "/status");
        assert!(Target::of("https://edge.example").is_err());
        assert!(Target::of("edge.example").is_err());
    }
}
