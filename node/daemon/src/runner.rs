//! The one loop that owns the core (architecture invariant 3), on a thread of its own.
//!
//! Inputs come from the disk thread, the connections, the handles and the clock; actions go to the disk thread, the
//! outboxes and whoever waits for an answer. Nothing here decides anything. Control before bulk before commands, each
//! in bounded batches; the view is published once per batch, if it changed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ais_ha::{Action, Ended, Halt, HardState, Input, Node, RecoverRefused, RoleName, Transferred, View};
use ais_meta::{Address, NodeId, RequestId, Stamp};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::Answers;
use crate::clock;
use crate::discovery::{self, News, Source};
use crate::disk::{Lock, Report, Store, Writer, aside};
use crate::handle::{Command, Handle, Identity, Proposed, proposed};
use crate::hooks::Hooks;
use crate::keyring::Keyring;
use crate::peers::{self, Greeting, Peers};
use crate::tls::Tls;
use crate::unproven::Unproven;

/// Members that administrators may have named; the way in needs one.
const INTRODUCED_MAX: usize = 16;
const EVENTS_MAX: usize = 4096;
const BULK_EVENTS_MAX: usize = 64;
/// Taken at one go from each source, before the view is published.
const BATCH: usize = 256;
const BULK_BATCH: usize = 16;
/// How long a process that ends waits for its last words to be sent, and for its last records to be written.
const LAST_WORDS: Duration = Duration::from_millis(200);
const LAST_RECORDS: Duration = Duration::from_millis(1000);
/// A timer may be early by less.
const HANG_EXTRA: Duration = Duration::from_millis(2);
/// Between two looks for connections that nobody needs.
const TIDY: Duration = Duration::from_secs(5);

/// What [`start`] needs.
pub struct Setup {
    /// For the core.
    pub config: ais_ha::Config,
    /// From the disk.
    pub hard: HardState,
    /// For the disk thread.
    pub store: Store,
    /// Held until the thread ends.
    pub lock: Lock,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Keys of members' connections.
    pub keyring: Keyring,
    /// Their certificates, where the cluster has TLS.
    pub tls: Option<Tls>,
    /// What they are greeted with.
    pub greeting: Greeting,
    /// Where they come in; not blocking.
    pub listener: std::net::TcpListener,
    /// Who this process is.
    pub identity: Identity,
    /// The discovery file and what it said.
    pub discovery: (Source, News),
    /// Where bulk connections and look-ups live.
    pub runtime: runtime::Handle,
    /// Counters.
    pub hooks: Arc<dyn Hooks>,
}

/// Starts the core's thread.
///
/// # Errors
/// The system's.
pub fn start(setup: Setup) -> io::Result<(Handle, JoinHandle<()>)> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let hang = Duration::from_millis(setup.config.timers.suspect_ms);
    let node_id = setup.config.member.id.clone();
    let node = Node::boot(setup.config, setup.hard, clock::now_ms());
    let (handle, ends) = Handle::new(setup.identity, node.view());
    let (reports_in, reports) = mpsc::channel(64);
    let (events_in, events) = mpsc::channel(EVENTS_MAX);
    let (bulk_in, bulk) = mpsc::channel(BULK_EVENTS_MAX);
    let writer = Writer::start(setup.store, reports_in, Arc::clone(&setup.hooks))?;
    let (source, news) = setup.discovery;
    let formed = watch::Sender::new(false);
    let discovery = discovery::watch(&setup.runtime, source, news.clone(), formed.subscribe());
    let network = peers::Setup {
        keyring: setup.keyring,
        tls: setup.tls,
        silence: hang,
        greeting: setup.greeting,
        listener: setup.listener,
        events: events_in,
        bulk_events: bulk_in,
        bulk_runtime: setup.runtime,
        hooks: Arc::clone(&setup.hooks),
    };
    let hooks = setup.hooks;
    let place = Place { directory: setup.state_dir, node: node_id, lock: setup.lock };
    let thread = std::thread::Builder::new().name("ha".to_owned()).spawn(move || {
        let halt = runtime.block_on(async move {
            let peers = match Peers::start(network) {
                Ok(peers) => peers,
                Err(error) => {
                    ends.halt.send_replace(Some(Halt::Broken(format!("cannot listen for peers: {error}"))));
                    return ends.halt;
                }
            };
            let runner = Runner {
                node,
                writer,
                peers,
                waiting: Waiting::default(),
                answers: Answers::default(),
                view: ends.view,
                primary_since_ms: ends.primary_since_ms,
                unproven: ends.unproven,
                leaderless_since: None,
                lists: (BTreeMap::new(), news.book),
                introduced: BTreeMap::new(),
                tidied: Instant::now(),
                formed,
                hooks,
                place,
                hang: Hang { after: hang, told: false },
                halt: None,
            };
            let sources = Sources { reports, events, bulk, commands: ends.commands, stop: ends.stop, discovery };
            let (end, place) = runner.run(sources).await;
            // Whoever hears of the end may start the next process at once.
            drop(place);
            ends.halt.send_replace(Some(end));
            ends.halt
        });
        drop(halt);
    })?;
    Ok((handle, thread))
}

struct Sources {
    reports: mpsc::Receiver<Report>,
    events: mpsc::Receiver<Input>,
    bulk: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    stop: watch::Receiver<bool>,
    discovery: discovery::Watch,
}

/// Who waits for the core's answers.
#[derive(Default)]
struct Waiting {
    /// Several may ask under one id of a client.
    mutations: BTreeMap<RequestId, Vec<oneshot::Sender<Proposed>>>,
    transfers: BTreeMap<u64, oneshot::Sender<Transferred>>,
    pulls: BTreeMap<u64, oneshot::Sender<bool>>,
    recoveries: BTreeMap<u64, oneshot::Sender<Result<Stamp, RecoverRefused>>>,
    last_nonce: u64,
}

/// The state directory as this process holds it.
struct Place {
    directory: PathBuf,
    node: NodeId,
    lock: Lock,
}

/// A disk that does not answer says nothing: its silence is told in its place.
struct Hang {
    after: Duration,
    told: bool,
}

struct Runner {
    node: Node,
    writer: Writer,
    peers: Peers,
    waiting: Waiting,
    answers: Answers,
    view: watch::Sender<Arc<View>>,
    primary_since_ms: Arc<AtomicU64>,
    unproven: Arc<Unproven>,
    leaderless_since: Option<Instant>,
    /// Peers as the core and as the discovery file name them.
    lists: (BTreeMap<NodeId, Address>, BTreeMap<NodeId, Address>),
    /// Members that an administrator named (join-by-admin).
    introduced: BTreeMap<NodeId, Address>,
    tidied: Instant,
    formed: watch::Sender<bool>,
    hooks: Arc<dyn Hooks>,
    place: Place,
    hang: Hang,
    halt: Option<Halt>,
}

impl Runner {
    async fn run(mut self, mut from: Sources) -> (Halt, Place) {
        self.set_book();
        self.step(Input::Tick);
        loop {
            self.publish();
            if let Some(halt) = self.halt.take() {
                return self.end(halt, from).await;
            }
            tokio::select! {
                biased;
                // A handle that is gone asks for nothing.
                Ok(()) = from.stop.changed() => self.step(Input::Stop),
                Some(report) = from.reports.recv() => self.report(report),
                Some(input) = from.events.recv() => self.step(input),
                Some(news) = from.discovery.next() => self.discovered(news),
                Some(input) = from.bulk.recv() => self.step(input),
                Some(command) = from.commands.recv() => self.command(command, &from.discovery),
                () = self.deadline() => self.step(Input::Tick),
            }
            self.drain(&mut from);
            self.notice_hang();
        }
    }

    /// Whatever else is there already, so that no source starves another.
    fn drain(&mut self, from: &mut Sources) {
        while let Ok(report) = from.reports.try_recv() {
            self.report(report);
        }
        for _ in 0..BATCH {
            let Ok(input) = from.events.try_recv() else { break };
            self.step(input);
        }
        for _ in 0..BULK_BATCH {
            let Ok(input) = from.bulk.try_recv() else { break };
            self.step(input);
        }
        for _ in 0..BATCH {
            let Ok(command) = from.commands.try_recv() else { break };
            self.command(command, &from.discovery);
        }
    }

    async fn deadline(&self) {
        let core = self.node.deadline().map(|at| Duration::from_millis(at.saturating_sub(clock::now_ms())));
        let disk = self.writer.waiting_since().filter(|_| !self.hang.told);
        let disk = disk.map(|since| (self.hang.after + HANG_EXTRA).saturating_sub(since.elapsed()));
        match core.into_iter().chain(disk).min() {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    /// Protocol.md rule 8: a disk that takes longer than `suspect` counts as one that fails, until it answers.
    fn notice_hang(&mut self) {
        let Some(since) = self.writer.waiting_since().filter(|_| !self.hang.told) else { return };
        let waited = since.elapsed();
        if waited > self.hang.after {
            self.hang.told = true;
            let why = format!("a write has not ended for {} ms: the disk hangs", waited.as_millis());
            tracing::error!(%why, "cannot write the state directory");
            self.hooks.persist_failed();
            self.step(Input::PersistFailed { why });
        }
    }

    fn step(&mut self, input: Input) {
        if self.halt.is_some() {
            return;
        }
        if let Input::Message(packet) = &input {
            tracing::trace!(from = %packet.from.id.node, epoch = packet.epoch, message = packet.message.name(), "got");
        }
        for action in self.node.step(clock::now_ms(), input) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Persist(persist) => self.writer.submit(persist),
            Action::Send { to, packet } => {
                tracing::trace!(%to, epoch = packet.epoch, message = packet.message.name(), "sent");
                self.peers.send(&to, packet);
            }
            Action::Reply { request, reply } => {
                let mut end = proposed(&request, reply);
                if let RequestId::Client(id) = &request {
                    // Here, where also those are noted whose callers went away.
                    end = self.unproven.told(id, end);
                }
                for done in self.waiting.mutations.remove(&request).unwrap_or_default() {
                    self.answers.hold(done, end.clone());
                }
            }
            Action::Transferred { nonce, result } => {
                if let Some(done) = self.waiting.transfers.remove(&nonce) {
                    self.answers.hold(done, result);
                }
            }
            Action::Pulled { nonce, fresh } => {
                if let Some(done) = self.waiting.pulls.remove(&nonce) {
                    self.answers.hold(done, fresh);
                }
            }
            Action::Recovered { nonce, result } => {
                match &result {
                    Ok(stamp) => tracing::warn!(%stamp, "a lost majority was recovered"),
                    Err(why) => tracing::warn!(%why, "not recovered"),
                }
                if let Some(done) = self.waiting.recoveries.remove(&nonce) {
                    self.answers.hold(done, result);
                }
            }
            Action::Abandoned { held, by } => {
                tracing::warn!(%held, %by, "a recovered line replaces what this node had accepted");
            }
            Action::Publish(state) => tracing::debug!(stamp = %state.stamp(), "published"),
            // The view tells.
            Action::RoleChanged => {}
            Action::Halt(halt) => self.halt = self.halt.take().or(Some(halt)),
        }
    }

    fn report(&mut self, report: Report) {
        // It answers: whether it works, it says itself.
        self.hang.told = false;
        self.step(match report {
            Report::Persisted { token, took_ms } => Input::Persisted { token, took_ms },
            Report::Failed { why } => Input::PersistFailed { why },
        });
    }

    fn command(&mut self, command: Command, discovery: &discovery::Watch) {
        match command {
            Command::Propose { client_id, change, basis, done } => {
                let Some(request) = client_id.map(RequestId::Client).or_else(|| self.node.request_id()) else {
                    drop(done.send(Proposed::Busy));
                    return;
                };
                let waiters = self.waiting.mutations.entry(request.clone()).or_default();
                waiters.push(done);
                if waiters.len() == 1 {
                    self.step(Input::Propose { request, change, basis });
                }
            }
            Command::Transfer { to, expected_primary, expected_epoch, done } => {
                let nonce = self.waiting.nonce();
                self.waiting.transfers.insert(nonce, done);
                self.step(Input::Transfer { nonce, to, expected_primary, expected_epoch });
            }
            Command::Pull { done } => {
                let nonce = self.waiting.nonce();
                self.waiting.pulls.insert(nonce, done);
                self.step(Input::Pull { nonce });
            }
            Command::Recover { stamp, done } => {
                let nonce = self.waiting.nonce();
                self.waiting.recoveries.insert(nonce, done);
                self.step(Input::Recover { nonce, stamp });
            }
            Command::Poke => {
                self.peers.poke();
                discovery.poke();
            }
            Command::Introduce { node, peer } => {
                while self.introduced.len() >= INTRODUCED_MAX {
                    self.introduced.pop_first();
                }
                self.introduced.insert(node, peer);
                self.set_book();
                self.peers.poke();
            }
        }
    }

    fn discovered(&mut self, news: News) {
        self.lists.1 = news.book;
        self.set_book();
        self.step(Input::Discovery(news.discovery));
    }

    fn set_book(&mut self) {
        let mut book: BTreeMap<NodeId, Vec<Address>> = BTreeMap::new();
        for (node, address) in self.lists.0.iter().chain(&self.lists.1).chain(&self.introduced) {
            let known = book.entry(node.clone()).or_default();
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        self.peers.set_book(&book);
        self.tidied = Instant::now();
    }

    fn publish(&mut self) {
        self.show();
        self.answers.give();
    }

    fn show(&mut self) {
        let mut fresh = self.node.view();
        if fresh.primary.is_none()
            && let Some(why) = self.peers.locked_out()
        {
            fresh.reason = format!("{}; {why}", fresh.reason);
        }
        let old = Arc::clone(&self.view.borrow());
        if *old == fresh {
            if self.tidied.elapsed() > TIDY {
                self.set_book();
            }
            return;
        }
        if old.peers != fresh.peers || self.lists.0.is_empty() || self.tidied.elapsed() > TIDY {
            self.lists.0 = fresh.peers.iter().map(|(id, peer)| (id.clone(), peer.addresses.peer.clone())).collect();
            self.set_book();
        }
        let formed = fresh.genesis.is_formed();
        self.peers.set_cluster(fresh.uuid.as_ref(), formed);
        self.formed.send_if_modified(|known| std::mem::replace(known, formed) != formed);
        self.note_primary(&old, &fresh);
        self.hooks.stats(&self.node.stats());
        self.view.send_replace(Arc::new(fresh));
    }

    fn note_primary(&mut self, old: &View, fresh: &View) {
        let primary = |view: &View| view.primary.as_ref().map(|p| (p.id.clone(), view.epoch));
        if old.role != fresh.role || primary(old) != primary(fresh) || old.reason != fresh.reason {
            let leader = fresh.primary.as_ref().map(|p| p.id.to_string()).unwrap_or_default();
            tracing::info!(
                role = fresh.role.as_str(),
                primary = leader,
                epoch = fresh.epoch,
                ready = fresh.ready,
                reason = fresh.reason,
                "view"
            );
        }
        if fresh.primary.is_none() {
            self.primary_since_ms.store(0, Ordering::Relaxed);
            if old.primary.is_some() {
                self.leaderless_since = Some(Instant::now());
            }
        } else if primary(old) != primary(fresh) || self.primary_since_ms.load(Ordering::Relaxed) == 0 {
            self.primary_since_ms.store(clock::unix_ms(), Ordering::Relaxed);
            if let Some(since) = self.leaderless_since.take() {
                self.hooks.failover(since.elapsed());
            }
        }
    }

    /// The core has ended: last words, last records, an answer to everybody.
    async fn end(mut self, halt: Halt, mut from: Sources) -> (Halt, Place) {
        for (request, waiters) in std::mem::take(&mut self.waiting.mutations) {
            for done in waiters {
                drop(done.send(Proposed::Unknown { id: request.to_string() }));
            }
        }
        from.commands.close();
        while let Ok(command) = from.commands.try_recv() {
            if let Command::Propose { done, .. } = command {
                drop(done.send(Proposed::Unavailable));
            }
        }
        if matches!(halt, Halt::Broken(_)) {
            return (halt, self.place);
        }
        self.peers.flush(LAST_WORDS).await;
        // The thread may be waiting to report, which nobody reads any more.
        drop(from.reports);
        let written = self.writer.close(LAST_RECORDS);
        let done = match &halt {
            Halt::Stopped | Halt::Broken(_) | Halt::Shutdown => Ok(()),
            _ if !written => Err("the disk hangs".to_owned()),
            Halt::SetAside(_) => self.place.set_aside(),
            Halt::Decommissioned { ended, .. } => self.place.empty(ended.as_ref()),
        };
        if let Err(why) = done {
            // The next start finds the same records, and the same peers tell it the same.
            tracing::error!(%why, "the records could not be set aside");
        }
        if matches!(halt, Halt::Decommissioned { .. }) {
            // For a process that stays: whoever asks learns why it serves nothing.
            self.view.send_modify(|view| {
                let view = Arc::make_mut(view);
                (view.role, view.ready, view.primary) = (RoleName::Stopping, false, None);
                view.reason = "decommissioned: this node is no member any more; it may join again as a new one".into();
            });
        }
        (halt, self.place)
    }
}

impl Place {
    fn set_aside(&self) -> Result<(), String> {
        aside::set_aside(&self.directory, &self.node, &self.lock).map_err(|e| e.to_string())
    }

    fn empty(&self, ended: Option<&Ended>) -> Result<(), String> {
        aside::empty(&self.directory, &self.node, &self.lock, ended).map_err(|e| e.to_string())
    }
}

impl Waiting {
    fn nonce(&mut self) -> u64 {
        self.last_nonce += 1;
        self.last_nonce
    }
}
