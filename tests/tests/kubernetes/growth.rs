//! Volumes that shall be larger, with clients that write all the time.
//!
//! The API server judges for real whether a claim may grow, and Kubernetes' own controller hands the claim over to
//! whoever grows its volume. That is a part of each storage provider, and local volumes have none: here the test does
//! what it does, in its order.

use std::collections::BTreeMap;
use std::time::Duration;

use ais_tests::product::{NAME, Product, reason};
use ais_tests::testbed::Kubectl;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::automatic::message;
use crate::bed::{Bed, LONG, SOON};
use crate::side::{Side, offer_volumes};

/// The class of all claims here.
const CLASS: &str = "storageclass/local";
/// What is asked for first, and refused; then, and allowed.
const TOO_EARLY: &str = "2Gi";
const DATA_GIB: u32 = 3;
const STATE: &str = "2Gi";
/// A target that comes when the volumes have grown.
const NEW: &str = "demo-target-1";
/// A majority that is lost shows as a write that waits for an election, and those wait for longer (`side::patient`).
const GAP_MAX: Duration = Duration::from_secs(8);
/// Answered writes of its clients, at least.
const WRITES: usize = 50;

fn data() -> String {
    format!("{DATA_GIB}Gi")
}

fn allow(bed: &Bed, allowed: bool) -> Result<()> {
    bed.product.admin.patch(CLASS, &json!({"allowVolumeExpansion": allowed})).map(drop)
}

/// The API server judges by what it saw of the class a moment ago.
fn wait_allowed(product: &Product) -> Result<()> {
    let claim = format!("data-{NAME}-target-0");
    let patch = json!({"spec": {"resources": {"requests": {"storage": data()}}}}).to_string();
    let ask = ["patch", "pvc", &claim, "--type=merge", "--dry-run=server", "--patch", &patch];
    Wait::new("the class to count", LONG).until(|| product.kubectl.run(&ask).map(|_| Some(())))
}

/// What must not change: the pods that were there, with their restarts, and who leads in which epoch.
fn undisturbed(product: &Product) -> Result<Value> {
    let (primary, epoch) = product.primary()?;
    let mut pods = product.pods()?;
    pods.retain(|pod| pod["metadata"]["name"] != NEW);
    let pods = pods.iter().map(|p| (&p["metadata"]["uid"], &p["status"]["containerStatuses"][0]["restartCount"]));
    Ok(json!([primary, epoch, pods.collect::<Vec<_>>()]))
}

/// Claims with the sizes that they ask for and have.
fn sizes(product: &Product) -> Result<BTreeMap<String, (String, String)>> {
    let mut found = BTreeMap::new();
    for claim in product.kubectl.list("persistentvolumeclaims", None)? {
        let text = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let size = (text("/spec/resources/requests/storage"), text("/status/capacity/storage"));
        found.insert(text("/metadata/name"), size);
    }
    Ok(found)
}

/// Uids of the sets, and the sizes in their templates.
fn sets(product: &Product) -> Result<BTreeMap<String, (Value, Vec<Value>)>> {
    let mut found = BTreeMap::new();
    for set in product.kubectl.list("statefulsets", None)? {
        let name = set["metadata"]["name"].as_str().context("a set without a name")?.to_owned();
        let claims = set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        let sizes = claims.map(|claim| claim["spec"]["resources"]["requests"]["storage"].clone()).collect();
        found.insert(name, (set["metadata"]["uid"].clone(), sizes));
    }
    Ok(found)
}

/// A class that does not expand volumes is named, and nothing else happens; once it does they grow under clients, the
/// sets are made anew around their pods, and a new target gets volumes of the new size.
pub(crate) fn volumes_grow_where_they_may(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "grows", json!({}))?;
    side.clients()?;
    let before = undisturbed(&side.product)?;
    let refused = refused(&side.product)?;
    ensure!(undisturbed(&side.product)? == before, "something was restarted although nothing grows");
    allow(bed, true)?;
    let grown = wait_allowed(&side.product).and_then(|()| grown(&side.product, &before));
    allow(bed, false)?;
    let grown = grown?;
    larger_from_the_start(bed, &mut side)?;
    ensure!(undisturbed(&side.product)? == before, "something was restarted when the volumes grew");
    let judged = side.judge_within(WRITES, GAP_MAX)?;
    side.down()?;
    Ok(format!("{refused}; {grown}; {judged}"))
}

fn refused(product: &Product) -> Result<String> {
    product.patch(&json!({"spec": {"targets": {"storage": {"size": TOO_EARLY}}}}))?;
    let resource = product.wait_resource("refused", SOON, |it| reason(it, "StorageResized") == "ClassDoesNotExpand")?;
    ensure!(product.events("StorageResizeRefused")?.len() == 1, "{:?}", product.events("StorageResizeRefused")?);
    Ok(message(&resource, "StorageResized"))
}

fn grown(product: &Product, before: &Value) -> Result<String> {
    let old = sets(product)?;
    product.patch(&json!({"spec": {
        "gateways": {"stateStorage": {"size": STATE}}, "targets": {"storage": {"size": data()}},
    }}))?;
    let data_claim = format!("data-{NAME}-target-0");
    let mut growing: BTreeMap<String, String> =
        (0..3).map(|n| (format!("state-{NAME}-gateway-{n}"), STATE.to_owned())).collect();
    growing.insert(data_claim, data());
    let names: Vec<&str> = growing.keys().map(String::as_str).collect();
    let wanted = format!("not as large as asked for yet: {}", names.join(", "));
    product.wait_resource("resizing", LONG, |it| message(it, "StorageResized") == wanted)?;
    let asked = sizes(product)?;
    for (claim, size) in &growing {
        ensure!(asked[claim] == (size.clone(), "1Gi".into()), "{claim} asks for, and has: {:?}", asked[claim]);
    }
    ensure!(asked[&format!("state-{NAME}-target-0")].0 == "1Gi", "a volume was asked for nobody's wish: {asked:?}");
    made_anew(product, &old)?;
    ensure!(undisturbed(product)? == *before, "something was restarted when the sets were made anew");

    for (claim, size) in &growing {
        provide(&product.kubectl, claim, size)?;
    }
    Ok(format!("{} volumes grew, both sets made anew, no pod", growing.len()))
}

/// Both sets are others than before, with larger templates, and the pods are theirs.
fn made_anew(product: &Product, old: &BTreeMap<String, (Value, Vec<Value>)>) -> Result<()> {
    let templates = [("gateway", vec![json!(STATE)]), ("target", vec![json!("1Gi"), json!(data())])];
    Wait::new("the sets to be made anew", LONG).until(|| {
        let new = sets(product)?;
        for (role, sizes) in &templates {
            let name = format!("{NAME}-{role}");
            let set = new.get(&name).with_context(|| format!("{name} is gone"))?;
            ensure!(set.0 != old[&name].0 && set.1 == *sizes, "{name} is still {set:?}");
        }
        for pod in product.pods()? {
            let owner = &pod["metadata"]["ownerReferences"][0];
            let uid = owner["name"].as_str().and_then(|name| new.get(name)).map(|set| &set.0);
            ensure!(uid == Some(&owner["uid"]), "{} belongs to {owner}", pod["metadata"]["name"]);
        }
        Ok(Some(()))
    })
}

/// What a storage provider does once Kubernetes says that it is its turn: the volume is larger first, then the claim
/// says so. (A folder needs no step on the node.)
fn provide(kubectl: &Kubectl, claim: &str, size: &str) -> Result<()> {
    let handed = ["--field-selector", &format!("involvedObject.name={claim},reason=ExternalExpanding")];
    Wait::new(format!("{claim} to be handed over"), LONG).until(|| {
        let told = kubectl.cmd(["get", "events", "-o", "name"]).args(handed).run()?;
        Ok((!told.trim().is_empty()).then_some(()))
    })?;
    let status = |status: Value| -> Result<()> {
        let patch = json!({"status": status}).to_string();
        kubectl.run(&["patch", "pvc", claim, "--subresource=status", "--type=merge", "--patch", &patch]).map(drop)
    };
    status(json!({"conditions": [{"type": "Resizing", "status": "True"}]}))?;
    let volume = kubectl.get(&format!("pvc/{claim}"))?["spec"]["volumeName"].clone();
    let volume = volume.as_str().with_context(|| format!("{claim} has no volume"))?;
    kubectl.patch(&format!("pv/{volume}"), &json!({"spec": {"capacity": {"storage": size}}}))?;
    status(json!({"capacity": {"storage": size}, "conditions": []}))
}

/// A target that comes now has volumes of the new size, by the class that no longer expands any.
fn larger_from_the_start(bed: &Bed, side: &mut Side) -> Result<()> {
    offer_volumes(bed, 1)?;
    bed.testbed.create_volumes(1, DATA_GIB)?;
    side.product.patch(&json!({"spec": {"targets": {"replicas": 2}}}))?;
    side.product.targets = 2;
    let product = &side.product;
    let resource = product.wait_ready(&bed.progress)?;
    ensure!(reason(&resource, "StorageResized") == "AsAsked", "{}", resource["status"]);
    ensure!(product.events("StorageResizeRefused")?.len() == 1, "{:?}", product.events("StorageResizeRefused")?);
    let new = sizes(product)?.remove(&format!("data-{NEW}")).context("no volume of the new target")?;
    ensure!(new == (data(), data()), "the new target asks for, and has: {new:?}");
    Ok(())
}
