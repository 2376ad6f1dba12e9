//! The clients and the watcher of views.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ais_meta::auth::Secret;
use anyhow::{Context, Result, anyhow};

use super::pool::{Pool, Use};
use super::{Action, Answer, Op, Sample};
use crate::client;
use crate::http::{Failure, Reply};

/// Calls of one request until an answer is known.
const ATTEMPTS_MAX: usize = 8;
/// Between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Of a sticky client's calls, one in so many goes elsewhere.
const ELSEWHERE_ONE_IN: usize = 20;
/// Before a call is tried again because nobody listened.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// A small random generator (xorshift): drills need variety, not quality.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from `from` to `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        let span = usize::try_from(to.saturating_sub(from) + 1).unwrap_or(usize::MAX);
        from + u64::try_from(self.below(span)).unwrap_or_default()
    }

    /// A number below `end`, 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % end.max(1)
    }
}

/// How the clients behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many work at the same time.
    pub clients: usize,
    /// Between two buckets of one client.
    pub pause: Duration,
    /// Begins the name of every bucket.
    pub prefix: String,
    /// Each client has a gateway that it mostly calls: one whose gateway is cut off does not hold up the others.
    pub sticky: bool,
}

impl Options {
    /// Three clients.
    pub fn new(prefix: &str) -> Self {
        Self { clients: 3, pause: Duration::from_millis(10), prefix: prefix.to_owned(), sticky: false }
    }

    /// Two clients for each of so many gateways.
    pub fn sticky(prefix: &str, gateways: usize) -> Self {
        Self { clients: 2 * gateways, pause: Duration::from_millis(25), sticky: true, ..Self::new(prefix) }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Op>>>,
    start: Instant,
}

impl Load {
    /// Starts them.
    pub fn start(pool: &Arc<Pool>, options: &Options) -> Self {
        let (stop, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let threads = (0..options.clients).map(|number| {
            let random = Random::new(u64::from(std::process::id()) << 8 | number as u64);
            let name = format!("{}{number}", options.prefix);
            let (pool, stop, home) = (pool.clone(), stop.clone(), options.sticky.then_some(number));
            let mut client = Client { name, pool, random, home, start, ops: Vec::new(), stop };
            let pause = options.pause;
            std::thread::spawn(move || {
                let mut count = 0u64;
                while !client.stop.load(Ordering::Relaxed) {
                    client.one_bucket(count);
                    count += 1;
                    std::thread::sleep(pause);
                }
                client.ops
            })
        });
        Self { threads: threads.collect(), stop, start }
    }

    /// When they began.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// Lets them finish what they are at, and gives what they were told.
    pub fn stop(mut self) -> Result<Vec<Op>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))?);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a drill that failed: the next cluster may have the same addresses.
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

struct Client {
    name: String,
    pool: Arc<Pool>,
    random: Random,
    home: Option<usize>,
    start: Instant,
    ops: Vec<Op>,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// The life of one bucket, with questions and repetitions on the way.
    fn one_bucket(&mut self, count: u64) {
        let bucket = format!("{}-{count}", self.name);
        let own_id = |what: &str| format!("{bucket}-{what}");
        let named = self.random.below(3) > 0;
        let create = named.then(|| own_id("c"));
        let Some((answer, at)) = self.settle(Action::Create, &bucket, create.as_deref()) else { return };
        if answer != Answer::Done {
            return;
        }
        let look = if self.random.below(4) == 0 { Action::List } else { Action::Head };
        self.once(look, &bucket, None, Some(&at));
        match self.random.below(4) {
            // The same request again, through somebody else: the same answer.
            0 if named => self.once(Action::Create, &bucket, create.as_deref(), Some(&at)).map_or((), drop),
            // Another request for the same: refused.
            1 => drop(self.settle(Action::Create, &bucket, None)),
            _ => {}
        }
        if self.random.below(2) == 0 {
            return;
        }
        let delete = (self.random.below(2) == 0).then(|| own_id("d"));
        let Some((answer, at)) = self.settle(Action::Delete, &bucket, delete.as_deref()) else { return };
        if answer != Answer::Done {
            return;
        }
        match self.random.below(4) {
            // A late copy of the create must not bring the bucket back.
            0 if named => self.once(Action::Create, &bucket, create.as_deref(), Some(&at)).map_or((), drop),
            1 => drop(self.settle(Action::Delete, &bucket, None)),
            _ => self.once(Action::Head, &bucket, None, Some(&at)).map_or((), drop),
        }
    }

    /// Calls until an answer is known: with an own id again and again, as the id makes that safe; without one only
    /// while nobody listened.
    fn settle(&mut self, action: Action, bucket: &str, request: Option<&str>) -> Option<(Answer, String)> {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let (answer, at) = self.once(action, bucket, request, last.as_deref())?;
            if answer != Answer::Unknown || request.is_none() {
                return Some((answer, at));
            }
            last = Some(at);
        }
        None
    }

    fn pick(&mut self, not: Option<&str>) -> Option<Use> {
        let home = self.home.filter(|_| self.random.below(ELSEWHERE_ONE_IN) > 0);
        match home.and_then(|home| self.pool.nth(home)) {
            Some(gateway) => Some(gateway),
            None => self.pool.pick(&mut self.random, not),
        }
    }

    /// One call that reached a gateway; its answer and the gateway. `None` when the load ends before one listened.
    fn once(
        &mut self,
        action: Action,
        bucket: &str,
        request: Option<&str>,
        not: Option<&str>,
    ) -> Option<(Answer, String)> {
        loop {
            let invoked = self.start.elapsed();
            let gateway = self.pick(not)?;
            let result = send(&gateway, action, bucket, request);
            if matches!(result, Err(Failure::NotSent(_))) {
                // Like the SDK: nothing was sent, try again. It had no effect and is no part of the history.
                if self.stop.load(Ordering::Relaxed) {
                    return None;
                }
                std::thread::sleep(AGAIN_AFTER);
                continue;
            }
            let answer = judge(action, bucket, &result);
            let said = match &result {
                _ if matches!(answer, Answer::Done | Answer::Exists | Answer::Missing) => String::new(),
                Ok(reply) => format!("{} {}", reply.status, reply.text()),
                Err(failure) => failure.to_string(),
            };
            let stamp = result.ok().as_ref().and_then(client::stamp_of);
            let (bucket, request) = (bucket.to_owned(), request.map(str::to_owned));
            let returned = self.start.elapsed();
            let op =
                Op { action, bucket, gateway: gateway.id.clone(), request, invoked, returned, answer, stamp, said };
            self.ops.push(op);
            return Some((answer, gateway.id));
        }
    }
}

fn send(gateway: &Use, action: Action, bucket: &str, request: Option<&str>) -> Result<Reply, Failure> {
    match action {
        Action::Create => client::create_bucket(&gateway.address, bucket, request),
        Action::Delete => client::delete_bucket(&gateway.address, bucket, request),
        Action::Head => client::head_bucket(&gateway.address, bucket),
        Action::List => client::list_buckets(&gateway.address),
    }
}

fn judge(action: Action, bucket: &str, result: &Result<Reply, Failure>) -> Answer {
    let Ok(reply) = result else { return Answer::Unknown };
    match reply.status {
        200..300 if action == Action::List => match client::listed_names(reply) {
            Ok(names) if names.contains(bucket) => Answer::Done,
            Ok(_) => Answer::Missing,
            Err(_) => Answer::Failed(reply.status),
        },
        200..300 => Answer::Done,
        404 => Answer::Missing,
        409 => Answer::Exists,
        503 => Answer::Refused,
        504 => Answer::Unknown,
        other => Answer::Failed(other),
    }
}

/// A node to look at.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Control address.
    pub control: String,
    /// How far its wall clock is ahead, in milliseconds.
    pub skew_ms: Arc<AtomicI64>,
}

/// Takes samples of all nodes' views.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    secret: Secret,
    start: Instant,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

impl Watch {
    /// Starts it for these nodes; `start` is the load's.
    pub fn start(nodes: Vec<Watched>, secret: Secret, start: Instant) -> Self {
        let mut watch = Self { stop: Arc::new(AtomicBool::new(false)), secret, start, threads: Vec::new() };
        nodes.into_iter().for_each(|node| watch.add(node));
        watch
    }

    /// Another node; a thread each: a paused one must not keep the others from being looked at.
    pub fn add(&mut self, node: Watched) {
        let (stop, secret, start) = (self.stop.clone(), self.secret.clone(), self.start);
        self.threads.push(std::thread::spawn(move || watch_one(&node, &secret, start, &stop)));
    }

    /// Ends it and gives the samples.
    pub fn stop(mut self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            all.extend(thread.join().ok().context("the watcher panicked")?);
        }
        all.sort_by_key(|sample| sample.at);
        Ok(all)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn watch_one(node: &Watched, secret: &Secret, start: Instant, stop: &AtomicBool) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut view) = client::view_skewed(&node.control, secret, node.skew_ms.load(Ordering::Relaxed)) {
            // What is not judged only takes memory.
            (view.members, view.electorate) = (Vec::new(), Vec::new());
            if samples.last().is_none_or(|last| last.view != view) {
                samples.push(Sample { at: start.elapsed(), view });
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    samples
}
