//! Faults with a measured time to the next committed write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::client;
use crate::history::Pool;
use crate::processes::LocalCluster;

/// Between two probes.
pub const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Probes under way at most: a gateway may park each up to 15 s.
const PROBES_MAX: usize = 64;
/// A drill without a committed write for so long has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(90);
/// How many buckets are removed at the same time after a run.
const SWEEPERS: usize = 8;

/// A way to lose, or to move, the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drill {
    /// `kill -9` of the primary's process.
    Kill9,
    /// SIGTERM to the primary's process.
    Sigterm,
    /// A hand-over asked by HTTP.
    Planned,
    /// The same while another gateway is dead.
    PlannedDead,
    /// `kill -9` of the primary where there are two gateways and one target.
    TwoPlusOne,
    /// SIGSTOP of the primary's process: a black hole that TCP still accepts.
    Sigstop,
    /// The primary's network is cut: nothing comes back, not even a refusal.
    BlackHole,
}

impl Drill {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Kill9,
        Self::Sigterm,
        Self::Planned,
        Self::PlannedDead,
        Self::TwoPlusOne,
        Self::Sigstop,
        Self::BlackHole,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "kill9",
            Self::Sigterm => "sigterm",
            Self::Planned => "planned",
            Self::PlannedDead => "planned-dead",
            Self::TwoPlusOne => "two-plus-one",
            Self::Sigstop => "sigstop",
            Self::BlackHole => "black-hole",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|drill| drill.name() == name)
            .with_context(|| format!("no drill '{name}'; there are {}", known()))
    }

    /// The targets of protocol.md section 8: p50 and p99, in milliseconds.
    pub fn targets_ms(self) -> (Option<u64>, u64) {
        match self {
            Self::Kill9 | Self::TwoPlusOne => (Some(150), 500),
            Self::Sigterm => (None, 300),
            Self::Planned | Self::PlannedDead => (Some(30), 300),
            Self::Sigstop | Self::BlackHole => (Some(3000), 5000),
        }
    }

    /// Whether the primary goes on as a gateway.
    pub fn spares_the_primary(self) -> bool {
        matches!(self, Self::Planned | Self::PlannedDead)
    }
}

/// A cluster, wherever it runs, that drills can be made on.
pub trait Drillable {
    /// Where it runs, for the tables.
    fn place(&self) -> &'static str;
    /// Waits until it is whole and agrees; the primary's id and its epoch.
    fn settle(&mut self) -> Result<(String, u64)>;
    /// Gateways that serve now, but `victim`: id and public `host:port`.
    fn survivors(&self, victim: &str) -> Vec<(String, String)>;
    /// Does it to the primary `victim`; the moment just before.
    fn fault(&mut self, drill: Drill, victim: &str) -> Result<Instant>;
    /// Makes it whole again, as far as that does not happen by itself.
    fn heal(&mut self, drill: Drill, victim: &str) -> Result<()>;
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// From the fault to the first committed create under a higher epoch.
    pub took: Duration,
    /// That epoch.
    pub epoch: u64,
}

/// Makes one drill on a cluster that agrees, and leaves it agreeing. `pool` is the steady writers'.
pub fn run(cluster: &mut dyn Drillable, drill: Drill, pool: Option<&Arc<Pool>>) -> Result<Run> {
    let (primary, epoch) = cluster.settle()?;
    let not = if drill.spares_the_primary() { "" } else { primary.as_str() };
    let gateways = cluster.survivors(not);
    if let Some(pool) = pool.filter(|_| !drill.spares_the_primary()) {
        pool.close(&primary)?;
    }
    let prober = Prober::new(&gateways, epoch)?;
    let result = cluster.fault(drill, &primary).and_then(|at| prober.watch(at));
    cluster.heal(drill, &primary).with_context(|| format!("after {} of {primary}", drill.name()))?;
    let run = result.with_context(|| format!("{} of {primary} in epoch {epoch}", drill.name()))?;
    cluster.settle()?;
    if let Some(pool) = pool {
        for (id, address) in cluster.survivors("") {
            pool.readdress(&id, &address);
        }
        pool.open(&primary);
    }
    Ok(run)
}

/// Bucket creates at surviving gateways, a new one every 5 ms, until one commits under a higher epoch.
struct Prober {
    gateways: Vec<(String, String)>,
    epoch: u64,
    name: String,
    tell: Sender<Probed>,
    told: Receiver<Probed>,
}

struct Probed {
    at: Instant,
    bucket: String,
    /// Of a 2xx.
    epoch: Option<u64>,
    said: String,
}

impl Prober {
    fn new(gateways: &[(String, String)], epoch: u64) -> Result<Self> {
        if gateways.is_empty() {
            bail!("no gateway is left to probe");
        }
        let (tell, told) = channel();
        let name = format!("probe-{}-{epoch}", std::process::id());
        Ok(Self { gateways: gateways.to_vec(), epoch, name, tell, told })
    }

    /// Probes until the first success; afterwards removes what the probes made.
    fn watch(self, since: Instant) -> Result<Run> {
        let (mut sent, mut under_way) = (0usize, 0usize);
        let mut made: BTreeSet<String> = BTreeSet::new();
        let mut found = None;
        let mut last = String::new();
        let mut next = Instant::now();
        while found.is_none() && since.elapsed() < PROBE_TIMEOUT {
            if under_way < PROBES_MAX && Instant::now() >= next {
                self.send(sent)?;
                (sent, under_way, next) = (sent + 1, under_way + 1, next + PROBE_EVERY);
            }
            let wait =
                if under_way < PROBES_MAX { next.saturating_duration_since(Instant::now()) } else { PROBE_EVERY };
            let Ok(probed) = self.told.recv_timeout(wait) else { continue };
            under_way -= 1;
            if let Some(epoch) = probed.epoch.filter(|epoch| *epoch > self.epoch) {
                found = Some(Run { took: probed.at.saturating_duration_since(since), epoch });
            }
            last = probed.said;
            made.insert(probed.bucket);
        }
        for _ in 0..under_way {
            let probed = self.told.recv_timeout(client::SDK_TIMEOUT).context("a probe did not end")?;
            // An earlier success may have been reported later.
            if let (Some(run), Some(epoch)) = (&mut found, probed.epoch.filter(|epoch| *epoch > self.epoch)) {
                let took = probed.at.saturating_duration_since(since);
                if took < run.took {
                    *run = Run { took, epoch };
                }
            }
            made.insert(probed.bucket);
        }
        self.sweep(&made)?;
        found.with_context(|| {
            format!("no create was committed within {PROBE_TIMEOUT:.0?} of {sent} probes; the last said {last}")
        })
    }

    fn send(&self, number: usize) -> Result<()> {
        let (_, address) = self.gateways[number % self.gateways.len()].clone();
        let bucket = format!("{}-{number}", self.name);
        let tell = self.tell.clone();
        let probe = move || {
            let result = client::create_bucket(&address, &bucket, None);
            let at = Instant::now();
            let epoch = result.as_ref().ok().filter(|reply| reply.is_success()).and_then(client::stamp_of);
            let said = match &result {
                Ok(reply) => format!("{} {}", reply.status, reply.text()),
                Err(failure) => failure.to_string(),
            };
            // The prober may be gone when the last one comes in.
            drop(tell.send(Probed { at, bucket, epoch: epoch.map(|stamp| stamp.epoch), said }));
        };
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(probe);
        thread.map(drop).context("cannot start a probe")
    }

    fn sweep(&self, made: &BTreeSet<String>) -> Result<()> {
        let made: Vec<&String> = made.iter().collect();
        let gateways = &self.gateways;
        let one = |i: usize, bucket: &str| -> Result<()> {
            let reply = client::delete_bucket(&gateways[i % gateways.len()].1, bucket, None)?;
            // One whose create failed is not there.
            if reply.is_success() || reply.status == 404 { Ok(()) } else { bail!("{}: {}", reply.status, reply.text()) }
        };
        std::thread::scope(|scope| {
            let share = |first: usize| {
                let made = &made;
                let all = move || (first..made.len()).step_by(SWEEPERS).try_for_each(|i| one(i, made[i]));
                scope.spawn(all)
            };
            let threads: Vec<_> = (0..SWEEPERS).map(share).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sweeper panicked"))?)
        })
        .context("cannot remove the probes' buckets")
    }
}

/// Drills on processes.
#[derive(Debug)]
pub struct LocalDrills<'a> {
    /// The cluster.
    pub cluster: &'a mut LocalCluster,
    /// To whom a planned hand-over goes; the first other gateway when not given.
    pub successor: Option<String>,
    handover: Option<JoinHandle<Result<()>>>,
}

impl<'a> LocalDrills<'a> {
    /// Drills on this cluster.
    pub fn new(cluster: &'a mut LocalCluster) -> Self {
        Self { cluster, successor: None, handover: None }
    }
}

impl Drillable for LocalDrills<'_> {
    fn place(&self) -> &'static str {
        "processes"
    }

    fn settle(&mut self) -> Result<(String, u64)> {
        self.cluster.wait_led(0)
    }

    fn survivors(&self, victim: &str) -> Vec<(String, String)> {
        self.cluster.survivors(victim)
    }

    fn fault(&mut self, drill: Drill, victim: &str) -> Result<Instant> {
        match drill {
            Drill::Kill9 | Drill::TwoPlusOne => self.cluster.node_mut(victim)?.kill9_now(),
            Drill::Sigterm => self.cluster.node_mut(victim)?.sigterm(),
            Drill::Sigstop => self.cluster.node_mut(victim)?.sigstop(),
            Drill::BlackHole => {
                let at = Instant::now();
                self.cluster.fabric()?.isolate(victim)?;
                Ok(at)
            }
            Drill::Planned | Drill::PlannedDead => {
                let other = || self.cluster.survivors(victim).into_iter().next().map(|(id, _)| id);
                let next = self.successor.clone().or_else(other).context("no other gateway")?;
                let through = self.cluster.node(victim)?.public.clone();
                let at = Instant::now();
                self.handover = Some(std::thread::spawn(move || {
                    let reply = client::set_primary(&through, &next, "")?;
                    if reply.is_success() { Ok(()) } else { bail!("set-primary: {} {}", reply.status, reply.text()) }
                }));
                Ok(at)
            }
        }
    }

    fn heal(&mut self, drill: Drill, victim: &str) -> Result<()> {
        match drill {
            Drill::Planned | Drill::PlannedDead => {
                let Some(handover) = self.handover.take() else { return Ok(()) };
                handover.join().map_err(|_| anyhow!("the hand-over panicked"))?
            }
            Drill::Sigstop => self.cluster.node_mut(victim)?.sigcont(),
            Drill::BlackHole => self.cluster.fabric()?.heal(),
            Drill::Kill9 | Drill::TwoPlusOne | Drill::Sigterm => {
                self.cluster.node_mut(victim)?.reap(Duration::from_secs(10))?;
                self.cluster.start_node(victim)
            }
        }
    }
}
