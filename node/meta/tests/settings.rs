//! The tables of settings: what each value may be, and what must hold of all together.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use ais_meta::settings::{BUCKET, CLUSTER, Kind, SettingError, Table};
use common::values;
use proptest::prelude::*;
use serde_json::json;

fn canonical(kind: Kind, text: &str) -> String {
    kind.canonical(text).unwrap_or_else(|why| format!("! {why}"))
}

#[test]
fn tables_are_sound() {
    for table in [&BUCKET, &CLUSTER] {
        let names: BTreeSet<_> = table.settings().map(|s| s.name).collect();
        assert_eq!(names.len(), table.settings().count(), "a name is there twice");
        for s in table.settings() {
            assert_eq!(table.check(s.name, s.default).as_deref(), Ok(s.default), "the default of {}", s.name);
            assert!(!s.doc.is_empty() && table.absent.iter().all(|a| a.name != s.name), "{}", s.name);
        }
        table.apply(table.defaults(), &values(&[])).unwrap();
    }
    let inherited = CLUSTER.settings().filter(|s| BUCKET.get(s.name).is_some()).count();
    assert_eq!(inherited, BUCKET.settings().count() - 2, "all but access and features have defaults in the cluster");
}

#[test]
fn durations_are_gos() {
    let any = Kind::Duration { min_ms: 0, max_ms: u64::MAX };
    for (given, said) in [
        ("10s", "10s"),
        ("90s", "1m30s"),
        ("1h0m0s", "1h"),
        ("1.5s", "1.5s"),
        ("1500ms", "1.5s"),
        ("250ms", "250ms"),
        ("1h0.25s", "1h0.25s"),
        ("0", "0s"),
        ("2000000ns", "2ms"),
        ("120m", "2h"),
    ] {
        assert_eq!(canonical(any, given), said, "{given}");
    }
    for wrong in ["", "10", "s", "1x", "-1s", "1ns", "1..5s", ".s", "99999999999999999999999999999999999999999h", "1 s"]
    {
        assert!(any.canonical(wrong).is_err(), "{wrong}");
    }
    let bounded = Kind::Duration { min_ms: 1000, max_ms: 60_000 };
    assert_eq!(canonical(bounded, "2m"), "! expected 1s to 1m");
}

#[test]
fn sizes_flags_words_and_lists() {
    let size = Kind::Size { min: 0, max: 1 << 50 };
    for (given, said) in
        [("64MiB", "64MiB"), ("1024", "1KiB"), ("1.5GiB", "1536MiB"), ("1kb", "1000B"), ("0", "0B"), ("2 GiB", "2GiB")]
    {
        assert_eq!(canonical(size, given), said, "{given}");
    }
    assert!(["", "MiB", "1PiB", "2048TiB", "0.3B", "-1"].iter().all(|wrong| size.canonical(wrong).is_err()));
    let bits = Kind::Bits(0b111);
    assert_eq!(canonical(bits, "0x5"), "5");
    assert_eq!(canonical(bits, &u64::MAX.to_string()), u64::MAX.to_string(), "all of them");
    assert_eq!(canonical(bits, "8"), "! bits 0x8 mean nothing; known are 0x7");
    let list = Kind::List { items: 2, max: 4 };
    assert_eq!(canonical(list, " a, b "), "a,b");
    assert_eq!(canonical(list, r#"["a","b"]"#), "a,b");
    assert!(["a,b,c", "abcde", r#"["a,b"]"#, "a\u{7}"].iter().all(|wrong| list.canonical(wrong).is_err()));
    assert_eq!(canonical(Kind::Enum(&["none", "md5"]), "MD5"), "md5");
    assert!(["true", "YES", "1", "on"].iter().all(|yes| canonical(Kind::Bool, yes) == "true"));
}

#[test]
fn values_look_in_json_as_aistore_has_them() {
    let shown = |table: &Table, name: &str, value: &str| table.get(name).unwrap().kind.json(value);
    assert_eq!(shown(&BUCKET, "mirror.copies", "2"), json!(2));
    assert_eq!(shown(&BUCKET, "mirror.enabled", "true"), json!(true));
    assert_eq!(shown(&BUCKET, "ec.objsize_limit", "-1"), json!(-1));
    assert_eq!(shown(&BUCKET, "access", "18446744073709551615"), json!("18446744073709551615"));
    assert_eq!(shown(&BUCKET, "lru.dont_evict_time", "2h"), json!("2h"));
    assert_eq!(shown(&CLUSTER, "auth.required_claims.aud", "a,b"), json!(["a", "b"]));
    assert_eq!(shown(&CLUSTER, "auth.required_claims.aud", ""), json!([]));
}

#[test]
fn strangers_are_refused_with_the_nearest_name_or_the_reason() {
    let says = |table: &Table, name: &str| table.check(name, "1").unwrap_err().to_string();
    assert_eq!(says(&BUCKET, "mirror.copis"), "unknown bucket property 'mirror.copis'; did you mean 'mirror.copies'?");
    assert_eq!(says(&BUCKET, "copies"), "unknown bucket property 'copies'; did you mean 'mirror.copies'?");
    assert_eq!(says(&BUCKET, "zzzzzz"), "unknown bucket property 'zzzzzz'");
    assert!(says(&BUCKET, "bid").ends_with("cannot be set: it is given when the bucket is made"));
    assert!(says(&BUCKET, "backend_bck.name").contains("no remote backends"));
    assert!(says(&CLUSTER, "auth.client_auth_requird").contains("did you mean 'auth.client_auth_required'?"));
    // Both of AIStore's `log.*`, which is each node's own, and one letter away from ours.
    assert!(says(&CLUSTER, "log.leval").contains("did you mean 'log.level'?"));
    assert!(says(&CLUSTER, "timeout.max_keepalive").contains("ha.*_ms"));
    // Protocol.md has this timer, but only data would wait for it.
    assert!(says(&CLUSTER, "ha.rejoin_grace_ms").ends_with("it waits for nobody with that"));
    assert!(matches!(CLUSTER.check("access", "1"), Err(SettingError::Unknown { .. })), "a bucket's, not the cluster's");
    let long = "x".repeat(10_000);
    assert!(
        says(&BUCKET, &long).len() < 200 && BUCKET.check("mirror.copies", &long).unwrap_err().to_string().len() < 200
    );
}

#[test]
fn what_must_hold_together() {
    let bucket = |pairs: &[(&str, &str)]| BUCKET.apply(BUCKET.defaults(), &values(pairs)).map_err(|e| e.to_string());
    assert!(bucket(&[("mirror.enabled", "true")]).is_ok());
    assert!(bucket(&[("mirror.enabled", "true"), ("mirror.copies", "1")]).unwrap_err().contains("2 or more"));
    assert!(bucket(&[("mirror.enabled", "true"), ("ec.enabled", "true")]).unwrap_err().contains("exclude"));
    assert!(bucket(&[("checksum.type", "none"), ("checksum.validate_warm_get", "on")]).is_err());
    assert!(bucket(&[("versioning.enabled", "0"), ("versioning.synchronize", "on")]).is_err());
    let cluster = |pairs: &[(&str, &str)]| CLUSTER.apply(values(&[]), &values(pairs)).map_err(|e| e.to_string());
    assert!(
        cluster(&[("ha.suspect_ms", "2500")]).unwrap_err().contains("suspect_ms (2500) must be less than lease_ms")
    );
    assert!(cluster(&[("ha.suspect_ms", "2500"), ("ha.lease_ms", "3000")]).is_ok(), "all together, not one by one");
    assert!(cluster(&[("ha.park_ms", "20000")]).is_err());
    let stored = CLUSTER.apply(values(&[("from.the.future", "x")]), &values(&[("log.level", "warn")])).unwrap();
    assert_eq!(stored, values(&[("from.the.future", "x"), ("log.level", "warn")]), "what is not known is kept");
    assert_eq!(CLUSTER.needs_restart(&values(&[("log.level", "warn"), ("ha.drain_ms", "1")])), ["ha.drain_ms"]);
}

fn kinds() -> impl Strategy<Value = Kind> {
    let all: Vec<Kind> = BUCKET.settings().chain(CLUSTER.settings()).map(|s| s.kind).collect();
    prop::sample::select(all)
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{0,22}(\\.[0-9]{0,14})?[a-zA-Zµ]{0,4}",
        "([0-9]{1,6}(\\.[0-9]{1,3})?(h|m|s|ms)){1,4}",
        "[0-9]{1,7}(\\.[05])? ?([KMGT]i?B)?",
        "[a-z,\\[\\]\" ]{0,20}",
        any::<String>(),
    ]
}

proptest! {
    /// One spelling: what is canonical stays as it is. And no text makes reading it panic.
    #[test]
    fn canonical_is_final(kind in kinds(), text in texts()) {
        if let Ok(once) = kind.canonical(&text) {
            prop_assert_eq!(kind.canonical(&once), Ok(once.clone()), "{:?} of {}", kind, text);
            drop(kind.json(&once));
        }
        drop(BUCKET.check(&text, &text));
    }
}
