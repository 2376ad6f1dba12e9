//! `failback: Automatic`, seen from outside, and what a person asks for at a terminal.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ais_tests::cmd::{Cmd, Output};
use ais_tests::product::{CONTAINER, NAME, Product, Watched, condition, reason};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON, history};
use crate::side::Side;

/// From the first committed State of the new primary until `kubectl get --watch` shows it: a second is the aim, and what
/// is met where the processor is free; a starved machine gets twice that.
const SEEN: Duration = Duration::from_secs(2);
/// The shortest that the schema lets through.
const HOLD_S: u64 = 30;
/// Of a page.
const COLUMNS: usize = 80;

fn gateway(number: u32) -> String {
    format!("{NAME}-gateway-{number}")
}

/// The preferred gateway is killed, comes back, and leads again by itself once it was well for long enough.
pub(crate) fn returns_by_itself(bed: &mut Bed) -> Result<String> {
    let spec = json!({"spec": {"primary": {
        "preferred": [gateway(0)], "failback": "Automatic", "stabilizationSeconds": HOLD_S,
    }}});
    let mut side = Side::make(bed, "automatic", spec)?;
    let product = &side.product;
    product.wait_resource("led by the preferred gateway", LONG, |it| {
        reason(it, "PrimaryPreferred") == "PreferredIsPrimary"
    })?;
    side.clients()?;
    let product = &side.product;
    let scheduled = product.events("FailbackScheduled")?.len();
    let seen = seen_in_watch(bed, product)?;

    let resource = product.wait_resource("stabilizing", LONG, |it| reason(it, "PrimaryPreferred") == "Stabilizing")?;
    let holds = Instant::now();
    let other = resource["status"]["primary"]["current"].as_str().context("no primary")?.to_owned();
    ensure!(resource["status"]["primary"]["nextAttemptTime"].is_string(), "nobody knows when: {}", resource["status"]);
    let limit = Duration::from_secs(HOLD_S) + LONG;
    let resource = product.wait_resource("back at the preferred gateway", limit, |it| {
        history(it).first() == Some(&format!("Failback {other}>{} Succeeded", gateway(0)))
    })?;
    let held = holds.elapsed();
    // The condition may have been seen a little after the hold began.
    ensure!(held + Duration::from_secs(3) >= Duration::from_secs(HOLD_S), "moved back after {held:?} only");
    ensure!(product.primary()?.0 == gateway(0), "{} does not lead", gateway(0));
    ensure!(
        resource["status"]["primary"]["automaticFailbacks"].as_array().is_some_and(|a| a.len() == 1),
        "not counted"
    );
    ensure!(product.events("FailbackScheduled")?.len() > scheduled, "no event FailbackScheduled");
    let asks = person_asks(bed, product)?;
    let judged = side.judge(50)?;
    side.down()?;
    Ok(format!("{other} led after {seen}; {} again {held:.1?} later; {asks}; {judged}", gateway(0)))
}

/// Kills the primary, and how soon after the new one's first State a watch of the resource names it.
fn seen_in_watch(bed: &Bed, product: &Product) -> Result<String> {
    let watched = Watched::start(&product.kubectl, &["aisc"])?;
    Wait::new("the watch to begin", SOON).until(|| Ok((watched.count() > 0).then_some(())))?;
    bed.testbed.container_process(&product.namespace, &gateway(0), CONTAINER)?.kill()?;
    let (other, at) = Wait::new("another primary in the watch", SOON).every(Duration::from_millis(2)).until(|| {
        let newest = watched.newest().remove(NAME).unwrap_or_default();
        let current = newest["status"]["primary"]["current"].as_str().filter(|now| *now != gateway(0));
        Ok(current.map(|now| (now.to_owned(), SystemTime::now())))
    })?;
    let at = at.duration_since(UNIX_EPOCH).context("the clock")?;
    let since = product.view(&other)?.primary_since_ms.context("nobody knows since when")?;
    let took = at.saturating_sub(Duration::from_millis(u64::try_from(since)?));
    ensure!(took <= SEEN, "the watch named {other} {took:?} after it led");
    Ok(format!("seen {took:.0?} after it led"))
}

/// The operator's binary as a person calls it, who has a kubeconfig and nothing else.
pub(crate) fn call(bed: &Bed, product: &Product, args: &[&str]) -> Result<Output> {
    let programs = ais_tests::product::binaries(&bed.progress)?;
    let cmd = Cmd::new(programs.join("ais-operator")).args(args).args(["--namespace", &product.namespace]);
    cmd.env("KUBECONFIG", bed.testbed.kubeconfig()).timeout(LONG).output()
}

fn called(bed: &Bed, product: &Product, args: &[&str], code: i32) -> Result<String> {
    let done = call(bed, product, args)?;
    ensure!(done.code == Some(code), "{args:?} ended with {:?}: {} {}", done.code, done.stdout, done.stderr);
    Ok(done.stdout)
}

/// One screen, a move there, a move back, and refusals: each with its exit code.
fn person_asks(bed: &Bed, product: &Product) -> Result<String> {
    let page = called(bed, product, &["status", NAME], 0)?;
    ensure!(page.lines().all(|line| line.chars().count() <= COLUMNS), "wider than {COLUMNS}: {page}");
    ensure!(page.contains(&format!("PRIMARY    {}", gateway(0))) && page.contains("4/4 nodes hold"), "{page}");
    let plugin = as_plugin(bed, product)?;
    ensure!(plugin.lines().next() == page.lines().next(), "kubectl ais status: {plugin}");

    called(bed, product, &["promote", NAME, "9"], 1)?;
    let begin = Instant::now();
    let told = called(bed, product, &["promote", NAME, "1"], 0)?;
    let promoted = begin.elapsed();
    ensure!(told.lines().last() == Some(&format!("{} leads", gateway(1))), "{told}");
    ensure!(product.primary()?.0 == gateway(1), "{} does not lead", gateway(1));
    let preferred = product.resource()?["spec"]["primary"]["preferred"].clone();
    ensure!(preferred == json!([gateway(1), gateway(0)]), "preferred is {preferred}");
    // There already: done at once, and nothing moves.
    let before = history(&product.resource()?);
    called(bed, product, &["failback", NAME], 0)?;
    ensure!(history(&product.resource()?) == before, "a failback to where it is made history");
    // Refused by the precondition that the user set.
    product.patch(&json!({"spec": {"primary": {"expectedCurrent": gateway(2)}}}))?;
    let told = called(bed, product, &["promote", NAME, "0"], 1)?;
    ensure!(told.contains("Rejected"), "{told}");
    product.patch(&json!({"spec": {"primary": {"expectedCurrent": "", "failback": "Manual"}}}))?;
    called(bed, product, &["failback", NAME], 0)?;
    ensure!(product.primary()?.0 == gateway(0), "{} does not lead", gateway(0));
    let told = called(bed, product, &["refound", NAME, "--confirm", NAME], 1).unwrap_or_default();
    ensure!(product.resource()?["metadata"]["annotations"]["aiscluster.dev/refound"].is_null(), "refound: {told}");
    called(bed, product, &["status", "nobody"], 1)?;
    Ok(format!("promote in {promoted:.1?}"))
}

/// `kubectl` finds plugins by their names on PATH.
fn as_plugin(bed: &Bed, product: &Product) -> Result<String> {
    let folder = bed.testbed.layout().path("bin-plugin");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join("kubectl-ais");
    if !link.exists() {
        std::os::unix::fs::symlink(ais_tests::product::binaries(&bed.progress)?.join("ais-operator"), &link)?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let kubectl = Cmd::new(bed.product.admin.program()).args(["ais", "status", NAME, "-n", &product.namespace]);
    kubectl.env("KUBECONFIG", bed.testbed.kubeconfig()).env("PATH", format!("{}:{path}", folder.display())).run()
}

/// What a page of `status` says, for other cases.
pub(crate) fn status_page(bed: &Bed, product: &Product) -> Result<String> {
    called(bed, product, &["status", NAME], 0)
}

/// The message of a condition.
pub(crate) fn message(resource: &Value, kind: &str) -> String {
    condition(resource, kind).map(|c| c.message).unwrap_or_default()
}
