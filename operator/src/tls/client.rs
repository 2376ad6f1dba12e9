//! How the operator itself verifies the nodes that it calls.
//!
//! Pods are dialled by address, and no certificate names addresses: what counts is that a certificate is for a pod of
//! the cluster.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the cluster's authorities cannot be used: {0}")]
pub struct TrustError(String);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[derive(Debug)]
struct OfCluster {
    chain: Arc<WebPkiServerVerifier>,
    hosts: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for OfCluster {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut last = Error::General("the cluster has no names".to_owned());
        for host in &self.hosts {
            match self.chain.verify_server_cert(end, between, host, ocsp, now) {
                Ok(done) => return Ok(done),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Trusts these authorities for any of these hosts.
///
/// # Errors
/// [`TrustError`]
pub fn trusting(ca: &str, hosts: &[String]) -> Result<ClientConfig, TrustError> {
    let wrong = |e: &dyn std::fmt::Display| TrustError(e.to_string());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(authority.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let chain = chain.build().map_err(|e| wrong(&e))?;
    let hosts = hosts.iter().filter_map(|host| ServerName::try_from(host.clone()).ok()).collect();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| wrong(&e))?.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(OfCluster { chain, hosts }));
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For clusters without TLS: no certificate is accepted.
///
/// # Errors
/// [`TrustError`]
pub fn nobody() -> Result<ClientConfig, TrustError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| TrustError(e.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
