//! Certificates of a cluster: made together once, kept with its state.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::network::Network;

/// Written last: without it a folder holds a half-made set.
const COMPLETE: &str = "complete";

/// One certificate to make.
struct Leaf {
    file: &'static str,
    name: String,
    group: Option<&'static str>,
    hosts: Vec<String>,
}

/// Makes all keys and certificates, unless they are there.
pub(super) fn ensure(dir: &Path, network: Network, node: &str) -> Result<()> {
    if dir.join(COMPLETE).exists() {
        return Ok(());
    }
    let ca_key = KeyPair::generate().context("cannot make a key")?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = subject("aiscluster-test-ca", None);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca_certificate = ca.self_signed(&ca_key).context("cannot sign the authority's certificate")?;
    write(dir, "ca.crt", &ca_certificate.pem())?;
    write(dir, "ca.key", &ca_key.serialize_pem())?;
    let issuer = Issuer::new(ca, ca_key);

    for leaf in leaves(network, node) {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new(leaf.hosts).context("cannot describe a certificate")?;
        params.distinguished_name = subject(&leaf.name, leaf.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer).with_context(|| format!("cannot sign {}", leaf.file))?;
        write(dir, &format!("{}.crt", leaf.file), &certificate.pem())?;
        write(dir, &format!("{}.key", leaf.file), &key.serialize_pem())?;
    }

    let accounts = KeyPair::generate().context("cannot make a key")?;
    write(dir, "sa.key", &accounts.serialize_pem())?;
    write(dir, "sa.pub", &accounts.public_key_pem())?;
    write(dir, COMPLETE, "")
}

fn leaves(network: Network, node: &str) -> Vec<Leaf> {
    let user = |file, name: &str, group| Leaf { file, name: name.to_owned(), group, hosts: Vec::new() };
    let node_ip = network.node_ip().to_string();
    let loopback = Ipv4Addr::LOCALHOST.to_string();
    let mut api_hosts: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    .map(str::to_owned)
    .to_vec();
    api_hosts.extend([loopback.clone(), node_ip.clone(), network.api_service_ip().to_string()]);
    vec![
        Leaf { file: "apiserver", name: "kube-apiserver".into(), group: None, hosts: api_hosts },
        Leaf { file: "kubelet", name: node.to_owned(), group: None, hosts: vec![node.to_owned(), node_ip, loopback] },
        user("kubelet-client", "apiserver-kubelet-client", Some("system:masters")),
        user("admin", "admin", Some("system:masters")),
        user("controller-manager", "system:kube-controller-manager", None),
        user("scheduler", "system:kube-scheduler", None),
        user("proxy", "system:kube-proxy", None),
        user("coredns", "system:coredns", None),
        Leaf { file: "node", name: format!("system:node:{node}"), group: Some("system:nodes"), hosts: Vec::new() },
    ]
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    subject
}

fn write(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
