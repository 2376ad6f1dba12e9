//! A cluster of processes with clients that write all the time and a watcher, judged at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::client;
use crate::history::{self, History, Load, Options, Pool, Report, Watch};
use crate::processes::{LocalCluster, Spec};

/// How many broken rules are shown.
const SHOWN_MAX: usize = 8;
const WARM_UP: Duration = Duration::from_millis(400);

/// A drill under way.
#[derive(Debug)]
pub struct Scene {
    /// The cluster.
    pub cluster: LocalCluster,
    /// The gateways that clients use.
    pub pool: Arc<Pool>,
    /// Gateways that were paused.
    pub slow: BTreeSet<String>,
    load: Load,
    watch: Watch,
    prefix: String,
}

impl Scene {
    /// A cluster that agrees, with clients at work.
    pub fn begin(spec: Spec) -> Result<Self> {
        Self::on(LocalCluster::start(spec)?)
    }

    /// Clients at work on a cluster that agrees.
    pub fn on(cluster: LocalCluster) -> Result<Self> {
        let pool = Pool::new(cluster.survivors(""));
        let prefix = "h".to_owned();
        let load = Load::start(&pool, &Options::new(&prefix));
        let controls = cluster.nodes.iter().map(|node| node.control.clone()).collect();
        let watch = Watch::start(controls, cluster.secret().clone(), load.started());
        let scene = Self { cluster, pool, slow: BTreeSet::new(), load, watch, prefix };
        // Something must have been written before the first fault.
        scene.write_for(WARM_UP);
        Ok(scene)
    }

    /// The primary's id and its epoch. The clients write on, so the nodes' stamps need not be equal now.
    pub fn primary(&mut self) -> Result<(String, u64)> {
        self.led_after(0)
    }

    /// Waits until all running nodes follow one primary of a higher epoch than `epoch`; its id and epoch.
    pub fn led_after(&mut self, epoch: u64) -> Result<(String, u64)> {
        self.cluster.wait_led(epoch)
    }

    /// Starts a node and waits until it serves in the cluster; the primary's id and epoch then.
    pub fn bring_back(&mut self, id: &str) -> Result<(String, u64)> {
        self.cluster.start_node(id)?;
        let back = self.led_after(0)?;
        self.pool.open(id);
        Ok(back)
    }

    /// Lets the clients write for a while.
    pub fn write_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ends the clients, waits for agreement and judges the history.
    pub fn end(self) -> Result<Report> {
        let Self { mut cluster, slow, load, watch, prefix, .. } = self;
        let ops = load.stop()?;
        let samples = watch.stop()?;
        cluster.wait_agreed()?;
        let answering = cluster.nodes.iter().filter(|node| node.answers());
        let finals = answering.map(|node| Ok((node.id.clone(), client::bmd_names(&node.public)?)));
        let finals = finals.collect::<Result<_>>()?;
        let history = History { ops, samples, finals, prefix, slow };
        match history::check(&history) {
            Ok(report) if report.done == 0 => bail!("the clients wrote nothing"),
            Ok(report) => {
                for op in history.ops.iter().filter(|op| !op.said.is_empty()).take(SHOWN_MAX) {
                    eprintln!("a call without a certain answer: {op:?}");
                }
                cluster.finish();
                Ok(report)
            }
            Err(wrong) => {
                let text = format!("{wrong:#?}\n\n{:#?}", history.ops);
                drop(std::fs::write(cluster.dir().join("history.txt"), text));
                let shown = wrong.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n    ");
                bail!("{} rules are broken, see history.txt in {}:\n    {shown}", wrong.len(), cluster.dir().display())
            }
        }
    }
}

/// What a report says, in one line.
pub fn summary(report: &Report) -> String {
    format!(
        "{} writes, {} failed, {} repeated, {} reads ({} stale), {} epochs, slowest {:.0} ms",
        report.done,
        report.failed_writes,
        report.repeated,
        report.reads,
        report.stale_reads,
        report.epochs,
        report.slowest.as_secs_f64() * 1000.0
    )
}

/// As [`summary`], and an error when a write failed.
pub fn none_failed(report: &Report) -> Result<String> {
    if report.failed_writes > 0 {
        bail!("{} writes failed: {}", report.failed_writes, summary(report));
    }
    Ok(summary(report))
}
