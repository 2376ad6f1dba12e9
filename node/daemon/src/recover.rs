//! `ais-node recover URL --stamp I.E.S --secret-file F`: tells a node to go on without a majority that is lost for good.
//!
//! The stamp is what `ais-node inspect` prints of the disk with the newest State among those that are left. The call is
//! signed with the cluster's secret and refused by the node while anything is left that an election could use.

use std::path::PathBuf;
use std::time::Duration;

use ais_meta::auth::{self, Nonce};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::clock;
use crate::keyring::read_secrets;
use crate::tls;

const PATH: &str = "/v1/cluster/recover";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to tell, and what was confirmed.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The node's control URL, such as http://127.0.0.1:51082
    pub url: String,
    /// The stamp of its State, as `ais-node inspect` prints it: INCARNATION.EPOCH.SEQ
    #[arg(long)]
    pub stamp: String,
    /// File with the cluster's secret
    #[arg(long)]
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
    let body = serde_json::json!({"stamp": options.stamp}).to_string();
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).context("no random numbers")?;
    let signed = auth::Request { method: "POST", path_and_query: PATH, body: body.as_bytes() };
    let header = auth::sign(secret, signed, clock::unix_ms(), nonce);
    let base = tls::base(&options.url, options.ca_file.as_deref());
    let tls = match &options.ca_file {
        Some(file) => tls::trusting(file).map_err(|why| anyhow!(why))?,
        None => tls::nobody()?,
    };
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).tls_backend_preconfigured(tls);
    let client = builder.build()?;
    let request = client.post(format!("{}{PATH}", base.trim_end_matches('/'))).header(auth::HEADER, header).body(body);
    let answer = request.send().await.context("the node does not answer")?;
    let status = answer.status();
    let signature = answer.headers().get(auth::HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.bytes().await.context("the node's answer is lost; look at it before you ask again")?;
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        let why = told["message"].as_str().unwrap_or("it does not say why");
        bail!("not recovered (status {}): {why}", status.as_u16());
    }
    auth::verify_reply(secret, nonce, status.as_u16(), &body, signature.as_deref())
        .context("the answer is not of a node with this secret")?;
    Ok(format!("recovered: the cluster goes on from {}\n", told["stamp"].as_str().unwrap_or("a new stamp")))
}
