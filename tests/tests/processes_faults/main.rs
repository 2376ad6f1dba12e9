//! Faults on processes with a network namespace each, while clients write and read through every gateway. Each
//! history is judged (protocol.md section 12, rung 5); `docs/scenarios.md` says which case of which list is where.

mod cuts;

use std::process::ExitCode;
use std::time::Duration;

use ais_tests::suite;

/// Long enough for a few heartbeats and many writes.
const BEAT: Duration = Duration::from_millis(500);
/// The shipped `suspect`.
const SUSPECT: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    suite::main(&[
        ("black_hole_of_the_primary", cuts::black_hole_of_the_primary),
        ("cable_of_the_primary", cuts::cable_of_the_primary),
        ("one_way_cuts_of_the_primary", cuts::one_way_cuts_of_the_primary),
        ("one_way_cuts_between_two", cuts::one_way_cuts_between_two),
        ("splits_of_every_shape", cuts::splits_of_every_shape),
    ])
}
