//! The node's configuration: one table of keys, four places to set them (flag over environment over file over
//! default), validated as a whole.
//!
//! A key `lease_ms` is `lease_ms:` in the file, `AIS_LEASE_MS` in the environment, `--lease-ms` on the command line.
//! Unknown keys in the file are errors; unknown variables are not ours to judge. Nothing is reported one error at a
//! time: [`Problems`] holds all of them, each with what to do.

mod keys;
mod read;
mod sources;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use ais_ha::Timers;
use ais_meta::{Address, Addresses, ClusterUuid, Kind, NodeId};
use clap::builder::Str;

use crate::keyring::Keyring;
use crate::tls::{Scheme, Tls};
pub use keys::{KEYS, Key};
pub(crate) use read::key_file;
pub use sources::{Flags, Given, Source, Surroundings, Values};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The key itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

const HIDDEN: &str = "**********";

/// What a node runs with. Every combination that this type can hold after [`load`] is one that works.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_id: NodeId,
    /// Gateway or target.
    pub kind: Kind,
    /// Where the node keeps its vote and the State.
    pub state_dir: PathBuf,
    /// A target's data disks; two of them keep a copy of the committed metadata.
    pub mountpaths: Vec<PathBuf>,
    /// IP address or name to listen on.
    pub listen_host: String,
    /// Name or IP address that others dial.
    pub advertise_host: String,
    /// AIStore's HTTP API.
    pub public_port: u16,
    /// HTTP for members and the operator.
    pub control_port: u16,
    /// Frames between members.
    pub peer_port: u16,
    /// The cluster's secrets; without any only with `insecure`.
    pub keyring: Keyring,
    /// Certificates of all listeners; plain ones without.
    pub tls: Option<Tls>,
    /// Key of clients' tokens signed with HS256. Never set together with `authn_public_key`: whoever knew the public
    /// one could sign with it.
    pub authn_secret_key: Option<Hidden>,
    /// Public key (PEM) of clients' tokens signed with RS256 or ES256.
    pub authn_public_key: Option<Hidden>,
    /// One gateway alone may found a cluster.
    pub standalone: bool,
    /// The cluster to belong to, when given.
    pub cluster_uuid: Option<ClusterUuid>,
    /// URL or host[:port] of the gateway that leads or founds; resolved at boot.
    pub primary_ep: Option<String>,
    /// List of who may exist, read again at each attempt.
    pub discovery_file: Option<PathBuf>,
    /// Never lead; counts at the first join only.
    pub non_electable: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Level, or a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// Failure domain, empty when not told.
    pub domain: String,
    /// Largest electorate.
    pub voters: usize,
    /// The core's timers.
    pub timers: Timers,
    /// Added to every sync of the state directory; for tests only.
    pub debug_fsync_delay_ms: u64,
    values: Values,
}

impl Config {
    /// Where this node listens, as told to others.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let at = |port| Address { host: self.advertise_host.as_str().into(), port };
        Addresses { public: at(self.public_port), control: at(self.control_port), peer: at(self.peer_port) }
    }

    /// How this cluster's nodes are called: all of them alike.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// The effective configuration as a file that would give it, with where each value came from. No secrets in it.
    #[must_use]
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for key in KEYS {
            let line = match self.values.get(key.name) {
                Some(given) if key.secret => format!("# {}: {HIDDEN}  # {}\n", key.name, given.source),
                Some(given) => format!("{}: {}  # {}\n", key.name, quoted(&given.text), given.source),
                None if key.name == "advertise_host" => format!("advertise_host: {}  # derived\n", self.advertise_host),
                None => format!("# {}: not set\n", key.name),
            };
            text.push_str(&line);
        }
        if self.keyring.ring().secrets().is_some() {
            text.push_str(&format!("# the secret was read: {HIDDEN}\n"));
        }
        if let Some(problem) = self.tls.as_ref().and_then(|tls| tls.now().problem) {
            text.push_str(&format!("# the certificate will not be accepted: {problem}\n"));
        }
        text
    }

    /// Whether somebody set this key, so that its default does not count.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|given| given.source != Source::Default)
    }

    /// Key, value pairs for `what=config`; names of files only, no secrets.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().filter(|(_, given)| given.text != HIDDEN).map(|(name, given)| (*name, given.text.as_str()))
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@+=,".contains(c);
    let simple = !text.is_empty() && text.chars().all(plain) && !text.starts_with(['-', '@', '=']);
    if simple { text.to_owned() } else { format!("{text:?}") }
}

/// Everything that is wrong with a configuration, each with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}:", if count == 1 { "error" } else { "errors" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  * {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Collects what the file, the environment and the flags say, and validates it as a whole.
///
/// # Errors
/// All [`Problems`] at once.
pub fn load(flags: &Flags, around: &Surroundings<'_>) -> Result<Config, Problems> {
    let (values, problems) = sources::collect(flags, around);
    read::build(values, problems, around.hostname)
}

/// What `check-config` prints and exits with: 0, or 2 when something is wrong.
#[must_use]
pub fn check(flags: &Flags, around: &Surroundings<'_>) -> (String, u8) {
    match load(flags, around) {
        Ok(config) => (config.effective(), 0),
        Err(problems) => (format!("{problems}\n"), 2),
    }
}

fn env_name(key: &str) -> String {
    format!("AIS_{}", key.to_ascii_uppercase())
}

fn flag_name(key: &str) -> Str {
    key.replace('_', "-").into()
}

/// How to set a key, for messages.
fn ways(key: &str) -> String {
    format!("--{}, {} or '{key}:' in the file", flag_name(key), env_name(key))
}
