//! `/v1/cluster`: questions to the cluster, and set-primary.

use std::sync::Arc;

use ais_ha::Transferred;
use ais_meta::NodeId;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::params::Params;
use super::{App, daemon, json as reply, wire};

pub(super) async fn get(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let what = params.get("what").unwrap_or_default();
    app.gateway_only("questions about the cluster")?;
    match what {
        "smap" | "bmd" | "smapvote" => daemon::metadata(&app, what).await,
        "snode" => daemon::snode(&app),
        "cluster_config" => {
            let state = app.formed().await?;
            reply(&wire::cluster_config(&state, &app.config), Some(state.stamp()))
        }
        // Nothing here runs as a job, so there are none: the truth, not a placeholder.
        "running_all" | "status_all" => reply(&json!([]), None),
        "status" | "qryxstats" => Err(ApiError::not_found("no such job: this version runs no jobs")),
        _ => Err(daemon::unknown(what, "the cluster")),
    }
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
