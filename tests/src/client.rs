//! AIStore calls and signed member calls, as the drills make them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ais_meta::Stamp;
use ais_meta::auth::{self, Secret};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::http::{self, Call, Failure, Reply};

/// The SDK's read time-out: what a client of AIStore waits for an answer.
pub const SDK_TIMEOUT: Duration = Duration::from_secs(20);
/// A look at a node that lives takes less.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Header in which a client names its own request.
pub const REQUEST_ID: &str = "Ais-Request-Id";

/// A node as `GET /v1/ha/view` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct View {
    /// Node.
    pub node_id: String,
    /// Its disk.
    pub disk_id: String,
    /// Its process.
    pub boot_id: String,
    /// Counts the processes on the disk.
    pub run: u64,
    /// `gateway` or `target`.
    pub kind: String,
    /// The cluster.
    pub cluster_uuid: Option<String>,
    /// Whether the node belongs to a formed cluster.
    pub formed: bool,
    /// Whether it agreed to a founding that is under way.
    pub bound: bool,
    /// `primary`, `follower`, ...
    pub role: String,
    /// Why it is not ready.
    pub reason: String,
    /// Newest committed State it published.
    pub stamp: Option<Stamp>,
    /// Effective promise.
    pub promised: u64,
    /// The incarnation that it is of.
    pub promised_incarnation: u32,
    /// Who leads, as it believes.
    pub primary: Option<String>,
    /// Since when it leads, in Unix milliseconds; of the primary only.
    pub primary_since_ms: Option<i64>,
    /// Voters of that State.
    pub electorate: Vec<Seat>,
    /// Version of the Smap.
    pub smap_version: u64,
    /// Whether it serves.
    pub ready: bool,
    /// Whether it is about to end.
    pub stopping: bool,
    /// What the primary knows of the members.
    pub members: Vec<Member>,
    /// Which secrets and certificates it has.
    pub credentials: Credentials,
}

/// Which secrets and certificates a node has, by their digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Secrets that it accepts; the first one signs.
    pub secrets: Vec<String>,
    /// Where all ports speak TLS.
    pub tls: Option<Certificate>,
}

/// A node's certificate and whom it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// Digest of its certificate.
    pub certificate: Option<String>,
    /// Digests of the authorities.
    pub authorities: Vec<String>,
    /// Why others do not accept it.
    pub problem: Option<String>,
}

/// A voter.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct Seat {
    /// Node.
    pub node_id: String,
    /// Disk.
    pub disk_id: String,
    /// `gateway` or `target`.
    pub kind: String,
}

/// A member as the primary sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Node.
    pub node_id: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether there is a connection.
    pub connected: bool,
    /// Newest State it has on disk.
    pub acked: Option<Stamp>,
    /// Newest State it serves.
    pub published: Option<Stamp>,
}

impl View {
    /// The epoch of the newest committed State.
    pub fn epoch(&self) -> u64 {
        self.stamp.map_or(0, |stamp| stamp.epoch)
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.role == "primary"
    }
}

/// The stamp that a reply carries.
pub fn stamp_of(reply: &Reply) -> Option<Stamp> {
    let mut parts = reply.header("ais-stamp")?.split('.');
    let stamp = Stamp {
        incarnation: parts.next()?.parse().ok()?,
        epoch: parts.next()?.parse().ok()?,
        seq: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(stamp)
}

fn bucket_target(name: &str) -> String {
    format!("/v1/buckets/{name}?provider=ais")
}

fn mutate(gateway: &str, method: &str, name: &str, action: &str, id: Option<&str>) -> Result<Reply, Failure> {
    let body = format!(r#"{{"action":"{action}","name":"","value":null}}"#);
    let named = id.map(|id| [(REQUEST_ID, id)]);
    let headers: &[(&str, &str)] = named.as_ref().map_or(&[], |headers| headers);
    let call = Call { method, target: &bucket_target(name), headers, body: body.as_bytes() };
    http::call(gateway, call, SDK_TIMEOUT)
}

/// Makes a bucket.
pub fn create_bucket(gateway: &str, name: &str, id: Option<&str>) -> Result<Reply, Failure> {
    mutate(gateway, "POST", name, "create-bck", id)
}

/// Makes a bucket, or gives up after a time.
pub fn create_bucket_within(gateway: &str, name: &str, timeout: Duration) -> Result<Reply, Failure> {
    let body = br#"{"action":"create-bck","name":"","value":null}"#;
    http::call(gateway, Call { method: "POST", target: &bucket_target(name), headers: &[], body }, timeout)
}

/// Sets keys of the cluster's configuration, or gives up after a time.
pub fn set_config_within(gateway: &str, settings: &Value, timeout: Duration) -> Result<Reply, Failure> {
    let body = serde_json::json!({"action": "set-config", "value": settings}).to_string();
    http::call(gateway, Call { method: "PUT", target: "/v1/cluster", headers: &[], body: body.as_bytes() }, timeout)
}

/// Destroys a bucket.
pub fn delete_bucket(gateway: &str, name: &str, id: Option<&str>) -> Result<Reply, Failure> {
    mutate(gateway, "DELETE", name, "destroy-bck", id)
}

/// Asks for a bucket's properties.
pub fn head_bucket(gateway: &str, name: &str) -> Result<Reply, Failure> {
    http::call(gateway, Call { method: "HEAD", target: &bucket_target(name), ..Call::default() }, SDK_TIMEOUT)
}

/// Asks for the list of buckets.
pub fn list_buckets(gateway: &str) -> Result<Reply, Failure> {
    let body = br#"{"action":"list","name":"","value":null}"#;
    let call = Call { method: "GET", target: "/v1/buckets?provider=ais", headers: &[], body };
    http::call(gateway, call, SDK_TIMEOUT)
}

/// The names in a list of buckets.
pub fn listed_names(reply: &Reply) -> Result<BTreeSet<String>> {
    let list: Vec<Value> = serde_json::from_slice(&reply.body).context("the list of buckets is not a JSON list")?;
    list.iter().map(|bucket| Ok(bucket["name"].as_str().context("a bucket without a name")?.to_owned())).collect()
}

/// An unsigned `GET` that must be answered with JSON.
pub fn get_json(address: &str, target: &str) -> Result<Value> {
    let reply = http::call(address, Call { method: "GET", target, ..Call::default() }, LOOK_TIMEOUT)?;
    if !reply.is_success() {
        bail!("GET {target} at {address}: {} {}", reply.status, reply.text());
    }
    serde_json::from_slice(&reply.body).with_context(|| format!("GET {target} at {address}: not JSON"))
}

/// The names of all `ais` buckets in a node's own metadata, targets too.
pub fn bmd_names(address: &str) -> Result<BTreeSet<String>> {
    let bmd = get_json(address, "/v1/daemon?what=bmd")?;
    let buckets = &bmd["providers"]["ais"]["@#"];
    Ok(buckets.as_object().map(|buckets| buckets.keys().cloned().collect()).unwrap_or_default())
}

/// Hands the primary's role over, unsigned and through the public port, as AIStore's tools do.
pub fn set_primary(address: &str, id: &str, query: &str) -> Result<Reply, Failure> {
    let target =
        if query.is_empty() { format!("/v1/cluster/proxy/{id}") } else { format!("/v1/cluster/proxy/{id}?{query}") };
    http::call(address, Call { method: "PUT", target: &target, ..Call::default() }, SDK_TIMEOUT)
}

/// A signed `GET /v1/ha/view`; the reply's signature is checked.
pub fn view(control: &str, secret: &Secret) -> Result<View> {
    view_skewed(control, secret, 0)
}

/// As [`view`], to a node whose wall clock is so far ahead.
pub fn view_skewed(control: &str, secret: &Secret, skew_ms: i64) -> Result<View> {
    let ask = Signed { method: "GET", target: "/v1/ha/view", body: b"", skew_ms, timeout: LOOK_TIMEOUT };
    let reply = ask.send(control, secret)?;
    if !reply.is_success() {
        bail!("the view of {control}: {} {}", reply.status, reply.text());
    }
    serde_json::from_slice(&reply.body).with_context(|| format!("the view of {control} is not as documented"))
}

/// A signed call without a body to a control port; the reply's signature is checked.
pub fn signed(control: &str, secret: &Secret, method: &str, target: &str, timeout: Duration) -> Result<Reply> {
    Signed { method, target, body: b"", skew_ms: 0, timeout }.send(control, secret)
}

/// A signed call to a control port.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `GET`, ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Body.
    pub body: &'a [u8],
    /// How far the callee's clock is ahead of this machine's, in milliseconds.
    pub skew_ms: i64,
    /// For the whole call.
    pub timeout: Duration,
}

impl Signed<'_> {
    /// Sends it; the reply's signature is checked.
    pub fn send(self, control: &str, secret: &Secret) -> Result<Reply> {
        let Self { method, target, .. } = self;
        let (reply, nonce) = self.exchange(control, secret)?;
        let answer = reply.header("ais-auth");
        auth::verify_reply(secret, nonce, reply.status, &reply.body, answer).with_context(|| {
            format!("the reply of {control} ({}) to {method} {target}: {}", reply.status, reply.text())
        })?;
        Ok(reply)
    }

    /// Sends it; whoever does not know the secret cannot sign its refusal.
    pub fn send_unverified(self, control: &str, secret: &Secret) -> Result<Reply> {
        self.exchange(control, secret).map(|(reply, _)| reply)
    }

    fn exchange(self, control: &str, secret: &Secret) -> Result<(Reply, auth::Nonce)> {
        let Self { method, target, body, skew_ms, timeout } = self;
        // A question is for whoever hears it, an order for one node.
        let node = match auth::reads(method) {
            true => auth::ANYBODY.to_owned(),
            false => view_skewed(control, secret, skew_ms)?.node_id,
        };
        let request = auth::Request { method, path_and_query: target, node: &node, body };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let now_ms = u64::try_from(now.as_millis())?.saturating_add_signed(skew_ms);
        let nonce = nonce()?;
        let header = auth::sign(secret, request, now_ms, nonce);
        let headers = [(auth::HEADER, header.as_str())];
        let reply = http::call(control, Call { method, target, headers: &headers, body }, timeout)?;
        Ok((reply, nonce))
    }
}

fn nonce() -> Result<auth::Nonce> {
    use std::io::Read;
    let mut nonce = auth::Nonce::default();
    std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce).context("no random bytes")?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_three_numbers() {
        let with = |value: &str| Reply { headers: vec![("ais-stamp".into(), value.into())], ..Reply::default() };
        assert_eq!(stamp_of(&with("0.3.17")), Some(Stamp::new(0, 3, 17)));
        for bad in ["", "1.2", "1.2.3.4", "a.b.c"] {
            assert_eq!(stamp_of(&with(bad)), None, "{bad}");
        }
    }
}
