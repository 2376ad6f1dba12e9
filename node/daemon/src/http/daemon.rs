//! `/v1/daemon`: what this node has.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::params::Params;
use super::{App, json as reply, text, wire};

pub(super) async fn get(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let what = params.get("what").unwrap_or_default();
    match what {
        "smap" | "bmd" | "smapvote" => metadata(&app, what).await,
        "snode" => snode(&app),
        "config" => {
            let state = app.formed().await?;
            reply(&wire::node_config(&state, &app.config), Some(state.stamp()))
        }
        "node_status" => reply(&node_status(&app), None),
        "software_version" => Ok(text(app.handle.identity().version)),
        "cluster_config" => Err(ApiError::bad("what=cluster_config is asked of /v1/cluster")),
        _ => Err(unknown(what, "a node")),
    }
}

/// Maps that every node has alike.
pub(super) async fn metadata(app: &App, what: &str) -> Result<Response, ApiError> {
    let state = app.state().await?;
    let stamp = Some(state.stamp());
    match what {
        "bmd" => reply(&wire::bmd(&state), stamp),
        "smapvote" => {
            let everything = json!({
                "smap": wire::Smap::from(&*state),
                "bmd": wire::bmd(&state),
                "rmd": wire::rmd(&state),
                "config": wire::cluster_config(&state, &app.config),
                "si": wire::Snode::own(&app.handle, Some(&state)),
                "flags": wire::node_state(&app.view(), app.id(), true)["flags"],
            });
            reply(&everything, stamp)
        }
        _ => reply(&wire::Smap::from(&*state), stamp),
    }
}

pub(super) fn snode(app: &App) -> Result<Response, ApiError> {
    let view = app.view();
    let state = view.published.as_deref();
    reply(&wire::Snode::own(&app.handle, state), state.map(|s| s.stamp()))
}

fn node_status(app: &App) -> serde_json::Value {
    let view = app.view();
    let state = view.published.as_deref();
    json!({
        "snode": wire::Snode::own(&app.handle, state),
        // No object is stored or counted by this version.
        "tracker": {},
        "capacity": {"mountpaths": {}},
        "status": if view.ready { "" } else { view.reason.as_str() },
        "deployment": if app.in_kubernetes { "K8s" } else { "dev" },
        "ais_version": app.handle.identity().version,
        "k8s_pod_name": if app.in_kubernetes { app.id().as_str() } else { "" },
        "cluster": wire::node_state(&view, app.id(), app.served.get().is_some()),
        "smap_version": state.map_or(0, |s| s.smap().version).to_string(),
    })
}

/// AIStore's words that are not built, and words that it does not know either.
pub(super) fn unknown(what: &str, whom: &str) -> ApiError {
    const JOBS: &[&str] = &["backends", "remote", "target_ips", "mountpaths", "tls_certificate"];
    const STATS: &[&str] = &["node_stats", "metrics", "sysinfo", "log"];
    if JOBS.contains(&what) {
        return ApiError::unsupported(format!("what={what} is not built: it belongs to the data plane or to TLS"));
    }
    if STATS.contains(&what) {
        let text = "use /metrics on the control listener, and the log on standard error";
        return ApiError::unsupported(format!("what={what} is not built: {text}"));
    }
    ApiError::bad(format!("what='{what}' is not a question that {whom} answers"))
}
