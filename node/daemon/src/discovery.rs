//! The discovery file, and what `AIS_PRIMARY_EP` names (protocol.md section 5).
//!
//! Read off the core's thread: files and name servers may hang. The core hears of it when something changed, or when
//! somebody poked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{Discovery, PrimaryEp};
use ais_meta::{Address, Addresses, ClusterUuid, Kind, NodeId};
use serde::Deserialize;
use tokio::runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Once formed, only addresses may still change.
const RETRY_FORMED: Duration = Duration::from_secs(15);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// A list of members is small; anything longer is not one.
const FILE_MAX: u64 = 8 << 20;

/// The discovery file as it stands. Unknown keys are ignored: a newer operator may write them for newer nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct File {
    /// The cluster.
    #[serde(default)]
    pub cluster_uuid: Option<ClusterUuid>,
    /// The operator recorded that the cluster is formed.
    #[serde(default)]
    pub formed: bool,
    /// Gateways that found together.
    #[serde(default)]
    pub initial_voters: Vec<NodeId>,
    /// Everybody who may exist.
    #[serde(default)]
    pub peers: Vec<Listed>,
    /// Nodes that are being removed for good. One of these that starts once more must not join as a new node.
    #[serde(default)]
    pub removed: Vec<NodeId>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: NodeId,
    /// Gateway or target.
    pub kind: Kind,
    /// HOST:PORT of AIStore's API.
    pub public: String,
    /// HOST:PORT of members' and operator's HTTP.
    pub control: String,
    /// HOST:PORT of members' frames.
    pub peer: String,
}

impl Listed {
    fn addresses(&self) -> Result<Addresses, String> {
        let read = |what: &str, text: &str| {
            address(text, None).ok_or_else(|| format!("peer {}: '{text}' is no HOST:PORT ({what})", self.id))
        };
        Ok(Addresses {
            public: read("public", &self.public)?,
            control: read("control", &self.control)?,
            peer: read("peer", &self.peer)?,
        })
    }
}

/// Where discovery comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, if any.
    pub path: Option<PathBuf>,
    /// `AIS_PRIMARY_EP`.
    pub primary_ep: Option<String>,
    /// Port of a `primary_ep` that names none.
    pub default_port: u16,
    /// This node's own addresses.
    pub own: Addresses,
    /// This node.
    pub node: NodeId,
    /// One gateway alone may found.
    pub standalone: bool,
    /// Whom copies of lost records name; the file's word on an address counts before theirs.
    pub remembered: BTreeMap<NodeId, Address>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// For the core.
    pub discovery: Discovery,
    /// Whom to dial.
    pub book: BTreeMap<NodeId, Address>,
    /// The cluster, as the file has it.
    pub uuid: Option<ClusterUuid>,
    /// This node is being removed for good.
    pub removed: bool,
    /// Why the file could not be used.
    pub problem: Option<String>,
}

impl Source {
    /// Reads the file and resolves names.
    pub async fn read(&self) -> News {
        match self.parse() {
            Ok((file, peers)) => {
                let primary_ep = self.primary_ep(&peers).await;
                let mut book = self.remembered.clone();
                book.extend(peers.into_iter().map(|(id, a)| (id, a.peer)));
                book.remove(&self.node);
                News {
                    discovery: Discovery {
                        initial_voters: file.initial_voters,
                        formed: file.formed,
                        primary_ep,
                        standalone: self.standalone,
                    },
                    book,
                    uuid: file.cluster_uuid,
                    removed: file.removed.contains(&self.node),
                    problem: None,
                }
            }
            Err(problem) => {
                // Whoever cannot read who else there is must not found; "formed" means just that.
                let discovery = Discovery { formed: true, ..Discovery::default() };
                News { discovery, problem: Some(problem), ..News::default() }
            }
        }
    }

    fn parse(&self) -> Result<(File, BTreeMap<NodeId, Addresses>), String> {
        let Some(path) = &self.path else { return Ok((File::default(), BTreeMap::new())) };
        let place = path.display();
        let length = std::fs::metadata(path).map_err(|e| format!("cannot read {place}: {e}"))?.len();
        if length > FILE_MAX {
            return Err(format!("{place} has {length} bytes; a list of members has at most {FILE_MAX}"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {place}: {e}"))?;
        let file: File = serde_saphyr::from_str(&text).map_err(|e| format!("{place}: {e}"))?;
        let mut peers = BTreeMap::new();
        for listed in &file.peers {
            let addresses = listed.addresses().map_err(|e| format!("{place}: {e}"))?;
            if peers.insert(listed.id.clone(), addresses).is_some() {
                return Err(format!("{place}: peer {} is listed twice", listed.id));
            }
        }
        Ok((file, peers))
    }

    /// Names first, so that no name server decides what names already say.
    async fn primary_ep(&self, peers: &BTreeMap<NodeId, Addresses>) -> PrimaryEp {
        let Some(text) = self.primary_ep.as_deref().map(str::trim).filter(|t| !t.is_empty()) else {
            return PrimaryEp::Unset;
        };
        let Some(wanted) = address(text, Some(self.default_port)) else { return PrimaryEp::Unknown };
        let urls = |a: &Addresses| [a.public.clone(), a.control.clone()];
        if urls(&self.own).contains(&wanted) {
            return PrimaryEp::Us;
        }
        let others = || peers.iter().filter(|(id, _)| **id != self.node);
        if let Some((id, _)) = others().find(|(_, a)| urls(a).contains(&wanted)) {
            return PrimaryEp::Peer(id.clone());
        }
        let wanted = resolve(&wanted).await;
        let meets = async |a: &Addresses| {
            for url in urls(a) {
                if resolve(&url).await.iter().any(|at| wanted.contains(at)) {
                    return true;
                }
            }
            false
        };
        if wanted.is_empty() {
            return PrimaryEp::Unknown;
        }
        if meets(&self.own).await {
            return PrimaryEp::Us;
        }
        for (id, addresses) in others() {
            if meets(addresses).await {
                return PrimaryEp::Peer(id.clone());
            }
        }
        PrimaryEp::Unknown
    }
}

async fn resolve(address: &Address) -> Vec<SocketAddr> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, address.port)];
    }
    match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((&*address.host, address.port))).await {
        Ok(Ok(found)) => found.take(16).collect(),
        _ => Vec::new(),
    }
}

/// Reads `[http[s]://]HOST[:PORT][/]`; IPv6 addresses stand in brackets. A port is needed unless there is a default.
#[must_use]
pub fn address(text: &str, default_port: Option<u16>) -> Option<Address> {
    let text = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default_port?,
    };
    let fine = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    fine.then(|| Address { host: host.to_ascii_lowercase().into(), port })
}

/// News of discovery.
pub struct Watch {
    news: mpsc::Receiver<News>,
    poke: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

impl Watch {
    /// Waits for news.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Reads again now; the answer comes as news even if nothing changed.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the file again and again; `first` was read already.
#[must_use]
pub fn watch(runtime: &runtime::Handle, source: Source, first: News, mut formed: watch::Receiver<bool>) -> Watch {
    let (news_in, news) = mpsc::channel(4);
    let poke = Arc::new(Notify::new());
    let poked = Arc::clone(&poke);
    let task = runtime.spawn(async move {
        let (mut known, mut wait) = (first, RETRY_FIRST);
        loop {
            let pause = if *formed.borrow_and_update() { RETRY_FORMED } else { wait };
            wait = (wait * 2).min(RETRY_LAST);
            let asked = tokio::select! {
                () = poked.notified() => true,
                () = tokio::time::sleep(jittered(pause)) => false,
                changed = formed.changed() => if changed.is_err() { return } else { continue },
            };
            let mut fresh = source.read().await;
            if fresh.problem.is_some() && fresh.problem != known.problem {
                tracing::warn!(problem = fresh.problem, "the discovery file cannot be used");
            }
            if fresh.problem.is_some() {
                // Half-written or briefly gone: what was known of addresses stays.
                fresh.book = known.book.clone();
            }
            if fresh == known && !asked {
                continue;
            }
            if fresh != known {
                wait = RETRY_FIRST;
            }
            known = fresh.clone();
            if news_in.send(fresh).await.is_err() {
                return;
            }
        }
    });
    Watch { news, poke, task: task.abort_handle() }
}

fn jittered(pause: Duration) -> Duration {
    let random = u32::try_from(getrandom::u64().unwrap_or(0) & 0xffff).unwrap_or(0);
    pause / 2 + pause / 2 * random / 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        let check = |text: &str, want: Option<(&str, u16)>| {
            assert_eq!(
                address(text, Some(51080)).map(|a| (a.host.to_string(), a.port)),
                want.map(|(h, p)| (h.to_owned(), p)),
                "{text}"
            );
        };
        check("http://g1.ns.svc:51080", Some(("g1.ns.svc", 51080)));
        check("https://G1:7/", Some(("g1", 7)));
        check("g1", Some(("g1", 51080)));
        check("g1:9", Some(("g1", 9)));
        check("[::1]:9", Some(("::1", 9)));
        check("[::1]", Some(("::1", 51080)));
        check("", None);
        check("g1:port", None);
        check("http://g1:51080/v1", None);
        assert_eq!(address("g1", None), None);
    }

    fn source(primary_ep: &str) -> Source {
        let at = |port| Address { host: "127.0.0.1".into(), port };
        Source {
            path: None,
            primary_ep: Some(primary_ep.to_owned()),
            default_port: 51080,
            own: Addresses { public: at(1), control: at(2), peer: at(3) },
            node: "g1".parse().unwrap(),
            standalone: false,
            remembered: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn primary_ep_is_compared_by_name_and_then_by_address() {
        let at = |host: &str, port| Address { host: host.into(), port };
        let other = Addresses { public: at("g2.example", 1), control: at("127.0.0.1", 9), peer: at("127.0.0.1", 10) };
        let peers = BTreeMap::from([("g2".parse().unwrap(), other)]);
        assert_eq!(source("http://127.0.0.1:1").primary_ep(&peers).await, PrimaryEp::Us);
        assert_eq!(source("127.0.0.1:2").primary_ep(&peers).await, PrimaryEp::Us);
        assert_eq!(source("localhost:2").primary_ep(&peers).await, PrimaryEp::Us);
        assert_eq!(source("g2.example:1").primary_ep(&peers).await, PrimaryEp::Peer("g2".parse().unwrap()));
        assert_eq!(source("localhost:9").primary_ep(&peers).await, PrimaryEp::Peer("g2".parse().unwrap()));
        assert_eq!(source("127.0.0.1:77").primary_ep(&peers).await, PrimaryEp::Unknown);
        assert_eq!(source(" ").primary_ep(&peers).await, PrimaryEp::Unset);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_forbids_founding() {
        let news = Source { path: Some("/nonexistent/discovery.yaml".into()), ..source("127.0.0.1:1") }.read().await;
        assert!(news.discovery.formed && news.problem.is_some());
    }

    #[tokio::test]
    async fn a_node_learns_from_the_file_that_it_is_being_removed() {
        let path = std::env::temp_dir().join(format!("ais-discovery-{}.yaml", std::process::id()));
        for (listed, removed) in [("[g1]", true), ("[g2]", false), ("[]", false)] {
            std::fs::write(&path, format!("formed: true\nremoved: {listed}\n")).unwrap();
            let news = Source { path: Some(path.clone()), ..source("127.0.0.1:1") }.read().await;
            assert_eq!((news.removed, news.problem), (removed, None), "{listed}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
