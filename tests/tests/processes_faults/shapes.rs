//! Clusters of other sizes.

use ais_tests::client;
use ais_tests::processes::Spec;
use ais_tests::scene::{Scene, none_failed, summary};
use anyhow::{Context, Result, ensure};

use super::{BEAT, END_TIMEOUT};

/// H18 as a black hole: the target is the witness that decides between two gateways.
pub(super) fn two_and_one_cut() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(2, 1).in_namespaces())?;
    scene.slow = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    for _ in 0..2 {
        let (victim, epoch) = scene.primary()?;
        scene.pool.close(&victim)?;
        scene.cluster.fabric()?.isolate(&victim)?;
        let others = scene.others(&[&victim]);
        let (next, now) = scene.led_among(&others, epoch)?;
        scene.commit_through(&next)?;
        ensure!(!scene.cluster.node(&victim)?.view()?.leads(), "{victim} is cut off and leads");
        scene.cluster.fabric()?.heal()?;
        ensure!(scene.primary()? == (next, now), "the return of {victim} moved the primary");
        scene.pool.open(&victim);
        scene.write_for(BEAT);
    }
    none_failed(&scene.end()?)
}

/// H19: nobody can take over; writes wait, and the same cluster goes on.
pub(super) fn one_and_three() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(1, 3).in_namespaces())?;
    let uuid = scene.cluster.node("g1")?.view()?.cluster_uuid;
    let name = scene.fresh_name();
    let address = scene.cluster.node("g1")?.public.clone();
    ensure!(client::create_bucket(&address, &name, None)?.is_success(), "no bucket");
    for orderly in [false, true] {
        let (_, epoch) = scene.primary()?;
        scene.pool.close("g1")?;
        if orderly {
            scene.cluster.node_mut("g1")?.sigterm()?;
            scene.cluster.node_mut("g1")?.reap(END_TIMEOUT)?;
        } else {
            scene.cluster.node_mut("g1")?.kill9()?;
        }
        scene.write_for(BEAT);
        let (leader, now) = scene.bring_back("g1")?;
        ensure!(leader == "g1" && now > epoch, "{leader} leads {now} after {epoch}");
        ensure!(scene.cluster.node("g1")?.view()?.cluster_uuid == uuid, "another cluster");
        ensure!(client::head_bucket(&address, &name)?.is_success(), "{name} is gone");
        scene.write_for(BEAT);
    }
    // A witness less: two of three.
    scene.cluster.node_mut("t1")?.kill9()?;
    scene.commit_through("g1")?;
    scene.bring_back("t1")?;
    none_failed(&scene.end()?)
}

/// Five voting gateways: two die at once, the primary among them; a split of two and three; targets do not count.
pub(super) fn five_and_three() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(5, 3).in_namespaces())?;
    scene.slow = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    let (primary, epoch) = scene.primary()?;
    let second = scene.cluster.survivors(&primary).into_iter().next().context("no other gateway")?.0;
    let two = [primary, second];
    for id in &two {
        scene.pool.close(id)?;
    }
    for id in &two {
        scene.cluster.node(id)?.kill9_now()?;
    }
    for id in &two {
        scene.cluster.node_mut(id)?.reap(END_TIMEOUT)?;
    }
    let left = scene.others(&[]);
    let (_, epoch) = scene.led_among(&left, epoch)?;
    scene.write_for(BEAT);
    for id in &two {
        scene.cluster.start_node(id)?;
    }
    scene.led_after(epoch - 1)?;
    two.iter().for_each(|id| scene.pool.open(id));

    // The primary with one other gateway and all targets, against three gateways.
    let (primary, epoch) = scene.primary()?;
    let second = scene.cluster.survivors(&primary).into_iter().next().context("no other gateway")?.0;
    let side = [primary, second, "t1".to_owned(), "t2".to_owned(), "t3".to_owned()];
    scene.cluster.fabric()?.split(&side)?;
    let others: Vec<String> = scene.others(&[]).into_iter().filter(|id| !side.contains(id)).collect();
    let (next, now) = scene.led_among(&others, epoch)?;
    scene.commit_through(&next)?;
    scene.cluster.fabric()?.heal()?;
    ensure!(scene.primary()? == (next, now), "the healed split moved the primary");
    Ok(summary(&scene.end()?))
}
