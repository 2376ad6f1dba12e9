//! `/v1/tokens`: validating and revoking clients' tokens (http-api.md section 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use ais_meta::Change;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::mutate::{Call, now_ns, settle};
use super::params::object;
use super::{done, json as reply};
use crate::auth::token::claimed_expiry;
use crate::auth::{TokenError, fingerprint};

/// Tokens in one call; a body has room for not many more.
const TOKENS_MAX: usize = 10_000;

/// What `POST /v1/tokens` is to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This token, or that of the header.
    Token(Option<String>),
    /// The digest of an AuthN server's secret.
    Secret(String),
    /// An AuthN server's public key.
    Public(String),
}

/// Reads the body of `POST /v1/tokens`, which anybody may send.
pub(super) fn asked(body: &[u8]) -> Result<Asked, ApiError> {
    let bad = |why: String| ApiError::bad(format!("the body is neither a token nor a key: {why}"));
    let fields = object(body).map_err(bad)?;
    let field = |name: &str| {
        let text = fields.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    match (field("secret"), field("public_key").or_else(|| field("pubkey"))) {
        (None, None) => Ok(Asked::Token(field("token"))),
        (Some(digest), None) => Ok(Asked::Secret(digest)),
        (None, Some(public)) => Ok(Asked::Public(public)),
        (Some(_), Some(_)) => Err(bad("it has both a secret and a public key".to_owned())),
    }
}

/// `POST /v1/tokens`: is this a token that this cluster accepts? Or, as an AuthN server asks before it serves a
/// cluster: does this cluster verify with my key? Open, as in AIStore: it tells nobody more than a try would.
pub(super) async fn validate(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("tokens")?;
    let state = app.state().await?;
    let verdict = match asked(&call.body)? {
        Asked::Token(token) => {
            let token = token.map_or_else(|| app.token(&call.headers), |token| app.judge(&token))?;
            return reply(&json!({"sub": token.sub, "exp": token.exp_s}), Some(state.stamp()));
        }
        Asked::Secret(digest) => app.authority.is_secret(&state, &digest),
        Asked::Public(public) => app.authority.is_public(&state, &public).map_err(ApiError::bad)?,
    };
    match verdict {
        Some(true) => Ok(done(Some(state.stamp()))),
        Some(false) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "the key is not the one that this cluster verifies with"))
        }
        None => Err(ApiError::bad("this cluster does not verify with a key of this kind")),
    }
}

/// `DELETE /v1/tokens` with `{"tokens":["..."]}`, or `{"token":"..."}` as the SDK writes it.
pub(super) async fn revoke(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("tokens")?;
    let change = Change::RevokeTokens { tokens: to_revoke(&call.body)?, now_s: now_ns() / 1_000_000_000 };
    settle(&app, &call, change).await
}

/// What takes the place of each token, and until when it counts, unix seconds.
pub(super) fn to_revoke(body: &[u8]) -> Result<BTreeMap<String, i64>, ApiError> {
    let bad = |why: &str| ApiError::bad(format!("the body does not name tokens: {why}"));
    let fields = object(body).map_err(|why| bad(&why))?;
    let mut tokens: Vec<&str> = fields.get("token").and_then(Value::as_str).into_iter().collect();
    match fields.get("tokens") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            tokens.extend(list.iter().filter_map(Value::as_str));
        }
        Some(_) => return Err(bad("'tokens' is not a list of texts")),
    }
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        return Err(bad(&format!("1 to {TOKENS_MAX} are expected")));
    }
    let mut revoked = BTreeMap::new();
    for token in tokens {
        // What says not until when it is good is never accepted, so there is nothing to take back.
        let until_s = claimed_expiry(token).ok_or_else(|| bad(&TokenError::Malformed.to_string()))?;
        revoked.insert(fingerprint(token), until_s);
    }
    Ok(revoked)
}
