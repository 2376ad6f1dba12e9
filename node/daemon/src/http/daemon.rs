//! `/v1/daemon`: what this node has.

use std::sync::Arc;

use ais_meta::Kind;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Params;
use super::{App, json as reply, observe, text, wire};
use crate::logging::{self, Severity};

pub(super) async fn get(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let what = params.get("what").unwrap_or_default();
    match what {
        "smap" | "bmd" | "smapvote" => metadata(&app, what).await,
        "snode" => snode(&app),
        "config" => {
            let state = app.formed().await?;
            reply(&wire::node_config(&state, &app.config), Some(state.stamp()))
        }
        "tls_certificate" => certificate(&app),
        "software_version" => Ok(text(app.handle.identity().version)),
        "log" => log(&params),
        "cluster_config" => Err(ApiError::bad("what=cluster_config is asked of /v1/cluster")),
        "status" | "status_all" | "running_all" | "qryxstats" | "backends" | "remote" | "target_ips" => {
            Err(ApiError::bad(format!("what={what} is asked of /v1/cluster of a gateway")))
        }
        _ => reply(&told(&app, what)?, None),
    }
}

/// Questions whose answer this node makes up at once, and that the cluster asks of everybody.
pub(super) fn told(app: &App, what: &str) -> Result<Value, ApiError> {
    match what {
        "node_status" => Ok(node_status(app)),
        "node_stats" => Ok(node_stats(app)),
        "metrics" => Ok(observe::metric_kinds(&app.metrics.render(&app.view()))),
        "sysinfo" => Ok(observe::sysinfo()),
        "mountpaths" => mountpaths(app),
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
                "smap": wire::Smap::new(&state, app.config.scheme()),
                "bmd": wire::bmd(&state),
                "rmd": wire::rmd(&state),
                "config": wire::cluster_config(&state, &app.config),
                "si": wire::Snode::own(&app.handle, Some(&state), app.config.scheme()),
                "flags": wire::node_state(&app.view(), app.id(), true, app.config.scheme())["flags"],
            });
            reply(&everything, stamp)
        }
        _ => reply(&wire::Smap::new(&state, app.config.scheme()), stamp),
    }
}

pub(super) fn snode(app: &App) -> Result<Response, ApiError> {
    let view = app.view();
    let state = view.published.as_deref();
    reply(&wire::Snode::own(&app.handle, state, app.config.scheme()), state.map(|s| s.stamp()))
}

fn node_status(app: &App) -> Value {
    let view = app.view();
    let state = view.published.as_deref();
    let mut status = node_stats(app);
    let more = json!({
        "status": if view.ready { "" } else { view.reason.as_str() },
        "deployment": if app.in_kubernetes { "K8s" } else { "dev" },
        "ais_version": app.handle.identity().version,
        "build_time": "",
        "k8s_pod_name": if app.in_kubernetes { app.id().as_str() } else { "" },
        "cluster": wire::node_state(&view, app.id(), app.served.get().is_some(), app.config.scheme()),
        "sys_info": observe::sysinfo(),
        "smap_version": state.map_or(0, |s| s.smap().version).to_string(),
    });
    if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
        status.extend(more);
    }
    status
}

/// The numbers of `/metrics` in AIStore's shape. No object is stored or counted by this version.
fn node_stats(app: &App) -> Value {
    let view = app.view();
    json!({
        "snode": wire::Snode::own(&app.handle, view.published.as_deref(), app.config.scheme()),
        "tracker": observe::tracker(&app.metrics.render(&view)),
        "capacity": {"mountpaths": {}},
    })
}

/// This node's certificate, as texts.
fn certificate(app: &App) -> Result<Response, ApiError> {
    let Some(tls) = &app.config.tls else {
        return Err(ApiError::unsupported(
            "what=tls_certificate: this node serves plain HTTP, so there is no certificate",
        ));
    };
    let now = tls.now();
    let time = |s| jiff::Timestamp::from_second(s).unwrap_or_default().to_string();
    let mut shown = serde_json::Map::new();
    if let Some(material) = &now.material {
        shown.insert("fingerprint".to_owned(), json!(material.certificate));
        shown.insert("valid-from".to_owned(), json!(time(material.not_before_s)));
        shown.insert("valid-until".to_owned(), json!(time(material.not_after_s)));
    }
    if let Some(problem) = now.problem {
        shown.insert("error".to_owned(), json!(problem));
    }
    reply(&shown, None)
}

fn mountpaths(app: &App) -> Result<Value, ApiError> {
    if app.kind() == Kind::Gateway {
        return Err(ApiError::bad(format!("{} is a gateway: it has no mountpaths", app.name())));
    }
    Ok(json!({"available": app.config.mountpaths, "waiting_dd": [], "disabled": []}))
}

fn log(params: &Params) -> Result<Response, ApiError> {
    if params.is("all") {
        let text = "there is no archive of logs: they go to standard error, and whoever collects them keeps them";
        return Err(ApiError::unsupported(text));
    }
    let least = match params.get("severity").unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "info" | "i" => Severity::Info,
        "warning" | "warn" | "w" => Severity::Warning,
        "error" | "e" => Severity::Error,
        other => return Err(ApiError::bad(format!("severity='{other}' is not info, warning or error"))),
    };
    Ok(text(logging::recent(least)))
}

/// AIStore's words that are not built, and words that it does not know either.
pub(super) fn unknown(what: &str, whom: &str) -> ApiError {
    if what == "tls_certificate" {
        return ApiError::unsupported("what=tls_certificate is answered by each node at /v1/daemon");
    }
    ApiError::bad(format!("what='{what}' is not a question that {whom} answers"))
}
