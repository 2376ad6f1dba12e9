//! Drills on pods.

use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{CONTAINER, Product};
use crate::client;
use crate::drill::{Drill, Drillable};
use crate::testbed::Cluster;

/// How [`Drill::Sigterm`] comes to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `kubectl delete pod`.
    Deleted,
    /// `kubectl delete pod --force --grace-period=0`: as when its node is lost.
    ForceDeleted,
}

/// How [`Drill::Planned`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// By HTTP at the primary, as AIStore's tools do.
    Http,
    /// By `kubectl patch` of `spec.primary.preferred`.
    Patch,
}

/// Drills on pods.
#[derive(Debug)]
pub struct PodDrills<'a> {
    /// The cluster.
    pub product: &'a Product,
    /// The test Kubernetes it is in; without it processes cannot be signalled.
    pub testbed: Option<&'a Cluster>,
    /// How a pod is ended.
    pub end: End,
    /// How a hand-over is asked for.
    pub ask: Ask,
    /// To whom a hand-over goes; the first other gateway when not given.
    pub successor: Option<String>,
    under_way: Option<JoinHandle<Result<()>>>,
}

impl<'a> PodDrills<'a> {
    /// Drills as the measurements make them.
    pub fn new(product: &'a Product, testbed: Option<&'a Cluster>) -> Self {
        Self { product, testbed, end: End::Deleted, ask: Ask::Http, successor: None, under_way: None }
    }

    fn kill(&self, victim: &str) -> Result<Instant> {
        let testbed = self.testbed.context("the processes of this Kubernetes cannot be signalled from here")?;
        let process = testbed.container_process(&self.product.namespace, victim, CONTAINER)?;
        let at = Instant::now();
        process.kill()?;
        Ok(at)
    }

    /// Beside the probes, because `kubectl` itself takes a while.
    fn delete(&mut self, victim: &str) -> Instant {
        let kubectl = self.product.kubectl.clone();
        let (pod, end) = (victim.to_owned(), self.end);
        let at = Instant::now();
        self.under_way = Some(std::thread::spawn(move || match end {
            End::Deleted => kubectl.run(&["delete", "pod", &pod, "--wait=false"]).map(drop),
            End::ForceDeleted => kubectl.force_delete_pod(&pod),
        }));
        at
    }

    /// What asks for this gateway; one that is preferred already is asked for by another `request`.
    pub fn patch(&self, to: &str) -> Result<Value> {
        let resource = self.product.resource()?;
        let mut primary = json!({"preferred": [to]});
        if resource["spec"]["primary"]["preferred"] == primary["preferred"] {
            primary["request"] = json!(format!("again-{}", resource["metadata"]["generation"]));
        }
        Ok(json!({"spec": {"primary": primary}}))
    }

    fn hand_over(&mut self, victim: &str) -> Result<Instant> {
        let other = || self.product.gateway_names().into_iter().find(|name| name != victim);
        let next = self.successor.clone().or_else(other).context("no other gateway")?;
        let (kubectl, ask) = (self.product.kubectl.clone(), self.ask);
        let through = self.product.addresses(victim)?.0;
        let patch = self.patch(&next)?;
        let at = Instant::now();
        self.under_way = Some(std::thread::spawn(move || match ask {
            Ask::Patch => kubectl.patch(&format!("aisc/{}", super::NAME), &patch).map(drop),
            Ask::Http => {
                let reply = client::set_primary(&through, &next, "")?;
                if reply.is_success() { Ok(()) } else { bail!("set-primary: {} {}", reply.status, reply.text()) }
            }
        }));
        Ok(at)
    }
}

impl Drillable for PodDrills<'_> {
    fn place(&self) -> &'static str {
        "kubernetes"
    }

    fn settle(&mut self) -> Result<(String, u64)> {
        self.product.primary()
    }

    fn survivors(&self, victim: &str) -> Vec<(String, String)> {
        // Nobody to probe is the caller's error, with its own words.
        let mut ready = self.product.ready_gateways().unwrap_or_default();
        ready.retain(|(name, _)| name != victim);
        ready
    }

    fn fault(&mut self, drill: Drill, victim: &str) -> Result<Instant> {
        match drill {
            Drill::Kill9 => self.kill(victim),
            Drill::Sigterm => Ok(self.delete(victim)),
            Drill::Planned => self.hand_over(victim),
            Drill::PlannedDead | Drill::TwoPlusOne | Drill::Sigstop | Drill::BlackHole => {
                bail!("{} is made on processes only", drill.name())
            }
        }
    }

    fn heal(&mut self, _drill: Drill, _victim: &str) -> Result<()> {
        // Kubernetes brings pods back by itself.
        let Some(under_way) = self.under_way.take() else { return Ok(()) };
        under_way.join().map_err(|_| anyhow!("the drill panicked"))?
    }
}
