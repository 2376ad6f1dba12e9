//! Who calls, and what they may (http-api.md section 6).
//!
//! The gate asks for a token before any handler runs, and for the rights that a path needs whatever is in it; handlers
//! ask for rights on a bucket, which only they know.

use std::sync::Arc;

use ais_meta::settings::{CLUSTER, Values};
use ais_meta::{Bucket, BucketName, Change, ClusterUuid, Kind, State};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

use super::App;
use super::error::ApiError;
use super::mutate::Call;
use crate::auth::rights::mask_allows;
use crate::auth::{self, Authority, Claims, REQUIRED, Rights, TokenError};
use crate::clock;

/// Who calls.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Somebody at the control listener: a member or the operator.
    Member,
    /// A client of a cluster in which clients need no token.
    Anybody,
    /// The owner of a verified token.
    Token(Arc<Claims>),
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| ApiError::broken("the gate did not say who calls"))
    }
}

/// What a path wants of a caller before its handler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// A valid token; the handler asks for more.
    Token,
    /// These rights in the cluster.
    Rights(Rights),
    /// Not to call this node at all.
    Gateway,
}

/// The table of http-api.md section 6.
pub(super) fn wanted(kind: Kind, method: &Method, path: &str, what: Option<&str>) -> Wanted {
    let reads = method == Method::GET || method == Method::HEAD;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (version, resource, name) = (parts.next(), parts.next(), parts.next());
    if version == Some("v1") && resource == Some("health") {
        return Wanted::Nothing;
    }
    if kind == Kind::Target {
        // It has no key to verify tokens with; AIStore leaves its questions open, which shows the cluster to everybody.
        return Wanted::Gateway;
    }
    match (version, resource) {
        (Some("v1"), Some("tokens")) if method == Method::POST => Wanted::Nothing,
        (Some("v1"), Some("tokens")) => Wanted::Rights(Rights::ADMIN),
        // AIStore too: whoever started a job may ask how it goes.
        (Some("v1"), Some("cluster")) if reads && what == Some("status") => Wanted::Token,
        (Some("v1"), Some("daemon" | "cluster" | "reverse")) if reads => Wanted::Rights(Rights::SHOW_CLUSTER),
        (Some("v1"), Some("daemon" | "cluster" | "reverse")) => Wanted::Rights(Rights::ADMIN),
        (Some("v1"), Some("buckets")) if reads && name.is_none() => Wanted::Rights(Rights::LIST_BUCKETS),
        _ => Wanted::Token,
    }
}

/// 401.
pub(super) fn unauthorized(error: TokenError) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, error.to_string()).tcode("ErrInvalidToken")
}

fn denied(claims: &Claims, of: &str, wanted: Rights) -> ApiError {
    let text = format!("user `{}` has insufficient permissions: {wanted} of {of} is not granted", claims.sub);
    ApiError::new(StatusCode::FORBIDDEN, text).tcode("ErrNoPermissions")
}

impl App {
    /// Verifies the token of a request under the committed State.
    pub(super) fn token(&self, headers: &HeaderMap) -> Result<Arc<Claims>, ApiError> {
        let token = auth::extract(headers).map_err(unauthorized)?;
        self.judge(token)
    }

    /// Verifies a token under the committed State.
    pub(super) fn judge(&self, token: &str) -> Result<Arc<Claims>, ApiError> {
        let view = self.view();
        let state = view.published.as_ref().ok_or_else(|| ApiError::not_ready(&view))?;
        self.judge_under(state, token)
    }

    fn judge_under(&self, state: &State, token: &str) -> Result<Arc<Claims>, ApiError> {
        let now_s = i64::try_from(clock::unix_ms() / 1000).unwrap_or(i64::MAX);
        self.authority.check(token, state, now_s).map_err(unauthorized)
    }

    /// Who calls by the public listener. Whether clients need tokens stands in the committed State: a node that knows
    /// none yet, or only the one that it went down with, lets nobody in who wants anything.
    pub(super) async fn caller(&self, wanted: Wanted, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if wanted == Wanted::Nothing {
            return Ok(Caller::Anybody);
        }
        let state = self.state().await?;
        self.caller_under(&state, wanted, headers)
    }

    fn caller_under(&self, state: &State, wanted: Wanted, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if wanted == Wanted::Nothing || !Authority::is_required(state) {
            return Ok(Caller::Anybody);
        }
        if wanted == Wanted::Gateway {
            let text = format!("{} is a target: where clients need tokens, only gateways answer them", self.name());
            return Err(ApiError::new(StatusCode::FORBIDDEN, text));
        }
        let token = auth::extract(headers).map_err(unauthorized)?;
        let claims = self.judge_under(state, token)?;
        if let Wanted::Rights(rights) = wanted
            && !claims.grants.allow(state.uuid(), None, rights)
        {
            return Err(denied(&claims, "the cluster", rights));
        }
        Ok(Caller::Token(claims))
    }

    /// Judges a caller again who was let in before: what he waited for may have taken a while. An answer to him, or a
    /// change of his, counts under this State.
    pub(super) fn still(
        &self,
        state: &State,
        caller: &Caller,
        wanted: Wanted,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        if matches!(caller, Caller::Member) {
            return Ok(());
        }
        match (caller, self.caller_under(state, wanted, headers)?) {
            // Nobody has looked at his rights on buckets yet.
            (Caller::Anybody, Caller::Token(_)) => {
                Err(ApiError::unavailable("clients need tokens since this call came; send it again"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller has these rights on a bucket, as far as its token says.
    pub(super) fn granted(&self, caller: &Caller, name: &BucketName, wanted: Rights) -> Result<(), ApiError> {
        let view = self.view();
        let uuid = view.uuid.as_ref().ok_or_else(|| ApiError::not_ready(&view))?;
        granted(caller, uuid, name, wanted)
    }

    /// Whether the caller may have this change made, beyond what the path wants. Goes by the token and by what
    /// [`State::basis`] holds, and by nothing else of the State: the change counts in any State of that basis.
    pub(super) fn may_change(&self, state: &State, call: &Call, change: &Change) -> Result<(), ApiError> {
        let (caller, uuid) = (&call.caller, state.uuid());
        // A bucket that is not known here has no mask; the primary says whether it exists.
        let may = |name: &BucketName, wanted: Rights| {
            granted(caller, uuid, name, wanted)?;
            state.buckets().get(name).map_or(Ok(()), |bucket| unmasked(caller, bucket, wanted))
        };
        match change {
            Change::CreateBucket { name, .. } => granted(caller, uuid, name, Rights::CREATE_BUCKET),
            Change::DestroyBucket { name } => may(name, Rights::DESTROY_BUCKET),
            Change::SetBucketProps { name, set, reset } => {
                let opens = *reset || set.contains_key("access");
                may(name, if opens { Rights::PATCH.and(Rights::SET_ACL) } else { Rights::PATCH })
            }
            Change::RenameBucket { from, to } => {
                granted(caller, uuid, to, Rights::MOVE_BUCKET)?;
                may(from, Rights::MOVE_BUCKET)
            }
            Change::SetConfig { set, .. } => self.may_close(state, call, set),
            _ => Ok(()),
        }
    }

    /// Turning tokens on shuts everybody out who has none: whoever does it must hold one that lets him in again.
    fn may_close(&self, state: &State, call: &Call, set: &Values) -> Result<(), ApiError> {
        let asked = set.get(REQUIRED).and_then(|text| CLUSTER.check(REQUIRED, text).ok());
        if Authority::is_required(state) || asked.as_deref() != Some("true") {
            return Ok(());
        }
        let refused = |why: String| ApiError::new(StatusCode::UNAUTHORIZED, why).tcode("ErrInvalidToken");
        if let Some(why) = self.authority.unusable() {
            return Err(refused(format!("enabling client authentication requires a key for tokens: {why}")));
        }
        if matches!(call.caller, Caller::Member) {
            // Signed with the cluster's secret, which needs no token to come in again.
            return Ok(());
        }
        let claims =
            auth::extract(&call.headers).map_err(unauthorized).and_then(|token| self.judge_under(state, token));
        let invalid = |e: ApiError| {
            refused(format!("enabling client authentication requires a valid token [err: {}]", e.message))
        };
        if claims.map_err(invalid)?.grants.admin {
            return Ok(());
        }
        Err(refused("enabling client authentication requires a token with an 'admin' claim".to_owned()))
    }
}

fn granted(caller: &Caller, uuid: &ClusterUuid, name: &BucketName, wanted: Rights) -> Result<(), ApiError> {
    let Caller::Token(claims) = caller else { return Ok(()) };
    let allowed = claims.grants.allow(uuid, Some(name), wanted);
    if allowed { Ok(()) } else { Err(denied(claims, &name.to_string(), wanted)) }
}

/// Whether a bucket's own access mask lets it pass; it binds clients without tokens too.
pub(super) fn unmasked(caller: &Caller, bucket: &Bucket, wanted: Rights) -> Result<(), ApiError> {
    let grants = match caller {
        Caller::Member => return Ok(()),
        Caller::Anybody => None,
        Caller::Token(claims) => Some(&claims.grants),
    };
    if mask_allows(bucket.access, wanted, grants) {
        return Ok(());
    }
    let text = format!("bucket \"{}\": {wanted} access denied ({:#x})", bucket.name, bucket.access);
    Err(ApiError::new(StatusCode::FORBIDDEN, text).tcode("ErrBucketAccessDenied"))
}
