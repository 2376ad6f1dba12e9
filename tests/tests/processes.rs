//! Drills on processes on loopback: the primary dies, pauses, leaves, comes back, while clients write all the time.
//! Each history is judged (protocol.md section 12, rung 5).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ais_tests::client;
use ais_tests::drill::{self, Drill, LocalDrills};
use ais_tests::processes::{Kind, LocalCluster, Spec};
use ais_tests::scene::{Scene, none_failed, summary};
use ais_tests::suite;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

const BEAT: Duration = Duration::from_millis(500);
/// The shipped `suspect`: what is found faster was found by evidence.
const SUSPECT: Duration = Duration::from_millis(1500);
/// For what has no bound of its own; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    suite::main(&[
        ("kill9_of_the_primary", kill9_of_the_primary),
        ("kill9_of_the_clients_own_gateway", kill9_of_the_clients_own_gateway),
        ("sigterm_of_the_primary", sigterm_of_the_primary),
        ("pause_of_the_primary", pause_of_the_primary),
        ("hand_over_by_http", hand_over_by_http),
        ("hand_over_answers", hand_over_answers),
        ("stop_and_restart_of_all", stop_and_restart_of_all),
        ("late_joiners", late_joiners),
        ("two_gateways_and_one_target", two_gateways_and_one_target),
        ("old_primary_returns", old_primary_returns),
        ("two_clusters_pointed_at_each_other", two_clusters_pointed_at_each_other),
        ("wiped_founder", wiped_founder),
        ("evidence_with_slow_fsyncs", evidence_with_slow_fsyncs),
    ])
}

/// Kills the primary, clients elsewhere; the next primary and its epoch.
fn lose_primary(scene: &mut Scene) -> Result<(String, String, u64)> {
    let (victim, epoch) = scene.primary()?;
    scene.pool.close(&victim)?;
    scene.cluster.node_mut(&victim)?.kill9()?;
    let (next, epoch) = scene.led_after(epoch)?;
    Ok((victim, next, epoch))
}

fn kill9_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3))?;
    for _ in 0..3 {
        let (victim, ..) = lose_primary(&mut scene)?;
        scene.write_for(BEAT);
        scene.bring_back(&victim)?;
        scene.write_for(BEAT);
    }
    let report = scene.end()?;
    ensure!(report.epochs >= 4, "{} epochs", report.epochs);
    none_failed(&report)
}

/// Here calls are lost on the way; with an id of their own they are repeated elsewhere and take effect once.
fn kill9_of_the_clients_own_gateway() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    for _ in 0..3 {
        let (victim, epoch) = scene.primary()?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        scene.led_after(epoch)?;
        scene.write_for(BEAT);
        scene.bring_back(&victim)?;
    }
    Ok(summary(&scene.end()?))
}

fn sigterm_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3))?;
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let (victim, epoch) = scene.primary()?;
        scene.pool.close(&victim)?;
        let begin = scene.cluster.node_mut(&victim)?.sigterm()?;
        let status = scene.cluster.node_mut(&victim)?.reap(Duration::from_secs(8))?;
        slowest = slowest.max(begin.elapsed());
        ensure!(status.success(), "{victim} ended with {status}");
        scene.led_after(epoch)?;
        scene.write_for(BEAT);
        scene.bring_back(&victim)?;
        scene.write_for(BEAT);
    }
    Ok(format!("{}, ended within {slowest:.0?}", none_failed(&scene.end()?)?))
}

fn pause_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3))?;
    let (victim, epoch) = scene.primary()?;
    scene.slow.insert(victim.clone());
    scene.pool.close(&victim)?;
    let begin = scene.cluster.node_mut(&victim)?.sigstop()?;
    let (next, epoch) = scene.led_after(epoch)?;
    let took = begin.elapsed();
    scene.write_for(BEAT);
    scene.cluster.node_mut(&victim)?.sigcont()?;
    // It still believes in its epoch; it must not write, and must find out.
    scene.pool.open(&victim);
    let (still, same) = scene.primary()?;
    ensure!((still, same) == (next, epoch), "the paused primary's return changed the primary");
    scene.write_for(2 * BEAT);
    Ok(format!("{}, next primary after {took:.0?}", none_failed(&scene.end()?)?))
}

/// A call that must be answered so; the body.
fn asked(address: &str, id: &str, query: &str, status: u16) -> Result<Value> {
    let reply = client::set_primary(address, id, query)?;
    ensure!(reply.status == status, "{id}?{query}: {} instead of {status}: {}", reply.status, reply.text());
    serde_json::from_slice(&reply.body).with_context(|| format!("{id}?{query}: {status}, not JSON: {}", reply.text()))
}

fn hand_over_by_http() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3))?;
    let gateways = scene.cluster.survivors("");
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let (primary, epoch) = scene.primary()?;
        let at = gateways.iter().position(|(id, _)| *id == primary).context("the primary is no gateway")?;
        let (next, _) = &gateways[(at + 1) % gateways.len()];
        // Through the primary, through the successor, through the third.
        let (_, through) = &gateways[(at + round) % gateways.len()];
        let begin = Instant::now();
        let body = asked(through, next, &format!("expected-primary={primary}&expected-epoch={epoch}"), 200)?;
        slowest = slowest.max(begin.elapsed());
        ensure!(body["primary"] == json!(next), "the answer is {body}");
        let (leads, now) = scene.led_after(epoch)?;
        ensure!(leads == *next && body["epoch"] == json!(now), "{leads} leads in {now}, the answer was {body}");
        scene.write_for(BEAT / 2);
    }
    Ok(format!("{}, slowest hand-over {slowest:.0?}", none_failed(&scene.end()?)?))
}

fn hand_over_answers() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 0))?;
    cluster.add("access", Kind::Gateway, &[("non_electable", json!(true))])?;
    cluster.start_node("access")?;
    let mut scene = Scene::on(cluster)?;
    let (primary, epoch) = scene.primary()?;
    let mut others = scene.cluster.survivors(&primary);
    others.retain(|(id, _)| id != "access");
    let (other, through) = others.first().context("no other gateway")?.clone();

    let body = asked(&through, "nobody", "", 404)?;
    ensure!(body["status"] == json!(404) && body["message"].is_string(), "an error body is {body}");
    let body = asked(&through, &other, &format!("expected-primary={other}"), 412)?;
    ensure!(body.to_string().contains(&primary), "412 does not name the primary: {body}");
    asked(&through, &other, &format!("expected-epoch={}", epoch + 7), 412)?;
    asked(&through, "access", "", 422)?;
    asked(&through, &other, "force=true", 501)?;
    let body = asked(&through, &primary, "", 200)?;
    ensure!(body["epoch"] == json!(epoch), "handing over to the primary itself changed something: {body}");
    ensure!(scene.primary()? == (primary, epoch), "a refused hand-over changed the primary");

    // Many at once: each is done, or told that another is under way or that nobody leads right now; nothing else.
    let calls: Vec<_> = (0..8)
        .map(|i| {
            let (id, address) = others[i % others.len()].clone();
            std::thread::spawn(move || client::set_primary(&address, &id, ""))
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        let reply = call.join().ok().context("a call panicked")??;
        ensure!([200, 409, 503].contains(&reply.status), "one of many was answered {}: {}", reply.status, reply.text());
        answers.push(reply.status);
    }
    ensure!(answers.contains(&200), "none of many was done: {answers:?}");
    scene.led_after(epoch)?;
    Ok(format!("{}; of 8 at once {answers:?}", none_failed(&scene.end()?)?))
}

fn stop_and_restart_of_all() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 2))?;
    let mut took = Vec::new();
    for orderly in [true, false] {
        scene.write_for(BEAT);
        if orderly {
            scene.cluster.stop_all(Duration::from_secs(10))?;
        } else {
            for id in scene.cluster.ids() {
                scene.cluster.node_mut(&id)?.kill9()?;
            }
        }
        let begin = Instant::now();
        for id in scene.cluster.ids() {
            scene.cluster.start_node(&id)?;
        }
        scene.led_after(0)?;
        took.push(begin.elapsed());
    }
    scene.write_for(BEAT);
    Ok(format!("{}, up again after {took:.0?}", summary(&scene.end()?)))
}

fn late_joiners() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    // Nobody's discovery file names them.
    for (id, kind) in [("g4", Kind::Gateway), ("t2", Kind::Target), ("t3", Kind::Target)] {
        scene.cluster.add(id, kind, &[])?;
    }
    scene.cluster.start_node("g4")?;
    scene.led_after(0)?;
    let address = scene.cluster.node("g4")?.public.clone();
    scene.pool.add("g4", &address);
    // The others come during an election.
    let (victim, epoch) = scene.primary()?;
    scene.pool.close(&victim)?;
    scene.cluster.start_node("t2")?;
    scene.cluster.node_mut(&victim)?.kill9()?;
    scene.cluster.start_node("t3")?;
    scene.led_after(epoch)?;
    scene.bring_back(&victim)?;
    let smap = client::get_json(&address, "/v1/daemon?what=smap")?;
    let count = |map: &str| smap[map].as_object().map_or(0, serde_json::Map::len);
    ensure!((count("pmap"), count("tmap")) == (4, 3), "the map is {smap}");
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

fn two_gateways_and_one_target() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(2, 1))?;
    for _ in 0..2 {
        let (victim, ..) = lose_primary(&mut scene)?;
        scene.write_for(BEAT);
        scene.bring_back(&victim)?;
    }
    // Overlapping: the other one dies while the first is still on its way back in.
    for orderly in [false, true] {
        let (first, second, epoch) = lose_primary(&mut scene)?;
        scene.cluster.start_node(&first)?;
        scene.pool.close(&second)?;
        if orderly {
            scene.cluster.node_mut(&second)?.sigterm()?;
            scene.cluster.node_mut(&second)?.reap(Duration::from_secs(8))?;
        } else {
            scene.cluster.node_mut(&second)?.kill9()?;
        }
        scene.led_after(epoch)?;
        scene.pool.open(&first);
        scene.bring_back(&second)?;
    }
    none_failed(&scene.end()?)
}

fn old_primary_returns() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    for changed_before in [false, true] {
        let (old, new, epoch) = lose_primary(&mut scene)?;
        let old_url = scene.cluster.node(&old)?.url();
        let new_url = scene.cluster.node(&new)?.url();
        scene.cluster.primary_ep = Some(if changed_before { new_url } else { old_url });
        scene.bring_back(&old)?;
        // Longer than any time-out of an election.
        scene.write_for(2 * SUSPECT);
        ensure!(scene.primary()? == (new, epoch), "the return of {old} changed the primary");
    }
    none_failed(&scene.end()?)
}

fn two_clusters_pointed_at_each_other() -> Result<String> {
    // Even with one secret: nothing but the uuid keeps them apart.
    let spec = |prefix: &str| Spec {
        prefix: prefix.to_owned(),
        secret: Some("shared-by-both-clusters".to_owned()),
        cluster_uuid: Some(format!("cluster-{prefix}")),
        ..Spec::new(3, 1)
    };
    let mut scenes = [Scene::begin(spec("a"))?, Scene::begin(spec("b"))?];
    let entries: Vec<Vec<Value>> = scenes.iter().map(|scene| scene.cluster.entries()).collect();
    for (scene, others) in scenes.iter_mut().zip(entries.iter().rev()) {
        scene.cluster.write_discovery(others)?;
        for node in &scene.cluster.nodes {
            client::signed(&node.control, scene.cluster.secret(), "POST", "/v1/ha/poke", Duration::from_secs(2))?;
        }
    }
    for scene in &mut scenes {
        let (victim, ..) = lose_primary(scene)?;
        scene.bring_back(&victim)?;
        // One that restarts finds both in its file.
        let target = format!("{}t1", &victim[..1]);
        scene.cluster.node_mut(&target)?.kill9()?;
        scene.bring_back(&target)?;
    }
    let mut said = vec![newcomer_at_the_wrong_cluster(&mut scenes)?];
    for (scene, prefix) in scenes.into_iter().zip(["a", "b"]) {
        let mut scene = scene;
        scene.write_for(BEAT);
        for view in scene.cluster.views()? {
            ensure!(
                view.cluster_uuid.as_deref() == Some(&format!("cluster-{prefix}")),
                "{} is in {view:?}",
                view.node_id
            );
            let strange = view.members.iter().find(|member| !member.node_id.starts_with(prefix));
            ensure!(strange.is_none(), "{} has {strange:?}", view.node_id);
        }
        said.push(none_failed(&scene.end()?)?);
    }
    Ok(said.join("; "))
}

/// H26: a new node of cluster b that is told where a is, and nothing of b: it says why it does not join, and neither
/// cluster minds.
fn newcomer_at_the_wrong_cluster(scenes: &mut [Scene; 2]) -> Result<String> {
    let before = [scenes[0].primary()?, scenes[1].primary()?];
    let of_a = scenes[0].cluster.entries();
    let endpoint = scenes[0].cluster.nodes.first().map(|node| node.url());
    let cluster = &mut scenes[1].cluster;
    let list = cluster.dir().join("only-a.yaml");
    let found = json!({"formed": true, "cluster_uuid": "cluster-b", "initial_voters": [], "peers": of_a});
    std::fs::write(&list, found.to_string())?;
    cluster.add("bx", Kind::Target, &[("discovery_file", json!(list))])?;
    let own = std::mem::replace(&mut cluster.primary_ep, endpoint);
    cluster.start_node("bx")?;
    cluster.primary_ep = own;
    let reason = Wait::new("bx to say whom it found", PATIENCE).until(|| {
        let view = cluster.node("bx")?.view()?;
        ensure!(!view.ready && !view.formed, "bx serves: {view:?}");
        Ok(view.reason.contains("cluster-a").then_some(view.reason))
    })?;
    // Nor does it think better of it.
    std::thread::sleep(SUSPECT);
    let view = cluster.node("bx")?.view()?;
    ensure!(!view.ready && view.reason == reason && view.primary.is_none(), "then bx was {view:?}");
    cluster.node_mut("bx")?.kill9()?;
    cluster.node_mut("bx")?.wipe()?;
    for (scene, before) in scenes.iter_mut().zip(before) {
        for (id, address) in scene.cluster.survivors("") {
            let map = client::get_json(&address, "/v1/daemon?what=smap")?;
            ensure!(map["tmap"].get("bx").is_none(), "{id} has bx in its map: {map}");
        }
        let now = scene.primary()?;
        ensure!(now == before, "bx came, and the primary went from {before:?} to {now:?}");
    }
    Ok(format!("bx: {reason}"))
}

fn wiped_founder() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1))?;
    let views = scene.cluster.views()?;
    let before = views.iter().find(|view| view.node_id == "g1").context("no view of g1")?.clone();
    scene.pool.close("g1")?;
    scene.cluster.node_mut("g1")?.kill9()?;
    scene.led_after(0)?;
    let gateways = scene.cluster.survivors("g1");
    let (_, epoch) = scene.primary()?;
    scene.cluster.node_mut("g1")?.wipe()?;
    // Its environment and its discovery file still say: you are the founder.
    ensure!(scene.cluster.primary_ep == Some(scene.cluster.node("g1")?.url()), "AIS_PRIMARY_EP does not name g1");
    let (_, after_epoch) = scene.bring_back("g1")?;
    let after = scene.cluster.node("g1")?.view()?;
    ensure!(after.cluster_uuid == before.cluster_uuid, "g1 founded another cluster: {after:?}");
    ensure!(after.disk_id != before.disk_id, "a wiped disk kept its id");
    ensure!(after_epoch == epoch, "the wiped founder's return changed the primary");
    let voter = after.electorate.iter().any(|seat| seat.disk_id == after.disk_id);
    ensure!(!voter || after.epoch() > before.epoch(), "the new disk votes in the old electorate");
    scene.write_for(BEAT);
    let said = none_failed(&scene.end()?)?;
    Ok(format!("{said}, {} gateways went on", gateways.len()))
}

fn evidence_with_slow_fsyncs() -> Result<String> {
    let mut cluster = LocalCluster::start(Spec::new(3, 2).set("debug_fsync_delay_ms", 50))?;
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let run = drill::run(&mut LocalDrills::new(&mut cluster), Drill::Kill9, None)?;
        slowest = slowest.max(run.took);
    }
    if slowest >= SUSPECT {
        bail!("{slowest:.0?}: found by time-out, not by evidence");
    }
    let mut scene = Scene::on(cluster)?;
    let (victim, ..) = lose_primary(&mut scene)?;
    scene.bring_back(&victim)?;
    scene.write_for(BEAT);
    let said = none_failed(&scene.end()?)?;
    Ok(format!("{said}, slowest failover {slowest:.0?}"))
}
