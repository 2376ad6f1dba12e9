//! Random faults for as long as wanted, on a cluster in network namespaces, with clients and monitors all the time.
//!
//! The plan of faults follows from the seed. Time is cut into rounds: each has a history of its own, which is judged
//! when all agree again, so that a soak of hours needs the memory of minutes.

mod faults;
mod monitor;
mod plan;
mod report;
mod slow;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use self::faults::Surgeon;
use self::monitor::Monitor;
pub use self::plan::{Fault, Plan, Step, Who};
pub use self::report::Summary;
use self::slow::Slow;
use crate::client;
use crate::history::Views;
use crate::processes::{Kind, LocalCluster, Spec};
use crate::progress::Progress;
use crate::scene::{Judged, Scene};
use crate::testbed::packages;

/// What is judged together.
const ROUND: Duration = Duration::from_secs(60);
/// How many buckets are removed at the same time after a round.
const SWEEPERS: usize = 4;
/// A node that comes and goes, one of each kind.
const GUESTS: [(&str, Kind); 2] = [("x1", Kind::Gateway), ("x2", Kind::Target)];

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Faults begin until then.
    pub time: Duration,
    /// Decides on the plan.
    pub seed: u64,
    /// Gateways.
    pub gateways: usize,
    /// Targets.
    pub targets: usize,
    /// Between two buckets of one client: how busy the machine is kept.
    pub pause: Duration,
    /// Names of faults: no others are made. All, when there are none.
    pub only: Vec<String>,
    /// What the nodes log, a filter.
    pub log_level: String,
    /// Where the logs of a fault that took long to heal are kept.
    pub slow_dir: PathBuf,
}

/// Soaks a cluster. The summary is of all rounds that were good; an error names the first thing that was not.
pub fn run(options: &Options, progress: &Progress) -> (Summary, Result<()>) {
    let mut summary = Summary::new(options);
    let begin = Instant::now();
    let mut seen = Seen::default();
    let done = soak(options, progress, &mut summary, &mut seen);
    summary.end(begin.elapsed(), &seen.views, seen.monitor, seen.members);
    (summary, done)
}

/// What is looked at from the beginning to the end.
#[derive(Default)]
struct Seen {
    views: Views,
    monitor: Monitor,
    members: usize,
}

fn soak(options: &Options, progress: &Progress, summary: &mut Summary, seen: &mut Seen) -> Result<()> {
    packages::ensure_for_drills(progress)?;
    let spec = Spec::new(options.gateways, options.targets).in_namespaces().on_volumes().with_clocks();
    let spec = spec.set("log_level", options.log_level.as_str());
    let mut cluster = LocalCluster::start(spec)?;
    for (id, kind) in GUESTS {
        cluster.add(id, kind, &[])?;
    }
    progress.line(format!("{} gateways and {} targets agree", options.gateways, options.targets));
    let begin = Instant::now();
    let mut plan = Plan::new(options.seed, options.gateways, options.targets).only(&options.only)?;
    let mut slow = Slow::new(&options.slow_dir);
    let Seen { views, monitor, members } = seen;
    let mut round = 0u64;
    while begin.elapsed() < options.time {
        round += 1;
        let prefix = format!("r{round}-");
        let mut scene = Scene::paced(cluster, &prefix, Some(options.pause))?;
        // A member that was cut off may show its own old list for a while.
        scene.slow = scene.cluster.ids().into_iter().collect();
        let until = Instant::now() + ROUND;
        while Instant::now() < until && begin.elapsed() < options.time {
            let step = plan.next_step();
            let what = format!("{:?}", step.fault);
            let at = scene.elapsed();
            slow.begin(&scene.cluster);
            let done = Surgeon::new(&mut scene).perform(&step);
            let healed = done.with_context(|| format!("round {round}, step {}: {what}", plan.given()))?;
            monitor.look(&mut scene.cluster);
            summary.fault(&step, at, scene.elapsed(), healed);
            progress.line(format!(
                "{:>4} {what}: whole again {:.1} s after it ended",
                plan.given(),
                healed.as_secs_f64()
            ));
            if let Some(dir) = slow.end(&scene.cluster, plan.given(), healed)? {
                progress.line(format!("     that took long; its logs are in {}", dir.display()));
            }
            scene.write_for(step.rest);
        }
        let Judged { cluster: whole, report, history } = scene.judge().with_context(|| format!("round {round}"))?;
        cluster = whole;
        history.samples.iter().for_each(|sample| views.add(&sample.view));
        ensure!(views.wrong.is_empty(), "seen of the nodes: {:?}", views.wrong);
        summary.round(&history, &report);
        sweep(&cluster, &prefix)?;
        monitor.look(&mut cluster);
        progress.line(summary.line());
    }
    *members = cluster.wait_agreed()?.len();
    cluster.finish();
    Ok(())
}

/// Removes a round's buckets.
fn sweep(cluster: &LocalCluster, prefix: &str) -> Result<()> {
    let gateways = cluster.survivors("");
    let (_, first) = gateways.first().context("no gateway")?;
    let names: Vec<String> =
        client::bmd_names(first)?.into_iter().filter(|n| n.starts_with(prefix) || n.starts_with("own-")).collect();
    let one = |i: usize, name: &str| -> Result<()> {
        let reply = client::delete_bucket(&gateways[i % gateways.len()].1, name, None)?;
        ensure!(reply.is_success() || reply.status == 404, "{name}: {} {}", reply.status, reply.text());
        Ok(())
    };
    std::thread::scope(|scope| {
        let share = |first: usize| {
            let names = &names;
            scope.spawn(move || (first..names.len()).step_by(SWEEPERS).try_for_each(|i| one(i, &names[i])))
        };
        let threads: Vec<_> = (0..SWEEPERS).map(share).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sweeper panicked"))?)
    })
    .context("cannot remove a round's buckets")
}
