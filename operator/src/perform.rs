//! Calls to the nodes. Every one is signed, bounded in time and size, and its answer is verified.
//!
//! Pods are dialled by address, with their name as `Host`: names of pods appear in DNS later than pods.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ais_meta::auth;
use ais_meta::settings::Values;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::bounds::{TEXT_CHARS_MAX, cut};
use crate::plan::config::ConfigOutcome;
use crate::plan::order::Order;
use crate::tls::client as tls;
use crate::view::NodeView;

/// Largest answer that is read.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for a call that only reads.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a change of the configuration: a gateway may hold it until somebody leads.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a change of membership: a gateway holds it for as long while nobody leads.
const ORDER_TIMEOUT: Duration = Duration::from_secs(20);
/// A stream says something every 5 s; after this silence it is given up.
pub const STREAM_SILENCE: Duration = Duration::from_secs(12);

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, no answer in time, or the answer broke off.
    #[error("no answer: {0}")]
    Transport(String),
    /// The answer is not what was asked for.
    #[error("answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What the node says.
        message: String,
    },
    /// The answer does not carry a valid signature.
    #[error("the answer is not signed with the cluster's secret: {0}")]
    Unauthentic(#[from] auth::AuthError),
    /// The answer is no JSON of the expected form, or too large.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// The secret is too short, or there was no randomness.
    #[error("the call cannot be signed: {0}")]
    Signing(&'static str),
}

/// How a set-primary call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// The node says it is done; to be proven by reading back.
    Answered,
    /// Refused: nothing was done. The text says why.
    Refused(String),
    /// Nobody knows; to be found out by reading back.
    Unknown(String),
}

/// Where a node's control listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `address:port`, an IPv6 address in brackets.
    pub address: String,
    /// Value of `Host`.
    pub host: String,
}

impl Node {
    /// The node of a pod.
    #[must_use]
    pub fn new(ip: &str, port: u16, host: &str) -> Self {
        let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        Self { address, host: format!("{host}:{port}") }
    }

    /// Its id, which calls are signed for: the name of its pod, with which its host name begins.
    fn id(&self) -> &str {
        self.host.split(['.', ':']).next().unwrap_or_default()
    }
}

/// A way to the nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    scheme: &'static str,
}

/// Calls nodes of one cluster.
#[derive(Clone, Debug)]
pub struct Caller {
    http: Http,
    secret: auth::Secret,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    message: String,
}

impl Caller {
    /// A client for all clusters without TLS: no proxy, no redirects, short connect time-out.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn http() -> Result<Http, CallError> {
        let tls = tls::nobody().map_err(|e| CallError::Transport(e.to_string()))?;
        Ok(Http { client: Self::client(tls)?, scheme: "http" })
    }

    /// A client for a cluster with TLS: its nodes prove that they are one of `hosts` by a certificate of these
    /// authorities. While none of them can be read nobody is believed, and no call goes out.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn https(ca: &str, hosts: &[String]) -> Result<Http, CallError> {
        let tls = tls::trusting(ca, hosts).or_else(|error| {
            tracing::debug!(%error, "no node is believed");
            tls::nobody()
        });
        let tls = tls.map_err(|e| CallError::Transport(e.to_string()))?;
        Ok(Http { client: Self::client(tls)?, scheme: "https" })
    }

    fn client(tls: rustls::ClientConfig) -> Result<reqwest::Client, CallError> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(READ_TIMEOUT)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| CallError::Transport(e.to_string()))
    }

    /// Signs with `secret`, the content of the cluster's secret.
    ///
    /// # Errors
    /// [`CallError::Signing`] if it is too short.
    pub fn new(http: Http, secret: &str) -> Result<Self, CallError> {
        let secret =
            auth::Secret::from_file_content(secret.as_bytes()).ok_or(CallError::Signing("the secret is too short"))?;
        Ok(Self { http, secret })
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn view(&self, node: &Node) -> Result<NodeView, CallError> {
        let body = self.call(node, Method::GET, "/v1/ha/view", READ_TIMEOUT).await?;
        serde_json::from_slice(&body).map_err(|e| unreadable(&e))
    }

    /// Ends back-offs and makes a node read its discovery file.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn poke(&self, node: &Node) -> Result<(), CallError> {
        self.call(node, Method::POST, "/v1/ha/poke", READ_TIMEOUT).await.map(|_| ())
    }

    /// Asks the primary to hand over, under the condition that `from` still leads in `epoch`. Never forced.
    pub async fn transfer(
        &self,
        primary: &Node,
        from: &str,
        to: &str,
        epoch: u64,
        timeout: Duration,
    ) -> TransferOutcome {
        let path = format!("/v1/cluster/proxy/{to}?expected-primary={from}&expected-epoch={epoch}");
        outcome(self.call(primary, Method::PUT, &path, timeout).await)
    }

    /// Asks the primary for a change of membership, or announces the end of all pods.
    pub async fn order(&self, primary: &Node, order: &Order) -> TransferOutcome {
        let action = |action: &str, value: serde_json::Value| {
            (Method::PUT, "/v1/cluster", serde_json::json!({"action": action, "value": value}))
        };
        let one = |node: &String| serde_json::json!({"sids": [node]});
        let (method, path, body) = match order {
            // It stays, idle, until its pod goes: the kubelet would start it again, and it would join as a new node.
            Order::Decommission(node) => {
                action("decommission-node", serde_json::json!({"sids": [node], "no_shutdown": true}))
            }
            Order::StartMaintenance(node) => action("start-maintenance", one(node)),
            Order::StopMaintenance(node) => action("stop-maintenance", one(node)),
            Order::Stopping(stopping) => (Method::POST, "/v1/ha/stopping", serde_json::json!({"stopping": stopping})),
        };
        let body = body.to_string().into_bytes();
        outcome(self.send(primary, method, path, body, ORDER_TIMEOUT).await)
    }

    /// Opens the stream of views of a node.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn watch(&self, node: &Node) -> Result<ViewStream, CallError> {
        let (request, _) = self.request(node, Method::GET, "/v1/ha/watch", &[])?;
        let response = tokio::time::timeout(READ_TIMEOUT, request.header("Accept", "text/event-stream").send())
            .await
            .map_err(|_| CallError::Transport("time-out".into()))?
            .map_err(|e| CallError::Transport(root_cause(&e)))?;
        if response.status() != StatusCode::OK {
            return Err(CallError::Status { status: response.status().as_u16(), message: "no stream".into() });
        }
        Ok(ViewStream { response, buffer: Vec::new() })
    }

    /// Sets settings of the cluster's configuration, all or none. Whether they are set is seen by reading them back.
    pub async fn set_config(&self, primary: &Node, set: &Values) -> ConfigOutcome {
        let body = serde_json::json!({"action": "set-config", "value": set}).to_string();
        match self.send(primary, Method::PUT, "/v1/cluster", body.into_bytes(), CONFIG_TIMEOUT).await {
            Ok(_) => ConfigOutcome::Answered,
            Err(CallError::Status { status, message }) if (400..=499).contains(&status) => {
                ConfigOutcome::Refused(message)
            }
            Err(other) => ConfigOutcome::Unknown(other.to_string()),
        }
    }

    fn request(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Result<(reqwest::RequestBuilder, auth::Nonce), CallError> {
        let mut nonce: auth::Nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| CallError::Signing("no randomness"))?;
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| CallError::Signing("the clock is before 1970"))?;
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let covered = auth::Request { method: method.as_str(), path_and_query: path, node: node.id(), body };
        let header = auth::sign(&self.secret, covered, now_ms, nonce);
        let url = format!("{}://{}{path}", self.http.scheme, node.address);
        Ok((self.http.client.request(method, url).header("Host", &node.host).header(auth::HEADER, header), nonce))
    }

    async fn call(&self, node: &Node, method: Method, path: &str, timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.send(node, method, path, Vec::new(), timeout).await
    }

    async fn send(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let (request, nonce) = self.request(node, method, path, &body)?;
        let request = if body.is_empty() { request } else { request.body(body) };
        let exchange = async {
            let mut response = request.send().await.map_err(|e| CallError::Transport(root_cause(&e)))?;
            let body = bounded_body(&mut response).await?;
            Ok::<_, CallError>((response, body))
        };
        let (response, body) =
            tokio::time::timeout(timeout, exchange).await.map_err(|_| CallError::Transport("time-out".into()))??;
        let status = response.status().as_u16();
        let header = response.headers().get(auth::HEADER).and_then(|v| v.to_str().ok());
        auth::verify_reply(&self.secret, nonce, status, &body, header)?;
        if response.status().is_success() {
            return Ok(body);
        }
        let text: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        Err(CallError::Status { status, message: cut(text.message, TEXT_CHARS_MAX) })
    }
}

/// The words of the parser repeat what it found, which may be the whole answer.
fn unreadable(error: &serde_json::Error) -> CallError {
    CallError::Body(cut(error.to_string(), TEXT_CHARS_MAX))
}

fn outcome(answer: Result<Vec<u8>, CallError>) -> TransferOutcome {
    match answer {
        Ok(_) => TransferOutcome::Answered,
        // 504 is the node's own "outcome unknown"; other 5xx come from half-way, except those of
        // a node that did not begin.
        Err(CallError::Status { status, message }) if matches!(status, 400..=499 | 501 | 503) => {
            TransferOutcome::Refused(format!("{message} ({status})"))
        }
        Err(other) => TransferOutcome::Unknown(other.to_string()),
    }
}

async fn bounded_body(response: &mut Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| CallError::Transport(root_cause(&e)))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(CallError::Body(format!("larger than {BODY_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause: the outer ones only repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Views as a node pushes them (server-sent events).
#[derive(Debug)]
pub struct ViewStream {
    response: Response,
    buffer: Vec<u8>,
}

impl ViewStream {
    /// The next view; `None` when the node ended the stream.
    ///
    /// # Errors
    /// [`CallError`], also after a silence longer than a living node keeps.
    pub async fn next(&mut self) -> Result<Option<NodeView>, CallError> {
        loop {
            while let Some(event) = take_event(&mut self.buffer) {
                if let Some(data) = view_data(&event) {
                    return serde_json::from_str(&data).map(Some).map_err(|e| unreadable(&e));
                }
            }
            let chunk = tokio::time::timeout(STREAM_SILENCE, self.response.chunk())
                .await
                .map_err(|_| CallError::Transport("the stream is silent".into()))?
                .map_err(|e| CallError::Transport(root_cause(&e)))?;
            let Some(chunk) = chunk else { return Ok(None) };
            if self.buffer.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(CallError::Body(format!("an event larger than {BODY_BYTES_MAX} bytes")));
            }
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Cuts the first complete event off the buffer.
fn take_event(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(2).position(|w| w == b"\n\n").map(|i| (i, 2));
    let end_crlf = buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|i| (i, 4));
    let (at, width) = match (end, end_crlf) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    let event = String::from_utf8_lossy(&buffer[..at]).into_owned();
    buffer.drain(..at + width);
    Some(event)
}

/// Data of an event `view`; comments and other events are passed over.
fn view_data(event: &str) -> Option<String> {
    let (mut kind, mut data) = ("message", Vec::new());
    for line in event.lines().filter(|l| !l.starts_with(':')) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value,
            "data" => data.push(value),
            _ => {}
        }
    }
    (kind == "view" && !data.is_empty()).then(|| data.join("\n"))
}

/// Nodes asked at the same time.
const PARALLEL_MAX: usize = 64;

/// Reads the views of several nodes at once.
pub async fn views(caller: &Caller, nodes: Vec<(String, Node)>) -> Vec<(String, Result<NodeView, CallError>)> {
    let mut answers = Vec::with_capacity(nodes.len());
    for some in nodes.chunks(PARALLEL_MAX) {
        let calls = some.iter().map(|(_, node)| caller.view(node));
        let views = futures::future::join_all(calls).await;
        answers.extend(some.iter().map(|(pod, _)| pod.clone()).zip(views));
    }
    answers
}
