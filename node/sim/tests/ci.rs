//! A small range for every `cargo test`; `ais-sim run` does the large one.

use ais_sim::{Totals, latency, run_seed};

#[test]
fn two_hundred_seeds_hold_every_invariant() {
    let mut totals = Totals::default();
    for seed in 20_000..20_200 {
        let report = run_seed(seed, false);
        assert!(report.violation.is_none(), "ais-sim run --seed {seed} --trace: {:?}", report.violation);
        totals.add(&report);
    }
    assert_eq!(totals.missing(), Vec::<String>::new());
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 17, 99] {
        let (first, second) = (run_seed(seed, false), run_seed(seed, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.counts.events, second.counts.events, "seed {seed}");
    }
}

#[test]
fn a_healthy_primary_is_not_deposed() {
    for seed in 0..20 {
        if let Err(violation) = latency::undisturbed(seed) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn fail_overs_are_fast_in_a_healthy_world() {
    for drill in latency::DRILLS {
        let times = latency::measure(drill, 10).unwrap_or_else(|v| panic!("{}: {v}", drill.name));
        assert!(times.at(50) <= drill.bound_ms, "{}: {} ms", drill.name, times.at(50));
    }
}
