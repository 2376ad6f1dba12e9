//! Plans that found defects of the core, kept as data: they mean the same whatever becomes of the drawing of plans. What
//! chance decides in them (latencies, syncs, clients) is drawn several ways, because a change of the core shifts it.

use std::path::Path;

use ais_sim::{Plan, run_plan};

/// Plan, what it found.
const FOUND: &[(&str, &str)] = &[
    (
        "adopted-written-as-change",
        "replay: an adopted State that was fetched was written as a change to a State that the disk did not hold",
    ),
    ("several-missed-states", "replay: the same over several missed States"),
    ("sole-voter-wiped", "a sole initial voter whose disk was wiped founds again (no plan may do that to it)"),
    (
        "second-ended-connection",
        "L2: a follower's second ended connection: the primary thought it unreachable for ever",
    ),
    ("founding-hello-lost", "L1: founding waited for ever for a hello that was lost"),
    ("promised-winners-epoch", "L2: a candidate that promised the winner's epoch to itself never followed in it"),
    ("missed-formed", "L1: an initial voter that missed the word 'formed' was never told again"),
    ("evicted-learner", "L2: a learner evicted while it was cut off believed its old Smap and never asked to join"),
    ("heartbeats-for-old-seat", "L2: heartbeats for a seat without its disk reached the node that came back"),
    ("old-seat-never-met", "L2: the same, at a primary that never met the old disk"),
    ("told-by-founder-only", "L1: a bound voter could be told only by the founder, whose disk was lost"),
    ("stopping-counted-as-dead", "I9: a primary that had begun to stop counted as dead when its connection was reset"),
    ("join-acknowledges-given-ids", "I10: a join acknowledged ids that were given out but not yet proposed"),
    (
        "evicted-candidate",
        "L2: an electable learner that stood when it was evicted went on standing, and never asked to join",
    ),
    (
        "redirected-joiner",
        "L2: a joiner that was told who leads asked somebody else next, and waited five seconds for it",
    ),
    (
        "every-initial-voter-wiped",
        "I4: both initial voters wiped and cut off from the rest found again, unless told that the cluster is formed",
    ),
    ("answered-again-later", "I10, a false alarm: a retry is answered with the stamp of then, not of its commit"),
    (
        "acknowledged-then-restored",
        "I8, a false alarm: a disk acknowledged a State and came back as it was before another completed the majority",
    ),
    (
        "restored-beside-maintenance",
        "L1, a false alarm: a snapshot left no voter that may lead, and whoever stands without a seat waits for that",
    ),
    (
        "asks-who-waits-itself",
        "L2: after a restart of everything a joiner that met the new primary asked one that was waiting itself, and waited",
    ),
    (
        "told-before-it-was-connected",
        "I3: a restored disk was told what it forgot before the link to it was up, and never again",
    ),
    (
        "restored-primary",
        "I3: the volume of a primary was restored: what it acknowledged to itself nobody had been told",
    ),
    (
        "voters-of-a-newer-state",
        "L1: a candidate asked the voters that it knew, of whom a majority was gone, while others decided since",
    ),
    ("given-a-seat-unknowingly", "L1: the same, at one that was given a seat and not told"),
    (
        "torn-while-it-gets-a-seat",
        "L1, a false alarm: States of the first epoch were recorded only once they were durable",
    ),
    ("leaves-when-all-heals", "L2, a false alarm: who is about to stop when everything heals is away a little longer"),
    (
        "lost-while-another-leaves",
        "L1, a false alarm: two of five wiped while a third is told to go is more than a majority survives",
    ),
];

/// Each plan is run under so many seeds.
const WAYS: u64 = 6;

fn read(name: &str) -> Plan {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/{name}.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[test]
fn plans_that_found_defects_stay_clean() {
    for (name, what) in FOUND {
        let plan = read(name);
        for way in 0..WAYS {
            let report = run_plan(Plan { seed: plan.seed + way * 1_000_003, ..plan.clone() }, false);
            assert!(report.violation.is_none(), "{name}, way {way} ({what}): {:?}", report.violation);
        }
    }
}

#[test]
fn every_stored_plan_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    for file in std::fs::read_dir(folder).expect("the plans are there") {
        let path = file.expect("a file").path();
        let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        assert!(FOUND.iter().any(|(known, _)| *known == name), "{name} is not listed");
    }
}
