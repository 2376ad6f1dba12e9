//! `ais-node recover URL --secret-file F [--stamp I.E.S]`: tells a node to go on without a majority that is lost for
//! good. Without a stamp it only asks what the node holds.
//!
//! The stamp to confirm is the highest one among those that are left: what this command prints of a process, gateway or
//! target, and `ais-node inspect` of the disk of a stopped one. It is that of the newest *accepted* State; what a node
//! publishes may be older. The calls are signed with the cluster's secret, and recovery is refused by the node while
//! anything is left that an election could use.

use std::path::PathBuf;
use std::time::Duration;

use ais_meta::Stamp;
use ais_meta::auth::{self, Nonce};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use reqwest::Method;
use serde::Deserialize as _;

use crate::clock;
use crate::keyring::read_secrets;
use crate::tls;

const PATH: &str = "/v1/cluster/recover";
/// Answered by every process, whether it serves anybody or not.
const VIEW: &str = "/v1/ha/view";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to tell, and what was confirmed.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The node's control URL, such as http://127.0.0.1:51082
    pub url: String,
    /// The stamp of its State: INCARNATION.EPOCH.SEQ. Without it nothing is changed: the stamp is printed that the node
    /// holds
    #[arg(long)]
    pub stamp: Option<String>,
    /// File with the cluster's secret
    #[arg(long, env = "AIS_SECRET_FILE")]
    pub secret_file: PathBuf,
    /// File with the authorities behind the cluster's certificates, for an https URL
    #[arg(long, env = "AIS_TLS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Asks; what to print.
///
/// # Errors
/// Why the node did not do it, or could not be asked.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let file = options.secret_file.display();
    let secrets = read_secrets(&options.secret_file).map_err(|why| anyhow!("{file} {why}"))?;
    let secret = secrets.current();
    let base = tls::base(&options.url, options.ca_file.as_deref());
    let tls = match &options.ca_file {
        Some(file) => tls::trusting(file).map_err(|why| anyhow!(why))?,
        None => tls::nobody()?,
    };
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).tls_backend_preconfigured(tls);
    let node = Node { client: builder.build()?, base: base.trim_end_matches('/').to_owned(), secret: secret.clone() };
    let view = node.call(Method::GET, VIEW, auth::ANYBODY, String::new()).await?;
    let id = view["node_id"].as_str().context("the node does not say who it is")?;
    let Some(stamp) = &options.stamp else { return Ok(held(id, &view)) };
    // The order is for one node, whoever else may get to see it.
    let body = serde_json::json!({"stamp": stamp}).to_string();
    let told = node.call(Method::POST, PATH, id, body).await.context("not recovered")?;
    Ok(format!("recovered: the cluster goes on from {}\n", told["stamp"].as_str().unwrap_or("a new stamp")))
}

/// What a node holds durably, and what it waits for.
fn held(id: &str, view: &serde_json::Value) -> String {
    let text = |key: &str| view[key].as_str().filter(|text| !text.is_empty());
    let (kind, role) = (text("kind").unwrap_or("node"), text("role").unwrap_or("of no role"));
    let reason = text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    let accepted = stamp_of(&view["accepted"]).map_or_else(|| "none".to_owned(), |stamp| stamp.to_string());
    format!("accepted  {accepted}\n{kind} {id} is {role}{reason}\n")
}

fn stamp_of(told: &serde_json::Value) -> Option<Stamp> {
    Stamp::deserialize(told).ok()
}

struct Node {
    client: reqwest::Client,
    base: String,
    secret: auth::Secret,
}

impl Node {
    /// A signed call; the answer to it.
    async fn call(&self, method: Method, path: &str, to: &str, body: String) -> anyhow::Result<serde_json::Value> {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).context("no random numbers")?;
        let covered = auth::Request { method: method.as_str(), path_and_query: path, node: to, body: body.as_bytes() };
        let header = auth::sign(&self.secret, covered, clock::unix_ms(), nonce);
        let request = self.client.request(method, format!("{}{path}", self.base)).header(auth::HEADER, header);
        let answer = request.body(body).send().await.context("the node does not answer")?;
        let status = answer.status();
        let signature = answer.headers().get(auth::HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = answer.bytes().await.context("the node's answer is lost; look at it before you ask again")?;
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            let why = told["message"].as_str().unwrap_or("it does not say why");
            bail!("status {}: {why}", status.as_u16());
        }
        auth::verify_reply(&self.secret, nonce, status.as_u16(), &body, signature.as_deref())
            .context("the answer is not of a node with this secret")?;
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, held};

    #[test]
    fn what_a_node_holds_is_what_it_accepted() {
        let mut view = serde_json::json!({
            "kind": "target", "role": "follower", "accepted": Stamp { incarnation: 0, epoch: 1, seq: 3 },
            "reason": "no primary: waiting for a majority",
        });
        let told = "accepted  0.1.3\ntarget t1 is follower: no primary: waiting for a majority\n";
        assert_eq!(held("t1", &view), told);
        view["accepted"] = serde_json::Value::Null;
        assert!(held("t1", &view).starts_with("accepted  none\n"));
    }
}
