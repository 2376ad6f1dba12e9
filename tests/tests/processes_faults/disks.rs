//! Disks that are replaced, fill up, slow down, stop, or read back something else.

use std::fs;
use std::time::{Duration, Instant};

use ais_tests::processes::Spec;
use ais_tests::scene::{Scene, none_failed, summary};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{BEAT, SUSPECT, TIMEOUT};

/// Waits until so many living disks hold all seats of the electorate.
fn whole(scene: &mut Scene, voters: usize) -> Result<Duration> {
    let begin = Instant::now();
    scene.cluster.wait_for("an electorate of living disks", TIMEOUT, |views| {
        let leader = ais_tests::processes::led(views)?;
        for seat in &leader.electorate {
            if !views.iter().any(|view| (&view.node_id, &view.disk_id) == (&seat.node_id, &seat.disk_id)) {
                return Err(format!("nobody lives who holds the seat of {}", seat.node_id));
            }
        }
        if leader.electorate.len() < voters { Err(format!("{} voters", leader.electorate.len())) } else { Ok(()) }
    })?;
    Ok(begin.elapsed())
}

/// One disk at a time, then two voters' at once: replaced by what is left, under new disk ids, without a new cluster.
pub(super) fn wipes_of_one_and_of_two() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let uuid = scene.cluster.node("g1")?.view()?.cluster_uuid;
    whole(&mut scene, 5)?;
    let mut took = Vec::new();
    for count in [1, 2] {
        let (primary, _) = scene.primary()?;
        let view = scene.cluster.node(&primary)?.view()?;
        let mut seats = view.electorate.clone();
        // The primary's own first: somebody else has to find out.
        seats.sort_by_key(|seat| seat.node_id != primary);
        let victims = &seats[..count];
        for seat in victims {
            if seat.kind == "gateway" {
                scene.pool.close(&seat.node_id)?;
            }
            scene.cluster.node_mut(&seat.node_id)?.kill9()?;
            scene.cluster.node_mut(&seat.node_id)?.wipe()?;
        }
        for seat in victims {
            scene.cluster.start_node(&seat.node_id)?;
        }
        took.push(whole(&mut scene, 5)?);
        for seat in victims {
            let now = scene.cluster.node(&seat.node_id)?.view()?;
            ensure!(now.disk_id != seat.disk_id, "{} kept the id of a wiped disk", seat.node_id);
            ensure!(now.cluster_uuid == uuid, "{} is in another cluster: {now:?}", seat.node_id);
            scene.pool.open(&seat.node_id);
        }
        scene.write_for(BEAT);
    }
    Ok(format!("{}, all seats held again after {took:.0?}", none_failed(&scene.end()?)?))
}

/// A node that cannot write does not lead and does not acknowledge; it comes back by itself when there is room.
pub(super) fn full_disks() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces().on_volumes())?;
    let (primary, epoch) = scene.primary()?;
    let begin = Instant::now();
    scene.cluster.volume(&primary)?.fill()?;
    let others = scene.others(&[&primary]);
    let (next, now) = scene.led_among(&others, epoch)?;
    let took = begin.elapsed();
    scene.commit_through(&next)?;
    // A witness, and a gateway that does not lead, change nothing.
    scene.cluster.volume("t1")?.fill()?;
    scene.commit_through(&next)?;
    scene.write_for(BEAT);
    scene.cluster.volume("t1")?.make_room()?;
    scene.cluster.volume(&primary)?.make_room()?;
    let healed = scene.primary()?;
    ensure!(healed == (next, now), "room on the disk of {primary} moved the primary to {healed:?}");
    scene.write_for(BEAT);
    Ok(format!("{}, next primary after {took:.0?}", none_failed(&scene.end()?)?))
}

/// A hung disk of the primary costs it its role, a hung or slow one of another voter costs nothing.
pub(super) fn slow_and_hung_disks() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces().on_volumes())?;
    let (primary, epoch) = scene.primary()?;
    // Whoever is stuck publishes nothing new meanwhile.
    scene.slow = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    let witness = "t1";
    scene.cluster.volume(witness)?.freeze()?;
    scene.write_for(2 * SUSPECT);
    scene.commit_through(&primary)?;
    ensure!(scene.cluster.node(&primary)?.view()?.epoch() == epoch, "a hung witness cost {primary} its role");
    scene.cluster.volume(witness)?.thaw()?;
    ensure!(scene.primary()? == (primary.clone(), epoch), "a witness whose disk goes on moved the primary");

    scene.cluster.volume(&primary)?.freeze()?;
    let begin = Instant::now();
    let others = scene.others(&[&primary]);
    let (next, now) = scene.led_among(&others, epoch)?;
    let took = begin.elapsed();
    scene.commit_through(&next)?;
    scene.write_for(BEAT);
    scene.cluster.volume(&primary)?.thaw()?;
    let healed = scene.primary()?;
    ensure!(healed == (next.clone(), now), "{primary}, whose disk goes on, moved the primary to {healed:?}");

    scene.cluster.reconfigure(witness, &[("debug_fsync_delay_ms", json!(300))])?;
    scene.cluster.node_mut(witness)?.kill9()?;
    scene.cluster.start_node(witness)?;
    scene.primary()?;
    scene.write_for(2 * SUSPECT);
    let still = scene.primary()?;
    ensure!(still == (next, now), "a slow witness moved the primary to {still:?}");
    Ok(format!("{}, next primary {took:.0?} after its disk hung", none_failed(&scene.end()?)?))
}

/// H50, H51: a voter whose records do not read back keeps them aside and joins under another disk id.
pub(super) fn damaged_records() -> Result<String> {
    let mut scene = Scene::begin(Spec::new(3, 3).in_namespaces())?;
    let (mut damaged, mut done) = (Vec::new(), Vec::new());
    for file in ["vote", "state"] {
        let (primary, _) = scene.primary()?;
        // Another one each time: who loses its disk twice in a row waits before it votes (protocol.md section 4).
        let mut others = scene.cluster.survivors(&primary);
        others.retain(|(id, _)| !done.contains(id));
        let (victim, _) = others.into_iter().next().context("no other gateway")?;
        done.push(victim.clone());
        scene.pool.close(&victim)?;
        let before = scene.cluster.node(&victim)?.view()?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        let dir = scene.cluster.node(&victim)?.state_dir();
        damaged.push(flip(&dir, file)?);
        scene.bring_back(&victim)?;
        let after = scene.cluster.node(&victim)?.view()?;
        ensure!(after.disk_id != before.disk_id, "{victim} kept its disk id with a damaged {file}");
        ensure!(after.cluster_uuid == before.cluster_uuid, "{victim} is in another cluster");
        let kept = |name: &str| name.contains(".bad");
        let names = || Ok::<_, anyhow::Error>(fs::read_dir(&dir)?.flatten().map(|e| e.file_name()));
        ensure!(names()?.any(|name| kept(&name.to_string_lossy())), "nothing was set aside in {}", dir.display());
        Wait::new(format!("{victim} to vote again"), TIMEOUT).until(|| {
            let view = scene.cluster.node(&victim)?.view()?;
            Ok(view.electorate.iter().any(|seat| seat.disk_id == view.disk_id).then_some(()))
        })?;
        scene.write_for(BEAT);
    }
    Ok(format!("{}, damaged: {damaged:?}", summary(&scene.end()?)))
}

/// Turns over bits all through the files of a folder whose name begins so.
fn flip(dir: &std::path::Path, prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(prefix) || name.contains(".bad") {
            continue;
        }
        let mut bytes = fs::read(entry.path())?;
        bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x40);
        fs::write(entry.path(), bytes)?;
        found.push(name);
    }
    ensure!(!found.is_empty(), "no {prefix} in {}", dir.display());
    Ok(found)
}
