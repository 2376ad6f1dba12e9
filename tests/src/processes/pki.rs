//! An authority of the harness, and the files that nodes read from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct TemporaryDir(PathBuf);

impl TemporaryDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // A leftover in the temporary folder is no reason to fail.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Makes a folder for certificates: a cluster's own is made with the cluster.
pub fn temporary_dir() -> Result<TemporaryDir> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}pki-{}-{}", super::TEMPORARY, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir)?;
    Ok(TemporaryDir(dir))
}

/// So many days from now.
pub fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 24 * 3600)
}

/// Signs certificates of nodes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate with its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).context("cannot sign the authority's certificate")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names and addresses that holds until then.
    pub fn leaf(&self, hosts: &[&str], until: SystemTime) -> Result<Leaf> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(hosts).context("cannot describe a certificate")?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "node");
        params.not_after = until.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let cert = params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?.pem();
        Ok(Leaf { cert, key: key.serialize_pem() })
    }
}

/// The three files of a node.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate.
    pub cert: PathBuf,
    /// Key.
    pub key: PathBuf,
    /// Authorities.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// Where they are in a folder, by the names that Kubernetes gives them.
    pub fn within(dir: &Path) -> Self {
        Self { cert: dir.join("tls.crt"), key: dir.join("tls.key"), ca: dir.join("ca.crt") }
    }

    /// Writes them, each whole or not at all; the three are not changed as one.
    pub fn write(&self, leaf: &Leaf, authorities: &[&Authority]) -> Result<()> {
        let ca: String = authorities.iter().map(|authority| authority.pem()).collect();
        for (path, text) in [(&self.ca, ca.as_str()), (&self.key, &leaf.key), (&self.cert, &leaf.cert)] {
            let new = path.with_extension("new");
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&new, text)?;
            fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The keys of a node's configuration.
    pub fn settings(&self) -> [(&'static str, serde_json::Value); 3] {
        [("tls_cert_file", &self.cert), ("tls_key_file", &self.key), ("tls_ca_file", &self.ca)]
            .map(|(key, path)| (key, serde_json::json!(path)))
    }
}
