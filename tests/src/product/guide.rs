//! Clients of a cluster whose pods come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Calls, NAME, Product, Watched};
use crate::history::Pool;
use crate::testbed::kubectl::is_ready;

/// How late the clients may learn where a gateway is now.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells the clients where the gateways are: a pod that goes is taken out, one that is Ready is taken in.
#[derive(Debug)]
pub struct Guide {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guide {
    /// Begins with the gateways that are Ready now.
    pub fn start(product: &Product, pool: &Arc<Pool>) -> Result<Self> {
        let pods = Watched::start(&product.kubectl, &["pods", "--selector", &Product::selector()])?;
        let calls = product.calls();
        let (stop, pool) = (Arc::new(AtomicBool::new(false)), pool.clone());
        let mut known: BTreeMap<String, Option<String>> =
            product.ready_gateways()?.into_iter().map(|(id, address)| (id, Some(address))).collect();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while !stopped.load(Ordering::Relaxed) {
                let count = pods.count();
                if count != seen {
                    seen = count;
                    pods.newest().iter().for_each(|(name, pod)| guide(&pool, &calls, &mut known, name, pod));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn guide(pool: &Pool, calls: &Calls, known: &mut BTreeMap<String, Option<String>>, name: &str, pod: &Value) {
    if !name.starts_with(&format!("{NAME}-gateway-")) {
        return;
    }
    let ip = pod["status"]["podIP"].as_str().filter(|_| is_ready(pod));
    let now = ip.map(|ip| calls.public(name, ip));
    match known.get(name) {
        Some(before) if *before == now => return,
        None if now.is_none() => return,
        None => now.iter().for_each(|address| pool.add(name, address)),
        Some(_) => match &now {
            Some(address) => {
                pool.readdress(name, address);
                pool.open(name);
            }
            None => pool.shut(name),
        },
    }
    known.insert(name.to_owned(), now);
}

impl Drop for Guide {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
