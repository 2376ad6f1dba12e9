//! The one table of keys.

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file; environment and flag follow from it.
    pub name: &'static str,
    /// What holds when nobody sets it.
    pub default: Option<&'static str>,
    /// One line, with unit.
    pub help: &'static str,
    /// Whether `--key` alone means `true`.
    pub switch: bool,
    /// Not shown in the help.
    pub hidden: bool,
    /// Its value is never printed.
    pub secret: bool,
}

const fn key(name: &'static str, default: Option<&'static str>, help: &'static str) -> Key {
    Key { name, default, help, switch: false, hidden: false, secret: false }
}

/// Set by file or environment: a command line is there for everybody to read.
const fn secret(name: &'static str, help: &'static str) -> Key {
    Key { name, default: None, help, switch: false, hidden: true, secret: true }
}

const fn switch(name: &'static str, help: &'static str) -> Key {
    Key { name, default: Some("false"), help, switch: true, hidden: false, secret: false }
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key("node_id", None, "Name of this node, unique in the cluster; in Kubernetes the pod's name (required)"),
    key("kind", None, "gateway or target (required)"),
    key(
        "state_dir",
        None,
        "Directory for the vote and the cluster's metadata, on a disk that survives restarts (required)",
    ),
    key(
        "mountpaths",
        None,
        "Directories of a target's data disks, comma-separated; two of them keep a copy of the committed metadata",
    ),
    key("listen_host", Some("0.0.0.0"), "Address to listen on"),
    key(
        "advertise_host",
        None,
        "Name or address that others dial (default: listen_host if specific, else the host's name)",
    ),
    key("public_port", Some("51080"), "Port of AIStore's HTTP API"),
    key("control_port", Some("51082"), "Port of HTTP for members and the operator, and of /metrics"),
    key("peer_port", Some("51084"), "Port of the connections between members"),
    key(
        "secret_file",
        None,
        "File with the cluster's secret, at least 16 bytes (required unless insecure); further lines: older or newer ones that are accepted as well",
    ),
    key(
        "tls_cert_file",
        None,
        "File with this node's certificate chain, PEM; with the two others it turns on TLS at all ports. Read again when it changes",
    ),
    key("tls_key_file", None, "File with the certificate's key, PEM"),
    key(
        "tls_ca_file",
        None,
        "File with the authorities whose certificates are accepted, PEM; several while they are rotated",
    ),
    key(
        "tls_name",
        None,
        "Name that this node's certificate holds, for a node that others dial by an address (default: advertise_host)",
    ),
    switch("insecure", "Run without a secret: whoever reaches the ports is trusted"),
    switch("standalone", "This gateway may found a cluster alone"),
    secret("authn_secret_key", "Key of clients' tokens (HS256)"),
    key("authn_secret_key_file", None, "File with the key of clients' tokens (HS256)"),
    secret("authn_public_key", "Public key of clients' tokens (RS256, ES256), PEM"),
    key("authn_public_key_file", None, "File with the public key of clients' tokens (RS256, ES256), PEM"),
    key("cluster_uuid", None, "Identity of the cluster to belong to, 9 to 64 of letters, digits, '_', '-'"),
    key("primary_ep", None, "URL or host[:port] of the gateway that leads or founds"),
    key("discovery_file", None, "YAML or JSON file that lists who may exist, read again at each attempt"),
    switch("non_electable", "Never lead; counts at the node's first join only"),
    key("log_format", Some("human"), "human or json"),
    key("log_level", Some("info"), "error, warn, info, debug, trace, or a filter such as info,ais_node=debug"),
    key(
        "domain",
        None,
        "Failure domain of this node: its host, rack or zone; of several, separated by commas, the first that is not empty",
    ),
    key("voters", Some("5"), "Largest number of voters, 3 or 5"),
    key("heartbeat_ms", Some("300"), "Between heartbeats of the primary"),
    key("suspect_ms", Some("1500"), "Silence after which the primary is suspected"),
    key("lease_ms", Some("2000"), "How long a heartbeat binds a voter"),
    key("stagger_ms", Some("200"), "Between the candidates of one election"),
    key("evict_smap_ms", Some("10000"), "Silence after which a member leaves the cluster map"),
    key("evict_voter_ms", Some("60000"), "Silence after which a voter is replaced"),
    key("park_ms", Some("15000"), "How long a gateway holds a mutation while nobody leads"),
    key("publish_wait_ms", Some("200"), "How long a mutation's answer waits for members to publish it"),
    key("drain_ms", Some("2000"), "How long a planned hand-over waits for the update under way"),
    key("probe_ms", Some("300"), "How long a candidate waits for the suspected primary's word"),
    Key {
        name: "debug_fsync_delay_ms",
        default: Some("0"),
        help: "Added to every sync of the state directory; for tests only",
        switch: false,
        hidden: true,
        secret: false,
    },
];

/// The known key that is nearest to a misspelt one.
pub(super) fn nearest(wrong: &str) -> Option<&'static str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let near = KEYS.iter().map(|key| (strsim::damerau_levenshtein(&wrong, key.name), key.name)).min();
    near.filter(|(distance, name)| *distance <= name.len() / 3 + 1).map(|(_, name)| name)
}
