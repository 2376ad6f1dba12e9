//! A client's mutation: from the request to the end of it (protocol.md rule 13).

use ais_meta::{Change, Outcome, Refusal, Stamp};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::json;

use super::caller::{self, Caller, Wanted};
use super::error::ApiError;
use super::params::Params;
use super::{App, REQUEST_ID, done, reverse};
use crate::clock;
use crate::handle::Proposed;

/// How often a mutation is judged before its client is told to come again: what rights go by changes seldom.
const JUDGED_MAX: usize = 4;
/// Longest id that a client may give its mutation.
const REQUEST_ID_MAX: usize = 64;

/// A call as it came: whole, for the case that another gateway has to take it.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) params: Params,
    pub(super) caller: Caller,
    pub(super) body: Bytes,
}

impl<S: Sync> FromRequest<S> for Call {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let params = Params::from_request_parts(&mut parts, state).await?;
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        // The gate has read and bounded it.
        let body = axum::body::to_bytes(body, super::gate::BODY_MAX).await;
        let body = body.map_err(|e| ApiError::bad(format!("the body cannot be read: {e}")))?;
        Ok(Self { method: parts.method, uri: parts.uri, headers: parts.headers, params, caller, body })
    }
}

impl Call {
    fn wanted(&self, app: &App) -> Wanted {
        caller::wanted(app.kind(), &self.method, self.uri.path(), self.params.get("what"))
    }
}

/// A mutation that a committed State settled as wished.
pub(super) struct Settled {
    pub(super) stamp: Stamp,
    /// The id of what it began.
    pub(super) began: Option<String>,
}

fn client_id(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(REQUEST_ID) else { return Ok(None) };
    let id = value.to_str().unwrap_or_default();
    if id.is_empty() || id.len() > REQUEST_ID_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        let text = format!("Ais-Request-Id is not 1 to {REQUEST_ID_MAX} visible characters");
        return Err(ApiError::bad(text));
    }
    Ok(Some(id.to_owned()))
}

/// Wall clock of this gateway, unix nanoseconds; shown, never compared.
pub(super) fn now_ns() -> i64 {
    i64::try_from(clock::unix_ms()).unwrap_or(0).saturating_mul(1_000_000)
}

/// As [`mutate`], answered with 200, the stamp and nothing else.
pub(super) async fn settle(app: &App, call: &Call, change: Change) -> Result<Response, ApiError> {
    mutate(app, call, change, |settled| done(Some(settled.stamp))).await
}

/// Proposes, waits for the end, and answers: what `reply` makes of success, or why not. It is the caller's right where
/// the change is applied that counts: when what was judged by here is not so there, judges again.
pub(super) async fn mutate(
    app: &App,
    call: &Call,
    change: Change,
    reply: impl FnOnce(Settled) -> Response,
) -> Result<Response, ApiError> {
    let id = client_id(&call.headers)?;
    for _ in 0..JUDGED_MAX {
        let state = app.formed().await?;
        app.still(&state, &call.caller, call.wanted(app), &call.headers)?;
        app.may_change(&state, call, &change)?;
        // Whoever signs with the cluster's secret needs no other right.
        let basis = (!matches!(call.caller, Caller::Member)).then(|| state.basis(&change));
        match app.handle.propose(id.clone(), change.clone(), basis).await {
            Proposed::Settled { outcome: Outcome::Refused(Refusal::Outdated), stamp } => app.catch_up(stamp).await,
            end => return answer(app, call, end, reply).await,
        }
    }
    Err(ApiError::unavailable("the rights that the change needs changed again and again meanwhile; it was not made"))
}

async fn answer(
    app: &App,
    call: &Call,
    end: Proposed,
    reply: impl FnOnce(Settled) -> Response,
) -> Result<Response, ApiError> {
    match end {
        Proposed::Settled { outcome: Outcome::Done, stamp } => Ok(reply(Settled { stamp, began: None })),
        Proposed::Settled { outcome: Outcome::Began(id), stamp } => Ok(reply(Settled { stamp, began: Some(id) })),
        Proposed::Settled { outcome: Outcome::Refused(refusal), stamp } => Err(ApiError::refused(&refusal, stamp)),
        // The core has ended, this process is about to: the client must not notice.
        Proposed::Busy | Proposed::Unavailable if app.handle.ended() => reverse::relay(app, call).await,
        Proposed::Unavailable => {
            // Of another call under the client's id, through another gateway, nothing is known here.
            let text = match client_id(&call.headers)? {
                None => "nobody leads; the change was not proposed and will not take effect",
                Some(_) => "nobody leads; this call did not propose the change (an earlier one under its id may have)",
            };
            Err(ApiError::unavailable(text).with("reason", json!(app.view().reason)))
        }
        Proposed::Unknown { id } => {
            let text = format!("request {id} was proposed and its fate is unknown: look before sending it again");
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, text).with("request_id", json!(id)))
        }
        Proposed::Busy => Err(ApiError::unavailable("too many changes are under way at this gateway")),
    }
}
