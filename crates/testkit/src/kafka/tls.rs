//! A private certificate authority and the broker's certificate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Paths of PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The authority that signed the broker's certificate.
    pub ca: PathBuf,
    /// An authority that signed nothing here.
    pub other_ca: PathBuf,
    /// The broker's key and certificate in one file, as Kafka wants its PEM key store.
    pub key_store: PathBuf,
}

impl Tls {
    /// Makes everything below `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        let authority = authority("Tollgate test CA")?;
        let other = self::authority("Somebody else's CA")?;

        let mut server = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        server.distinguished_name.push(DnType::CommonName, "kafka");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;

        let tls = Self {
            ca: dir.join("ca.pem"),
            other_ca: dir.join("other-ca.pem"),
            key_store: dir.join("broker.pem"),
        };
        fs::write(&tls.ca, authority.pem())?;
        fs::write(&tls.other_ca, other.pem())?;
        fs::write(&tls.key_store, format!("{}{}", key.serialize_pem(), certificate.pem()))?;
        Ok(tls)
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
