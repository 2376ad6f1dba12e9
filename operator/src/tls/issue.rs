//! Draws keys and signs certificates.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ais_crds::{AISCluster, TlsMode};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{Lifetimes, Pair, Readers, Server, TlsFacts, blocks, due, parse, unexpired, wanted_names};
use crate::names::Names;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub struct IssueError(#[from] rcgen::Error);

/// A new authority. Its name holds the time, so that two of one cluster are told apart.
///
/// # Errors
/// [`IssueError`]
pub fn authority(names: &Names, now: Timestamp, life_s: i64) -> Result<Pair, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("{}/{} {}", names.namespace, names.cluster, now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    within(&mut params, now, life_s, i64::MAX);
    Ok(Pair { certs: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A certificate that the first of `authority` signs. It never holds longer than that one.
///
/// # Errors
/// [`IssueError`]
pub fn certificate(
    authority: &Pair,
    names: &BTreeSet<String>,
    now: Timestamp,
    life_s: i64,
) -> Result<Pair, IssueError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certs, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = subject("ais-node");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let signer = parse(&authority.certs).ok().and_then(|all| Some(all.first()?.not_after_s));
    within(&mut params, now, life_s, signer.unwrap_or(i64::MAX));
    Ok(Pair { certs: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// Whether certificates can be signed with it.
#[must_use]
pub fn signs(authority: &Pair) -> bool {
    KeyPair::from_pem(&authority.key).is_ok_and(|key| Issuer::from_ca_cert_pem(&authority.certs, key).is_ok())
}

/// What there shall be: what was found, and what is due anew. Nothing is drawn for a paused cluster or one that goes.
///
/// # Errors
/// [`IssueError`]
pub fn renewed(
    found: TlsFacts,
    names: &Names,
    cluster: &AISCluster,
    now: Timestamp,
    lifetimes: Lifetimes,
    readers: &Readers<'_>,
) -> Result<TlsFacts, IssueError> {
    let idle = cluster.spec.paused || cluster.metadata.deletion_timestamp.is_some();
    if cluster.spec.tls.mode != TlsMode::SelfManaged || idle {
        return Ok(found);
    }
    let wanted = wanted_names(names, &cluster.spec);
    let TlsFacts { authority, server, mut issued, missing, published } = found;
    // What does not read is made anew, as what is not there.
    let mut authority = authority.unwrap_or_default();
    let known = parse(&authority.certs).unwrap_or_default();
    let own = server.as_ref().and_then(|server| parse(&server.own.certs).ok()?.into_iter().next());
    let due = due(now, lifetimes, &wanted, &known, own.as_ref(), readers);
    if due.authority {
        let fresh = self::authority(names, now, lifetimes.authority_s)?;
        // What nodes trust now goes on being trusted, also when the authority's own Secret is lost, or both are.
        let trusted = if known.is_empty() {
            server.as_ref().map(|s| s.ca.as_str()).or(published.as_deref()).unwrap_or_default()
        } else {
            authority.certs.as_str()
        };
        authority = Pair { certs: format!("{}{}", fresh.certs, unexpired(trusted, now.as_second())), key: fresh.key };
        issued.push("a new authority".to_owned());
    }
    if due.forget {
        authority.certs = blocks(&authority.certs).take(1).flat_map(|block| [block, "\n"]).collect();
        issued.push("the old authority is no longer trusted".to_owned());
    }
    let own = match server {
        Some(server) if !due.certificate => server.own,
        _ => {
            issued.push("a new certificate".to_owned());
            certificate(&authority, &wanted, now, lifetimes.certificate_s)?
        }
    };
    let server = Server { own, ca: authority.certs.clone() };
    Ok(TlsFacts { authority: Some(authority), server: Some(server), missing, published, issued })
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    // The standard allows 64 characters; two of one name differ in their keys still.
    subject.push(
        DnType::CommonName,
        name.chars().rev().take(64).collect::<Vec<_>>().into_iter().rev().collect::<String>(),
    );
    subject
}

/// From a little before now: clocks differ. No later than `end_s`.
fn within(params: &mut CertificateParams, now: Timestamp, life_s: i64, end_s: i64) {
    let before_s = (life_s / 20).min(300);
    let at = |s: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(s).unwrap_or(0));
    let from_s = now.as_second() - before_s;
    let until_s = from_s.saturating_add(life_s).min(end_s);
    (params.not_before, params.not_after) = (at(from_s).into(), at(until_s).into());
}
