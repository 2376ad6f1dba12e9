//! One screen of 80 columns about a cluster. Pure.

use std::fmt::Write as _;

use ais_crds::{AISCluster, AISClusterStatus, Failback, NodeStatus, VoterStatus};
use jiff::Timestamp;
use kube::core::ResourceExt;

use crate::view::majority;

/// Width of the page.
const COLUMNS: usize = 80;
/// Nodes shown; those that are not well come first when there are more.
const NODES_SHOWN: usize = 16;
/// Width of the words at the left.
const LABEL: usize = 11;

/// The page.
#[must_use]
pub fn page(cluster: &AISCluster, now: Timestamp) -> String {
    let Some(status) = &cluster.status else {
        return format!("{}: the operator has not looked at it yet\n", cluster.name_any());
    };
    let mut text = String::new();
    head(&mut text, cluster, status);
    primary(&mut text, cluster, status, now);
    members(&mut text, status);
    conditions(&mut text, status, now);
    text
}

/// A word at the left and wrapped text beside it.
fn row(text: &mut String, label: &str, value: &str) {
    let mut line = format!("{label:<LABEL$}");
    let mut empty = true;
    for word in value.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(LABEL);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(&cut(word, COLUMNS - LABEL));
        empty = false;
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('~');
    short
}

/// As `kubectl` shows ages.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn head(text: &mut String, cluster: &AISCluster, status: &AISClusterStatus) {
    let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let stale = status.observed_generation != cluster.metadata.generation;
    let mut state = status.phase.clone().unwrap_or_default();
    state.push_str(if ready { ", Ready" } else { ", not Ready" });
    if stale {
        state.push_str(", the newest spec is not looked at yet");
    }
    row(text, "CLUSTER", &format!("{}/{}: {state}", cluster.namespace().unwrap_or_default(), cluster.name_any()));
    let version = status.version.as_deref().unwrap_or("unknown");
    row(text, "uuid", &format!("{}, version {version}", status.cluster_id.as_deref().unwrap_or("none yet")));
    row(text, "clients", status.endpoint.as_deref().unwrap_or("-"));
    let counts = |role: &ais_crds::RoleStatus| format!("{} ready, {} updated", role.summary, role.updated);
    row(text, "gateways", &counts(&status.gateways));
    row(text, "targets", &counts(&status.targets));
}

fn primary(text: &mut String, cluster: &AISCluster, status: &AISClusterStatus, now: Timestamp) {
    let primary = &status.primary;
    text.push('\n');
    let since = primary.since.as_ref().map(|t| format!(" for {}", age(now, t.0))).unwrap_or_default();
    let epoch = primary.epoch.map(|e| format!(", epoch {e}")).unwrap_or_default();
    match &primary.current {
        Some(current) => row(text, "PRIMARY", &format!("{current}{since}{epoch}")),
        None => row(text, "PRIMARY", "none"),
    }
    let spec = &cluster.spec.primary;
    let policy = match spec.failback {
        Failback::Manual => "failback when asked".to_owned(),
        Failback::Automatic => format!("failback by itself after {} s", spec.stabilization_seconds),
    };
    if spec.preferred.is_empty() {
        row(text, "preferred", "no preference");
    } else {
        row(text, "preferred", &format!("{}; {policy}", spec.preferred.join(", ")));
    }
    if let Some(attempt) = &primary.attempt {
        let begun = age(now, attempt.started_at.0);
        row(text, "moving", &format!("{} -> {} ({}), begun {begun} ago", attempt.from, attempt.to, attempt.reason));
    } else if let Some(waiting) = &primary.waiting {
        let next = primary.next_attempt_time.as_ref().map(|t| format!(", not before {}", t.0)).unwrap_or_default();
        row(text, "waiting", &format!("{waiting}, {} attempts failed{next}", primary.attempts));
    }
    if let Some(last) = &primary.last_transition {
        let when = last.finished_at.as_ref().map(|t| format!(" {} ago", age(now, t.0))).unwrap_or_default();
        let from = if last.from.is_empty() { String::new() } else { format!("{} -> ", last.from) };
        let why = if last.message.is_empty() { String::new() } else { format!(": {}", last.message) };
        row(text, "last", &format!("{} {from}{} {}{when}{why}", last.reason, last.to, last.result));
    }
}

/// A voter that does not acknowledge the reign of now.
fn behind(voter: &VoterStatus, epoch: Option<i64>) -> bool {
    !voter.connected || voter.epoch != epoch
}

fn members(text: &mut String, status: &AISClusterStatus) {
    text.push('\n');
    let voters = &status.electorate;
    let reached = voters.iter().filter(|v| v.connected).count();
    let late: Vec<_> = voters.iter().filter(|v| behind(v, status.primary.epoch)).map(|v| v.pod.as_str()).collect();
    let lag = if late.is_empty() { "nobody behind".to_owned() } else { format!("behind: {}", late.join(", ")) };
    row(text, "VOTERS", &format!("{}, majority {}, {reached} reached; {lag}", voters.len(), majority(voters.len())));
    let map = status.smap.version.map_or_else(|| "no Smap yet".to_owned(), |v| format!("Smap v{v}"));
    row(text, "MEMBERS", &format!("{} nodes hold {map}", status.smap.summary));
    let name = status.nodes.iter().map(|n| n.pod.len()).max().unwrap_or(3).clamp(3, 40);
    let line = |pod: &str, role: &str, ready: &str, vote: &str, note: &str| {
        let pod = cut(pod, name);
        let line = format!("  {pod:<name$} {:<11} {ready:<5} {vote:<10} {note}", cut(role, 11));
        format!("{}\n", cut(line.trim_end(), COLUMNS))
    };
    text.push_str(&line("POD", "ROLE", "READY", "VOTE", "NOTE"));
    let mut nodes: Vec<&NodeStatus> = status.nodes.iter().collect();
    if nodes.len() > NODES_SHOWN {
        nodes.sort_by_key(|n| n.ready && n.in_smap);
    }
    for node in nodes.iter().take(NODES_SHOWN) {
        let voter = voters.iter().find(|v| v.pod == node.pod);
        let vote = voter.map_or("-", |v| if behind(v, status.primary.epoch) { "behind" } else { "yes" });
        let mut note = node.flags.clone();
        if !node.in_smap {
            note.push("not in the Smap".to_owned());
        }
        note.extend(Some(node.reason.clone()).filter(|r| !r.is_empty()));
        let ready = if node.ready { "yes" } else { "no" };
        text.push_str(&line(&node.pod, &node.role, ready, vote, &note.join(", ")));
    }
    if nodes.len() > NODES_SHOWN {
        let rest = &nodes[NODES_SHOWN..];
        let ill = rest.iter().filter(|n| !n.ready || !n.in_smap).count();
        let _ = writeln!(text, "  and {} more, {ill} of them not well", rest.len());
    }
}

/// Conditions that are good when they are not there.
const GOOD_WHEN_FALSE: [&str; 5] = ["Progressing", "Degraded", "RolloutPending", "ScaleDownBlocked", "Paused"];

fn conditions(text: &mut String, status: &AISClusterStatus, now: Timestamp) {
    text.push('\n');
    let good = |kind: &str| if GOOD_WHEN_FALSE.contains(&kind) { "False" } else { "True" };
    let open: Vec<_> = status.conditions.iter().filter(|c| c.status != good(&c.type_)).collect();
    if open.is_empty() {
        row(text, "OPERATOR", "waits for nothing");
        return;
    }
    row(text, "OPERATOR", "not as it should be, and why:");
    for condition in open {
        let since = age(now, condition.last_transition_time.0);
        let head = format!("{}={} {} ({since})", condition.type_, condition.status, condition.reason);
        row(text, "", &head);
        row(text, "", &format!("  {}", condition.message));
    }
}
