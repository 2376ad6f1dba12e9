//! What happened, in order: every version of an object that the API server told of, and samples of the nodes' views.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ais_meta::auth::Secret;
use anyhow::{Context, Result};
use serde_json::Value;

use super::{Calls, Product};
use crate::client;
use crate::history::Sample;
use crate::testbed::Kubectl;

/// Versions kept of one watch; a test that makes more is stuck in a loop.
const VERSIONS_MAX: usize = 20_000;
const SAMPLE_EVERY: Duration = Duration::from_millis(25);

/// Before a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(200);

/// A `kubectl get --watch` at work, begun again whenever it ends: the API server ends all watches of a resource whose
/// definition changes.
#[derive(Debug)]
pub struct Watched {
    /// The process under way; `None` once nobody watches any more.
    child: Arc<Mutex<Option<Child>>>,
    seen: Arc<Mutex<Vec<(Instant, Value)>>>,
}

impl Watched {
    /// Watches what `args` select.
    pub fn start(kubectl: &Kubectl, args: &[&str]) -> Result<Self> {
        let cmd = kubectl.cmd(["get", "--watch", "-o", "json"]).args(args);
        let begin = move || {
            let mut command = cmd.to_command();
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().context("cannot start kubectl get --watch")?;
            let out = child.stdout.take().context("no output of kubectl get --watch")?;
            anyhow::Ok((child, out))
        };
        let (first, mut out) = begin()?;
        let (child, seen) = (Arc::new(Mutex::new(Some(first))), Arc::<Mutex<Vec<(Instant, Value)>>>::default());
        let (current, into) = (child.clone(), seen.clone());
        std::thread::spawn(move || {
            loop {
                let objects = serde_json::Deserializer::from_reader(out).into_iter::<Value>();
                for object in objects.map_while(std::result::Result::ok) {
                    let mut seen = lock(&into);
                    if seen.len() < VERSIONS_MAX {
                        seen.push((Instant::now(), object));
                    }
                }
                std::thread::sleep(AGAIN);
                let mut current = lock(&current);
                let Some(ended) = current.as_mut() else { return };
                drop(ended.kill());
                drop(ended.wait());
                let Ok((next, its)) = begin() else { return };
                (*ended, out) = (next, its);
            }
        });
        Ok(Self { child, seen })
    }

    /// All versions so far.
    pub fn versions(&self) -> Vec<Value> {
        lock(&self.seen).iter().map(|(_, object)| object.clone()).collect()
    }

    /// The first version from the `from`th on that looks right, and when it came.
    pub fn first(&self, from: usize, mut right: impl FnMut(&Value) -> bool) -> Option<(Instant, Value)> {
        lock(&self.seen).iter().skip(from).find(|(_, object)| right(object)).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.seen).len()
    }

    /// The newest versions by name.
    pub fn newest(&self) -> BTreeMap<String, Value> {
        let named = |object: Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object));
        self.versions().into_iter().filter_map(named).collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(mut child) = lock(&self.child).take() {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes samples of all nodes' views, wherever their pods are at the moment.
#[derive(Debug)]
pub struct Views {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Views {
    /// Starts it for all pods that pods of this cluster are called; `start` is the load's.
    pub fn start(product: &Product, start: Instant) -> Result<Self> {
        let (names, secret) = (product.pod_names()?, product.secret()?);
        let pods = Arc::new(Watched::start(&product.kubectl, &["pods", "--selector", &Product::selector()])?);
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = names
            .into_iter()
            .map(|name| {
                let (pods, secret, stop) = (pods.clone(), secret.clone(), stop.clone());
                let calls = product.calls();
                std::thread::spawn(move || sample(&name, &calls, &pods, &secret, &stop, start))
            })
            .collect();
        let thread = std::thread::spawn(move || {
            let mut all: Vec<Sample> = threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect();
            all.sort_by_key(|sample| sample.at);
            all
        });
        Ok(Self { stop, thread })
    }

    /// Ends it and gives the samples.
    pub fn stop(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the watcher panicked")
    }
}

fn sample(
    name: &str,
    calls: &Calls,
    pods: &Watched,
    secret: &Secret,
    stop: &AtomicBool,
    start: Instant,
) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut known = 0;
    let mut control = None;
    while !stop.load(Ordering::Relaxed) {
        let count = pods.count();
        if count != known {
            known = count;
            let pod = pods.newest().remove(name);
            let ip = pod.and_then(|pod| pod["status"]["podIP"].as_str().map(str::to_owned));
            control = ip.map(|ip| calls.control(name, &ip));
        }
        if let Some(control) = &control
            && let Ok(view) = client::view(control, secret)
            // A pod's address may be another pod's by now.
            && view.node_id == name
            && samples.last().is_none_or(|last| last.view != view)
        {
            samples.push(Sample { at: start.elapsed(), view });
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
    samples
}
