//! Names and labels of everything that belongs to one cluster. Names are parsed, never matched by
//! prefix: `ais-target-1` must not catch `ais-target-10`.

use std::collections::BTreeMap;

use ais_crds::{Ports, TlsMode, TlsSpec};

/// Label that every object of a cluster carries, with the cluster's name.
pub const LABEL_CLUSTER: &str = "aiscluster.dev/cluster";
/// Label of the pod that leads, with the value `primary`.
pub const LABEL_ROLE: &str = "aiscluster.dev/role";
/// Label of state volumes: the uuid of the cluster whose record they hold.
pub const LABEL_CLUSTER_ID: &str = "aiscluster.dev/cluster-id";
/// Label of state volumes: `true` once the cluster was founded.
pub const LABEL_FORMED: &str = "aiscluster.dev/formed";
/// Label of state volumes: `true` once their node was removed for good; they are deleted when its pod is gone.
pub const LABEL_REMOVED: &str = "aiscluster.dev/removed";
/// Label of state volumes: `true` while their target is kept in maintenance by the operator.
pub const LABEL_RETAINED: &str = "aiscluster.dev/retained";
/// Label of a pod's role: `gateway` or `target`.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Label that says who made the object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Field manager of everything but status, and value of [`LABEL_MANAGED_BY`].
pub const MANAGER: &str = "aiscluster-operator";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "aiscluster-operator-status";
/// Finalizer of a cluster.
pub const FINALIZER: &str = "aiscluster.dev/cluster";
/// Annotation with a digest of what was applied, so that a removed field is seen.
pub const ANNOTATION_APPLIED: &str = "aiscluster.dev/applied";
/// Annotation of a StatefulSet: members of this role, also while it is stopped and has no pods.
pub const ANNOTATION_REPLICAS: &str = "aiscluster.dev/replicas";
/// Annotation of StatefulSets: digest of their pods' template as it was applied.
pub const ANNOTATION_TEMPLATE: &str = "aiscluster.dev/template";
/// Annotation of a pod: digest of the founding list. Its change makes the kubelet refresh mounted files now.
pub const ANNOTATION_DISCOVERY: &str = "aiscluster.dev/discovery";
/// Annotation of a cluster: number of the founding that a person asks for, when the one before cannot be completed.
pub const ANNOTATION_REFOUND: &str = "aiscluster.dev/refound";
/// Annotation of a pod: digest of the secret and certificate. Its change makes the kubelet refresh mounted files now.
pub const ANNOTATION_CREDENTIALS: &str = "aiscluster.dev/credentials";
/// Annotation of the Secret: the newest request of a rotation that was taken up.
pub const ANNOTATION_ROTATION: &str = "aiscluster.dev/rotation";
/// Annotation of the Secret: how far the rotation is.
pub const ANNOTATION_ROTATION_STEP: &str = "aiscluster.dev/rotation-step";
/// Volume of a pod with its certificate; pods without TLS have none.
pub const TLS_VOLUME: &str = "tls";
/// Container of gateways and targets.
pub const CONTAINER: &str = "ais-node";
/// Component of access gateways. They are no role: they have no ordinals, never lead and never vote.
pub const ACCESS: &str = "access";

/// What a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes clients' requests, and can lead.
    Gateway,
    /// Keeps data.
    Target,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Target];

    /// The word in names and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Target => "target",
        }
    }
}

/// Where a cluster lives and what its things are called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// Namespace.
    pub namespace: String,
    /// Name of the resource.
    pub cluster: String,
    /// DNS domain of Kubernetes, such as `cluster.local`.
    pub domain: String,
    /// Ports of the nodes.
    pub ports: Ports,
}

impl Names {
    /// StatefulSet and headless Service of a role.
    #[must_use]
    pub fn set(&self, role: Role) -> String {
        format!("{}-{}", self.cluster, role.as_str())
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, role: Role, ordinal: i32) -> String {
        format!("{}-{}-{ordinal}", self.cluster, role.as_str())
    }

    /// Role and ordinal of a pod of this cluster; `None` for every other name.
    #[must_use]
    pub fn parse_pod(&self, name: &str) -> Option<(Role, i32)> {
        let rest = name.strip_prefix(self.cluster.as_str())?.strip_prefix('-')?;
        let (role, ordinal) = rest.split_once('-')?;
        let role = Role::ALL.into_iter().find(|r| r.as_str() == role)?;
        let canonical = ordinal == "0" || (!ordinal.starts_with('0') && ordinal.bytes().all(|b| b.is_ascii_digit()));
        if !canonical || ordinal.is_empty() {
            return None;
        }
        Some((role, ordinal.parse().ok()?))
    }

    /// Stable DNS name of a pod.
    #[must_use]
    pub fn host(&self, role: Role, pod: &str) -> String {
        format!("{pod}.{}.{}.svc.{}", self.set(role), self.namespace, self.domain)
    }

    /// Public URL of a gateway, exactly as the daemon builds its own.
    #[must_use]
    pub fn gateway_url(&self, pod: &str, scheme: &str) -> String {
        format!("{scheme}://{}:{}", self.host(Role::Gateway, pod), self.ports.public)
    }

    /// URL for clients in Kubernetes.
    #[must_use]
    pub fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://{}:{}", self.service_host(&self.service()), self.ports.public)
    }

    /// Full DNS name of a Service.
    #[must_use]
    pub fn service_host(&self, service: &str) -> String {
        format!("{service}.{}.svc.{}", self.namespace, self.domain)
    }

    /// Claim template and volume of a target's data volume, from 0.
    #[must_use]
    pub fn data_volume(number: i32) -> String {
        if number == 0 { "data".to_owned() } else { format!("data-{number}") }
    }

    /// Service of all gateways that may lead, the disruption budget, the network policy and the PodMonitor.
    #[must_use]
    pub fn service(&self) -> String {
        self.cluster.clone()
    }

    /// Workload and Service of the access gateways.
    #[must_use]
    pub fn access(&self) -> String {
        format!("{}-{ACCESS}", self.cluster)
    }

    /// Service of the primary, and the ConfigMap with its address.
    #[must_use]
    pub fn primary(&self) -> String {
        format!("{}-primary", self.cluster)
    }

    /// ConfigMap that is mounted into the pods.
    #[must_use]
    pub fn discovery(&self) -> String {
        format!("{}-discovery", self.cluster)
    }

    /// Secret that members and operator sign with.
    #[must_use]
    pub fn secret(&self) -> String {
        format!("{}-secret", self.cluster)
    }

    /// Secret of the authority: it stays with the operator. And ConfigMap with the certificates that clients trust.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}-ca", self.cluster)
    }

    /// Secret with the nodes' certificate, where the operator makes it.
    #[must_use]
    pub fn certificate(&self) -> String {
        format!("{}-tls", self.cluster)
    }

    /// Secret that the nodes' certificate is read from; none without TLS.
    #[must_use]
    pub fn tls_secret(&self, tls: &TlsSpec) -> Option<String> {
        match tls.mode {
            TlsMode::Disabled => None,
            TlsMode::SelfManaged => Some(self.certificate()),
            TlsMode::SecretRef => Some(tls.secret_ref.as_ref().map(|r| r.name.clone()).unwrap_or_default()),
        }
    }

    /// Labels that select the pods of one role. They never change: selectors are immutable.
    #[must_use]
    pub fn selector(&self, role: Role) -> BTreeMap<String, String> {
        let mut labels = self.selector_all();
        labels.insert(LABEL_COMPONENT.into(), role.as_str().into());
        labels
    }

    /// Labels that select the access gateways.
    #[must_use]
    pub fn access_selector(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector_all();
        labels.insert(LABEL_COMPONENT.into(), ACCESS.into());
        labels
    }

    /// Labels of the access gateways' objects.
    #[must_use]
    pub fn access_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(LABEL_COMPONENT.into(), ACCESS.into());
        labels
    }

    /// Labels that select all objects of the cluster.
    #[must_use]
    pub fn selector_all(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL_CLUSTER.into(), self.cluster.clone()), (LABEL_MANAGED_BY.into(), MANAGER.into())])
    }

    /// Selects gateways and targets, of this cluster or of all. Access gateways may be as many as there are machines,
    /// and nothing is decided by one of their pods: they are neither listed nor watched.
    #[must_use]
    pub fn members_text(of: &BTreeMap<String, String>) -> String {
        let roles = Role::ALL.map(Role::as_str).join(",");
        format!("{},{LABEL_COMPONENT} in ({roles})", selector_text(of))
    }

    /// The selector of one role as text, for the scale subresource.
    #[must_use]
    pub fn selector_text(&self, role: Role) -> String {
        selector_text(&self.selector(role))
    }

    /// Labels of an object without role.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector_all();
        labels.insert("app.kubernetes.io/name".into(), "aiscluster".into());
        labels.insert("app.kubernetes.io/instance".into(), self.cluster.clone());
        labels
    }

    /// Labels of an object of one role.
    #[must_use]
    pub fn role_labels(&self, role: Role) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(LABEL_COMPONENT.into(), role.as_str().into());
        labels
    }
}

/// `a=b,c=d`.
#[must_use]
pub fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cluster: &str) -> Names {
        Names {
            namespace: "ns".into(),
            cluster: cluster.into(),
            domain: "cluster.local".into(),
            ports: Ports::default(),
        }
    }

    #[test]
    fn pods_are_parsed_exactly() {
        let n = names("demo");
        assert_eq!(n.parse_pod("demo-gateway-10"), Some((Role::Gateway, 10)));
        assert_eq!(n.parse_pod("demo-target-0"), Some((Role::Target, 0)));
        for other in [
            "demo-gateway-",
            "demo-gateway-01",
            "demo-gateway-1x",
            "demo-x-gateway-1",
            "demo2-gateway-1",
            "demo",
            "demo-gateway-+1",
        ] {
            assert_eq!(n.parse_pod(other), None, "{other}");
        }
        assert_eq!(names("a-gateway").parse_pod("a-gateway-gateway-3"), Some((Role::Gateway, 3)));
    }

    #[test]
    fn the_longest_name_fits_every_label() {
        let n = names(&"a".repeat(ais_crds::NAME_CHARS_MAX));
        // The controller adds `-<10 characters>` to a set's name for the revision label.
        for role in Role::ALL {
            assert!(n.set(role).len() + 11 <= 63);
            assert!(n.pod(role, 399).len() <= 63);
            assert!(n.role_labels(role).values().all(|v| v.len() <= 63));
        }
        assert!(n.primary().len() <= 63 && n.discovery().len() <= 63);
    }
}
