//! What the processes use, and what they count.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::http::{self, Call};
use crate::processes::{LocalCluster, Node};

/// A node that does not answer a look is looked at the next time.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// Counters that are added up over all processes of all nodes.
const COUNTED: [&str; 6] = ["pre_votes", "elections", "elections_won", "lease_lapses", "voters_added", "commits"];

/// Of one node, over all its processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Use {
    /// Largest resident memory seen, in KiB.
    pub(super) rss_max_kib: u64,
    /// The last one.
    pub(super) rss_last_kib: u64,
    /// Most open files seen.
    pub(super) fds_max: usize,
    /// The last count.
    pub(super) fds_last: usize,
    /// Of the process that lived for the most looks: how many, its memory at the first and at the last, in KiB.
    pub(super) oldest: (usize, u64, u64),
    pid: u32,
    current: (usize, u64, u64),
}

/// Looks at all nodes after every fault.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    /// By node.
    pub(super) nodes: BTreeMap<String, Use>,
    /// By counter, over all processes.
    pub(super) counted: BTreeMap<&'static str, u64>,
    /// By node and counter: process, and what it said last.
    last: BTreeMap<(String, &'static str), (u32, u64)>,
}

impl Monitor {
    /// Looks at all that run.
    pub(super) fn look(&mut self, cluster: &mut LocalCluster) {
        for node in cluster.nodes.iter().filter(|node| node.answers()) {
            let Some(pid) = node.pid() else { continue };
            self.process(&node.id, pid);
            self.counters(node, pid);
        }
    }

    fn process(&mut self, id: &str, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let (Some(rss_kib), Ok(fds)) = (rss, fs::read_dir(format!("/proc/{pid}/fd"))) else { return };
        let used = self.nodes.entry(id.to_owned()).or_default();
        (used.rss_last_kib, used.fds_last) = (rss_kib, fds.count());
        used.rss_max_kib = used.rss_max_kib.max(rss_kib);
        used.fds_max = used.fds_max.max(used.fds_last);
        if used.pid != pid {
            (used.pid, used.current) = (pid, (0, rss_kib, rss_kib));
        }
        used.current = (used.current.0 + 1, used.current.1, rss_kib);
        if used.current.0 > used.oldest.0 {
            used.oldest = used.current;
        }
    }

    fn counters(&mut self, node: &Node, pid: u32) {
        let call = Call { method: "GET", target: "/metrics", ..Call::default() };
        let Ok(reply) = http::call(&node.control, call, LOOK_TIMEOUT) else { return };
        let text = reply.text();
        for name in COUNTED {
            let wanted = format!("ais_node_{name}_total ");
            let value = text.lines().find_map(|line| line.strip_prefix(&wanted)?.trim().parse::<u64>().ok());
            let Some(value) = value else { continue };
            let last = self.last.entry((node.id.clone(), name)).or_default();
            let before = if last.0 == pid { last.1 } else { 0 };
            *self.counted.entry(name).or_default() += value.saturating_sub(before);
            *last = (pid, value);
        }
    }
}
