//! Gateways and targets as processes, on loopback or in network namespaces.

pub mod fabric;
mod node;
pub mod pki;
mod ports;
mod starve;
pub mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ais_meta::auth::Secret;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::fabric::Fabric;
use self::node::Place;
pub use self::node::{Kind, Node};
use self::pki::TlsFiles;
pub use self::ports::Ports;
pub use self::starve::Starved;
use self::volume::Volume;
use crate::client::View;
use crate::http;
use crate::testbed::packages::FAKETIME;
use crate::wait::Wait;

/// How long a cluster of the harness may take to agree, failover and growth of the electorate included.
pub const AGREE_TIMEOUT: Duration = Duration::from_secs(20);
/// Public, control and peer port of a node that has a network of its own: the defaults.
pub const NAMESPACE_PORTS: [u16; 3] = [51_080, 51_082, 51_084];
/// Begins the name of a harness's folder; its pid follows.
pub const TEMPORARY: &str = "aiscluster-";
/// Between two looks at all nodes.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Begins the ids of all nodes.
    pub prefix: String,
    /// The shared secret; a random one when not given.
    pub secret: Option<String>,
    /// How many gateways, named `g1`, `g2`, ...
    pub gateways: usize,
    /// How many targets, named `t1`, `t2`, ...
    pub targets: usize,
    /// More keys of every node's configuration, timers for instance.
    pub settings: BTreeMap<String, Value>,
    /// `AIS_CLUSTER_UUID`.
    pub cluster_uuid: Option<String>,
    /// Where to put everything; a temporary folder when not given.
    pub dir: Option<PathBuf>,
    /// Processes survive the harness.
    pub own_session: bool,
    /// Each node has a network namespace and an address of its own.
    pub namespaces: bool,
    /// Each state directory is a small file system of its own.
    pub volumes: bool,
    /// All ports speak TLS, with the certificates in this folder.
    pub tls: Option<PathBuf>,
    /// More of every node's environment.
    pub env: Vec<(String, String)>,
}

impl Spec {
    /// So many gateways and targets, with the shipped timers.
    pub fn new(gateways: usize, targets: usize) -> Self {
        Self {
            prefix: String::new(),
            secret: None,
            gateways,
            targets,
            settings: BTreeMap::new(),
            cluster_uuid: None,
            dir: None,
            own_session: false,
            namespaces: false,
            volumes: false,
            tls: None,
            env: Vec::new(),
        }
    }

    /// Gives each node a network namespace.
    #[must_use]
    pub fn in_namespaces(mut self) -> Self {
        self.namespaces = true;
        self
    }

    /// Gives each node a wall clock that [`Node::step_clock`] moves; the monotonic ones stay the machine's. Needs
    /// [`crate::testbed::packages::ensure_for_drills`].
    #[must_use]
    pub fn with_clocks(mut self) -> Self {
        let pairs = [
            ("LD_PRELOAD", FAKETIME),
            // Relative: each process stands in its own node's folder.
            ("FAKETIME_TIMESTAMP_FILE", node::CLOCK),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
        ];
        self.env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// All ports speak TLS, with the certificates in this folder; the harness trusts the authorities there as well.
    #[must_use]
    pub fn with_tls(mut self, dir: &Path) -> Self {
        self.settings.extend(TlsFiles::within(dir).settings().map(|(key, value)| (key.to_owned(), value)));
        self.tls = Some(dir.to_owned());
        self
    }

    /// Gives each node a small disk.
    #[must_use]
    pub fn on_volumes(mut self) -> Self {
        self.volumes = true;
        self
    }

    /// Adds a key of every node's configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }
}

/// A cluster of processes. Its processes end with it; its folder stays, with the logs, unless [`LocalCluster::finish`]
/// was called.
#[derive(Debug)]
pub struct LocalCluster {
    /// All nodes, also those that do not run now.
    pub nodes: Vec<Node>,
    /// `AIS_PRIMARY_EP` of processes started from now on.
    pub primary_ep: Option<String>,
    secret: Secret,
    spec: Spec,
    dir: PathBuf,
    net: Net,
    volumes: BTreeMap<String, Volume>,
    binary: PathBuf,
    keep: bool,
}

/// Where nodes get their addresses from.
#[derive(Debug)]
enum Net {
    Loopback(Ports),
    Namespaces(Fabric),
}

impl LocalCluster {
    /// Starts all nodes at once and waits until the cluster is formed, grown and agrees.
    pub fn start(spec: Spec) -> Result<Self> {
        let mut cluster = Self::prepare(spec)?;
        for id in cluster.ids() {
            cluster.start_node(&id)?;
        }
        cluster.wait_agreed()?;
        Ok(cluster)
    }

    /// Writes everything, starts nothing.
    pub fn prepare(spec: Spec) -> Result<Self> {
        let binary = node_binary()?;
        let dir = match &spec.dir {
            Some(dir) => dir.clone(),
            None => fresh_dir(),
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let key = spec.secret.clone().map_or_else(random_hex, Ok)?;
        fs::write(dir.join("secret"), &key)?;
        let secret = Secret::from_file_content(key.as_bytes()).context("the secret is too short")?;
        if let Some(tls) = &spec.tls {
            http::trust(&TlsFiles::within(tls).ca)?;
        }
        let (gateways, targets, prefix) = (spec.gateways, spec.targets, spec.prefix.clone());
        let net = if spec.namespaces { Net::Namespaces(Fabric::make()?) } else { Net::Loopback(Ports::reserve()?) };
        let (nodes, volumes) = (Vec::new(), BTreeMap::new());
        let mut cluster = Self { nodes, primary_ep: None, secret, spec, dir, net, volumes, binary, keep: true };
        for i in 1..=gateways {
            cluster.add(&format!("{prefix}g{i}"), Kind::Gateway, &[])?;
        }
        for i in 1..=targets {
            cluster.add(&format!("{prefix}t{i}"), Kind::Target, &[])?;
        }
        cluster.primary_ep = cluster.nodes.first().map(Node::url);
        cluster.write_discovery(&[])?;
        Ok(cluster)
    }

    /// Adds a node that is not started yet and that the discovery file does not name yet, with more keys of its own.
    pub fn add(&mut self, id: &str, kind: Kind, more: &[(&str, Value)]) -> Result<()> {
        let place = self.net.place(id)?;
        let tls = self.spec.tls.is_some();
        let node = Node::new(id.to_owned(), kind, place, self.dir.join(id), self.secret.clone(), tls);
        if self.spec.volumes {
            let image = self.dir.join(format!("{id}.image"));
            self.volumes.insert(id.to_owned(), Volume::mount(&image, &node.disk())?);
        }
        self.configure(&node, more)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Writes a node's configuration for its next start: the cluster's keys, its own, and these.
    fn configure(&self, node: &Node, more: &[(&str, Value)]) -> Result<()> {
        let mut config = self.spec.settings.clone();
        let Place { host, ports, .. } = node.place();
        let own = json!({
            "node_id": node.id,
            "kind": node.kind.as_str(),
            "state_dir": node.state_dir(),
            "listen_host": host,
            "public_port": ports[0],
            "control_port": ports[1],
            "peer_port": ports[2],
            "secret_file": self.dir.join("secret"),
            "discovery_file": self.dir.join("discovery.yaml"),
        });
        config.extend(own.as_object().cloned().unwrap_or_default());
        config.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        // JSON is YAML.
        node.write_config(&serde_json::to_string_pretty(&config)?)
    }

    /// Other keys for a node's next start.
    pub fn reconfigure(&self, id: &str, more: &[(&str, Value)]) -> Result<()> {
        self.configure(self.node(id)?, more)
    }

    /// A node has other ports, or on a network of its own another address, from its next start on; nobody is told.
    pub fn readdress(&mut self, id: &str) -> Result<()> {
        let place = match &mut self.net {
            Net::Loopback(_) => self.net.place(id)?,
            Net::Namespaces(fabric) => {
                // Beyond all first addresses.
                let last_byte = fabric.address(id)?.octets()[3].wrapping_add(100);
                let host = fabric.move_to(id, last_byte)?.into();
                Place { host, ..self.node(id)?.place().clone() }
            }
        };
        self.node_mut(id)?.move_to(place);
        self.configure(self.node(id)?, &[])
    }

    /// Whether nodes have networks of their own.
    pub fn in_namespaces(&self) -> bool {
        matches!(self.net, Net::Namespaces(_))
    }

    /// The network; an error on loopback.
    pub fn fabric(&mut self) -> Result<&mut Fabric> {
        match &mut self.net {
            Net::Namespaces(fabric) => Ok(fabric),
            Net::Loopback(_) => bail!("these nodes have no networks of their own"),
        }
    }

    /// A node's disk; an error when it has none of its own.
    pub fn volume(&mut self, id: &str) -> Result<&mut Volume> {
        self.volumes.get_mut(id).with_context(|| format!("{id} has no disk of its own"))
    }

    /// Writes the discovery file with all nodes and `others` (entries of other clusters).
    pub fn write_discovery(&self, others: &[Value]) -> Result<()> {
        let mut peers: Vec<Value> = self.nodes.iter().map(entry).collect();
        peers.extend_from_slice(others);
        let gateways = self.spec.gateways;
        let founders = if gateways == 2 { 2 } else { gateways.min(5).div_ceil(2) * 2 - 1 };
        let initial: Vec<String> = (1..=founders).map(|i| format!("{}g{i}", self.spec.prefix)).collect();
        let mut file = json!({"formed": false, "initial_voters": initial, "peers": peers});
        if let Some(uuid) = &self.spec.cluster_uuid {
            file["cluster_uuid"] = json!(uuid);
        }
        // Whole or not at all: nodes read it at any time.
        let (path, new) = (self.dir.join("discovery.yaml"), self.dir.join("discovery.yaml.new"));
        fs::write(&new, serde_json::to_string_pretty(&file)?)?;
        fs::rename(&new, &path).context("cannot write the discovery file")
    }

    /// Nodes that are started from now on are told this cluster uuid.
    pub fn name(&mut self, uuid: &str) -> Result<()> {
        self.spec.cluster_uuid = Some(uuid.to_owned());
        self.write_discovery(&[])
    }

    /// The discovery entries of all nodes.
    pub fn entries(&self) -> Vec<Value> {
        self.nodes.iter().map(entry).collect()
    }

    /// Starts a node's process with the environment of now.
    pub fn start_node(&mut self, id: &str) -> Result<()> {
        let mut env = self.spec.env.clone();
        if let Some(uuid) = &self.spec.cluster_uuid {
            env.push(("AIS_CLUSTER_UUID".to_owned(), uuid.clone()));
        }
        if let Some(ep) = &self.primary_ep {
            env.push(("AIS_PRIMARY_EP".to_owned(), ep.clone()));
        }
        let (binary, own_session) = (self.binary.clone(), self.spec.own_session);
        self.node_mut(id)?.start(&binary, &env, own_session)
    }

    /// A node.
    pub fn node(&self, id: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.id == id).with_context(|| format!("no node {id}"))
    }

    /// A node, to signal it.
    pub fn node_mut(&mut self, id: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("no node {id}"))
    }

    /// All ids.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// The shared secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Views of all nodes that can answer; an error when one does not.
    pub fn views(&mut self) -> Result<Vec<View>> {
        for node in &mut self.nodes {
            node.check_alive()?;
        }
        self.nodes.iter().filter(|node| node.answers()).map(Node::view).collect()
    }

    /// Waits until the views are as wanted, and gives them.
    pub fn wait_for(
        &mut self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&[View]) -> std::result::Result<(), String>,
    ) -> Result<Vec<View>> {
        let mut last = String::new();
        let found = Wait::new(what, timeout).every(LOOK_EVERY).until(|| {
            let views = self.views()?;
            match wanted(&views) {
                Ok(()) => Ok(Some(views)),
                Err(why) => {
                    last.clone_from(&why);
                    bail!("{why}")
                }
            }
        });
        found.with_context(|| format!("cluster in {}", self.dir.display()))
    }

    /// Waits until nobody has anything left to do: all running nodes follow one primary, publish one stamp, and the
    /// electorate has its full size. Only while nobody writes.
    pub fn wait_agreed(&mut self) -> Result<Vec<View>> {
        let voters = full_electorate(&self.nodes);
        self.wait_for("agreement", AGREE_TIMEOUT, |views| agreed(views, voters))
    }

    /// Waits until all running nodes follow one primary of a higher epoch than `epoch`; its id and epoch. Also while
    /// clients write.
    pub fn wait_led(&mut self, epoch: u64) -> Result<(String, u64)> {
        let what = format!("a primary after epoch {epoch}");
        let views = self.wait_for(&what, AGREE_TIMEOUT, |views| {
            let leader = led(views)?;
            if leader.epoch() > epoch {
                Ok(())
            } else {
                Err(format!("{} leads epoch {}", leader.node_id, leader.epoch()))
            }
        })?;
        let leader = views.iter().find(|view| view.leads()).context("nobody leads")?;
        Ok((leader.node_id.clone(), leader.epoch()))
    }

    /// Running gateways but `victim`, id and public address.
    pub fn survivors(&self, victim: &str) -> Vec<(String, String)> {
        let running = self.nodes.iter().filter(|node| node.kind == Kind::Gateway && node.answers());
        running.filter(|node| node.id != victim).map(|node| (node.id.clone(), node.public.clone())).collect()
    }

    /// Ends all processes at once by SIGTERM and waits for them.
    pub fn stop_all(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let running: Vec<&mut Node> = self.nodes.iter_mut().filter(|node| node.pid().is_some()).collect();
        for node in &running {
            node.terminate()?;
        }
        for node in running {
            node.reap(end.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// All went well: nothing of it is kept.
    pub fn finish(mut self) {
        self.keep = false;
    }

    /// Leaves the processes running.
    pub fn detach(mut self) {
        self.keep = true;
        for node in &mut self.nodes {
            node.detach();
        }
        // Dropped without processes; only the note about kept files would be wrong.
        self.nodes.clear();
    }
}

impl Net {
    fn place(&mut self, id: &str) -> Result<Place> {
        match self {
            Self::Loopback(ports) => {
                let ports = [ports.take()?, ports.take()?, ports.take()?];
                Ok(Place { host: Ipv4Addr::LOCALHOST.into(), ports, namespace: None })
            }
            Self::Namespaces(fabric) => {
                let host = fabric.add(id)?.into();
                Ok(Place { host, ports: NAMESPACE_PORTS, namespace: Some(fabric.namespace_file(id)?) })
            }
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        let had_nodes = !self.nodes.is_empty();
        for volume in self.volumes.values_mut() {
            // A process that waits for its disk cannot be ended.
            drop(volume.thaw());
        }
        self.nodes.clear();
        self.volumes.clear();
        if !self.keep {
            // A leftover in the temporary folder is no reason to fail.
            drop(fs::remove_dir_all(&self.dir));
        } else if had_nodes {
            eprintln!("logs and state are kept: {}", self.dir.display());
        }
    }
}

fn entry(node: &Node) -> Value {
    json!({
        "id": node.id, "kind": node.kind.as_str(),
        "public": node.public, "control": node.control, "peer": node.peer,
    })
}

/// The size that the electorate grows to: odd from 3 on, 5 at most; two gateways alone stay two.
fn full_electorate(nodes: &[Node]) -> usize {
    let all = nodes.iter().filter(|node| node.answers() || node.state_dir().exists()).count();
    match all.min(5) {
        4 => 3,
        n => n,
    }
}

/// The one primary that all follow.
pub fn led(views: &[View]) -> std::result::Result<&View, String> {
    let leaders: Vec<&View> = views.iter().filter(|view| view.leads()).collect();
    let [leader] = leaders[..] else { return Err(format!("{} nodes lead", leaders.len())) };
    for view in views {
        if !view.ready {
            return Err(format!("{} is not ready: {}", view.node_id, view.reason));
        }
        if view.epoch() != leader.epoch() || view.primary != leader.primary {
            let (id, epoch, primary) = (&view.node_id, view.epoch(), &view.primary);
            return Err(format!(
                "{id} follows {primary:?} in epoch {epoch}, {} leads {}",
                leader.node_id,
                leader.epoch()
            ));
        }
        let member = leader.members.iter().find(|member| member.node_id == view.node_id);
        let acked = member.filter(|member| member.connected).and_then(|member| member.acked);
        if view.node_id != leader.node_id && acked.is_none_or(|acked| acked.epoch < leader.epoch()) {
            return Err(format!("the primary {} does not have {} yet: {member:?}", leader.node_id, view.node_id));
        }
    }
    Ok(leader)
}

/// Whether nothing is left to do.
pub fn agreed(views: &[View], voters: usize) -> std::result::Result<(), String> {
    let leader = led(views)?;
    if let Some(view) = views.iter().find(|view| view.stamp != leader.stamp) {
        return Err(format!("{} is at {:?}, the primary at {:?}", view.node_id, view.stamp, leader.stamp));
    }
    if leader.electorate.len() < voters {
        return Err(format!("{} of {voters} voters", leader.electorate.len()));
    }
    Ok(())
}

/// The `ais-node` to run: `AIS_NODE_BIN`, or the release build in the target folder that this program is from.
pub fn node_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("AIS_NODE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let profiles = own.ancestors().filter(|dir| dir.ends_with("release") || dir.ends_with("debug"));
    let found =
        profiles.filter_map(Path::parent).map(|target| target.join("release/ais-node")).find(|path| path.is_file());
    found.context("no ais-node beside this program: `cargo build --release -p ais-node`, or name one in AIS_NODE_BIN")
}

fn fresh_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("{TEMPORARY}{}-{count}", std::process::id()))
}

fn random_hex() -> Result<String> {
    use std::fmt::Write as _;
    use std::io::Read;
    let mut bytes = [0u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("no random bytes")?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
