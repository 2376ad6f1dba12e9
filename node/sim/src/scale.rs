//! Many members: how long a committed change takes to be published everywhere, and what it costs the primary.
//!
//! Latencies, syncs and the primary's uplink are modelled; the processor is not.

use ais_ha::Packet;
use ais_ha::invariant::{Violation, violated};

use crate::plan::Plan;
use crate::world::{Micros, World, ms};

/// One way between two members, microseconds: machines of one data centre.
const LATENCY_US: (Micros, Micros) = (200, 500);
/// One sync of a disk, microseconds: an NVMe disk with some neighbours.
const SYNC_US: (Micros, Micros) = (1000, 4000);
/// What every member can send.
pub const UPLINK_MBIT: u64 = 10_000;
/// A frame's length, Noise's tag, and the packet's headers below TCP (one segment).
const FRAME_BYTES: u64 = 4 + 16 + 66;
/// Gateways, all of them voters.
const GATEWAYS: usize = 5;
/// Changes measured.
const ROUNDS: usize = 20;
/// Mutations in flight while buckets are made.
const BATCH: usize = 500;

/// What members send, as bytes on the wire: one uplink each, first in, first out.
pub(crate) struct Uplinks {
    free_us: Vec<Micros>,
    pub(crate) sent_bytes: Vec<u64>,
}

impl Uplinks {
    fn new(members: usize) -> Self {
        Self { free_us: vec![0; members], sent_bytes: vec![0; members] }
    }

    /// How long until the last byte of the packet is out.
    pub(crate) fn send(&mut self, from: usize, now: Micros, packet: &Packet) -> Micros {
        let bytes = rmp_serde::to_vec_named(packet).map_or(0, |b| b.len() as u64) + FRAME_BYTES;
        self.sent_bytes[from] += bytes;
        let start = self.free_us[from].max(now);
        self.free_us[from] = start + (bytes * 8).div_ceil(UPLINK_MBIT);
        self.free_us[from] - now
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Members, gateways included.
    pub members: usize,
    /// Buckets in the State.
    pub buckets: usize,
    /// The whole State, bytes.
    pub state_bytes: usize,
    /// From asking to commit, microseconds, median.
    pub commit_us: Micros,
    /// From commit to publication at the last member, microseconds, median and worst.
    pub everywhere_us: (Micros, Micros),
    /// The primary's bytes for one change, until it is published everywhere, median.
    pub change_bytes: u64,
    /// The primary's bytes per second when nothing changes.
    pub idle_bytes_per_s: u64,
}

/// Founds a cluster of so many members, makes so many buckets, and measures.
///
/// # Errors
/// Any invariant; L2 when something takes longer than a minute.
pub fn measure(members: usize, buckets: usize, seed: u64) -> Result<Measured, Violation> {
    let gateways = GATEWAYS.min(members);
    let mut plan = Plan::healthy(seed, gateways, members - gateways);
    (plan.latency_us, plan.sync_us, plan.whole_book) = (LATENCY_US, SYNC_US, false);
    let mut world = World::new(plan, false);
    world.events_max = u64::MAX;
    until(&mut world, ms(50), World::is_whole)?;
    for _ in 0..buckets.div_ceil(BATCH) {
        let made = world.counts_buckets() + BATCH.min(buckets);
        for n in 0..BATCH.min(buckets) {
            world.probe(n % gateways);
        }
        until(&mut world, ms(5), |w| w.counts_buckets() >= made)?;
    }
    until(&mut world, ms(5), World::is_whole)?;
    world.uplinks = Some(Uplinks::new(members));
    let from = world.now;
    world.run_until(from + ms(3000))?;
    let Some(primary) = world.primary() else { return violated("L1", "nobody leads") };
    let idle_bytes_per_s = world.sent(primary) / 3;
    let (mut commit, mut everywhere, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Not in step with the heartbeats.
        let pause = ms(700) + world.rng.between(0, ms(300));
        world.run_until(world.now + pause)?;
        let (before, asked, sent) = (world.served_stamp(primary), world.now, world.sent(primary));
        world.probe((primary + 1 + round) % gateways);
        until(&mut world, 50, |w| w.served_stamp(primary) > before)?;
        let (stamp, committed) = (world.served_stamp(primary), world.now);
        until(&mut world, 50, |w| (0..members).all(|node| w.served_stamp(node) >= stamp))?;
        commit.push(committed - asked);
        everywhere.push(world.now - committed);
        bytes.push(world.sent(primary) - sent);
    }
    for all in [&mut commit, &mut everywhere, &mut bytes] {
        all.sort_unstable();
    }
    let state_bytes = world.served(primary).map_or(0, |s| s.bytes());
    Ok(Measured {
        members,
        buckets: world.counts_buckets(),
        state_bytes,
        commit_us: commit[ROUNDS / 2],
        everywhere_us: (everywhere[ROUNDS / 2], everywhere[ROUNDS - 1]),
        change_bytes: bytes[ROUNDS / 2],
        idle_bytes_per_s,
    })
}

fn until(world: &mut World, step_us: Micros, reached: impl Fn(&World) -> bool) -> Result<(), Violation> {
    let end = world.now + ms(60_000);
    while world.now < end {
        if reached(world) {
            return Ok(());
        }
        world.run_until(world.now + step_us)?;
    }
    violated("L2", "not within a minute")
}

impl World {
    /// All are members, and serve the same.
    fn is_whole(&self) -> bool {
        let newest = self.record.newest();
        let all = self.hosts.len();
        self.primary().and_then(|p| self.served(p)).is_some_and(|s| s.nodes().len() == all)
            && (0..all).all(|node| self.served_stamp(node) == newest)
            && self.served(0).is_some_and(|s| s.electorate().len() == GATEWAYS.min(all))
    }

    fn counts_buckets(&self) -> usize {
        self.primary().and_then(|p| self.served(p)).map_or(0, |s| s.buckets().len())
    }

    fn sent(&self, node: usize) -> u64 {
        self.uplinks.as_ref().map_or(0, |u| u.sent_bytes[node])
    }
}
