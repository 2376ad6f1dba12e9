//! Certificates as they are found.

use ais_crds::{AISCluster, TlsMode};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;

use super::{ObserveError, api};
use crate::names::Names;
use crate::tls::TlsFacts;
use crate::tls::content::{Live, own, published, users};

/// What there is.
pub(super) async fn read(
    client: &Client,
    names: &Names,
    cluster: &AISCluster,
    live: &Live,
) -> Result<TlsFacts, ObserveError> {
    let tls = &cluster.spec.tls;
    match tls.mode {
        TlsMode::Disabled => Ok(TlsFacts::default()),
        TlsMode::SelfManaged => Ok(own(names, live)),
        TlsMode::SecretRef => {
            let name = tls.secret_ref.as_ref().map(|r| r.name.as_str()).unwrap_or_default();
            let secrets: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
            let found = secrets.get_opt(name).await.map_err(api("secret of spec.tls.secretRef"))?;
            Ok(TlsFacts { published: published(names, live), ..users(name, found) })
        }
    }
}
