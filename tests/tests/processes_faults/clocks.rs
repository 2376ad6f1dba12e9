//! Time that jumps, and time on the processor that does not come.

use std::time::Duration;

use ais_tests::processes::{Spec, Starved};
use ais_tests::scene::{Scene, none_failed};
use anyhow::{Context, Result, ensure};

use super::{BEAT, has, smap};

const HOUR_S: i64 = 3600;
/// Shorter than the shipped `evict_smap` of 10 s, and longer.
const STARVED: Duration = Duration::from_secs(5);
const STARVED_LONG: Duration = Duration::from_secs(12);

/// Wall clocks decide nothing: an hour forth and back, on the primary and on others, while clients write.
pub(super) fn clock_steps() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces().with_clocks())?;
    let (primary, epoch) = scene.primary()?;
    let other = scene.others(&[&primary]).into_iter().next().context("nobody else")?;
    for id in [primary.as_str(), other.as_str(), "t1"] {
        for seconds in [HOUR_S, -HOUR_S, 0] {
            scene.cluster.node(id)?.step_clock(seconds)?;
            scene.write_for(BEAT);
            scene.commit_through(id.strip_prefix('t').map_or(id, |_| primary.as_str()))?;
            let now = scene.primary()?;
            ensure!(now == (primary.clone(), epoch), "{seconds} s at {id} moved the primary to {now:?}");
        }
    }
    // Nobody may have been fooled into thinking that the steps were not there at all.
    scene.cluster.node(&primary)?.step_clock(HOUR_S)?;
    let early = ais_tests::client::view(&scene.cluster.node(&primary)?.control, scene.cluster.secret());
    ensure!(early.is_err(), "the clock of {primary} did not step: it takes signatures of an hour ago");
    scene.cluster.node(&primary)?.step_clock(0)?;
    none_failed(&scene.end()?)
}

/// With two per cent of a processor for 5 s nobody leaves the map; H48: with five per cent for longer than
/// `evict_smap` a target may leave once, and must not come and go.
pub(super) fn starved_nodes() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let (primary, _) = scene.primary()?;
    let gateway = scene.cluster.survivors(&primary).into_iter().next().context("no other gateway")?.0;
    scene.slow = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    let version = smap(&scene, &primary)?["version"].clone();
    for id in [gateway.as_str(), "t1", "t2"] {
        let starved = hold(&scene, id, 20)?;
        scene.write_for(STARVED);
        ensure!(has(&smap(&scene, &primary)?, id), "{id} was evicted for {STARVED:?} without a processor");
        drop(starved);
        scene.primary()?;
    }
    let now = smap(&scene, &primary)?["version"].clone();
    ensure!(now == version, "the map changed from {version} to {now} while nodes were starved");
    let starved = hold(&scene, "t1", 50)?;
    let mut left = 0;
    let mut was = true;
    let end = scene.elapsed() + STARVED_LONG;
    while scene.elapsed() < end {
        let is = has(&smap(&scene, &primary)?, "t1");
        left += usize::from(was && !is);
        was = is;
        scene.write_for(BEAT / 2);
    }
    drop(starved);
    scene.primary()?;
    ensure!(left <= 1, "t1 left the map {left} times");
    Ok(format!("{}, the starved target left the map {left} times", none_failed(&scene.end()?)?))
}

fn hold(scene: &Scene, id: &str, per_mille: u64) -> Result<Starved> {
    Starved::hold(scene.cluster.node(id)?.pid().context("it does not run")?, per_mille)
}
