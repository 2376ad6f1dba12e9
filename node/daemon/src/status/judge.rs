//! What of a cluster is not well. Nothing here is a guess: each sentence names a fact of the view.

use ais_meta::Stamp;

use super::ask::{Member, Seen};

/// Silence of a connected member from which on it is called slow; heartbeats come several times a second.
const SLOW_MS: u64 = 1500;

/// How far a member's published State is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    /// As new as the primary's.
    None,
    /// By so many States.
    States(u64),
    /// In another epoch or incarnation.
    Epoch,
    /// It has said nothing.
    Unknown,
}

pub(super) fn lag(newest: Option<Stamp>, member: &Member) -> Lag {
    match (newest, member.published) {
        (Some(newest), Some(had)) if had >= newest => Lag::None,
        (Some(newest), Some(had)) if (had.incarnation, had.epoch) == (newest.incarnation, newest.epoch) => {
            Lag::States(newest.seq.saturating_sub(had.seq))
        }
        (Some(_), Some(_)) => Lag::Epoch,
        _ => Lag::Unknown,
    }
}

/// Connected, but not answering as it should.
pub(super) fn is_slow(member: &Member) -> bool {
    member.connected && member.age_ms.is_some_and(|age| age > SLOW_MS)
}

/// Everything that is not well; empty: healthy. A member that lags is not: it may be reading at this very moment.
pub(super) fn troubles(seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |text: String| found.push(text);
    if seen.cluster_uuid.is_none() {
        say("no cluster is formed".to_owned());
    }
    if seen.primary.is_none() {
        say("nobody leads: changes are held and then refused, reads are answered from what is known".to_owned());
    }
    if !seen.ready || !seen.reason.is_empty() {
        let reason = if seen.reason.is_empty() { "it does not say why" } else { seen.reason.as_str() };
        say(format!("{} is not ready: {reason}", seen.node_id));
    }
    if seen.disk_ok == Some(false) {
        say(format!("the state directory of {} cannot be written", seen.node_id));
    }
    if seen.cluster_stopping {
        say("the whole cluster is being shut down".to_owned());
    }
    if seen.members.is_empty() {
        return found;
    }
    let reached = |id: &str| seen.members.iter().any(|member| member.node_id == id && member.connected);
    let away: Vec<&str> = seen.electorate.iter().map(|s| s.node_id.as_str()).filter(|id| !reached(id)).collect();
    for id in &away {
        say(format!("voter {id} is not connected"));
    }
    let (left, majority) = (seen.electorate.len() - away.len(), seen.electorate.len() / 2 + 1);
    if left < majority {
        say(format!("{left} voters are left, {majority} are needed: nothing can be committed"));
    } else if left == majority && !away.is_empty() {
        say("one more voter lost, and nothing can be committed".to_owned());
    }
    for member in &seen.members {
        let id = member.node_id.as_str();
        if !member.connected && !member.maintenance && !away.contains(&id) {
            say(format!("{id} is not connected"));
        }
        if is_slow(member) {
            say(format!("{id} is slow: not heard for {} ms", member.age_ms.unwrap_or(0)));
        }
    }
    found
}
