//! Larger volumes. Pure.
//!
//! # Flow
//! The claims are asked to grow; once all of a set have taken that, the StatefulSet is deleted without its pods and
//! made again, because the template of its claims cannot be changed. The pods do not notice.
//! # Guarantees
//! Nothing shrinks. While a set exists, its claims are described as they were made, so that it can always be applied.
//! # Caveats
//! Whether a StorageClass grows volumes is for the API server to say: it refuses, and condition `StorageResized` has
//! its words. That is asked again after a while, since a class can be changed.

use std::collections::BTreeMap;

use super::Replicas;
use crate::facts::{ClaimFact, ClaimKind, Kind, Observed};
use crate::names::Role;

/// A claim that shall grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Its name.
    pub claim: String,
    /// Its uid.
    pub uid: String,
    /// The new size.
    pub size: String,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Storage {
    /// Size of the claims in the sets' templates.
    pub sizes: BTreeMap<(Role, ClaimKind), String>,
    /// Claims to patch.
    pub resizes: Vec<Resize>,
    /// Sets to delete without their pods: role and uid.
    pub orphaned: Vec<(Role, String)>,
    /// Claims that are not as large as asked for.
    pub growing: Vec<String>,
    /// What the API server said of those it does not let grow.
    pub refused: Vec<(String, String)>,
}

/// Decides.
#[must_use]
pub fn storage(observed: &Observed, replicas: &Replicas) -> Storage {
    let mut storage = Storage::default();
    for role in Role::ALL {
        let mut ready = true;
        let mut larger = false;
        for (kind, wanted) in sizes(observed, role) {
            let made = template(observed, role, kind);
            let grows = made.as_deref().is_some_and(|made| is_less(made, &wanted));
            larger |= grows;
            ready &= claims(observed, &mut storage, (role, kind, replicas.members(role)), &wanted);
            storage.sizes.insert((role, kind), made.unwrap_or(wanted));
        }
        if let Some(set) = observed.sets.get(&role).filter(|s| larger && ready && !s.deleting) {
            storage.orphaned.push((role, set.uid.clone()));
        }
    }
    storage
}

fn sizes(observed: &Observed, role: Role) -> Vec<(ClaimKind, String)> {
    let spec = &observed.cluster.spec;
    match role {
        Role::Gateway => vec![(ClaimKind::State, spec.gateways.state_storage.size.clone())],
        Role::Target => vec![
            (ClaimKind::State, spec.targets.state_storage.size.clone()),
            (ClaimKind::Data, spec.targets.storage.size.clone()),
        ],
    }
}

/// The size in the template of the set that there is.
fn template(observed: &Observed, role: Role, kind: ClaimKind) -> Option<String> {
    let set = observed.live.get(&(Kind::StatefulSet, observed.names().set(role)))?;
    let claims = set["spec"]["volumeClaimTemplates"].as_array()?;
    let claim = claims.iter().find(|c| c["metadata"]["name"] == kind.as_str())?;
    claim["spec"]["resources"]["requests"]["storage"].as_str().map(str::to_owned)
}

/// True if all claims of this kind that could be asked ask for the wanted size.
///
/// Those that a member left behind grow when it comes back, and nobody waits for them: without a pod no volume does.
/// Those without a volume cannot be asked before they have one.
fn claims(
    observed: &Observed,
    storage: &mut Storage,
    (role, kind, members): (Role, ClaimKind, i32),
    wanted: &str,
) -> bool {
    let mut asked = true;
    let of_members = |c: &&ClaimFact| (c.role, c.kind) == (role, kind) && c.ordinal < members && !c.deleting;
    for claim in observed.claims.iter().filter(of_members).filter(|c| c.capacity.is_some()) {
        if claim.capacity.as_deref().is_some_and(|c| is_less(c, wanted)) {
            storage.growing.push(claim.name.clone());
        }
        if !is_less(&claim.requested, wanted) {
            continue;
        }
        asked = false;
        match observed.refused.get(&claim.name) {
            Some(why) => storage.refused.push((claim.name.clone(), why.clone())),
            None => storage.resizes.push(Resize {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                size: wanted.to_owned(),
            }),
        }
    }
    asked
}

fn is_less(a: &str, b: &str) -> bool {
    matches!((milli(a), milli(b)), (Some(a), Some(b)) if a < b)
}

/// Thousandths of a quantity in Kubernetes' notation: `1.5Gi`, `100M`, `1e9`, `250m`.
#[must_use]
pub fn milli(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: u128 = match suffix {
        "" => 1000,
        "m" => 1,
        "k" => 10_u128.pow(6),
        "M" => 10_u128.pow(9),
        "G" => 10_u128.pow(12),
        "T" => 10_u128.pow(15),
        "P" => 10_u128.pow(18),
        "E" => 10_u128.pow(21),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        "Ei" => 1000 << 60,
        other => {
            let exponent: u32 = other.strip_prefix(['e', 'E'])?.trim_start_matches('+').parse().ok()?;
            10_u128.checked_pow(exponent)?.checked_mul(1000)?
        }
    };
    let (whole, part) = number.strip_prefix('+').unwrap_or(number).split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.trim_start_matches('+').parse().ok()? };
    let mut sum = whole.checked_mul(factor)?;
    if !part.is_empty() {
        let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
        sum = sum.checked_add(part.parse::<u128>().ok()?.checked_mul(factor)? / scale)?;
    }
    (!number.is_empty()).then_some(sum)
}

/// The claim of this kind in a template that was made before.
#[must_use]
pub fn size_of(storage: &Storage, role: Role, kind: ClaimKind) -> String {
    storage.sizes.get(&(role, kind)).cloned().unwrap_or_default()
}
