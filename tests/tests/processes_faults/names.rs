//! Who somebody is: other addresses, the same id or address twice, a copied disk, gateways that never lead.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ais_tests::client;
use ais_tests::processes::{Kind, LocalCluster, Node, Spec};
use ais_tests::scene::{Scene, none_failed};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{BEAT, END_TIMEOUT, SUSPECT, TIMEOUT, has, smap};

/// H27, H28, and AIStore's `NodeCrashRestoreDifferentIP`: the same id at another address, known once and under the new
/// one.
pub(super) fn other_addresses() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2).in_namespaces())?;
    for id in ["t1", "g2", "g1"] {
        let old = scene.cluster.node(id)?.public.clone();
        let gateway = id.starts_with('g');
        if gateway {
            scene.pool.close(id)?;
        }
        scene.cluster.node_mut(id)?.kill9()?;
        scene.readdress(id)?;
        scene.bring_back(id)?;
        let new = scene.cluster.node(id)?.public.clone();
        ensure!(new != old, "{id} did not move");
        let host = new.split(':').next().unwrap_or_default().to_owned();
        Wait::new(format!("{id} at {host} in every map"), TIMEOUT).until(|| {
            for other in scene.others(&[]) {
                let map = smap(&scene, &other)?;
                let text = map[if gateway { "pmap" } else { "tmap" }][id].to_string();
                ensure!(text.contains(&format!("\"{host}\"")) || text.contains(&new), "{other} has {id} as {text}");
            }
            Ok(Some(()))
        })?;
        scene.write_for(BEAT);
    }
    none_failed(&scene.end()?)
}

/// H29, and AIStore's `AddNodeDuplicateDaemonID`: a second process with a living node's id stays out.
pub(super) fn same_id_twice() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2).in_namespaces())?;
    let leads = scene.primary()?;
    let mut said = Vec::new();
    for (of, kind) in [("g2", Kind::Gateway), ("t1", Kind::Target)] {
        let double = format!("{of}-double");
        let before = smap(&scene, &leads.0)?;
        let original = scene.cluster.node(of)?.view()?;
        scene.cluster.add(&double, kind, &[("node_id", json!(of))])?;
        scene.cluster.start_node(&double)?;
        let node = scene.cluster.node(&double)?.control.clone();
        // It must have tried.
        scene.write_for(2 * SUSPECT);
        let view = client::view(&node, scene.cluster.secret());
        let out = scene.cluster.node_mut(&double)?.check_alive();
        match (&view, &out) {
            (Ok(view), _) if view.ready => bail!("the second {of} serves: {view:?}"),
            (Ok(view), _) => said.push(format!("{of}: {}", view.reason)),
            (Err(_), Err(ended)) => {
                said.push(format!("{of}: {}", ended.to_string().chars().take(120).collect::<String>()))
            }
            (Err(error), Ok(())) => bail!("the second {of} neither ended nor answers: {error:#}"),
        }
        if scene.cluster.node(&double)?.pid().is_some() {
            scene.cluster.node_mut(&double)?.kill9()?;
        }
        let after = smap(&scene, &leads.0)?;
        let map = if kind == Kind::Gateway { "pmap" } else { "tmap" };
        ensure!(after[map][of] == before[map][of], "the second {of} changed the map: {after}");
        let now = scene.cluster.node(of)?.view()?;
        ensure!(now.ready && now.boot_id == original.boot_id, "the second {of} disturbed the first: {now:?}");
    }
    ensure!(scene.primary()? == leads, "a second process of a node moved the primary");
    Ok(format!("{}; {said:?}", none_failed(&scene.end()?)?))
}

/// H30, and AIStore's `AddNodeDuplicateIP`: a second process at a living node's address ends by itself.
pub(super) fn same_address_twice() -> Result<String> {
    let mut scene = Scene::on(LocalCluster::start(Spec::new(3, 1))?)?;
    let leads = scene.primary()?;
    let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let of = scene.cluster.node("t1")?;
    let ports = [port(&of.public), port(&of.control), port(&of.peer)];
    let keys = ["public_port", "control_port", "peer_port"];
    let more: Vec<_> = keys.into_iter().zip(ports.map(|port| json!(port))).collect();
    scene.cluster.add("another", Kind::Target, &more)?;
    scene.cluster.start_node("another")?;
    let status = scene.cluster.node_mut("another")?.reap(END_TIMEOUT).context("it goes on")?;
    ensure!(!status.success(), "it ended as if all were well");
    ensure!(!has(&smap(&scene, &leads.0)?, "another"), "it is in the map");
    ensure!(scene.primary()? == leads, "it moved the primary");
    Ok(format!("{}, it ended with {status}", none_failed(&scene.end()?)?))
}

/// A copied volume: whatever the copy and the original do to each other, the primary stays and nothing is lost; a new
/// disk mends it. (Both ids and runs are equal or higher on the copy: nothing can tell which of them is meant.)
pub(super) fn copied_disk() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2).in_namespaces())?;
    let leads = scene.primary()?;
    let of = scene.cluster.survivors(&leads.0).into_iter().next().context("no other gateway")?.0;
    scene.slow.insert(of.clone());
    scene.pool.close(&of)?;
    let from = scene.cluster.node(&of)?.state_dir();
    scene.cluster.add("copy", Kind::Gateway, &[("node_id", json!(of))])?;
    copy(&from, &scene.cluster.node("copy")?.state_dir())?;
    scene.cluster.start_node("copy")?;
    scene.write_for(2 * SUSPECT);
    let both = [of.as_str(), "copy"].map(|id| scene.cluster.node(id).and_then(Node::view));
    let ready = both.iter().flatten().filter(|view| view.ready).count();
    for id in [of.as_str(), "copy"] {
        if scene.cluster.node_mut(id)?.check_alive().is_ok() && scene.cluster.node(id)?.pid().is_some() {
            scene.cluster.node_mut(id)?.kill9()?;
        }
    }
    scene.commit_through(&leads.0)?;
    scene.cluster.node_mut(&of)?.wipe()?;
    let now = scene.bring_back(&of)?;
    ensure!(now == leads, "the copy moved the primary to {now:?}");
    Ok(format!("{}; {ready} of the two were ready", none_failed(&scene.end()?)?))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// H36, H37: a gateway that may not lead does not, whoever asks and whoever is left.
pub(super) fn non_electable_never_leads() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 2).in_namespaces())?;
    cluster.add("access", Kind::Gateway, &[("non_electable", json!(true))])?;
    cluster.start_node("access")?;
    let mut scene = Scene::on(cluster)?;
    let leads = scene.primary()?;
    let address = scene.cluster.node("access")?.public.clone();
    let refused = client::set_primary(&address, "access", "")?;
    ensure!((400..500).contains(&refused.status), "{}: {}", refused.status, refused.text());
    ensure!(scene.primary()? == leads, "a refused hand-over moved the primary");
    // Out of the map by a crash, and back.
    scene.pool.close("access")?;
    scene.cluster.node_mut("access")?.kill9()?;
    super::until_in_map(&scene, &leads.0, "access", false)?;
    scene.bring_back("access")?;
    let (mut epoch, mut dead) = (leads.1, Vec::new());
    for _ in 0..2 {
        let (primary, _) = scene.primary()?;
        scene.pool.close(&primary)?;
        scene.cluster.node_mut(&primary)?.kill9()?;
        dead.push(primary);
        let (next, now) = scene.led_after(epoch)?;
        ensure!(next != "access", "the access gateway leads epoch {now}");
        epoch = now;
    }
    // Nobody is left who may.
    let (last, _) = scene.primary()?;
    scene.pool.close(&last)?;
    scene.cluster.node_mut(&last)?.kill9()?;
    dead.push(last);
    scene.write_for(Duration::from_secs(4));
    let view = scene.cluster.node("access")?.view()?;
    ensure!(!view.leads(), "nobody may lead, and the access gateway is {view:?}");
    dead.iter().try_for_each(|id| scene.cluster.start_node(id))?;
    let (leader, _) = scene.led_after(epoch)?;
    ensure!(leader != "access", "the access gateway leads");
    dead.iter().for_each(|id| scene.pool.open(id));
    none_failed(&scene.end()?)
}
