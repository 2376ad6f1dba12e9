//! `spec.primary.preferred`: what is asked once is done once, and proven.

use std::time::Duration;

use ais_tests::drill::{self, Drill};
use ais_tests::product::{Ask, PodDrills, condition, reason};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, SOON, history};

/// The move itself and its proof: aiscluster.md 1.10 wants a planned switch within two seconds.
const PROVEN: Duration = Duration::from_secs(2);

pub(crate) fn by_patch(bed: &mut Bed) -> Result<String> {
    let pool = bed.clients()?.pool.clone();
    let (old, _) = bed.product.primary()?;
    let to = bed.other_gateway(&[&old])?;
    let before = bed.product.resource()?;
    let started = bed.product.events("SwitchoverStarted")?.len();
    let mut drills = PodDrills::new(&bed.product, Some(&bed.testbed));
    (drills.ask, drills.successor) = (Ask::Patch, Some(to.clone()));
    let run = drill::run(&mut drills, Drill::Planned, Some(&pool))?;
    let (new, epoch) = bed.product.primary()?;
    ensure!(new == to && epoch == run.epoch, "{new} leads in epoch {epoch}, asked was {to}");
    let after = bed.product.wait_resource("told of the failback", SOON, |resource| {
        history(resource).first() == Some(&format!("Failback {old}>{to} Succeeded"))
    })?;
    let primary = &after["status"]["primary"];
    ensure!(primary["current"] == json!(to) && primary["preferred"] == json!(to), "status.primary is {primary}");
    for gone in ["target", "attempt", "pendingRequest", "pendingSince", "nextAttemptTime"] {
        ensure!(primary.get(gone).is_none(), "status.primary.{gone} is still there: {primary}");
    }
    ensure!(primary["handledRequest"] != before["status"]["primary"]["handledRequest"], "the request is not recorded");
    ensure!(primary["lastTransition"] == primary["history"][0], "the last transition is not the first of the history");
    let spent = duration(&primary["lastTransition"]);
    ensure!(spent.is_some_and(|spent| spent <= PROVEN), "the move took {spent:?}");
    // Proven by the voters, not by the operator's word: a majority acknowledges the successor's epoch.
    let voters = after["status"]["electorate"].as_array().cloned().unwrap_or_default();
    let acked = voters.iter().filter(|voter| voter["epoch"].as_u64() == Some(epoch)).count();
    ensure!(acked * 2 > voters.len(), "{acked} of {} voters acknowledge epoch {epoch}", voters.len());
    // The operator never writes the spec: the one change is ours.
    let generation = |resource: &Value| resource["metadata"]["generation"].as_u64();
    ensure!(generation(&after) == generation(&before).map(|g| g + 1), "somebody else changed the spec");
    bed.wait_told(&to)?;
    ensure!(condition(&after, "PrimaryPreferred").is_some_and(|c| c.status == "True"), "not PrimaryPreferred");
    ensure!(bed.product.events("SwitchoverStarted")?.len() == started + 1, "not one event SwitchoverStarted");
    let completed = bed.product.events("SwitchoverCompleted")?;
    let told = completed.last().cloned().unwrap_or_default();
    ensure!(told.contains(&old) && told.contains(&to) && told.contains("Smap v"), "the event says {told:?}");
    // It was in status before it was done, and the phase said so.
    let seen = bed.versions().iter().any(|version| {
        let status = &version["status"];
        status["primary"]["target"] == json!(to) && status["phase"] == "SwitchingPrimary"
    });
    ensure!(seen, "status.primary.target was never {to}");
    Ok(format!("next write after {:.0?}; {told}", run.took))
}

/// From the start to the end of a transition, whole seconds at worst.
fn duration(transition: &Value) -> Option<Duration> {
    let at = |key: &str| seconds(transition[key].as_str()?);
    Duration::try_from_secs_f64(at("finishedAt")? - at("startedAt")?).ok()
}

/// Seconds of the day of a time in UTC.
fn seconds(time: &str) -> Option<f64> {
    let clock = time.split_once('T')?.1.strip_suffix('Z')?;
    clock.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// A change of the primary that must not happen: handled, and nothing moved.
fn nothing_moved(bed: &Bed, patch: &Value, what: &str, handled: impl Fn(&Value) -> bool) -> Result<Value> {
    let (primary, epoch) = bed.product.primary()?;
    bed.product.patch(patch)?;
    let resource = bed.product.wait_resource(what, SOON, |resource| {
        resource["status"]["observedGeneration"] == resource["metadata"]["generation"] && handled(resource)
    })?;
    let (still, same) = bed.product.primary()?;
    ensure!((&still, same) == (&primary, epoch), "{what}: {still} leads in epoch {same}, {primary} led in {epoch}");
    Ok(resource)
}

pub(crate) fn refused(bed: &mut Bed) -> Result<String> {
    let (primary, _) = bed.product.primary()?;
    let other = bed.other_gateway(&[&primary])?;
    let handled = |resource: &Value| resource["status"]["primary"]["handledRequest"].clone();
    let before = bed.product.resource()?;

    // Already there: the request is done without a move.
    let patch = json!({"spec": {"primary": {"preferred": [primary], "request": "already"}}});
    let was = handled(&before);
    let resource = nothing_moved(bed, &patch, "already there", |resource| handled(resource) != was)?;
    ensure!(
        reason(&resource, "PrimaryPreferred") == "PreferredIsPrimary",
        "{:?}",
        condition(&resource, "PrimaryPreferred")
    );
    ensure!(history(&resource) == history(&before), "a request for what is already so made history");

    // Compare and swap: the user thought that somebody else leads.
    let rejected = bed.product.events("SwitchoverRejected")?.len();
    let patch = json!({"spec": {"primary": {"preferred": [other], "expectedCurrent": other}}});
    let resource = nothing_moved(bed, &patch, "rejected", |resource| {
        resource["status"]["primary"]["lastTransition"]["result"] == "Rejected"
    })?;
    ensure!(
        reason(&resource, "PrimaryPreferred") == "FailbackAvailable",
        "{:?}",
        condition(&resource, "PrimaryPreferred")
    );
    let told = bed.product.events("SwitchoverRejected")?;
    ensure!(told.len() == rejected + 1, "{} events SwitchoverRejected after {rejected}", told.len());

    // Unknown: refused by the API server before anybody could wait for it.
    let patch = json!({"spec": {"primary": {"preferred": ["demo-gateway-7"]}}});
    let error = bed.product.patch(&patch).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("names a gateway that does not exist"), "a gateway that does not exist: {error:?}");

    // Taking the precondition back is no new request, and applying the same again asks for nothing.
    let patch = json!({"spec": {"primary": {"preferred": [other], "expectedCurrent": ""}}});
    nothing_moved(bed, &patch, "nothing asked", |resource| {
        reason(resource, "PrimaryPreferred") == "FailbackAvailable"
    })?;
    Ok(told.last().cloned().unwrap_or_default())
}
