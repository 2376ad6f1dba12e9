//! What is cut, and how a namespace's packet filter says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::End;
use crate::processes::NAMESPACE_PORTS;

/// What does not get through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Sender, receiver.
    dropped: BTreeSet<(End, End)>,
    /// Per mille of the packets that a node gets from other nodes.
    lost: BTreeMap<String, u32>,
}

impl Cuts {
    /// Packets of `from` do not reach `to`.
    pub fn one_way(&mut self, from: &End, to: &End) {
        self.dropped.insert((from.clone(), to.clone()));
    }

    /// Neither hears the other.
    pub fn both(&mut self, a: &End, b: &End) {
        self.one_way(a, b);
        self.one_way(b, a);
    }

    /// A node does not get this share of what other nodes send.
    pub fn lose(&mut self, id: &str, per_mille: u32) {
        self.lost.insert(id.to_owned(), per_mille);
    }

    /// The rules of one node's namespace, whole, for `iptables-restore`.
    pub(super) fn rules(&self, id: &str, clients: Ipv4Addr, address: impl Fn(&str) -> Option<Ipv4Addr>) -> String {
        let own = End::from(id);
        let [public, ..] = NAMESPACE_PORTS;
        let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for (from, to) in &self.dropped {
            match (from, to) {
                (End::Clients, to) if *to == own => {
                    let _ = writeln!(text, "-A INPUT -s {clients} -p tcp --dport {public} -j DROP");
                }
                (from, End::Clients) if *from == own => {
                    let _ = writeln!(text, "-A OUTPUT -d {clients} -p tcp --sport {public} -j DROP");
                }
                (End::Node(from), to) if *to == own => {
                    if let Some(from) = address(from) {
                        let _ = writeln!(text, "-A INPUT -s {from} -j DROP");
                    }
                }
                _ => {}
            }
        }
        if let Some(per_mille) = self.lost.get(id) {
            let share = f64::from(*per_mille) / 1000.0;
            let _ =
                writeln!(text, "-A INPUT ! -s {clients} -m statistic --mode random --probability {share:.3} -j DROP");
        }
        text.push_str("COMMIT\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_drops_what_it_must_not_hear() {
        let address = |id: &str| Some(Ipv4Addr::new(198, 18, 1, if id == "a" { 10 } else { 11 }));
        let clients = Ipv4Addr::new(198, 18, 1, 1);
        let mut cuts = Cuts::default();
        cuts.one_way(&"a".into(), &"b".into());
        cuts.both(&"a".into(), &End::Clients);
        let (a, b) = (cuts.rules("a", clients, address), cuts.rules("b", clients, address));
        assert!(b.contains("-A INPUT -s 198.18.1.10 -j DROP"), "{b}");
        assert!(!a.contains("198.18.1.11"), "{a}");
        assert!(a.contains("--dport 51080") && a.contains("--sport 51080"), "{a}");
        assert!(!b.contains("51080"), "{b}");
    }
}
