//! Certificates in Secrets. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::{CA_KEY, CA_KEY_KEY, CERT_KEY, KEY_KEY, Pair, Server, TlsFacts, issue, secret_incomplete, secret_missing};
use crate::facts::{Kind, ObjectKey};
use crate::names::Names;

/// Objects as the server has them.
pub type Live = BTreeMap<ObjectKey, Value>;

fn texts(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.unwrap_or_default().into_iter();
    data.filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?))).collect()
}

/// What the operator made.
#[must_use]
pub fn own(names: &Names, live: &Live) -> TlsFacts {
    let found = |name: String| serde_json::from_value(live.get(&(Kind::Secret, name))?.clone()).ok().map(texts);
    let authority = found(names.authority())
        .and_then(|mut data| Some(Pair { certs: data.remove(CA_KEY)?, key: data.remove(CA_KEY_KEY)? }))
        // One that cannot sign is as good as none.
        .filter(issue::signs);
    let server = found(names.certificate()).and_then(|mut data| {
        let own = Pair { certs: data.remove(CERT_KEY)?, key: data.remove(KEY_KEY)? };
        Some(Server { own, ca: data.remove(CA_KEY)? })
    });
    TlsFacts { authority, server, published: published(names, live), ..TlsFacts::default() }
}

/// The authorities that clients are shown.
#[must_use]
pub fn published(names: &Names, live: &Live) -> Option<String> {
    Some(live.get(&(Kind::ConfigMap, names.authority()))?["data"][CA_KEY].as_str()?.to_owned())
}

/// What a user made.
#[must_use]
pub fn users(name: &str, found: Option<Secret>) -> TlsFacts {
    let Some(mut data) = found.map(texts) else {
        return TlsFacts { missing: Some(secret_missing(name)), ..TlsFacts::default() };
    };
    let lacks: Vec<&str> = [CERT_KEY, KEY_KEY, CA_KEY].into_iter().filter(|key| !data.contains_key(*key)).collect();
    if !lacks.is_empty() {
        return TlsFacts { missing: Some(secret_incomplete(name, &lacks)), ..TlsFacts::default() };
    }
    let mut take = |key| data.remove(key).unwrap_or_default();
    let own = Pair { certs: take(CERT_KEY), key: take(KEY_KEY) };
    TlsFacts { server: Some(Server { own, ca: take(CA_KEY) }), ..TlsFacts::default() }
}
