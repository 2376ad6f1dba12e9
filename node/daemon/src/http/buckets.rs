//! `/v1/buckets`: create, list, head, destroy.

use std::sync::Arc;

use ais_meta::{Bucket, BucketName, Change, Outcome, Stamp};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::{Action, Params};
use super::{App, REQUEST_ID, absent, done, json as reply, reverse, wire};
use crate::clock;
use crate::handle::Proposed;

const PROPS: HeaderName = HeaderName::from_static("ais-bucket-props");
/// Longest id that a client may give its mutation.
const REQUEST_ID_MAX: usize = 64;

/// A mutation as it came, for the case that another gateway has to take it.
struct Call<'a> {
    method: Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    body: Bytes,
}

fn provider(params: &Params) -> Result<(), ApiError> {
    match params.get("provider").unwrap_or_default() {
        "" | "ais" => Ok(()),
        cloud @ ("aws" | "s3" | "gcp" | "gs" | "azure" | "az" | "oci" | "oc" | "ht") => {
            Err(ApiError::unsupported(format!("provider '{cloud}' is not built: buckets are of provider 'ais' only")))
        }
        other => Err(ApiError::bad(format!("'{other}' is not a bucket provider")).tcode("ErrInvalidBucketProvider")),
    }
}

/// `@uuid#name`, `#name`, `@uuid` or nothing. Another cluster's uuid is a remote bucket.
fn namespace<'a>(app: &App, params: &'a Params) -> Result<&'a str, ApiError> {
    let text = params.get("namespace").unwrap_or_default();
    let (uuid, name) = text.split_once('#').unwrap_or((text, ""));
    let uuid = uuid.strip_prefix('@').unwrap_or(uuid);
    if !uuid.is_empty() && app.view().uuid.as_ref().is_none_or(|own| own.as_str() != uuid) {
        return Err(ApiError::unsupported(format!("cluster '{uuid}' is not this one: remote clusters are not built")));
    }
    Ok(name)
}

fn named(app: &App, name: &str, params: &Params) -> Result<BucketName, ApiError> {
    app.gateway_only("bucket calls")?;
    provider(params)?;
    BucketName::new(namespace(app, params)?, name).map_err(|e| ApiError::bad(e.to_string()))
}

/// `GET /v1/buckets` with action `list`.
pub(super) async fn list(State(app): State<Arc<App>>, params: Params, body: Bytes) -> Result<Response, ApiError> {
    app.gateway_only("bucket calls")?;
    let action = Action::read(&body)?.action;
    if !action.is_empty() && action != "list" {
        return Err(absent::action(&action));
    }
    provider(&params)?;
    let wanted = params.get("namespace").is_some_and(|text| !text.is_empty()).then(|| namespace(&app, &params));
    let wanted = wanted.transpose()?;
    let state = app.state().await?;
    let names = state.buckets().keys().filter(|name| wanted.is_none_or(|wanted| wanted == name.namespace));
    let names: Vec<Value> = names.map(wire::bucket_entry).collect();
    reply(&names, Some(state.stamp()))
}

/// Other methods without a name.
pub(super) async fn nameless() -> ApiError {
    ApiError::bad("the path names no bucket")
}

/// `HEAD /v1/buckets/NAME`
pub(super) async fn head(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &params)?;
    let (bucket, stamp) = find(&app, &name).await?;
    if params.get("bsumm_remote").is_some() {
        return Err(absent::action("summary-bck"));
    }
    let mut response = done(Some(stamp));
    let props = HeaderValue::from_str(&wire::bucket_props(&bucket).to_string());
    response.headers_mut().insert(PROPS, props.map_err(|e| ApiError::broken(e.to_string()))?);
    Ok(response)
}

/// `GET /v1/buckets/NAME`: listing objects and the like.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &params)?;
    let action = Action::read(&body)?.action;
    find(&app, &name).await?;
    Err(absent::action(if action.is_empty() { "list" } else { &action }))
}

/// A bucket of the committed State. Whoever is about to answer "no such bucket" asks the primary first (protocol.md
/// rule 12); who cannot ask does not know, and says that instead.
async fn find(app: &App, name: &BucketName) -> Result<(Arc<Bucket>, Stamp), ApiError> {
    let state = app.state().await?;
    if let Some(bucket) = state.buckets().get(name) {
        return Ok((Arc::clone(bucket), state.stamp()));
    }
    let fresh = app.handle.pull().await;
    let state = app.state().await?;
    match state.buckets().get(name) {
        Some(bucket) => Ok((Arc::clone(bucket), state.stamp())),
        None if fresh => Err(ApiError::refused(&ais_meta::Refusal::NoSuchBucket(name.clone()), state.stamp())),
        None => {
            let text = format!("bucket \"{name}\" is not known here, and no primary could be asked whether it exists");
            Err(ApiError::unavailable(text).at(state.stamp()))
        }
    }
}

/// `POST /v1/buckets/NAME` with action `create-bck`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &params)?;
    let Action { action, value } = Action::read(&body)?;
    if action != "create-bck" {
        return Err(absent::action(&action));
    }
    if !value.is_null() && value.as_object().is_none_or(|props| !props.is_empty()) {
        return Err(ApiError::unsupported("giving properties to a new bucket is not built"));
    }
    let created_ns = i64::try_from(clock::unix_ms()).unwrap_or(0).saturating_mul(1_000_000);
    let call = Call { method: Method::POST, uri: &uri, headers: &headers, body };
    mutate(&app, call, Change::CreateBucket { name, created_ns, props: Default::default() }).await
}

/// `DELETE /v1/buckets/NAME` with action `destroy-bck`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &params)?;
    let action = Action::read(&body)?.action;
    if action != "destroy-bck" {
        return Err(absent::action(&action));
    }
    let call = Call { method: Method::DELETE, uri: &uri, headers: &headers, body };
    mutate(&app, call, Change::DestroyBucket { name }).await
}

fn client_id(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(REQUEST_ID) else { return Ok(None) };
    let id = value.to_str().unwrap_or_default();
    if id.is_empty() || id.len() > REQUEST_ID_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        let text = format!("Ais-Request-Id is not 1 to {REQUEST_ID_MAX} visible characters");
        return Err(ApiError::bad(text));
    }
    Ok(Some(id.to_owned()))
}

/// Proposes and waits for the end (protocol.md rule 13).
async fn mutate(app: &App, call: Call<'_>, change: Change) -> Result<Response, ApiError> {
    let id = client_id(call.headers)?;
    app.formed().await?;
    match app.handle.propose(id, change).await {
        Proposed::Settled { outcome: Outcome::Done | Outcome::Began(_), stamp } => Ok(done(Some(stamp))),
        Proposed::Settled { outcome: Outcome::Refused(refusal), stamp } => Err(ApiError::refused(&refusal, stamp)),
        // The core has ended, this process is about to: the client must not notice.
        Proposed::Busy | Proposed::Unavailable if app.handle.ended() => {
            reverse::relay(app, call.method, call.uri, call.headers, call.body).await
        }
        Proposed::Unavailable => {
            let text = "nobody leads; the change was not proposed and will not take effect";
            Err(ApiError::unavailable(text).with("reason", json!(app.view().reason)))
        }
        Proposed::Unknown { id } => {
            let text = format!("request {id} was proposed and its fate is unknown: look before sending it again");
            let status = axum::http::StatusCode::GATEWAY_TIMEOUT;
            Err(ApiError::new(status, text).with("request_id", json!(id)))
        }
        Proposed::Busy => Err(ApiError::unavailable("too many changes are under way at this gateway")),
    }
}
