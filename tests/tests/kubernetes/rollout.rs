//! A new template or image reaches the pods while clients write.
//!
//! The cases share one cluster beside that of all others; each may also run alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ais_tests::product::{Product, Watched, condition, reason};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, history};
use crate::held::acting_operator;
use crate::side::{Side, patient};

const GATEWAYS: usize = 3;
const TARGETS: usize = 3;
/// Six pods that stop, start and catch up, one after the other, on a busy machine.
const ROLL: Duration = Duration::from_secs(300);
/// Answered writes of a roll-out's clients, at least.
const WRITES: usize = 20;

/// The cluster of the case before, or a new one; its clients begin.
fn side(bed: &mut Bed) -> Result<Side> {
    let mut side = match bed.rolled.take() {
        Some(side) => side,
        None => {
            let overlay = json!({"spec": {"gateways": {"replicas": GATEWAYS}, "targets": {"replicas": TARGETS}}});
            Side::make(bed, "rolled", overlay)?
        }
    };
    side.clients()?;
    Ok(side)
}

/// Pods by name with the uids they had.
struct Pods(Watched);

impl Pods {
    fn watch(product: &Product) -> Result<Self> {
        let pods = Self(Watched::start(&product.kubectl, &["pods", "--selector", &Product::selector()])?);
        let all = product.gateways + product.targets;
        Wait::new("the pods", LONG).until(|| Ok((pods.uids().len() == all).then_some(())))?;
        Ok(pods)
    }

    fn uids(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in self.0.versions() {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
            found.entry(text("name")).or_default().insert(text("uid"));
        }
        found
    }

    /// Every one of these was replaced exactly once, and no other.
    fn ensure_replaced_once(&self, pods: &[String]) -> Result<()> {
        for (name, uids) in self.uids() {
            let wanted = if pods.contains(&name) { 2 } else { 1 };
            ensure!(uids.len() == wanted, "there were {} pods {name}, not {wanted}", uids.len());
        }
        Ok(())
    }
}

/// A new template of these roles.
fn change(product: &Product, roles: &[&str], version: &str) -> Result<Instant> {
    let template = json!({"template": {"annotations": {"version": version}}});
    let spec: serde_json::Map<String, Value> =
        roles.iter().map(|role| ((*role).to_owned(), template.clone())).collect();
    let begin = Instant::now();
    product.patch(&json!({"spec": spec}))?;
    Ok(begin)
}

fn rollout(resource: &Value) -> &Value {
    &resource["status"]["rollout"]
}

/// Completed for the newest generation, and whole.
fn wait_completed(product: &Product) -> Result<Value> {
    product.wait_resource("rolled out", ROLL, |resource| {
        let newest = resource["status"]["observedGeneration"] == resource["metadata"]["generation"];
        newest && product.is_whole(resource) && rollout(resource)["state"] == "Completed" && is_updated(resource)
    })
}

fn is_updated(resource: &Value) -> bool {
    let rollout = rollout(resource);
    rollout["updated"] == rollout["of"] && reason(resource, "RolloutPending") == "UpToDate"
}

/// Primaries that were elected without a plan. A machine that has too much to do makes voters believe that the primary
/// is lost; how often it moves is then not the roll-out's doing alone.
fn elected(product: &Product) -> Result<usize> {
    product.events("PrimaryElected").map(|all| all.len())
}

/// The newest entries of the history.
fn moves(resource: &Value, count: usize) -> Vec<String> {
    history(resource).into_iter().take(count).collect()
}

pub(crate) fn with_one_move(bed: &mut Bed) -> Result<String> {
    let mut side = side(bed)?;
    let product = &side.product;
    let (old, epoch) = product.primary()?;
    let (pods, before) = (Pods::watch(product)?, elected(product)?);
    let begin = change(product, &["gateways", "targets"], "one-move")?;
    let resource = wait_completed(product)?;
    let took = begin.elapsed();
    let unplanned = elected(product)? - before;
    let (new, now) = product.primary()?;
    let told = moves(&resource, 1);
    if unplanned == 0 {
        ensure!(new != old && now == epoch + 1, "{old} led in epoch {epoch}, {new} leads in {now}");
        ensure!(rollout(&resource)["moves"] == 1, "status counts {} moves", rollout(&resource)["moves"]);
        ensure!(told == [format!("Rollout {old}>{new} Succeeded")], "the history begins with {told:?}");
    }
    pods.ensure_replaced_once(&product.pod_names()?)?;
    let events = |reason| product.events(reason).map(|all| all.len());
    ensure!(events("RolloutStarted")? == 1 && events("RolloutCompleted")? == 1, "not one event each");
    let completed = product.events("RolloutCompleted")?.pop().unwrap_or_default();
    let judged = side.judge(WRITES)?;
    bed.rolled = Some(side);
    Ok(format!("{GATEWAYS}+{TARGETS} in {took:.1?}, {}, {unplanned} elections; {completed}; {judged}", told.join(", ")))
}

pub(crate) fn ends_on_the_preferred(bed: &mut Bed) -> Result<String> {
    let mut side = side(bed)?;
    let product = &side.product;
    let (primary, epoch) = product.primary()?;
    product.patch(&json!({"spec": {"primary": {"preferred": [primary]}}}))?;
    product.wait_resource("preferred", LONG, |it| reason(it, "PrimaryPreferred") == "PreferredIsPrimary")?;
    let (pods, before) = (Pods::watch(product)?, elected(product)?);
    let begin = change(product, &["gateways"], "preferred")?;
    let resource = wait_completed(product)?;
    let took = begin.elapsed();
    let unplanned = elected(product)? - before;
    let (new, now) = product.primary()?;
    let told = moves(&resource, 2);
    if unplanned == 0 {
        ensure!(new == primary && now == epoch + 2, "{primary} led in epoch {epoch}, {new} leads in {now}");
        ensure!(rollout(&resource)["moves"] == 2, "status counts {} moves", rollout(&resource)["moves"]);
        ensure!(reason(&resource, "PrimaryPreferred") == "PreferredIsPrimary", "it did not end on its preference");
        ensure!(told.iter().all(|one| one.starts_with("Rollout ")), "the history begins with {told:?}");
    }
    pods.ensure_replaced_once(&product.gateway_names())?;
    product.patch(&json!({"spec": {"primary": {"preferred": []}}}))?;
    let judged = side.judge(WRITES)?;
    bed.rolled = Some(side);
    Ok(format!("{GATEWAYS} gateways in {took:.1?}, {}, {unplanned} elections; {judged}", told.join(", ")))
}

pub(crate) fn stops_at_a_broken_image(bed: &mut Bed) -> Result<String> {
    let mut side = side(bed)?;
    let product = &side.product;
    let (primary, epoch) = product.primary()?;
    let before = rollout(&product.resource()?)["startedAt"].clone();
    let elections = elected(product)?;
    let begin = Instant::now();
    product.patch(&json!({"spec": {"image": "localhost/no-such-image:0"}}))?;
    let stuck = product.wait_resource("stuck", ROLL, |it| reason(it, "Degraded") == "RolloutStuck")?;
    let stopped = begin.elapsed();
    let said = condition(&stuck, "Degraded").map(|c| c.message).unwrap_or_default();
    let away = stuck["status"]["nodes"].as_array().cloned().unwrap_or_default();
    let away: Vec<_> =
        away.iter().filter(|node| node["ready"] != true).filter_map(|node| node["pod"].as_str()).collect();
    ensure!(away.len() == 1 && said.contains(away[0]), "{away:?} are not ready, status says {said}");
    ensure!(said.contains("Image"), "the reason is not told: {said}");
    ensure!(rollout(&stuck)["startedAt"] != before, "no new roll-out: {}", rollout(&stuck));
    let leads = &stuck["status"]["primary"];
    let untouched = leads["current"] == json!(primary) && leads["epoch"] == json!(epoch);
    ensure!(untouched || elected(product)? > elections, "the primary was touched: {leads}");
    let away = away[0].to_owned();
    let begin = Instant::now();
    product.patch(&json!({"spec": {"image": null}}))?;
    let resource = wait_completed(product)?;
    ensure!(rollout(&resource)["moves"] == 0, "a roll-back of one pod moved the primary: {}", rollout(&resource));
    ensure!(product.primary()? == (primary, epoch) || elected(product)? > elections, "the primary was touched");
    let mended = begin.elapsed();
    let judged = side.judge(WRITES)?;
    bed.rolled = Some(side);
    Ok(format!("stopped at {away} after {stopped:.1?} ({said}), mended in {mended:.1?}; {judged}"))
}

pub(crate) fn supervised(bed: &mut Bed) -> Result<String> {
    let mut side = side(bed)?;
    let product = &side.product;
    let (primary, epoch) = product.primary()?;
    let (paused, elections) = (product.events("RolloutPaused")?.len(), elected(product)?);
    product.patch(&json!({"spec": {"update": {"gateways": {"strategy": "Supervised"}}}}))?;
    let begin = change(product, &["gateways"], "supervised")?;
    let waits = product.wait_resource("waiting for a person", ROLL, |it| {
        reason(it, "RolloutPending") == "Supervised" && rollout(it)["state"] == "Supervised"
    })?;
    let took = begin.elapsed();
    let said = condition(&waits, "RolloutPending").map(|c| c.message).unwrap_or_default();
    ensure!(said.contains(&primary) && said.contains("Unsupervised"), "it does not say how to go on: {said}");
    ensure!(rollout(&waits)["updated"] == GATEWAYS + TARGETS - 1, "{}", rollout(&waits));
    ensure!(product.primary()? == (primary.clone(), epoch) || elected(product)? > elections, "the primary was touched");
    ensure!(product.events("RolloutPaused")?.len() > paused, "no event RolloutPaused");
    product.patch(&json!({"spec": {"update": {"gateways": {"strategy": "Unsupervised"}}}}))?;
    let resource = wait_completed(product)?;
    if elected(product)? == elections {
        ensure!(rollout(&resource)["moves"] == 1, "status counts {} moves", rollout(&resource)["moves"]);
        ensure!(product.primary()?.0 != primary, "{primary} was not restarted");
    }
    let judged = side.judge(WRITES)?;
    bed.rolled = Some(side);
    Ok(format!("waited after {took:.1?}: {said}; {judged}"))
}

/// Nothing but what is observed is needed to go on.
pub(crate) fn outlives_the_operator(bed: &mut Bed) -> Result<String> {
    let mut side = side(bed)?;
    let product = &side.product;
    let (pods, before) = (Pods::watch(product)?, elected(product)?);
    let begin = change(product, &["gateways", "targets"], "outlived")?;
    let all = product.pod_names()?;
    let mut killed = Vec::new();
    // Twice: among the targets, and when the primary is about to be handed over.
    for updated in [2, all.len() - 1] {
        product.wait_resource("half-way", ROLL, |it| {
            rollout(it)["state"] == "Rolling" && rollout(it)["updated"].as_u64() >= u64::try_from(updated).ok()
        })?;
        let (holder, operator) = acting_operator(bed)?;
        operator.kill().with_context(|| format!("{holder} ended by itself"))?;
        killed.push(holder);
    }
    let resource = wait_completed(product)?;
    let took = begin.elapsed();
    pods.ensure_replaced_once(&all)?;
    let unplanned = elected(product)? - before;
    let counted = &rollout(&resource)["moves"];
    ensure!(*counted == 1 || unplanned > 0, "status counts {counted} moves");
    let judged = side.judge(WRITES)?;
    // The last of these cases.
    side.down()?;
    Ok(format!(
        "{GATEWAYS}+{TARGETS} in {took:.1?} although {} were killed, {unplanned} elections; {judged}",
        killed.join(" and ")
    ))
}

/// A write waits for its gateway to be given up, and for a hand-over, but never for an election.
const MORE_VOTERS_GAP: Duration = Duration::from_secs(8);

/// The number of voters is in the template: the primary of the old one cannot let more vote, and its pod is the last.
pub(crate) fn to_more_voters(bed: &mut Bed) -> Result<String> {
    let mut ha = patient();
    ha["voters"] = json!(3);
    let size = json!({"gateways": {"replicas": GATEWAYS}, "targets": {"replicas": TARGETS}, "ha": ha});
    let mut side = Side::make(bed, "voters", json!({"spec": size}))?;
    side.clients()?;
    let (pods, before) = (Pods::watch(&side.product)?, elected(&side.product)?);
    let begin = Instant::now();
    side.product.patch(&json!({"spec": {"ha": {"voters": 5}}}))?;
    side.product.voters_max = 5;
    let product = &side.product;
    let resource = wait_completed(product)?;
    let took = begin.elapsed();
    pods.ensure_replaced_once(&product.pod_names()?)?;
    let votes = voters(&resource);
    ensure!(votes.len() == 5, "{votes:?} vote");
    for view in product.settle_all()? {
        ensure!(view.electorate.len() == 5, "{} knows {} voters", view.node_id, view.electorate.len());
    }
    let unplanned = elected(product)? - before;
    let counted = &rollout(&resource)["moves"];
    ensure!(*counted == 1 || unplanned > 0, "status counts {counted} moves");
    let judged = side.judge_within(WRITES, MORE_VOTERS_GAP)?;
    side.down()?;
    Ok(format!("{} after {took:.1?}, {unplanned} elections; {judged}", votes.join(" ")))
}

fn voters(resource: &Value) -> Vec<&str> {
    resource["status"]["electorate"].as_array().into_iter().flatten().filter_map(|v| v["pod"].as_str()).collect()
}
