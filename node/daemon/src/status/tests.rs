use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::ask::Seen;
use super::judge::troubles;
use super::render;

fn stamp(epoch: u64, seq: u64) -> Value {
    json!({"incarnation": 0, "epoch": epoch, "seq": seq})
}

fn member(id: &str, kind: &str, voter: bool, published: Value, age_ms: u64) -> Value {
    json!({"node_id": id, "kind": kind, "voter": voter, "connected": true, "published": published, "age_ms": age_ms})
}

fn healthy() -> Value {
    json!({
        "node_id": "g1", "cluster_uuid": "kJ8sPq2Lx", "role": "primary", "reason": "", "stamp": stamp(4, 217),
        "epoch": 4, "primary": "g1", "primary_since_ms": 1_000_000, "ready": true, "disk_ok": true,
        "electorate": [{"node_id": "g1"}, {"node_id": "g2"}, {"node_id": "g3"}],
        "smap_version": 117, "bmd_version": 3, "config_version": 2, "transaction": null,
        "members": [
            member("g1", "gateway", true, stamp(4, 217), 0),
            member("g2", "gateway", true, stamp(4, 217), 120),
            member("g3", "gateway", true, stamp(4, 215), 250),
            member("t1", "target", false, stamp(4, 217), 90),
        ],
    })
}

fn shows(view: Value, expected: &Expect) -> bool {
    let seen: Seen = serde_json::from_value(view).unwrap();
    let troubles = troubles(&seen);
    let text = render::text(&seen, &troubles, 8_200_000);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    expected.assert_eq(&text);
    troubles.is_empty()
}

#[test]
fn a_healthy_cluster() {
    let expected = expect![[r#"
        cluster      kJ8sPq2Lx, healthy
        primary      g1, epoch 4, for 2h0m
        state        0.4.217, smap v117, bmd v3, config v2
        electorate   g1 g2 g3 (2 of 3 decide)
        seen by      g1 (primary)

        MEMBER  KIND     VOTER     BEHIND    HEARD  NOTE
        g1      gateway  yes            -      0ms  primary
        g2      gateway  yes            -    120ms
        g3      gateway  yes            2    250ms
        t1      target   -              -     90ms
    "#]];
    assert!(shows(healthy(), &expected));
}

#[test]
fn what_is_not_well_is_said() {
    let mut view = healthy();
    view["members"][1]["connected"] = json!(false);
    view["members"][2]["age_ms"] = json!(2300);
    view["members"][3]["connected"] = json!(false);
    view["members"][3]["maintenance"] = json!(true);
    view["members"][3]["published"] = stamp(3, 200);
    view["transaction"] =
        json!({"action": "start-maintenance", "nodes": ["t1"], "phase": "flags", "rebalance_id": "g3"});
    let expected = expect![[r#"
        cluster      kJ8sPq2Lx, NOT HEALTHY
        primary      g1, epoch 4, for 2h0m
        state        0.4.217, smap v117, bmd v3, config v2
        electorate   g1 g2 g3 (2 of 3 decide)
        transaction  start-maintenance of t1, phase flags, rebalance g3
        seen by      g1 (primary)
        !            voter g2 is not connected
        !            one more voter lost, and nothing can be committed
        !            g3 is slow: not heard for 2300 ms

        MEMBER  KIND     VOTER     BEHIND    HEARD  NOTE
        g1      gateway  yes            -      0ms  primary
        g2      gateway  yes            -    120ms  NOT CONNECTED
        g3      gateway  yes            2     2.3s  SLOW
        t1      target   -          epoch     90ms  NOT CONNECTED, maintenance
    "#]];
    assert!(!shows(view, &expected));
}

#[test]
fn names_of_63_characters_fit_into_80_columns() {
    let mut view = healthy();
    for (i, letter) in ["a", "b", "c"].iter().enumerate() {
        let name = letter.repeat(63);
        view["electorate"][i]["node_id"] = json!(name);
        view["members"][i]["node_id"] = json!(name);
    }
    let name = "a".repeat(63);
    (view["node_id"], view["primary"]) = (json!(name), json!(name));
    view["members"][1]["connected"] = json!(false);
    view["members"][2]["non_electable"] = json!(true);
    view["members"][2]["maintenance"] = json!(true);
    let expected = expect![[r#"
        cluster      kJ8sPq2Lx, NOT HEALTHY
        primary      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,
                     epoch 4, for 2h0m
        state        0.4.217, smap v117, bmd v3, config v2
        electorate   aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
                     bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
                     ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc (2
                     of 3 decide)
        seen by      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
                     (primary)
        !            voter
                     bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb is
                     not connected
        !            one more voter lost, and nothing can be committed

        MEMBER                          KIND     VOTER     BEHIND    HEARD  NOTE
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
                                        gateway  yes            -      0ms  primary
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
                                        gateway  yes            -    120ms  NOT
                                                CONNECTED
        ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
                                        gateway  yes            2    250ms  maintenance,
                                                non-electable
        t1                              target   -              -     90ms
    "#]];
    assert!(!shows(view, &expected));
}

#[test]
fn a_gateway_that_knows_no_primary_tells_what_it_has() {
    let view = json!({
        "node_id": "g2", "cluster_uuid": "kJ8sPq2Lx", "role": "follower", "stamp": stamp(4, 217), "epoch": 4,
        "reason": "no primary: 1 of 3 voters can be reached; waiting for g1, g3", "primary": null, "ready": true,
        "electorate": [{"node_id": "g1"}, {"node_id": "g2"}, {"node_id": "g3"}],
        "smap_version": 117, "bmd_version": 3, "config_version": 2, "members": [], "cluster_stopping": true,
        "something_new": {"x": 1},
    });
    let expected = expect![[r#"
        cluster      kJ8sPq2Lx, NOT HEALTHY
        primary      none
        state        0.4.217, smap v117, bmd v3, config v2
        electorate   g1 g2 g3 (2 of 3 decide)
        seen by      g2 (follower)
        !            nobody leads: changes are held and then refused, reads are answered
                     from what is known
        !            g2 is not ready: no primary: 1 of 3 voters can be reached; waiting
                     for g1, g3
        !            the whole cluster is being shut down
    "#]];
    assert!(!shows(view, &expected));
}

#[test]
fn a_node_without_a_cluster_and_control_characters_do_no_harm() {
    let view =
        json!({"node_id": "g\u{1b}[31m2", "role": "waiting", "reason": "waiting for \ng1", "cluster_uuid": null});
    let expected = expect![[r#"
        cluster      (none), NOT HEALTHY
        primary      none
        state        none, smap v0, bmd v0, config v0
        electorate   none
        seen by      g?[31m2 (waiting)
        !            no cluster is formed
        !            nobody leads: changes are held and then refused, reads are answered
                     from what is known
        !            g?[31m2 is not ready: waiting for ?g1
    "#]];
    assert!(!shows(view, &expected));
}
