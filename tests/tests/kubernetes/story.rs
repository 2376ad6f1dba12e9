//! What a newcomer does, and AIStore's own SDK.

use std::time::{Duration, Instant};

use ais_tests::drill::{self, Drill};
use ais_tests::product::{self, Ask, NAME, PodDrills, Watched, condition};
use ais_tests::sdk::{Script, Sdk};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, endpoint};

const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Before and after each fault.
const BUCKETS: usize = 3;

pub(crate) fn newcomer(bed: &mut Bed) -> Result<String> {
    let product = &bed.product;
    product.make_namespace()?;
    let by_name = format!("metadata.name={NAME}");
    bed.versions = Some(Watched::start(&product.kubectl, &["aisc", "--field-selector", &by_name])?);
    let elsewhere = format!("metadata.namespace!={}", product.namespace);
    bed.beside = Some(Watched::start(&product.admin, &["aisc", "--all-namespaces", "--field-selector", &elsewhere])?);
    let begin = Instant::now();
    product.kubectl.apply(&product.manifest())?;
    let resource = product.wait_ready(&bed.progress)?;
    let took = begin.elapsed();
    let status = &resource["status"];
    let primary = status["primary"]["current"].as_str().context("no primary")?.to_owned();
    for kind in ["Ready", "Available", "HighlyAvailable", "MembershipConverged", "PrimaryPreferred"] {
        let found = condition(&resource, kind).with_context(|| format!("no condition {kind}"))?;
        ensure!(found.status == "True", "{kind}: {found:?}");
    }
    for kind in ["Progressing", "Degraded", "Paused", "RolloutPending", "ScaleDownBlocked"] {
        let found = condition(&resource, kind).with_context(|| format!("no condition {kind}"))?;
        ensure!(found.status == "False", "{kind}: {found:?}");
    }
    ensure!(status["formed"] == true && status["smap"]["summary"] == "6/6", "status is {status}");
    bed.wait_told(&primary)?;
    // Founded with the full list in the mounted file, before the pods: nobody waited for a time-out.
    ensure!(bed.product.events("ClusterFormed")?.len() == 1, "not one event ClusterFormed");
    ensure!(bed.env(&primary, "AIS_PRIMARY_EP")? == endpoint(&format!("{NAME}-gateway-0")), "the seed's address");
    let shown = bed.product.kubectl.run(&["get", "aisc", "-o", "wide"])?;
    ensure!(shown.contains("Running") && shown.contains("3/3") && shown.contains(&primary), "kubectl shows {shown}");
    Ok(format!("Ready {took:.1?} after kubectl apply; primary {primary}"))
}

fn args(prefix: &str, gateways: &[(String, String)]) -> Vec<String> {
    let urls = gateways.iter().map(|(_, address)| format!("http://{address}"));
    std::iter::once(prefix.to_owned()).chain(urls).collect()
}

pub(crate) fn sdk_through_every_gateway(bed: &mut Bed) -> Result<String> {
    let sdk = Sdk::ensure()?.with_resolver(&product::resolver(&bed.testbed)?);
    let mut endpoints = bed.product.ready_gateways()?;
    // The Services lead to gateways too.
    for service in [NAME.to_owned(), format!("{NAME}-primary")] {
        let object = bed.product.kubectl.get(&format!("service/{service}"))?;
        let ip = object["spec"]["clusterIP"].as_str().context("no address of a Service")?.to_owned();
        endpoints.push((service, format!("{ip}:{}", ais_tests::product::PORT_PUBLIC)));
    }
    let told = sdk.run("metadata.py", &args("sdk", &endpoints), SCRIPT_TIMEOUT)?;
    let told: Value = serde_json::from_str(&told).context("the script's last word")?;
    let resource = bed.product.resource()?;
    ensure!(told["gateways"] == 3 && told["targets"] == 3, "the SDK saw {told}");
    ensure!(told["primary"] == resource["status"]["primary"]["current"], "the SDK saw {told}");
    ensure!(told["uuid"] == resource["status"]["clusterID"], "the SDK saw {told}");
    Ok(told.to_string())
}

/// Waits until the script has made some more buckets.
fn write_more(script: &Script) -> Result<()> {
    let made = || script.printed().lines().count();
    let enough = made() + BUCKETS;
    Wait::new("the writer", SCRIPT_TIMEOUT).until(|| Ok((made() >= enough).then_some(())))
}

/// No exception reaches the user's code.
pub(crate) fn sdk_during_failovers(bed: &mut Bed) -> Result<String> {
    let sdk = Sdk::ensure()?.with_resolver(&product::resolver(&bed.testbed)?);
    let mut said = Vec::new();
    let pool = bed.clients()?.pool.clone();
    for (name, drill, ask) in [
        ("kill9", Drill::Kill9, Ask::Http),
        ("sigterm", Drill::Sigterm, Ask::Http),
        ("patch", Drill::Planned, Ask::Patch),
    ] {
        let (primary, _) = bed.product.primary()?;
        let mut gateways = bed.product.ready_gateways()?;
        gateways.retain(|(id, _)| drill.spares_the_primary() || *id != primary);
        let log = bed.testbed.layout().path("log").join(format!("sdk-{name}"));
        let script = sdk.start("writer.py", &args(&format!("sdk-{name}"), &gateways), &log)?;
        write_more(&script)?;
        let mut drills = PodDrills::new(&bed.product, Some(&bed.testbed));
        (drills.ask, drills.successor) = (ask, Some(bed.other_gateway(&[&primary])?));
        let run = drill::run(&mut drills, drill, Some(&pool))?;
        write_more(&script)?;
        let told = script.finish(SCRIPT_TIMEOUT).with_context(|| format!("during {name}"))?;
        let told: Value = serde_json::from_str(told.lines().last().unwrap_or_default())?;
        ensure!(told["buckets"].as_u64() > Some(0), "the writer did nothing: {told}");
        said.push(format!("{name} {:.0?} {told}", run.took));
    }
    Ok(said.join("; "))
}
