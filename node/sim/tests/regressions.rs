//! Seeds that found defects of the core, kept. (A seed stands for the world it draws, not for the exact history: a
//! change of the core changes what happens in it.)

/// Seed, what it found.
const FOUND: [(u64, &str); 13] = [
    (0, "replay: an adopted State that was fetched was written as a change to a State that the disk did not hold"),
    (3, "replay: the same over several missed States"),
    (7, "a sole initial voter whose disk was wiped founds again (the design's; worlds no longer do that to it)"),
    (36, "L2: a follower's second ended connection made the primary think it unreachable for ever"),
    (178, "L1: founding waited for ever for a hello that was lost"),
    (204, "L2: a candidate that promised the winner's epoch to itself never followed in it"),
    (297, "L1: an initial voter that missed the word 'formed' was never told again"),
    (612, "L2: a learner that was evicted while it was cut off believed its old Smap and never asked to join"),
    (617, "L2: heartbeats for a seat without its disk reached the node that came back, which felt a member"),
    (886, "L2: the same, at a primary that never met the old disk"),
    (5510, "L1: a bound voter could be told only by the founder that the cluster is formed, whose disk was lost"),
    (7137, "I9: a primary that had begun to stop counted as dead when its connection was reset"),
    (1372, "I10: a join acknowledged ids that were given out but not yet proposed, which were then refused as stale"),
];

#[test]
fn seeds_that_found_defects_stay_clean() {
    for (seed, what) in FOUND {
        let report = ais_sim::run_seed(seed, false);
        assert!(report.violation.is_none(), "seed {seed} ({what}): {:?}", report.violation);
    }
}
