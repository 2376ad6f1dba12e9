//! Histories made by hand: the good one is accepted, and each bad one is refused for its own reason. A checker that
//! never failed proves nothing.

use super::*;
use crate::client::View;
use crate::history::Sample;

/// A call of ten milliseconds at `at` ms; its stamp is (0, 1, seq).
fn op(at: u64, action: Action, bucket: &str, answer: Answer, seq: u64) -> Op {
    Op {
        action,
        bucket: format!("h-{bucket}"),
        gateway: "g1".into(),
        request: None,
        invoked: Duration::from_millis(at),
        returned: Duration::from_millis(at + 10),
        answer,
        stamp: (seq > 0).then(|| Stamp::new(0, 1, seq)),
        said: String::new(),
    }
}

fn named(op: Op, id: &str, gateway: &str) -> Op {
    Op { request: Some(id.into()), gateway: gateway.into(), ..op }
}

fn history(ops: Vec<Op>, finals: &[&[&str]]) -> History {
    let names = |names: &[&str]| names.iter().map(|name| format!("h-{name}")).collect();
    let finals = finals.iter().enumerate().map(|(i, list)| (format!("n{i}"), names(list))).collect();
    History { ops, finals, prefix: "h-".into(), ..History::default() }
}

fn refused(history: &History, why: &str) {
    let wrong = check(history).expect_err("a bad history was accepted");
    assert!(wrong.iter().any(|text| text.contains(why)), "not refused for '{why}': {wrong:?}");
}

use Action::{Create, Delete, Head, List};
use Answer::{Done, Exists, Failed, Missing, Refused, Unknown};

fn good() -> Vec<Op> {
    vec![
        op(0, Create, "a", Done, 1),
        op(20, Head, "a", Done, 0),
        op(40, Create, "a", Exists, 2),
        named(op(60, Create, "b", Unknown, 0), "b1", "g1"),
        named(op(80, Create, "b", Done, 3), "b1", "g2"),
        op(100, Delete, "b", Done, 4),
        named(op(120, Create, "b", Done, 3), "b1", "g3"),
        op(140, Create, "c", Refused, 0),
        op(160, Create, "d", Unknown, 0),
        op(180, Delete, "b", Missing, 5),
    ]
}

#[test]
fn a_good_history_is_accepted_and_counted() {
    let report = check(&history(good(), &[&["a", "d"], &["a", "d"]])).unwrap();
    assert_eq!((report.done, report.failed_writes, report.repeated, report.epochs), (3, 2, 2, 1));
    assert!(check(&history(good(), &[&["a"], &["a"]])).is_ok(), "unknown may be either");
}

#[test]
fn what_was_answered_is_there_and_what_was_refused_is_not() {
    refused(&history(good(), &[&["a"], &[]]), "h-a is missing on n1");
    refused(&history(good(), &[&["a", "c"], &["a", "c"]]), "h-c is on n0 at the end, but must not be");
    refused(&history(good(), &[&["a", "z"], &["a", "z"]]), "nobody made it");
    refused(&history(good(), &[&["a", "d"], &["a"]]), "different buckets");
    refused(&history(good(), &[]), "no node was asked");
}

#[test]
fn an_id_takes_effect_once() {
    refused(&history(good(), &[&["a", "b"], &["a", "b"]]), "h-b is on n0");
    let mut other_answer = good();
    other_answer[6].answer = Exists;
    refused(&history(other_answer, &[&["a"]]), "request b1 was answered");
    let mut other_stamp = good();
    other_stamp[6].stamp = Some(Stamp::new(0, 1, 2));
    refused(&history(other_stamp, &[&["a"]]), "request b1 was answered");
}

#[test]
fn stamps_follow_real_time() {
    let mut equal = good();
    equal[5].stamp = Some(Stamp::new(0, 1, 3));
    refused(&history(equal, &[&["a"]]), "was answered before it began");
    let mut falling = good();
    falling[4].stamp = Some(Stamp::new(0, 0, 9));
    falling[6].stamp = Some(Stamp::new(0, 0, 9));
    refused(&history(falling, &[&["a"]]), "was answered before it began");
    let mut none = good();
    none[0].stamp = None;
    refused(&history(none, &[&["a"]]), "without a stamp");
    let overlapping = vec![op(0, Create, "a", Done, 7), op(5, Create, "b", Done, 7)];
    assert!(check(&history(overlapping, &[&["a", "b"]])).is_ok(), "one State settled both");
}

#[test]
fn answers_fit_the_buckets_story() {
    let twice = vec![op(0, Create, "a", Done, 1), op(20, Create, "a", Done, 2)];
    refused(&history(twice, &[&["a"]]), "but the bucket was there");
    let never = vec![op(0, Create, "a", Exists, 1)];
    refused(&history(never, &[&["a"]]), "but the bucket was not there");
    let lost = vec![op(0, Create, "a", Done, 1), op(20, Delete, "a", Missing, 2)];
    refused(&history(lost, &[&[]]), "but the bucket was there");
    refused(&history(vec![op(0, Create, "a", Failed(500), 0)], &[&[]]), "was answered 500");
    refused(&history(vec![op(0, Create, "a", Missing, 1)], &[&[]]), "Create of h-a was answered Missing");
}

#[test]
fn a_created_bucket_is_found_through_any_gateway() {
    let unseen = |action| vec![op(0, Create, "a", Done, 1), op(20, action, "a", Missing, 0)];
    refused(&history(unseen(Head), &[&["a"]]), "does not find it");
    refused(&history(unseen(List), &[&["a"]]), "does not find it");
    let mut paused = history(unseen(List), &[&["a"]]);
    paused.slow.insert("g1".into());
    assert!(check(&paused).is_ok(), "the list of a paused gateway may be old");
    paused.ops = unseen(Head);
    refused(&paused, "does not find it");
    let stale = vec![op(0, Create, "a", Done, 1), op(20, Delete, "a", Done, 2), op(40, Head, "a", Done, 0)];
    assert_eq!(check(&history(stale, &[&[]])).map(|report| report.stale_reads), Ok(1));
}

#[test]
fn a_refusal_after_a_lost_call_of_the_same_id_proves_nothing() {
    let ops = vec![named(op(0, Create, "a", Unknown, 0), "x", "g1"), named(op(20, Create, "a", Refused, 0), "x", "g2")];
    assert!(check(&history(ops, &[&["a"]])).is_ok());
}

fn sample(node: &str, role: &str, run: u64, epoch: u64, seq: u64) -> Sample {
    let view = View {
        node_id: node.into(),
        boot_id: format!("{run}"),
        run,
        role: role.into(),
        promised: epoch,
        stamp: Some(Stamp::new(0, epoch, seq)),
        ..View::default()
    };
    Sample { at: Duration::ZERO, view }
}

#[test]
fn an_epoch_has_one_primary_and_nothing_falls() {
    let with = |samples: Vec<Sample>| History { samples, ..history(good(), &[&["a"]]) };
    let fine =
        vec![sample("g1", "primary", 1, 1, 1), sample("g2", "primary", 1, 2, 2), sample("g1", "primary", 1, 1, 1)];
    assert!(check(&with(fine)).is_ok(), "an old primary may believe in its old epoch");
    let two = vec![sample("g1", "primary", 1, 1, 1), sample("g2", "primary", 1, 1, 2)];
    refused(&with(two), "had two primaries");
    let restarted = vec![sample("g1", "primary", 1, 1, 1), sample("g1", "primary", 2, 1, 2)];
    refused(&with(restarted), "had two primaries");
    let back = vec![sample("g1", "follower", 1, 1, 5), sample("g1", "follower", 1, 1, 4)];
    refused(&with(back), "published 0.1.5, then 0.1.4");
    let forgot = vec![sample("g1", "follower", 1, 5, 5), sample("g1", "follower", 1, 4, 5)];
    refused(&with(forgot), "had promised 0.5, then 0.4");
    // Of two incarnations the higher one counts, whatever the epochs.
    let promised = |incarnation, epoch| {
        let mut sample = sample("g1", "follower", 1, 5, 5);
        (sample.view.promised_incarnation, sample.view.promised) = (incarnation, epoch);
        sample
    };
    assert!(check(&with(vec![promised(0, 9), promised(1, 3)])).is_ok(), "a recovered line counts its epochs anew");
    refused(&with(vec![promised(1, 3), promised(0, 9)]), "had promised 1.3, then 0.9");
}
