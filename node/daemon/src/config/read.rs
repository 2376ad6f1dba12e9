//! From texts to a [`Config`]: every value on its own, then all together.

use std::path::{Path, PathBuf};

use ais_ha::Timers;
use ais_meta::Kind;
use tracing_subscriber::EnvFilter;

use super::sources::Values;
use super::{Config, HIDDEN, Hidden, LogFormat, Problems, ways};
use crate::keyring::{Keyring, read_secrets};
use crate::tls::{Files, Tls};

/// A PEM key is a few kilobytes.
const KEY_LEN_MAX: u64 = 64 << 10;
/// More data disks than a machine has.
const MOUNTPATHS_MAX: usize = 256;

/// As long as a name of a host may be in Kubernetes.
const DOMAIN_LEN_MAX: usize = 253;

/// Longest timer; a month.
const TIMER_MS_MAX: u64 = 31 * 24 * 3600 * 1000;

struct Reader {
    values: Values,
    problems: Vec<String>,
}

impl Reader {
    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|given| given.text.as_str())
    }

    fn complain(&mut self, key: &str, what: &str) {
        let by = self.values.get(key).map(|given| format!(" ({})", given.source)).unwrap_or_default();
        self.problems.push(format!("{key}{by}: {what}"));
    }

    /// A value that may be absent; a bad one is reported and counts as absent.
    fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match self.text(key).map(parse) {
            Some(Ok(value)) => Some(value),
            Some(Err(why)) => {
                self.complain(key, &why);
                None
            }
            None => None,
        }
    }

    fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.text(key).is_none() {
            self.problems.push(format!("{key} is not set; set it with {}", ways(key)));
        }
        self.optional(key, parse)
    }

    fn switch(&mut self, key: &str) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("'{text}' is neither true nor false")),
        };
        self.optional(key, parse).unwrap_or(false)
    }

    fn port(&mut self, key: &str) -> u16 {
        let parse = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("'{text}' is not a port; give 1 to 65535")),
        };
        self.optional(key, parse).unwrap_or(0)
    }

    fn ms(&mut self, key: &str) -> u64 {
        let zero_is_fine = matches!(key, "debug_fsync_delay_ms" | "publish_wait_ms" | "stagger_ms");
        let parse = |text: &str| match text.parse::<u64>() {
            Ok(0) if !zero_is_fine => Err("must be more than 0".to_owned()),
            Ok(ms) if ms <= TIMER_MS_MAX => Ok(ms),
            _ => Err(format!("'{text}' is not a number of milliseconds; give digits only, at most {TIMER_MS_MAX}")),
        };
        self.optional(key, parse).unwrap_or(0)
    }
}

fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if text.len() <= 253 && text.trim_end_matches('.').split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is neither an IP address nor a name; give it without scheme and port"))
}

/// `[http[s]://]host[:port][/]`
fn endpoint(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not a URL or host[:port]");
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let rest = rest.trim_end_matches('/');
    let is_v6 = rest.parse::<std::net::Ipv6Addr>().is_ok();
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !is_v6 => (name, port),
        _ => (rest, "1"),
    };
    host(name).map_err(|_| wrong())?;
    port.parse::<u16>().map_err(|_| wrong())?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn one_of<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| format!("'{text}' is not one of {}", names.join(", ")))
    }
}

fn timers(reader: &mut Reader) -> Timers {
    Timers {
        heartbeat_ms: reader.ms("heartbeat_ms"),
        suspect_ms: reader.ms("suspect_ms"),
        lease_ms: reader.ms("lease_ms"),
        stagger_ms: reader.ms("stagger_ms"),
        evict_smap_ms: reader.ms("evict_smap_ms"),
        evict_voter_ms: reader.ms("evict_voter_ms"),
        publish_wait_ms: reader.ms("publish_wait_ms"),
        park_ms: reader.ms("park_ms"),
        drain_ms: reader.ms("drain_ms"),
        probe_ms: reader.ms("probe_ms"),
    }
}

fn check_timers(reader: &mut Reader) {
    let found = ais_meta::settings::timers::problems(|key| reader.text(key).and_then(|text| text.parse().ok()));
    reader.problems.extend(found);
}

fn check_ports(reader: &mut Reader) {
    let names = ["public_port", "control_port", "peer_port"];
    for (i, a) in names.iter().enumerate() {
        for b in &names[i + 1..] {
            if let Some(port) = reader.text(a).filter(|port| reader.text(b) == Some(*port)).map(str::to_owned) {
                reader.problems.push(format!("{a} and {b} are both {port}; give each its own"));
            }
        }
    }
}

fn check_kind(reader: &mut Reader, kind: Option<Kind>) {
    let on = |reader: &Reader, key: &str| reader.text(key) == Some("true");
    for key in ["standalone", "non_electable"] {
        if kind == Some(Kind::Target) && on(reader, key) {
            reader.complain(key, "is for gateways: a target never leads; leave it out");
        }
    }
    if on(reader, "standalone") && on(reader, "non_electable") {
        reader.problems.push("standalone and non_electable exclude each other: a lone gateway must lead".to_owned());
    }
}

fn secrets(reader: &mut Reader, insecure: bool) -> Option<ais_meta::auth::Secrets> {
    if insecure && reader.text("secret_file").is_some() {
        reader.problems.push("insecure and secret_file exclude each other; leave one out".to_owned());
        return None;
    }
    if insecure {
        return None;
    }
    if reader.text("secret_file").is_none() {
        let ways = ways("secret_file");
        reader
            .problems
            .push(format!("secret_file is not set; set it with {ways}, or choose insecure on a trusted network"));
    }
    reader.optional("secret_file", |path| read_secrets(path.as_ref()).map_err(|why| format!("{path} {why}")))
}

/// All three files or none. What stands in them is looked at by [`Tls`], which lives with files that are not good yet.
fn tls(reader: &mut Reader, advertised: Option<&str>) -> Option<Tls> {
    const KEYS: [&str; 3] = ["tls_cert_file", "tls_key_file", "tls_ca_file"];
    let given = KEYS.map(|key| reader.text(key).map(PathBuf::from));
    let name = reader.optional("tls_name", host);
    if let [Some(cert), Some(key), Some(ca)] = given {
        return Some(Tls::new(Files { cert, key, ca }, name.as_deref().or(advertised)?));
    }
    if name.is_some() {
        reader.complain("tls_name", "is for nodes with TLS; leave it out, or give the three files");
    }
    if given.iter().any(Option::is_some) {
        for (key, _) in KEYS.iter().zip(&given).filter(|(_, path)| path.is_none()) {
            let ways = ways(key);
            reader.problems.push(format!("{key} is not set, and TLS needs it; set it with {ways}"));
        }
    }
    None
}

/// A key that is given as it is or in a file. What was given is replaced, so that nothing can print it.
fn authn_key(reader: &mut Reader, key: &'static str, file: &'static str) -> Option<Hidden> {
    let given = reader.text(key).map(str::to_owned);
    if let Some(value) = reader.values.get_mut(key) {
        value.text = HIDDEN.to_owned();
    }
    if given.is_some() && reader.text(file).is_some() {
        reader.problems.push(format!("{key} and {file} exclude each other; leave one out"));
        return None;
    }
    let from_file = reader.optional(file, |path| key_file(path).map_err(|why| format!("{path} {why}")));
    given.or(from_file).map(Hidden)
}

/// Reads the file of a key for tokens.
///
/// # Errors
/// What is wrong with it, to be said after its path.
pub(crate) fn key_file(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    let length = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if length > KEY_LEN_MAX {
        return Err(format!("has {length} bytes; a key has at most {KEY_LEN_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    match text.trim() {
        "" => Err("is empty; put the key into it".to_owned()),
        key => Ok(key.to_owned()),
    }
}

fn authn_keys(reader: &mut Reader) -> (Option<Hidden>, Option<Hidden>) {
    let secret = authn_key(reader, "authn_secret_key", "authn_secret_key_file");
    let public = authn_key(reader, "authn_public_key", "authn_public_key_file");
    if secret.is_some() && public.is_some() {
        // A token signed with HS256 under the text of the public key would pass otherwise.
        let what = "authn_secret_key and authn_public_key exclude each other; leave one out";
        reader.problems.push(what.to_owned());
    }
    (secret, public)
}

fn mountpaths(reader: &mut Reader, kind: Option<Kind>) -> Vec<PathBuf> {
    if kind == Some(Kind::Gateway) && reader.text("mountpaths").is_some() {
        reader.complain("mountpaths", "is for targets: a gateway has no data disks; leave it out");
    }
    let paths = reader.optional("mountpaths", |text| {
        let paths: Vec<PathBuf> = text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(PathBuf::from).collect();
        let mut known = std::collections::BTreeSet::new();
        match paths.iter().find(|p| !p.is_absolute() || !known.insert((*p).clone())) {
            Some(wrong) if wrong.is_absolute() => Err(format!("'{}' is there twice", wrong.display())),
            Some(wrong) => Err(format!("'{}' is not an absolute path", wrong.display())),
            None if paths.is_empty() => Err("names no directory".to_owned()),
            None if paths.len() > MOUNTPATHS_MAX => Err(format!("names more than {MOUNTPATHS_MAX} directories")),
            None => Ok(paths),
        }
    });
    paths.unwrap_or_default()
}

/// The first of a list that is not empty: whoever fills in the list may not know which of them there are (a zone, or else
/// the host).
fn domain(text: &str) -> Result<String, String> {
    let first = text.split(',').map(str::trim).find(|name| !name.is_empty()).unwrap_or_default();
    match first.len() {
        0..=DOMAIN_LEN_MAX => Ok(first.to_owned()),
        _ => Err(format!("'{first}' is longer than {DOMAIN_LEN_MAX} characters")),
    }
}

fn advertise_host(reader: &mut Reader, listen_host: &str, hostname: Option<&str>) -> Option<String> {
    let unspecified = |host: &str| host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if reader.text("advertise_host").is_some() {
        let given = reader.optional("advertise_host", host)?;
        if unspecified(&given) {
            reader.complain("advertise_host", "others cannot dial this; give a name or address of this host");
        }
        return Some(given);
    }
    if !unspecified(listen_host) {
        return Some(listen_host.to_owned());
    }
    let name = hostname.and_then(|name| host(name).ok());
    if name.is_none() {
        let ways = ways("advertise_host");
        reader.problems.push(format!("advertise_host is not set and this host has no usable name; set it with {ways}"));
    }
    name
}

pub(super) fn build(values: Values, problems: Vec<String>, hostname: Option<&str>) -> Result<Config, Problems> {
    let mut reader = Reader { values, problems };
    let r = &mut reader;
    let kind = r.required("kind", one_of(&[("gateway", Kind::Gateway), ("target", Kind::Target)]));
    let node_id = r.required("node_id", |text| text.parse().map_err(|e: ais_meta::id::IdError| e.to_string()));
    let state_dir = r.required("state_dir", |text| Ok(PathBuf::from(text)));
    let listen_host = r.required("listen_host", host);
    let advertise_host = listen_host.as_deref().and_then(|listen| advertise_host(r, listen, hostname));
    let log_format = r.required("log_format", one_of(&[("human", LogFormat::Human), ("json", LogFormat::Json)]));
    let log_level = r.required("log_level", |text| match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("'{text}' is not a level or filter: {e}")),
    });
    let domain = r.optional("domain", domain);
    let insecure = r.switch("insecure");
    let secrets = secrets(r, insecure);
    let keyring = Keyring::new(secrets, r.text("secret_file").map(PathBuf::from));
    let tls = tls(r, advertise_host.as_deref());
    let (authn_secret_key, authn_public_key) = authn_keys(r);
    let mountpaths = mountpaths(r, kind);
    check_ports(r);
    check_kind(r, kind);
    let (standalone, non_electable) = (r.switch("standalone"), r.switch("non_electable"));
    let (public_port, control_port, peer_port) = (r.port("public_port"), r.port("control_port"), r.port("peer_port"));
    let cluster_uuid = r.optional("cluster_uuid", |t| t.parse().map_err(|e: ais_meta::id::IdError| e.to_string()));
    let primary_ep = r.optional("primary_ep", endpoint);
    let discovery_file = r.optional("discovery_file", |text| Ok(PathBuf::from(text)));
    let voters = r.optional("voters", one_of(&[("3", 3), ("5", 5)])).unwrap_or(5);
    let timers = timers(r);
    let debug_fsync_delay_ms = r.ms("debug_fsync_delay_ms");
    check_timers(r);
    let whole = (kind, node_id, state_dir, listen_host.zip(advertise_host), log_format.zip(log_level));
    let (
        Some(kind),
        Some(node_id),
        Some(state_dir),
        Some((listen_host, advertise_host)),
        Some((log_format, log_level)),
    ) = whole
    else {
        return Err(Problems(reader.problems));
    };
    if !reader.problems.is_empty() {
        return Err(Problems(reader.problems));
    }
    let domain = domain.unwrap_or_default();
    let values = reader.values;
    Ok(Config {
        node_id,
        kind,
        state_dir,
        mountpaths,
        listen_host,
        advertise_host,
        public_port,
        control_port,
        peer_port,
        keyring,
        tls,
        authn_secret_key,
        authn_public_key,
        standalone,
        cluster_uuid,
        primary_ep,
        discovery_file,
        non_electable,
        log_format,
        log_level,
        domain,
        voters,
        timers,
        debug_fsync_delay_ms,
        values,
    })
}
