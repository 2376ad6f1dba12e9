//! Processes that die, pause, leave and come back.

use std::time::{Duration, Instant};

use ais_tests::client;
use ais_tests::history::Random;
use ais_tests::processes::{Kind, Spec};
use ais_tests::scene::{Scene, none_failed, summary};
use anyhow::{Context, Result, bail, ensure};

use super::{BEAT, END_TIMEOUT, has, rmd_version, smap, until_in_map};

/// H05: of four gateways the primary dies, and the next one by HRW within the same moment.
pub(super) fn primary_and_next_die() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(4, 1).in_namespaces())?;
    let (first, epoch) = scene.primary()?;
    // Who is next is seen by killing the first.
    scene.pool.close(&first)?;
    scene.cluster.node_mut(&first)?.kill9()?;
    let (second, epoch) = scene.led_after(epoch)?;
    scene.bring_back(&first)?;
    let others: Vec<String> = scene.cluster.survivors(&second).into_iter().map(|(id, _)| id).collect();
    // The next by HRW is the one that led before; it won against all of them.
    let next = if others.contains(&first) { first.clone() } else { bail!("{first} did not come back") };
    for id in [&second, &next] {
        scene.pool.close(id)?;
    }
    let begin = Instant::now();
    for id in [&second, &next] {
        scene.cluster.node(id)?.kill9_now()?;
    }
    for id in [&second, &next] {
        scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
    }
    let left = scene.others(&[]);
    let (third, _) = scene.led_among(&left, epoch)?;
    let took = begin.elapsed();
    ensure!(third != second && third != next, "{third} is dead and leads");
    scene.write_for(BEAT);
    scene.cluster.start_node(&next)?;
    scene.bring_back(&second)?;
    scene.pool.open(&next);
    Ok(format!("{}, the third led after {took:.0?}", none_failed(&scene.end()?)?))
}

/// H06: no rebalance for a target that may come back.
pub(super) fn primary_and_a_target_die() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let (primary, epoch) = scene.primary()?;
    let before = rmd_version(&scene, &primary)?;
    scene.pool.close(&primary)?;
    scene.cluster.node(&primary)?.kill9_now()?;
    scene.cluster.node("t2")?.kill9_now()?;
    for id in [primary.as_str(), "t2"] {
        scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
    }
    let left = scene.others(&[]);
    let (next, _) = scene.led_among(&left, epoch)?;
    until_in_map(&scene, &next, "t2", false)?;
    // One change of the placing targets is one generation; a gateway's death is none.
    placement_is(&scene, &next, before + 1)?;
    scene.cluster.start_node("t2")?;
    scene.bring_back(&primary)?;
    until_in_map(&scene, &next, "t2", true)?;
    placement_is(&scene, &next, before + 2)?;
    none_failed(&scene.end()?)
}

/// Whether the placement is of this generation: what the map did, it follows once, and nothing else moves it.
fn placement_is(scene: &Scene, through: &str, wanted: u64) -> Result<()> {
    let now = rmd_version(scene, through)?;
    ensure!(now == wanted, "the placement is of generation {now} instead of {wanted}");
    Ok(())
}

/// H07, H08, H09, and AIStore's `ProxyCrash` and `TargetRejoin`: the primary stays, the map follows, and the placement
/// follows the targets in the map, a gateway never.
pub(super) fn others_die_and_return() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let (primary, epoch) = scene.primary()?;
    let gateway = scene.cluster.survivors(&primary).into_iter().next().context("no other gateway")?.0;
    let mut placed = rmd_version(&scene, &primary)?;
    for (id, orderly) in [(gateway.as_str(), false), ("t1", false), ("t2", true), (gateway.as_str(), true)] {
        if id == gateway {
            scene.pool.close(id)?;
        }
        let begin = Instant::now();
        if orderly {
            scene.cluster.node_mut(id)?.sigterm()?;
            let status = scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
            ensure!(status.success(), "{id} ended with {status}");
        } else {
            scene.cluster.node_mut(id)?.kill9()?;
        }
        until_in_map(&scene, &primary, id, false).with_context(|| format!("{id} after {:.0?}", begin.elapsed()))?;
        let step = u64::from(id != gateway);
        placement_is(&scene, &primary, placed + step).with_context(|| format!("{id} left, orderly: {orderly}"))?;
        scene.write_for(BEAT);
        let now = scene.bring_back(id)?;
        ensure!(now == (primary.clone(), epoch), "{id} went and came, and the primary is {now:?}");
        ensure!(has(&smap(&scene, &primary)?, id), "{id} serves and is not in the map");
        scene.write_for(BEAT);
        placed += 2 * step;
        placement_is(&scene, &primary, placed).with_context(|| format!("{id} came back, orderly: {orderly}"))?;
    }
    none_failed(&scene.end()?)
}

/// H04, H02, and AIStore's `CrashAndFastRestore`: down for 2 s. Exactly one primary, the map not older, the old one a
/// member.
pub(super) fn fast_restart_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let version = |scene: &Scene, id: &str| Ok::<_, anyhow::Error>(scene.cluster.node(id)?.view()?.smap_version);
    for down in [Duration::ZERO, Duration::from_secs(2)] {
        let (primary, epoch) = scene.primary()?;
        let before = version(&scene, &primary)?;
        scene.pool.close(&primary)?;
        scene.cluster.node_mut(&primary)?.kill9()?;
        scene.write_for(down);
        scene.bring_back(&primary)?;
        let (leader, now) = scene.led_after(epoch)?;
        ensure!(down.is_zero() || leader != primary, "{primary} was away for {down:?} and leads epoch {now}");
        let after = version(&scene, &leader)?;
        // A new primary raises it by a hundred at least.
        ensure!(after >= before + 100, "the map went from {before} to {after}");
        scene.write_for(BEAT);
    }
    none_failed(&scene.end()?)
}

/// H16: stopped for longer than `evict_smap`; it must not write, must find out, and comes back by itself.
pub(super) fn long_pause_of_the_primary() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let (victim, epoch) = scene.primary()?;
    scene.slow.insert(victim.clone());
    scene.pool.close(&victim)?;
    scene.cluster.node_mut(&victim)?.sigstop()?;
    let (next, now) = scene.led_after(epoch)?;
    until_in_map(&scene, &next, &victim, false)?;
    scene.cluster.node_mut(&victim)?.sigcont()?;
    let address = scene.cluster.node(&victim)?.public.clone();
    // Its first word must already be that of the others.
    let reply = client::create_bucket(&address, &scene.fresh_name(), None)?;
    ensure!([200, 503].contains(&reply.status), "woken up it answered {}: {}", reply.status, reply.text());
    let stamp = client::stamp_of(&reply);
    ensure!(reply.status == 503 || stamp.is_some_and(|stamp| stamp.epoch >= now), "it wrote at {stamp:?}");
    let healed = scene.primary()?;
    ensure!(healed == (next.clone(), now), "the return of {victim} moved the primary to {healed:?}");
    until_in_map(&scene, &next, &victim, true)?;
    scene.pool.open(&victim);
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

/// H20: all at once by `kill -9`, back in any order with pauses.
pub(super) fn restart_of_all_in_random_order() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let uuid = scene.cluster.node("g1")?.view()?.cluster_uuid;
    let mut random = Random::new(u64::from(std::process::id()));
    let mut orders = Vec::new();
    for _ in 0..3 {
        let mut ids = scene.cluster.ids();
        for id in &ids {
            scene.cluster.node(id)?.kill9_now()?;
        }
        for id in &ids {
            scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
        }
        let mut order = Vec::new();
        while !ids.is_empty() {
            let id = ids.swap_remove(random.below(ids.len()));
            scene.cluster.start_node(&id)?;
            scene.write_for(Duration::from_millis(random.between(0, 400)));
            order.push(id);
        }
        orders.push(order.join(" "));
        scene.led_after(0).with_context(|| format!("in the order {orders:?}"))?;
        let now = scene.cluster.node("g1")?.view()?.cluster_uuid;
        ensure!(now == uuid, "another cluster: {now:?} instead of {uuid:?}");
        scene.write_for(BEAT);
    }
    Ok(format!("{}, orders {orders:?}", summary(&scene.end()?)))
}

/// H32, H33: no write or read fails in fifty hand-overs.
pub(super) fn fifty_hand_overs() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let gateways = scene.cluster.survivors("");
    let (mut took, mut leads) = (Vec::new(), scene.primary()?);
    for round in 0..50 {
        let at = gateways.iter().position(|(id, _)| *id == leads.0).context("the primary is no gateway")?;
        let (next, _) = &gateways[(at + 1) % gateways.len()];
        let (_, through) = &gateways[round % gateways.len()];
        let begin = Instant::now();
        let reply = client::set_primary(through, next, "")?;
        took.push(begin.elapsed());
        ensure!(reply.is_success(), "hand-over {round} to {next}: {} {}", reply.status, reply.text());
        let now = scene.primary()?;
        ensure!(now.0 == *next && now.1 > leads.1, "hand-over {round} to {next} led to {now:?}");
        leads = now;
    }
    took.sort();
    let (p50, last) = (took[took.len() / 2], took[took.len() - 1]);
    Ok(format!("{}, p50 {p50:.0?}, slowest {last:.0?}", none_failed(&scene.end()?)?))
}

/// H38: a bucket that was answered is there, however soon the primary dies.
pub(super) fn created_and_killed() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    for _ in 0..5 {
        let (victim, epoch) = scene.primary()?;
        let others = scene.cluster.survivors(&victim);
        scene.pool.close(&victim)?;
        let (name, at) = (scene.fresh_name(), scene.cluster.node(&victim)?.public.clone());
        let reply = client::create_bucket(&at, &name, None)?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        ensure!(reply.is_success(), "{}: {}", reply.status, reply.text());
        for (id, address) in &others {
            let found = client::head_bucket(address, &name)?;
            ensure!([200, 503].contains(&found.status), "{name} was answered, and {id} says {}", found.status);
        }
        scene.led_after(epoch)?;
        for (id, address) in &others {
            let found = client::head_bucket(address, &name)?;
            ensure!(found.is_success(), "{name} was answered, and {id} says {} under {epoch}", found.status);
        }
        scene.bring_back(&victim)?;
    }
    none_failed(&scene.end()?)
}

/// H45, H46: targets and a gateway join while the primary is being replaced, and while everything starts. The placement
/// is of another generation once a target is in the map, and for no other reason: whoever is not up again yet when the
/// first primary leads is waited for.
pub(super) fn joins_during_elections() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 1).in_namespaces())?;
    for (id, kind) in [("x1", Kind::Target), ("x2", Kind::Gateway), ("x3", Kind::Target)] {
        scene.add(id, kind, &[])?;
        let (victim, epoch) = scene.primary()?;
        let placed = rmd_version(&scene, &victim)? + u64::from(matches!(kind, Kind::Target));
        let is_first = scene.pool.close(&victim).is_ok();
        scene.cluster.node_mut(&victim)?.kill9()?;
        scene.cluster.start_node(id)?;
        let (leader, _) = scene.led_after(epoch)?;
        until_in_map(&scene, &leader, id, true)?;
        scene.bring_back(&victim)?;
        placement_is(&scene, &leader, placed).with_context(|| format!("{id} joined as {victim} died"))?;
        ensure!(is_first, "the calls at {victim} did not end");
    }
    scene.add("x4", Kind::Target, &[])?;
    let (primary, _) = scene.primary()?;
    let before = rmd_version(&scene, &primary)?;
    for id in scene.others(&[]) {
        scene.cluster.node_mut(&id)?.kill9()?;
    }
    scene.cluster.start_node("x4")?;
    for id in scene.cluster.ids().into_iter().filter(|id| id != "x4") {
        scene.cluster.start_node(&id)?;
    }
    let (leader, _) = scene.led_after(0)?;
    until_in_map(&scene, &leader, "x4", true)?;
    let first = rmd_version(&scene, &leader)?;
    // Everybody is up: nobody was taken out meanwhile and put back.
    scene.primary()?;
    scene.write_for(BEAT);
    let last = rmd_version(&scene, &leader)?;
    // x4 joins; a target that the first primary does not find yet, while all start, leaves and returns, once; then rest.
    let moved = last - before;
    ensure!(first == last && moved % 2 == 1 && moved <= 1 + 2 * 3, "{before} before, {first} with x4, {last} at last");
    let said = summary(&scene.end()?);
    Ok(format!("{said}, placement {before} -> {last}"))
}
