//! Faults on processes with a network namespace each, while clients write and read through every gateway. Each
//! history is judged (protocol.md section 12, rung 5); `docs/scenarios.md` says which case of which list is where.

mod clocks;
mod cuts;
mod disks;
mod life;
mod lost;
mod manage;
mod names;
mod shapes;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use ais_tests::client;
use ais_tests::progress::Progress;
use ais_tests::scene::Scene;
use ais_tests::suite;
use ais_tests::testbed::packages;
use ais_tests::wait::Wait;
use anyhow::{Context, Result};
use serde_json::Value;

/// Long enough for a few heartbeats and many writes.
const BEAT: Duration = Duration::from_millis(500);
/// The shipped `suspect`.
const SUSPECT: Duration = Duration::from_millis(1500);
/// A node that was told to end, on a busy machine.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Everything that the harness waits for and that has no bound of its own.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if let Err(error) = packages::ensure_for_drills(&Progress::new("drills")) {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    suite::main(table::CASES)
}

/// A node's map.
fn smap(scene: &Scene, id: &str) -> Result<Value> {
    client::get_json(&scene.cluster.node(id)?.public, "/v1/daemon?what=smap")
}

/// Whether a node's map has a member.
fn has(smap: &Value, id: &str) -> bool {
    ["pmap", "tmap"].iter().any(|map| smap[*map].get(id).is_some())
}

/// Waits until the map of `through` has a member, or has it no more.
fn until_in_map(scene: &Scene, through: &str, id: &str, wanted: bool) -> Result<()> {
    let what = format!("{id} to be {} the map", if wanted { "in" } else { "out of" });
    Wait::new(what, TIMEOUT).until(|| Ok((has(&smap(scene, through)?, id) == wanted).then_some(())))
}

/// Generation of the placement.
fn rmd_version(scene: &Scene, id: &str) -> Result<u64> {
    let all = client::get_json(&scene.cluster.node(id)?.public, "/v1/daemon?what=smapvote")?;
    let version = &all["rmd"]["version"];
    let number = version.as_u64().or_else(|| version.as_str()?.parse().ok());
    number.with_context(|| format!("no version in {}", all["rmd"]))
}
