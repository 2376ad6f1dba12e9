//! Query parameters and action messages, read as leniently as AIStore does.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use super::error::ApiError;

/// The query. A parameter that comes twice counts as it came first (the SDK repeats some over https).
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(e) => Err(ApiError::bad(format!("the query cannot be read: {e}"))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// AIStore's truth: `1 t true y yes on` in any case.
    pub(super) fn is(&self, name: &str) -> bool {
        let truth = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes" | "on");
        self.get(name).is_some_and(truth)
    }

    /// All pairs, in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| text.parse().map_err(|_| ApiError::bad(format!("{name}: '{text}' is not a number")));
        self.get(name).map(parse).transpose()
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}

/// AIStore's action message. The SDK says `application/json` of every body, so its type is not looked at. Names of
/// fields count in any case and `null` is as good as nothing, as in Go.
#[derive(Debug, Default)]
pub(super) struct Action {
    pub(super) action: String,
    pub(super) value: Value,
}

impl Action {
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        let bad = |why: String| ApiError::bad(format!("the body is not an action message: {why}"));
        let mut fields = object(body).map_err(bad)?;
        let action = match fields.remove("action") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(action)) => action,
            Some(_) => return Err(bad("'action' is not a text".to_owned())),
        };
        Ok(Self { action, value: fields.remove("value").unwrap_or_default() })
    }
}

/// Deepest nesting of a value; deeper ones name nothing.
const DEPTH_MAX: usize = 8;

/// The fields of a JSON object, names in lower case; nothing at all is an empty object.
pub(super) fn object(body: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(BTreeMap::new());
    }
    match serde_json::from_slice::<Value>(body).map_err(|e| e.to_string())? {
        Value::Object(fields) => {
            Ok(fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
        }
        Value::Null => Ok(BTreeMap::new()),
        _ => Err("it is not an object".to_owned()),
    }
}

/// A nested value as dotted names and texts: `{"mirror":{"copies":2}}` is `mirror.copies` = `2`. `null` leaves a
/// setting as it is, as in AIStore.
pub(super) fn dotted(value: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let mut set = BTreeMap::new();
    flatten("", value, 0, &mut set)?;
    Ok(set)
}

fn flatten(name: &str, value: &Value, depth: usize, set: &mut BTreeMap<String, String>) -> Result<(), ApiError> {
    let text = match value {
        Value::Null => return Ok(()),
        Value::Object(_) if depth >= DEPTH_MAX => {
            return Err(ApiError::bad(format!("'{name}' is nested too deeply")));
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                let field = field.to_ascii_lowercase();
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(&name, value, depth + 1, set)?;
            }
            return Ok(());
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    if name.is_empty() {
        return Err(ApiError::bad("the value is not an object of settings"));
    }
    set.insert(name.to_owned(), text);
    Ok(())
}

/// The other way round, for answers: each value as its kind has it in JSON.
pub(super) fn nested<'a>(settings: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut root = Map::new();
    for (name, value) in settings {
        put(&mut root, name, value);
    }
    Value::Object(root)
}

fn put(place: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => drop(place.insert(name.to_owned(), value)),
        Some((first, rest)) => {
            let entry = place.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = entry {
                put(inner, rest, value);
            }
        }
    }
}
