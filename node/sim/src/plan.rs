//! What one seed stands for.

use ais_meta::Kind;

use crate::rng::Rng;
use crate::world::{Micros, ms};

/// Virtual time of the faults.
pub const FAULTS_END: Micros = ms(47_000);

/// A world in advance.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Gateways.
    pub gateways: usize,
    /// Targets.
    pub targets: usize,
    /// Largest electorate.
    pub voters: usize,
    /// Gateways that found together.
    pub initial: Vec<usize>,
    /// When each node first comes up.
    pub starts: Vec<Micros>,
    /// Clocks run this much too fast or too slow, at most.
    pub drift_ppm: u64,
    /// One way.
    pub latency_us: (Micros, Micros),
    /// Some packets take much longer.
    pub spikes: bool,
    /// Packets lost, per mille.
    pub loss: u64,
    /// Packets that arrive twice, per mille.
    pub duplicates: u64,
    /// One sync of a disk.
    pub sync_us: (Micros, Micros),
    /// Disks replay from bytes.
    pub bytes: bool,
    /// `AIS_CLUSTER_UUID` is set.
    pub uuid_given: bool,
    /// Whom `AIS_PRIMARY_EP` names.
    pub primary_ep: Option<usize>,
    /// Every node is configured with the addresses of all.
    pub whole_book: bool,
    /// This gateway never leads.
    pub non_electable: Option<usize>,
    /// Clients.
    pub clients: usize,
    /// Mean pause between a client's calls.
    pub pause_us: Micros,
    /// Mean pause between faults.
    pub fault_us: Micros,
    /// Who was stopped in order is started again.
    pub restart_stopped: bool,
    /// Faults may come while the cluster is being founded.
    pub early_faults: bool,
    /// Silence after which a voter is replaced: short in some worlds, so that it happens.
    pub evict_voter_ms: u64,
}

impl Plan {
    /// The world of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let shapes = [(3, 3), (3, 3), (3, 0), (2, 1), (2, 1), (5, 3), (1, 0), (1, 2), (4, 1), (2, 3)];
        let (gateways, targets) = shapes[rng.index(shapes.len())];
        let voters = if rng.chance(700) { 5 } else { 3 };
        let founders = founders(gateways, voters);
        let late = rng.chance(400);
        let start = |at: usize, rng: &mut Rng| match () {
            () if at >= founders && late && rng.chance(500) => rng.between(ms(2000), ms(40_000)),
            () => rng.between(0, ms(1500)),
        };
        let starts = (0..gateways + targets).map(|at| start(at, &mut rng)).collect();
        let latency_us = [(100, 500), (100, 2000), (500, 5000), (1000, 40_000)][rng.index(4)];
        let sync_us = [(200, 2000), (500, 10_000), (1000, 40_000), (5000, 120_000)][rng.index(4)];
        Self {
            seed,
            gateways,
            targets,
            voters,
            initial: (0..founders).collect(),
            starts,
            drift_ppm: if rng.chance(300) { 30_000 } else { 5000 },
            latency_us,
            spikes: rng.chance(300),
            loss: if rng.chance(400) { rng.between(1, 40) } else { 0 },
            duplicates: if rng.chance(400) { rng.between(1, 40) } else { 0 },
            sync_us,
            bytes: rng.chance(125),
            uuid_given: rng.chance(500),
            primary_ep: rng.chance(300).then(|| rng.index(founders)),
            whole_book: rng.chance(700),
            non_electable: (gateways > founders && rng.chance(300)).then_some(gateways - 1),
            clients: 4,
            pause_us: ms(rng.between(300, 900)),
            fault_us: ms(rng.between(1200, 5000)),
            restart_stopped: true,
            early_faults: rng.chance(300),
            evict_voter_ms: [60_000, 15_000, 4000][rng.index(3)],
        }
    }

    /// A healthy world: 1 ms one way, 2 ms a sync, no faults but those that a scenario makes.
    #[must_use]
    pub fn healthy(seed: u64, gateways: usize, targets: usize) -> Self {
        let founders = founders(gateways, 5);
        Self {
            gateways,
            targets,
            voters: 5,
            initial: (0..founders).collect(),
            starts: vec![0; gateways + targets],
            drift_ppm: 100,
            latency_us: (1000, 1000),
            spikes: false,
            loss: 0,
            duplicates: 0,
            sync_us: (2000, 2000),
            bytes: false,
            uuid_given: true,
            primary_ep: None,
            whole_book: true,
            non_electable: None,
            clients: 0,
            restart_stopped: false,
            evict_voter_ms: 60_000,
            ..Self::of(seed)
        }
    }

    /// Kind and name of a node.
    #[must_use]
    pub fn name(&self, at: usize) -> (Kind, String) {
        if at < self.gateways {
            (Kind::Gateway, format!("g{}", at + 1))
        } else {
            (Kind::Target, format!("t{}", at + 1 - self.gateways))
        }
    }
}

/// How many gateways found together: the largest odd number there is room for; two stay two.
fn founders(gateways: usize, voters: usize) -> usize {
    match gateways.min(voters) {
        2 => 2,
        most => most.div_ceil(2) * 2 - 1,
    }
}
