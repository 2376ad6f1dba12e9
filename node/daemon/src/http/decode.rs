//! Doors to what reads queries and bodies, for the fuzz targets; handlers use the types behind them.

use std::collections::BTreeMap;

use axum::http::Uri;

use super::params::{self, Action, Params};

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
