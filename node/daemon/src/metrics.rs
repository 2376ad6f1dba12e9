//! What `/metrics` tells. Counters and histograms are fed by the engine ([`Hooks`]) and by the HTTP servers; gauges
//! are taken from the view when somebody asks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ais_ha::{RoleName, Stats, View};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::hooks::Hooks;
use crate::tls;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLabel {
    lane: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabel {
    event: &'static str,
}

/// What is counted of HTTP requests. `resource` is of a fixed set, so that clients cannot make series.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HttpLabel {
    /// `public` or `control`.
    pub listener: &'static str,
    /// First part of the path that names a resource, or `other`.
    pub resource: &'static str,
    /// Method, or `other`.
    pub method: &'static str,
    /// Status.
    pub code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

const ROLES: [RoleName; 8] = [
    RoleName::Primary,
    RoleName::Candidate,
    RoleName::Follower,
    RoleName::Learner,
    RoleName::Founding,
    RoleName::Joining,
    RoleName::Waiting,
    RoleName::Stopping,
];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    fsync: Histogram,
    failover: Histogram,
    persist_failures: Counter,
    packets_dropped: Family<LaneLabel, Counter>,
    connections: Family<EventLabel, Counter>,
    http_requests: Family<HttpLabel, Counter>,
    http_seconds: Histogram,
    http_connections: Family<ListenerLabel, Gauge>,
    roles: Family<RoleLabel, Gauge>,
    tls_not_after: Gauge,
    tls_problem: Gauge,
    gauges: Vec<(OfView, Gauge)>,
    stats: Vec<(OfStats, Counter)>,
}

type OfView = fn(&View) -> i64;
type OfStats = fn(&Stats) -> u64;
type GaugeRow = (&'static str, &'static str, OfView);
type StatRow = (&'static str, &'static str, OfStats);

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn stamp(view: &View) -> ais_meta::Stamp {
    view.published.as_ref().map(|s| s.stamp()).unwrap_or_default()
}

const GAUGES: &[GaugeRow] = &[
    ("ready", "Whether a committed cluster map holds this process", |v| i64::from(v.ready)),
    ("disk_ok", "Whether the last write to the state directory succeeded", |v| i64::from(v.disk_ok)),
    ("led", "Whether this node knows a primary that it believes to live", |v| i64::from(v.primary.is_some())),
    ("epoch", "Epoch of the primary that this node follows", |v| int(v.epoch)),
    ("promised_epoch", "Effective promise", |v| int(v.promised.epoch)),
    ("stamp_incarnation", "Incarnation of the newest published State", |v| i64::from(stamp(v).incarnation)),
    ("stamp_epoch", "Epoch of the newest published State", |v| int(stamp(v).epoch)),
    ("stamp_seq", "Sequence of the newest published State", |v| int(stamp(v).seq)),
    ("smap_version", "Version of the cluster map", |v| v.published.as_ref().map_or(0, |s| int(s.smap().version))),
    ("bmd_version", "Version of the bucket metadata", |v| v.published.as_ref().map_or(0, |s| int(s.bmd_version()))),
    ("buckets", "Buckets", |v| v.published.as_ref().map_or(0, |s| count(s.buckets().len()))),
    ("members", "Members in the cluster map", |v| v.published.as_ref().map_or(0, |s| count(s.nodes().len()))),
    ("voters", "Voters", |v| v.published.as_ref().map_or(0, |s| count(s.electorate().len()))),
    ("members_connected", "Members that the primary is connected to; 0 elsewhere", |v| {
        count(v.members.values().filter(|m| m.connected).count())
    }),
];

const STATS: &[StatRow] = &[
    ("pre_votes", "Rounds of pre-votes started", |s| s.pre_votes),
    ("elections", "Elections started: prepares sent", |s| s.elections),
    ("elections_won", "Elections won: first States committed", |s| s.wins),
    ("commits", "States committed while leading", |s| s.commits),
    ("mutations_settled", "Mutations settled while leading", |s| s.settled),
    ("lease_lapses", "Times the lease lapsed while leading", |s| s.lapses),
    ("resigns", "Times this node gave up leading", |s| s.resigns),
    ("adoptions", "Adopted States that were newer than this node's own", |s| s.adoptions),
    ("voters_added", "Voters added while leading", |s| s.voters_added),
    ("voters_removed", "Voters removed while leading", |s| s.voters_removed),
    ("full_states_sent", "Whole States sent because a base was missing", |s| s.fulls),
];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("ais_node");
        let gauges = GAUGES.iter().map(|(name, help, of)| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(*name, *help, gauge.clone());
            (*of, gauge)
        });
        let gauges = gauges.collect();
        let stats = STATS.iter().map(|(name, help, of)| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(*name, *help, counter.clone());
            (*of, counter)
        });
        let stats = stats.collect();
        let metrics = Self {
            fsync: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            failover: Histogram::new(exponential_buckets(0.01, 2.0, 13)),
            persist_failures: Counter::default(),
            packets_dropped: Family::default(),
            connections: Family::default(),
            http_requests: Family::default(),
            http_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 17)),
            http_connections: Family::default(),
            roles: Family::default(),
            tls_not_after: Gauge::default(),
            tls_problem: Gauge::default(),
            gauges,
            stats,
            registry,
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let seconds = || Unit::Seconds;
        let r = &mut self.registry;
        r.register_with_unit("fsync", "Writing and syncing the state directory", seconds(), self.fsync.clone());
        let help = "From losing the primary to seeing one lead again, at this node";
        r.register_with_unit("failover", help, seconds(), self.failover.clone());
        let help = "Writes to the state directory that failed";
        r.register("persist_failures", help, self.persist_failures.clone());
        let help = "Packets dropped because their peer does not drain its queue, or because they are too large";
        r.register("packets_dropped", help, self.packets_dropped.clone());
        r.register("peer_connections", "Connections of members, opened and lost", self.connections.clone());
        r.register("http_requests", "HTTP requests answered", self.http_requests.clone());
        r.register_with_unit("http_request", "HTTP requests, streams left out", seconds(), self.http_seconds.clone());
        r.register("http_connections", "Open HTTP connections", self.http_connections.clone());
        let help = "End of this node's certificate in Unix time; 0 without TLS";
        r.register_with_unit("tls_certificate_not_after", help, seconds(), self.tls_not_after.clone());
        let help = "Whether others do not accept this node's certificate";
        r.register("tls_problem", help, self.tls_problem.clone());
        r.register("role", "1 for what the node does", self.roles.clone());
        self
    }

    /// Counts an answered HTTP request. `took` is left out for streams.
    pub fn http(&self, label: HttpLabel, took: Option<Duration>) {
        self.http_requests.get_or_create(&label).inc();
        if let Some(took) = took {
            self.http_seconds.observe(took.as_secs_f64());
        }
    }

    /// The gauge of open HTTP connections of a listener.
    #[must_use]
    pub fn http_connections(&self, listener: &'static str) -> Gauge {
        self.http_connections.get_or_create_owned(&ListenerLabel { listener })
    }

    /// Takes the certificate of now.
    pub fn tls(&self, now: &tls::Now) {
        self.tls_not_after.set(now.material.as_ref().map_or(0, |material| material.not_after_s));
        self.tls_problem.set(i64::from(now.problem.is_some()));
    }

    /// Everything as OpenMetrics text, gauges taken from `view`.
    #[must_use]
    pub fn render(&self, view: &View) -> String {
        for (of, gauge) in &self.gauges {
            gauge.set(of(view));
        }
        for role in ROLES {
            self.roles.get_or_create(&RoleLabel { role: role.as_str() }).set(i64::from(role == view.role));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Hooks for Metrics {
    fn fsync(&self, took: Duration) {
        self.fsync.observe(took.as_secs_f64());
    }

    fn persist_failed(&self) {
        self.persist_failures.inc();
    }

    fn packet_dropped(&self, bulk: bool) {
        self.packets_dropped.get_or_create(&LaneLabel { lane: if bulk { "bulk" } else { "control" } }).inc();
    }

    fn connection(&self, opened: bool) {
        self.connections.get_or_create(&EventLabel { event: if opened { "opened" } else { "lost" } }).inc();
    }

    fn failover(&self, took: Duration) {
        self.failover.observe(took.as_secs_f64());
    }

    fn stats(&self, stats: &Stats) {
        for (of, counter) in &self.stats {
            counter.inner().store(of(stats), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_EXPECT=1` writes the table anew.
    #[test]
    fn the_manual_lists_every_metric() {
        let metrics = Metrics::new();
        // A family shows itself with its first sample only.
        metrics.http(HttpLabel { listener: "public", resource: "buckets", method: "GET", code: 200 }, None);
        let _open = metrics.http_connections("public");
        metrics.packet_dropped(false);
        metrics.connection(true);
        drop(metrics.roles.get_or_create(&RoleLabel { role: "primary" }));
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        let code = include_str!("metrics.rs").split("#[cfg(test)]").next().unwrap();
        let more = code.matches("        r.register").count();
        let registered = GAUGES.len() + STATS.len() + more;
        assert_eq!(text.matches("# TYPE ").count(), registered, "a metric without a sample in this test");
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let rows = kinds.map(|(name, kind)| {
            let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).unwrap();
            let end = if kind == "counter" { "_total" } else { "" };
            format!("| `{name}{end}` | {kind} | {} |\n", help.trim_end_matches('.'))
        });
        let table: String = rows.collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let manual = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = manual.split_once("<!-- node -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end of node -->").unwrap();
        let head = "| metric | kind | meaning |\n|---|---|---|\n";
        let wanted = format!("{before}<!-- node -->\n{head}{table}<!-- end of node -->{after}");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        assert!(manual == wanted || std::env::var_os("UPDATE_EXPECT").is_some(), "docs/metrics.md is stale:\n{table}");
    }
}
