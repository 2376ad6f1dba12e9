//! Connections between members over real sockets: who is let in, and what counts as the end of a process.
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions fail tests too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ais_ha::register::Term;
use ais_ha::{Input, Message, Packet, Redial, Sender};
use ais_meta::auth::Secrets;
use ais_meta::{Address, Addresses, BootId, DiskId, Kind, NodeId, Stamp, VoterId};
use ais_node::hooks::NoHooks;
use ais_node::keyring::Keyring;
use ais_node::peers::wire::{Answer, Channel, Opening};
use ais_node::peers::{Greeting, Peers, Psk, Setup, noise};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const SECRET: &[u8] = b"the-secret-of-all-members";
const OTHER: &[u8] = b"another-secret-entirely";

fn secrets(lines: &[&[u8]]) -> Secrets {
    Secrets::from_file_content(&lines.join(&b'\n')).unwrap()
}

fn keyring(lines: &[&[u8]]) -> Keyring {
    Keyring::new(Some(secrets(lines)), None)
}

fn greeting(node: &str, disk: u64, run: u64, boot: u64, at: SocketAddr) -> Greeting {
    let address = |port| Address { host: at.ip().to_string().into(), port };
    Greeting {
        wire_version: 1,
        wire_version_min: 1,
        node_id: node.parse().unwrap(),
        disk: DiskId(disk),
        run,
        boot: BootId(boot),
        kind: Kind::Gateway,
        uuid: None,
        formed: false,
        addresses: Addresses { public: address(1), control: address(2), peer: address(at.port()) },
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// A process with its connections, on a runtime of its own: ending that ends all its sockets, as a kill does.
struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    peers: Option<Peers>,
    events: mpsc::Receiver<Input>,
    greeting: Greeting,
    at: SocketAddr,
    keyring: Keyring,
}

impl Process {
    fn start(listener: TcpListener, greeting: Greeting, psk: &[u8]) -> Self {
        let at = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (events_in, events) = mpsc::channel(1024);
        let keyring = keyring(&[psk]);
        let setup = Setup {
            keyring: keyring.clone(),
            tls: None,
            silence: Duration::from_millis(1500),
            greeting: greeting.clone(),
            listener,
            events: events_in.clone(),
            bulk_events: events_in,
            bulk_runtime: runtime.handle().clone(),
            hooks: Arc::new(NoHooks),
        };
        let peers = {
            let _inside = runtime.enter();
            Peers::start(setup).unwrap()
        };
        Self { runtime: Some(runtime), peers: Some(peers), events, greeting, at, keyring }
    }

    fn new(node: &str, disk: u64, run: u64, boot: u64) -> Self {
        let (listener, at) = listener();
        Self::start(listener, greeting(node, disk, run, boot, at), SECRET)
    }

    fn knows(&self, others: &[(&str, SocketAddr)]) {
        let entry = |(node, at): &(&str, SocketAddr)| {
            let address = Address { host: at.ip().to_string().into(), port: at.port() };
            (node.parse::<NodeId>().unwrap(), vec![address])
        };
        let book: BTreeMap<_, _> = others.iter().map(entry).collect();
        let _inside = self.runtime.as_ref().unwrap().enter();
        self.peers.as_ref().unwrap().set_book(&book);
    }

    fn send(&self, to: &str, epoch: u64, message: Message) {
        let packet = Packet { uuid: None, incarnation: 0, epoch, from: self.greeting.sender(), message };
        self.peers.as_ref().unwrap().send(&to.parse().unwrap(), Box::new(packet));
    }

    /// The next event that is wanted; others are dropped.
    async fn until<T>(&mut self, what: &str, wanted: impl Fn(&Input) -> Option<T>) -> T {
        let find = async {
            loop {
                let input = self.events.recv().await.expect("events go on");
                if let Some(found) = wanted(&input) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("never saw {what}"))
    }

    async fn connected(&mut self) -> Sender {
        self.until("Connected", |i| if let Input::Connected { peer } = i { Some(peer.clone()) } else { None }).await
    }

    async fn redialled(&mut self) -> (Sender, Redial) {
        let seen =
            |i: &Input| if let Input::Redialled { peer, result } = i { Some((peer.clone(), *result)) } else { None };
        self.until("Redialled", seen).await
    }

    async fn packet(&mut self) -> Packet {
        self.until("a packet", |i| if let Input::Message(p) = i { Some((**p).clone()) } else { None }).await
    }

    fn kill(&mut self) {
        drop(self.peers.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn packets_of_all_sizes_arrive_and_who_is_dialled_dials_back() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    // Only one of them knows the other.
    a.knows(&[("g2", b.at)]);
    assert_eq!(a.connected().await, b.greeting.sender());
    assert_eq!(b.connected().await, a.greeting.sender());
    for epoch in 0..100 {
        a.send("g2", epoch, Message::Probe);
    }
    for epoch in 0..100 {
        let packet = b.packet().await;
        assert_eq!((packet.epoch, packet.from), (epoch, a.greeting.sender()));
    }
    // Larger than one noise message by far.
    let entries = (0..50).map(|i| (format!("key{i}"), vec![7; 40_000].into())).collect();
    let full = Arc::new(ais_meta::state::Full { stamp: Stamp::new(0, 1, 1), digest: ais_meta::Digest(3), entries });
    b.send("g1", 1, Message::Body { full: full.clone() });
    assert_eq!(a.packet().await.message, Message::Body { full });
}

#[tokio::test]
async fn a_packet_that_is_too_large_is_lost_and_its_connection_is_not() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    a.knows(&[("g2", b.at)]);
    a.connected().await;
    b.connected().await;
    let full = |len: usize| {
        let entries = vec![("key".to_owned(), vec![7; len].into())];
        Arc::new(ais_meta::state::Full { stamp: Stamp::new(0, 1, 1), digest: ais_meta::Digest(3), entries })
    };
    // The one after it waits in the same queue, and would be lost with the connection.
    a.send("g2", 1, Message::Body { full: full(ais_node::peers::wire::PACKET_MAX + 1) });
    a.send("g2", 2, Message::Body { full: full(10) });
    assert_eq!(b.packet().await.epoch, 2);
}

#[tokio::test]
async fn the_end_of_a_process_is_refused_at_the_redial_or_answered_by_the_next() {
    let mut a = Process::new("g1", 1, 1, 11);
    let mut b = Process::new("g2", 2, 1, 22);
    a.knows(&[("g2", b.at)]);
    let first = a.connected().await;
    b.connected().await;
    let at = b.at;
    b.kill();
    let (peer, result) = a.redialled().await;
    assert_eq!((&peer, result), (&first, Redial::Refused));
    // Back at the same address before the back-off ends: found by its own hello or by dialling.
    let listener = loop {
        match TcpListener::bind(at) {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    listener.set_nonblocking(true).unwrap();
    let next = Process::start(listener, greeting("g2", 2, 2, 23, at), SECRET);
    assert_eq!(a.connected().await, next.greeting.sender());
}

#[tokio::test]
async fn the_end_of_one_peer_does_not_touch_another() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    a.knows(&[("g2", b.at)]);
    a.connected().await;
    b.connected().await;
    let mut stranger = TcpStream::connect(b.at).await.unwrap();
    // Its port is closed: the redial is refused.
    let opening = Opening { channel: Channel::Control, greeting: greeting("g3", 3, 1, 33, listener().1) };
    drop(noise::open(&mut stranger, &Psk::from_secret(SECRET), &opening).await.unwrap());
    drop(stranger);
    let (peer, result) = b.redialled().await;
    assert_eq!((peer.id, result), (VoterId::new("g3".parse().unwrap(), DiskId(3)), Redial::Refused));
    a.send("g2", 5, Message::Probe);
    assert_eq!(b.packet().await.epoch, 5);
}

/// Answers as `greeting` until a control connection is open; what it took besides is kept open.
async fn answer(listener: &tokio::net::TcpListener, greeting: &Greeting, kept: &mut Vec<TcpStream>) -> TcpStream {
    loop {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("somebody dials").unwrap();
        let reply = |_: &Opening| Answer { greeting: greeting.clone(), refused: None };
        match noise::accept(&mut stream, &[Psk::from_secret(SECRET)], reply).await {
            Ok((_, opening, _)) if opening.channel == Channel::Control => return stream,
            Ok(_) => kept.push(stream),
            Err((error, _)) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn the_redial_tells_the_same_process_from_the_next_one() {
    let mut a = Process::new("g1", 1, 1, 11);
    let (socket, at) = listener();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let (first, second) = (greeting("g2", 2, 1, 22, at), greeting("g2", 2, 2, 23, at));
    let mut kept = Vec::new();
    a.knows(&[("g2", at)]);
    drop(answer(&socket, &first, &mut kept).await);
    let again = answer(&socket, &first, &mut kept).await;
    assert_eq!(a.redialled().await, (first.sender(), Redial::SameBoot));
    kept.clear();
    drop(again);
    // Accepted and ended before a hello: redialled, also more than once.
    for _ in 0..2 {
        drop(timeout(PATIENCE, socket.accept()).await.expect("a redial").unwrap());
    }
    let third = answer(&socket, &second, &mut kept).await;
    assert_eq!(a.redialled().await, (first.sender(), Redial::OtherBoot));
    drop(third);
}

#[tokio::test]
async fn an_ended_connection_of_a_living_process_is_no_evidence() {
    let mut a = Process::new("g1", 1, 1, 11);
    // The peer listens, but the connection that it dialled itself ends.
    let mut b = Process::new("g2", 2, 1, 22);
    let mut second = TcpStream::connect(a.at).await.unwrap();
    let opening = Opening { channel: Channel::Control, greeting: b.greeting.clone() };
    let (_seal, answer) = noise::open(&mut second, &Psk::from_secret(SECRET), &opening).await.unwrap();
    assert_eq!(answer.refused, None);
    assert_eq!(a.connected().await, b.greeting.sender());
    b.connected().await;
    b.send("g1", 1, Message::Probe);
    a.packet().await;
    drop(second);
    // B has a connection of its own to A besides: no end of B, no redial. Its real end is seen.
    a.send("g2", 1, Message::Probe);
    b.packet().await;
    assert!(a.events.try_recv().is_err());
    b.kill();
    assert_eq!(a.redialled().await.1, Redial::Refused);
}

/// Found by the soak (seed 20261122, round 6): a target stayed without a new State for two minutes beside a primary
/// that took it for gone.
#[tokio::test]
async fn a_peer_that_did_not_answer_a_redial_is_back_when_it_does() {
    let mut a = Process::new("g1", 1, 1, 11);
    let (socket, at) = listener();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let peer = greeting("g2", 2, 1, 22, at);
    let mut kept = Vec::new();
    a.knows(&[("g2", at)]);
    let _control = answer(&socket, &peer, &mut kept).await;
    // Its own connection to us, which ends; ours to it stands.
    let mut own = TcpStream::connect(a.at).await.unwrap();
    let opening = Opening { channel: Channel::Control, greeting: peer.clone() };
    let (_seal, reply) = noise::open(&mut own, &Psk::from_secret(SECRET), &opening).await.unwrap();
    assert_eq!(reply.refused, None);
    let (mut bulk, _) = timeout(PATIENCE, socket.accept()).await.expect("the bulk connection").unwrap();
    let reply = |_: &Opening| Answer { greeting: peer.clone(), refused: None };
    noise::accept(&mut bulk, &[Psk::from_secret(SECRET)], reply).await.unwrap();
    assert_eq!(a.connected().await, peer.sender());
    drop(own);
    // The redial is taken by a process that has no time to answer.
    let (_silent, _) = timeout(PATIENCE, socket.accept()).await.expect("a redial").unwrap();
    assert_eq!(a.redialled().await, (peer.sender(), Redial::Unknown));
    let _later = answer(&socket, &peer, &mut kept).await;
    assert_eq!(a.connected().await, peer.sender());
}

async fn refusal(to: SocketAddr, psk: &[u8], greeting: Greeting) -> Result<Option<String>, noise::PeerError> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let opening = Opening { channel: Channel::Control, greeting };
    let (_, answer) = noise::open(&mut stream, &Psk::from_secret(psk), &opening).await?;
    Ok(answer.refused)
}

#[tokio::test]
async fn who_may_not_talk_to_us_is_refused_with_a_reason() {
    let (_, elsewhere) = listener();
    let (socket, at) = listener();
    let mut ours = greeting("g1", 1, 1, 11, at);
    ours.uuid = Some("cluster-one".parse().unwrap());
    let mut a = Process::start(socket, ours, SECRET);
    let g2 = |run, boot| greeting("g2", 2, run, boot, elsewhere);

    assert!(refusal(a.at, OTHER, g2(2, 22)).await.is_err());
    let mut here = TcpStream::connect(a.at).await.unwrap();
    let opening = Opening { channel: Channel::Control, greeting: g2(2, 22) };
    let (_, answer) = noise::open(&mut here, &Psk::from_secret(SECRET), &opening).await.unwrap();
    assert_eq!(answer.refused, None);
    // It is here once its confirmation was read.
    let mut older = None;
    while older.is_none() {
        older = refusal(a.at, SECRET, g2(1, 21)).await.unwrap();
    }
    assert!(older.is_some_and(|why| why.contains("run 1")));
    let twin = refusal(a.at, SECRET, g2(2, 99)).await.unwrap();
    assert!(twin.is_some_and(|why| why.contains("two processes")));
    drop(here);
    let own_name = refusal(a.at, SECRET, greeting("g1", 5, 1, 55, elsewhere)).await.unwrap();
    assert!(own_name.is_some_and(|why| why.contains("own")));
    let newer = Greeting { wire_version: 9, wire_version_min: 2, ..g2(3, 24) };
    assert!(refusal(a.at, SECRET, newer).await.unwrap().is_some());
    let older_wire = Greeting { wire_version: 9, ..g2(3, 24) };
    assert_eq!(refusal(a.at, SECRET, older_wire).await.unwrap(), None);

    // Another cluster: refused, and the core hears of it as a hello.
    let mut foreign = greeting("g7", 7, 1, 77, elsewhere);
    foreign.uuid = Some("cluster-two".parse().unwrap());
    assert!(refusal(a.at, SECRET, foreign.clone()).await.unwrap().is_some());
    let packet = a.packet().await;
    assert!(packet.uuid == foreign.uuid && matches!(packet.message, Message::Hello(_)));
}

/// A volume that was put back from an older copy starts as a run that is over. It was turned away without a word, and
/// waited for ever unless somebody restarted it often enough (drill `restored_volume`).
#[tokio::test]
async fn an_older_copy_of_a_disk_is_heard_and_told_when_the_newest_process_is_gone() {
    let mut a = Process::new("g1", 1, 1, 11);
    let mut newest = Process::new("g2", 2, 3, 23);
    newest.knows(&[("g1", a.at)]);
    assert_eq!(a.connected().await, newest.greeting.sender());
    newest.kill();
    for (run, boot) in [(3, 99), (2, 98)] {
        let mut copy = Process::new("g2", 2, run, boot);
        copy.knows(&[("g1", a.at)]);
        copy.connected().await;
        copy.send("g1", 1, Message::Probe);
        let from = copy.greeting.sender();
        let heard = |input: &Input| match input {
            Input::Message(packet) => Some(packet.from.clone()),
            Input::Connected { peer } => panic!("{peer:?} counts as connected"),
            _ => None,
        };
        assert_eq!(a.until("what the copy says", heard).await, from);
        a.send("g2", 1, Message::Probe);
        let (promised, accepted) = (Term::new(0, 4), Stamp::new(0, 4, 9));
        a.send("g2", 2, Message::Remembered { of: from.id, run: 3, promised, accepted });
        let told = copy.packet().await;
        assert!(matches!(told.message, Message::Remembered { .. }), "{told:?}");
    }
}

#[tokio::test]
async fn nothing_is_read_as_somebody_else_and_garbage_ends_the_connection() {
    let (_, elsewhere) = listener();
    let mut a = Process::new("g1", 1, 1, 11);
    let g2 = greeting("g2", 2, 1, 22, elsewhere);
    let opening = Opening { channel: Channel::Control, greeting: g2.clone() };
    let packet = |from: Sender| Packet { uuid: None, incarnation: 0, epoch: 1, from, message: Message::Probe };
    for pretends in [false, true] {
        let mut stream = TcpStream::connect(a.at).await.unwrap();
        let (mut seal, _) = noise::open(&mut stream, &Psk::from_secret(SECRET), &opening).await.unwrap();
        let mut bytes = Vec::new();
        let from = if pretends { greeting("g3", 3, 1, 33, elsewhere).sender() } else { g2.sender() };
        seal.packet(&packet(from), &mut bytes).unwrap();
        if !pretends {
            tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
            assert_eq!(a.packet().await.from, g2.sender());
            seal.packet(&packet(g2.sender()), &mut bytes).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the connection goes on");
    }
    while let Ok(input) = a.events.try_recv() {
        assert!(!matches!(input, Input::Message(_)), "{input:?}");
    }
}

#[tokio::test]
async fn last_words_are_flushed() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    a.knows(&[("g2", b.at)]);
    a.connected().await;
    b.connected().await;
    a.send("g2", 1, Message::Stopping);
    a.peers.as_ref().unwrap().flush(PATIENCE).await;
    a.kill();
    let mut said = false;
    let order = b
        .until("the end", |input| match input {
            Input::Message(packet) if packet.message == Message::Stopping => Some(true),
            Input::ConnectionEnded { .. } => Some(false),
            _ => None,
        })
        .await;
    said |= order;
    assert!(said, "the end came before the last word");
}

/// Everything that has come since; the first packet of this epoch ends it.
async fn until_packet(process: &mut Process, epoch: u64) -> Vec<Input> {
    let mut before = Vec::new();
    loop {
        match timeout(PATIENCE, process.events.recv()).await.expect("a packet").expect("events go on") {
            Input::Message(packet) if packet.epoch == epoch => return before,
            other => before.push(other),
        }
    }
}

#[tokio::test]
async fn connections_move_to_a_new_secret_and_who_lacks_it_is_locked_out() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    let mut late = Process::new("g3", 3, 1, 33);
    a.knows(&[("g2", b.at), ("g3", late.at)]);
    late.knows(&[("g1", a.at)]);
    let mut met = BTreeSet::from([a.connected().await.id, a.connected().await.id]);
    assert_eq!(met.len(), 2);
    b.connected().await;
    late.connected().await;
    assert!(late.peers.as_ref().unwrap().locked_out().is_none());
    // Both accept the new one; nothing moves yet. Then both dial with it, one after the other.
    for process in [&a, &b] {
        process.keyring.replace(secrets(&[SECRET, OTHER]));
    }
    for process in [&a, &b] {
        process.keyring.replace(secrets(&[OTHER, SECRET]));
    }
    // B has one peer, and its connection was dialled anew; A's to B, too.
    assert_eq!(b.connected().await, a.greeting.sender());
    met.clear();
    while !met.contains(&b.greeting.sender().id) {
        met.insert(a.connected().await.id);
    }
    for process in [&a, &b] {
        process.keyring.replace(secrets(&[OTHER]));
    }
    // Nothing that is open between them ends by that.
    b.send("g1", 7, Message::Probe);
    a.send("g2", 7, Message::Probe);
    let dead = |input: &Input| matches!(input, Input::Redialled { result: Redial::Refused | Redial::OtherBoot, .. });
    let (at_a, at_b) = (until_packet(&mut a, 7).await, until_packet(&mut b, 7).await);
    assert!(!at_a.iter().chain(&at_b).any(dead), "{at_a:?} {at_b:?}");
    // The third one holds the old secret only: its connections were ended, and it can say why it is alone.
    let locked_out = async {
        while late.peers.as_ref().unwrap().locked_out().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, locked_out).await.expect("it learns that it is locked out");
    // Once it has the new one, too, it is back.
    late.keyring.replace(secrets(&[OTHER]));
    while late.connected().await != a.greeting.sender() {}
    assert!(late.peers.as_ref().unwrap().locked_out().is_none());
}

#[tokio::test]
async fn one_who_dials_with_a_secret_that_is_not_there_yet_falls_back_to_the_others() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    a.keyring.replace(secrets(&[OTHER, SECRET]));
    a.knows(&[("g2", b.at)]);
    assert_eq!(a.connected().await, b.greeting.sender());
    assert_eq!(b.connected().await, a.greeting.sender());
}

async fn black_hole() {
    let (mut a, mut b) = (Process::new("g1", 1, 1, 11), Process::new("g2", 2, 1, 22));
    a.knows(&[("g2", b.at)]);
    b.knows(&[("g1", a.at)]);
    a.connected().await;
    b.connected().await;
    let ports = format!("{},{}", a.at.port(), b.at.port());
    let filter = |how: &str| {
        for direction in ["--dports", "--sports"] {
            let args = [how, "INPUT", "-p", "tcp", "-m", "multiport", direction, &ports, "-j", "DROP"];
            assert!(Command::new("iptables").args(args).status().unwrap().success(), "{args:?}");
        }
    };
    for cut_ms in [3000, 6000] {
        filter("-A");
        let cut = Instant::now();
        let mut epoch = 100;
        // Both go on talking, as members do.
        while cut.elapsed() < Duration::from_millis(cut_ms) {
            epoch += 1;
            a.send("g2", epoch, Message::Probe);
            b.send("g1", epoch, Message::Probe);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let ended = |input: Input| matches!(input, Input::ConnectionEnded { .. } | Input::Redialled { .. });
        while let Ok(input) = a.events.try_recv() {
            assert!(!ended(input), "a time-out was taken for the end of a process");
        }
        filter("-D");
        let healed = Instant::now();
        for process in [&mut a, &mut b] {
            process.connected().await;
        }
        println!("cut of {cut_ms} ms: connected {} ms after it", healed.elapsed().as_millis());
        // TCP by itself would wait as long again as the cut was.
        assert!(healed.elapsed() < Duration::from_millis(2500), "{:?} after {cut_ms} ms", healed.elapsed());
    }
}

#[test]
fn after_a_black_hole_of_seconds_members_talk_at_once_again() {
    let script = "ip link set lo up && echo up && exec sleep 600";
    let mut holder =
        Command::new("unshare").args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let network = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    // Whatever this thread starts is in that network, too.
    let talk = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(black_hole());
    });
    let talked = talk.join();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(said, "up\n");
    talked.unwrap();
}
