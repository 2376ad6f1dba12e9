//! How long fail-overs take in a healthy world, as the protocol promises (section 8).

use ais_ha::Input;
use ais_ha::invariant::{Violation, violated};

use crate::plan::Plan;
use crate::world::{World, ms};

/// One kind of fail-over.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Shown.
    pub name: &'static str,
    gateways: usize,
    targets: usize,
    kind: Kind,
    /// The median may be this much.
    pub bound_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Stop,
    Planned,
    BlackHole,
    Pause,
}

/// All of them.
pub const DRILLS: [Drill; 7] = [
    Drill { name: "kill -9, 3+3", gateways: 3, targets: 3, kind: Kind::Kill, bound_ms: 100 },
    Drill { name: "kill -9, 2+1", gateways: 2, targets: 1, kind: Kind::Kill, bound_ms: 100 },
    Drill { name: "kill -9, 5+3", gateways: 5, targets: 3, kind: Kind::Kill, bound_ms: 100 },
    Drill { name: "SIGTERM, 3+3", gateways: 3, targets: 3, kind: Kind::Stop, bound_ms: 60 },
    Drill { name: "planned hand-over, 3+3", gateways: 3, targets: 3, kind: Kind::Planned, bound_ms: 60 },
    Drill { name: "black hole, 3+3", gateways: 3, targets: 3, kind: Kind::BlackHole, bound_ms: 2600 },
    Drill { name: "SIGSTOP, 3+3", gateways: 3, targets: 3, kind: Kind::Pause, bound_ms: 2600 },
];

/// Sorted milliseconds.
pub struct Times(Vec<u64>);

impl Times {
    /// The value that `per_cent` of them do not exceed.
    #[must_use]
    pub fn at(&self, per_cent: usize) -> u64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * per_cent / 100).min(last)).copied().unwrap_or(0)
    }
}

/// Time from the fault to a mutation, asked for again and again at a surviving gateway, committed in a higher epoch.
///
/// # Errors
/// An invariant, or no fail-over within 20 s.
pub fn measure(drill: Drill, runs: u64) -> Result<Times, Violation> {
    let mut times = (0..runs).map(|seed| once(drill, seed)).collect::<Result<Vec<u64>, _>>()?;
    times.sort_unstable();
    Ok(Times(times))
}

fn once(drill: Drill, seed: u64) -> Result<u64, Violation> {
    let mut world = World::new(Plan::healthy(seed, drill.gateways, drill.targets), false);
    let settled = ms(4000) + world.rng.between(0, ms(600));
    world.run_until(settled)?;
    let Some(primary) = world.primary() else { return violated("L1", "nobody leads after 4 s") };
    let epoch = world.record.newest().epoch;
    let other = (primary + 1) % drill.gateways;
    match drill.kind {
        Kind::Kill => world.end_process(primary),
        Kind::Stop => world.stop(primary),
        Kind::Planned => {
            let to = world.hosts[other].id.clone();
            world.input(other, Input::Transfer { nonce: 1, to, expected_primary: None, expected_epoch: None });
        }
        Kind::BlackHole => {
            for node in (0..world.hosts.len()).filter(|n| *n != primary) {
                world.cut(primary, node);
                world.cut(node, primary);
            }
        }
        Kind::Pause => {
            world.pause(primary, ms(60_000));
        }
    }
    let start = world.now;
    let wanted = world.probe(other);
    while world.now < start + ms(20_000) {
        world.run_until(world.now + 1000)?;
        let served = world.served(other).filter(|s| s.stamp().epoch > epoch);
        if served.is_some_and(|s| wanted.as_ref().is_some_and(|name| s.buckets().contains_key(name))) {
            return Ok((world.now - start) / 1000);
        }
        if world.served_stamp(other).epoch == epoch
            && world.served(other).is_some_and(|s| wanted.as_ref().is_some_and(|name| s.buckets().contains_key(name)))
        {
            // The old primary was quick enough to commit it: wait for the next one to lead.
            let next = world.probe(other);
            return wait_for(&mut world, other, next, epoch, start);
        }
    }
    violated("L1", format!("{} of seed {seed}: no fail-over within 20 s", drill.name))
}

fn wait_for(
    world: &mut World,
    gateway: usize,
    mut wanted: Option<ais_meta::BucketName>,
    epoch: u64,
    start: u64,
) -> Result<u64, Violation> {
    while world.now < start + ms(20_000) {
        world.run_until(world.now + 1000)?;
        let Some(state) = world.served(gateway).cloned() else { continue };
        if wanted.as_ref().is_some_and(|name| state.buckets().contains_key(name)) {
            if state.stamp().epoch > epoch {
                return Ok((world.now - start) / 1000);
            }
            wanted = world.probe(gateway);
        }
    }
    violated("L1", "no fail-over within 20 s")
}
