//! Query parameters and action messages, read as leniently as AIStore does.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;

/// The query. A parameter that comes twice counts as it came first (the SDK repeats some over https).
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// AIStore's truth: `1 t true y yes on` in any case.
    pub(super) fn is(&self, name: &str) -> bool {
        let truth = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes" | "on");
        self.get(name).is_some_and(truth)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| text.parse().map_err(|_| ApiError::bad(format!("{name}: '{text}' is not a number")));
        self.get(name).map(parse).transpose()
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(e) => Err(ApiError::bad(format!("the query cannot be read: {e}"))),
        }
    }
}

/// AIStore's action message. The SDK says `application/json` of every body, so its type is not looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Action {
    #[serde(default)]
    pub(super) action: String,
    #[serde(default)]
    pub(super) value: Value,
}

impl Action {
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|e| ApiError::bad(format!("the body is not an action message: {e}")))
    }
}
