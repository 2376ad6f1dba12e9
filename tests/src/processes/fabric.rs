//! A network of its own for a cluster: a namespace per node on one bridge, so that any two of them can be cut.
//!
//! The harness and its clients stay in the machine's own network, on the bridge too. Everything is named `aisd...`;
//! the bridge's alias says whose it is, so that the next run removes what a killed one left.

mod leftovers;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::leftovers::remove as remove_leftovers;
pub use self::rules::Cuts;
use crate::cmd::Cmd;
use crate::testbed::network::ip;

/// Begins the name of every interface and namespace of a fabric.
const PREFIX: &str = "aisd";
/// Fabrics on one machine at once.
const NUMBERS: u8 = 250;
/// Nodes of one fabric.
const NODES_MAX: usize = 64;

/// Everybody at an end of a cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The clients' calls to gateways; the harness's own looks at the control ports are never cut.
    Clients,
    /// A node.
    Node(String),
}

impl From<&str> for End {
    fn from(id: &str) -> Self {
        Self::Node(id.to_owned())
    }
}

impl From<&String> for End {
    fn from(id: &String) -> Self {
        Self::Node(id.clone())
    }
}

/// The network of one cluster. It is gone with this value.
#[derive(Debug)]
pub struct Fabric {
    number: u8,
    places: BTreeMap<String, usize>,
    cuts: Cuts,
    /// What the namespaces have in force.
    applied: BTreeMap<String, String>,
}

impl Fabric {
    /// Makes the bridge.
    pub fn make() -> Result<Self> {
        // One harness at a time: another one's bridge without an alias yet would look like nobody's.
        let lock = lock()?;
        leftovers::remove()?;
        for number in 1..=NUMBERS {
            // Making it is also the lock: the kernel lets only one harness have the name.
            if ip(&["link", "add", &bridge(number), "type", "bridge"]).is_err() {
                continue;
            }
            // Only now: whatever is dropped takes its bridge along, and that must be its own.
            let fabric = Self { number, places: BTreeMap::new(), cuts: Cuts::default(), applied: BTreeMap::new() };
            let set_up = fabric.set_up();
            drop(lock);
            set_up.context("cannot make a network for the drills")?;
            return Ok(fabric);
        }
        bail!("no network for the drills: are {NUMBERS} in use, or is this not root?")
    }

    fn set_up(&self) -> Result<()> {
        let owner = leftovers::owner_of(std::process::id()).context("this process has no start time")?;
        batch(&[
            format!("link set dev {} alias {owner}", self.bridge()),
            format!("addr add {}/24 dev {}", self.clients(), self.bridge()),
            format!("link set dev {} up", self.bridge()),
        ])
    }

    fn bridge(&self) -> String {
        bridge(self.number)
    }

    /// The address that clients call from. The range is the one that RFC 2544 sets aside for tests.
    fn clients(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// A node's address.
    pub fn address(&self, id: &str) -> Result<Ipv4Addr> {
        let place = self.place(id)?;
        Ok(Ipv4Addr::new(198, 18, self.number, u8::try_from(10 + place)?))
    }

    fn place(&self, id: &str) -> Result<usize> {
        self.places.get(id).copied().with_context(|| format!("{id} has no network"))
    }

    fn namespace(&self, place: usize) -> String {
        format!("{PREFIX}{}-{place}", self.number)
    }

    fn port(&self, place: usize) -> String {
        format!("{PREFIX}{}v{place}", self.number)
    }

    /// The file that stands for a node's namespace.
    pub fn namespace_file(&self, id: &str) -> Result<PathBuf> {
        Ok(PathBuf::from("/run/netns").join(self.namespace(self.place(id)?)))
    }

    /// A namespace for another node.
    pub fn add(&mut self, id: &str) -> Result<Ipv4Addr> {
        let place = self.places.len();
        if place >= NODES_MAX {
            bail!("a network of the drills has {NODES_MAX} nodes at most");
        }
        self.places.insert(id.to_owned(), place);
        let (bridge, namespace, port, at) = (self.bridge(), self.namespace(place), self.port(place), self.address(id)?);
        batch(&[
            format!("netns add {namespace}"),
            format!("link add {port} type veth peer name eth0 netns {namespace}"),
            format!("link set dev {port} master {bridge} up"),
        ])?;
        let inside =
            ["link set dev lo up".to_owned(), format!("addr add {at}/24 dev eth0"), "link set dev eth0 up".to_owned()];
        Cmd::new("ip").args(["-n", &namespace, "-batch", "-"]).stdin(inside.join("\n") + "\n").run()?;
        Ok(at)
    }

    /// Moves a node to another address; what was bound to the old one hears nothing any more.
    pub fn move_to(&mut self, id: &str, last_byte: u8) -> Result<Ipv4Addr> {
        let namespace = self.namespace(self.place(id)?);
        let at = Ipv4Addr::new(198, 18, self.number, last_byte);
        let lines = ["addr flush dev eth0".to_owned(), format!("addr add {at}/24 dev eth0")];
        Cmd::new("ip").args(["-n", &namespace, "-batch", "-"]).stdin(lines.join("\n") + "\n").run()?;
        Ok(at)
    }

    /// Takes a node's cable out, or puts it in again: unlike a cut, its own side knows at once.
    pub fn link(&self, id: &str, up: bool) -> Result<()> {
        let port = self.port(self.place(id)?);
        ip(&["link", "set", "dev", &port, if up { "up" } else { "down" }])
    }

    /// Changes what is cut. All nodes change within a few milliseconds, not at one instant; so do real networks.
    pub fn change(&mut self, f: impl FnOnce(&mut Cuts)) -> Result<()> {
        f(&mut self.cuts);
        let ids: Vec<String> = self.places.keys().cloned().collect();
        for id in ids {
            let rules = self.cuts.rules(&id, self.clients(), |other| self.address(other).ok());
            if self.applied.get(&id) == Some(&rules) {
                continue;
            }
            let file = self.namespace_file(&id)?;
            Cmd::new("nsenter")
                .arg(format!("--net={}", file.display()))
                .arg("iptables-restore")
                .stdin(rules.clone())
                .timeout(Duration::from_secs(20))
                .run()
                .with_context(|| format!("cannot cut {id}"))?;
            self.applied.insert(id, rules);
        }
        Ok(())
    }

    /// Cuts a node from everybody, the clients too.
    pub fn isolate(&mut self, id: &str) -> Result<()> {
        let all: BTreeSet<String> = self.places.keys().cloned().collect();
        self.change(|cuts| {
            cuts.both(&id.into(), &End::Clients);
            all.iter().filter(|other| *other != id).for_each(|other| cuts.both(&id.into(), &other.into()));
        })
    }

    /// Cuts the nodes of `side` from all others; clients reach both.
    pub fn split(&mut self, side: &[String]) -> Result<()> {
        let all: Vec<String> = self.places.keys().cloned().collect();
        self.change(|cuts| {
            for a in all.iter().filter(|id| side.contains(id)) {
                all.iter().filter(|id| !side.contains(id)).for_each(|b| cuts.both(&a.into(), &b.into()));
            }
        })
    }

    /// Nobody is cut any more.
    pub fn heal(&mut self) -> Result<()> {
        self.change(|cuts| *cuts = Cuts::default())?;
        let ids: Vec<String> = self.places.keys().cloned().collect();
        ids.iter().try_for_each(|id| self.link(id, true))
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        // Without the lock it would at worst be done twice.
        let _lock = lock();
        // What cannot be removed now is removed by the next run.
        drop(leftovers::remove_fabric(&self.bridge()));
    }
}

fn bridge(number: u8) -> String {
    format!("{PREFIX}{number}")
}

/// Held until it is dropped, or until this process ends in any way.
fn lock() -> Result<File> {
    let path = std::env::temp_dir().join("aisd.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn batch(lines: &[String]) -> Result<()> {
    Cmd::new("ip").args(["-batch", "-"]).stdin(lines.join("\n") + "\n").timeout(Duration::from_secs(20)).run().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(bridge: &str) -> bool {
        std::path::Path::new("/sys/class/net").join(bridge).exists()
    }

    #[test]
    fn a_cut_stops_packets_and_nothing_is_left() {
        let mut fabric = Fabric::make().unwrap();
        let bridge = fabric.bridge();
        fabric.add("a").unwrap();
        let b = fabric.add("b").unwrap();
        let from = fabric.namespace_file("a").unwrap();
        let reached = || {
            let net = format!("--net={}", from.display());
            let at = format!("exec 3<>/dev/tcp/{b}/9");
            let said = Cmd::new("nsenter").args([&net, "timeout", "0.3", "bash", "-c", &at]).output().unwrap();
            // Nobody listens: a packet that arrives is refused at once.
            said.stderr.contains("refused")
        };
        assert!(reached());
        fabric.change(|cuts| cuts.one_way(&"b".into(), &"a".into())).unwrap();
        assert!(!reached());
        fabric.heal().unwrap();
        assert!(reached());
        drop(fabric);
        assert!(!exists(&bridge));
        assert!(!from.exists());
    }

    #[test]
    fn what_a_dead_harness_left_is_removed() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let mut fabric = Fabric::make().unwrap();
        fabric.add("a").unwrap();
        let (bridge, file) = (fabric.bridge(), fabric.namespace_file("a").unwrap());
        batch(&[format!("link set dev {bridge} alias {pid}-1")]).unwrap();
        std::mem::forget(fabric);
        drop(Fabric::make().unwrap());
        assert!(!exists(&bridge));
        assert!(!file.exists());
    }
}
