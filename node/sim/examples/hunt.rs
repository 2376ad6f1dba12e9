//! Puts every known defect into the core, one at a time, and runs seeds until an invariant breaks. One line each, for
//! `cargo xtask mutants`. An example, so that building it with the defects leaves the real `ais-sim` alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ais_ha::mutant::{Mutant, set};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(Ok(120), |a| a.parse())?;
    let only: Option<String> = args.next();
    for mutant in Mutant::ALL {
        if only.as_ref().is_some_and(|name| *name != format!("{mutant:?}")) {
            continue;
        }
        let since = Instant::now();
        set(Some(mutant));
        let (seeds, found) = hunt(since + Duration::from_secs(seconds));
        set(None);
        let took = since.elapsed().as_secs_f64();
        match found {
            Some((seed, invariant)) => {
                println!("killed | {mutant:?} | simulator | {invariant} in seed {seed}, {seeds} seeds | {took:.1}");
            }
            None => println!("missed | {mutant:?} | simulator | {seeds} seeds | {took:.1}"),
        }
    }
    Ok(())
}

/// Seeds run, and the first that broke something. A run that merely spins catches nothing.
fn hunt(until: Instant) -> (u64, Option<(u64, &'static str)>) {
    let next = AtomicU64::new(0);
    let found = Mutex::new(None);
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while Instant::now() < until && found.lock().is_ok_and(|f| f.is_none()) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let violation = ais_sim::run_seed(seed, false).violation.filter(|v| v.invariant != "busy");
                    if let (Some(violation), Ok(mut found)) = (violation, found.lock()) {
                        found.get_or_insert((seed, violation.invariant));
                    }
                }
            });
        }
    });
    (next.into_inner(), found.into_inner().unwrap_or_default())
}
