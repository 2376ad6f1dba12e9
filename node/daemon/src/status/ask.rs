//! Asking a gateway what the primary knows.

use std::path::Path;
use std::time::Duration;

use ais_meta::Stamp;
use serde::Deserialize;

use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read: a thousand members take half a megabyte.
const ANSWER_MAX: usize = 16 << 20;

/// What is used of the answer to `what=ha`. A newer or older node may say more or less.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Seen {
    pub(super) node_id: String,
    pub(super) cluster_uuid: Option<String>,
    pub(super) role: String,
    pub(super) reason: String,
    pub(super) stamp: Option<Stamp>,
    pub(super) epoch: u64,
    pub(super) primary: Option<String>,
    pub(super) primary_since_ms: Option<u64>,
    pub(super) electorate: Vec<Seat>,
    pub(super) smap_version: u64,
    pub(super) bmd_version: u64,
    pub(super) config_version: u64,
    pub(super) ready: bool,
    pub(super) cluster_stopping: bool,
    pub(super) disk_ok: Option<bool>,
    pub(super) transaction: Option<Transaction>,
    pub(super) members: Vec<Member>,
}

/// A seat of the electorate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Seat {
    pub(super) node_id: String,
}

/// A membership transaction in progress.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    pub(super) action: String,
    pub(super) nodes: Vec<String>,
    pub(super) phase: String,
    pub(super) rebalance_id: String,
}

/// A member as the primary sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) node_id: String,
    pub(super) kind: String,
    pub(super) voter: bool,
    pub(super) connected: bool,
    pub(super) published: Option<Stamp>,
    pub(super) age_ms: Option<u64>,
    pub(super) non_electable: bool,
    pub(super) maintenance: bool,
}

/// What an error of ours says.
#[derive(Deserialize)]
struct Refused {
    message: String,
}

pub(super) async fn ask(url: &str, token: Option<&str>, ca_file: Option<&Path>) -> Result<Seen, String> {
    let base = tls::base(url, ca_file);
    let url = format!("{}/v1/cluster?what=ha", base.trim_end_matches('/'));
    let tls = ca_file.map_or_else(|| tls::nobody().map_err(|e| e.to_string()), tls::trusting)?;
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).tls_backend_preconfigured(tls);
    let client = builder.build().map_err(|e| e.to_string())?;
    let mut request = client.get(url);
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        request = request.bearer_auth(token);
    }
    let mut answer = request.send().await.map_err(explained)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(explained)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(format!("the answer is larger than {ANSWER_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        let why = serde_json::from_slice::<Refused>(&body).map(|refused| refused.message).unwrap_or_default();
        return Err(format!("status {} {why}", status.as_u16()));
    }
    serde_json::from_slice(&body).map_err(|e| format!("this is no answer of a gateway: {e}"))
}

/// With the cause, which the client library leaves out.
fn explained(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
