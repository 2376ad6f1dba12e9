//! Drawing a plan from a seed.

use ais_meta::MemberAction;

use crate::admin::Ask;
use crate::fault::{Fault, Moment, Strike, Who};
use crate::plan::{Class, Plan, founders};
use crate::rng::Rng;
use crate::world::{Micros, ms};

/// Faults are drawn up to here: a run whose founding was held up goes on for longer.
const DRAWN_UNTIL: Micros = ms(300_000);

impl Plan {
    /// What the seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let class = match rng.index(100) {
            0..68 => Class::Chaos,
            68..78 => Class::Benign,
            78..82 => Class::Recovery,
            _ => Class::Electorate,
        };
        let shapes: &[(usize, usize)] = match class {
            Class::Benign => &[(3, 3), (3, 0), (2, 1), (5, 3), (3, 1)],
            Class::Electorate => &[(3, 3), (3, 0), (2, 1), (2, 3), (5, 3), (5, 0), (4, 1), (3, 2)],
            _ => &[(3, 3), (3, 3), (3, 0), (2, 1), (2, 1), (5, 3), (1, 0), (1, 2), (4, 1), (2, 3)],
        };
        let (gateways, targets) = shapes[rng.index(shapes.len())];
        let voters = if rng.chance(700) { 5 } else { 3 };
        let initial = founders(gateways, voters);
        // A benign world has its electorate complete before anything happens: two voters cannot miss one.
        let late = rng.chance(400) && class != Class::Benign;
        let start = |at: usize, rng: &mut Rng| match () {
            () if at >= initial && late && rng.chance(500) => rng.between(ms(2000), ms(40_000)),
            () => rng.between(0, ms(1500)),
        };
        let starts = (0..gateways + targets).map(|at| start(at, &mut rng)).collect();
        let latency_us = [(100, 500), (100, 2000), (500, 5000), (1000, 40_000)][rng.index(4)];
        let sync_us = [(200, 2000), (500, 10_000), (1000, 40_000), (5000, 120_000)][rng.index(4)];
        let mut plan = Self {
            seed,
            class,
            gateways,
            targets,
            voters,
            initial: (0..initial).collect(),
            starts,
            drift_ppm: if rng.chance(300) { 30_000 } else { 5000 },
            latency_us,
            spikes: rng.chance(300),
            loss: if rng.chance(400) { rng.between(1, 40) } else { 0 },
            duplicates: if rng.chance(400) { rng.between(1, 40) } else { 0 },
            sync_us,
            bytes: rng.chance(125),
            uuid_given: rng.chance(500),
            primary_ep: rng.chance(300).then(|| rng.index(initial)),
            whole_book: rng.chance(700),
            non_electable: (gateways > initial && rng.chance(300)).then_some(gateways - 1),
            evict_voter_ms: if rng.chance(300) { 10_000 } else { 60_000 },
            leases_ms: Vec::new(),
            clients: 4,
            pause_us: ms(rng.between(500, 2500)),
            restart_stopped: true,
            wall_steps: rng.chance(300),
            heal_us: None,
            faults: Vec::new(),
        };
        // Drawn apart: what other seeds mean stays.
        let mut apart = Rng::new(!seed);
        if apart.chance(250) {
            plan.leases_ms = (0..gateways + targets).map(|_| [2000, 2000, 3000, 4500][apart.index(4)]).collect();
        }
        match class {
            Class::Benign => plan.draw_benign(&mut rng),
            Class::Electorate => plan.draw_electorate(&mut rng),
            Class::Recovery => plan.draw_recovery(&mut rng),
            _ => plan.draw_chaos(&mut rng),
        }
        plan
    }

    fn draw_chaos(&mut self, rng: &mut Rng) {
        let mean = ms(rng.between(1200, 5000));
        let mut at = if rng.chance(300) { ms(100) } else { ms(3000) };
        if at < ms(1000) && rng.chance(500) {
            self.faults.push(Fault { at_us: 0, strike: Strike::Recreate { back_us: rng.between(ms(5), ms(2000)) } });
        }
        while at < DRAWN_UNTIL {
            self.faults.push(Fault { at_us: at, strike: self.any(rng) });
            at += rng.between(mean / 4, mean * 7 / 4);
        }
    }

    /// One member besides the primary at a time, and each is over before the next begins.
    fn draw_benign(&mut self, rng: &mut Rng) {
        (self.latency_us, self.spikes, self.loss, self.duplicates) = ((500, 5000), false, 0, 0);
        (self.sync_us, self.drift_ppm) = ((500, 10_000), 5000);
        let mut at = ms(12_000);
        while at < DRAWN_UNTIL {
            let lasts_us = rng.between(ms(100), ms(3500));
            let who = Who::Other(rng.index(8));
            let strike = match rng.index(9) {
                0 => Strike::Kill { who, back_us: lasts_us },
                1 => Strike::Stop { who },
                2 => Strike::Pause { who, lasts_us },
                3 => Strike::Cut { from: who, to: Who::Primary(0), both: rng.chance(500), lasts_us },
                4 => Strike::Cut { from: who, to: Who::Other(rng.index(8)), both: rng.chance(500), lasts_us },
                5 => Strike::Isolate { who, deaf: rng.chance(300), mute: rng.chance(300), lasts_us },
                6 => Strike::Starve { who, step_us: ms(rng.between(5, 100)), lasts_us },
                7 => Strike::SlowDisk { who, high_us: ms(rng.between(50, 1000)), lasts_us },
                _ => Strike::Kill { who, back_us: rng.between(ms(1), ms(20)) },
            };
            self.faults.push(Fault { at_us: at, strike });
            at += lasts_us + rng.between(ms(4000), ms(6000));
        }
    }

    /// Voters that stay away longer than it takes to replace them, and disks that are lost.
    fn draw_electorate(&mut self, rng: &mut Rng) {
        self.evict_voter_ms = rng.between(3000, 8000);
        let mut at = ms(3000);
        while at < DRAWN_UNTIL {
            let who = victim(rng);
            let long = rng.between(ms(4000), ms(20_000));
            let back_us = rng.skewed(ms(5), ms(4000));
            let strike = match rng.index(10) {
                0 => Strike::Kill { who, back_us: long },
                1 => Strike::Leave { who, back_us: long },
                2 => Strike::Pause { who, lasts_us: long },
                3 => Strike::Isolate { who, deaf: false, mute: false, lasts_us: long },
                4 => Strike::Wipe { who, back_us: if rng.chance(500) { long } else { back_us } },
                5 => Strike::WipeTwo { a: who, b: victim(rng), back_us },
                6 => Strike::HungDisk { who, lasts_us: long },
                _ => self.any(rng),
            };
            self.faults.push(Fault { at_us: at, strike });
            at += rng.between(ms(800), ms(5000));
        }
    }

    /// Trouble, then a majority is gone, then more trouble.
    fn draw_recovery(&mut self, rng: &mut Rng) {
        let lost = rng.between(ms(15_000), ms(22_000));
        for (from, until, pause) in [(ms(4000), lost, ms(3000)), (lost + ms(14_000), DRAWN_UNTIL, ms(3000))] {
            let mut at = from;
            while at < until {
                self.faults.push(Fault { at_us: at, strike: self.any(rng) });
                at += rng.between(pause / 2, pause * 3 / 2);
            }
            // Whatever the last ones cut is mended by then.
            let strike = Strike::LoseMajority { order: rng.bits(), admin_us: rng.between(ms(1500), ms(6000)) };
            self.faults.push(Fault { at_us: at, strike });
        }
    }

    fn any(&self, rng: &mut Rng) -> Strike {
        let who = victim(rng);
        let lasts_us = rng.skewed(ms(50), ms(9000));
        let back_us = lasts_us;
        let node = |rng: &mut Rng| Who::Node(rng.index(self.nodes()));
        match rng.index(42) {
            0 => Strike::Kill { who, back_us: lasts_us.max(ms(50)) },
            1 => Strike::Kill { who, back_us: rng.between(ms(1), ms(20)) },
            2 | 3 => Strike::Stop { who },
            4 => Strike::Leave { who, back_us: rng.between(ms(3000), ms(15_000)) },
            5 | 6 => Strike::Pause { who, lasts_us },
            7 => Strike::Cut { from: who, to: node(rng), both: false, lasts_us },
            8 => Strike::Cut { from: who, to: node(rng), both: true, lasts_us },
            9 => Strike::Isolate { who, deaf: false, mute: false, lasts_us },
            10 => {
                let deaf = rng.chance(500);
                Strike::Isolate { who, deaf, mute: !deaf, lasts_us }
            }
            11 => Strike::Split { side: rng.bits() & ((1 << self.nodes()) - 1), lasts_us },
            12 => Strike::Reset { a: who, b: node(rng) },
            13 => Strike::Sever { who, lasts_us },
            14 => Strike::LateAnswers {
                who,
                held_us: ms(rng.between(300, 1700)),
                after_us: ms(rng.between(1, 300)),
                silent_us: ms(rng.between(2500, 5000)),
            },
            15 => Strike::SlowDisk { who, high_us: ms(rng.between(50, 3000)), lasts_us },
            16 => Strike::HungDisk { who, lasts_us },
            17 => Strike::FullDisk { who, lasts_us },
            18 | 19 => Strike::Wipe { who, back_us: rng.skewed(ms(5), ms(4000)) },
            20 => Strike::HandOver { via: rng.index(self.gateways), to: rng.index(self.gateways), deaf_us: 0 },
            21 => {
                let deaf_us = if rng.chance(600) { ms(rng.between(500, 3000)) } else { 0 };
                Strike::HandOver { via: rng.index(self.gateways), to: rng.index(self.gateways), deaf_us }
            }
            22 => Strike::HandOvers { times: 5, gap_us: ms(rng.between(50, 800)) },
            23 => Strike::KillAt { moment: Moment::Commit, back_us },
            24 => Strike::KillAt { moment: Moment::Answer, back_us },
            25 => Strike::KillAt { moment: Moment::Accept, back_us },
            26 => Strike::KillAt { moment: Moment::Promise, back_us },
            27 => Strike::KillAt { moment: Moment::Resign, back_us },
            28 => Strike::StopTheWorld { lasts_us },
            29 => Strike::Starve { who, step_us: ms(rng.between(2, 300)), lasts_us },
            30 => Strike::Storm {
                side: rng.bits() & ((1 << self.nodes()) - 1),
                times: 4,
                gap_us: ms(rng.between(20, 1500)),
            },
            31 => Strike::JoinInElection { who: Who::Other(rng.index(16)), back_us },
            32 => Strike::Move { who, back_us: rng.skewed(ms(5), ms(4000)) },
            33 => {
                Strike::AllDown { orderly: rng.chance(500), down_us: rng.skewed(ms(10), ms(4000)), order: rng.bits() }
            }
            34 => Strike::Torn { who, back_us: rng.skewed(ms(5), ms(4000)) },
            35 => Strike::DeadDisk { who, back_us: rng.between(ms(5000), ms(25_000)) },
            36 => Strike::Ask { via: rng.index(self.gateways), what: Ask::Config(rng.bits() % 1_000_000) },
            37 => Strike::Ask { via: rng.index(self.gateways), what: Ask::Revoke(rng.bits()) },
            38 | 39 => {
                let actions = [
                    MemberAction::StartMaintenance,
                    MemberAction::StartMaintenance,
                    MemberAction::StopMaintenance,
                    MemberAction::Shutdown,
                    MemberAction::Decommission,
                    MemberAction::RemoveUnsafe,
                ];
                let what = Ask::Member(actions[rng.index(6)], rng.index(16));
                Strike::Ask { via: rng.index(self.gateways), what }
            }
            40 => Strike::Restore { who, after_us: rng.between(ms(300), ms(4000)) },
            _ => Strike::WipeTwo { a: who, b: node(rng), back_us: rng.skewed(ms(5), ms(4000)) },
        }
    }
}

fn victim(rng: &mut Rng) -> Who {
    let node = rng.index(16);
    if rng.chance(450) { Who::Primary(node) } else { Who::Node(node) }
}
