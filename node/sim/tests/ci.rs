//! A small range for every `cargo test`; `ais-sim run` does the large one.

use ais_sim::world::ms;
use ais_sim::{Plan, Totals, latency, run_plan, run_seed, shrink};

#[test]
fn two_hundred_seeds_hold_every_invariant() {
    let mut totals = Totals::default();
    for seed in 20_000..20_200 {
        let report = run_seed(seed, false);
        assert!(report.violation.is_none(), "ais-sim run --seed {seed} --shrink: {:?}", report.violation);
        totals.add(&report);
    }
    assert_eq!(totals.missing(), Vec::<String>::new());
}

/// The same plans without what a floor stands for: every such floor is missed.
#[test]
fn floors_notice_faults_that_are_gone() {
    let mut totals = Totals::default();
    for seed in 0..20 {
        let (faults, heal_us) = (Vec::new(), Some(ms(15_000)));
        let plan = Plan { loss: 0, duplicates: 0, drift_ppm: 0, faults, heal_us, ..Plan::of(seed) };
        totals.add(&run_plan(plan, false));
    }
    let missing = totals.missing();
    let gone = ["packet lost", "packet arrives twice", "un-synced records lost", "clock drifted", "kill", "pause"];
    for what in gone {
        let named = missing.iter().find(|m| m.starts_with(what));
        assert!(named.is_some_and(|m| m.contains(": 0 of ")), "{what} is not missed: {missing:?}");
    }
}

#[test]
fn one_plan_is_one_history() {
    for seed in [1, 17, 99] {
        let text = serde_json::to_string(&Plan::of(seed)).expect("a plan is data");
        let read: Plan = serde_json::from_str(&text).expect("a plan is data");
        assert_eq!(read, Plan::of(seed));
        let (first, second) = (run_seed(seed, false), run_plan(read, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.counts.events, second.counts.events, "seed {seed}");
    }
}

/// Wall clocks may be years off and step at each start: nothing happens differently.
#[test]
fn wall_clocks_decide_nothing() {
    for seed in 0..30 {
        let run = |wall_steps| run_plan(Plan { wall_steps, ..Plan::of(seed) }, false);
        assert_eq!(run(false).hash, run(true).hash, "seed {seed}");
    }
}

#[test]
fn what_breaks_nothing_does_not_shrink() {
    assert!(shrink::shrink(&Plan::of(5)).is_none());
}

#[test]
fn fail_overs_are_fast_in_a_healthy_world() {
    for drill in latency::DRILLS {
        let times = latency::measure(drill, 10).unwrap_or_else(|v| panic!("{}: {v}", drill.name));
        assert!(times.at(50) <= drill.bound_ms, "{}: {} ms", drill.name, times.at(50));
    }
}
