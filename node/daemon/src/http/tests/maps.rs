use ais_ha::MemberView;
use expect_test::expect;

use super::*;
use crate::tls::Files;

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

#[tokio::test]
async fn the_smap_has_aistores_shape() {
    let answer = World::gateway().get("/v1/daemon?what=smap").await;
    assert_eq!(answer.header("ais-stamp"), "0.1.2");
    let mut smap = answer.json();
    for (map, id) in [("pmap", "g1"), ("pmap", "g2"), ("pmap", "g3")] {
        assert_eq!(smap[map][id]["flags"], 2, "the primary and two others are IC members");
    }
    assert_eq!(smap["pmap"]["g1"], smap["proxy_si"]);
    smap["pmap"].as_object_mut().unwrap().retain(|id, _| id == "g4");
    expect![[r#"
        {
          "creation_time": "2026-01-01 00:00:00",
          "pmap": {
            "g4": {
              "daemon_id": "g4",
              "daemon_type": "proxy",
              "flags": 1,
              "id_digest": 17287560196953359618,
              "intra_control_net": {
                "daemon_port": "4001",
                "direct_url": "http://127.0.0.1:4001",
                "node_ip_addr": "127.0.0.1"
              },
              "intra_data_net": {
                "daemon_port": "4000",
                "direct_url": "http://127.0.0.1:4000",
                "node_ip_addr": "127.0.0.1"
              },
              "public_net": {
                "daemon_port": "4000",
                "direct_url": "http://127.0.0.1:4000",
                "node_ip_addr": "127.0.0.1"
              }
            }
          },
          "proxy_si": {
            "daemon_id": "g1",
            "daemon_type": "proxy",
            "flags": 2,
            "id_digest": 16272022520376635920,
            "intra_control_net": {
              "daemon_port": "1001",
              "direct_url": "http://127.0.0.1:1001",
              "node_ip_addr": "127.0.0.1"
            },
            "intra_data_net": {
              "daemon_port": "1000",
              "direct_url": "http://127.0.0.1:1000",
              "node_ip_addr": "127.0.0.1"
            },
            "public_net": {
              "daemon_port": "1000",
              "direct_url": "http://127.0.0.1:1000",
              "node_ip_addr": "127.0.0.1"
            }
          },
          "tmap": {
            "t1": {
              "daemon_id": "t1",
              "daemon_type": "target",
              "flags": 0,
              "id_digest": 14214570646889990061,
              "intra_control_net": {
                "daemon_port": "5001",
                "direct_url": "http://127.0.0.1:5001",
                "node_ip_addr": "127.0.0.1"
              },
              "intra_data_net": {
                "daemon_port": "5000",
                "direct_url": "http://127.0.0.1:5000",
                "node_ip_addr": "127.0.0.1"
              },
              "public_net": {
                "daemon_port": "5000",
                "direct_url": "http://127.0.0.1:5000",
                "node_ip_addr": "127.0.0.1"
              }
            }
          },
          "uuid": "kJ8sPq2Lx",
          "version": "5"
        }
    "#]]
    .assert_eq(&pretty(&smap));
}

#[tokio::test]
async fn a_map_without_targets_has_an_empty_tmap() {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    draft.change(&Change::Leave { node: "t1".parse().unwrap() });
    let world = World::new("g1", Kind::Gateway, Some(draft.finish().unwrap().0), None);
    assert!(world.get("/v1/daemon?what=smap").await.body.contains(r#""tmap":{}"#));
}

#[tokio::test]
async fn a_primary_that_left_the_map_is_shown_from_the_electorate() {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    draft.change(&Change::Leave { node: "g1".parse().unwrap() });
    let world = World::gateway();
    let state = Arc::new(draft.finish().unwrap().0);
    world.change(|view| view.published = Some(state)).await;
    let smap = world.get("/v1/daemon?what=smap").await.json();
    assert_eq!(smap["proxy_si"]["public_net"]["direct_url"], "http://127.0.0.1:1000");
    assert!(smap["pmap"].get("g1").is_none());
}

#[tokio::test]
async fn the_bmd_has_aistores_shape() {
    let world = World::gateway();
    assert_eq!(world.get("/v1/daemon?what=bmd").await.json()["providers"], serde_json::json!({"ais": {}}));
    world.call("POST", "/v1/buckets/nnn?namespace=%23ns", CREATE).await;
    world.call("POST", "/v1/buckets/nnn", CREATE).await;
    let mut bmd = world.get("/v1/cluster?what=bmd").await.json();
    for namespace in ["@#", "@#ns"] {
        bmd["providers"]["ais"][namespace]["nnn"]["created"] = "NOW".into();
    }
    expect![[r##"
        {
          "providers": {
            "ais": {
              "@#": {
                "nnn": {
                  "access": "18446744073709551615",
                  "bid": "9223372036854775810",
                  "checksum": {
                    "type": "xxhash"
                  },
                  "created": "NOW",
                  "features": "0",
                  "provider": "ais",
                  "versioning": {
                    "enabled": true
                  }
                }
              },
              "@#ns": {
                "nnn": {
                  "access": "18446744073709551615",
                  "bid": "9223372036854775809",
                  "checksum": {
                    "type": "xxhash"
                  },
                  "created": "NOW",
                  "features": "0",
                  "provider": "ais",
                  "versioning": {
                    "enabled": true
                  }
                }
              }
            }
          },
          "uuid": "kJ8sPq2Lx",
          "version": "2"
        }
    "##]]
    .assert_eq(&pretty(&bmd));
}

#[tokio::test]
async fn other_questions_are_answered_with_what_is_so() {
    let world = World::gateway();
    let snode = world.get("/v1/daemon?what=snode").await.json();
    assert_eq!((&snode["daemon_id"], &snode["flags"]), (&"g2".into(), &2.into()));
    let status = world.get("/v1/daemon?what=node_status").await.json();
    assert_eq!((&status["snode"]["daemon_id"], &status["smap_version"]), (&"g2".into(), &"5".into()));
    assert_eq!(world.get("/v1/daemon?what=software_version").await.body, "0.1.0");
    let everything = world.get("/v1/cluster?what=smapvote").await.json();
    for part in ["smap", "bmd", "rmd", "config", "si"] {
        assert!(everything[part].is_object(), "{part}");
    }
    for what in ["running_all", "status_all"] {
        assert_eq!(world.call("GET", &format!("/v1/cluster?what={what}"), r#"{"kind":""}"#).await.body, "[]\n");
    }
    let config = world.get("/v1/cluster?what=cluster_config").await.json();
    assert_eq!(config["auth"]["signature"]["key"], "**********");
    assert_eq!(config["keepalivetracker"]["proxy"]["interval"], "300ms");
    let config = world.get("/v1/daemon?what=config").await.json();
    assert_eq!((&config["host_net"]["port"], &config["node"]["lease_ms"]), (&"51080".into(), &"2000".into()));
}

#[tokio::test]
async fn the_secret_is_in_no_answer() {
    let world = World::new("g2", Kind::Gateway, Some(genesis()), Some("s3cr3t-s3cr3t-s3cr3t"));
    for path in ["/v1/daemon?what=config", "/v1/cluster?what=cluster_config", "/v1/cluster?what=smapvote"] {
        assert!(!world.get(path).await.body.contains("s3cr3t"), "{path}");
    }
}

#[tokio::test]
async fn health_in_all_its_forms() {
    let primary = World::new("g1", Kind::Gateway, Some(genesis()), None);
    let other = World::gateway();
    let starting = World::new("g2", Kind::Gateway, None, None);
    let status = async |world: &World, query: &str| world.get(&format!("/v1/health{query}")).await.status;
    for (query, at_primary, at_other, at_start) in [
        ("", 200, 200, 200),
        ("?readiness=true", 200, 200, 503),
        ("?readiness=Yes", 200, 200, 503),
        ("?prr=true", 200, 503, 503),
        ("?apr=true", 200, 400, 400),
        ("?cii=true", 200, 200, 200),
        ("?cii-apr=true", 200, 400, 400),
        ("?cii-apr=true&cii=true", 400, 400, 400),
        ("?prr=1&cii=1", 400, 400, 400),
    ] {
        // Nobody listens at the primary's address: another node cannot say that it is ready.
        let found = [status(&primary, query).await, status(&other, query).await, status(&starting, query).await];
        assert_eq!(found, [at_primary, at_other, at_start], "{query}");
    }
    let why = starting.get("/v1/health?readiness=true").await;
    assert_eq!((&why.json()["reason"], why.header("retry-after")), (&"waiting for g2".into(), "1"));
    let alive = primary.get("/v1/health").await;
    assert!(alive.header("ais-node-uptime").parse::<u64>().unwrap() > 0);
    assert_eq!(alive.header("ais-cluster-uptime"), "0");
    primary.app.note_first_ready().await;
    assert!(primary.get("/v1/health").await.header("ais-cluster-uptime").parse::<u64>().unwrap() > 0);
    expect![[r#"
        {"bmd":{"uuid":"kJ8sPq2Lx","version":"0"},"config":{"version":"1"},"etlmd":{"version":"0"},"flags":6,"rmd":{"version":"1"},"smap":{"Primary":{"control_url":"http://127.0.0.1:1001","id":"g1","pub_url":"http://127.0.0.1:1000"},"uuid":"kJ8sPq2Lx","version":"5"}}
    "#]]
    .assert_eq(&primary.get("/v1/health?cii=true").await.body);
}

#[tokio::test]
async fn a_node_in_maintenance_is_not_ready() {
    let world = World::gateway();
    let state = {
        let state = genesis();
        let mut full = state.full();
        let entry = full.entries.iter().position(|(key, _)| key == "smap/node/g2").unwrap();
        let mut node: Node = rmp_serde::from_slice(&full.entries[entry].1).unwrap();
        node.flags = ais_meta::node::flags::MAINTENANCE;
        full.entries[entry].1 = rmp_serde::to_vec_named(&node).unwrap().into();
        let wrong = State::from_full(&full).unwrap_err();
        let ais_meta::state::StateError::Digest { found, .. } = wrong else { panic!("{wrong}") };
        full.digest = found;
        State::from_full(&full).unwrap()
    };
    world.change(|view| view.published = Some(Arc::new(state))).await;
    assert_eq!(world.get("/v1/health?readiness=true").await.json()["reason"], "in maintenance");
    let mut call = request("GET", "/v1/reverse/daemon?what=node_status", "");
    call.headers_mut().insert(NODE_ID, "g2".parse().unwrap());
    assert_eq!(world.send(Door::Public, call).await.json()["status"], "maintenance");
}

#[tokio::test]
async fn a_certificate_that_nobody_accepts_is_the_reason_why_a_node_is_not_ready() {
    let files = Files { cert: "/nonexistent/c".into(), key: "/nonexistent/k".into(), ca: "/nonexistent/a".into() };
    let tls = Tls::new(files, "g1");
    let world = World::with_tls("g1", Kind::Gateway, Some(genesis()), tls);
    assert_eq!(world.get("/v1/health").await.status, 200);
    let answer = world.get("/v1/health?readiness=true").await;
    assert!(
        answer.status == 503 && answer.json()["reason"].as_str().unwrap().contains("cannot be read"),
        "{}",
        answer.body
    );
    let metrics = world.send(Door::Control, request("GET", "/metrics", "")).await.body;
    assert!(metrics.contains("ais_node_tls_problem 1\n"), "{metrics}");
    let smap = world.get("/v1/daemon?what=smap").await.json();
    let url = smap["proxy_si"]["public_net"]["direct_url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://"), "{url}");
    let told = world.get("/v1/daemon?what=tls_certificate").await.json();
    assert!(told["error"].as_str().unwrap().contains("cannot be read"));
}

#[tokio::test]
async fn the_operators_view_is_complete() {
    let world = World::new("g1", Kind::Gateway, Some(genesis()), None);
    let member = MemberView {
        id: voter_id("g4"),
        kind: Kind::Gateway,
        voter: false,
        connected: true,
        acked: None,
        published: Some(ais_meta::Stamp::new(0, 1, 2)),
        heard: None,
    };
    world.change(|view| drop(view.members.insert("g4".parse().unwrap(), member))).await;
    let view = world.send(Door::Control, request("GET", "/v1/ha/view", "")).await;
    expect![[r#"
        {"accepted":{"epoch":1,"incarnation":0,"seq":2},"bmd_version":0,"boot_id":"0000000000000009","bound":false,"cluster_stopping":false,"cluster_uuid":"kJ8sPq2Lx","config_version":1,"credentials":{"secrets":[],"tls":null},"disk_id":"0000000000000007","disk_ok":true,"electorate":[{"disk_id":"0000000000000007","kind":"gateway","node_id":"g1"},{"disk_id":"0000000000000007","kind":"gateway","node_id":"g2"},{"disk_id":"0000000000000007","kind":"gateway","node_id":"g3"}],"epoch":1,"formed":true,"kind":"gateway","members":[{"acked":null,"age_ms":null,"connected":true,"decommission":false,"disk_id":"0000000000000007","in_smap":true,"kind":"gateway","maintenance":false,"node_id":"g4","non_electable":true,"published":{"epoch":1,"incarnation":0,"seq":2},"voter":false}],"node_id":"g1","primary":"g1","primary_since_ms":null,"promised":1,"promised_incarnation":0,"ready":true,"reason":"","role":"primary","run":1,"settings":{},"smap_version":5,"stamp":{"epoch":1,"incarnation":0,"seq":2},"stopping":false,"transaction":null,"version":"0.1.0","voters_max":5}
    "#]]
    .assert_eq(&view.body);
    let early = World::new("g2", Kind::Gateway, None, None);
    let view = early.send(Door::Control, request("GET", "/v1/ha/view", "")).await.json();
    for field in ["cluster_uuid", "stamp", "accepted", "primary"] {
        assert!(view[field].is_null(), "{field}");
    }
    assert_eq!((&view["formed"], &view["reason"]), (&false.into(), &"waiting for g2".into()));
}

#[tokio::test]
async fn metrics_tell_the_view_and_what_was_counted() {
    let world = World::gateway();
    crate::hooks::Hooks::fsync(&*world.app.metrics, Duration::from_millis(3));
    world.get("/v1/daemon?what=smap").await;
    world.get("/v1/zzz").await;
    let text = world.send(Door::Control, request("GET", "/metrics", "")).await.body;
    for line in [
        "ais_node_fsync_seconds_count 1",
        "ais_node_failover_seconds_count 0",
        "ais_node_role{role=\"follower\"} 1",
        "ais_node_role{role=\"primary\"} 0",
        "ais_node_ready 1",
        "ais_node_stamp_seq 2",
        "ais_node_elections_total 0",
        "ais_node_http_requests_total{listener=\"public\",resource=\"daemon\",method=\"GET\",code=\"200\"} 1",
        "ais_node_http_requests_total{listener=\"public\",resource=\"other\",method=\"GET\",code=\"404\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}
