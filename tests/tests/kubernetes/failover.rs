//! The primary is lost, while clients write.

use std::collections::BTreeSet;

use ais_tests::drill::{self, Drill};
use ais_tests::history::{self, History, Load, Options, Pool};
use ais_tests::product::{End, NAME, NAMESPACE, PodDrills, Views};
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::bed::{Bed, Clients, LONG, SOON, endpoint, history};

/// Begin the names of all buckets of the clients, of the first ones and of those that write while settings change.
const PREFIX: &str = "h";
const PREFIX_AGAIN: &str = "i";
const SHOWN_MAX: usize = 8;

pub(crate) fn clients_begin(bed: &mut Bed) -> Result<String> {
    begin(bed, PREFIX, 5)
}

/// While settings change, nobody is lost: whoever leads stays.
pub(crate) fn clients_begin_again(bed: &mut Bed) -> Result<String> {
    begin(bed, PREFIX_AGAIN, 1)
}

fn begin(bed: &mut Bed, prefix: &'static str, epochs: usize) -> Result<String> {
    let pool = Pool::new(bed.product.ready_gateways()?);
    let load = Load::start(&pool, &Options::new(prefix));
    let views = Views::start(&bed.product, load.started())?;
    bed.clients = Some(Clients { pool, load, views, prefix, epochs, slow: BTreeSet::new() });
    Ok("three clients at three gateways".to_owned())
}

/// What was answered 200 is there, what was refused is not, nothing took effect twice, one primary an epoch.
pub(crate) fn clients_history_is_right(bed: &mut Bed) -> Result<String> {
    let Clients { load, views, slow, prefix, epochs, .. } = bed.clients.take().context("the clients did not begin")?;
    let ops = load.stop()?;
    bed.product.settle_all()?;
    let samples = views.stop()?;
    let finals = bed.product.buckets()?;
    let history = History { ops, samples, finals, prefix: prefix.to_owned(), slow };
    match history::check(&history) {
        Ok(report) if report.done < 100 || report.epochs < epochs => bail!("too little happened: {report:?}"),
        Ok(report) => Ok(ais_tests::scene::summary(&report)),
        Err(wrong) => {
            let file = std::env::temp_dir().join("aiscluster-kubernetes-history.txt");
            drop(std::fs::write(&file, format!("{wrong:#?}\n\n{:#?}", history.ops)));
            let shown = wrong.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n    ");
            bail!("{} rules are broken, see {}:\n    {shown}", wrong.len(), file.display())
        }
    }
}

pub(crate) fn primary_killed(bed: &mut Bed) -> Result<String> {
    let pool = bed.clients()?.pool.clone();
    let (old, _) = bed.product.primary()?;
    let restarts = restarts(bed, &old)?;
    let before = bed.product.events("PrimaryElected")?.len();
    let run = drill::run(&mut PodDrills::new(&bed.product, Some(&bed.testbed)), Drill::Kill9, Some(&pool))?;
    let (new, epoch) = bed.product.primary()?;
    ensure!(new != old && epoch >= run.epoch, "{old} led, {new} leads in epoch {epoch}");
    ensure!(self::restarts(bed, &old)? == restarts + 1, "the container was not restarted once");
    bed.wait_told(&new)?;
    let resource = bed.product.wait_resource("told of the failover", SOON, |resource| {
        history(resource).first() == Some(&format!("Failover {old}>{new} Succeeded"))
    })?;
    ensure!(resource["status"]["primary"]["epoch"] == json!(epoch), "status is of another epoch than {epoch}");
    let elected = bed.product.events("PrimaryElected")?;
    ensure!(elected.len() == before + 1, "{} events PrimaryElected after {before}", elected.len());
    Ok(format!("{old} -> {new}, next write after {:.0?}; {}", run.took, elected.last().cloned().unwrap_or_default()))
}

fn restarts(bed: &Bed, pod: &str) -> Result<u64> {
    bed.product.pod(pod)?["status"]["containerStatuses"][0]["restartCount"].as_u64().context("no restart count")
}

pub(crate) fn primary_force_deleted(bed: &mut Bed) -> Result<String> {
    let pool = bed.clients()?.pool.clone();
    let (old, _) = bed.product.primary()?;
    let was = bed.testbed.pod_ip(NAMESPACE, &old)?;
    let mut drills = PodDrills::new(&bed.product, Some(&bed.testbed));
    drills.end = End::ForceDeleted;
    let run = drill::run(&mut drills, Drill::Sigterm, Some(&pool))?;
    let (new, epoch) = bed.product.primary()?;
    ensure!(new != old && epoch >= run.epoch, "{old} led, {new} leads in epoch {epoch}");
    let is = bed.testbed.pod_ip(NAMESPACE, &old)?;
    ensure!(is != was, "{old} came back at the same address");
    bed.wait_told(&new)?;
    // Its address is in the Service of all gateways, the one before is not.
    let behind = bed.endpoints(NAME)?;
    ensure!(
        behind.len() == 3 && behind.contains(&is.to_string()) && !behind.contains(&was.to_string()),
        "{behind:?} are behind the Service, {old} moved from {was} to {is}"
    );
    Ok(format!("{old} -> {new}, next write after {:.0?}; {old} moved from {was} to {is}", run.took))
}

/// Processes read it at their start: whoever starts now must hear of the primary of now.
pub(crate) fn restarted_pods_know_the_primary(bed: &mut Bed) -> Result<String> {
    let (primary, epoch) = bed.product.primary()?;
    let gateway = bed.other_gateway(&[&primary])?;
    let target = format!("{NAME}-target-1");
    bed.clients()?.pool.close(&gateway)?;
    for pod in [&gateway, &target] {
        let uid = bed.product.pod(pod)?["metadata"]["uid"].clone();
        bed.product.kubectl.delete(&format!("pod/{pod}"), LONG)?;
        Wait::new(format!("another {pod}"), LONG).until(|| {
            let now = bed.product.pod(pod)?;
            Ok((now["metadata"]["uid"] != uid && is_ready(&now)).then_some(()))
        })?;
        let env = bed.env(pod, "AIS_PRIMARY_EP")?;
        ensure!(env == endpoint(&primary), "{pod} was started with {env}, {primary} leads");
        let uuid = bed.env(pod, "AIS_CLUSTER_UUID")?;
        ensure!(bed.product.resource()?["status"]["clusterID"] == json!(uuid), "{pod} was started with uuid {uuid}");
    }
    bed.readdress()?;
    bed.clients()?.pool.open(&gateway);
    let (still, same) = bed.product.primary()?;
    ensure!((still, same) == (primary.clone(), epoch), "a follower's restart changed the primary");
    Ok(format!("{gateway} and {target} were started with {}", endpoint(&primary)))
}
