//! From what was read to what can be built. Pure. What passes here cannot fail later: the schema
//! checked single fields, this step checks what a schema cannot see.

use ais_meta::settings::Values;
use k8s_openapi::api::core::v1::{Affinity, EnvVar, TopologySpreadConstraint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use ais_crds::PodTemplate;

use crate::facts::Observed;
use crate::names::Names;
use crate::overlay::{self, BadConfig};
use crate::plan::refound;

/// Why nothing is touched. Becomes condition `Degraded` with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Reason of the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Where the uuid came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidSource {
    /// Retained state volumes.
    Volumes,
    /// The ConfigMap of an earlier pass.
    Recorded,
    /// `spec.clusterID`.
    Spec,
    /// The resource's uid and the founding attempt.
    Derived,
}

/// Typed additions to the pods of one role.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Affinity, if given.
    pub affinity: Option<Affinity>,
    /// Topology spread constraints.
    pub spread: Vec<TopologySpreadConstraint>,
    /// Environment variables.
    pub env: Vec<EnvVar>,
}

/// A cluster that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// Names of its things.
    pub names: Names,
    /// Uuid of the cluster.
    pub uuid: String,
    /// Where that came from.
    pub uuid_source: UuidSource,
    /// Number of the founding; later ones come with a repeated founding only.
    pub founding_attempt: i64,
    /// Placement of gateways.
    pub gateways: Placement,
    /// Placement of targets.
    pub targets: Placement,
    /// Placement of access gateways.
    pub access: Placement,
    /// `spec.config`, or what is wrong with it: a wrong setting is no reason to leave everything else alone.
    pub overlay: Result<Values, BadConfig>,
    /// Secret with the certificate that all nodes serve, where they have TLS.
    pub tls_secret: Option<String>,
}

impl Valid {
    /// How nodes are called.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_secret.is_some() { "https" } else { "http" }
    }
}

/// Checks what was read.
///
/// # Errors
/// [`Invalid`], with nothing to be touched.
pub fn validate(observed: &Observed) -> Result<Valid, Invalid> {
    let names = observed.names();
    no_foreign_objects(observed)?;
    let (uuid, uuid_source) = uuid(observed)?;
    let spec = &observed.cluster.spec;
    let access = spec.access_gateways.as_ref().map(|a| placement("accessGateways", &a.template)).transpose()?;
    Ok(Valid {
        gateways: placement("gateways", &spec.gateways.template)?,
        targets: placement("targets", &spec.targets.template)?,
        access: access.unwrap_or_default(),
        overlay: overlay::read(spec.config.as_ref(), &spec.ha),
        tls_secret: tls_secret(observed, &names)?,
        names,
        uuid,
        uuid_source,
        founding_attempt: refound::founding_attempt(observed),
    })
}

/// What is known of a cluster whatever its spec asks for; the uuid is empty if nobody can say it.
#[must_use]
pub fn standing(observed: &Observed) -> Valid {
    let names = observed.names();
    let spec = &observed.cluster.spec;
    let (uuid, uuid_source) = match (recorded(observed), uuid(observed)) {
        (Some(recorded), _) => (recorded.to_owned(), UuidSource::Recorded),
        (None, Ok(known)) => known,
        (None, Err(_)) => (String::new(), UuidSource::Recorded),
    };
    Valid {
        gateways: Placement::default(),
        targets: Placement::default(),
        access: Placement::default(),
        overlay: overlay::read(spec.config.as_ref(), &spec.ha),
        tls_secret: names.tls_secret(&spec.tls),
        names,
        uuid,
        uuid_source,
        founding_attempt: refound::founding_attempt(observed),
    }
}

/// Nodes that nobody accepts must not come up; those that are there are left alone, and `CertificatesValid` tells.
fn tls_secret(observed: &Observed, names: &Names) -> Result<Option<String>, Invalid> {
    let Some(secret) = names.tls_secret(&observed.cluster.spec.tls) else { return Ok(None) };
    match crate::tls::checked(observed) {
        Err(problem) if observed.sets.is_empty() => {
            let message = format!("{}; no pods are made before", problem.message);
            Err(Invalid { reason: problem.reason, message })
        }
        _ => Ok(Some(secret)),
    }
}

/// Uuid that an earlier pass recorded.
fn recorded(observed: &Observed) -> Option<&str> {
    observed.primary_map.as_ref().map(|m| m.cluster_uuid.as_str()).filter(|u| !u.is_empty())
}

/// One order: retained volumes, what was recorded, `spec.clusterID`, derived.
fn uuid(observed: &Observed) -> Result<(String, UuidSource), Invalid> {
    if refound::begins_anew(observed) {
        return Ok((derive_uuid(observed.uid(), refound::founding_attempt(observed)), UuidSource::Derived));
    }
    let mut found: Vec<&str> = observed.volumes.iter().filter_map(|v| v.cluster_id.as_deref()).collect();
    found.sort_unstable();
    found.dedup();
    match (found.as_slice(), recorded(observed)) {
        ([one], Some(other)) if *one != other => Err(Invalid {
            reason: "ForeignVolumes",
            message: format!("state volumes hold records of cluster {one}, this cluster is {other}"),
        }),
        ([one], _) => Ok(((*one).to_owned(), UuidSource::Volumes)),
        ([], Some(recorded)) => Ok((recorded.to_owned(), UuidSource::Recorded)),
        ([], None) => Ok(match &observed.cluster.spec.cluster_id {
            Some(id) => (id.clone(), UuidSource::Spec),
            None => (derive_uuid(observed.uid(), refound::founding_attempt(observed)), UuidSource::Derived),
        }),
        (several, _) => Err(Invalid {
            reason: "ForeignVolumes",
            message: format!(
                "state volumes named after this cluster hold records of several clusters: {}",
                several.join(", ")
            ),
        }),
    }
}

/// Sixteen hexadecimal digits: a uuid by AIStore's rules and a label by those of Kubernetes.
#[must_use]
pub fn derive_uuid(uid: &str, attempt: i64) -> String {
    hex(&Sha256::digest(format!("aiscluster.dev/{uid}/{attempt}")), 8)
}

/// The first `bytes` of a digest as text.
#[must_use]
pub fn hex(digest: &[u8], bytes: usize) -> String {
    digest.iter().take(bytes).map(|b| format!("{b:02x}")).collect()
}

/// Server-side apply would take over an object that belongs to somebody else.
fn no_foreign_objects(observed: &Observed) -> Result<(), Invalid> {
    let uid = observed.uid();
    for ((kind, name), object) in &observed.live {
        let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let foreign = owners.iter().any(|o| o["controller"] == Value::Bool(true) && o["uid"] != uid);
        if foreign {
            return Err(Invalid {
                reason: "NameConflict",
                message: format!("{kind:?} {name} belongs to another owner; choose another name for the cluster"),
            });
        }
    }
    Ok(())
}

fn placement(part: &str, template: &PodTemplate) -> Result<Placement, Invalid> {
    let affinity = template.affinity.as_ref().map(|map| typed(part, "affinity", map)).transpose()?;
    let constraints = template.topology_spread_constraints.iter().enumerate();
    let spread = constraints
        .map(|(n, map)| typed(part, &format!("topologySpreadConstraints[{n}]"), map))
        .collect::<Result<_, _>>()?;
    let env = template
        .env
        .iter()
        .map(|variable| {
            let source = variable.value_from.as_ref();
            let path = format!("env {}.valueFrom", variable.name);
            let value_from = source.map(|map| typed(part, &path, map)).transpose()?;
            Ok(EnvVar { name: variable.name.clone(), value: variable.value.clone(), value_from })
        })
        .collect::<Result<_, _>>()?;
    Ok(Placement { affinity, spread, env })
}

/// A part of the template that the schema leaves open. A misspelt key would be dropped without a word, and the default
/// with it that the part stands in for.
fn typed<T: Serialize + DeserializeOwned>(part: &str, field: &str, map: &Map<String, Value>) -> Result<T, Invalid> {
    let invalid =
        |what: String| Invalid { reason: "SpecInvalid", message: format!("spec.{part}.template.{field}{what}") };
    let given = Value::Object(map.clone());
    let typed: T = serde_json::from_value(given.clone()).map_err(|error| invalid(format!(": {error}")))?;
    let understood = serde_json::to_value(&typed).unwrap_or_default();
    unknown(&given, &understood).map_or(Ok(typed), |path| Err(invalid(format!("{path}: there is no such field"))))
}

/// The first path that was given and is not understood; what is null says nothing.
fn unknown(given: &Value, understood: &Value) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| match understood.get(key) {
                None => Some(format!(".{key}")),
                Some(found) => unknown(value, found).map(|rest| format!(".{key}{rest}")),
            })
        }
        (Value::Array(given), Value::Array(understood)) => {
            let mut pairs = given.iter().zip(understood).enumerate();
            pairs.find_map(|(n, (given, found))| unknown(given, found).map(|rest| format!("[{n}]{rest}")))
        }
        _ => None,
    }
}
