//! Secrets and ConfigMap of the certificates. Their content was read or drawn before: nothing is decided here.

use std::collections::BTreeMap;

use ais_crds::TlsMode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{Wanted, meta, wanted};
use crate::facts::{Kind, Observed};
use crate::tls::{CA_KEY, CA_KEY_KEY, CERT_KEY, KEY_KEY, trust};
use crate::validate::Valid;

pub(super) fn all(valid: &Valid, observed: &Observed) -> Vec<Wanted> {
    let (mode, facts) = (observed.cluster.spec.tls.mode, &observed.tls);
    let mut all = Vec::new();
    if mode == TlsMode::SelfManaged {
        if let Some(authority) = &facts.authority {
            let data = [(CA_KEY, &authority.certs), (CA_KEY_KEY, &authority.key)];
            all.push(secret(valid, observed, valid.names.authority(), "Opaque", &data));
        }
        if let Some(server) = &facts.server {
            let data = [(CERT_KEY, &server.own.certs), (KEY_KEY, &server.own.key), (CA_KEY, &server.ca)];
            all.push(secret(valid, observed, valid.names.certificate(), "kubernetes.io/tls", &data));
        }
    }
    if mode != TlsMode::Disabled {
        let ca = trust(facts);
        if !ca.is_empty() {
            all.push(published(valid, observed, &ca));
        }
    }
    all
}

fn secret(valid: &Valid, observed: &Observed, name: String, kind: &str, data: &[(&str, &String)]) -> Wanted {
    let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
    let secret = Secret {
        metadata: meta(observed, name.clone(), valid.names.labels()),
        data: Some(data.collect()),
        type_: Some(kind.into()),
        ..Secret::default()
    };
    wanted(Kind::Secret, name, &secret)
}

/// For clients, and for whoever may read ConfigMaps but no Secrets.
fn published(valid: &Valid, observed: &Observed, ca: &str) -> Wanted {
    let name = valid.names.authority();
    let map = ConfigMap {
        metadata: meta(observed, name.clone(), valid.names.labels()),
        data: Some(BTreeMap::from([(CA_KEY.to_owned(), ca.to_owned())])),
        ..ConfigMap::default()
    };
    wanted(Kind::ConfigMap, name, &map)
}
