//! The control API against processes: what the golden files cannot show, because it takes several nodes or the end of
//! one.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use ais_tests::client::{SDK_TIMEOUT, get_json};
use ais_tests::cmd::{Cmd, Output};
use ais_tests::http::{self, Call, Reply};
use ais_tests::processes::{Kind, LocalCluster, Spec, node_binary};
use ais_tests::suite;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Generous: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    suite::main(&[
        ("control_configuration_is_live_everywhere", configuration),
        ("control_membership_by_http", membership),
        ("control_join_by_admin", join_by_admin),
        ("control_status_command", status_command),
        ("control_shutdown_of_the_whole", shutdown),
        ("control_decommission_of_nodes", decommission_nodes),
        ("control_decommission_of_the_whole", decommission),
    ])
}

fn call(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<Reply> {
    Ok(http::call(address, Call { method, target, headers, body: body.as_bytes() }, SDK_TIMEOUT)?)
}

/// A call that must be answered with 200; the text.
fn done(address: &str, method: &str, target: &str, body: &str) -> Result<String> {
    let reply = call(address, method, target, &[], body)?;
    ensure!(reply.status == 200, "{method} {target} {body}: {} {}", reply.status, reply.text());
    Ok(reply.text())
}

fn gateway(cluster: &LocalCluster) -> Result<String> {
    let (_, address) = cluster.survivors("").into_iter().next().context("no gateway runs")?;
    Ok(address)
}

/// What a node says through a gateway.
fn reverse(gateway: &str, id: &str, what: &str) -> Result<Reply> {
    call(gateway, "GET", &format!("/v1/reverse/daemon?what={what}"), &[("Ais-Node-Id", id)], "")
}

fn configuration() -> Result<String> {
    let cluster = LocalCluster::start(Spec::new(3, 2))?;
    let gateway = gateway(&cluster)?;
    let told: Value = serde_json::from_str(&done(
        &gateway,
        "PUT",
        "/v1/cluster/set-config?log.level=debug&ha.park_ms=14000&mirror.copies=3",
        "",
    )?)?;
    ensure!(told["needs_restart"] == json!(["ha.park_ms"]), "the answer is {told}");
    for id in cluster.ids() {
        Wait::new(format!("{id} logs at the new level"), PATIENCE).until(|| {
            let log = reverse(&gateway, &id, "log&severity=info")?;
            Ok((log.status == 200 && log.text().contains("another log level")).then_some(()))
        })?;
    }
    for (_, address) in cluster.survivors("") {
        let config = get_json(&address, "/v1/cluster?what=cluster_config")?;
        ensure!(config["log"]["level"] == "debug" && config["mirror"]["copies"] == 3, "{address} has {config}");
    }
    let refused = call(&gateway, "PUT", "/v1/cluster/set-config?log.leval=info", &[], "")?;
    ensure!(refused.status == 400 && refused.text().contains("log.level"), "{}", refused.text());
    let stats = get_json(&gateway, "/v1/cluster?what=node_stats")?;
    ensure!(stats["target"].as_object().is_some_and(|targets| targets.len() == 2), "node_stats of {stats}");
    let info = get_json(&gateway, "/v1/cluster?what=sysinfo")?;
    ensure!(info["proxy"].as_object().is_some_and(|gateways| gateways.len() == 3), "sysinfo of {info}");
    done(&gateway, "PUT", "/v1/cluster", r#"{"action":"reset-config"}"#)?;
    cluster.finish();
    Ok("log.level on 5 nodes".to_owned())
}

fn flags(gateway: &str, id: &str) -> Result<Option<u64>> {
    let smap = get_json(gateway, "/v1/daemon?what=smap")?;
    let node = smap["tmap"].get(id).or_else(|| smap["pmap"].get(id));
    Ok(node.and_then(|node| node["flags"].as_u64()))
}

fn action(gateway: &str, name: &str, sid: &str) -> Result<String> {
    let body = json!({"action": name, "value": {"sid": sid, "skip_rebalance": false}});
    done(gateway, "PUT", "/v1/cluster", &body.to_string())
}

fn membership() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 3))?;
    let gateway = gateway(&cluster)?;
    let wait = |what: &str, id: &str, wanted: Option<u64>| {
        Wait::new(what, PATIENCE).until(|| Ok((flags(&gateway, id)? == wanted).then_some(())))
    };
    let id = action(&gateway, "start-maintenance", "t1")?;
    ensure!(id.starts_with('g'), "a rebalance's id is '{id}'");
    // 4 in maintenance, 16 once everybody knows.
    wait("maintenance", "t1", Some(4 | 16))?;
    let status: Value = serde_json::from_slice(&reverse(&gateway, "t1", "node_status")?.body)?;
    ensure!(status["status"] == "maintenance", "the status of a node in maintenance is {status}");
    action(&gateway, "stop-maintenance", "t1")?;
    wait("back in service", "t1", Some(0))?;

    action(&gateway, "decommission-node", "t2")?;
    wait("decommissioned", "t2", None)?;
    let left = cluster.node_mut("t2")?.reap(PATIENCE)?;
    action(&gateway, "shutdown-node", "t3")?;
    let down = cluster.node_mut("t3")?.reap(PATIENCE)?;
    cluster.finish();
    Ok(format!("decommissioned: {left}, shut down: {down}"))
}

/// Starts a node that nobody's list names and that knows nobody, and lets it in with these flags; the answer.
fn let_in(cluster: &mut LocalCluster, id: &str, kind: Kind, given: &str) -> Result<Value> {
    let gateway = gateway(cluster)?;
    let daemon_type = if kind == Kind::Target { "target" } else { "proxy" };
    cluster.primary_ep = None;
    cluster.add(id, kind, &[("discovery_file", json!(""))])?;
    cluster.start_node(id)?;
    let control = cluster.node(id)?.control.clone();
    let (host, port) = control.rsplit_once(':').context("an address")?;
    let snode = json!({"daemon_type": daemon_type, "intra_control_net": {"node_ip_addr": host, "daemon_port": port}});
    // It may still be starting.
    let told = Wait::new("the node is told", PATIENCE).until(|| {
        let headers = [("Ais-Node-Flags", given)];
        let reply = call(&gateway, "POST", "/v1/cluster/join-by-admin", &headers, &snode.to_string())?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(Some(reply.text()))
    })?;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["daemon_id"] == id, "the answer is {told}");
    ensure!(flags(&gateway, id)? == Some(given.parse()?), "{id} has not the flags {given} in the map");
    Ok(told)
}

fn join_by_admin() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 1))?;
    let told = let_in(&mut cluster, "t9", Kind::Target, "0")?;
    let_in(&mut cluster, "g9", Kind::Gateway, "1")?;
    let led = never_leads(&mut cluster, "g9")?;
    cluster.finish();
    Ok(format!("{told}; led without g9 by {led:?}"))
}

/// H37: a gateway that an administrator lets in as one that never leads. Its own configuration does not say so, and it
/// does not lead, asked or elected, after a crash of its own either. Who led, one after the other.
fn never_leads(cluster: &mut LocalCluster, id: &str) -> Result<Vec<String>> {
    let (first, epoch) = cluster.wait_led(0)?;
    let refused = call(&gateway(cluster)?, "PUT", &format!("/v1/cluster/proxy/{id}"), &[], "")?;
    ensure!(refused.status == 422, "a hand-over to {id}: {} {}", refused.status, refused.text());
    ensure!(cluster.wait_led(0)? == (first.clone(), epoch), "a refused hand-over moved the primary");
    // Out of the map by a crash, and back.
    cluster.node_mut(id)?.kill9()?;
    let at = cluster.node(&first)?.public.clone();
    Wait::new(format!("{id} out of the map"), PATIENCE).until(|| Ok(flags(&at, id)?.is_none().then_some(())))?;
    cluster.start_node(id)?;
    Wait::new(format!("{id} back in the map"), PATIENCE).until(|| Ok(flags(&at, id)?.map(drop)))?;
    let (mut led, mut epoch) = (vec![first], epoch);
    for _ in 0..2 {
        let (primary, _) = cluster.wait_led(0)?;
        cluster.node_mut(&primary)?.kill9()?;
        let (next, now) = cluster.wait_led(epoch)?;
        ensure!(next != id, "{id} leads epoch {now}");
        // A primary that has not met it since its crash takes it out of the map, and in again when it asks.
        let at = cluster.node(&next)?.public.clone();
        Wait::new(format!("{id} in the map of {next}, with its flag"), PATIENCE).until(|| {
            let told = flags(&at, id)?;
            ensure!(told.is_none_or(|told| told & 1 == 1), "{id} has the flags {told:?} under {next}");
            Ok(told)
        })?;
        led.push(next);
        epoch = now;
    }
    Ok(led)
}

fn status(cluster: &LocalCluster) -> Result<Output> {
    Cmd::new(node_binary()?).args(["status", &format!("http://{}", gateway(cluster)?)]).timeout(PATIENCE).output()
}

fn status_command() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 2))?;
    let healthy = Wait::new("healthy", PATIENCE).until(|| {
        let told = status(&cluster)?;
        Ok(told.ok().then_some(told))
    })?;
    for id in cluster.ids() {
        ensure!(healthy.stdout.contains(&id), "{id} is not in:\n{}", healthy.stdout);
    }
    ensure!(healthy.stdout.lines().all(|line| line.chars().count() <= 80), "too wide:\n{}", healthy.stdout);
    let (primary, _) = cluster.wait_led(0)?;
    let victim = cluster.survivors(&primary).pop().context("another gateway")?.0;
    cluster.node_mut(&victim)?.kill9()?;
    let sick = Wait::new("not healthy", PATIENCE).until(|| {
        let told = status(&cluster)?;
        Ok((!told.ok()).then_some(told))
    })?;
    ensure!(sick.stdout.contains("NOT HEALTHY") && sick.stdout.contains(&victim), "{}", sick.stdout);
    cluster.finish();
    Ok(sick.stdout.lines().next().unwrap_or_default().to_owned())
}

/// One call ends everything in order; nobody takes over on the way, and everything comes back as it was.
fn shutdown() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 2))?;
    let (_, epoch) = cluster.wait_led(0)?;
    done(&gateway(&cluster)?, "POST", "/v1/buckets/kept", r#"{"action":"create-bck"}"#)?;
    let ids = cluster.ids();
    let last = cluster.survivors("").pop().context("a gateway")?.1;
    done(&last, "PUT", "/v1/cluster", r#"{"action":"shutdown"}"#)?;
    for id in &ids {
        let status = cluster.node_mut(id)?.reap(PATIENCE).with_context(|| format!("{id} does not end"))?;
        ensure!(status.success(), "{id} ended with {status}");
    }
    for id in &ids {
        cluster.start_node(id)?;
    }
    cluster.wait_agreed()?;
    let (_, again) = cluster.wait_led(0)?;
    let names = ais_tests::client::bmd_names(&gateway(&cluster)?)?;
    ensure!(names.contains("kept"), "the bucket is gone: {names:?}");
    cluster.finish();
    Ok(format!("epoch {epoch} before, {again} after"))
}

/// Decommissioned nodes forget the cluster, as far as the options say; their disks are nobody's any more.
fn decommission_nodes() -> Result<String> {
    let mut cluster = LocalCluster::prepare(Spec::new(3, 3))?;
    let (gone, kept) = (cluster.dir().join("gone"), cluster.dir().join("kept"));
    for (id, data) in [("t1", &gone), ("t2", &kept)] {
        fs::create_dir_all(data)?;
        cluster.reconfigure(id, &[("mountpaths", json!([data]))])?;
    }
    let ids = cluster.ids();
    ids.iter().try_for_each(|id| cluster.start_node(id))?;
    cluster.wait_agreed()?;
    let copies = [&gone, &kept].map(|data| data.join(".ais.state"));
    let there = || Ok(copies.iter().all(|copy| copy.exists()).then_some(()));
    Wait::new("copies on the data disks", PATIENCE).until(there)?;
    let (gateway, old) = (gateway(&cluster)?, cluster.node("t1")?.view()?);
    let disks = get_json(&gateway, "/v1/cluster?what=mountpaths")?;
    for (id, wanted) in [("t1", json!([gone])), ("t2", json!([kept])), ("t3", json!([]))] {
        ensure!(disks["targets"][id]["available"] == wanted, "mountpaths of {id}: {disks}");
    }
    let ask = |sid: &str, options: Value| {
        let mut value = json!({"sid": sid});
        value.as_object_mut().into_iter().for_each(|map| map.extend(options.as_object().cloned().unwrap_or_default()));
        let body = json!({"action": "decommission-node", "value": value}).to_string();
        // One such change at a time.
        Wait::new(format!("{sid} is decommissioned"), PATIENCE).until(|| {
            done(&gateway, "PUT", "/v1/cluster", &body)?;
            Ok(Some(()))
        })?;
        Wait::new(format!("{sid} is out of the map"), PATIENCE)
            .until(|| Ok(flags(&gateway, sid)?.is_none().then_some(())))
    };
    ask("t1", json!({"rm_user_data": true}))?;
    let status = cluster.node_mut("t1")?.reap(PATIENCE)?;
    ensure!(
        status.success() && !copies[0].exists(),
        "t1 ended with {status}, its copy is there: {}",
        copies[0].exists()
    );
    let kept = inspected(&cluster, "t1", &["--json"])?;
    let disk = serde_json::from_str::<Value>(&kept)?["disk"].clone();
    ensure!(disk["accepted"].is_null() && disk["disk_id"] != json!(old.disk_id), "t1 kept its records: {disk}");

    ask("t2", json!({"no_shutdown": true}))?;
    Wait::new("t2 stays and serves nothing", PATIENCE).until(|| {
        let view = cluster.node("t2")?.view()?;
        ensure!(!view.ready && view.reason.contains("decommissioned"), "t2 is {}: {}", view.role, view.reason);
        Ok(Some(()))
    })?;
    ensure!(copies[1].exists(), "without rm_user_data t2 removed its copy");
    ensure!(flags(&gateway, "t2")?.is_none(), "t2 is in the map again");
    cluster.node_mut("t2")?.sigterm()?;
    ensure!(cluster.node_mut("t2")?.reap(PATIENCE)?.success(), "t2 did not end in order");

    // The next start is a new node's: another disk.
    cluster.start_node("t1")?;
    let new = Wait::new("t1 joins as new", PATIENCE).until(|| {
        let view = cluster.node("t1")?.view()?;
        Ok(view.ready.then_some(view))
    })?;
    ensure!(new.disk_id != old.disk_id && new.cluster_uuid == old.cluster_uuid, "t1 is back as {new:?}");
    cluster.finish();
    Ok(format!("t1 was {}, is {}", old.disk_id, new.disk_id))
}

/// One call gives the whole cluster up. Everybody forgets it, also who was away; nobody founds it again, and with another
/// uuid the same nodes make another cluster.
fn decommission() -> Result<String> {
    let mut spec = Spec::new(3, 2);
    spec.cluster_uuid = Some("cluster-given-up".to_owned());
    let mut cluster = LocalCluster::prepare(spec)?;
    let data = cluster.dir().join("data");
    fs::create_dir_all(&data)?;
    cluster.reconfigure("t1", &[("mountpaths", json!([data]))])?;
    let ids = cluster.ids();
    ids.iter().try_for_each(|id| cluster.start_node(id))?;
    cluster.wait_agreed()?;
    let (primary, _) = cluster.wait_led(0)?;
    done(&gateway(&cluster)?, "POST", "/v1/buckets/lost", r#"{"action":"create-bck"}"#)?;
    let copy = data.join(".ais.state");
    Wait::new("t1 keeps a copy on its data disk", PATIENCE).until(|| Ok(copy.exists().then_some(())))?;

    let others = cluster.survivors(&primary);
    let [(absent, _), (asked, address)] = others.as_slice() else { anyhow::bail!("not three gateways") };
    let away = [absent.as_str(), "t2"];
    away.iter().try_for_each(|id| cluster.node_mut(id)?.kill9().map(drop))?;
    let body = r#"{"action":"decommission","value":{"rm_user_data":true}}"#;
    done(address, "PUT", "/v1/cluster", body).with_context(|| format!("through {asked}"))?;
    let there: Vec<&String> = ids.iter().filter(|id| !away.contains(&id.as_str())).collect();
    for id in &there {
        let status = cluster.node_mut(id)?.reap(PATIENCE).with_context(|| format!("{id} does not end"))?;
        ensure!(status.success(), "{id} ended with {status}");
        forgot(&cluster, id)?;
    }
    ensure!(!copy.exists(), "the copy on a data disk is left");
    // As a StatefulSet starts them again.
    for id in &there {
        cluster.start_node(id)?;
        Wait::new(format!("{id} says what it is"), PATIENCE).until(|| {
            let view = cluster.node(id)?.view()?;
            ensure!(view.reason.contains("this node forgot cluster") && !view.ready, "{id}: {}", view.reason);
            Ok(Some(()))
        })?;
    }
    for id in away {
        cluster.start_node(id)?;
        let status = cluster.node_mut(id)?.reap(PATIENCE).with_context(|| format!("{id} was not told"))?;
        ensure!(status.success(), "{id} ended with {status}");
        forgot(&cluster, id)?;
    }
    cluster.stop_all(PATIENCE)?;
    cluster.name("cluster-after-it")?;
    ids.iter().try_for_each(|id| cluster.start_node(id))?;
    cluster.wait_agreed()?;
    let names = ais_tests::client::bmd_names(&gateway(&cluster)?)?;
    ensure!(names.is_empty(), "another cluster has the buckets of the old one: {names:?}");
    cluster.finish();
    Ok(format!("asked of {asked}, led by {primary}; {away:?} were away"))
}

fn inspected(cluster: &LocalCluster, id: &str, options: &[&str]) -> Result<String> {
    let command = Cmd::new(node_binary()?).arg("inspect").args(options);
    command.arg(cluster.node(id)?.state_dir()).timeout(PATIENCE).run()
}

fn forgot(cluster: &LocalCluster, id: &str) -> Result<()> {
    let told = inspected(cluster, id, &[])?;
    ensure!(told.contains("cluster cluster-given-up was decommissioned"), "{id} holds:\n{told}");
    Ok(())
}
