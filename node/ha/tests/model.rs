//! The models at the size of CI: complete and clean. `AIS_MODEL=large` goes further, without a limit of time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

mod models;

use std::time::Instant;

use models::{Found, founding, register, search};

/// A bound for trying out sizes; what is not complete within it fails.
fn seconds() -> u64 {
    std::env::var("AIS_MODEL_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(36_000)
}

fn large() -> bool {
    std::env::var("AIS_MODEL").is_ok_and(|v| v == "large")
}

fn clean(name: &str, run: impl FnOnce() -> Found) {
    let start = Instant::now();
    let found = run();
    println!("{name}: {} states, depth {}, {:.1} s", found.states, found.depth, start.elapsed().as_secs_f64());
    if let Some((what, steps)) = found.broken {
        panic!("{name}: {what}\n{steps}");
    }
    assert!(found.reached, "{name}: nothing happens in it");
    assert!(found.complete, "{name}: not complete in time: {} states", found.states);
}

fn registers() -> Vec<(&'static str, register::Bounds)> {
    let base = register::Bounds {
        nodes: 3,
        voters: 3,
        epochs: 2,
        writes: 3,
        crashes: 0,
        wipes: 0,
        recoveries: 0,
        honest: false,
        reconfigures: false,
        stands: None,
        chain_only: false,
    };
    let small = register::Bounds { writes: 2, ..base.clone() };
    let grows = register::Bounds { reconfigures: true, ..base.clone() };
    if large() {
        return vec![
            ("large: 3 voters, a crash and a wiped disk", register::Bounds { crashes: 1, wipes: 1, ..base.clone() }),
            ("large: recovered at any time, twice", register::Bounds { recoveries: 2, ..base.clone() }),
            (
                "large: recovered when lost for good",
                register::Bounds { recoveries: 1, wipes: 2, honest: true, stands: Some(&[(1, 2)]), ..small },
            ),
            ("large: recovered at any time, voters come and go", register::Bounds { recoveries: 1, ..grows.clone() }),
            ("large: 3 voters, 3 epochs", register::Bounds { epochs: 3, ..base }),
            ("large: voters come and go, 3 epochs", register::Bounds { epochs: 3, ..grows.clone() }),
            ("large: voters come and go, a crash", register::Bounds { crashes: 1, ..grows.clone() }),
            ("large: voters are replaced, 3 of 4", register::Bounds { nodes: 4, ..grows }),
        ];
    }
    vec![
        ("3 voters, a crash", register::Bounds { crashes: 1, ..base.clone() }),
        ("3 voters, a wiped disk", register::Bounds { wipes: 1, writes: 2, ..base }),
        (
            "recovered anywhere, at any time",
            register::Bounds { recoveries: 1, stands: Some(&[(1, 2)]), ..small.clone() },
        ),
        (
            "recovered when lost for good",
            register::Bounds { epochs: 1, recoveries: 1, wipes: 2, honest: true, ..small },
        ),
        ("voters come and go, from 1 of 3", register::Bounds { voters: 1, ..grows.clone() }),
        ("voters come and go, from 2 of 3", register::Bounds { voters: 2, ..grows.clone() }),
        ("voters come and go, from 3 of 3", grows.clone()),
        (
            "voters are replaced, 3 of 4; a voter and a learner stand",
            register::Bounds { nodes: 4, writes: 2, stands: Some(&[(1, 2), (3, 2)]), ..grows },
        ),
    ]
}

#[test]
fn register_keeps_its_invariants() {
    for (name, bounds) in registers() {
        clean(name, || search(bounds, seconds()));
    }
}

#[test]
fn founding_completes_once() {
    let bounds = |nodes, crashes, wipes, rivals, relists| founding::Bounds { nodes, crashes, wipes, rivals, relists };
    let mut all = vec![
        ("founding, 2 gateways", bounds(2, 2, 1, false, false)),
        ("founding, 2 gateways, rival founders", bounds(2, 1, 1, true, false)),
        ("founding, 3 gateways, two wiped disks", bounds(3, 0, 2, false, false)),
        ("founding, 3 gateways, rival founders", bounds(3, 0, 0, true, false)),
        ("founding, 3 gateways, the list changes", bounds(3, 0, 1, false, true)),
    ];
    if large() {
        all = vec![
            // 582,316 states, complete and clean.
            ("large: founding, 3 gateways, two wiped disks, a crash", bounds(3, 1, 2, false, false)),
            ("large: founding, 3 gateways, rival founders", bounds(3, 1, 1, true, false)),
            ("large: founding, 3 gateways, the list changes", bounds(3, 1, 1, false, true)),
        ];
    }
    for (name, bounds) in all {
        clean(name, || search(bounds, seconds()));
    }
}
