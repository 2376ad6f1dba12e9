//! `ais-sim`: runs seeds.

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Deterministic simulator of the election core", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and judges them.
    Run {
        /// First and one past the last, as `0..10000`.
        #[arg(long, default_value = "0..100")]
        seeds: String,
        /// One seed instead.
        #[arg(long)]
        seed: Option<u64>,
        /// Prints what happens, one line each.
        #[arg(long)]
        trace: bool,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let Command::Run { seeds, seed, trace, jobs: _ } = Cli::parse().command;
    if let Some(seed) = seed {
        let report = ais_sim::run_seed(seed, trace);
        println!("{report:?}");
        return Ok(());
    }
    let (from, to) = seeds.split_once("..").unwrap();
    let start = std::time::Instant::now();
    let next = std::sync::atomic::AtomicU64::new(from.parse()?);
    let to: u64 = to.parse()?;
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| loop {
                let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if seed >= to { break; }
                let r = ais_sim::run_seed(seed, false);
                if let Some(v) = r.violation {
                    println!("{seed}: {v}");
                }
            });
        }
    });
    println!("{:?}", start.elapsed());
    Ok(())
}
