//! HTTPS at the edge itself, for deployments without a proxy.

use std::path::Path;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::EdgeError;
use crate::settings::Settings;

/// The server's configuration, if a certificate is configured.
pub fn config(settings: &Settings) -> Result<Option<ServerConfig>, EdgeError> {
    let (Some(certificate), Some(key)) = (&settings.tls_certificate_file, &settings.tls_key_file)
    else {
        return Ok(None);
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failure("edge.tls_certificate_file", certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| failure("edge.tls_key_file", key, &error))?;
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| EdgeError::Tls(error.to_string()))?;
    Ok(Some(config))
}

fn failure(setting: &str, path: &Path, error: &dyn std::fmt::Display) -> EdgeError {
    EdgeError::Tls(format!("{setting} names {}: {error}", path.display()))
}
