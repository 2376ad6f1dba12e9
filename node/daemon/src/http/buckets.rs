//! `/v1/buckets`: create, list, head, destroy, properties, rename. Metadata only.

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::{Bucket, BucketName, Change, ClusterUuid, Refusal, Stamp};
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::Value;

use super::caller::{Caller, unmasked};
use super::error::ApiError;
use super::mutate::{Call, mutate, now_ns, settle};
use super::params::{Action, Params, dotted};
use super::{App, absent, done, jobs, json as reply, text, wire};
use crate::auth::Rights;

const PROPS: HeaderName = HeaderName::from_static("ais-bucket-props");

fn provider(name: &str) -> Result<(), ApiError> {
    match name {
        "" | "ais" => Ok(()),
        cloud @ ("aws" | "s3" | "gcp" | "gs" | "azure" | "az" | "oci" | "oc" | "ht") => {
            Err(ApiError::unsupported(format!("provider '{cloud}' is not built: buckets are of provider 'ais' only")))
        }
        other => Err(ApiError::bad(format!("'{other}' is not a bucket provider")).tcode("ErrInvalidBucketProvider")),
    }
}

/// `@uuid#name`, `#name`, `@uuid` or nothing. Another cluster's uuid is a remote bucket.
fn namespace<'a>(own: Option<&ClusterUuid>, text: &'a str) -> Result<&'a str, ApiError> {
    let (uuid, name) = text.split_once('#').unwrap_or((text, ""));
    let uuid = uuid.strip_prefix('@').unwrap_or(uuid);
    if !uuid.is_empty() && own.is_none_or(|own| own.as_str() != uuid) {
        return Err(ApiError::unsupported(format!("cluster '{uuid}' is not this one: remote clusters are not built")));
    }
    Ok(name)
}

fn bucket_name(namespace: &str, name: &str) -> Result<BucketName, ApiError> {
    BucketName::new(namespace, name).map_err(|e| ApiError::bad(e.to_string()))
}

/// The bucket that a path and its query name, in the cluster of this uuid.
pub(super) fn of(own: Option<&ClusterUuid>, name: &str, params: &Params) -> Result<BucketName, ApiError> {
    provider(params.get("provider").unwrap_or_default())?;
    bucket_name(namespace(own, params.get("namespace").unwrap_or_default())?, name)
}

fn named(app: &App, name: &str, params: &Params) -> Result<BucketName, ApiError> {
    app.gateway_only("bucket calls")?;
    of(app.view().uuid.as_ref(), name, params)
}

/// `GET /v1/buckets` with action `list`.
pub(super) async fn list(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("bucket calls")?;
    let action = Action::read(&call.body)?.action;
    if !action.is_empty() && action != "list" {
        return Err(absent::action(&action));
    }
    provider(call.params.get("provider").unwrap_or_default())?;
    let wanted = call.params.get("namespace").filter(|text| !text.is_empty());
    let wanted = wanted.map(|text| namespace(app.view().uuid.as_ref(), text)).transpose()?;
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
    call: Call,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &call.params)?;
    let (bucket, stamp) = find(&app, &call.caller, &name, Rights::HEAD_BUCKET).await?;
    if call.params.get("bsumm_remote").is_some() {
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
    call: Call,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &call.params)?;
    let action = Action::read(&call.body)?.action;
    find(&app, &call.caller, &name, Rights::LIST_OBJECTS).await?;
    Err(absent::action(if action.is_empty() { "list" } else { &action }))
}

/// A bucket of the committed State, for who may `wanted`. Whoever is about to answer "no such bucket" asks the primary
/// first (protocol.md rule 12); who cannot ask does not know, and says that instead.
async fn find(app: &App, caller: &Caller, name: &BucketName, wanted: Rights) -> Result<(Arc<Bucket>, Stamp), ApiError> {
    // Before the look: who may not see a bucket must not learn whether it is there.
    app.granted(caller, name, wanted)?;
    let known = app.state().await?.buckets().contains_key(name);
    let fresh = known || app.handle.pull().await;
    let state = app.state().await?;
    match state.buckets().get(name) {
        Some(bucket) => {
            unmasked(caller, bucket, wanted)?;
            Ok((Arc::clone(bucket), state.stamp()))
        }
        None if fresh => Err(ApiError::refused(&Refusal::NoSuchBucket(name.clone()), state.stamp())),
        None => {
            let text = format!("bucket \"{name}\" is not known here, and no primary could be asked whether it exists");
            Err(ApiError::unavailable(text).at(state.stamp()))
        }
    }
}

/// `POST /v1/buckets/NAME`: `create-bck`, `move-bck`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &call.params)?;
    let Action { action, value } = Action::read(&call.body)?;
    match action.as_str() {
        "create-bck" => create(&app, &call, name, &value).await,
        "move-bck" => rename(&app, &call, name).await,
        _ => Err(absent::action(&action)),
    }
}

async fn create(app: &App, call: &Call, name: BucketName, value: &Value) -> Result<Response, ApiError> {
    let props = properties(value)?;
    let change = Change::CreateBucket { name, created_ns: now_ns(), props };
    settle(app, call, change).await
}

/// Nested properties as dotted names.
fn properties(value: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let mut props = dotted(value)?;
    // A field of AIStore's message beside the properties.
    match props.remove("force").as_deref() {
        None | Some("false") => Ok(props),
        Some(_) => Err(absent::forced()),
    }
}

/// `bck_to` is `ais/@#/NAME/`, or `ais/@#NAMESPACE/NAME/`.
pub(super) fn target(own: Option<&ClusterUuid>, params: &Params) -> Result<BucketName, ApiError> {
    let text = params.get("bck_to").unwrap_or_default();
    let mut parts = text.trim_end_matches('/').split('/');
    let (Some(owner), Some(ns), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(ApiError::bad(format!("bck_to='{text}' does not name a bucket as PROVIDER/@#NAMESPACE/NAME")));
    };
    provider(owner)?;
    bucket_name(namespace(own, ns)?, name)
}

/// Gives a bucket another name. AIStore answers with the id of the job that moves the data; here the State that has the
/// new name is all there is to it, and the id names that State (see [`jobs`]).
async fn rename(app: &App, call: &Call, from: BucketName) -> Result<Response, ApiError> {
    absent::force(&call.params)?;
    let to = target(app.view().uuid.as_ref(), &call.params)?;
    let change = Change::RenameBucket { from, to };
    mutate(app, call, change, |settled| {
        let mut response = text(jobs::renamed(settled.stamp));
        super::put_stamp(&mut response, Some(settled.stamp));
        response
    })
    .await
}

/// `DELETE /v1/buckets/NAME` with action `destroy-bck`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &call.params)?;
    let action = Action::read(&call.body)?.action;
    if action != "destroy-bck" {
        return Err(absent::action(&action));
    }
    settle(&app, &call, Change::DestroyBucket { name }).await
}

/// `PATCH /v1/buckets/NAME`: `set-bprops`, `reset-bprops`.
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let name = named(&app, &name, &call.params)?;
    let Action { action, value } = Action::read(&call.body)?;
    absent::force(&call.params)?;
    let (set, reset) = match action.as_str() {
        "set-bprops" => (properties(&value)?, false),
        "reset-bprops" => (BTreeMap::new(), true),
        _ => return Err(absent::action(&action)),
    };
    if set.is_empty() && !reset {
        return Err(ApiError::bad("set-bprops names no property"));
    }
    let change = Change::SetBucketProps { name, set, reset };
    settle(&app, &call, change).await
}

/// `PUT /v1/buckets/NAME`: jobs on objects.
pub(super) async fn put(call: Call) -> Result<(), ApiError> {
    Err(absent::action(&Action::read(&call.body)?.action))
}
