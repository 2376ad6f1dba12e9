//! Clusters beside the one that the cases share: in a namespace of their own, with volumes of their own, for what
//! would leave the shared one changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ais_tests::history::{self, History, Load, Options, Pool, Report};
use ais_tests::product::{Guide, Product, VOLUME_GIB, Views};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG};

/// Begins the name of every bucket of the clients.
const PREFIX: &str = "s";
const SHOWN_MAX: usize = 8;

/// A cluster of its own. Dropped without [`Side::down`], it tells what it looked like.
pub(crate) struct Side {
    /// The cluster; its `kubectl` is bound to the namespace.
    pub(crate) product: Product,
    /// Times that clients began: each has names of its own.
    runs: u32,
    clients: Option<Clients>,
    done: bool,
}

struct Clients {
    prefix: String,
    load: Load,
    views: Views,
    guide: Guide,
}

impl Side {
    /// Makes it and waits until it is whole. `overlay` is merged over the minimal resource of three gateways and one
    /// target, as `{"spec": {"targets": {"replicas": 3}}}`.
    pub(crate) fn make(bed: &Bed, namespace: &str, overlay: Value) -> Result<Self> {
        let side = Self::begin(bed, namespace, overlay)?;
        side.product.wait_ready(&bed.progress)?;
        Ok(side)
    }

    /// The same without waiting.
    pub(crate) fn begin(bed: &Bed, namespace: &str, overlay: Value) -> Result<Self> {
        Self::begin_with(bed, namespace, overlay, |_| Ok(()))
    }

    /// The same, and something is in the namespace before the resource is.
    pub(crate) fn begin_with(
        bed: &Bed,
        namespace: &str,
        overlay: Value,
        prepare: impl FnOnce(&Product) -> Result<()>,
    ) -> Result<Self> {
        let mut overlay = overlay;
        if overlay["spec"]["ha"].is_null() {
            overlay["spec"]["ha"] = patient();
        }
        let product = Product::beside(&bed.testbed, namespace, &overlay);
        offer_volumes(bed, product.volumes())?;
        product.make_namespace()?;
        prepare(&product)?;
        product.kubectl.apply(&product.manifest())?;
        Ok(Self { product, runs: 0, clients: None, done: false })
    }

    /// Lets three clients write from now on, through whatever gateways are Ready, wherever they are.
    pub(crate) fn clients(&mut self) -> Result<Arc<Pool>> {
        let pool = Pool::new(self.product.ready_gateways()?);
        let guide = Guide::start(&self.product, &pool)?;
        self.runs += 1;
        let prefix = format!("{PREFIX}{}-", self.runs);
        let load = Load::start(&pool, &Options::new(&prefix));
        let views = Views::start(&self.product, load.started())?;
        self.clients = Some(Clients { prefix, load, views, guide });
        Ok(pool)
    }

    /// Ends the clients and judges what they were told; at least `writes` were answered.
    pub(crate) fn judge(&mut self, writes: usize) -> Result<String> {
        self.judged(writes).map(|report| ais_tests::scene::summary(&report))
    }

    /// As `judge`, and no write waited for longer than `gap`. For gateways that leave: one that is out of the cluster
    /// refuses at once until Kubernetes has taken it out of the Service, and these clients do not turn to another one.
    pub(crate) fn judge_leaving(&mut self, writes: usize, gap: Duration) -> Result<String> {
        let report = self.judged(writes)?;
        let summary = ais_tests::scene::summary(&report);
        ensure!(report.slowest < gap, "a majority was away: {summary}");
        Ok(summary)
    }

    /// The same, and no write waited for longer than `gap` or failed: the majority was there all the time.
    pub(crate) fn judge_within(&mut self, writes: usize, gap: Duration) -> Result<String> {
        let report = self.judged(writes)?;
        let summary = ais_tests::scene::summary(&report);
        ensure!(report.slowest < gap && report.failed_writes == 0, "a majority was away: {summary}");
        Ok(summary)
    }

    fn judged(&mut self, writes: usize) -> Result<Report> {
        let Clients { prefix, load, views, guide } = self.clients.take().context("the clients did not begin")?;
        let ops = load.stop()?;
        drop(guide);
        self.product.settle_all()?;
        let samples = views.stop()?;
        let finals = self.product.buckets()?;
        let history = History { ops, samples, finals, prefix, slow: BTreeSet::new() };
        match history::check(&history) {
            Ok(report) => {
                ensure!(report.done >= writes, "too little happened: {report:?}");
                Ok(report)
            }
            Err(wrong) => {
                let file = std::env::temp_dir().join(format!("aiscluster-{}-history.txt", self.product.namespace));
                drop(std::fs::write(&file, format!("{wrong:#?}\n\n{:#?}", history.ops)));
                let shown = wrong.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n    ");
                bail!("{} rules are broken, see {}:\n    {shown}", wrong.len(), file.display())
            }
        }
    }

    /// Removes it. The namespace goes in the background: nothing that follows looks at it.
    pub(crate) fn down(mut self) -> Result<()> {
        self.stop();
        self.product.delete(LONG)?;
        self.product.admin.run(&["delete", "namespace", &self.product.namespace, "--wait=false"])?;
        self.done = true;
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(Clients { load, views, guide, .. }) = self.clients.take() {
            drop((load.stop(), views.stop(), guide));
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.stop();
        println!("--- {} as it was left\n{}", self.product.namespace, self.product.diagnosis());
        // Best effort: what is left of it must not take the processor from the cases that follow.
        drop(self.product.delete(LONG));
        drop(self.product.admin.run(&["delete", "namespace", &self.product.namespace, "--wait=false"]));
    }
}

/// Timers that a busy machine does not run out: what these cases are about is planned, or shows by a connection that
/// ends, and an election by mistake would only be in the way.
pub(crate) fn patient() -> Value {
    json!({"suspectMilliseconds": 8000, "leaseMilliseconds": 9000, "evictSmapSeconds": 30})
}

/// So many volumes can be bound now: those of clusters that went are emptied and offered again.
pub(crate) fn offer_volumes(bed: &Bed, count: usize) -> Result<()> {
    bed.testbed.recycle_volumes()?;
    let all = bed.testbed.kubectl().list("persistentvolumes", None)?;
    let free = all.iter().filter(|volume| volume["status"]["phase"] == "Available").count();
    bed.testbed.create_volumes(count.saturating_sub(free), VOLUME_GIB).map(drop)
}
