//! TLS of all listeners and of all calls between nodes: certificate, key and authorities as they stand now.
//!
//! *Flow.* Three files are read again every few seconds, or when a handshake fails; what reads well is swapped in whole.
//! Handshakes take what is there when they begin, so a rotation touches no open connection. One certificate serves
//! clients, members and the node's own calls; every side that dials verifies chain and name, and between members both
//! sides verify. While authorities are rotated the file of them holds the old one and the new one.
//!
//! *Addresses.* A node that comes and goes may have no name, only an address that nobody knew when certificates were
//! made. It shows the certificate that all nodes of its cluster share. Who dials an address takes one that is for that
//! address, or one that would do for itself as well: whoever has the key of such a one could pass for the dialling node
//! anyway, so nobody gains anything. Who has a name is verified by it.
//!
//! *Guarantees.* What does not read, does not fit together, or would not be accepted by others, changes nothing as long as
//! there is a set that others accept: it goes on counting. A node whose own certificate nobody would accept says so as the
//! reason why it is not ready.
//!
//! *Caveats.* Connections outlive the certificates they were opened with. Nothing is resumed: a resumed session would
//! skip the look at a certificate that may not be trusted any more.

mod stream;
mod verify;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::runtime;
use tokio::sync::{Notify, watch};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock;
pub use stream::{HttpDoor, Parked, Wire};
pub use verify::{nobody, trusting};

/// Between two looks at files that nobody asks for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks that failed handshakes ask for.
const LOOK_LEAST: Duration = Duration::from_millis(500);
/// A chain, a key, or a bundle of authorities; anything longer is not one.
const FILE_MAX: u64 = 256 << 10;
/// Authorities of one cluster; a rotation needs two.
const AUTHORITIES_MAX: usize = 64;
/// Bytes of a certificate's digest that tell it apart.
const PRINT_BYTES: usize = 8;

/// The scheme of a cluster's URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// By TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A node's URL as a command takes it: without a scheme it is https for who names authorities.
#[must_use]
pub fn base(url: &str, ca_file: Option<&Path>) -> String {
    if url.contains("://") {
        return url.to_owned();
    }
    format!("{}://{url}", if ca_file.is_some() { Scheme::Https } else { Scheme::Http })
}

/// Where certificate, key and authorities are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The node's certificate, and those between it and an authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities whose certificates are accepted.
    pub ca: PathBuf,
}

/// What was read, and fits together.
#[derive(Debug)]
pub struct Material {
    own: Arc<CertifiedKey>,
    roots: RootCertStore,
    /// Digest of the node's certificate, 16 hexadecimal digits.
    pub certificate: String,
    /// Digests of the authorities, sorted.
    pub authorities: Vec<String>,
    /// Unix seconds from which the certificate holds.
    pub not_before_s: i64,
    /// Unix seconds at which the certificate ends.
    pub not_after_s: i64,
}

impl Material {
    fn read(files: &Files) -> Result<Self, String> {
        let at = |path: &Path, why: String| format!("{} {why}", path.display());
        let of = |path: &PathBuf| bytes(path).map_err(|why| at(path, why));
        let (cert, key, ca) = (of(&files.cert)?, of(&files.key)?, of(&files.ca)?);
        let chain = certificates(&cert).map_err(|why| at(&files.cert, why))?;
        let authorities = certificates(&ca).map_err(|why| at(&files.ca, why))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| at(&files.key, format!("holds no key: {e}")))?;
        let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(|e| at(&files.cert, e.to_string()))?;
        let validity = parsed.validity();
        let (not_before_s, not_after_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let certificate = print(&chain[0]);
        let mut prints: Vec<String> = authorities.iter().map(print).collect();
        prints.sort_unstable();
        prints.dedup();
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|e| at(&files.ca, format!("holds an authority that is none: {e}")))?;
        }
        let own = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => at(&files.key, "is not the key of the certificate".to_owned()),
            other => at(&files.key, format!("cannot be used: {other}")),
        })?;
        Ok(Self { own: Arc::new(own), roots, certificate, authorities: prints, not_before_s, not_after_s })
    }

    /// Whether an authority stands behind a chain now.
    fn trusts(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // Members dial with the certificate that they serve with, so it is judged as one that serves.
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end)?,
            &self.roots,
            between,
            now,
            provider().signature_verification_algorithms.all,
        )
    }

    /// Why others would not accept this node's certificate.
    fn problem(&self, host: &str) -> Option<String> {
        let now_s = i64::try_from(clock::unix_ms() / 1000).unwrap_or(i64::MAX);
        let time = |s| jiff::Timestamp::from_second(s).unwrap_or_default();
        if now_s >= self.not_after_s {
            return Some(format!("the certificate expired at {}", time(self.not_after_s)));
        }
        if now_s < self.not_before_s {
            return Some(format!("the certificate holds from {} only", time(self.not_before_s)));
        }
        let (end, between) = self.own.cert.split_first()?;
        if let Err(error) = self.trusts(end, between, UnixTime::now()) {
            return Some(format!("no authority in tls_ca_file stands behind the certificate: {error}"));
        }
        let name = ServerName::try_from(host).ok();
        let parsed = ParsedCertificate::try_from(end).ok();
        let named = name.zip(parsed).is_some_and(|(n, p)| rustls::client::verify_server_name(&p, &n).is_ok());
        (!named).then(|| format!("the certificate does not name {host}"))
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |e: io::Error| format!("cannot be read: {e}");
    let mut found = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_MAX + 1).read_to_end(&mut found).map_err(failed)?;
    if found.len() as u64 > FILE_MAX {
        return Err(format!("has more than {FILE_MAX} bytes"));
    }
    Ok(found)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(AUTHORITIES_MAX + 1).collect();
    match found.map_err(|e| format!("is not PEM: {e}"))? {
        found if found.is_empty() => Err("holds no certificate".to_owned()),
        found if found.len() > AUTHORITIES_MAX => Err(format!("holds more than {AUTHORITIES_MAX} certificates")),
        found => Ok(found),
    }
}

/// What tells a certificate apart: the start of the digest that other tools show of it.
fn print(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().take(PRINT_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// The one implementation of cryptography; nothing is installed for the whole process.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What counts now.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The last good set.
    pub material: Option<Arc<Material>>,
    /// Why others do not accept this node's certificate, or why there is none.
    pub problem: Option<String>,
}

/// Everybody's view of the certificates. Cheap to clone; never prints a key.
#[derive(Clone)]
pub struct Tls {
    now: watch::Receiver<Now>,
    set: Arc<watch::Sender<Now>>,
    files: Arc<Files>,
    host: Arc<str>,
    doubt: Arc<Notify>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files once. What is wrong with them is in [`Tls::now`]: a node without a certificate stays up, so that
    /// it can be asked what it waits for. `host`: the name that this node's certificate must hold.
    #[must_use]
    pub fn new(files: Files, host: &str) -> Self {
        let (set, now) = watch::channel(Now::default());
        let tls = Self { now, set: Arc::new(set), files: Arc::new(files), host: host.into(), doubt: Arc::default() };
        let read = Material::read(&tls.files);
        tls.take(read);
        tls
    }

    /// What counts now.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now.borrow().clone()
    }

    /// Changes are awaited on it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Now> {
        self.now.clone()
    }

    /// A handshake failed: perhaps the files changed.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// The name of this node, if it has one: an address is none.
    fn name(&self) -> Option<ServerName<'_>> {
        ServerName::try_from(&*self.host).ok().filter(|own| matches!(own, ServerName::DnsName(_)))
    }

    fn material(&self) -> Option<Arc<Material>> {
        self.now.borrow().material.clone()
    }

    /// Takes what was read; what did not read, or is worse than what there is, leaves the last good set. Gives the error
    /// that is to be logged.
    fn take(&self, read: Result<Material, String>) -> Option<String> {
        let good = self.material().is_some_and(|material| material.problem(&self.host).is_none());
        let (fresh, error) = match read {
            Ok(material) => match material.problem(&self.host).filter(|_| good) {
                Some(why) => (None, Some(why)),
                None => (Some(material), None),
            },
            Err(why) => (None, Some(why)),
        };
        self.set.send_if_modified(|now| {
            let before = (now.material.clone(), now.problem.clone());
            let same =
                |a: &Material, b: &Material| (&a.certificate, &a.authorities) == (&b.certificate, &b.authorities);
            if let Some(fresh) = fresh.filter(|fresh| !before.0.as_ref().is_some_and(|old| same(old, fresh))) {
                now.material = Some(Arc::new(fresh));
            }
            now.problem = match &now.material {
                Some(material) => material.problem(&self.host),
                None => Some(error.clone().unwrap_or_else(|| "there is no certificate".to_owned())),
            };
            now.problem != before.1 || now.material.as_ref().map(Arc::as_ptr) != before.0.as_ref().map(Arc::as_ptr)
        });
        error
    }

    /// Follows the files for as long as the runtime lives.
    pub fn follow(&self, runtime: &runtime::Handle) {
        let tls = self.clone();
        runtime.spawn(async move {
            let (mut complained, mut problem, mut shown) = (None, None, None);
            loop {
                let files = Arc::clone(&tls.files);
                let read = tokio::task::spawn_blocking(move || Material::read(&files)).await;
                let error = tls.take(read.unwrap_or_else(|e| Err(e.to_string())));
                if let Some(why) = error.as_ref().filter(|why| complained.as_ref() != Some(*why)) {
                    tracing::error!(%why, "the certificates stay as they were");
                }
                complained = error;
                let now = tls.now();
                let print = now.material.as_ref().map(|m| (m.certificate.clone(), m.authorities.clone()));
                if let Some(material) = now.material.as_ref().filter(|_| print != shown) {
                    let until = jiff::Timestamp::from_second(material.not_after_s).unwrap_or_default();
                    let authorities = material.authorities.len();
                    tracing::info!(certificate = material.certificate, %until, authorities, "this certificate counts");
                }
                shown = print;
                if now.problem != problem {
                    match &now.problem {
                        Some(why) => tracing::error!(%why, "others will not accept this node's certificate"),
                        None => tracing::info!("others accept this node's certificate again"),
                    }
                }
                problem = now.problem;
                tokio::time::sleep(LOOK_LEAST).await;
                let _ = tokio::time::timeout(LOOK_EVERY - LOOK_LEAST, tls.doubt.notified()).await;
            }
        });
    }
}

#[cfg(test)]
mod tests;
