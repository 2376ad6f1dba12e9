//! The bootstrap table of protocol.md section 5, row by row, and what a disk may bind to. The rows are data.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

use std::fmt::Write as _;

use ais_ha::genesis::{Attempt, Ended, Genesis, Offer, Seen, Start, determine_role, may_bind};
use ais_ha::{Discovery, PrimaryEp};
use ais_meta::{ClusterUuid, DiskId, MemberOptions, NodeId, Stamp, VoterId};
use expect_test::expect_file;

fn voter(name: &str) -> VoterId {
    let (node, disk) = name.split_once('/').unwrap_or((name, "1"));
    VoterId::new(node.parse().unwrap(), DiskId(disk.parse().unwrap()))
}

fn uuid(name: &str) -> ClusterUuid {
    format!("cluster-{name}").parse().unwrap()
}

/// `1:ours:g1:g1,g2,g3`: number, uuid, founder, voters.
fn offer(text: &str) -> Offer {
    let parts: Vec<&str> = text.split(':').collect();
    let mut voters: Vec<VoterId> = parts[3].split(',').map(voter).collect();
    voters.sort();
    Offer { number: parts[0].parse().unwrap(), uuid: uuid(parts[1]), founder: voter(parts[2]), voters }
}

fn record(text: &str) -> Genesis {
    match text.split_once(' ') {
        None if text == "none" => Genesis::Unformed,
        None if text == "set-aside" => Genesis::JoinOnly,
        Some(("formed", of)) => Genesis::Formed(uuid(of)),
        Some(("ended", of)) => {
            let (stamp, options) = (Stamp::new(0, 3, 9), MemberOptions::default());
            Genesis::Ended(Ended { uuid: uuid(of), stamp, options })
        }
        Some(("offered", what)) => Genesis::Offered(offer(what)),
        Some(("bound", what)) => Genesis::Bound(offer(what)),
        _ => panic!("no such record: {text}"),
    }
}

/// `me | uuid | record | seen | discovery`, the first five columns of a row.
fn role(columns: &[&str]) -> String {
    let given = Some(columns[1]).filter(|u| *u != "-").map(uuid);
    let seen = match columns[3] {
        "ours" => Seen { ours: true, foreign: None },
        "foreign" => Seen { ours: false, foreign: Some(uuid("theirs")) },
        "both" => Seen { ours: true, foreign: Some(uuid("theirs")) },
        _ => Seen::default(),
    };
    let mut discovery = Discovery::default();
    for word in columns[4].split_whitespace() {
        match word.split_once('=') {
            Some(("list", list)) => discovery.initial_voters = list.split(',').map(|n| n.parse().unwrap()).collect(),
            Some(("ep", "us")) => discovery.primary_ep = PrimaryEp::Us,
            Some(("ep", "unknown")) => discovery.primary_ep = PrimaryEp::Unknown,
            Some(("ep", peer)) => discovery.primary_ep = PrimaryEp::Peer(peer.parse().unwrap()),
            _ if word == "formed" => discovery.formed = true,
            _ if word == "standalone" => discovery.standalone = true,
            _ => assert_eq!(word, "-"),
        }
    }
    match determine_role(&voter(columns[0]), given.as_ref(), &record(columns[2]), &seen, &discovery) {
        Start::Rejoin => "rejoin".to_owned(),
        Start::Join => "join".to_owned(),
        Start::Found(list) => {
            format!("found with {}", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        Start::GoOn(offer) => format!("go on with offer {}", offer.number),
        Start::Wait(why) => format!("wait: {why}"),
        Start::Refuse(why) => format!("refuse: {why}"),
    }
}

/// `me | uuid | record | offer`.
fn bind(columns: &[&str]) -> String {
    let given = Some(columns[1]).filter(|u| *u != "-").map(uuid);
    match may_bind(&voter(columns[0]), given.as_ref(), &record(columns[2]), &offer(columns[3])) {
        Ok(()) => "bind".to_owned(),
        Err(why) => format!("no: {why}"),
    }
}

fn table(file: &str, inputs: usize, answer: impl Fn(&[&str]) -> String) {
    let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut told = String::new();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        if line.starts_with('#') || line.is_empty() {
            told.push_str(line);
        } else {
            let columns: Vec<&str> = line.split('|').map(str::trim).take(inputs).collect();
            let _ = write!(told, "{} | {}", columns.join(" | "), answer(&columns));
        }
        told.push('\n');
    }
    expect_file![path].assert_eq(&told);
}

#[test]
fn roles_are_as_in_the_table() {
    table("roles.txt", 5, role);
}

#[test]
fn binding_is_as_in_the_table() {
    table("bind.txt", 4, bind);
}

/// `me | record | list | heard` (`name/disk=record; ...`): what the founder offers next.
fn attempt(columns: &[&str]) -> String {
    let list: Vec<NodeId> = columns[2].split(',').map(|n| n.parse().unwrap()).collect();
    let said = |text: &str| {
        let (who, what) = text.trim().split_once('=').unwrap();
        (voter(who).node.clone(), (voter(who), record(what)))
    };
    let heard = columns[3].split(';').filter(|t| t.trim() != "-").map(said).collect();
    let (me, record, uuid) = (voter(columns[0]), record(columns[1]), uuid("ours"));
    match (Attempt { me: &me, record: &record, uuid: &uuid, list: &list, heard: &heard }.offer()) {
        Ok(None) => "go on".to_owned(),
        Ok(Some(offer)) => {
            let disk = |v: &VoterId| format!("{}/{:x}", v.node, v.disk.0);
            format!("offer {} to {}", offer.number, offer.voters.iter().map(disk).collect::<Vec<_>>().join(" "))
        }
        Err(why) => why,
    }
}

#[test]
fn offers_are_as_in_the_table() {
    table("offers.txt", 4, attempt);
}
