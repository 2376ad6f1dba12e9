//! The text, in 80 columns whatever the names are.

use super::ask::{Member, Seen};
use super::judge::{Lag, is_slow, lag};

const WIDTH: usize = 80;
/// Of the words in front.
const LABEL: usize = 13;
/// Longest name that shares its line.
const NAME_MAX: usize = 30;

pub(super) fn text(seen: &Seen, troubles: &[String], now_ms: u64) -> String {
    let mut out = String::new();
    let verdict = if troubles.is_empty() { "healthy" } else { "NOT HEALTHY" };
    line(&mut out, "cluster", &format!("{}, {verdict}", seen.cluster_uuid.as_deref().unwrap_or("(none)")));
    match &seen.primary {
        Some(primary) => {
            let since = seen.primary_since_ms.map(|at| format!(", for {}", span(now_ms.saturating_sub(at))));
            line(&mut out, "primary", &format!("{primary}, epoch {}{}", seen.epoch, since.unwrap_or_default()));
        }
        None => line(&mut out, "primary", "none"),
    }
    let stamp = seen.stamp.map_or_else(|| "none".to_owned(), |stamp| stamp.to_string());
    let versions = format!("smap v{}, bmd v{}, config v{}", seen.smap_version, seen.bmd_version, seen.config_version);
    line(&mut out, "state", &format!("{stamp}, {versions}"));
    let seats: Vec<&str> = seen.electorate.iter().map(|seat| seat.node_id.as_str()).collect();
    let decide = match seats.len() {
        0 => "none".to_owned(),
        n => format!("{} ({} of {n} decide)", seats.join(" "), n / 2 + 1),
    };
    line(&mut out, "electorate", &decide);
    if let Some(txn) = &seen.transaction {
        let rebalance =
            if txn.rebalance_id.is_empty() { String::new() } else { format!(", rebalance {}", txn.rebalance_id) };
        let what = format!("{} of {}, phase {}{rebalance}", txn.action, txn.nodes.join(" "), txn.phase);
        line(&mut out, "transaction", &what);
    }
    line(&mut out, "seen by", &format!("{} ({})", seen.node_id, seen.role));
    for trouble in troubles {
        line(&mut out, "!", trouble);
    }
    table(&mut out, seen);
    out
}

/// No control characters: names and reasons come from elsewhere.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `label text`, broken between words at the right edge.
fn line(out: &mut String, label: &str, text: &str) {
    wrap(out, &format!("{label:<LABEL$}"), LABEL, &clean(text));
}

fn wrap(out: &mut String, head: &str, indent: usize, text: &str) {
    let mut row = head.to_owned();
    let mut empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !empty && row.chars().count() + 1 + word.chars().count() > WIDTH {
            finish(out, &row);
            row = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            row.push(' ');
        }
        row.push_str(word);
        empty = false;
    }
    finish(out, &row);
}

fn finish(out: &mut String, row: &str) {
    out.push_str(row.trim_end());
    out.push('\n');
}

fn table(out: &mut String, seen: &Seen) {
    if seen.members.is_empty() {
        return;
    }
    let longest = seen.members.iter().map(|m| m.node_id.chars().count()).max().unwrap_or(0);
    let width = longest.clamp("MEMBER".len(), NAME_MAX);
    out.push('\n');
    finish(out, &format!("{:<width$}  {:<7}  {:<5}  {:>9}  {:>7}  NOTE", "MEMBER", "KIND", "VOTER", "BEHIND", "HEARD"));
    for member in &seen.members {
        let mut name = clean(&member.node_id);
        if name.chars().count() > width {
            finish(out, &name);
            name = String::new();
        }
        let behind = match lag(seen.stamp, member) {
            Lag::None => "-".to_owned(),
            Lag::States(n) => n.to_string(),
            Lag::Epoch => "epoch".to_owned(),
            Lag::Unknown => "?".to_owned(),
        };
        let heard = member.age_ms.map_or_else(|| "-".to_owned(), span);
        let voter = if member.voter { "yes" } else { "-" };
        let head = format!("{name:<width$}  {:<7}  {voter:<5}  {behind:>9}  {heard:>7}  ", clean(&member.kind));
        wrap(out, &head, head.chars().count().min(WIDTH / 2), &notes(seen, member));
    }
}

fn notes(seen: &Seen, member: &Member) -> String {
    let is_primary = seen.primary.as_deref() == Some(member.node_id.as_str());
    let all = [
        (is_primary, "primary"),
        (!member.connected, "NOT CONNECTED"),
        (is_slow(member), "SLOW"),
        (member.maintenance, "maintenance"),
        (member.non_electable, "non-electable"),
    ];
    let words: Vec<&str> = all.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    words.join(", ")
}

/// Two units at most.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}
