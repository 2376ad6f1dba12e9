//! `failback` and `promote`: one ask in one patch of the spec, and its result.
//!
//! Both change the declared wish and nothing else, as an edit by hand would: the operator itself never writes the spec,
//! and a promotion that the spec does not know would be undone by the next failback. Where the spec comes from a
//! repository, change it there too; a spec that is set back is one more ask, for what it says.

use std::time::Duration;

use ais_crds::{AISCluster, PrimarySpec, Transition};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::ResourceExt;
use serde_json::{Value, json};

use super::{DONE, OTHERWISE, WAITING, get, watch};
use crate::names::{Names, Role};
use crate::plan::primary::request_key;

/// Field manager of what a person asks for by these commands.
pub(super) const CLI_MANAGER: &str = "ais-operator-cli";
/// Somebody else may change the resource between our read and our patch.
const PATCH_TRIES: u32 = 5;

/// What became of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The preferred gateway leads.
    Leads(String),
    /// It ended without that: result and why.
    Ended(String),
    /// Somebody asked for something else meanwhile.
    Superseded,
}

/// What became of the ask with this key; `None` while it waits or moves. Pure.
#[must_use]
pub fn outcome(cluster: &AISCluster, key: &str) -> Option<Outcome> {
    if request_key(&cluster.spec.primary) != key {
        return Some(Outcome::Superseded);
    }
    let status = cluster.status.as_ref()?;
    let primary = &status.primary;
    if primary.handled_request.as_deref() != Some(key) || primary.attempt.is_some() {
        return None;
    }
    let current = primary.current.clone().unwrap_or_else(|| "nobody".to_owned());
    let why = |t: &Transition| format!("{}: {}; {current} leads", t.result, t.message);
    let preferred = status.conditions.iter().any(|c| c.type_ == "PrimaryPreferred" && c.status == "True");
    Some(match &primary.last_transition {
        _ if preferred => Outcome::Leads(current),
        Some(last) if last.result != "Succeeded" => Outcome::Ended(why(last)),
        _ => Outcome::Ended(format!("{current} leads")),
    })
}

/// The list with this gateway before all others. Pure.
#[must_use]
pub fn with_first(preferred: &[String], gateway: &str) -> Vec<String> {
    let others = preferred.iter().filter(|p| *p != gateway).cloned();
    // The schema allows eight.
    std::iter::once(gateway.to_owned()).chain(others).take(8).collect()
}

/// Who applies this field of `spec.primary`, if another tool does (server-side apply). Pure.
#[must_use]
pub fn applied_by(cluster: &AISCluster, field: &str) -> Option<String> {
    let entries = cluster.metadata.managed_fields.iter().flatten();
    let owner = entries.filter(|e| e.operation.as_deref() == Some("Apply") && e.subresource.is_none()).find(|e| {
        let fields = e.fields_v1.as_ref().map(|f| &f.0);
        fields.is_some_and(|f| f["f:spec"]["f:primary"].get(format!("f:{field}")).is_some())
    })?;
    owner.manager.clone()
}

/// Text that no ask had before.
fn request_now() -> String {
    format!("cli {}", Timestamp::now())
}

pub(super) async fn failback(api: &Api<AISCluster>, name: &str, time: Duration) -> anyhow::Result<u8> {
    let change = |cluster: &AISCluster| {
        let spec = &cluster.spec.primary;
        anyhow::ensure!(!spec.preferred.is_empty(), "{name} prefers no gateway: see `promote`");
        Ok(json!({"request": request_now()}))
    };
    ask(api, name, time, ("request", None), change).await
}

pub(super) async fn promote(api: &Api<AISCluster>, name: &str, gateway: &str, time: Duration) -> anyhow::Result<u8> {
    let gateway = gateway_name(&get(api, name).await?, gateway)?;
    let change = |cluster: &AISCluster| {
        let preferred = with_first(&cluster.spec.primary.preferred, &gateway);
        Ok(json!({"preferred": preferred, "request": request_now()}))
    };
    ask(api, name, time, ("preferred", Some(&gateway)), change).await
}

/// A gateway of the cluster, by the name of its pod or by its number.
fn gateway_name(cluster: &AISCluster, text: &str) -> anyhow::Result<String> {
    let names = Names {
        namespace: String::new(),
        cluster: cluster.name_any(),
        domain: String::new(),
        ports: cluster.spec.networking.ports,
    };
    let name = if text.bytes().all(|b| b.is_ascii_digit()) {
        format!("{}-gateway-{text}", names.cluster)
    } else {
        text.to_owned()
    };
    match names.parse_pod(&name) {
        Some((Role::Gateway, n)) if n < cluster.spec.gateways.replicas => Ok(name),
        _ => anyhow::bail!("{text} is no gateway of {}", names.cluster),
    }
}

/// Patches `spec.primary` over the version that was read, and follows the ask to its end. A promotion is about one
/// gateway, though a list with others may be satisfied by them.
async fn ask(
    api: &Api<AISCluster>,
    name: &str,
    time: Duration,
    (field, wanted): (&str, Option<&str>),
    change: impl Fn(&AISCluster) -> anyhow::Result<Value>,
) -> anyhow::Result<u8> {
    let patched = patch(api, name, |cluster| {
        anyhow::ensure!(!cluster.spec.paused, "spec.paused is set: the operator moves nothing");
        Ok(json!({"spec": {"primary": change(cluster)?}}))
    })
    .await?;
    if let Some(tool) = applied_by(&patched, field) {
        eprintln!("note: {tool} applies spec.primary.{field} too; change it there as well, or it is set back");
    }
    say(&patched.spec.primary);
    let key = request_key(&patched.spec.primary);
    let mut told = String::new();
    let found = watch::until(api, name, time, |cluster| {
        let now = waits(cluster);
        if now != told && outcome(cluster, &key).is_none() {
            println!("{now}");
            now.clone_into(&mut told);
        }
        outcome(cluster, &key)
    })
    .await?;
    match found {
        Some(Outcome::Leads(gateway)) if wanted.is_some_and(|w| w != gateway) => {
            println!("{gateway} leads: {} cannot now; see `status`", wanted.unwrap_or_default());
            Ok(OTHERWISE)
        }
        Some(Outcome::Leads(gateway)) => {
            println!("{gateway} leads");
            Ok(DONE)
        }
        Some(Outcome::Ended(why)) => {
            println!("{why}");
            Ok(OTHERWISE)
        }
        Some(Outcome::Superseded) => {
            println!("somebody asked for something else meanwhile");
            Ok(OTHERWISE)
        }
        None => {
            println!("not done within {} s; the request goes on: {told}", time.as_secs());
            Ok(WAITING)
        }
    }
}

fn say(spec: &PrimarySpec) {
    println!("asked for {} (request {:?})", spec.preferred.join(", then "), spec.request);
}

/// What the operator says of the primary now.
fn waits(cluster: &AISCluster) -> String {
    let conditions = cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let condition = conditions.iter().find(|c| c.type_ == "PrimaryPreferred");
    condition.map_or_else(|| "waiting for the operator".to_owned(), |c| format!("{}: {}", c.reason, c.message))
}

/// A merge patch that is made anew if somebody else was quicker.
pub(super) async fn patch(
    api: &Api<AISCluster>,
    name: &str,
    change: impl Fn(&AISCluster) -> anyhow::Result<Value>,
) -> anyhow::Result<AISCluster> {
    let mut tries = 0;
    loop {
        let cluster = get(api, name).await?;
        let mut patch = change(&cluster)?;
        patch["metadata"]["resourceVersion"] = json!(cluster.metadata.resource_version);
        let params = PatchParams { field_manager: Some(CLI_MANAGER.to_owned()), ..PatchParams::default() };
        tries += 1;
        match api.patch(name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 && tries < PATCH_TRIES => {}
            done => return Ok(done?),
        }
    }
}
