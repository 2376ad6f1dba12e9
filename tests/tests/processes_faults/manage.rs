//! Administrators' calls whose effects must outlive a primary.

use std::time::Duration;

use ais_meta::{auth, node};
use ais_tests::client;
use ais_tests::http::{self, Call, Reply};
use ais_tests::processes::{LocalCluster, Spec};
use ais_tests::scene::{Scene, none_failed};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{BEAT, TIMEOUT, smap};

fn ask(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &Value) -> Result<Reply> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    Ok(http::call(address, Call { method, target, headers, body: &body }, client::SDK_TIMEOUT)?)
}

fn act(scene: &Scene, through: &str, action: &str, value: &Value) -> Result<Reply> {
    let body = json!({"action": action, "value": value});
    ask(&scene.cluster.node(through)?.public, "PUT", "/v1/cluster", &[], &body)
}

/// H58, H59: unsigned, mis-signed, expired; liveness and readiness in each state.
pub(super) fn signatures_and_health() -> Result<String> {
    let health = |address: &str, query: &str| -> Result<u16> {
        Ok(ask(address, "GET", &format!("/v1/health{query}"), &[], &Value::Null)?.status)
    };
    // Alone: it lives and is not ready.
    let mut cluster = LocalCluster::prepare(Spec::new(3, 1).in_namespaces())?;
    cluster.start_node("g1")?;
    let (public, control) = (cluster.node("g1")?.public.clone(), cluster.node("g1")?.control.clone());
    Wait::new("the first answer", TIMEOUT).until(|| Ok((health(&public, "")? == 200).then_some(())))?;
    for address in [&public, &control] {
        ensure!(health(address, "?readiness=true")? == 503, "it is alone and ready");
    }
    for id in ["g2", "g3", "t1"] {
        cluster.start_node(id)?;
    }
    cluster.wait_agreed()?;
    for node in &cluster.nodes {
        for query in ["", "?readiness=true"] {
            ensure!(health(&node.public, query)? == 200, "{} is a member: {query}", node.id);
        }
    }
    // Calls between members want the secret, a fresh time, and the very request that was signed.
    let view = "/v1/ha/view";
    let unsigned = ask(&control, "GET", view, &[], &Value::Null)?.status;
    let wrong = auth::Secret::from_file_content(b"not the secret of this cluster").context("too short")?;
    let late_ms = -3_600_000;
    let signed = |secret, skew_ms| -> u16 {
        let call = client::Signed { method: "GET", target: view, body: b"", skew_ms, timeout: TIMEOUT };
        // The answer of a refusal is not signed: only its status counts.
        call.send_unverified(&control, secret).map_or(0, |reply| reply.status)
    };
    let seen = [unsigned, signed(&wrong, 0), signed(cluster.secret(), late_ms), signed(cluster.secret(), 0)];
    ensure!(seen[0] == 401, "unsigned: {}", seen[0]);
    ensure!([401, 403].contains(&seen[1]) && [401, 403].contains(&seen[2]), "wrong secret, old time: {seen:?}");
    ensure!(seen[3] == 200, "signed: {}", seen[3]);
    // A stranger with another secret stays out.
    cluster.add("stranger", ais_tests::processes::Kind::Target, &[])?;
    let other = cluster.dir().join("other-secret");
    std::fs::write(&other, "another secret than the cluster's")?;
    cluster.reconfigure("stranger", &[("secret_file", json!(other))])?;
    cluster.start_node("stranger")?;
    let stranger = cluster.node("stranger")?.public.clone();
    Wait::new("the stranger", TIMEOUT).until(|| Ok((health(&stranger, "")? == 200).then_some(())))?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(health(&stranger, "?readiness=true")? == 503, "another secret, and it is ready");
    let map = client::get_json(&public, "/v1/daemon?what=smap")?;
    ensure!(!super::has(&map, "stranger"), "another secret, and it is in the map");
    cluster.node_mut("stranger")?.kill9()?;
    // A majority is lost: those that are left live.
    for id in ["g2", "g3"] {
        cluster.node_mut(id)?.kill9()?;
    }
    for id in ["g1", "t1"] {
        ensure!(health(&cluster.node(id)?.public, "")? == 200, "{id} does not live");
    }
    cluster.finish();
    Ok(format!("unsigned, wrong, late, signed: {seen:?}"))
}

/// H40: a configuration that was answered survives the primary and half of the targets' disks.
pub(super) fn configuration_survives() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2).in_namespaces())?;
    let (primary, epoch) = scene.primary()?;
    scene.pool.close(&primary)?;
    let reply = act(&scene, &primary, "set-config", &json!({"log": {"level": "warn"}}))?;
    ensure!(reply.is_success(), "set-config: {} {}", reply.status, reply.text());
    scene.cluster.node_mut(&primary)?.kill9()?;
    scene.led_after(epoch)?;
    scene.cluster.node_mut("t1")?.kill9()?;
    scene.cluster.node_mut("t1")?.wipe()?;
    scene.bring_back("t1")?;
    scene.bring_back(&primary)?;
    let ids = scene.cluster.survivors("");
    for (id, address) in &ids {
        let config = client::get_json(address, "/v1/cluster?what=cluster_config")?;
        ensure!(config["log"]["level"] == "warn", "{id} has {}", config["log"]);
    }
    let refused = act(&scene, &primary, "set-config", &json!({"log": {"leval": "warn"}}))?;
    ensure!((400..500).contains(&refused.status), "an unknown key: {} {}", refused.status, refused.text());
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

fn flags(scene: &Scene, through: &str, id: &str) -> Result<u64> {
    let map = smap(scene, through)?;
    let flags = &map["tmap"][id]["flags"];
    flags.as_u64().or_else(|| flags.as_str()?.parse().ok()).with_context(|| format!("no flags of {id} in {map}"))
}

/// H42, H43, H44: a flag outlives the primary and the node itself, until it is taken back.
pub(super) fn maintenance_survives() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let in_maintenance =
        |scene: &Scene, id: &str| Ok::<_, anyhow::Error>(flags(scene, id, "t2")? & node::flags::MAINTENANCE > 0);
    let (primary, epoch) = scene.primary()?;
    let reply = act(&scene, &primary, "start-maintenance", &json!({"sid": "nobody"}))?;
    ensure!(reply.status == 404, "an unknown node: {} {}", reply.status, reply.text());
    scene.pool.close(&primary)?;
    let reply = act(&scene, &primary, "start-maintenance", &json!({"sid": "t2", "skip_rebalance": true}))?;
    ensure!(reply.is_success(), "start-maintenance: {} {}", reply.status, reply.text());
    scene.cluster.node_mut(&primary)?.kill9()?;
    let (next, _) = scene.led_after_in_maintenance(epoch, "t2")?;
    ensure!(in_maintenance(&scene, &next)?, "the flag died with the primary");
    scene.cluster.start_node(&primary)?;
    // The node itself comes back as it was.
    scene.cluster.node_mut("t2")?.kill9()?;
    scene.write_for(BEAT);
    scene.cluster.start_node("t2")?;
    let (next, _) = scene.led_after_in_maintenance(epoch, "t2")?;
    Wait::new("t2 in the map", TIMEOUT).until(|| Ok(in_maintenance(&scene, &next)?.then_some(())))?;
    let reply = act(&scene, &next, "stop-maintenance", &json!({"sid": "t2"}))?;
    ensure!(reply.is_success(), "stop-maintenance: {} {}", reply.status, reply.text());
    Wait::new("t2 to serve", TIMEOUT).until(|| Ok((!in_maintenance(&scene, &next)?).then_some(())))?;
    scene.primary()?;
    scene.pool.open(&primary);
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}
