//! `/v1/cluster`: questions to the cluster, its actions, set-primary, recovery.

use std::sync::Arc;

use ais_ha::Transferred;
use ais_meta::change::MemberAction;
use ais_meta::{Kind, NodeId, Stamp};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::mutate::Call;
use super::params::{Action, Params, dotted};
use super::{App, STAMP, absent, daemon, jobs, json as reply, members, reverse, settings, text, wire};

pub(super) async fn get(State(app): State<Arc<App>>, params: Params, body: Bytes) -> Result<Response, ApiError> {
    let what = params.get("what").unwrap_or_default();
    app.gateway_only("questions about the cluster")?;
    match what {
        "smap" | "bmd" | "smapvote" => daemon::metadata(&app, what).await,
        "snode" => daemon::snode(&app),
        "cluster_config" => {
            let state = app.formed().await?;
            reply(&wire::cluster_config(&state, &app.config), Some(state.stamp()))
        }
        "ha" => ha(&app).await,
        "node_stats" | "sysinfo" => of_all(&app, what).await,
        "mountpaths" => {
            let told = ask(&app, what, Some(Kind::Target)).await?;
            reply(&json!({"targets": told}), None)
        }
        "target_ips" => target_ips(&app).await,
        // No bucket lives elsewhere: no backend is configured, no remote cluster is attached.
        "backends" => reply(&json!([]), None),
        "remote" => reply(&json!({"a": [], "ver": 0}), None),
        // Nothing here runs as a job, so there are none: the truth, not a placeholder.
        "running_all" | "status_all" => reply(&json!([]), None),
        "status" => jobs::status(&app, &body).await,
        "qryxstats" => jobs::snaps(&app, &body).await,
        _ => Err(daemon::unknown(what, "the cluster")),
    }
}

/// What the primary knows of everybody; this node's own view when nobody leads.
async fn ha(app: &App) -> Result<Response, ApiError> {
    let view = app.view();
    let primary = view.primary.as_ref().filter(|primary| primary.id.node != *app.id());
    if let Some(primary) = primary {
        let url = format!("{}/v1/ha/view", app.url(&primary.addresses.control));
        match reverse::call(app, primary.id.node.as_str(), Method::GET, &url, Bytes::new()).await {
            Ok(answer) if answer.status().is_success() => return without_credentials(answer).await,
            Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "the primary does not show its view"),
            Err(why) => tracing::debug!(why, "the primary does not show its view"),
        }
    }
    reply(&wire::ha_view(&app.handle, &view), view.published.as_ref().map(|s| s.stamp()))
}

/// Clients need no secret, and shall learn nothing of it.
async fn without_credentials(answer: Response) -> Result<Response, ApiError> {
    let stamp = answer.headers().get(STAMP).cloned();
    let unreadable = |why| ApiError::new(StatusCode::BAD_GATEWAY, format!("the primary's view cannot be read: {why}"));
    let mut view = reverse::json_of(answer).await.map_err(unreadable)?;
    if let Some(view) = view.as_object_mut() {
        view.remove("credentials");
    }
    let mut response = reply(&view, None)?;
    if let Some(stamp) = stamp {
        response.headers_mut().insert(STAMP, stamp);
    }
    Ok(response)
}

/// Asks members of one kind (or all) a question of `/v1/daemon`. One that does not answer is an error, as in AIStore:
/// a sum without it would be wrong in silence.
async fn ask(app: &App, what: &str, kind: Option<Kind>) -> Result<Map<String, Value>, ApiError> {
    let state = app.state().await?;
    let nodes = state.nodes().values().filter(|node| kind.is_none_or(|kind| node.kind == kind)).cloned();
    let calls = nodes.map(|node| async move {
        if node.id == *app.id() {
            return Ok((node.id.to_string(), daemon::told(app, what)?));
        }
        let url = format!("{}/v1/daemon?what={what}", app.url(&node.addresses.control));
        let failed = |why| ApiError::new(StatusCode::BAD_GATEWAY, format!("{} does not answer: {why}", node.id));
        let answer = reverse::call(app, node.id.as_str(), Method::GET, &url, Bytes::new()).await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(failed(format!("status {}", answer.status().as_u16())));
        }
        let value = reverse::json_of(answer).await.map_err(failed)?;
        Ok((node.id.to_string(), value))
    });
    join_all(calls).await.into_iter().collect()
}

async fn of_all(app: &App, what: &str) -> Result<Response, ApiError> {
    let (proxies, targets) = futures::future::try_join(
        // AIStore shows statistics of the asked gateway only.
        async {
            if what == "node_stats" {
                daemon::told(app, what)
            } else {
                ask(app, what, Some(Kind::Gateway)).await.map(Value::Object)
            }
        },
        ask(app, what, Some(Kind::Target)),
    )
    .await?;
    reply(&json!({"proxy": proxies, "target": targets}), None)
}

/// For `--noproxy` lists: hosts of all networks of all targets, separated by commas.
async fn target_ips(app: &App) -> Result<Response, ApiError> {
    let state = app.state().await?;
    let targets = state.nodes().values().filter(|node| node.kind == Kind::Target);
    let hosts = targets.flat_map(|node| [&node.addresses.public, &node.addresses.control].map(|a| a.host.to_string()));
    let mut hosts: Vec<String> = hosts.collect();
    hosts.dedup();
    Ok(text(hosts.join(",")))
}

/// `PUT /v1/cluster` with an action.
pub(super) async fn put(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("actions of the cluster")?;
    let Action { action, value } = Action::read(&call.body)?;
    if let Some(action) = MemberAction::named(&action) {
        return members::change(&app, &call, action, &value).await;
    }
    match action.as_str() {
        "set-config" => settings::change(&app, &call, dotted(&value)?, false).await,
        "reset-config" => settings::change(&app, &call, Default::default(), true).await,
        "shutdown" => {
            absent::force(&call.params)?;
            members::shutdown(&app, &call).await
        }
        "decommission" => members::decommission(&app, &call, &value).await,
        _ => Err(absent::cluster_action(&action)),
    }
}

/// `POST /v1/cluster/recover` with `{"stamp":"I.E.S"}`, on the control listener: goes on without a majority that is
/// lost for good.
pub(super) async fn recover(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    if app.secrets().is_none() {
        let text = "recovery is taken in signed calls only, and this node runs without a secret";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    }
    match app.handle.recover(confirmed(&call.body)?).await {
        Ok(stamp) => reply(&json!({"stamp": stamp.to_string()}), Some(stamp)),
        Err(why) => Err(ApiError::new(StatusCode::CONFLICT, why.to_string())),
    }
}

/// The stamp that an administrator confirms.
pub(super) fn confirmed(body: &[u8]) -> Result<Stamp, ApiError> {
    let bad = || ApiError::bad(r#"the body is not {"stamp":"INCARNATION.EPOCH.SEQ"}"#);
    let told: Value = serde_json::from_slice(body).map_err(|_| bad())?;
    told["stamp"].as_str().and_then(|text| text.parse().ok()).ok_or_else(bad)
}

/// `PUT /v1/cluster/proxy/ID[?expected-primary=ID&expected-epoch=N]`: hands the primary's role to a gateway. Answers
/// 200 only once the new primary's first State is committed.
pub(super) async fn set_primary(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    app.gateway_only("set-primary")?;
    if params.is("frc") || params.is("force") {
        let text =
            "force is not supported: no call may short-cut the election's rules, and two clusters are never joined";
        return Err(ApiError::unsupported(text));
    }
    let unknown = || ApiError::not_found(format!("node \"{id}\" is not in the cluster map")).tcode("ErrNodeNotFound");
    let to: NodeId = id.parse().map_err(|_| unknown())?;
    let expected = params.get("expected-primary").map(str::parse::<NodeId>).transpose();
    let expected = expected.map_err(|e| ApiError::bad(format!("expected-primary: {e}")))?;
    let result = app.handle.transfer(to.clone(), expected, params.number("expected-epoch")?).await;
    tracing::info!(%to, ?result, "set-primary");
    match result {
        Transferred::Done { epoch, smap_version } => {
            reply(&json!({"primary": to, "epoch": epoch, "smap_version": smap_version.to_string()}), None)
        }
        Transferred::UnknownNode => Err(unknown()),
        Transferred::Busy(why) => Err(ApiError::new(StatusCode::CONFLICT, why).tcode("ErrBusy")),
        Transferred::Precondition { primary, epoch } => {
            let text = format!("precondition failed: {primary} is primary, in epoch {epoch}");
            let error = ApiError::new(StatusCode::PRECONDITION_FAILED, text);
            Err(error.with("primary", json!(primary)).with("epoch", json!(epoch)))
        }
        Transferred::NotEligible(why) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Transferred::NoPrimary => Err(ApiError::unavailable("nobody leads at the moment")),
        Transferred::Unknown => {
            let text = "the old primary gave up its role, and nobody was seen to lead in time; look again";
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, text))
        }
    }
}
