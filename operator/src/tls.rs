//! Certificates of a cluster: what is due, and whether what there is will be accepted. Pure; keys are drawn in `issue`.
//!
//! One certificate serves all nodes. With `SelfManaged` the operator keeps an authority for each cluster: the first
//! certificate of its bundle signs, all are trusted. A rotation of the authority is three changes, each waiting for the
//! nodes to say that they have read the one before: the new authority joins the bundle, a certificate of it takes over,
//! the old one leaves. Nothing is remembered elsewhere: what the Secrets hold and what the nodes say decide the step.

pub mod client;
pub mod content;
pub mod issue;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ais_crds::{AISClusterSpec, TlsMode};
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::facts::{Observed, PodFact};
use crate::names::{Names, Role};
use crate::validate::hex;
use crate::view::{Reports, TlsView};

/// Keys of the Secrets and of the ConfigMap.
pub const CERT_KEY: &str = "tls.crt";
/// The certificate's key.
pub const KEY_KEY: &str = "tls.key";
/// Trusted authorities.
pub const CA_KEY: &str = "ca.crt";
/// The key of the first of them.
pub const CA_KEY_KEY: &str = "ca.key";

/// More certificates than a chain or bundle has.
const CERTIFICATES_MAX: usize = 64;
/// No certificate is said to end soon that holds for longer, in seconds.
const SOON_MAX_S: i64 = 30 * 24 * 3600;
/// How long nodes that nobody asks may take to read a new certificate, in seconds since it holds: kubelets refresh the
/// files of pods within two minutes, and certificates begin five minutes before they are made.
const UNASKED_S: i64 = 600;
/// Bytes of a certificate's digest that tell it apart, as the nodes show it.
const PRINT_BYTES: usize = 8;

/// How long certificates of the operator hold, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A cluster's certificate.
    pub certificate_s: i64,
    /// Its authority.
    pub authority_s: i64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { certificate_s: 90 * 24 * 3600, authority_s: 10 * 365 * 24 * 3600 }
    }
}

impl Lifetimes {
    /// A century: no calendar ends before such a certificate does.
    pub const MAX_S: i64 = 100 * 365 * 24 * 3600;
    /// An authority is replaced after two thirds of its life: in the rest a certificate of it has to fit, and the overlap.
    const AUTHORITY_TIMES: i64 = 3;

    /// Checks them against each other.
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(certificate_s: i64, authority_s: i64) -> Result<Self, String> {
        if authority_s / Self::AUTHORITY_TIMES < certificate_s {
            let times = Self::AUTHORITY_TIMES;
            return Err(format!(
                "authorities that hold {authority_s} s cannot sign certificates that hold {certificate_s} s: at least {times} times as long is needed"
            ));
        }
        Ok(Self { certificate_s, authority_s })
    }

    /// How long a new authority is published before a certificate of it is shown: clients have to fetch it.
    #[must_use]
    pub fn overlap_s(self) -> i64 {
        self.certificate_s / 6
    }
}

/// Texts with a key, which is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pair {
    /// Certificates in PEM: a chain, or a bundle of authorities whose first one signs.
    pub certs: String,
    /// Key in PEM.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certs", &self.certs).finish_non_exhaustive()
    }
}

/// A Secret with a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The nodes' certificate.
    pub own: Pair,
    /// Authorities that they trust.
    pub ca: String,
}

/// What was found of certificates, and drawn anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The authority's Secret as it shall be; only with `SelfManaged`.
    pub authority: Option<Pair>,
    /// The certificate's Secret as it shall be; the user's with `SecretRef`.
    pub server: Option<Server>,
    /// What the user's Secret lacks.
    pub missing: Option<Problem>,
    /// Authorities as they were last published: what counts while the Secret is gone or does not read.
    pub published: Option<String>,
    /// What this pass drew.
    pub issued: Vec<String>,
}

/// Why a certificate will not be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

fn problem(reason: &'static str, message: impl Into<String>) -> Problem {
    Problem { reason, message: message.into() }
}

/// A certificate as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    der: CertificateDer<'static>,
    /// Digest, as the nodes show it.
    pub print: String,
    /// Unix seconds.
    pub not_before_s: i64,
    /// Unix seconds.
    pub not_after_s: i64,
    /// Names and addresses it is for.
    pub names: BTreeSet<String>,
}

impl Parsed {
    fn life_s(&self) -> i64 {
        self.not_after_s.saturating_sub(self.not_before_s)
    }

    /// Two thirds of its life are over, or it begins later than now: the clock went back since it was made.
    fn is_old(&self, now_s: i64) -> bool {
        now_s >= self.not_before_s.saturating_add(self.life_s() / 3 * 2) || now_s < self.not_before_s
    }

    /// A tenth of its life is left, or it does not hold yet.
    fn is_pressing(&self, now_s: i64) -> bool {
        now_s >= self.not_after_s.saturating_sub(self.life_s() / 10) || now_s < self.not_before_s
    }

    /// Whether this authority signed it.
    fn is_of(&self, authority: &Self) -> bool {
        let mut roots = RootCertStore::empty();
        if roots.add(authority.der.clone()).is_err() {
            return false;
        }
        let at_s = self.not_before_s.max(authority.not_before_s).saturating_add(1);
        trusted(&self.der, &[], &roots, at_s).is_ok()
    }
}

/// The certificates of a text as texts. Whatever else it holds is left out: a bundle may have a key in it, and what is
/// published must not.
pub fn blocks(pem: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = pem;
    std::iter::from_fn(move || {
        let from = rest.find(BEGIN)?;
        let to = from + rest[from..].find(END)? + END.len();
        let block = &rest[from..to];
        rest = &rest[to..];
        Some(block)
    })
}

/// The certificates that still hold at a time; none that cannot be read.
#[must_use]
pub fn unexpired(pem: &str, now_s: i64) -> String {
    let holds = |block: &&str| parse(block).is_ok_and(|found| found.iter().all(|c| now_s < c.not_after_s));
    blocks(pem).filter(holds).flat_map(|block| [block, "\n"]).collect()
}

/// The authorities by which the operator verifies nodes, and which it publishes: those of the Secret; what was last
/// published while that is gone or does not read, because the nodes go on with what they have. Certificates only.
#[must_use]
pub fn trust(facts: &TlsFacts) -> String {
    let of_secret = facts.server.as_ref().map(|server| server.ca.as_str()).filter(|ca| parse(ca).is_ok());
    let text = of_secret.or(facts.published.as_deref()).unwrap_or_default();
    blocks(text).flat_map(|block| [block, "\n"]).collect()
}

/// Digests of the certificates in a text, sorted as the nodes show them.
#[must_use]
pub fn prints(pem: &str) -> Vec<String> {
    let mut prints: Vec<String> = parse(pem).unwrap_or_default().into_iter().map(|c| c.print).collect();
    prints.sort_unstable();
    prints.dedup();
    prints
}

/// Reads certificates.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(pem: &str) -> Result<Vec<Parsed>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).take(CERTIFICATES_MAX + 1);
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| format!("not PEM: {e}"))?;
    if found.is_empty() || found.len() > CERTIFICATES_MAX {
        return Err(format!("{} certificates; 1 to {CERTIFICATES_MAX} are read", found.len()));
    }
    found.into_iter().map(parse_one).collect()
}

fn parse_one(der: CertificateDer<'static>) -> Result<Parsed, String> {
    let (_, x509) = X509Certificate::from_der(&der).map_err(|e| format!("not a certificate: {e}"))?;
    let alternatives = x509.subject_alternative_name().map_err(|e| format!("its names cannot be read: {e}"))?;
    let names =
        alternatives.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
    let (names, validity) = (names.collect(), x509.validity());
    let (not_before_s, not_after_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let print = hex(&Sha256::digest(&der), PRINT_BYTES);
    Ok(Parsed { print, not_before_s, not_after_s, names, der })
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| IpAddr::from(b).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| IpAddr::from(b).to_string())).ok()
}

fn trusted(
    end: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &RootCertStore,
    at_s: i64,
) -> Result<(), rustls::Error> {
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at_s).unwrap_or(0)));
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let end = ParsedCertificate::try_from(end)?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&end, roots, between, at, algorithms)
}

/// The Services by which clients call nodes. That of the access gateways only where there are some: a certificate of
/// before they were known stays as it is when another operator takes over, and a user's is not judged by what nobody
/// dials. Asking for them later is another certificate, which nodes read without a restart.
fn services(names: &Names, spec: &AISClusterSpec) -> Vec<String> {
    let access = spec.access_gateways.as_ref().map(|_| names.access());
    [names.service(), names.primary()].into_iter().chain(access).collect()
}

/// The names in certificates of the operator.
#[must_use]
pub fn wanted_names(names: &Names, spec: &AISClusterSpec) -> BTreeSet<String> {
    let (ns, domain) = (&names.namespace, &names.domain);
    // Addresses as a certificate gives them back: another spelling would be another certificate at every look.
    let spelt = |name: &String| name.parse::<IpAddr>().map_or_else(|_| name.clone(), |address| address.to_string());
    let mut wanted: BTreeSet<String> = spec.tls.names.iter().map(spelt).collect();
    for role in Role::ALL {
        let set = names.set(role);
        wanted.extend([format!("*.{set}.{ns}.svc.{domain}"), format!("*.{set}.{ns}.svc")]);
    }
    for service in services(names, spec) {
        wanted.extend([
            names.service_host(&service),
            format!("{service}.{ns}.svc"),
            format!("{service}.{ns}"),
            service,
        ]);
    }
    // For `kubectl port-forward`.
    wanted.insert("localhost".to_owned());
    wanted
}

/// What the nodes say of the certificates they have read; `None` for one that does not answer.
#[derive(Clone, Debug, Default)]
pub struct Readers<'a> {
    said: Vec<(&'a str, Option<&'a TlsView>)>,
    /// There are access gateways, which nobody asks.
    unasked: bool,
}

impl<'a> Readers<'a> {
    /// Of all pods but those that go.
    #[must_use]
    pub fn of(pods: &'a [PodFact], reports: &'a Reports, spec: &AISClusterSpec) -> Self {
        let said = |pod: &PodFact| reports.get(&pod.name)?.view()?.credentials.tls.as_ref();
        let said = pods.iter().filter(|p| !p.deleting).map(|p| (p.name.as_str(), said(p))).collect();
        Self { said, unasked: spec.access_gateways.is_some() }
    }

    fn all(&self, holds: impl Fn(&TlsView) -> bool) -> bool {
        self.said.iter().all(|(_, said)| said.is_some_and(&holds))
    }

    /// Those that do not have this certificate, or not these authorities.
    #[must_use]
    pub fn behind(&self, certificate: &str, authorities: &[String]) -> Vec<&'a str> {
        let has = |said: &TlsView| said.certificate.as_deref() == Some(certificate) && said.authorities == authorities;
        self.said.iter().filter(|(_, said)| !said.is_some_and(has)).map(|(pod, _)| *pod).collect()
    }
}

/// What is to be drawn or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A new authority joins.
    pub authority: bool,
    /// Authorities that nobody needs leave.
    pub forget: bool,
    /// A new certificate of the first authority.
    pub certificate: bool,
}

/// What is due with `SelfManaged`.
#[must_use]
pub fn due(
    now: Timestamp,
    lifetimes: Lifetimes,
    wanted: &BTreeSet<String>,
    authorities: &[Parsed],
    own: Option<&Parsed>,
    readers: &Readers<'_>,
) -> Due {
    let now_s = now.as_second();
    let Some(signer) = authorities.first().filter(|signer| !signer.is_old(now_s)) else {
        // With a certificate at hand nobody is in a hurry: the next passes show the new authority first.
        return Due { authority: true, forget: false, certificate: own.is_none() };
    };
    let Some(own) = own else { return Due { certificate: true, ..Due::default() } };
    let ours = own.is_of(signer);
    if ours {
        let certificate = own.is_old(now_s) || own.names != *wanted;
        let waited = !readers.unasked || now_s >= own.not_before_s.saturating_add(UNASKED_S.min(own.life_s() / 3));
        let read = waited && readers.all(|said| said.certificate.as_deref() == Some(own.print.as_str()));
        return Due { certificate, forget: !certificate && authorities.len() > 1 && read, authority: false };
    }
    let known = readers.all(|said| said.authorities.contains(&signer.print));
    let published = now_s >= signer.not_before_s.saturating_add(lifetimes.overlap_s());
    Due { certificate: (known && published) || own.is_pressing(now_s), ..Due::default() }
}

/// Checks a certificate as clients and nodes will.
///
/// # Errors
/// [`Problem`]
pub fn check(server: &Server, hosts: &[String], now: Timestamp) -> Result<Parsed, Problem> {
    let unreadable = |what: &str, why: String| problem("CertificateUnreadable", format!("{what}: {why}"));
    let chain = parse(&server.own.certs).map_err(|why| unreadable(CERT_KEY, why))?;
    let authorities = parse(&server.ca).map_err(|why| unreadable(CA_KEY, why))?;
    let key = PrivateKeyDer::from_pem_slice(server.own.key.as_bytes());
    let key = key.map_err(|e| unreadable(KEY_KEY, format!("not a key: {e}")))?;
    let ders: Vec<_> = chain.iter().map(|c| c.der.clone()).collect();
    CertifiedKey::from_der(ders.clone(), key, &ring::default_provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => problem("KeyMismatch", "tls.key is not the key of tls.crt"),
        other => unreadable(KEY_KEY, other.to_string()),
    })?;
    let own = chain.into_iter().next().ok_or_else(|| unreadable(CERT_KEY, "no certificate".to_owned()))?;
    let (now_s, time) = (now.as_second(), |s| Timestamp::from_second(s).unwrap_or_default());
    if now_s < own.not_before_s {
        return Err(problem("NotYetValid", format!("the certificate holds from {} only", time(own.not_before_s))));
    }
    if now_s >= own.not_after_s {
        return Err(problem("CertificateExpired", format!("the certificate expired at {}", time(own.not_after_s))));
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.der).map_err(|e| unreadable(CA_KEY, e.to_string()))?;
    }
    trusted(&own.der, &ders[1..], &roots, now_s)
        .map_err(|e| problem("UnknownIssuer", format!("no authority in ca.crt stands behind tls.crt: {e}")))?;
    let parsed = ParsedCertificate::try_from(&own.der).map_err(|e| unreadable(CERT_KEY, e.to_string()))?;
    let missing = |host: &&String| {
        let name = ServerName::try_from(host.as_str()).ok();
        name.is_none_or(|name| rustls::client::verify_server_name(&parsed, &name).is_err())
    };
    let lacking: Vec<&str> = hosts.iter().filter(missing).map(String::as_str).take(3).collect();
    if lacking.is_empty() {
        return Ok(own);
    }
    let missing = lacking.join(", ");
    Err(problem("NamesMissing", format!("the certificate does not name {missing}; clients and members verify names")))
}

/// The names that every certificate must have: members dial each other by pod, clients dial the Services.
#[must_use]
pub fn required_hosts(observed: &Observed) -> Vec<String> {
    let (names, spec) = (observed.names(), &observed.cluster.spec);
    let replicas = |role| match role {
        Role::Gateway => spec.gateways.replicas,
        Role::Target => spec.targets.replicas,
    };
    let mut hosts: Vec<_> = services(&names, spec).iter().map(|service| names.service_host(service)).collect();
    for role in Role::ALL {
        hosts.extend((0..replicas(role)).map(|n| names.host(role, &names.pod(role, n))));
    }
    hosts
}

/// Status, reason and message of `CertificatesValid`.
#[must_use]
pub fn verdict(observed: &Observed) -> (bool, &'static str, String) {
    if observed.cluster.spec.tls.mode == TlsMode::Disabled {
        return (true, "NotUsed", "TLS is off: spec.tls.mode is Disabled".to_owned());
    }
    let own = match checked(observed) {
        Ok(own) => own,
        Err(problem) => return (false, problem.reason, problem.message),
    };
    for (pod, report) in &observed.reports {
        if let Some(why) = report.view().and_then(|v| v.credentials.tls.as_ref()?.problem.as_ref()) {
            return (false, "NotAccepted", format!("{pod}: {why}"));
        }
    }
    let until = Timestamp::from_second(own.not_after_s).unwrap_or_default();
    let left_s = own.not_after_s - observed.now.as_second();
    // Two thirds are when it is to be renewed; later than that something does not work. One for years is nobody's
    // concern for years.
    if left_s < (own.life_s() / 4).min(SOON_MAX_S) {
        return (false, "ExpiringSoon", format!("the certificate ends at {until} and was not renewed"));
    }
    let readers = Readers::of(&observed.pods, &observed.reports, &observed.cluster.spec);
    let authorities = observed.tls.server.as_ref().map(|server| prints(&server.ca)).unwrap_or_default();
    let behind = readers.behind(&own.print, &authorities);
    let behind = if behind.is_empty() { String::new() } else { format!("; not read yet by {}", behind.join(", ")) };
    (true, "Valid", format!("the certificate is valid until {until}{behind}"))
}

/// The certificate in use, if it will be accepted.
///
/// # Errors
/// [`Problem`]
pub fn checked(observed: &Observed) -> Result<Parsed, Problem> {
    if let Some(missing) = &observed.tls.missing {
        return Err(missing.clone());
    }
    let Some(server) = &observed.tls.server else {
        return Err(problem("SecretMissing", "the certificate's Secret does not exist yet"));
    };
    check(server, &required_hosts(observed), observed.now)
}

/// What a user's Secret lacks.
#[must_use]
pub fn secret_missing(name: &str) -> Problem {
    problem("SecretMissing", format!("Secret {name} of spec.tls.secretRef does not exist"))
}

/// What a user's Secret lacks.
#[must_use]
pub fn secret_incomplete(name: &str, keys: &[&str]) -> Problem {
    problem("SecretIncomplete", format!("Secret {name} has no {}", keys.join(", ")))
}
