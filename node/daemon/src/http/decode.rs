//! Doors to what reads queries and bodies, for the fuzz targets; handlers use the types behind them.

use std::collections::BTreeMap;

use ais_meta::{Address, BucketName, ClusterUuid, MemberOptions, NodeId, Stamp};
use axum::http::Uri;

use super::error::ApiError;
use super::params::{self, Action, Params};
pub use super::tokens::Asked;
use super::{buckets, cluster, jobs, members, tokens};

fn read(uri: &str) -> Result<Params, String> {
    let uri: Uri = uri.parse().map_err(|e: axum::http::uri::InvalidUri| e.to_string())?;
    Params::of(&uri).map_err(|e| e.message)
}

/// The parameters of a URI's query, in order.
///
/// # Errors
/// The text that a client is shown.
pub fn query(uri: &str) -> Result<Vec<(String, String)>, String> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    read(uri).map(|params| params.pairs().map(own).collect())
}

/// Whether a parameter says yes.
///
/// # Errors
/// As [`query`].
pub fn is(uri: &str, name: &str) -> Result<bool, String> {
    read(uri).map(|params| params.is(name))
}

/// A parameter that is a number.
///
/// # Errors
/// As [`query`], and when it is none.
pub fn number(uri: &str, name: &str) -> Result<Option<u64>, String> {
    read(uri)?.number(name).map_err(|e| e.message)
}

/// The action that a body names, and the settings of its value by dotted name.
///
/// # Errors
/// The text that a client is shown.
pub fn action(body: &[u8]) -> Result<(String, BTreeMap<String, String>), String> {
    let Action { action, value } = Action::read(body).map_err(|e| e.message)?;
    let settings = if value.is_object() { params::dotted(&value).map_err(|e| e.message)? } else { BTreeMap::new() };
    Ok((action, settings))
}

fn told<T>(read: Result<T, ApiError>) -> Result<T, String> {
    read.map_err(|e| e.message)
}

/// Whom the value of a membership action is about, and how it is to be done.
///
/// # Errors
/// The text that a client is shown.
pub fn membership(body: &[u8]) -> Result<(Vec<NodeId>, MemberOptions), String> {
    let action = told(Action::read(body))?;
    told(members::batch(&action.value)).map(|batch| (batch.nodes, batch.options))
}

/// Where the node listens that `join-by-admin` is about, and its kind as far as that is said.
///
/// # Errors
/// As [`membership`].
pub fn to_join(body: &[u8]) -> Result<(Address, String), String> {
    told(members::to_join(body))
}

/// The member that a node is told to join.
///
/// # Errors
/// As [`membership`].
pub fn introduction(body: &[u8]) -> Result<(NodeId, Address), String> {
    told(members::introduction(body))
}

/// The stamp that an administrator confirms before a recovery.
///
/// # Errors
/// As [`membership`].
pub fn confirmed(body: &[u8]) -> Result<Stamp, String> {
    told(cluster::confirmed(body))
}

/// What the id of a job stands for: a State, and when it was made, unix milliseconds.
pub type Made = (Stamp, i64);

/// The id and kind of the job that a question is about, and what such an id stands for.
///
/// # Errors
/// As [`membership`].
pub fn job(body: &[u8]) -> Result<(String, String, Option<Made>), String> {
    let (id, kind) = told(jobs::asked(body))?;
    let stands_for = jobs::parsed(&id);
    Ok((id, kind, stands_for))
}

/// The bucket that a name in a path and its URI's query stand for, in the cluster of this uuid.
///
/// # Errors
/// As [`membership`].
pub fn bucket(own: &ClusterUuid, name: &str, uri: &str) -> Result<BucketName, String> {
    told(buckets::of(Some(own), name, &read(uri)?))
}

/// The bucket that a rename makes.
///
/// # Errors
/// As [`membership`].
pub fn rename_to(own: &ClusterUuid, uri: &str) -> Result<BucketName, String> {
    told(buckets::target(Some(own), &read(uri)?))
}

/// What `POST /v1/tokens`, which is open to everybody, is asked to judge.
///
/// # Errors
/// As [`membership`].
pub fn asked(body: &[u8]) -> Result<Asked, String> {
    told(tokens::asked(body))
}

/// The fingerprints of tokens that a body takes back, and until when each would have been good, unix seconds.
///
/// # Errors
/// As [`membership`].
pub fn to_revoke(body: &[u8]) -> Result<BTreeMap<String, i64>, String> {
    told(tokens::to_revoke(body))
}
