//! A cluster of processes with clients that write all the time and a watcher, judged at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::client::{self, View};
use crate::history::{self, History, Load, Options, Pool, Report, Watch};
use crate::processes::{self, AGREE_TIMEOUT, Kind, LOOK_EVERY, LocalCluster, Node, Spec};
use crate::wait::Wait;

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
        Self::paced(cluster, "h", None)
    }

    /// As [`Scene::on`]; the prefix begins all names of the clients.
    pub fn paced(cluster: LocalCluster, prefix: &str, pause: Option<Duration>) -> Result<Self> {
        let pool = Pool::new(cluster.survivors(""));
        let prefix = prefix.to_owned();
        let gateways = cluster.survivors("").len();
        let mut options =
            if cluster.in_namespaces() { Options::sticky(&prefix, gateways) } else { Options::new(&prefix) };
        options.pause = pause.unwrap_or(options.pause);
        let load = Load::start(&pool, &options);
        let watched = cluster.nodes.iter().map(Node::watched).collect();
        let watch = Watch::start(watched, cluster.secret().clone(), load.started());
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

    /// Waits until these nodes follow one primary, one of them, of a higher epoch than `epoch`; its id and epoch.
    pub fn led_among(&mut self, ids: &[String], epoch: u64) -> Result<(String, u64)> {
        let what = format!("a primary after epoch {epoch} among {ids:?}");
        let end = Wait::new(what, AGREE_TIMEOUT).every(LOOK_EVERY);
        end.until(|| {
            let views = ids.iter().map(|id| self.cluster.node(id)?.view()).collect::<Result<Vec<View>>>()?;
            let leader = processes::led(&views).map_err(|why| anyhow!("{why}"))?;
            ensure!(leader.epoch() > epoch, "{} leads epoch {}", leader.node_id, leader.epoch());
            Ok(Some((leader.node_id.clone(), leader.epoch())))
        })
    }

    /// As [`Scene::led_after`], with a node in maintenance, which is not ready as long as it is.
    pub fn led_after_in_maintenance(&mut self, epoch: u64, id: &str) -> Result<(String, u64)> {
        let others = self.others(&[id]);
        self.led_among(&others, epoch)
    }

    /// Makes a bucket through this gateway, trying for as long as the harness waits for anything; how long it took.
    pub fn commit_through(&self, id: &str) -> Result<Duration> {
        let (address, begin) = (self.cluster.node(id)?.public.clone(), Instant::now());
        Wait::new(format!("a commit through {id}"), AGREE_TIMEOUT).every(LOOK_EVERY).until(|| {
            let reply = client::create_bucket(&address, &self.fresh_name(), None)?;
            ensure!(reply.is_success(), "{}: {}", reply.status, reply.text());
            Ok(Some(begin.elapsed()))
        })
    }

    /// A name that no client of the history uses.
    pub fn fresh_name(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        format!("own-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The ids of all nodes that can answer, but these.
    pub fn others(&self, not: &[&str]) -> Vec<String> {
        let running = self.cluster.nodes.iter().filter(|node| node.answers());
        running.map(|node| node.id.clone()).filter(|id| !not.contains(&id.as_str())).collect()
    }

    /// Adds a node that is not started yet, and looks at it from now on.
    pub fn add(&mut self, id: &str, kind: Kind, more: &[(&str, Value)]) -> Result<()> {
        self.cluster.add(id, kind, more)?;
        self.watch.add(self.cluster.node(id)?.watched());
        Ok(())
    }

    /// A node listens elsewhere from its next start on.
    pub fn readdress(&mut self, id: &str) -> Result<()> {
        self.cluster.readdress(id)?;
        let node = self.cluster.node(id)?;
        self.pool.readdress(id, &node.public);
        self.watch.add(node.watched());
        Ok(())
    }

    /// Since the clients began.
    pub fn elapsed(&self) -> Duration {
        self.load.started().elapsed()
    }

    /// Lets the clients write for a while.
    pub fn write_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ends the clients, waits for agreement and judges the history.
    pub fn end(self) -> Result<Report> {
        let judged = self.judge()?;
        show_uncertain(&judged.history);
        judged.cluster.finish();
        Ok(judged.report)
    }

    /// As [`Scene::end`]; the cluster goes on.
    pub fn judge(self) -> Result<Judged> {
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
            Ok(report) => Ok(Judged { cluster, report, history }),
            Err(wrong) => {
                let text = format!("{wrong:#?}\n\n{:#?}", history.ops);
                drop(std::fs::write(cluster.dir().join("history.txt"), text));
                let shown = wrong.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n    ");
                bail!("{} rules are broken, see history.txt in {}:\n    {shown}", wrong.len(), cluster.dir().display())
            }
        }
    }
}

/// A good history, and what it was of.
#[derive(Debug)]
pub struct Judged {
    /// The cluster, which agrees.
    pub cluster: LocalCluster,
    /// What it held.
    pub report: Report,
    /// All of it.
    pub history: History,
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

/// Shows calls without a certain answer; a write is the rarer and the worse.
fn show_uncertain(history: &History) {
    let lost = |mutation: bool| {
        history.ops.iter().filter(move |op| !op.said.is_empty() && op.action.is_mutation() == mutation)
    };
    for op in lost(true).chain(lost(false)).take(SHOWN_MAX) {
        eprintln!("a call without a certain answer: {op:?}");
    }
}

/// As [`summary`], and an error when a write failed.
pub fn none_failed(report: &Report) -> Result<String> {
    if report.failed_writes > 0 {
        bail!("{} writes failed: {}", report.failed_writes, summary(report));
    }
    Ok(summary(report))
}
