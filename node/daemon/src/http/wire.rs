//! AIStore's JSON shapes (http-api.md section 2), made from the committed State.

use std::collections::BTreeMap;

use ais_ha::{Genesis, RoleName, View};
use ais_meta::node::flags;
use ais_meta::settings::{BUCKET, CLUSTER};
use ais_meta::state::TxnPhase;
use ais_meta::{Address, Addresses, Bucket, BucketName, Kind, Node, NodeId, Stamp, State, hrw};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::params::nested;
use super::reverse::CALL_TIMEOUT;
use crate::config::Config;
use crate::handle::Handle;
use crate::tls::{Scheme, Tls};

/// Gateways that AIStore wants in its information centre.
const IC_MAX: usize = 3;

/// One address.
#[derive(Clone, Debug, Serialize)]
pub struct NetInfo {
    node_ip_addr: String,
    daemon_port: String,
    direct_url: String,
}

impl NetInfo {
    fn new(address: &Address, scheme: Scheme) -> Self {
        let (host, port) = (address.host.to_string(), address.port.to_string());
        Self { node_ip_addr: host, daemon_port: port, direct_url: url(address, scheme) }
    }
}

/// `http://host:port` or `https://host:port`: all nodes of a cluster are called alike.
#[must_use]
pub fn url(address: &Address, scheme: Scheme) -> String {
    format!("{scheme}://{address}")
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct Snode {
    public_net: NetInfo,
    intra_control_net: NetInfo,
    intra_data_net: NetInfo,
    daemon_type: &'static str,
    daemon_id: String,
    flags: u64,
    id_digest: u64,
}

impl Snode {
    fn new(id: &NodeId, kind: Kind, addresses: &Addresses, flags: u64, scheme: Scheme) -> Self {
        Self {
            public_net: NetInfo::new(&addresses.public, scheme),
            intra_control_net: NetInfo::new(&addresses.control, scheme),
            // Until targets talk about objects, data has no network of its own.
            intra_data_net: NetInfo::new(&addresses.public, scheme),
            daemon_type: if kind == Kind::Gateway { "proxy" } else { "target" },
            daemon_id: id.to_string(),
            flags,
            id_digest: hrw::digest(id.as_str()),
        }
    }

    /// A member of the cluster map.
    #[must_use]
    pub fn member(node: &Node, state: &State, scheme: Scheme) -> Self {
        Self::new(&node.id, node.kind, &node.addresses, shown_flags(node, &ic(state)), scheme)
    }

    /// This process, whether it is in the cluster map or not.
    #[must_use]
    pub fn own(handle: &Handle, state: Option<&State>, scheme: Scheme) -> Self {
        let me = handle.identity();
        let id = &me.sender.id.node;
        let flags = state.and_then(|s| s.nodes().get(id).map(|node| shown_flags(node, &ic(s)))).unwrap_or(0);
        Self::new(id, me.kind, &me.addresses, flags, scheme)
    }
}

/// The cluster map.
#[derive(Clone, Debug, Serialize)]
pub struct Smap {
    pmap: BTreeMap<String, Snode>,
    proxy_si: Option<Snode>,
    tmap: BTreeMap<String, Snode>,
    uuid: String,
    creation_time: String,
    version: String,
}

fn shown_flags(node: &Node, ic: &[NodeId]) -> u64 {
    let member = if ic.contains(&node.id) { flags::IC } else { 0 };
    (node.flags & !flags::IC) | member
}

/// Members of the information centre: the primary, then gateways in order of succession, electable ones first.
fn ic(state: &State) -> Vec<NodeId> {
    let primary = &state.primary().node;
    let mut rest: Vec<&Node> = state.nodes().values().map(AsRef::as_ref).collect();
    rest.retain(|n| n.kind == Kind::Gateway && !n.is_set_aside() && n.id != *primary);
    hrw::succession(&mut rest, |n| n.id.as_str());
    rest.sort_by_key(|n| !n.electable());
    let ids = std::iter::once(primary.clone()).chain(rest.into_iter().map(|n| n.id.clone()));
    ids.take(IC_MAX).collect()
}

/// The primary's entry. Between its first State and its joining again (2 gateways + 1 target) only the electorate has
/// its addresses.
fn primary(state: &State, ic: &[NodeId], scheme: Scheme) -> Option<Snode> {
    let id = &state.primary().node;
    let member = state.nodes().get(id);
    let voter = || state.electorate().iter().find(|voter| voter.id.node == *id);
    match member {
        Some(node) => Some(Snode::new(id, node.kind, &node.addresses, shown_flags(node, ic), scheme)),
        None => voter().map(|voter| Snode::new(id, voter.kind, &voter.addresses, flags::IC, scheme)),
    }
}

fn time(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

impl Smap {
    /// The committed one.
    #[must_use]
    pub fn new(state: &State, scheme: Scheme) -> Self {
        let ic = ic(state);
        let of = |kind| {
            let nodes = state.nodes().values().filter(|node| node.kind == kind);
            let entry = |n: &std::sync::Arc<Node>| {
                (n.id.to_string(), Snode::new(&n.id, n.kind, &n.addresses, shown_flags(n, &ic), scheme))
            };
            nodes.map(entry).collect()
        };
        Self {
            pmap: of(Kind::Gateway),
            proxy_si: primary(state, &ic, scheme),
            tmap: of(Kind::Target),
            uuid: state.uuid().to_string(),
            creation_time: time(state.smap().created_s),
            version: state.smap().version.to_string(),
        }
    }
}

/// Public URLs of the gateways in the cluster map.
#[must_use]
pub fn gateway_urls(state: &State, scheme: Scheme) -> Vec<String> {
    let gateways = state.nodes().values().filter(|n| n.kind == Kind::Gateway);
    gateways.map(|n| url(&n.addresses.public, scheme)).collect()
}

/// All properties of a bucket, nested as AIStore has them.
#[must_use]
pub fn bucket_props(bucket: &Bucket) -> Value {
    shown_props(bucket, |_| true)
}

/// What the bucket metadata shows of each: what AIStore always shows, and what is not the default.
fn short_props(bucket: &Bucket) -> Value {
    const ALWAYS: [&str; 4] = ["access", "checksum.type", "features", "versioning.enabled"];
    shown_props(bucket, |name| ALWAYS.contains(&name) || bucket.props.contains_key(name))
}

fn shown_props(bucket: &Bucket, shown: impl Fn(&str) -> bool) -> Value {
    let all = bucket.all_props();
    let known = BUCKET.settings().filter(|setting| shown(setting.name));
    let typed = known.filter_map(|setting| Some((setting.name, setting.kind.json(all.get(setting.name)?))));
    let given = [
        ("provider", json!("ais")),
        ("bid", json!(bucket.bid.to_string())),
        ("created", json!(bucket.created_ns.to_string())),
    ];
    nested(typed.chain(given))
}

/// A bucket's name in a listing.
#[must_use]
pub fn bucket_entry(name: &BucketName) -> Value {
    json!({"name": name.name, "provider": "ais", "namespace": {"uuid": "", "name": name.namespace}})
}

/// The bucket metadata.
#[must_use]
pub fn bmd(state: &State) -> Value {
    let mut namespaces: BTreeMap<String, BTreeMap<&str, Value>> = BTreeMap::new();
    for (name, bucket) in state.buckets() {
        namespaces.entry(name.namespace_uname()).or_default().insert(&name.name, short_props(bucket));
    }
    json!({"providers": {"ais": namespaces}, "uuid": state.uuid().as_str(), "version": state.bmd_version().to_string()})
}

/// Rebalance metadata.
#[must_use]
pub fn rmd(state: &State) -> Value {
    json!({"version": state.rmd().version.to_string(), "cluster_id": state.uuid().as_str()})
}

/// AIStore's NodeStateInfo. `served`: the node was ready once.
#[must_use]
pub fn node_state(view: &View, own: &NodeId, served: bool, scheme: Scheme) -> Value {
    const VOTE_IN_PROGRESS: u64 = 1;
    const CLUSTER_STARTED: u64 = 2;
    const NODE_STARTED: u64 = 4;
    const MAINTENANCE: u64 = 1024;
    let state = view.published.as_deref();
    let mut bits = NODE_STARTED;
    if served {
        bits |= CLUSTER_STARTED;
    }
    if view.role == RoleName::Candidate || (served && view.primary.is_none()) {
        bits |= VOTE_IN_PROGRESS;
    }
    if state.and_then(|s| s.nodes().get(own)).is_some_and(|node| node.flags & flags::MAINTENANCE != 0) {
        bits |= MAINTENANCE;
    }
    let version = |of: fn(&State) -> u64| state.map_or(0, of).to_string();
    let uuid = view.uuid.as_ref().map_or("", |uuid| uuid.as_str());
    let leader = state.and_then(|s| primary(s, &[], scheme));
    let leader = leader.map_or_else(
        || json!({"pub_url": "", "control_url": "", "id": ""}),
        |n| json!({"pub_url": n.public_net.direct_url, "control_url": n.intra_control_net.direct_url, "id": n.daemon_id}),
    );
    json!({
        "smap": {"Primary": leader, "uuid": uuid, "version": version(|s| s.smap().version)},
        "bmd": {"uuid": uuid, "version": version(State::bmd_version)},
        "rmd": {"version": version(|s| s.rmd().version)},
        "config": {"version": version(|s| s.config().version)},
        "etlmd": {"version": "0"},
        "flags": bits,
    })
}

fn ms(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// When the configuration was changed last: at the founding, or nobody knows. A change is counted, its time is not kept.
fn last_update(state: &State) -> String {
    if state.config().version <= 1 { time(state.smap().created_s) } else { String::new() }
}

/// The cluster's configuration in AIStore's shape: what it always shows, and every setting that there is here.
#[must_use]
pub fn cluster_config(state: &State, config: &Config) -> Value {
    let primary = primary(state, &[], config.scheme());
    let primary_url = primary.map(|node| node.intra_control_net.direct_url).unwrap_or_default();
    let timers = &config.timers;
    let factor = timers.suspect_ms / timers.heartbeat_ms.max(1);
    let keepalive = json!({"name": "heartbeat", "interval": ms(timers.heartbeat_ms), "factor": factor});
    let mut shown = json!({
        "uuid": state.uuid().as_str(),
        "config_version": state.config().version.to_string(),
        "lastupdate_time": last_update(state),
        "features": "0",
        "backend": {},
        "proxy": {
            "primary_url": primary_url,
            "original_url": config.primary_ep.as_deref().unwrap_or_default(),
            "discovery_url": "",
            "non_electable": false,
        },
        // A node waits for the cluster for as long as it takes, and no object is sent: no such bounds.
        "timeout": {
            "cplane_operation": ms(u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX)),
            "max_keepalive": ms(timers.suspect_ms),
            "max_host_busy": ms(timers.evict_smap_ms),
            "startup_time": "0s",
            "join_startup_time": "0s",
            "send_file_time": "0s",
        },
        // Always there in AIStore. No memory is managed by settings here, and nothing is resilvered.
        "memsys": {},
        "resilver": {"enabled": false},
        "net": {
            "l4": {"proto": "tcp"},
            "http": {
                "use_https": config.tls.is_some(), "server_crt": "", "server_key": "", "skip_verify": false,
            },
            "use_ipv6": false,
        },
        "keepalivetracker": {"proxy": keepalive, "target": keepalive},
        // AIStore keeps the key here; here each gateway has its own, and shows it to nobody.
        "auth": {"signature": {"key": "**********", "method": ""}},
    });
    let typed = CLUSTER.settings().map(|setting| (setting.name, setting.kind.json(state.config().value(setting.name))));
    merge(&mut shown, nested(typed));
    shown
}

/// Lays one tree over another.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// `what=config`: the cluster's configuration together with this node's own.
#[must_use]
pub fn node_config(state: &State, config: &Config) -> Value {
    let mut value = cluster_config(state, config);
    let own: BTreeMap<_, _> = config.shown().collect();
    if let Some(map) = value.as_object_mut() {
        map.insert("confdir".to_owned(), json!(config.state_dir));
        let net = json!({
            "hostname": config.advertise_host,
            "hostname_intra_control": config.advertise_host,
            "hostname_intra_data": config.advertise_host,
            "port": config.public_port.to_string(),
            "port_intra_control": config.control_port.to_string(),
            "port_intra_data": config.public_port.to_string(),
        });
        map.insert("host_net".to_owned(), net);
        map.insert("node".to_owned(), json!(own));
    }
    value
}

/// This node's certificate, and whom it trusts.
fn tls(tls: &Tls) -> Value {
    let now = tls.now();
    let of = now.material.as_deref();
    json!({
        "certificate": of.map(|m| m.certificate.as_str()),
        "authorities": of.map(|m| m.authorities.as_slice()).unwrap_or_default(),
        "not_before_s": of.map(|m| m.not_before_s),
        "not_after_s": of.map(|m| m.not_after_s),
        "problem": now.problem,
    })
}

/// What [`ha_view`] tells only those who hold a secret: digests of the secrets that this node accepts, the one that it
/// signs with first, and its certificate. Whoever rotates them waits for every node to say that it has read them.
#[must_use]
pub fn ha_credentials(config: &Config) -> Value {
    json!({
        "secrets": config.keyring.ring().digests(),
        "tls": config.tls.as_ref().map(tls),
    })
}

fn maybe(stamp: Option<Stamp>) -> Value {
    json!(stamp)
}

/// What `/v1/ha/view` and the stream tell the operator.
#[must_use]
pub fn ha_view(handle: &Handle, view: &View) -> Value {
    let me = handle.identity();
    let state = view.published.as_deref();
    let voters = state.map(State::electorate).map(Vec::as_slice).unwrap_or_default();
    let voter = |v: &ais_meta::Voter| json!({"node_id": v.id.node, "disk_id": v.id.disk, "kind": v.kind});
    json!({
        "node_id": me.sender.id.node,
        "disk_id": me.sender.id.disk,
        "boot_id": me.sender.boot,
        "run": me.sender.run,
        "kind": me.kind,
        "version": me.version,
        "cluster_uuid": view.uuid,
        "formed": view.genesis.is_formed(),
        "bound": matches!(view.genesis, Genesis::Bound(_)),
        "role": view.role.as_str(),
        "reason": view.reason,
        "stamp": maybe(state.map(State::stamp)),
        "accepted": maybe(view.accepted),
        "promised": view.promised.epoch,
        "promised_incarnation": view.promised.incarnation,
        "epoch": view.epoch,
        "primary": view.primary.as_ref().map(|p| &p.id.node),
        "primary_since_ms": handle.primary_since_ms(),
        "electorate": voters.iter().map(voter).collect::<Vec<_>>(),
        "voters_max": me.voters_max,
        "smap_version": state.map_or(0, |s| s.smap().version),
        "bmd_version": state.map_or(0, State::bmd_version),
        "config_version": state.map_or(0, |s| s.config().version),
        "settings": state.map(|s| &s.config().settings),
        "ready": view.ready,
        "stopping": view.stopping,
        "cluster_stopping": state.is_some_and(|s| s.head().stopping),
        "disk_ok": view.disk_ok,
        "transaction": state.and_then(State::transaction).map(transaction),
        "members": ha_members(handle, view),
    })
}

/// A membership transaction in progress.
fn transaction(txn: &ais_meta::state::Txn) -> Value {
    json!({
        "action": txn.action.as_str(),
        "nodes": txn.nodes,
        "phase": match txn.phase {
            TxnPhase::Flags => "flags",
            TxnPhase::Seats => "seats",
        },
        "rebalance_id": txn.rebalance,
        "began": txn.began,
    })
}

fn ha_members(handle: &Handle, view: &View) -> Vec<Value> {
    let now = handle.now_ms();
    let member = |(id, m): (&NodeId, &ais_ha::MemberView)| {
        // The primary also knows voters without a place in the map, joiners, and those who just left.
        let entry = view.published.as_ref().and_then(|s| s.nodes().get(id).map(|n| n.flags));
        let bits = entry.unwrap_or(0);
        json!({
            "node_id": id,
            "disk_id": m.id.disk,
            "kind": m.kind,
            "voter": m.voter,
            "connected": m.connected,
            "acked": maybe(m.acked),
            "published": maybe(m.published),
            "age_ms": m.heard.map(|at| now.saturating_sub(at)),
            "non_electable": bits & flags::NON_ELECTABLE != 0,
            "maintenance": bits & flags::MAINTENANCE != 0,
            "decommission": bits & flags::DECOMMISSION != 0,
            "in_smap": entry.is_some(),
        })
    };
    view.members.iter().map(member).collect()
}
