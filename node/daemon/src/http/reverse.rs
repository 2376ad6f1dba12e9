//! Calls to other members: `/v1/reverse/daemon`, and the last calls of a process that ends.

use std::sync::Arc;
use std::time::Duration;

use ais_meta::node::flags;
use ais_meta::{NodeId, auth};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::json;

use super::caller::Caller;
use super::error::ApiError;
use super::gate::ANSWER_MAX;
use super::mutate::Call;
use super::params::Params;
use super::{App, CALLER_ID, NODE_ID, REQUEST_ID, STAMP, json as reply, wire};
use crate::clock;
use crate::tls::{self, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// An answer that another node wrote: its errors are not ours to write again.
#[derive(Clone, Copy)]
pub(super) struct Relayed;

/// The client for calls to members: no proxies, no redirects, no patience. With TLS it verifies whom it calls.
pub(super) fn client(tls: Option<&Tls>) -> anyhow::Result<reqwest::Client> {
    let tls = tls.map_or_else(tls::nobody, |tls| tls.client(None))?;
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let builder = builder.tls_backend_preconfigured(tls).connect_timeout(CONNECT_TIMEOUT);
    Ok(builder.timeout(CALL_TIMEOUT).tcp_nodelay(true).build()?)
}

/// `/v1/reverse/daemon` with `Ais-Node-Id`: the node's own `/v1/daemon`.
pub(super) async fn forward(
    State(app): State<Arc<App>>,
    params: Params,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    app.gateway_only("reverse calls")?;
    let id = headers.get(NODE_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    if id.is_empty() {
        return Err(ApiError::bad("a reverse call names its node in the header Ais-Node-Id"));
    }
    let state = app.state().await?;
    let node = id.parse::<NodeId>().ok().and_then(|id| state.nodes().get(&id).cloned());
    let Some(node) = node else {
        return Err(ApiError::not_found(format!("node \"{id}\" is not in the cluster map")).tcode("ErrNodeNotFound"));
    };
    if node.is_set_aside() && params.get("what") == Some("node_status") {
        let status = if node.flags & flags::DECOMMISSION != 0 { "decommission" } else { "maintenance" };
        let snode = wire::Snode::member(&node, &state, app.config.scheme());
        let status = json!({
            "snode": snode, "daemon_id": id, "status": status, "tracker": {}, "capacity": {"mountpaths": {}},
            "smap_version": state.smap().version.to_string(),
        });
        return reply(&status, Some(state.stamp()));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{}/v1/daemon{query}", app.url(&node.addresses.control));
    let failed = |why: String| ApiError::new(StatusCode::BAD_GATEWAY, format!("{id} does not answer: {why}"));
    call(&app, id, method, &url, body).await.map_err(failed)
}

/// Calls the control listener of the member `to`, signed; its answer's signature is checked. While the secret is rotated, a member
/// that does not take the first one is called again with the others: it did nothing then.
pub(super) async fn call(app: &App, to: &str, method: Method, url: &str, body: Bytes) -> Result<Response, String> {
    let url = reqwest::Url::parse(url).map_err(|e| e.to_string())?;
    let Some(secrets) = app.secrets() else {
        let request = app.client.request(method, url).header(CALLER_ID, app.id().as_str());
        let answer = request.body(body).send().await.map_err(|e| e.without_url().to_string())?;
        return Ok(taken(answer).await?.1.map(Body::from));
    };
    let mut last = String::new();
    for secret in secrets.iter() {
        match call_signed(app, secret, to, &method, &url, body.clone()).await {
            Err(why) => return Err(why),
            Ok(Signed::Good(response)) => return Ok(response.map(Body::from)),
            Ok(Signed::Stranger(why)) => last = why,
        }
    }
    app.config.keyring.doubt();
    Err(last)
}

/// An answer to a signed call.
enum Signed {
    Good(axum::http::Response<Bytes>),
    /// The call was refused by one who does not hold the secret.
    Stranger(String),
}

async fn call_signed(
    app: &App,
    secret: &auth::Secret,
    to: &str,
    method: &Method,
    url: &reqwest::Url,
    body: Bytes,
) -> Result<Signed, String> {
    let mut nonce = auth::Nonce::default();
    getrandom::fill(&mut nonce).map_err(|e| e.to_string())?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let covered = auth::Request { method: method.as_str(), path_and_query: &path, node: to, body: &body };
    let signature = auth::sign(secret, covered, clock::unix_ms(), nonce);
    let request = app.client.request(method.clone(), url.clone()).header(CALLER_ID, app.id().as_str());
    let request = request.header(auth::HEADER, signature);
    let answer = request.body(body).send().await.map_err(|e| e.without_url().to_string())?;
    let signature = answer.headers().get(auth::HEADER).cloned();
    let (status, response) = taken(answer).await?;
    let signature = signature.as_ref().and_then(|value| value.to_str().ok());
    match auth::verify_reply(secret, nonce, status.as_u16(), response.body(), signature) {
        Ok(()) => Ok(Signed::Good(response)),
        Err(why) if status == StatusCode::FORBIDDEN => Ok(Signed::Stranger(why.to_string())),
        Err(why) => Err(why.to_string()),
    }
}

/// Takes the answer as a whole, with the headers that clients look at.
async fn taken(mut answer: reqwest::Response) -> Result<(StatusCode, axum::http::Response<Bytes>), String> {
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| e.without_url().to_string())? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(format!("its answer is larger than {ANSWER_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = axum::http::Response::new(Bytes::from(body));
    *response.status_mut() = status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER, STAMP] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.extensions_mut().insert(Relayed);
    Ok((status, response))
}

/// The JSON of a member's answer.
pub(super) async fn json_of(answer: Response) -> Result<serde_json::Value, String> {
    let body = axum::body::to_bytes(answer.into_body(), ANSWER_MAX).await.map_err(|e| e.to_string())?;
    serde_json::from_slice(&body).map_err(|e| format!("its answer is not JSON: {e}"))
}

/// Sends a client's mutation on to the primary. Only for a process whose core has ended: otherwise the core forwards,
/// under an id that survives a failover. A client brings its token along; a member is let in by this node's signature.
pub(super) async fn relay(app: &App, call: &Call) -> Result<Response, ApiError> {
    let view = app.view();
    let primary = view.primary.as_ref().filter(|primary| primary.id.node != *app.id());
    let Some(primary) = primary else { return Err(ApiError::unavailable("this gateway ends; ask another")) };
    let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
    if matches!(call.caller, Caller::Member) {
        let url = format!("{}{path}", app.url(&primary.addresses.control));
        let lost = |why| ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("the primary's answer is lost: {why}"));
        return self::call(app, primary.id.node.as_str(), call.method.clone(), &url, call.body.clone())
            .await
            .map_err(lost);
    }
    let url = format!("{}{path}", app.url(&primary.addresses.public));
    let mut request = app.client.request(call.method.clone(), url);
    request = request.header(header::CONTENT_TYPE, "application/json");
    for name in [REQUEST_ID, header::AUTHORIZATION, HeaderName::from_static("x-amz-security-token")] {
        if let Some(value) = call.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answer = request.body(call.body.clone()).send().await.map_err(|e| {
        if e.is_connect() {
            return ApiError::unavailable("this gateway ends, and the primary does not answer; ask another");
        }
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the change was sent to the primary and its fate is unknown")
    })?;
    let unknown = |why| ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("the primary's answer is lost: {why}"));
    Ok(taken(answer).await.map_err(unknown)?.1.map(Body::from))
}
