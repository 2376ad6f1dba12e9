//! Authenticated connections between members (protocol.md rule 10). Where the cluster has TLS they run inside it, and
//! both sides show a certificate; the handshake with the secret is the same in both cases.
//!
//! *Flow.* Every node dials every peer it knows, twice: a control connection for heartbeats and votes, a bulk one for
//! everything large. It sends on what it dialled and reads what it accepted. Control connections live on the core's
//! own thread, bulk ones on the process's other runtime, so no data delays a vote.
//!
//! *Guarantees.* Whatever reaches the core comes from a holder of the secret, under the identity that it greeted with.
//! `ConnectionEnded` is told for EOF and reset only, and is followed by one redial of the same socket address, at
//! once, before any DNS or back-off (rule 1). All queues are bounded.
//!
//! *Caveats.* Packets may be lost at any time: the core repeats what matters.

pub mod dial;
pub mod link;
pub mod listen;
pub mod noise;
pub mod outbox;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ais_ha::{Genesis, Hello, Input, Message, Packet, Sender};
use ais_meta::{Address, BootId, ClusterUuid, NodeId, VoterId};
use tokio::runtime;
use tokio::sync::mpsc;

use crate::hooks::Hooks;
use crate::keyring::Keyring;
use crate::tls::Tls;
use link::Link;
pub use noise::Psk;
pub use wire::Greeting;

/// More peers than a cluster can have: what greets beyond it is refused.
const LINKS_MAX: usize = 8192;
/// Disks whose newest process is remembered: twice as many as there are members.
const NEWEST_MAX: usize = 8192;
/// How long a process that is not the newest of its disk is heard out.
const HEARD_OUT: Duration = Duration::from_secs(1);
/// Between two lines of the log on strangers at one address, and addresses that are told apart.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
const COMPLAINTS_MAX: usize = 256;

/// What all connections of a process share.
pub struct Shared {
    keyring: Keyring,
    /// Around the handshakes with the secret, where the cluster has TLS.
    tls: Option<Tls>,
    /// How long a control connection may stay without an answer before another one is dialled.
    silence: Duration,
    greeting: Mutex<Greeting>,
    /// The newest process of each disk that greeted.
    newest: Mutex<BTreeMap<VoterId, (u64, BootId)>>,
    /// Accepted control connections that are open, by process.
    accepted: Mutex<BTreeMap<Sender, usize>>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// When the log last said that connections from there are not accepted: a peer tries again several times a second.
    complaints: Mutex<BTreeMap<IpAddr, Instant>>,
    events: mpsc::Sender<Input>,
    bulk_events: mpsc::Sender<Input>,
    /// Where bulk connections live.
    bulk_runtime: runtime::Handle,
    hooks: Arc<dyn Hooks>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn greeting(&self) -> Greeting {
        lock(&self.greeting).clone()
    }

    /// Why we do not talk with this process, if we do not.
    fn refusal(&self, theirs: &Greeting) -> Option<String> {
        let ours = lock(&self.greeting);
        if theirs.common_version(&ours).is_none() {
            return Some(format!("speaks wire version {}, this node {}", theirs.wire_version, ours.wire_version));
        }
        if theirs.boot == ours.boot {
            return Some("that is this very process".to_owned());
        }
        if theirs.node_id == ours.node_id {
            return Some(format!("node id {} is this node's own", theirs.node_id));
        }
        if theirs.foreign_to(&ours) {
            let name = |uuid: &Option<ClusterUuid>| uuid.as_ref().map_or_else(String::new, ToString::to_string);
            return Some(format!("belongs to cluster {}, this node to {}", name(&theirs.uuid), name(&ours.uuid)));
        }
        drop(ours);
        let sender = theirs.sender();
        let newest = self.newer_than(&sender).filter(|newest| self.is_here(newest))?;
        Some(if sender.run < newest.run {
            format!("run {} of {} is over, {} was seen", sender.run, sender.id, newest.run)
        } else {
            format!("two processes run as {} (run {})", sender.id, newest.run)
        })
    }

    /// The process that is known in place of this one: of a later run of the disk, or another one of the same run.
    fn newer_than(&self, sender: &Sender) -> Option<Sender> {
        let (run, boot) = *lock(&self.newest).get(&sender.id)?;
        let newest = Sender { id: sender.id.clone(), run, boot };
        (run > sender.run || (run == sender.run && boot != sender.boot)).then_some(newest)
    }

    /// Whether this process is a copied volume's, or one that was put back from an older copy. While the newest process
    /// of the disk is here it is turned away; otherwise it is heard out and told what the disk held ([`Message::Remembered`]),
    /// so that it does not wait for ever for an answer that nobody gives.
    fn is_stray(&self, sender: &Sender) -> bool {
        self.newer_than(sender).is_some()
    }

    fn is_here(&self, process: &Sender) -> bool {
        let accepted = lock(&self.accepted).contains_key(process);
        accepted || self.link(&process.id.node).is_some_and(|link| link.is_up_with(process))
    }

    /// Remembers an authenticated process that was not refused.
    fn note(&self, sender: &Sender) {
        let mut newest = lock(&self.newest);
        let entry = newest.entry(sender.id.clone()).or_insert((sender.run, sender.boot));
        if sender.run > entry.0 {
            *entry = (sender.run, sender.boot);
        }
        if newest.len() > NEWEST_MAX {
            newest.retain(|id, _| *id == sender.id || self.link(&id.node).is_some());
        }
        while newest.len() > NEWEST_MAX && newest.pop_first().is_some() {}
    }

    /// Somebody of another cluster answered: the core learns it as a hello, which it can name as the reason why it
    /// finds nobody; nothing else reaches it (rule 10).
    async fn meet_foreign(&self, theirs: &Greeting) {
        if !theirs.foreign_to(&self.greeting()) {
            return;
        }
        let genesis = theirs.uuid.clone().filter(|_| theirs.formed).map_or(Genesis::Unformed, Genesis::Formed);
        let member = ais_meta::Node {
            id: theirs.node_id.clone(),
            disk: theirs.disk,
            run: theirs.run,
            kind: theirs.kind,
            addresses: theirs.addresses.clone(),
            flags: 0,
            domain: String::new(),
            extra: ais_meta::Extra::new(),
        };
        let hello = Hello {
            member,
            leading: false,
            stopping: false,
            genesis,
            accepted: None,
            promised: ais_ha::register::Term::default(),
            primary: None,
        };
        let packet = Packet {
            uuid: theirs.uuid.clone(),
            incarnation: 0,
            epoch: 0,
            from: theirs.sender(),
            message: Message::Hello(Box::new(hello)),
        };
        self.tell(Input::Message(Box::new(packet))).await;
    }

    /// Whether the log is to tell of a stranger there, or did so a moment ago.
    fn may_complain(&self, from: IpAddr) -> bool {
        let mut complaints = lock(&self.complaints);
        complaints.retain(|_, at| at.elapsed() < COMPLAIN_EVERY);
        let fresh = complaints.len() < COMPLAINTS_MAX && !complaints.contains_key(&from);
        if fresh {
            complaints.insert(from, Instant::now());
        }
        fresh
    }

    async fn tell(&self, input: Input) {
        // Only at the end of the process nobody listens.
        drop(self.events.send(input).await);
    }

    fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        lock(&self.links).get(node).cloned()
    }

    /// The link to a peer, made when there is none. Must be called on the engine's runtime.
    fn ensure(self: &Arc<Self>, node: &NodeId) -> Option<Arc<Link>> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(node) {
            return Some(Arc::clone(link));
        }
        if links.len() >= LINKS_MAX {
            return None;
        }
        let link = Link::start(self, node.clone());
        links.insert(node.clone(), Arc::clone(&link));
        Some(link)
    }

    fn has_accepted(&self, node: &NodeId) -> bool {
        lock(&self.accepted).keys().any(|s| s.id.node == *node)
    }
}

/// What [`Peers::start`] needs.
pub struct Setup {
    /// Keys of the handshakes.
    pub keyring: Keyring,
    /// Around them, where the cluster has TLS.
    pub tls: Option<Tls>,
    /// How long a control connection may stay without an answer before another one is dialled (`suspect`).
    pub silence: Duration,
    /// What we say of ourselves.
    pub greeting: Greeting,
    /// Bound, not blocking.
    pub listener: std::net::TcpListener,
    /// Where control events go.
    pub events: mpsc::Sender<Input>,
    /// Where bulk packets go.
    pub bulk_events: mpsc::Sender<Input>,
    /// Where bulk connections live.
    pub bulk_runtime: runtime::Handle,
    /// Counters.
    pub hooks: Arc<dyn Hooks>,
}

/// All connections. Lives on the engine's runtime.
pub struct Peers {
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

impl Peers {
    /// Starts listening. Must be called on the engine's runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn start(setup: Setup) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(setup.listener)?;
        let shared = Arc::new(Shared {
            keyring: setup.keyring,
            tls: setup.tls,
            silence: setup.silence,
            greeting: Mutex::new(setup.greeting),
            newest: Mutex::default(),
            accepted: Mutex::default(),
            links: Mutex::default(),
            complaints: Mutex::default(),
            events: setup.events,
            bulk_events: setup.bulk_events,
            bulk_runtime: setup.bulk_runtime,
            hooks: setup.hooks,
        });
        let listening = tokio::spawn(listen::run(Arc::clone(&shared), listener));
        Ok(Self { shared, listening })
    }

    /// Whom to keep connections with, and where they may be. Others are kept only while they keep one with us.
    pub fn set_book(&self, book: &BTreeMap<NodeId, Vec<Address>>) {
        let own = self.shared.greeting().node_id;
        for (node, addresses) in book.iter().filter(|(node, _)| **node != own) {
            if let Some(link) = self.shared.ensure(node) {
                link.set_addresses(addresses);
            }
        }
        let strangers = |node: &NodeId| !book.contains_key(node) && !self.shared.has_accepted(node);
        lock(&self.shared.links).retain(|node, link| {
            let keep = !strangers(node);
            if !keep {
                link.stop();
            }
            keep
        });
    }

    /// What to greet with from now on.
    pub fn set_cluster(&self, uuid: Option<&ClusterUuid>, formed: bool) {
        let mut greeting = lock(&self.shared.greeting);
        (greeting.uuid, greeting.formed) = (uuid.cloned(), formed);
    }

    /// Sends to a node; lost when there is no connection.
    pub fn send(&self, to: &NodeId, packet: Box<Packet>) {
        if let Some(link) = self.shared.link(to) {
            link.send(packet);
        }
    }

    /// Why nobody talks with us, if it is for want of the right secret.
    #[must_use]
    pub fn locked_out(&self) -> Option<&'static str> {
        const SECRETS: &str = "peers close the connection before they answer: compare this node's secret with theirs";
        const TLS: &str = "peers close the connection before they answer: compare this node's certificate, authorities \
                           and secret with theirs";
        let links = lock(&self.shared.links);
        let none_up = links.values().all(|link| !link.is_up());
        (none_up && links.values().any(|link| link.is_rejected())).then_some(if self.shared.tls.is_some() {
            TLS
        } else {
            SECRETS
        })
    }

    /// Ends all back-offs.
    pub fn poke(&self) {
        for link in lock(&self.shared.links).values() {
            link.wake();
        }
    }

    /// Waits until everything queued is in the sockets, at most for `patience`: the last words of a process.
    pub async fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && lock(&self.shared.links).values().any(|link| !link.is_idle()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.listening.abort();
        for link in lock(&self.shared.links).values() {
            link.stop();
        }
    }
}

/// IPv6 sockets report IPv4 peers as mapped addresses; dialled and compared as IPv4.
fn plain_ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
