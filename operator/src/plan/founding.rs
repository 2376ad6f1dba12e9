//! Who founds: the list in the mounted file until the cluster is formed. Pure.
//!
//! The full list is there before the pods, since unanimity makes waiting harmless. Only after the
//! time-out it is shortened to those that run, and never while a node is bound to an offer.

use jiff::{SignedDuration, Timestamp};

use crate::facts::Observed;
use crate::names::{Names, Role};
use crate::validate::Valid;
use crate::view::{Agreement, majority};

/// What founding needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// The cluster was founded.
    pub formed: bool,
    /// Gateways that found together.
    pub initial_voters: Vec<String>,
    /// The list was shortened: nodes are told to read it again.
    pub shortened: bool,
    /// What it waits for, for people.
    pub message: String,
    /// Gateway whose address goes into `AIS_PRIMARY_EP` until there is a primary.
    pub seed: String,
}

/// How many of `available` found: the largest odd number, except that two stay two.
#[must_use]
pub fn founding_size(available: usize) -> usize {
    if available > 2 && available.is_multiple_of(2) { available - 1 } else { available }
}

/// Decides.
#[must_use]
pub fn founding(valid: &Valid, observed: &Observed, agreement: &Agreement) -> Founding {
    let formed = is_formed(observed, agreement);
    let full = full_list(&valid.names, observed);
    let kept =
        observed.discovery.as_ref().map(|d| d.initial_voters.clone()).filter(|list| {
            !list.is_empty() && (formed || list.iter().all(|name| exists(observed, &valid.names, name)))
        });
    let mut initial_voters = kept.unwrap_or_else(|| full.clone());
    if !formed && let Some(shorter) = shorter(valid, observed, &initial_voters) {
        initial_voters = shorter;
    }
    Founding {
        formed,
        shortened: !formed && initial_voters.len() < full.len(),
        seed: seed(&valid.names, observed, &initial_voters),
        message: if formed { String::new() } else { message(valid, observed, &initial_voters) },
        initial_voters,
    }
}

/// Once recorded anywhere it stays: a wiped cluster must not found a second time.
fn is_formed(observed: &Observed, agreement: &Agreement) -> bool {
    agreement.formed
        || observed.discovery.as_ref().is_some_and(|d| d.formed)
        || observed.volumes.iter().any(|v| v.formed)
        || observed.cluster.status.as_ref().is_some_and(|s| s.formed)
}

fn exists(observed: &Observed, names: &Names, name: &str) -> bool {
    matches!(names.parse_pod(name), Some((Role::Gateway, n)) if n < observed.cluster.spec.gateways.replicas)
}

fn full_list(names: &Names, observed: &Observed) -> Vec<String> {
    let spec = &observed.cluster.spec;
    let available = spec.ha.voters.min(spec.gateways.replicas).max(1);
    let size = founding_size(usize::try_from(available).unwrap_or(1));
    (0..spec.gateways.replicas).take(size).map(|n| names.pod(Role::Gateway, n)).collect()
}

fn answers(observed: &Observed, pod: &str) -> bool {
    observed.reports.get(pod).is_some_and(|r| r.view().is_some())
}

/// When the list may be shortened to those that run.
fn due(observed: &Observed) -> Option<Timestamp> {
    let timeout = SignedDuration::from_secs(observed.cluster.spec.ha.founding_timeout_seconds);
    Some(observed.sets.get(&Role::Gateway)?.created? + timeout)
}

/// Somebody agreed to an offer, and with it to the list as it is.
fn binding(observed: &Observed) -> bool {
    observed.reports.values().filter_map(|r| r.view()).any(|v| v.bound || v.formed)
}

/// Gateways that answer, of all that are asked for.
fn running(valid: &Valid, observed: &Observed) -> Vec<String> {
    let all = (0..observed.cluster.spec.gateways.replicas).map(|n| valid.names.pod(Role::Gateway, n));
    all.filter(|n| answers(observed, n)).collect()
}

fn needed(observed: &Observed) -> usize {
    majority(usize::try_from(observed.cluster.spec.gateways.replicas).unwrap_or(usize::MAX))
}

fn shorter(valid: &Valid, observed: &Observed, list: &[String]) -> Option<Vec<String>> {
    if observed.now < due(observed)? || list.iter().all(|n| answers(observed, n)) || binding(observed) {
        return None;
    }
    let running = running(valid, observed);
    if running.len() < needed(observed) {
        return None;
    }
    let size = founding_size(running.len().min(usize::try_from(observed.cluster.spec.ha.voters).unwrap_or(1)));
    Some(running.into_iter().take(size).collect())
}

/// Who is waited for, why it does not come, and what happens then.
fn message(valid: &Valid, observed: &Observed, list: &[String]) -> String {
    let missing: Vec<&String> = list.iter().filter(|n| !answers(observed, n)).collect();
    if missing.is_empty() {
        return format!("{} are founding the cluster", list.join(", "));
    }
    let why = |name: &String| match observed.pod(name) {
        None => format!("{name} (no pod)"),
        Some(pod) => match &pod.trouble {
            Some(trouble) => format!("{name} ({trouble})"),
            None if pod.running => format!("{name} (does not answer)"),
            None => format!("{name} (starts)"),
        },
    };
    let who = missing.into_iter().map(why).collect::<Vec<_>>().join(", ");
    let then = match due(observed) {
        _ if binding(observed) => {
            "a node agreed to found with it already; if it cannot come back, use `ais-operator refound`".to_owned()
        }
        Some(due) if observed.now < due => format!("those that run found without it after {due}"),
        _ if running(valid, observed).len() < needed(observed) => {
            "too few run to found without it: most of spec.gateways.replicas are needed".to_owned()
        }
        _ => "those that run found without it".to_owned(),
    };
    format!("founding waits for {who}; {then}")
}

/// The first preferred gateway if it founds, else the lowest of the list.
fn seed(names: &Names, observed: &Observed, list: &[String]) -> String {
    let preferred = observed.cluster.spec.primary.preferred.first();
    preferred.filter(|p| list.contains(p)).or(list.first()).cloned().unwrap_or_else(|| names.pod(Role::Gateway, 0))
}
