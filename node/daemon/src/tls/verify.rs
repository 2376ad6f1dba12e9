//! Configurations of both sides of a handshake, over certificates that change under way.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use super::{Tls, bytes, certificates, provider};

/// The only protocol of the HTTP listeners.
const HTTP: &[u8] = b"http/1.1";

/// What is behind both sides: the certificates of now.
#[derive(Debug)]
struct Current {
    tls: Tls,
    /// Any of them will do; without any, the name that was dialled.
    names: Option<Vec<ServerName<'static>>>,
}

impl Current {
    fn judge(&self, end: &CertificateDer<'_>, between: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let material = self.tls.material().ok_or_else(|| Error::General("no authority is known".to_owned()))?;
        material.trusts(end, between, now).inspect_err(|_| self.tls.doubt())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.tls.material().map(|material| Arc::clone(&material.own))
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.tls.material().map(|material| Arc::clone(&material.own))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end, between, now)?;
        let parsed = ParsedCertificate::try_from(end)?;
        let names = self.names.as_deref().unwrap_or(std::slice::from_ref(name));
        let holds = |name: &ServerName<'_>| rustls::client::verify_server_name(&parsed, name).is_ok();
        let by_address = names.iter().all(|name| matches!(name, ServerName::IpAddress(_)));
        let fits = names.iter().any(holds) || (by_address && self.tls.name().is_some_and(|own| holds(&own)));
        if !fits {
            // For its text, which tells what the certificate holds.
            rustls::client::verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Current {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Authorities change; a member has one certificate to show anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end, between, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

impl Tls {
    fn current(&self, names: Option<Vec<ServerName<'static>>>) -> Arc<Current> {
        Arc::new(Current { tls: self.clone(), names })
    }

    /// For HTTP listeners: clients and kubelets show no certificate.
    ///
    /// # Errors
    /// None that can be met: the versions are built in.
    pub fn http_server(&self) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.current(None));
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(unresumed(config))
    }

    /// For the listener of members: who dials must show a certificate too.
    ///
    /// # Errors
    /// As [`Tls::http_server`].
    pub fn member_server(&self) -> Result<ServerConfig, Error> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = builder.with_client_cert_verifier(self.current(None)).with_cert_resolver(self.current(None));
        Ok(unresumed(config))
    }

    /// For calls of other nodes. `names`: whichever of them the certificate is for; the dialled one when none is given.
    ///
    /// # Errors
    /// As [`Tls::http_server`].
    pub fn client(&self, names: Option<Vec<ServerName<'static>>>) -> Result<ClientConfig, Error> {
        let current = self.current(names);
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&current) as _);
        let mut config = builder.with_client_cert_resolver(current);
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn unresumed(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

fn rooted(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For commands: trusts the authorities in a file.
///
/// # Errors
/// What is wrong with the file.
pub fn trusting(ca: &Path) -> Result<ClientConfig, String> {
    let at = |why: String| format!("{} {why}", ca.display());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&bytes(ca).map_err(at)?).map_err(at)? {
        roots.add(authority).map_err(|e| at(format!("holds an authority that is none: {e}")))?;
    }
    rooted(roots).map_err(|e| e.to_string())
}

/// For nodes and commands without TLS: every certificate is refused.
///
/// # Errors
/// As [`Tls::http_server`].
pub fn nobody() -> Result<ClientConfig, Error> {
    rooted(RootCertStore::empty())
}
