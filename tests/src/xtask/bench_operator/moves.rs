//! The primary is lost, moved, and replaced by a newer one: when status says so, beside when a client can write again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::api::Api;
use super::place::{Place, arrival, is_observed};
use super::rows::Row;
use super::text;
use crate::drill::{self, Drill, Drillable};
use crate::history::{Load, Options, Pool};
use crate::product::{Guide, NAME, PodDrills, Product, Watched, reason};
use crate::progress::Progress;

/// Status tells of everything within seconds, or something is wrong.
const TOLD: Duration = Duration::from_secs(60);
/// A hand-over that takes longer was not made at the first attempt.
const SLOW: Duration = Duration::from_secs(2);
/// A pod that was killed is back, in the metadata and in the operator's eyes.
const WHOLE: Duration = Duration::from_secs(120);
/// Six pods, one after the other.
const ROLLED: Duration = Duration::from_secs(400);

/// Drills on pods; a hand-over is asked for by a patch of the resource, and the moment of each is kept.
struct Timed<'a> {
    drills: PodDrills<'a>,
    api: &'a Api,
    at: Option<Instant>,
}

impl Timed<'_> {
    fn ask(&self, victim: &str) -> Result<Instant> {
        let product = self.drills.product;
        let to = self.drills.successor.as_deref().context("no successor")?;
        ensure!(to != victim, "{to} leads already");
        let (patch, path) = (self.drills.patch(to)?, path(product));
        let at = Instant::now();
        self.api.patch(&path, &patch)?;
        Ok(at)
    }
}

impl Drillable for Timed<'_> {
    fn place(&self) -> &'static str {
        self.drills.place()
    }

    fn settle(&mut self) -> Result<(String, u64)> {
        self.drills.settle()
    }

    fn survivors(&self, victim: &str) -> Vec<(String, String)> {
        self.drills.survivors(victim)
    }

    fn fault(&mut self, drill: Drill, victim: &str) -> Result<Instant> {
        let at = if drill == Drill::Planned { self.ask(victim)? } else { self.drills.fault(drill, victim)? };
        self.at = Some(at);
        Ok(at)
    }

    fn heal(&mut self, drill: Drill, victim: &str) -> Result<()> {
        self.drills.heal(drill, victim)
    }
}

fn path(product: &Product) -> String {
    format!("/apis/aiscluster.dev/v1alpha1/namespaces/{}/aisclusters/{NAME}", product.namespace)
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn current(resource: &Value) -> String {
    text(resource, "/status/primary/current")
}

/// `kill -9` of the primary's process.
pub(super) fn failovers(place: &Place, product: &Product, n: u32, progress: &Progress) -> Result<Vec<Row>> {
    let (mut status, mut writes) = (Vec::new(), Vec::new());
    let watched = Watched::start(&product.kubectl, &["aisc"])?;
    for run in 1..=n {
        let old = current(&product.wait_resource("whole", WHOLE, |it| product.is_whole(it))?);
        let seen = watched.count();
        let drills = PodDrills::new(product, Some(&place.testbed));
        let mut timed = Timed { drills, api: &place.api, at: None };
        let done = drill::run(&mut timed, Drill::Kill9, None).with_context(|| format!("failover {run} of {n}"))?;
        let began = timed.at.context("it was not made")?;
        let elsewhere = |it: &Value| !current(it).is_empty() && current(it) != old;
        let (at, _) = arrival(&watched, seen, "of another primary", TOLD, elsewhere)?;
        status.push(ms(at.saturating_duration_since(began)));
        writes.push(ms(done.took));
        report(progress, "failover", run, n, &status, &writes);
    }
    let written = Row::of("failover: the next committed write of a client", "ms", writes).aim("p50 < 150, p99 < 500");
    let told = Row::of("failover: kill -9 of the primary until status names another", "ms", status);
    Ok(vec![told.aim("< 1 s").beside(written.in_words()), written])
}

/// A change of `spec.primary.preferred`, with all gates open.
pub(super) fn failbacks(place: &Place, product: &Product, n: u32, progress: &Progress) -> Result<Vec<Row>> {
    let (mut status, mut writes) = (Vec::new(), Vec::new());
    let watched = Watched::start(&product.kubectl, &["aisc"])?;
    for run in 1..=n {
        let old = current(&product.wait_resource("whole", WHOLE, |it| product.is_whole(it))?);
        let other = product.gateway_names().into_iter().filter(|name| *name != old);
        let to = other.cycle().nth(run as usize).context("no other gateway")?;
        let seen = watched.count();
        let mut drills = PodDrills::new(product, Some(&place.testbed));
        drills.successor = Some(to.clone());
        let mut timed = Timed { drills, api: &place.api, at: None };
        let done = drill::run(&mut timed, Drill::Planned, None).with_context(|| format!("failback {run} of {n}"))?;
        let began = timed.at.context("it was not asked for")?;
        let proven = |it: &Value| {
            let last = &it["status"]["primary"]["lastTransition"];
            let asked = last["from"] == json!(old) && last["to"] == json!(to) && last["result"] == "Succeeded";
            asked && current(it) == to && it["status"]["primary"].get("target").is_none() && is_observed(it)
        };
        let (at, _) = arrival(&watched, seen, "of a proven move", TOLD, proven)?;
        status.push(ms(at.saturating_duration_since(began)));
        writes.push(ms(done.took));
        report(progress, "failback", run, n, &status, &writes);
        if done.took > SLOW {
            progress.line(format!("failback {run} took long:\n{}", why(product)));
        }
    }
    let written = Row::of("failback: the next committed write under the successor", "ms", writes);
    let told = Row::of("failback: patch of spec.primary until it is proven in status", "ms", status);
    Ok(vec![told.aim("< 2 s").beside(written.in_words()), written])
}

/// What a hand-over that took long is explained by: whether an attempt was refused, and what all said last.
fn why(product: &Product) -> String {
    let refused = ["SwitchoverRejected", "SwitchoverFailed"].map(|reason| product.events(reason).unwrap_or_default());
    format!("{}\n{}", refused.concat().join("\n"), product.diagnosis())
}

fn report(progress: &Progress, what: &str, run: u32, n: u32, status: &[f64], writes: &[f64]) {
    if let (Some(status), Some(write)) = (status.last(), writes.last())
        && (run.is_multiple_of(5) || *status > 2000.0)
    {
        progress.line(format!("{what} {run}/{n}: in status after {status:.0} ms, next write after {write:.0} ms"));
    }
}

/// A new template for all six pods, while a client writes through whatever gateways are Ready.
pub(super) fn rolls(product: &Product, n: u32, progress: &Progress) -> Result<Vec<Row>> {
    // A roll-out that ends where it began would need two moves.
    product.patch(&json!({"spec": {"primary": {"preferred": []}}}))?;
    product.wait_resource("without a preference", TOLD, |it| {
        is_observed(it) && reason(it, "PrimaryPreferred") == "NoPreference"
    })?;
    let (mut took_s, mut moves, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let elected = |product: &Product| product.events("PrimaryElected").map(|all| all.len());
    let before = elected(product)?;
    for run in 1..=n {
        let whole = product.wait_resource("whole", WHOLE, |it| product.is_whole(it))?;
        // An end of this run's template, not of the one before it.
        let old = whole["status"]["rollout"]["gatewayRevision"].clone();
        let pool = Pool::new(product.ready_gateways()?);
        let guide = Guide::start(product, &pool)?;
        let options = Options { clients: 1, pause: Duration::from_millis(5), ..Options::new(&format!("roll{run}-")) };
        let load = Load::start(&pool, &options);
        let watched = Watched::start(&product.kubectl, &["aisc"])?;
        let template = json!({"template": {"annotations": {"roll": run.to_string()}}});
        let begin = Instant::now();
        product.patch(&json!({"spec": {"gateways": template, "targets": template}}))?;
        let rolled = |it: &Value| {
            let rollout = &it["status"]["rollout"];
            is_observed(it)
                && it["spec"]["gateways"]["template"]["annotations"]["roll"] == json!(run.to_string())
                && rollout["gatewayRevision"] != old
                && rollout["state"] == "Completed"
                && rollout["updated"] == rollout["of"]
                && reason(it, "RolloutPending") == "UpToDate"
        };
        let (at, resource) = arrival(&watched, 0, "rolled out", ROLLED, rolled)?;
        let ops = load.stop()?;
        drop(guide);
        took_s.push(at.saturating_duration_since(begin).as_secs_f64());
        moves.push(resource["status"]["rollout"]["moves"].as_f64().context("no count of moves")?);
        failed.push(crate::xtask::bench::failed_writes(&ops, progress) as f64);
        progress.line(format!(
            "roll {run}/{n}: {:.1} s, {} moves, {} of {} calls failed",
            took_s[took_s.len() - 1],
            moves[moves.len() - 1],
            failed[failed.len() - 1],
            ops.len()
        ));
    }
    let elections = elected(product)? - before;
    let unplanned = format!("elections that nobody planned: {elections}");
    Ok(vec![
        Row::of("roll-out of a template to 3+3", "s", took_s).beside(unplanned),
        Row::of("roll-out: moves of the primary", "moves", moves).aim("1"),
        Row::of("roll-out: failed writes of a steady client", "writes", failed).aim("0"),
    ])
}
