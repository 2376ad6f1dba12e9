//! What is not built: 501 with the reason, never a 200 that did nothing.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};

use super::App;
use super::error::ApiError;
use super::params::Action;

const DATA_PLANE: &str = "this version keeps metadata only; objects come with the data plane";

/// A known path, another method.
pub(super) async fn method(method: Method) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not a method of this path"))
}

pub(super) async fn objects() -> ApiError {
    ApiError::unsupported(format!("object calls are not built: {DATA_PLANE}"))
}

/// PUT and PATCH of a bucket.
pub(super) async fn bucket_action(body: Bytes) -> Result<(), ApiError> {
    Err(action(&Action::read(&body)?.action))
}

/// An action of AIStore on buckets that is not built.
pub(super) fn action(name: &str) -> ApiError {
    match name {
        "" => ApiError::bad("the body names no action"),
        "set-bprops" | "reset-bprops" => {
            ApiError::unsupported(format!("'{name}' is not built: buckets have their properties from their making"))
        }
        _ => ApiError::unsupported(format!("'{name}' is not built: {DATA_PLANE}")),
    }
}

pub(super) async fn daemon(method: Method) -> ApiError {
    ApiError::unsupported(format!("{method} of a node's own settings is not built: set them at its start"))
}

/// `PUT /v1/cluster`
pub(super) async fn cluster_action(body: Bytes) -> Result<(), ApiError> {
    let name = Action::read(&body)?.action;
    Err(match name.as_str() {
        "" => ApiError::bad("the body names no action"),
        "start" | "stop" => ApiError::unsupported(format!("'{name}' is not built: this version runs no jobs")),
        "start-maintenance" | "stop-maintenance" | "decommission-node" | "shutdown-node" | "rm-unsafe" => {
            ApiError::unsupported(format!("'{name}' is not built: membership changes by starting and stopping nodes"))
        }
        "set-config" | "reset-config" => {
            ApiError::unsupported(format!("'{name}' is not built: the configuration is given at a node's start"))
        }
        _ => ApiError::unsupported(format!("'{name}' is not built")),
    })
}

pub(super) async fn cluster(Path(rest): Path<String>) -> ApiError {
    let first = rest.split('/').next().unwrap_or_default();
    match first {
        "join-by-admin" | "autoreg" | "keepalive" => {
            ApiError::unsupported("nodes join by themselves, over their own authenticated connections")
        }
        "daemon" => {
            ApiError::unsupported("a node leaves the cluster map when it is stopped, or by itself when it is dead")
        }
        "recover" => ApiError::unsupported("recovery of a lost majority is not built"),
        "set-config" => ApiError::unsupported("the configuration is given at a node's start"),
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
        (Some("v1"), Some("tokens")) => ApiError::unsupported("authentication of clients is not built"),
        (Some("v1"), Some("download" | "xactions" | "notifs" | "txn" | "ic")) => {
            ApiError::unsupported("this version runs no jobs")
        }
        (Some("v1"), Some("metasync" | "vote")) => {
            ApiError::unsupported("members vote and synchronise over their own connections, not over HTTP")
        }
        _ => ApiError::not_found(format!("there is nothing at {}", uri.path())),
    }
}
