//! The cluster's configuration (http-api.md 2.6): what code here honours, the defaults of new buckets, and the timers.

use super::{Absent, All, Kind, Setting, Table, bucket, timers};

/// Longest timer; a month.
const TIMER_MS_MAX: u64 = 31 * 24 * 3600 * 1000;
const TIMER: Kind = Kind::U64 { min: 1, max: TIMER_MS_MAX };

const fn timer(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    // A mixture of old and new timers in one node would break the rules between them: they are taken together, at a
    // start.
    Setting { name, kind: TIMER, default, live: false, doc }
}

static OWN: &[Setting] = &[
    Setting {
        name: "auth.client_auth_required",
        kind: Kind::Bool,
        default: "false",
        live: true,
        doc: "clients need a token; the key is in each node's own configuration",
    },
    Setting {
        name: "auth.required_claims.aud",
        kind: Kind::List { items: 16, max: 256 },
        default: "",
        live: true,
        doc: "a token must be meant for one of these",
    },
    Setting {
        name: "log.level",
        kind: Kind::Enum(&["error", "warn", "info", "debug", "trace"]),
        default: "info",
        live: true,
        doc: "what nodes log; a node's own configuration goes first",
    },
];

static TIMERS: &[Setting] = &[
    timer("ha.heartbeat_ms", "300", "between heartbeats"),
    timer("ha.suspect_ms", "1500", "silence after which the primary is down for a member"),
    timer("ha.lease_ms", "2000", "how long a heartbeat binds a voter"),
    timer("ha.stagger_ms", "200", "between the candidates of one election"),
    timer("ha.evict_smap_ms", "10000", "silence after which a member leaves the cluster map"),
    timer("ha.evict_voter_ms", "60000", "silence after which a voter is replaced"),
    timer("ha.publish_wait_ms", "200", "how long an answer waits for members to publish"),
    timer("ha.park_ms", "15000", "how long a gateway parks a mutation"),
    timer("ha.drain_ms", "2000", "how long a hand-over waits for the State in flight"),
    timer("ha.probe_ms", "300", "how long a candidate waits for the suspected primary's word"),
];

const HA: &str = "this cluster's timers are the ha.*_ms settings";
const NODE: &str = "it is in each node's own configuration";
const NO_DATA: &str = "nothing here does that";

/// The cluster's configuration.
pub static CLUSTER: Table = Table {
    what: "configuration key",
    groups: &[OWN, TIMERS, bucket::INHERITED],
    absent: &[
        Absent { name: "auth", why: "keys and methods are in each node's own configuration" },
        // Protocol.md section 8 has it; it says when objects are moved away from a node that left.
        Absent { name: "ha.rejoin_grace_ms", why: "this version moves no data, so it waits for nobody with that" },
        Absent { name: "timeout", why: HA },
        Absent { name: "keepalivetracker", why: HA },
        Absent { name: "proxy", why: "the primary is elected; PUT /v1/cluster/proxy/ID asks for another" },
        Absent { name: "net", why: NODE },
        Absent { name: "log", why: NODE },
        Absent { name: "fshc", why: NODE },
        Absent { name: "tracing", why: NODE },
        Absent { name: "backend", why: "there are no remote backends" },
        Absent { name: "uuid", why: "it never changes" },
        Absent { name: "config_version", why: "it counts changes" },
        Absent { name: "lastupdate_time", why: "it tells of changes" },
        Absent { name: "ext", why: NO_DATA },
        Absent { name: "features", why: "none of AIStore's feature flags means anything here" },
        Absent { name: "client", why: NO_DATA },
        Absent { name: "periodic", why: NO_DATA },
        Absent { name: "memsys", why: NO_DATA },
        Absent { name: "disk", why: NO_DATA },
        Absent { name: "space", why: NO_DATA },
        Absent { name: "resilver", why: NO_DATA },
        Absent { name: "rebalance", why: NO_DATA },
        Absent { name: "transport", why: NO_DATA },
        Absent { name: "downloader", why: NO_DATA },
        Absent { name: "distributed_sort", why: NO_DATA },
        Absent { name: "tcb", why: NO_DATA },
        Absent { name: "tco", why: NO_DATA },
        Absent { name: "arch", why: NO_DATA },
        Absent { name: "get_batch", why: NO_DATA },
    ],
    together,
};

fn together(all: &All) -> Result<(), String> {
    bucket::together(all)?;
    let ms = |name: &str| all.text(&format!("ha.{name}")).parse().ok();
    timers::problems(ms).into_iter().next().map_or(Ok(()), Err)
}
