//! libFuzzer around the targets: `AIS_FUZZ_TARGET` names the one to run, and the arguments are libFuzzer's.
//! `cargo xtask fuzz` builds and calls it.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use ais_fuzz::{Memory, Target, find};

#[global_allocator]
static MEMORY: Memory = ais_fuzz::memory();

static TARGET: OnceLock<&Target> = OnceLock::new();

/// The target of this process. With `AIS_FUZZ_SEEDS` its seeds are put there before libFuzzer reads that folder.
fn start() {
    let name = std::env::var("AIS_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = find(&name) else {
        eprintln!("AIS_FUZZ_TARGET '{name}' names no target");
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("AIS_FUZZ_SEEDS") {
        for (i, seed) in (target.seeds)().into_iter().enumerate() {
            if let Err(error) = std::fs::write(Path::new(&directory).join(format!("seed-{i}")), seed) {
                eprintln!("cannot write a seed: {error}");
                std::process::exit(2);
            }
        }
    }
    let _ = TARGET.set(target);
}

libfuzzer_sys::fuzz_target!(init: start(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        target.run(data, &MEMORY);
    }
});
