//! The cluster's configuration: `set-config`, `reset-config` (http-api.md 2.6).

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::Change;
use ais_meta::settings::CLUSTER;
use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::mutate::{Call, Settled, mutate};
use super::{App, absent, json as reply};

/// Parameters of the query that are no settings.
const NOT_SETTINGS: [&str; 3] = ["transient", "frc", "force"];

/// `PUT /v1/cluster/set-config?a.b=value&...`
pub(super) async fn put(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("configuration")?;
    let pairs = call.params.pairs().filter(|(name, _)| !NOT_SETTINGS.contains(name));
    let mut set = BTreeMap::new();
    for (name, value) in pairs {
        // The first one counts, as everywhere.
        set.entry(name.to_ascii_lowercase()).or_insert_with(|| value.to_owned());
    }
    change(&app, &call, set, false).await
}

/// Sets, or goes back to the defaults. Answers which of the keys wait for a restart of the nodes.
pub(super) async fn change(
    app: &App,
    call: &Call,
    set: BTreeMap<String, String>,
    reset: bool,
) -> Result<Response, ApiError> {
    absent::force(&call.params)?;
    if call.params.is("transient") {
        let text = "transient configuration is not supported: what is set is committed, and holds on every node and \
                    after a restart";
        return Err(ApiError::unsupported(text));
    }
    if set.is_empty() && !reset {
        return Err(ApiError::bad("set-config names no key"));
    }
    let late: Vec<&str> = if reset { waiting(app) } else { CLUSTER.needs_restart(&set) };
    let answer = |settled: Settled| {
        let version = app.view().published.as_ref().map_or(0, |state| state.config().version);
        let body = json!({"config_version": version.to_string(), "needs_restart": late});
        // Two short values always make JSON.
        reply(&body, Some(settled.stamp)).unwrap_or_else(|_| super::done(Some(settled.stamp)))
    };
    mutate(app, call, Change::SetConfig { set, reset }, answer).await
}

/// What a reset changes only at the next start.
fn waiting(app: &App) -> Vec<&'static str> {
    let view = app.view();
    let set = view.published.as_ref().map(|state| state.config().settings.clone()).unwrap_or_default();
    CLUSTER.needs_restart(&set)
}
