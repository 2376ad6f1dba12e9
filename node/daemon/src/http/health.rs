//! `/v1/health` in AIStore's forms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ais_ha::RoleName;
use ais_meta::Address;
use ais_meta::node::flags;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::params::Params;
use super::{App, CALLER_ID, done, wire};

const NODE_UPTIME: HeaderName = HeaderName::from_static("ais-node-uptime");
const CLUSTER_UPTIME: HeaderName = HeaderName::from_static("ais-cluster-uptime");
/// How long the primary may take to say that it is ready.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn get(State(app): State<Arc<App>>, params: Params, headers: HeaderMap) -> Result<Response, ApiError> {
    let is = |name| params.is(name);
    let (prr, apr, cii, cii_apr) = (is("prr"), is("apr"), is("cii"), is("cii-apr"));
    if (cii_apr && (cii || apr)) || (prr && (cii || cii_apr)) {
        return Err(ApiError::bad("cii-apr excludes cii and apr; prr excludes cii and cii-apr"));
    }
    if apr || cii_apr {
        ask_primary(&app)?;
    }
    let mut response = if cii || cii_apr {
        super::json(&wire::node_state(&app.view(), app.id(), app.served.get().is_some(), app.config.scheme()), None)?
    } else if prr {
        ready_to_rebalance(&app, headers.contains_key(CALLER_ID)).await?;
        done(None)
    } else if is("readiness") {
        readiness(&app)?;
        done(None)
    } else {
        done(None)
    };
    let ns = |since: Option<&Instant>| since.map_or(0, |at| at.elapsed().as_nanos()).to_string();
    for (name, value) in [(NODE_UPTIME, ns(Some(&app.started))), (CLUSTER_UPTIME, ns(app.served.get()))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn readiness(app: &App) -> Result<(), ApiError> {
    let view = app.view();
    if !view.ready {
        return Err(ApiError::not_ready(&view));
    }
    if let Some(problem) = app.config.tls.as_ref().and_then(|tls| tls.now().problem) {
        return Err(ApiError::unavailable(format!("TLS: {problem}")).with("reason", json!(problem)));
    }
    let away = flags::MAINTENANCE | flags::DECOMMISSION;
    let away = view.published.as_ref().and_then(|s| s.nodes().get(app.id()).map(|n| n.flags & away != 0));
    if away == Some(true) {
        return Err(ApiError::unavailable("in maintenance").with("reason", json!("in maintenance")));
    }
    Ok(())
}

fn ask_primary(app: &App) -> Result<(), ApiError> {
    let view = app.view();
    if view.role == RoleName::Primary {
        return Ok(());
    }
    let known = view.primary.as_ref().map_or_else(|| "nobody".to_owned(), |p| p.id.node.to_string());
    Err(ApiError::bad(format!("{} is not primary; {known} leads as far as it knows", app.name())))
}

/// Whether the primary is ready. Another node asks it, unless it is itself asked by one.
async fn ready_to_rebalance(app: &App, asked_by_member: bool) -> Result<(), ApiError> {
    let view = app.view();
    if view.role == RoleName::Primary && view.ready {
        return Ok(());
    }
    let primary = view.primary.as_ref().filter(|p| p.id.node != *app.id() && !asked_by_member);
    let Some(primary) = primary else { return Err(ApiError::not_ready(&view)) };
    ask(app, &primary.addresses.control).await.map_err(|why| {
        let text = format!("the primary {} does not say that it is ready: {why}", primary.id.node);
        ApiError::unavailable(text).with("reason", json!("primary not ready"))
    })
}

async fn ask(app: &App, control: &Address) -> Result<(), String> {
    let url = format!("{}/v1/health?prr=true", app.url(control));
    let call = app.client.get(url).header(CALLER_ID, app.id().as_str()).timeout(ASK_TIMEOUT);
    let answer = call.send().await.map_err(|e| e.without_url().to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("status {}", answer.status().as_u16())) }
}
