//! Runs the drills of one test binary one after the other: they share two cores and measure time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// A drill: its name, and what does it and says in one line what was seen.
pub type Case = (&'static str, fn() -> Result<String>);

/// Runs those whose name contains one of the command line's words, or all.
pub fn main(cases: &[Case]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // Options of the standard test harness have no meaning here, and no need of one.
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in cases.iter().filter(|(name, _)| wanted(name)) {
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(|_| Err(anyhow!("panicked")));
        let took_s = begin.elapsed().as_secs_f64();
        match result {
            Ok(seen) => {
                println!("test {name} ... ok ({took_s:.1} s) {seen}");
                passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED ({took_s:.1} s)\n    {error:#}");
                failed.push(*name);
            }
        }
    }
    let (verdict, skipped) = (if failed.is_empty() { "ok" } else { "FAILED" }, cases.len() - passed - failed.len());
    println!("\ntest result: {verdict}. {passed} passed; {} failed; {skipped} filtered out", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
