//! Everything before the core starts: the state directory, the discovery file, the peers' listener.

use std::collections::BTreeMap;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ais_meta::node::flags;
use ais_meta::{BootId, ClusterUuid, Kind, Node as Member, VoterId};
use anyhow::{Context as _, bail};
use tokio::runtime;

use crate::config::Config;
use crate::discovery::{News, Source};
use crate::handle::{Handle, Identity};
use crate::hooks::Hooks;
use crate::peers::{Greeting, wire};
use crate::{clock, disk, keeper, runner};

/// Opens the state directory and starts the core's thread.
///
/// # Errors
/// Whatever keeps the node from starting, with what to do about it.
pub async fn start(config: &Config, hooks: Arc<dyn Hooks>) -> anyhow::Result<(Handle, JoinHandle<()>)> {
    let mut source = source(config);
    let mut news = source.read().await;
    let uuid = agreed_uuid(config, &news)?;
    if let Some(problem) = &news.problem {
        tracing::warn!(problem, "the discovery file cannot be used; this node will not found a cluster");
    }
    let opened = open(config, uuid.as_ref()).await?;
    report(config, &opened);
    if config.keyring.ring().secrets().is_none() {
        tracing::warn!("INSECURE: no secret is set, whoever reaches the peer and control ports is believed");
    }
    let uuid = uuid.or_else(|| opened.join.clone());
    let remembered = opened.hard.remembered.as_ref().map(|r| r.peers.clone()).unwrap_or_default();
    let remembered: BTreeMap<_, _> = remembered.into_iter().map(|peer| (peer.id.node, peer.addresses.peer)).collect();
    source.remembered.clone_from(&remembered);
    for (id, address) in remembered.into_iter().filter(|(id, _)| *id != config.node_id) {
        news.book.entry(id).or_insert(address);
    }
    // After the lock: a second process must fail on the directory, which says more than a port in use.
    let listener = listen(&config.listen_host, config.peer_port)?;
    let boot = BootId(getrandom::u64().context("no random numbers")?);
    let started_unix_ms = clock::unix_ms();
    let member = member(config, &opened);
    let sender = ais_ha::Sender { id: member.voter_id(), run: opened.run, boot };
    let greeting = greeting(config, &sender, uuid.clone(), &opened);
    let core = ais_ha::Config {
        member,
        boot,
        uuid,
        fresh_uuid: fresh_uuid()?,
        seed: getrandom::u64().context("no random numbers")?,
        voters: config.voters,
        timers: config.timers.clone(),
        discovery: news.discovery.clone(),
        started_unix_s: i64::try_from(started_unix_ms / 1000).unwrap_or(0),
    };
    let identity = Identity {
        sender,
        kind: config.kind,
        addresses: config.addresses(),
        version: env!("CARGO_PKG_VERSION"),
        started_unix_ms,
        voters_max: config.voters,
    };
    let setup = runner::Setup {
        config: core,
        hard: opened.hard,
        store: opened.store,
        lock: opened.lock,
        state_dir: config.state_dir.clone(),
        keyring: config.keyring.clone(),
        tls: config.tls.clone(),
        greeting,
        listener,
        identity,
        discovery: (source, news),
        runtime: runtime::Handle::current(),
        hooks,
    };
    let (handle, thread) = runner::start(setup).context("cannot start the core's thread")?;
    keeper::start(&runtime::Handle::current(), &config.mountpaths, &handle.identity().sender.id, &handle.view());
    Ok((handle, thread))
}

/// Between two looks at the file of a node that is being removed.
const REMOVED_LOOK: Duration = Duration::from_secs(1);

/// Waits as long as the discovery file says that this node is being removed. Its records are gone already, so it would
/// join as a new node, get a seat, and be taken away by whoever removes it.
pub async fn wait_while_removed(config: &Config) {
    let source = source(config);
    let mut told = false;
    while source.read().await.removed {
        if !told {
            tracing::warn!("this node is being removed from the cluster: it does not join again");
            told = true;
        }
        tokio::time::sleep(REMOVED_LOOK).await;
    }
}

/// Opens the state directory beside everything else: a disk that hangs is said, not waited for in silence.
async fn open(config: &Config, cluster: Option<&ClusterUuid>) -> anyhow::Result<disk::Opened> {
    let (directory, node, cluster) = (config.state_dir.clone(), config.node_id.clone(), cluster.cloned());
    let mountpaths = config.mountpaths.clone();
    let fsync_delay = Duration::from_millis(config.debug_fsync_delay_ms);
    let mut opening = tokio::task::spawn_blocking(move || {
        let (cluster, mountpaths) = (cluster.as_ref(), mountpaths.as_slice());
        disk::open(&directory, &disk::Wanted { node: &node, cluster, mountpaths, fsync_delay })
    });
    let hang = Duration::from_millis(config.timers.suspect_ms);
    let opened = match tokio::time::timeout(hang, &mut opening).await {
        Ok(opened) => opened,
        Err(_) => {
            let directory = config.state_dir.display();
            tracing::error!(%directory, "the state directory's disk does not answer, or another process holds it; waiting");
            opening.await
        }
    };
    Ok(opened.context("the state directory could not be opened")??)
}

fn source(config: &Config) -> Source {
    Source {
        path: config.discovery_file.clone(),
        primary_ep: config.primary_ep.clone(),
        default_port: config.public_port,
        own: config.addresses(),
        node: config.node_id.clone(),
        standalone: config.standalone,
        remembered: BTreeMap::new(),
    }
}

/// The uuid given by configuration and by the discovery file, which must not differ.
fn agreed_uuid(config: &Config, news: &News) -> anyhow::Result<Option<ClusterUuid>> {
    match (&config.cluster_uuid, &news.uuid) {
        (Some(ours), Some(listed)) if ours != listed => bail!(
            "cluster_uuid is {ours}, but the discovery file says {listed}: set both to the uuid of the cluster that this node belongs to"
        ),
        (ours, listed) => Ok(ours.clone().or_else(|| listed.clone())),
    }
}

fn report(config: &Config, opened: &disk::Opened) {
    let directory = config.state_dir.display();
    let id = VoterId::new(config.node_id.clone(), opened.disk);
    if let Some(remembered) = &opened.hard.remembered {
        let (cluster, peers) = (&remembered.uuid, remembered.peers.len());
        tracing::warn!(%id, %cluster, peers, "the state directory was lost; copies on data disks name the cluster to join");
    }
    if let Some(why) = &opened.set_aside {
        tracing::error!(%id, %directory, %why, "records were set aside as *.bad-*; this disk has a new id and will only join");
    }
    let accepted = opened.hard.accepted.as_ref().map(|s| s.stamp().to_string()).unwrap_or_default();
    tracing::info!(%id, run = opened.run, %directory, formatted = opened.fresh, accepted, promised = opened.hard.vote.promised, "state directory opened");
}

fn listen(host: &str, port: u16) -> anyhow::Result<TcpListener> {
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().with_context(|| format!("listen_host '{host}' does not resolve"))?.collect();
    let listener =
        TcpListener::bind(&*addresses).with_context(|| format!("cannot listen on {host}:{port} (peer_port)"))?;
    listener.set_nonblocking(true).context("cannot set up the peers' listener")?;
    Ok(listener)
}

fn member(config: &Config, opened: &disk::Opened) -> Member {
    let non_electable = config.kind == Kind::Gateway && config.non_electable;
    Member {
        id: config.node_id.clone(),
        disk: opened.disk,
        run: opened.run,
        kind: config.kind,
        addresses: config.addresses(),
        flags: if non_electable { flags::NON_ELECTABLE } else { 0 },
        domain: config.domain.clone(),
        extra: ais_meta::Extra::new(),
    }
}

fn greeting(config: &Config, sender: &ais_ha::Sender, uuid: Option<ClusterUuid>, opened: &disk::Opened) -> Greeting {
    let formed = match &opened.hard.genesis {
        ais_ha::Genesis::Formed(uuid) => Some(uuid.clone()),
        _ => None,
    };
    Greeting {
        wire_version: wire::WIRE_MAX,
        wire_version_min: wire::WIRE_MIN,
        node_id: sender.id.node.clone(),
        disk: sender.id.disk,
        run: sender.run,
        boot: sender.boot,
        kind: config.kind,
        formed: formed.is_some(),
        uuid: formed.or(uuid),
        addresses: config.addresses(),
    }
}

fn fresh_uuid() -> anyhow::Result<ClusterUuid> {
    let random = getrandom::u64().context("no random numbers")?;
    Ok(format!("{random:016x}").parse()?)
}
