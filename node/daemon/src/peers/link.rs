//! Our own connections to one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ais_ha::{Input, Message, Packet, Redial, Sender};
use ais_meta::{Address, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::dial::{self, Attempt, Dialled, Place};
use super::noise::{HANDSHAKE_TIMEOUT, PeerError, Psk, Seal};
use super::outbox::Outbox;
use super::wire::{Channel, Greeting};
use super::{HEARD_OUT, Shared, listen, lock};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// The longest back-off from a peer whose connection was lost not longer ago than `RECENT`: it is expected back.
const BACKOFF_RECENT: Duration = Duration::from_millis(400);
const RECENT: Duration = Duration::from_secs(60);
/// A process that ends may close a connection so, too; one that lives and does it again holds other secrets.
const REJECTED: u32 = 3;
/// Between redials of a peer that did not answer while our own connection to it stands.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// Between tries to move a connection to the first key.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Addresses tried for one peer at once.
const ADDRESSES_MAX: usize = 8;
/// Bytes gathered into one write.
const BATCH_MAX: usize = 256 << 10;

/// The control connection as the bulk one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Up {
    peer: Sender,
    at: SocketAddr,
    /// Counts connections: the same process again is news as well.
    count: u64,
}

/// Our connections to one peer, and where it may be.
pub struct Link {
    node: NodeId,
    addresses: Mutex<Vec<Address>>,
    /// From its own greeting.
    told: Mutex<Option<(Address, SocketAddr)>>,
    resolved: Mutex<BTreeMap<Address, Vec<SocketAddr>>>,
    resolving: AtomicBool,
    wake: Notify,
    ended: mpsc::Sender<(Sender, SocketAddr)>,
    control: Outbox,
    bulk: Outbox,
    up: watch::Sender<Option<Up>>,
    /// What a stray process of the peer's disk is to be told.
    word: Mutex<Option<Box<Packet>>>,
    bulk_up: AtomicBool,
    /// So often in a row was dialling ended before an answer.
    rejected: AtomicU32,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// How a control connection ended.
enum End {
    /// The other end closed or reset.
    Evidence(PeerError),
    /// Otherwise.
    Lost(PeerError),
    /// A new process answers at its address.
    Replaced(Box<Dialled>),
}

type Probe = Pin<Box<dyn Future<Output = (Redial, Option<Box<Dialled>>)> + Send>>;

impl Link {
    pub(super) fn start(shared: &Arc<Shared>, node: NodeId) -> Arc<Self> {
        let (ended, ended_out) = mpsc::channel(16);
        let link = Arc::new(Self {
            node,
            addresses: Mutex::default(),
            told: Mutex::default(),
            resolved: Mutex::default(),
            resolving: AtomicBool::new(false),
            wake: Notify::new(),
            ended,
            control: Outbox::new(Channel::Control, Arc::clone(&shared.hooks)),
            bulk: Outbox::new(Channel::Bulk, Arc::clone(&shared.hooks)),
            up: watch::Sender::new(None),
            word: Mutex::default(),
            bulk_up: AtomicBool::new(false),
            rejected: AtomicU32::new(0),
            tasks: Mutex::default(),
        });
        let control = tokio::spawn(Arc::clone(&link).run_control(Arc::clone(shared), ended_out));
        let bulk = tokio::spawn(Arc::clone(&link).run_bulk(Arc::clone(shared)));
        lock(&link.tasks).extend([control.abort_handle(), bulk.abort_handle()]);
        link
    }

    pub(super) fn stop(&self) {
        for task in lock(&self.tasks).iter() {
            task.abort();
        }
    }

    pub(super) fn set_addresses(&self, addresses: &[Address]) {
        let mut mine = lock(&self.addresses);
        if *mine != addresses {
            *mine = addresses.to_vec();
            self.wake.notify_one();
        }
    }

    pub(super) fn send(&self, packet: Box<Packet>) {
        if matches!(packet.message, Message::Remembered { .. }) && !self.is_up() {
            *lock(&self.word) = Some(packet);
            return self.wake();
        }
        if packet.message.is_bulk() { self.bulk.push(packet) } else { self.control.push(packet) }
    }

    /// Ends the back-off.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The peer dialled us: it lives, and this is where it says it is.
    pub(super) fn greeted(&self, told: &Address, back: SocketAddr) {
        *lock(&self.told) = Some((told.clone(), back));
        self.wake.notify_one();
    }

    pub(super) fn accepted_ended(&self, peer: Sender, at: SocketAddr) {
        // A full queue holds the same news sixteen times.
        drop(self.ended.try_send((peer, at)));
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    pub(super) fn is_up_with(&self, process: &Sender) -> bool {
        self.up.borrow().as_ref().is_some_and(|up| up.peer == *process)
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed) >= REJECTED
    }

    pub(super) fn is_idle(&self) -> bool {
        self.control.is_idle() && self.bulk.is_idle()
    }

    // ---- control

    async fn run_control(self: Arc<Self>, shared: Arc<Shared>, mut ended: mpsc::Receiver<(Sender, SocketAddr)>) {
        let (mut next, mut last, mut count) = (None, None, 0);
        let mut lost_at: Option<Instant> = None;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let dialled: Box<Dialled> = match next.take() {
                Some(dialled) => dialled,
                None => tokio::select! {
                    biased;
                    Some((peer, at)) = ended.recv() => {
                        next = self.evidence(&shared, &peer, last.unwrap_or(at), &mut ended).await;
                        continue;
                    }
                    dialled = self.seek(&shared, last, lost_at, &mut backoff) => dialled,
                },
            };
            backoff = BACKOFF_FIRST;
            count += 1;
            let (peer, at) = (dialled.peer.sender(), dialled.at);
            last = Some(at);
            self.rejected.store(0, Ordering::Relaxed);
            shared.note(&peer);
            shared.hooks.connection(true);
            self.control.set_open(true);
            self.up.send_replace(Some(Up { peer: peer.clone(), at, count }));
            tracing::debug!(peer = %peer.id, run = peer.run, %at, "connected");
            let end = self.serve(&shared, *dialled, &mut ended).await;
            self.control.set_open(false);
            self.up.send_replace(None);
            shared.hooks.connection(false);
            lost_at = Some(Instant::now());
            match end {
                End::Evidence(error) => {
                    tracing::info!(peer = %peer.id, run = peer.run, %error, "connection ended");
                    next = self.evidence(&shared, &peer, at, &mut ended).await;
                }
                End::Lost(error) => tracing::info!(peer = %peer.id, run = peer.run, %error, "connection lost"),
                End::Replaced(dialled) => next = Some(dialled),
            }
        }
    }

    /// Protocol.md rule 1: tells the end, redials at once, tells the answer.
    async fn evidence(
        &self,
        shared: &Arc<Shared>,
        peer: &Sender,
        at: SocketAddr,
        ended: &mut mpsc::Receiver<(Sender, SocketAddr)>,
    ) -> Option<Box<Dialled>> {
        let place = self.place(at);
        let redial = dial::redial(shared, peer, &place);
        shared.tell(Input::ConnectionEnded { peer: peer.clone() }).await;
        let (result, dialled) = redial.await;
        // The other direction ended too; that is answered by the same redial.
        let mut rest = Vec::new();
        while let Ok(other) = ended.try_recv() {
            if other.0 != *peer {
                rest.push(other);
            }
        }
        for (peer, at) in rest {
            self.accepted_ended(peer, at);
        }
        tracing::info!(peer = %peer.id, run = peer.run, %at, ?result, "redialled");
        shared.tell(Input::Redialled { peer: peer.clone(), result }).await;
        dialled.filter(|d| d.peer.node_id == self.node && !shared.is_stray(&d.peer.sender()))
    }

    async fn serve(
        &self,
        shared: &Arc<Shared>,
        dialled: Dialled,
        ended: &mut mpsc::Receiver<(Sender, SocketAddr)>,
    ) -> End {
        let (peer, at, psk) = (dialled.peer.sender(), dialled.at, dialled.psk);
        let place = self.place(at);
        let mut renewed = std::pin::pin!(renew(shared, &peer, &place, &psk));
        let mut revoked = std::pin::pin!(listen::revoked(shared, &psk));
        let (mut reader, writer) = tokio::io::split(dialled.stream);
        let mut writing = std::pin::pin!(write(&self.control, dialled.seal, writer));
        let mut probe: Option<Probe> = None;
        // The probe is one that was not answered before: the core knows that much.
        let mut unanswered = false;
        loop {
            tokio::select! {
                biased;
                error = eof(&mut reader) => return end_of(error),
                error = &mut writing => return end_of(error),
                dialled = &mut renewed => return End::Replaced(dialled),
                error = &mut revoked => {
                    // Ours to give up, and not for nothing: a better one may be a moment away.
                    let dialled = timeout(HANDSHAKE_TIMEOUT, &mut renewed).await;
                    return dialled.map_or(End::Lost(error), End::Replaced);
                }
                Some((lost, _)) = ended.recv() => {
                    if lost == peer && probe.is_none() {
                        shared.tell(Input::ConnectionEnded { peer: lost.clone() }).await;
                        (probe, unanswered) = (Some(redial(shared, &lost, self.place(at), Duration::ZERO)), false);
                    }
                }
                (result, dialled) = async { match &mut probe { Some(p) => p.await, None => std::future::pending().await } } => {
                    probe = None;
                    if !unanswered {
                        tracing::info!(peer = %peer.id, run = peer.run, %at, ?result, "redialled");
                        shared.tell(Input::Redialled { peer: peer.clone(), result }).await;
                    }
                    match (result, dialled) {
                        (Redial::OtherBoot, Some(dialled)) if !shared.is_stray(&dialled.peer.sender()) => {
                            return End::Replaced(dialled);
                        }
                        // Ours still stands: keep it, the peer would take its end for news.
                        (Redial::SameBoot, _) if self.bulk_up.load(Ordering::Relaxed) => {
                            shared.tell(Input::Connected { peer: peer.clone() }).await;
                        }
                        // The core takes the peer for gone until it is told otherwise, and a connection that stands
                        // tells it nothing: asked again until there is an answer, or ours ends, too.
                        (Redial::Unknown, _) => {
                            (probe, unanswered) = (Some(redial(shared, &peer, self.place(at), jittered(PROBE_EVERY))), true);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    // ---- finding it

    /// Dials all places where the peer may be until it answers.
    async fn seek(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        last: Option<SocketAddr>,
        lost_at: Option<Instant>,
        backoff: &mut Duration,
    ) -> Box<Dialled> {
        loop {
            self.resolve();
            let mut attempts = JoinSet::new();
            for at in self.places(last) {
                let (shared, place) = (Arc::clone(shared), self.place(at));
                attempts.spawn(async move { (at, dial::attempt(&shared, &place, Channel::Control).await) });
            }
            while let Some(done) = attempts.join_next().await {
                match done {
                    Ok((_, Attempt::Open(dialled))) if dialled.peer.node_id == self.node => {
                        if !shared.is_stray(&dialled.peer.sender()) {
                            return dialled;
                        }
                        self.tell_stray(*dialled).await;
                    }
                    Ok((at, Attempt::Open(dialled))) => self.somebody_else(at, &dialled.peer),
                    Ok((at, Attempt::Met(greeting, error))) => {
                        tracing::debug!(peer = %self.node, %at, %error, "not connected");
                        shared.meet_foreign(&greeting).await;
                    }
                    Ok((at, Attempt::Failed(error))) => self.not_connected(shared, at, &error),
                    Err(_) => {}
                }
            }
            let recent = lost_at.is_some_and(|at| at.elapsed() < RECENT);
            let longest = if recent { BACKOFF_RECENT } else { BACKOFF_LAST };
            tokio::select! {
                () = tokio::time::sleep(jittered((*backoff).min(longest))) => *backoff = (*backoff * 2).min(BACKOFF_LAST),
                () = self.wake.notified() => *backoff = BACKOFF_FIRST,
            }
        }
    }

    /// Tells a process that is not the newest of its disk what the core has for it, and nothing else.
    async fn tell_stray(&self, dialled: Dialled) {
        let (peer, at) = (dialled.peer.sender(), dialled.at);
        let Some(packet) = lock(&self.word).take() else {
            tracing::debug!(peer = %peer.id, run = peer.run, %at, "not the newest process of its disk");
            return;
        };
        tracing::info!(peer = %peer.id, run = peer.run, %at, "an older copy of a disk is told what the disk held");
        let (mut seal, mut stream, mut bytes) = (dialled.seal, dialled.stream, Vec::new());
        if seal.packet(&packet, &mut bytes).is_ok() {
            // Lost, it comes again with the next greeting.
            drop(timeout(HEARD_OUT, stream.write_all(&bytes)).await);
        }
    }

    fn not_connected(&self, shared: &Shared, at: SocketAddr, error: &PeerError) {
        tracing::debug!(peer = %self.node, %at, %error, "not connected");
        let tls = matches!(error, PeerError::Tls(_));
        if !tls && !error.is_end() {
            // A time-out says nothing about keys.
            return;
        }
        shared.keyring.doubt();
        if self.rejected.fetch_add(1, Ordering::Relaxed) + 1 == REJECTED {
            if tls {
                tracing::warn!(peer = %self.node, %at, %error, "not connected");
            } else {
                tracing::warn!(peer = %self.node, %at, "closed the connection before it answered: compare the cluster secrets");
            }
        }
    }

    fn somebody_else(&self, at: SocketAddr, found: &Greeting) {
        tracing::debug!(peer = %self.node, %at, found = %found.node_id, "another node answers");
    }

    fn places(&self, last: Option<SocketAddr>) -> Vec<SocketAddr> {
        let told = lock(&self.told).clone();
        let mut places: Vec<SocketAddr> = last.into_iter().chain(told.as_ref().map(|t| t.1)).collect();
        for address in self.names(told) {
            match address.host.parse() {
                Ok(ip) => places.push(SocketAddr::new(ip, address.port)),
                Err(_) => places.extend(lock(&self.resolved).get(&address).into_iter().flatten()),
            }
        }
        let mut seen = BTreeSet::new();
        places.retain(|at| seen.insert(*at));
        places.truncate(ADDRESSES_MAX);
        places
    }

    /// An address, and the names that a certificate there may be for: all by which the peer is known.
    fn place(&self, at: SocketAddr) -> Place {
        let names = self.names(lock(&self.told).clone());
        Place { at, hosts: names.into_iter().map(|name| name.host).collect() }
    }

    fn names(&self, told: Option<(Address, SocketAddr)>) -> Vec<Address> {
        let mut names = lock(&self.addresses).clone();
        names.extend(told.map(|t| t.0).filter(|t| !names.contains(t)));
        names
    }

    /// Looks the names up beside everything else; one look-up at a time. News wakes the dialling.
    fn resolve(self: &Arc<Self>) {
        let mut names = self.names(lock(&self.told).clone());
        names.retain(|a| a.host.parse::<std::net::IpAddr>().is_err());
        if names.is_empty() || self.resolving.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = Arc::clone(self);
        tokio::spawn(async move {
            for name in names {
                let found = tokio::net::lookup_host((&*name.host, name.port)).await;
                let found: Vec<SocketAddr> = found.map(|all| all.take(ADDRESSES_MAX).collect()).unwrap_or_default();
                // A name that resolves no more keeps its last addresses: a name server may be what is down.
                if !found.is_empty() && lock(&link.resolved).insert(name, found.clone()).as_ref() != Some(&found) {
                    link.wake.notify_one();
                }
            }
            link.resolving.store(false, Ordering::Release);
        });
    }

    // ---- bulk

    /// Keeps a bulk connection beside the control connection, to the same process at the same address.
    async fn run_bulk(self: Arc<Self>, shared: Arc<Shared>) {
        let mut up = self.up.subscribe();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let Ok(target) = up.wait_for(Option::is_some).await.map(|u| u.clone()) else { return };
            let Some(target) = target else { continue };
            match dial::attempt(&shared, &self.place(target.at), Channel::Bulk).await {
                Attempt::Open(dialled) if dialled.peer.sender() == target.peer => {
                    backoff = BACKOFF_FIRST;
                    self.serve_bulk(&shared, *dialled, &target, &mut up).await;
                }
                _ => {
                    tokio::select! {
                        // The control connection stands: it is expected back, too.
                        () = tokio::time::sleep(jittered(backoff)) => backoff = (backoff * 2).min(BACKOFF_RECENT),
                        _ = up.changed() => backoff = BACKOFF_FIRST,
                    }
                }
            }
        }
    }

    async fn serve_bulk(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        dialled: Dialled,
        target: &Up,
        up: &mut watch::Receiver<Option<Up>>,
    ) {
        let Ok(stream) = dialled.stream.park() else { return };
        let (link, seal, psk, peer) = (Arc::clone(self), dialled.seal, dialled.psk, &target.peer);
        // Of itself: there may be no control connection any more that it could share the lot of.
        let mut revoked = std::pin::pin!(listen::revoked(shared, &psk));
        self.bulk.set_open(true);
        let mut sending = AbortOnDrop(shared.bulk_runtime.spawn(async move {
            let stream = match stream.resume() {
                Ok(stream) => stream,
                Err(error) => return error.into(),
            };
            let (mut reader, writer) = tokio::io::split(stream);
            tokio::select! {
                error = eof(&mut reader) => error,
                error = write(&link.bulk, seal, writer) => error,
            }
        }));
        self.bulk_up.store(true, Ordering::Relaxed);
        loop {
            // Told once both connections are there. When the control connection was opened anew, this one shares its
            // lot: what broke the one has held up the other, or has changed its key.
            let now = up.borrow_and_update().clone();
            match now {
                Some(now) if now == *target => shared.tell(Input::Connected { peer: peer.clone() }).await,
                Some(_) => break,
                None => {}
            }
            tokio::select! {
                ended = &mut sending.0 => {
                    if let Ok(error) = ended {
                        tracing::debug!(peer = %peer.id, %error, "bulk connection ended");
                    }
                    break;
                }
                changed = up.changed() => if changed.is_err() { break },
                _ = &mut revoked => break,
            }
        }
        self.bulk_up.store(false, Ordering::Relaxed);
        self.bulk.set_open(false);
    }
}

/// Dials again after a pause.
fn redial(shared: &Arc<Shared>, lost: &Sender, place: Place, pause: Duration) -> Probe {
    let (shared, lost) = (Arc::clone(shared), lost.clone());
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        dial::redial(&shared, &lost, &place).await
    })
}

/// Waits until a connection is not under the first key, and there is another one that is.
async fn renew(shared: &Shared, peer: &Sender, place: &Place, psk: &Psk) -> Box<Dialled> {
    let mut changes = shared.keyring.changes();
    loop {
        if changes.wait_for(|ring| !ring.is_first(psk)).await.is_err() {
            std::future::pending::<()>().await;
        }
        let first = shared.keyring.ring().psks().first().cloned();
        if let Some(first) = first
            && let Attempt::Open(dialled) = dial::attempt_with(shared, place, Channel::Control, &first).await
            && dialled.peer.sender() == *peer
        {
            return dialled;
        }
        tokio::time::sleep(jittered(RENEW_EVERY)).await;
    }
}

/// A task on another runtime that must not outlive us.
struct AbortOnDrop(tokio::task::JoinHandle<PeerError>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn end_of(error: PeerError) -> End {
    if error.is_end() { End::Evidence(error) } else { End::Lost(error) }
}

/// Waits for the end of a connection on which nothing is ever said to us.
async fn eof(reader: &mut (impl AsyncRead + Unpin)) -> PeerError {
    let mut bytes = [0; 64];
    loop {
        match reader.read(&mut bytes).await {
            Ok(0) => return std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

/// Sends what comes into the outbox until the connection ends.
async fn write(outbox: &Outbox, mut seal: Seal, mut writer: impl AsyncWrite + Unpin) -> PeerError {
    let mut bytes = Vec::new();
    loop {
        let mut packet = outbox.next().await;
        bytes.clear();
        loop {
            if let Err(error) = fill(outbox, &mut seal, &packet, &mut bytes) {
                return error;
            }
            match outbox.try_next() {
                Some(more) if bytes.len() < BATCH_MAX => packet = more,
                Some(more) => {
                    if let Err(error) = fill(outbox, &mut seal, &more, &mut bytes) {
                        return error;
                    }
                    break;
                }
                None => break,
            }
        }
        // TLS may hold back what it was given.
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return error.into();
        }
        outbox.sent();
    }
}

/// Seals a packet. One that is too large is lost as any other may be: the connection is good for the rest.
fn fill(outbox: &Outbox, seal: &mut Seal, packet: &Packet, bytes: &mut Vec<u8>) -> Result<(), PeerError> {
    match seal.packet(packet, bytes) {
        Err(error @ PeerError::TooLong(_)) => {
            tracing::error!(%error, "a packet is dropped");
            outbox.dropped();
            Ok(())
        }
        sealed => sealed,
    }
}

/// Between half of it and all of it.
fn jittered(duration: Duration) -> Duration {
    let random = u32::try_from(getrandom::u64().unwrap_or(0) & 0xffff).unwrap_or(0);
    duration / 2 + duration / 2 * random / 0xffff
}
