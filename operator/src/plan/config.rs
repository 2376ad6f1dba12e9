//! `spec.config`: what to tell the primary, and the condition. Pure.
//!
//! The spec is the truth for the settings it names: what somebody changes through the API is set back, and said.
//! Settings that it does not name are nobody's business here. A setting that leaves the spec goes back to its default;
//! which ones that may be is remembered in `status.config.keys`, written before the first call.

use ais_crds::ConfigStatus;
use ais_meta::settings::{CLUSTER, Values};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::desired::digest;
use crate::events::Note;
use crate::facts::Observed;
use crate::validate::Valid;
use crate::view::Agreement;

/// A refusal is not argued with, but the reason may go away: other settings are part of it.
const REFUSED_S: i64 = 60;
/// An answer that says nothing, or one that nobody sees the effect of.
const AGAIN_S: i64 = 5;
/// A call without an answer.
const SILENT_S: i64 = 15;

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigCall {
    /// Digest of what was to be set.
    pub of: String,
    /// When.
    pub at: Timestamp,
    /// How it ended, once it has.
    pub outcome: Option<ConfigOutcome>,
}

/// How a set-config call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOutcome {
    /// The node says it is committed; to be seen by reading back.
    Answered,
    /// Refused, with the node's reason.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// What is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetConfig {
    /// Digest of `set`.
    pub of: String,
    /// Values by name.
    pub set: Values,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigPlan {
    /// What status remembers.
    pub memory: ConfigStatus,
    /// The call to make.
    pub call: Option<SetConfig>,
    /// The condition holds.
    pub valid: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// Events.
    pub notes: Vec<Note>,
    /// When to look again.
    pub again: Option<std::time::Duration>,
}

/// Decides.
#[must_use]
pub fn config(valid: &Valid, observed: &Observed, agreement: &Agreement) -> ConfigPlan {
    let memory = observed.cluster.status.as_ref().map(|s| s.config.clone()).unwrap_or_default();
    let now = committed(observed, agreement);
    let version = now.map(|(version, _)| version).or(memory.version);
    let overlay = match &valid.overlay {
        Ok(overlay) => overlay,
        Err(why) => {
            let memory = ConfigStatus { version, keys: memory.keys };
            let message = format!("{}; the cluster keeps what it has", why.message);
            return ConfigPlan { memory, reason: why.reason, message, ..ConfigPlan::default() };
        }
    };
    let value = |name: &str| -> Option<&str> {
        let (_, settings) = now?;
        settings.get(name).map(String::as_str).or_else(|| CLUSTER.default_of(name))
    };
    let left = |name: &&String| !overlay.contains_key(*name);
    // Until it is seen at its default, a setting that left is not forgotten.
    let leaving: Vec<&String> = memory
        .keys
        .iter()
        .filter(left)
        .filter(|name| now.is_none() || value(name) != CLUSTER.default_of(name))
        .collect();
    let mut keys: Vec<String> = overlay.keys().chain(leaving.iter().copied()).cloned().collect();
    keys.sort_unstable();
    let mut plan = ConfigPlan { memory: ConfigStatus { version, keys }, valid: true, ..ConfigPlan::default() };
    if now.is_none() {
        (plan.reason, plan.message) = ("NoPrimary", "nobody tells what is set".to_owned());
        return plan;
    }
    let mut set: Values =
        overlay.iter().filter(|(k, v)| value(k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let defaults = leaving.iter().filter_map(|k| Some(((*k).clone(), CLUSTER.default_of(k)?.to_owned())));
    set.extend(defaults);
    if set.is_empty() {
        settled(&mut plan, overlay);
        return plan;
    }
    drift(&mut plan, observed, &set, value);
    let names: Vec<&str> = set.keys().map(String::as_str).collect();
    (plan.reason, plan.message) = ("Pending", format!("to be set: {}", names.join(", ")));
    let of = digest(&json!(set));
    due(&mut plan, observed, agreement, SetConfig { of, set });
    plan
}

/// Version and settings as the primary of the newest reign published them.
fn committed<'a>(observed: &'a Observed, agreement: &Agreement) -> Option<(i64, &'a Values)> {
    let leader = agreement.leader.as_ref()?;
    let view = observed.reports.get(&leader.node_id)?.view()?;
    (view.stamp.map(crate::view::Stamp::reign) == Some(leader.reign)).then_some(())?;
    Some((view.config_version, view.settings.as_ref()?))
}

fn settled(plan: &mut ConfigPlan, overlay: &Values) {
    if overlay.is_empty() {
        (plan.reason, plan.message) = ("NoOverlay", "spec.config is empty".to_owned());
        return;
    }
    let late = CLUSTER.needs_restart(overlay);
    plan.reason = "Applied";
    plan.message = format!("{} settings are committed", overlay.len());
    if !late.is_empty() {
        plan.message.push_str(&format!("; each node takes these at its next start: {}", late.join(", ")));
    }
}

/// It was as it should be, the spec did not change: somebody else changed it.
fn drift<'a>(plan: &mut ConfigPlan, observed: &Observed, set: &Values, value: impl Fn(&str) -> Option<&'a str>) {
    let conditions = observed.cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let was = conditions.iter().any(|c| {
        c.type_ == "ConfigValid"
            && c.reason == "Applied"
            && c.observed_generation == observed.cluster.metadata.generation
    });
    if !was {
        return;
    }
    let changed: Vec<String> =
        set.iter().map(|(k, v)| format!("{k} was {}, spec.config says {v}", value(k).unwrap_or_default())).collect();
    let message = format!("changed through the API and set back: {}", changed.join("; "));
    plan.notes.push(Note::warning("ConfigDrift", "SetConfig", message));
}

/// Whether to call now; what the last call said.
fn due(plan: &mut ConfigPlan, observed: &Observed, agreement: &Agreement, call: SetConfig) {
    let last = observed.config_call.as_ref().filter(|last| last.of == call.of);
    let wait_s = match last.map(|last| last.outcome.as_ref()) {
        None => 0,
        Some(None) => SILENT_S,
        Some(Some(ConfigOutcome::Answered | ConfigOutcome::Unknown(_))) => AGAIN_S,
        Some(Some(ConfigOutcome::Refused(why))) => {
            plan.valid = false;
            plan.reason = "Refused";
            plan.message = format!("the primary refuses spec.config: {why}; the cluster keeps what it has");
            REFUSED_S
        }
    };
    if observed.cluster.spec.paused || agreement.stopping || agreement.split.is_some() {
        return;
    }
    let since = last.map_or(SignedDuration::MAX, |last| observed.now.duration_since(last.at));
    let wait = SignedDuration::from_secs(wait_s);
    if since >= wait {
        plan.call = Some(call);
        plan.again = Some(std::time::Duration::from_secs(AGAIN_S.unsigned_abs()));
    } else {
        plan.again = std::time::Duration::try_from(wait - since).ok();
    }
}
