//! `spec.config`: from what a user wrote to settings in their canonical spelling. Pure.
//!
//! The daemon's own table decides what there is and what a value may be (`ais_meta::settings`), so that an error is
//! told before anybody is asked, in the words that the node would use.

use ais_crds::HaSpec;
use ais_meta::settings::{CLUSTER, SettingError, Values, timers};
use serde_json::{Map, Value};

/// Deepest nesting; deeper ones name nothing.
const DEPTH_MAX: usize = 8;
/// Most settings of one overlay: more than there are.
const KEYS_MAX: usize = 256;
/// Settings that have a field of their own in the resource, and are given to each node by it.
const OWNED: [(&str, &str); 4] = [
    ("ha.suspect_ms", "spec.ha.suspectMilliseconds"),
    ("ha.lease_ms", "spec.ha.leaseMilliseconds"),
    ("ha.evict_smap_ms", "spec.ha.evictSmapSeconds"),
    ("ha.evict_voter_ms", "spec.ha.evictVoterSeconds"),
];

/// Why an overlay is not applied. Becomes condition `ConfigValid`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadConfig {
    /// Reason of the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

fn bad(reason: &'static str, message: impl Into<String>) -> BadConfig {
    BadConfig { reason, message: message.into() }
}

/// Reads the overlay; all of it, or what is wrong first.
///
/// # Errors
/// [`BadConfig`]
pub fn read(config: Option<&Map<String, Value>>, ha: &HaSpec) -> Result<Values, BadConfig> {
    let mut given = Values::new();
    if let Some(config) = config {
        flatten("", config, 0, &mut given)?;
    }
    let mut values = Values::new();
    for (name, text) in &given {
        if let Some((_, field)) = OWNED.iter().find(|(key, _)| key == name) {
            return Err(bad("OwnedBySpec", format!("spec.config: {name} has a field of its own: set {field}")));
        }
        values.insert(name.clone(), CLUSTER.check(name, text).map_err(|e| refused(&e))?);
    }
    // What is set elsewhere is not known here; the primary looks at all of it again.
    CLUSTER.apply(Values::new(), &values).map_err(|e| refused(&e))?;
    fits(&values, ha)?;
    Ok(values)
}

fn refused(error: &SettingError) -> BadConfig {
    let reason = match error {
        SettingError::Unknown { .. } => "UnknownKey",
        SettingError::Absent { .. } => "UnsupportedKey",
        SettingError::Value { .. } | SettingError::Together(_) => "InvalidValue",
    };
    bad(reason, format!("spec.config: {error}"))
}

/// The timers as the nodes will have them: those of `spec.ha` with the overlay's. A node that finds them at odds would
/// leave those of `spec.ha` out.
fn fits(values: &Values, ha: &HaSpec) -> Result<(), BadConfig> {
    let own = |name: &str| match name {
        "suspect_ms" => u64::try_from(ha.suspect_milliseconds).ok(),
        "lease_ms" => u64::try_from(ha.lease_milliseconds).ok(),
        "evict_smap_ms" => u64::try_from(ha.evict_smap_seconds).ok().map(|s| s.saturating_mul(1000)),
        "evict_voter_ms" => u64::try_from(ha.evict_voter_seconds).ok().map(|s| s.saturating_mul(1000)),
        _ => None,
    };
    if !values.keys().any(|name| name.starts_with("ha.")) {
        return Ok(());
    }
    let effective = |name: &str| {
        let key = format!("ha.{name}");
        let set = values.get(&key).and_then(|text| text.parse().ok());
        set.or_else(|| own(name)).or_else(|| CLUSTER.default_of(&key)?.parse().ok())
    };
    match timers::problems(effective).into_iter().next() {
        Some(problem) => Err(bad("InvalidValue", format!("spec.config with spec.ha: {problem}"))),
        None => Ok(()),
    }
}

fn flatten(prefix: &str, map: &Map<String, Value>, depth: usize, into: &mut Values) -> Result<(), BadConfig> {
    for (key, value) in map {
        let key = key.to_ascii_lowercase();
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::Object(_) if depth >= DEPTH_MAX => {
                return Err(bad("InvalidValue", format!("spec.config: '{name}' is nested too deeply")));
            }
            Value::Object(map) => {
                flatten(&name, map, depth + 1, into)?;
                continue;
            }
            // As if it were not there.
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
        };
        if into.len() >= KEYS_MAX {
            return Err(bad("InvalidValue", format!("spec.config has more than {KEYS_MAX} settings")));
        }
        if into.insert(name.clone(), text).is_some() {
            return Err(bad("InvalidValue", format!("spec.config: '{name}' is there twice, flat and nested")));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(config: Value) -> Result<Values, String> {
        let map = config.as_object().unwrap().clone();
        read(Some(&map), &HaSpec::default()).map_err(|why| format!("{}: {}", why.reason, why.message))
    }

    #[test]
    fn flat_and_nested_are_the_same_and_canonical() {
        let flat = said(json!({"mirror.copies": 3, "lru.dont_evict_time": "120m", "ec.enabled": "yes"})).unwrap();
        let nested =
            said(json!({"Mirror": {"copies": "3"}, "lru": {"dont_evict_time": "2h"}, "ec": {"enabled": true}}))
                .unwrap();
        assert_eq!(flat, nested);
        assert_eq!(flat["lru.dont_evict_time"], "2h");
        assert_eq!(said(json!({"auth.required_claims.aud": ["a", "b"]})).unwrap()["auth.required_claims.aud"], "a,b");
        assert!(read(None, &HaSpec::default()).unwrap().is_empty());
        assert!(said(json!({"mirror": null})).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, reason, part) in [
            (json!({"miror.copies": 2}), "UnknownKey", "did you mean 'mirror.copies'?"),
            (json!({"transport": {"quiescent": "1s"}}), "UnsupportedKey", "cannot be set"),
            (json!({"mirror.copies": "many"}), "InvalidValue", "expected a number from 1 to 32"),
            (json!({"mirror.enabled": true, "ec.enabled": true}), "InvalidValue", "exclude each other"),
            (json!({"mirror.copies": 2, "mirror": {"copies": 3}}), "InvalidValue", "twice"),
            (json!({"ha.lease_ms": 3000}), "OwnedBySpec", "set spec.ha.leaseMilliseconds"),
            (
                json!({"ha.heartbeat_ms": 1600}),
                "InvalidValue",
                "heartbeat_ms (1600) must be less than suspect_ms (1500)",
            ),
        ] {
            let error = said(config.clone()).unwrap_err();
            assert!(error.starts_with(reason) && error.contains(part), "{config}: {error}");
        }
    }

    #[test]
    fn timers_are_looked_at_together_with_the_fields_of_the_resource() {
        let map = json!({"ha.probe_ms": 900}).as_object().unwrap().clone();
        assert!(read(Some(&map), &HaSpec::default()).is_ok());
        let quick = HaSpec { suspect_milliseconds: 800, ..HaSpec::default() };
        assert_eq!(read(Some(&map), &quick).unwrap_err().reason, "InvalidValue");
    }
}
