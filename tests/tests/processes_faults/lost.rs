//! A majority of the voters is lost for good (protocol.md section 4; docs/operations.md tells what to do).

use std::fs;

use ais_meta::Stamp;
use ais_tests::client;
use ais_tests::cmd::{Cmd, Output};
use ais_tests::processes::{Spec, node_binary};
use ais_tests::scene::{Scene, summary};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{BEAT, TIMEOUT};

/// What the disk of a stopped node holds, and the command that `inspect` names.
fn inspect(scene: &Scene, id: &str) -> Result<(Stamp, Option<String>)> {
    let dir = scene.cluster.node(id)?.state_dir();
    let told = Cmd::new(node_binary()?).args(["inspect", "--json"]).arg(dir).timeout(TIMEOUT).run()?;
    let told: Value = serde_json::from_str(&told)?;
    let stamp = told["disk"]["accepted"]["stamp"].as_str().with_context(|| format!("{id} holds nothing: {told}"))?;
    let stamp = stamp.parse().map_err(|_| anyhow::anyhow!("'{stamp}' is no stamp"))?;
    Ok((stamp, told["command"].as_str().map(str::to_owned)))
}

/// Without a stamp it only tells what the node holds.
fn recover(scene: &Scene, id: &str, stamp: Option<Stamp>) -> Result<Output> {
    let url = format!("http://{}", scene.cluster.node(id)?.control);
    let secret = scene.cluster.dir().join("secret");
    let mut call = Cmd::new(node_binary()?).args(["recover", &url, "--secret-file"]).arg(secret);
    if let Some(stamp) = stamp {
        call = call.args(["--stamp", &stamp.to_string()]);
    }
    call.timeout(TIMEOUT).output()
}

/// Gateways and targets that nobody leads tell what they hold, as their disks had it.
fn told_as_inspected(scene: &Scene, rest: &[String], held: &[(Stamp, Option<String>)]) -> Result<()> {
    for (id, (stamp, _)) in rest.iter().zip(held) {
        Wait::new(format!("{id} tells what it holds"), TIMEOUT).until(|| {
            let told = recover(scene, id, None)?;
            ensure!(told.ok() && told.stdout.starts_with(&format!("accepted  {stamp}\n")), "{id}, {stamp}: {told:?}");
            Ok(Some(()))
        })?;
    }
    let targets = rest.iter().filter(|id| id.starts_with('t')).count();
    ensure!(targets > 0 && targets < rest.len(), "not a gateway and a target: {rest:?}");
    Ok(())
}

/// Without a majority a node waits, goes on from no other State than its own, and from that one when told so.
fn go_on(scene: &Scene, left: &str, own: Stamp) -> Result<String> {
    Wait::new("the rest waits for a majority", TIMEOUT).until(|| {
        let view = scene.cluster.node(left)?.view()?;
        ensure!(view.reason.contains("majority") && !view.ready, "{left} is {}: {}", view.role, view.reason);
        Ok(Some(()))
    })?;
    // A node that has just started listens for a primary first, and the last one's lease runs for a moment yet.
    Wait::new("the refusal of another stamp", TIMEOUT).until(|| {
        let told = recover(scene, left, Some(Stamp { seq: own.seq + 1, ..own }))?;
        ensure!(!told.ok(), "another stamp was taken: {}", told.stdout);
        ensure!(told.stderr.contains("not what this node holds"), "{}", told.stderr);
        Ok(Some(()))
    })?;
    let told = Wait::new("the recovery", TIMEOUT).until(|| {
        let told = recover(scene, left, Some(own))?;
        ensure!(told.ok(), "{}", told.stderr);
        Ok(Some(told.stdout))
    })?;
    ensure!(told.contains("recovered: the cluster goes on from "), "{told}");
    Ok(told)
}

/// Two of three gateways and a witness are lost, three of five voters. One disk is erased, one replaced, one only away:
/// that one comes back with what it held, and is no voter of the line that an administrator let go on.
pub(super) fn lost_majority() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let ids = scene.cluster.ids();
    let gateways: Vec<String> = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    // What only lost disks hold is lost: nothing is, when all have it.
    gateways.iter().try_for_each(|id| scene.pool.close(id))?;
    let views = scene.cluster.wait_agreed()?;
    let (primary, epoch) = scene.primary()?;
    let uuid = views.iter().find_map(|view| view.cluster_uuid.clone());
    let seats = scene.cluster.node(&primary)?.view()?.electorate;
    let left = gateways.iter().find(|id| **id != primary).context("another gateway")?.clone();
    let mut lost: Vec<String> = gateways.iter().filter(|id| **id != left).cloned().collect();
    lost.extend(seats.iter().find(|seat| seat.kind == "target").map(|seat| seat.node_id.clone()));
    let gone = |id: &String| lost.contains(id);
    ensure!(seats.iter().filter(|seat| gone(&seat.node_id)).count() == 3 && seats.len() == 5, "voters: {seats:?}");
    let disks: Vec<String> = seats.iter().filter(|seat| gone(&seat.node_id)).map(|s| s.disk_id.clone()).collect();
    // The primary last, and all before the first is reaped: else the rest elects another one, in milliseconds.
    for id in ids.iter().filter(|id| **id != primary).chain([&primary]) {
        scene.cluster.node(id)?.kill9_now()?;
    }
    for id in &ids {
        scene.cluster.node_mut(id)?.reap(TIMEOUT)?;
    }
    let away = lost.iter().find(|id| **id != primary).context("another lost gateway")?.clone();
    lost.iter().filter(|id| **id != away).try_for_each(|id| scene.cluster.node_mut(id)?.wipe())?;

    // The administrator looks at what is left, and starts it.
    let rest: Vec<String> = ids.iter().filter(|id| !lost.contains(id)).cloned().collect();
    let held = rest.iter().map(|id| inspect(&scene, id)).collect::<Result<Vec<_>>>()?;
    let newest = held.iter().map(|(stamp, _)| *stamp).max().context("nobody is left")?;
    let (own, command) = inspect(&scene, &left)?;
    ensure!(own == newest && own.incarnation == 0, "{left} holds {own}, the newest is {newest}");
    ensure!(command.is_some_and(|text| text.contains("recover") && text.contains(&own.to_string())), "no command");
    rest.iter().try_for_each(|id| scene.cluster.start_node(id))?;
    told_as_inspected(&scene, &rest, &held)?;
    let told = go_on(&scene, &left, own)?;
    let (leads, _) = scene.led_among(&rest, 0)?;
    ensure!(leads == left, "{leads} leads after a recovery at {left}");
    scene.pool.open(&left);
    scene.commit_through(&left)?;
    scene.write_for(BEAT);

    // The lost come back: with a new disk, or with the old one that remembers the old incarnation.
    for id in &lost {
        scene.cluster.start_node(id)?;
    }
    let (leads, now) = scene.led_after(0)?;
    ensure!(leads == left, "{leads} leads epoch {now}: who came back took the lead from {left}");
    for id in &ids {
        let view = scene.cluster.node(id)?.view()?;
        ensure!(view.stamp.is_some_and(|stamp| stamp.incarnation > 0), "{id} serves {:?}", view.stamp);
        ensure!(view.cluster_uuid == uuid, "{id} is in another cluster");
        let erased = lost.contains(id) && *id != away;
        ensure!(!erased || !disks.contains(&view.disk_id), "{id} kept the id of an erased disk");
    }
    let log = fs::read_to_string(scene.cluster.node(&away)?.log())?;
    ensure!(
        log.contains("was recovered as incarnation") || log.contains("a recovered line replaces"),
        "{away} was not fenced"
    );
    gateways.iter().for_each(|id| scene.pool.open(id));
    scene.write_for(2 * BEAT);
    let buckets = client::bmd_names(&scene.cluster.node(&away)?.public)?.len();
    Ok(format!("{}, epoch {epoch}, {buckets} buckets kept; {}", told.trim(), summary(&scene.end()?)))
}
