//! Who founds: the list in the mounted file until the cluster is formed. Pure.
//!
//! The full list is there before the pods, since unanimity makes waiting harmless. Only after the
//! time-out it is shortened to those that run, and never while a node is bound to an offer.

use jiff::SignedDuration;

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
    /// Gateways of the list that do not answer yet.
    pub waits_for: Vec<String>,
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
    let waits_for =
        if formed { Vec::new() } else { initial_voters.iter().filter(|n| !answers(observed, n)).cloned().collect() };
    Founding {
        formed,
        shortened: !formed && initial_voters.len() < full.len(),
        seed: seed(&valid.names, observed, &initial_voters),
        waits_for,
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

fn shorter(valid: &Valid, observed: &Observed, list: &[String]) -> Option<Vec<String>> {
    let spec = &observed.cluster.spec;
    let created = observed.sets.get(&Role::Gateway)?.created?;
    let waited = observed.now.duration_since(created);
    if waited < SignedDuration::from_secs(spec.ha.founding_timeout_seconds) || list.iter().all(|n| answers(observed, n))
    {
        return None;
    }
    if observed.reports.values().filter_map(|r| r.view()).any(|v| v.bound || v.formed) {
        return None;
    }
    let names = &valid.names;
    let running: Vec<String> =
        (0..spec.gateways.replicas).map(|n| names.pod(Role::Gateway, n)).filter(|n| answers(observed, n)).collect();
    if running.len() < majority(usize::try_from(spec.gateways.replicas).unwrap_or(usize::MAX)) {
        return None;
    }
    let size = founding_size(running.len().min(usize::try_from(spec.ha.voters).unwrap_or(1)));
    Some(running.into_iter().take(size).collect())
}

/// The first preferred gateway if it founds, else the lowest of the list.
fn seed(names: &Names, observed: &Observed, list: &[String]) -> String {
    let preferred = observed.cluster.spec.primary.preferred.first();
    preferred.filter(|p| list.contains(p)).or(list.first()).cloned().unwrap_or_else(|| names.pod(Role::Gateway, 0))
}
