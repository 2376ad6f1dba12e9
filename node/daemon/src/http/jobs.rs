//! Jobs, of which this version runs none. What AIStore does in a job and this version does in one State has an id that
//! names the State, so that any gateway can tell its end without having been there.

use std::sync::Arc;

use ais_meta::{Stamp, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::mutate::now_ns;
use super::params::object;
use super::{App, json as reply};

const RENAME: &str = "move-bck";

/// The id of a rename: `mv-STAMP-MS`, with the gateway's clock.
pub(super) fn renamed(stamp: Stamp) -> String {
    format!("mv-{stamp}-{}", now_ns() / 1_000_000)
}

/// Stamp and time of an id that [`renamed`] made.
pub(super) fn parsed(id: &str) -> Option<(Stamp, i64)> {
    let (stamp, ms) = id.strip_prefix("mv-")?.split_once('-')?;
    let ms: i64 = ms.parse().ok()?;
    (ms > 0).then_some((stamp.parse().ok()?, ms))
}

/// The job that a question is about: `ID` or `id` or `uuid`, as AIStore's callers write it.
pub(super) fn asked(body: &[u8]) -> Result<(String, String), ApiError> {
    let fields = object(body).map_err(|why| ApiError::bad(format!("the body is not a question about jobs: {why}")))?;
    let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = if field("id").is_empty() { field("uuid") } else { field("id") };
    Ok((id, field("kind")))
}

/// When the job ended, unix nanoseconds. A gateway that has not heard of its State asks first (protocol.md rule 12).
async fn ended(app: &App, id: &str) -> Result<(Arc<State>, i64), ApiError> {
    let unknown = || ApiError::not_found(format!("job \"{id}\" is not known: this version runs no jobs"));
    let (stamp, ms) = parsed(id).ok_or_else(unknown)?;
    let mut state = app.state().await?;
    if stamp > state.stamp() && app.handle.pull().await {
        state = app.state().await?;
    }
    if stamp <= state.stamp() { Ok((state, ms.saturating_mul(1_000_000))) } else { Err(unknown()) }
}

/// `what=status`: one job.
pub(super) async fn status(app: &App, body: &[u8]) -> Result<Response, ApiError> {
    let (id, _) = asked(body)?;
    let (state, end_ns) = ended(app, &id).await?;
    reply(&json!({"kind": RENAME, "uuid": id, "err": "", "end_time": end_ns, "aborted": false}), Some(state.stamp()))
}

/// `what=qryxstats`: what targets say of jobs. None of them has ever run one.
pub(super) async fn snaps(app: &App, body: &[u8]) -> Result<Response, ApiError> {
    let (id, kind) = asked(body)?;
    if id.is_empty() {
        let text = format!("no job of kind \"{kind}\" is known: this version runs no jobs");
        return Err(ApiError::not_found(text));
    }
    let (state, end_ns) = ended(app, &id).await?;
    let time = |ns: i64| jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default().to_string();
    let bucket = || json!({"name": "", "provider": "", "namespace": {"uuid": "", "name": ""}});
    let snap = json!({
        "id": id, "kind": RENAME, "start-time": time(end_ns), "end-time": time(end_ns),
        "bck": bucket(), "src-bck": bucket(), "dst-bck": bucket(), "stats": {},
        "aborted": false, "is_idle": true, "abort-err": "", "err": "", "glob.id": "0",
    });
    let targets = state.nodes().values().filter(|node| node.kind == ais_meta::Kind::Target);
    let mut told: serde_json::Map<String, Value> = targets.map(|n| (n.id.to_string(), json!([snap]))).collect();
    if told.is_empty() {
        // Who gets no answer at all asks again for ever.
        told.insert(app.id().to_string(), json!([snap]));
    }
    reply(&told, Some(state.stamp()))
}
