//! Pod templates of gateways, targets and access gateways, fit for the `restricted` pod security standard.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapKeySelector, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SecretVolumeSource, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use ais_crds::{AccessGatewaysSpec, PodTemplate};

use super::placement;
use crate::facts::Observed;
use crate::names::{CONTAINER, Names, Role, TLS_VOLUME};
use crate::tls::{CA_KEY, CERT_KEY, KEY_KEY};
use crate::validate::{Placement, Valid};

const STATE_DIR: &str = "/var/lib/ais/state";
const DATA_DIR: &str = "/var/lib/ais";
const DISCOVERY_DIR: &str = "/etc/ais/discovery";
const SECRET_DIR: &str = "/etc/ais/secret";
const TLS_DIR: &str = "/etc/ais/tls";
/// An access gateway keeps nothing but a copy of the metadata.
const ACCESS_STATE_SIZE: &str = "512Mi";

/// What tells the pods of one kind from those of another.
struct Shape<'a> {
    /// The daemon's kind.
    role: Role,
    /// A gateway next to compute.
    access: bool,
    custom: &'a PodTemplate,
    placement: &'a Placement,
    image: Option<&'a String>,
    node_selector: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// Data volumes.
    volumes: i32,
}

/// Pods of a role.
pub(super) fn template(valid: &Valid, observed: &Observed, role: Role) -> PodTemplateSpec {
    let spec = &observed.cluster.spec;
    let (custom, placement, image, volumes) = match role {
        Role::Gateway => (&spec.gateways.template, &valid.gateways, spec.gateways.image.as_ref(), 0),
        Role::Target => {
            let volumes = spec.targets.storage.volumes_per_target;
            (&spec.targets.template, &valid.targets, spec.targets.image.as_ref(), volumes)
        }
    };
    let shape = Shape {
        role,
        access: false,
        custom,
        placement,
        image,
        node_selector: custom.node_selector.clone(),
        labels: valid.names.role_labels(role),
        volumes,
    };
    build(valid, observed, &shape)
}

/// Pods of access gateways.
pub(super) fn access(valid: &Valid, observed: &Observed, asked: &AccessGatewaysSpec) -> PodTemplateSpec {
    let mut node_selector = asked.template.node_selector.clone();
    node_selector.extend(asked.node_selector.clone());
    let shape = Shape {
        role: Role::Gateway,
        access: true,
        custom: &asked.template,
        placement: &valid.access,
        image: asked.image.as_ref(),
        node_selector,
        labels: valid.names.access_labels(),
        volumes: 0,
    };
    build(valid, observed, &shape)
}

fn build(valid: &Valid, observed: &Observed, shape: &Shape<'_>) -> PodTemplateSpec {
    let (spec, custom) = (&observed.cluster.spec, shape.custom);
    let mut labels = custom.labels.clone();
    labels.extend(shape.labels.clone());
    let pull_secrets: Vec<_> =
        spec.image_pull_secrets.iter().map(|s| LocalObjectReference { name: s.name.clone() }).collect();
    let host_network = spec.networking.host_network;
    let (affinity, spread) = whereabouts(valid, shape);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some(custom.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            host_network: host_network.then_some(true),
            dns_policy: host_network.then(|| "ClusterFirstWithHostNet".into()),
            security_context: Some(placement::pod_security(custom)),
            termination_grace_period_seconds: Some(custom.termination_grace_period_seconds),
            image_pull_secrets: Some(pull_secrets).filter(|list| !list.is_empty()),
            affinity,
            topology_spread_constraints: Some(spread).filter(|list| !list.is_empty()),
            tolerations: Some(placement::tolerations(custom)).filter(|list| !list.is_empty()),
            node_selector: some(shape.node_selector.clone()),
            priority_class_name: custom.priority_class_name.clone(),
            containers: vec![container(valid, observed, shape)],
            volumes: Some(volumes(valid, shape)),
            ..PodSpec::default()
        }),
    }
}

/// What was asked for, else different nodes and zones.
fn whereabouts(valid: &Valid, shape: &Shape<'_>) -> (Option<Affinity>, Vec<TopologySpreadConstraint>) {
    let names = &valid.names;
    let labels = if shape.access { names.access_selector() } else { names.selector(shape.role) };
    let own = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    let mut spread = shape.placement.spread.clone();
    if spread.is_empty() {
        spread = if shape.access { vec![placement::zone(own.clone())] } else { placement::zones(valid) };
    }
    (Some(shape.placement.affinity.clone().unwrap_or_else(|| placement::apart(own))), spread)
}

fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|m| !m.is_empty())
}

fn data_dir(number: i32) -> String {
    format!("{DATA_DIR}/{}", Names::data_volume(number))
}

fn container(valid: &Valid, observed: &Observed, shape: &Shape<'_>) -> Container {
    let spec = &observed.cluster.spec;
    let ports = valid.names.ports;
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("state", STATE_DIR, false),
        mount("discovery", DISCOVERY_DIR, true),
        mount("secret", SECRET_DIR, true),
        mount("tmp", "/tmp", false),
    ];
    if valid.tls_secret.is_some() {
        mounts.push(mount(TLS_VOLUME, TLS_DIR, true));
    }
    mounts.extend((0..shape.volumes).map(|n| mount(&Names::data_volume(n), &data_dir(n), false)));
    let image = shape.image.or(spec.image.as_ref()).unwrap_or(&observed.defaults.image);
    Container {
        name: CONTAINER.into(),
        image: Some(image.clone()),
        image_pull_policy: Some(spec.image_pull_policy.as_str().into()),
        command: Some(vec!["/ais-node".into(), "run".into()]),
        env: Some(env(valid, observed, shape)),
        ports: Some(vec![port("public", ports.public), port("control", ports.control), port("peer", ports.peer)]),
        volume_mounts: Some(mounts),
        resources: resources(shape.custom),
        security_context: Some(placement::container_security()),
        // Waiting for the others at founding is no reason to be killed: start is liveness, not readiness.
        startup_probe: Some(probe(valid, "/v1/health", 1, 60, 2)),
        liveness_probe: Some(probe(valid, "/v1/health", 5, 3, 3)),
        readiness_probe: Some(probe(valid, "/v1/health?readiness=true", 1, 2, 2)),
        ..Container::default()
    }
}

fn plain(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), value_from: None }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() }),
            ..EnvVarSource::default()
        }),
    }
}

fn env(valid: &Valid, observed: &Observed, shape: &Shape<'_>) -> Vec<EnvVar> {
    let names = &valid.names;
    let ha = &observed.cluster.spec.ha;
    let from_map = |name: &str, key: &str| EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector { name: names.primary(), key: key.into(), optional: None }),
            ..EnvVarSource::default()
        }),
    };
    // The kubelet expands only what stands before.
    let mut env = vec![
        field("AIS_NODE_ID", "metadata.name"),
        field("AIS_POD_NODE", "spec.nodeName"),
        // Newer Kubernetes copies the node's zone to the pod; elsewhere it is empty, and the node counts.
        field("AIS_POD_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        plain("AIS_DOMAIN", "$(AIS_POD_ZONE),$(AIS_POD_NODE)".into()),
        plain("AIS_KIND", shape.role.as_str().into()),
        plain("AIS_STATE_DIR", STATE_DIR.into()),
    ];
    if shape.access {
        // Pods of a Deployment or a DaemonSet have no names in DNS.
        env.push(field("AIS_ADVERTISE_HOST", "status.podIP"));
        env.push(plain("AIS_NON_ELECTABLE", "true".into()));
    } else {
        env.push(plain("AIS_ADVERTISE_HOST", names.host(shape.role, "$(AIS_NODE_ID)")));
    }
    if shape.volumes > 0 {
        let paths: Vec<String> = (0..shape.volumes).map(data_dir).collect();
        env.push(plain("AIS_MOUNTPATHS", paths.join(",")));
    }
    env.extend([
        plain("AIS_PUBLIC_PORT", names.ports.public.to_string()),
        plain("AIS_CONTROL_PORT", names.ports.control.to_string()),
        plain("AIS_PEER_PORT", names.ports.peer.to_string()),
        plain("AIS_DISCOVERY_FILE", format!("{DISCOVERY_DIR}/{}", super::config::DISCOVERY_KEY)),
        plain("AIS_SECRET_FILE", format!("{SECRET_DIR}/{}", super::config::SECRET_KEY)),
        from_map("AIS_CLUSTER_UUID", "cluster-uuid"),
        from_map("AIS_PRIMARY_EP", "endpoint"),
        plain("AIS_LOG_FORMAT", "json".into()),
        plain("AIS_VOTERS", ha.voters.to_string()),
        plain("AIS_SUSPECT_MS", ha.suspect_milliseconds.to_string()),
        plain("AIS_LEASE_MS", ha.lease_milliseconds.to_string()),
        plain("AIS_EVICT_SMAP_MS", (ha.evict_smap_seconds * 1000).to_string()),
        plain("AIS_EVICT_VOTER_MS", (ha.evict_voter_seconds * 1000).to_string()),
    ]);
    if valid.tls_secret.is_some() {
        let files = [("CERT", CERT_KEY), ("KEY", KEY_KEY), ("CA", CA_KEY)];
        env.extend(files.map(|(what, key)| plain(&format!("AIS_TLS_{what}_FILE"), format!("{TLS_DIR}/{key}"))));
        if shape.access {
            // No certificate holds their addresses: what clients verify is the name of their Service.
            env.push(plain("AIS_TLS_NAME", names.service_host(&names.access())));
        }
    }
    env.extend(shape.placement.env.iter().cloned());
    env
}

/// A kubelet does not verify certificates.
fn probe(valid: &Valid, path: &str, period_s: i32, failures: i32, timeout_s: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("control".into()),
            scheme: valid.tls_secret.is_some().then(|| "HTTPS".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_s),
        failure_threshold: Some(failures),
        timeout_seconds: Some(timeout_s),
        ..Probe::default()
    }
}

fn volumes(valid: &Valid, shape: &Shape<'_>) -> Vec<Volume> {
    let names = &valid.names;
    let scratch = |name: &str, size: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(size.into())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let tls = valid.tls_secret.as_ref().map(|secret| Volume {
        name: TLS_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.clone()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    let mut volumes = vec![
        Volume {
            name: "discovery".into(),
            config_map: Some(ConfigMapVolumeSource { name: names.discovery(), ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        Volume {
            name: "secret".into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(names.secret()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        scratch("tmp", "64Mi"),
    ];
    if shape.access {
        volumes.push(scratch("state", ACCESS_STATE_SIZE));
    }
    volumes.extend(tls);
    volumes
}

fn resources(custom: &PodTemplate) -> Option<ResourceRequirements> {
    let convert = |map: &BTreeMap<String, IntOrString>| -> Option<BTreeMap<String, Quantity>> {
        let text = |q: &IntOrString| match q {
            IntOrString::Int(number) => Quantity(number.to_string()),
            IntOrString::String(text) => Quantity(text.clone()),
        };
        Some(map.iter().map(|(k, q)| (k.clone(), text(q))).collect::<BTreeMap<_, _>>()).filter(|m| !m.is_empty())
    };
    let (limits, requests) = (convert(&custom.resources.limits), convert(&custom.resources.requests));
    (limits.is_some() || requests.is_some()).then(|| ResourceRequirements {
        limits,
        requests,
        ..ResourceRequirements::default()
    })
}
