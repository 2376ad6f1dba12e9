//! What is not built: 501 with the reason, never a 200 that did nothing.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};

use super::App;
use super::error::ApiError;
use super::params::{Action, Params};

const DATA_PLANE: &str = "this version keeps metadata only; objects come with the data plane";
const NO_JOBS: &str = "this version runs no jobs";

/// A known path, another method.
pub(super) async fn method(method: Method) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not a method of this path"))
}

pub(super) async fn objects() -> ApiError {
    ApiError::unsupported(format!("object calls are not built: {DATA_PLANE}"))
}

/// No call has a second, laxer form.
pub(super) fn forced() -> ApiError {
    let text = "force is not supported: no call may short-cut the rules; ask without it, and the answer says what is \
                in the way";
    ApiError::unsupported(text)
}

/// Refuses `frc=true` and `force=true`.
pub(super) fn force(params: &Params) -> Result<(), ApiError> {
    if params.is("frc") || params.is("force") { Err(forced()) } else { Ok(()) }
}

/// An action of AIStore on buckets that is not built.
pub(super) fn action(name: &str) -> ApiError {
    match name {
        "" => ApiError::bad("the body names no action"),
        _ => ApiError::unsupported(format!("'{name}' is not built: {DATA_PLANE}")),
    }
}

/// An action of AIStore on one node that is not built.
pub(super) fn daemon_action(name: &str) -> ApiError {
    match name {
        "set-config" | "reset-config" => ApiError::unsupported(format!(
            "'{name}' of one node is not built: its own settings are given at its start, the cluster's by PUT /v1/cluster"
        )),
        "decommission" => ApiError::unsupported(
            "'decommission' of one node by itself is not built: ask the cluster with decommission-node",
        ),
        _ => cluster_action(name),
    }
}

pub(super) async fn daemon(method: Method, uri: Uri, body: Bytes) -> ApiError {
    let rest = uri.path().strip_prefix("/v1/daemon").unwrap_or_default().trim_start_matches('/');
    let first = rest.split('/').next().unwrap_or_default();
    let text = match (&method, first) {
        (&Method::PUT, "") => match Action::read(&body) {
            Ok(Action { action, .. }) if action.is_empty() => return ApiError::bad("the body names no action"),
            Ok(Action { action, .. }) if action == "shutdown" => {
                "'shutdown' of one node is taken on the control listener; ask the cluster with shutdown-node".to_owned()
            }
            Ok(Action { action, .. }) => return daemon_action(&action),
            Err(error) => return error,
        },
        (_, "") => return self::method(method).await,
        (_, "set-config") => return daemon_action("set-config"),
        (_, "proxy" | "primary-force") => {
            "the primary's role goes from hand to hand over members' own connections".to_owned()
        }
        (_, "mountpaths") => format!("mountpaths are given at a node's start: {DATA_PLANE}"),
        (_, "join-by-admin" | "unregister" | "callback-rm-from-smap") => {
            "members tell each other this over their own authenticated connections".to_owned()
        }
        _ => return ApiError::not_found(format!("there is nothing at {}", uri.path())),
    };
    ApiError::unsupported(text)
}

/// An action of AIStore on the cluster that is not built.
pub(super) fn cluster_action(name: &str) -> ApiError {
    let why = match name {
        "" => return ApiError::bad("the body names no action"),
        "start" | "stop" | "resilver" | "rebalance" | "lru" | "store-cleanup" => NO_JOBS,
        "rotate-logs" => "logs go to standard error, and whoever collects them rotates them",
        "reset-stats" => "counters only grow, as their readers expect; look at differences",
        "reload-creds" => "there are no remote backends, so there are no credentials; key files are watched",
        "clear-lcache" => "no object is cached",
        "attach-remote" | "detach-remote" => "remote clusters are not built",
        "set-primary" => "ask PUT /v1/cluster/proxy/ID",
        _ => "this version has no such action",
    };
    ApiError::unsupported(format!("'{name}' is not built: {why}"))
}

pub(super) async fn cluster(method: Method, Path(rest): Path<String>) -> ApiError {
    let first = rest.split('/').next().unwrap_or_default();
    match first {
        "autoreg" | "keepalive" => {
            ApiError::unsupported("nodes join and show that they live over their own authenticated connections")
        }
        "attach" | "detach" | "remote" => ApiError::unsupported("remote clusters are not built"),
        // Known deeper down, with another number of parts or another method.
        "proxy" | "daemon" | "set-config" | "join-by-admin" | "recover" => self::method(method).await,
        _ => ApiError::not_found(format!("there is no /v1/cluster/{first}")),
    }
}

pub(super) async fn reverse() -> ApiError {
    ApiError::unsupported("only /v1/reverse/daemon is built")
}

pub(super) async fn control_only() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "this is served on the control listener only")
}

/// Everything else: AIStore's other resources by name, the rest 404.
pub(super) async fn other(State(_): State<Arc<App>>, uri: Uri) -> ApiError {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some("s3"), _) => ApiError::unsupported("the S3 API is not built"),
        (Some("v1"), Some("etl" | "sort" | "ml")) => {
            ApiError::unsupported("ETL, dsort and get-batch are left out of this system")
        }
        (Some("v1"), Some("download" | "xactions" | "notifs" | "txn" | "ic")) => ApiError::unsupported(NO_JOBS),
        (Some("v1"), Some("metasync" | "vote")) => {
            ApiError::unsupported("members vote and synchronise over their own connections, not over HTTP")
        }
        (Some("v1"), Some("nbi" | "lsmeta" | "shards")) => {
            ApiError::unsupported(format!("inventories are not built: {DATA_PLANE}"))
        }
        _ => ApiError::not_found(format!("there is nothing at {}", uri.path())),
    }
}
