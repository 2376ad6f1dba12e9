//! Cuts of the network: in both directions, in one, of one node, of halves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ais_tests::client;
use ais_tests::processes::{Kind, Spec};
use ais_tests::scene::{Scene, none_failed};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use super::{BEAT, SUSPECT};

/// A create that must not be committed is given up after this; the gateway parks it for longer.
const NO_COMMIT: Duration = Duration::from_secs(2);

fn begin(spec: Spec) -> Result<Scene> {
    let mut scene = Scene::begin(spec.in_namespaces())?;
    // Whoever is cut off may show its own old list for a while.
    scene.slow = scene.cluster.survivors("").into_iter().map(|(id, _)| id).collect();
    Ok(scene)
}

/// Loses the primary by a fault of the network; how long the others were without one.
fn lose(scene: &mut Scene, fault: impl FnOnce(&mut Scene, &str) -> Result<()>) -> Result<(String, String, Duration)> {
    let (victim, epoch) = scene.primary()?;
    // Calls on the way would be lost; those of unknown fate are another drill's.
    scene.pool.close(&victim)?;
    let begin = Instant::now();
    fault(scene, &victim)?;
    let others = scene.others(&[&victim]);
    let (next, _) = scene.led_among(&others, epoch)?;
    scene.commit_through(&next)?;
    Ok((victim, next, begin.elapsed()))
}

/// The old primary has lost its role without being told, and must know.
fn does_not_lead(scene: &Scene, id: &str) -> Result<()> {
    let view = scene.cluster.node(id)?.view()?;
    ensure!(!view.leads(), "{id} is cut off and still leads: {view:?}");
    let health = client::get_json(&scene.cluster.node(id)?.control, "/v1/health?readiness=true");
    ensure!(health.is_err(), "{id} is cut off and says that it is ready");
    Ok(())
}

/// H10, H11.
pub(super) fn black_hole_of_the_primary() -> Result<String> {
    let mut scene = begin(Spec::new(3, 3))?;
    let mut took = Vec::new();
    for _ in 0..2 {
        let (victim, next, t) = lose(&mut scene, |scene, id| scene.cluster.fabric()?.isolate(id))?;
        took.push(t);
        does_not_lead(&scene, &victim)?;
        scene.write_for(BEAT);
        scene.cluster.fabric()?.heal()?;
        let (still, _) = scene.primary()?;
        ensure!(still == next, "the return of {victim} moved the primary from {next} to {still}");
        scene.pool.open(&victim);
        scene.write_for(BEAT);
    }
    Ok(format!("{}, written again after {took:.0?}", none_failed(&scene.end()?)?))
}

/// Its own side sees the link go at once; nobody else does.
pub(super) fn cable_of_the_primary() -> Result<String> {
    let mut scene = begin(Spec::new(3, 1))?;
    let (victim, next, took) = lose(&mut scene, |scene, id| scene.cluster.fabric()?.link(id, false))?;
    scene.write_for(BEAT);
    scene.cluster.fabric()?.heal()?;
    let (still, _) = scene.primary()?;
    ensure!(still == next, "the return of {victim} moved the primary from {next} to {still}");
    scene.pool.open(&victim);
    scene.write_for(BEAT);
    Ok(format!("{}, written again after {took:.0?}", none_failed(&scene.end()?)?))
}

/// The primary hears nobody and is heard by all, then the other way round.
pub(super) fn one_way_cuts_of_the_primary() -> Result<String> {
    let mut scene = begin(Spec::new(3, 3))?;
    let mut took = Vec::new();
    for deaf in [true, false] {
        let (victim, _, t) = lose(&mut scene, |scene, id| {
            let others = scene.others(&[id]);
            scene.cluster.fabric()?.change(|cuts| {
                for other in &others {
                    let (from, to) = if deaf { (other.as_str(), id) } else { (id, other.as_str()) };
                    cuts.one_way(&from.into(), &to.into());
                }
            })
        })?;
        took.push(t);
        does_not_lead(&scene, &victim)?;
        scene.cluster.fabric()?.heal()?;
        scene.primary()?;
        scene.pool.open(&victim);
        scene.write_for(BEAT);
    }
    Ok(format!("{}, deaf and mute: written again after {took:.0?}", none_failed(&scene.end()?)?))
}

/// The primary and one other voter do not hear each other, in one direction or both. A majority is left either way:
/// the primary must stay (L4), and the cut-off one must not depose it.
pub(super) fn one_way_cuts_between_two() -> Result<String> {
    let mut scene = begin(Spec::new(3, 3))?;
    let (primary, epoch) = scene.primary()?;
    let gateway = scene.others(&[&primary]).into_iter().find(|id| id.starts_with('g')).context("no other gateway")?;
    for (from, to) in [(&primary, &gateway), (&gateway, &primary), (&primary, &"t1".to_owned())] {
        scene.cluster.fabric()?.change(|cuts| cuts.one_way(&from.into(), &to.into()))?;
        // Longer than `suspect` and a lease.
        scene.write_for(3 * SUSPECT);
        scene.commit_through(&primary)?;
        let view = scene.cluster.node(&primary)?.view()?;
        ensure!(view.leads() && view.epoch() == epoch, "{from} to {to} cut: {primary} lost its role: {view:?}");
        scene.cluster.fabric()?.heal()?;
        let now = scene.primary()?;
        ensure!(now == (primary.clone(), epoch), "{from} to {to} healed: {now:?} instead of {primary} in {epoch}");
    }
    none_failed(&scene.end()?)
}

/// Which nodes are on the primary's side: so many other gateways, voting targets, targets without a vote.
#[derive(Debug, Clone, Copy)]
struct Shape {
    gateways: usize,
    voters: usize,
    rest: usize,
}

impl Shape {
    /// A number of its own, for a setting: what a minority was asked for may be done once it is none any more.
    fn setting(self) -> usize {
        15 + 6 * self.gateways + 2 * self.voters + self.rest
    }
}

/// H12, H14 and all others: every way to split 3+3, told apart by what is beside the primary. 17 with two sides.
pub(super) fn splits_of_every_shape() -> Result<String> {
    let mut scene = begin(Spec::new(3, 3))?;
    let (mut moved, mut stayed) = (Vec::new(), 0);
    for gateways in 0..=2 {
        for voters in 0..=2 {
            for rest in 0..=1 {
                let shape = Shape { gateways, voters, rest };
                if gateways + voters + rest == 5 {
                    continue;
                }
                match split(&mut scene, shape).with_context(|| format!("{shape:?} beside the primary"))? {
                    Some(took) => moved.push(took),
                    None => stayed += 1,
                }
            }
        }
    }
    let slowest = moved.iter().max().copied().unwrap_or_default();
    let count = moved.len();
    ensure!((count, stayed) == (6, 11), "{count} splits moved the primary, {stayed} did not");
    Ok(format!("{}, {count} moved the primary, slowest {slowest:.0?}", none_failed(&scene.end()?)?))
}

/// One split and its healing; how long the majority was without a primary, if it had to find another one.
fn split(scene: &mut Scene, shape: Shape) -> Result<Option<Duration>> {
    let (primary, epoch) = scene.primary()?;
    let side = side_of(scene, &primary, shape)?;
    let other: Vec<String> = scene.others(&[]).into_iter().filter(|id| !side.contains(id)).collect();
    let begin = Instant::now();
    scene.cluster.fabric()?.split(&side)?;
    let stays = 1 + shape.gateways + shape.voters >= 3;
    let (majority, minority) = if stays { (&side, &other) } else { (&other, &side) };
    let took = if stays {
        // Longer than `suspect`: somebody on the other side has tried by then.
        scene.write_for(SUSPECT + BEAT);
        None
    } else {
        let (next, _) = scene.led_among(majority, epoch)?;
        scene.commit_through(&next)?;
        Some(begin.elapsed())
    };
    let gateway = |side: &[String]| side.iter().find(|id| id.starts_with('g')).cloned();
    let through = gateway(majority).context("a majority without a gateway")?;
    scene.commit_through(&through)?;
    let address = scene.cluster.node(&through)?.public.clone();
    let reply = client::set_config_within(&address, &json!({"mirror": {"copies": 2}}), client::SDK_TIMEOUT)?;
    ensure!(reply.is_success(), "{through} is in a majority: set-config {} {}", reply.status, reply.text());
    if let Some(through) = gateway(minority) {
        no_commit(scene, &through, shape.setting())?;
    }
    let (leader, now) = scene.led_among(majority, epoch - u64::from(stays))?;
    scene.cluster.fabric()?.heal()?;
    let healed = scene.primary()?;
    ensure!(healed == (leader.clone(), now), "healed: {healed:?} instead of {leader} in {now}");
    ensure!(stays == (healed.0 == primary && now == epoch), "the primary was {primary} in {epoch}, now {healed:?}");
    Ok(took)
}

fn side_of(scene: &mut Scene, primary: &str, shape: Shape) -> Result<Vec<String>> {
    let view = scene.cluster.node(primary)?.view()?;
    let seats: BTreeSet<String> = view.electorate.iter().map(|seat| seat.node_id.clone()).collect();
    ensure!(seats.len() == 5, "the electorate is {seats:?}");
    let (mut gateways, mut voters, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for node in &scene.cluster.nodes {
        match node.kind {
            Kind::Gateway if node.id == primary => {}
            Kind::Gateway => gateways.push(node.id.clone()),
            Kind::Target if seats.contains(&node.id) => voters.push(node.id.clone()),
            Kind::Target => rest.push(node.id.clone()),
        }
    }
    let mut side = vec![primary.to_owned()];
    for (from, count) in [(gateways, shape.gateways), (voters, shape.voters), (rest, shape.rest)] {
        ensure!(from.len() >= count, "only {from:?} for {shape:?}");
        side.extend(from.into_iter().take(count));
    }
    Ok(side)
}

/// A minority must not commit, a bucket as little as a setting, however it is asked: it refuses, or keeps the caller
/// waiting. Nor does it show such a setting.
fn no_commit(scene: &Scene, through: &str, copies: usize) -> Result<()> {
    let address = scene.cluster.node(through)?.public.clone();
    let (name, settings) = (scene.fresh_name(), json!({"mirror": {"copies": copies}}));
    let (bucket, setting) = std::thread::scope(|scope| {
        let bucket = scope.spawn(|| client::create_bucket_within(&address, &name, NO_COMMIT));
        let setting = client::set_config_within(&address, &settings, NO_COMMIT);
        (bucket.join(), setting)
    });
    let bucket = bucket.map_err(|_| anyhow!("the call for a bucket panicked"))?;
    for (what, answer) in [("a bucket", bucket), ("a setting", setting)] {
        match answer {
            Ok(reply) if reply.status != 503 => {
                bail!("{through} is in a minority and answered to {what} {}: {}", reply.status, reply.text())
            }
            _ => {}
        }
    }
    let config = client::get_json(&address, "/v1/cluster?what=cluster_config")?;
    ensure!(config["mirror"]["copies"] != copies, "{through} is in a minority and shows {}", config["mirror"]);
    Ok(())
}
