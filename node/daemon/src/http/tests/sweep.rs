//! Every call of AIStore's control API (http-api.md sections 2, 3): it is built, or says why not. None answers 404, and
//! none answers 200 without having done something.

use super::*;
use crate::auth::tests::{given, signed};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// Answered.
    Built,
    /// 501 with the reason.
    Not,
}
use End::{Built, Not};

/// (listener, method, path, body, end)
pub(super) const TABLE: &[(Door, &str, &str, &str, End)] = {
    use Door::{Control, Public};
    &[
        // 2.1, 2.5: questions
        (Public, "GET", "/v1/daemon?what=smap", "", Built),
        (Public, "GET", "/v1/daemon?what=bmd", "", Built),
        (Public, "GET", "/v1/daemon?what=snode", "", Built),
        (Public, "GET", "/v1/daemon?what=smapvote", "", Built),
        (Public, "GET", "/v1/daemon?what=config", "", Built),
        (Public, "GET", "/v1/daemon?what=node_status", "", Built),
        (Public, "GET", "/v1/daemon?what=node_stats", "", Built),
        (Public, "GET", "/v1/daemon?what=metrics", "", Built),
        (Public, "GET", "/v1/daemon?what=sysinfo", "", Built),
        (Public, "GET", "/v1/daemon?what=log", "", Built),
        (Public, "GET", "/v1/daemon?what=log&all=true", "", Not),
        (Public, "GET", "/v1/daemon?what=software_version", "", Built),
        (Public, "GET", "/v1/daemon?what=tls_certificate", "", Not),
        (Public, "GET", "/v1/cluster?what=smap", "", Built),
        (Public, "GET", "/v1/cluster?what=bmd", "", Built),
        (Public, "GET", "/v1/cluster?what=snode", "", Built),
        (Public, "GET", "/v1/cluster?what=smapvote", "", Built),
        (Public, "GET", "/v1/cluster?what=cluster_config", "", Built),
        (Public, "GET", "/v1/cluster?what=ha", "", Built),
        (Public, "GET", "/v1/cluster?what=status_all", "{}", Built),
        (Public, "GET", "/v1/cluster?what=running_all", "{}", Built),
        (Public, "GET", "/v1/cluster?what=status", r#"{"ID":"mv-0.1.1-1795343243000"}"#, Built),
        (Public, "GET", "/v1/cluster?what=qryxstats", r#"{"ID":"mv-0.1.1-1795343243000"}"#, Built),
        (Public, "GET", "/v1/cluster?what=backends", "", Built),
        (Public, "GET", "/v1/cluster?what=remote", "", Built),
        (Public, "GET", "/v1/cluster?what=target_ips", "", Built),
        (Public, "GET", "/v1/cluster?what=tls_certificate", "", Not),
        // 2.4
        (Public, "GET", "/v1/health", "", Built),
        (Public, "GET", "/v1/health?prr=true", "", Built),
        (Public, "GET", "/v1/health?cii=true", "", Built),
        // 2.6
        (Public, "PUT", "/v1/cluster/set-config?log.level=debug", "", Built),
        (Public, "PUT", "/v1/cluster/set-config?log.level=debug&transient=true", "", Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"set-config","value":{"log":{"level":"warn"}}}"#, Built),
        (Public, "PUT", "/v1/cluster", r#"{"action":"reset-config"}"#, Built),
        // 2.7
        (Public, "PUT", "/v1/cluster/proxy/g3", "", Built),
        (Public, "PUT", "/v1/cluster/proxy/g3?frc=true&can=x", "", Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"rotate-logs"}"#, Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"reset-stats","value":true}"#, Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"reload-creds"}"#, Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"clear-lcache"}"#, Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"start","value":{"Kind":"rebalance"}}"#, Not),
        (Public, "PUT", "/v1/cluster", r#"{"action":"stop","value":{"Kind":"rebalance"}}"#, Not),
        // 2.9: node to node
        (Control, "POST", "/v1/cluster/autoreg", "{}", Not),
        (Control, "POST", "/v1/cluster/keepalive/t1", "", Not),
        (Control, "POST", "/v1/cluster/keepalive", "{}", Not),
        (Control, "PUT", "/v1/metasync", "{}", Not),
        (Control, "POST", "/v1/metasync", "{}", Not),
        (Control, "PUT", "/v1/vote/init", "{}", Not),
        (Control, "GET", "/v1/vote/proxy?can=g1", "{}", Not),
        (Control, "PUT", "/v1/vote/result", "{}", Not),
        (Control, "PUT", "/v1/vote/primary-stopping", "{}", Not),
        (Control, "PUT", "/v1/daemon/proxy/g3?prp=true", "{}", Not),
        (Control, "POST", "/v1/daemon/primary-force?prp=true", "{}", Not),
        (Public, "POST", "/v1/daemon/primary-force?prp=false", "{}", Not),
        (Control, "POST", "/v1/txn/create-bck/begin", "{}", Not),
        (Control, "POST", "/v1/notifs/progress", "{}", Not),
        (Control, "POST", "/v1/notifs/finished", "{}", Not),
        (Control, "GET", "/v1/ic", "", Not),
        (Control, "GET", "/v1/xactions", "", Not),
        (Control, "PUT", "/v1/daemon", r#"{"action":"reset-config"}"#, Not),
        (Public, "PUT", "/v1/daemon", r#"{"action":"shutdown"}"#, Not),
        // 3
        (Public, "POST", "/v1/buckets/nnn", CREATE, Built),
        (Public, "HEAD", "/v1/buckets/nnn", "", Built),
        (Public, "GET", "/v1/buckets", LIST, Built),
        (
            Public,
            "PATCH",
            "/v1/buckets/nnn",
            r#"{"action":"set-bprops","value":{"versioning":{"enabled":false}}}"#,
            Built,
        ),
        (Public, "PATCH", "/v1/buckets/nnn", r#"{"action":"reset-bprops"}"#, Built),
        (Public, "PATCH", "/v1/buckets/nnn?force=true", r#"{"action":"reset-bprops"}"#, Not),
        (Public, "GET", "/v1/buckets/nnn", LIST, Not),
        (Public, "GET", "/v1/buckets/nnn", r#"{"action":"summary-bck","value":{"uuid":""}}"#, Not),
        (Public, "HEAD", "/v1/buckets/nnn?presence=0&bsumm_remote=True", "", Not),
        (Public, "POST", "/v1/buckets/nnn?bck_to=ais/@%23/c/", r#"{"action":"copy-bck","value":{}}"#, Not),
        (Public, "POST", "/v1/buckets/nnn", r#"{"action":"copy-listrange","value":{}}"#, Not),
        (Public, "POST", "/v1/buckets/nnn", r#"{"action":"prefetch-listrange","value":{}}"#, Not),
        (Public, "POST", "/v1/buckets/nnn?bck_to=ais/@%23/c/", r#"{"action":"etl-bck","value":{}}"#, Not),
        (Public, "PUT", "/v1/buckets/nnn", r#"{"action":"archive","value":{}}"#, Not),
        (Public, "DELETE", "/v1/buckets/nnn", r#"{"action":"delete-listrange","value":{}}"#, Not),
        (Public, "DELETE", "/v1/buckets/nnn", r#"{"action":"evict-listrange","value":{}}"#, Not),
        (Public, "DELETE", "/v1/buckets/nnn", r#"{"action":"evict-remote-bck"}"#, Not),
        (Public, "PATCH", "/v1/buckets/nnn", r#"{"action":"make-n-copies","value":2}"#, Not),
        (Public, "POST", "/v1/buckets/nnn?bck_to=ais/@%23/moved/", r#"{"action":"move-bck"}"#, Built),
        (Public, "DELETE", "/v1/buckets/moved", DESTROY, Built),
        (Public, "GET", "/v1/objects/nnn/a", "", Not),
        (Public, "PUT", "/v1/objects/nnn/a", "x", Not),
        (Public, "HEAD", "/v1/objects/nnn/a", "", Not),
        (Public, "DELETE", "/v1/objects/nnn/a", "", Not),
        (Public, "PATCH", "/v1/objects/nnn/a", "{}", Not),
        (Public, "POST", "/v1/objects/nnn", r#"{"action":"promote"}"#, Not),
        (Public, "GET", "/v1/etl", "", Not),
        (Public, "GET", "/v1/sort", "", Not),
        (Public, "GET", "/v1/download", "", Not),
        (Public, "GET", "/s3", "", Not),
        // 2.8, and what ends things
        (Public, "PUT", "/v1/cluster", r#"{"action":"start-maintenance","value":{"sid":"t1"}}"#, Built),
        (Control, "POST", "/v1/daemon/join-by-admin", r#"{"node_id":"g1","peer":{"host":"h","port":1}}"#, Built),
        (Public, "PUT", "/v1/cluster", r#"{"action":"shutdown"}"#, Built),
        (Control, "PUT", "/v1/daemon", r#"{"action":"shutdown"}"#, Built),
        (Public, "PUT", "/v1/cluster", r#"{"action":"decommission"}"#, Built),
    ]
};

#[tokio::test]
async fn every_call_of_the_control_api_is_built_or_says_why_not() {
    let world = World::new("g1", Kind::Gateway, Some(genesis()), None);
    world.script.lock().unwrap().transferred = Some(Transferred::Done { epoch: 2, smap_version: 100 });
    for (door, method, path, body, end) in TABLE {
        let answer = world.send(*door, request(method, path, body)).await;
        let call = format!("{method} {path} {body}");
        match end {
            Built => assert_eq!(answer.status, 200, "{call}: {}", answer.body),
            Not => {
                assert_eq!(answer.status, 501, "{call}: {}", answer.body);
                let told = if *method == "HEAD" { answer.header("hdr-error").to_owned() } else { answer.body };
                let told: Value = serde_json::from_str(&told).unwrap();
                assert!(told["message"].as_str().is_some_and(|m| m.len() > 20), "{call}: no reason in {told}");
            }
        }
    }
}

#[tokio::test]
async fn who_has_no_token_gets_nothing_and_who_has_no_rights_changes_nothing() {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    draft
        .change(&Change::SetConfig { set: [("auth.client_auth_required".into(), "true".into())].into(), reset: false });
    draft.change(&Change::CreateBucket { name: "nnn".parse().unwrap(), created_ns: 1, props: BTreeMap::new() });
    let world = World::with_keys("g1", Kind::Gateway, Some(draft.finish().unwrap().0), None, given());
    let nobody = signed(&serde_json::json!({"sub": "nobody", "exp": 4_102_444_800u64}));
    for (door, method, path, body, _) in TABLE {
        if *door != Door::Public || path.starts_with("/v1/health") {
            continue;
        }
        let call = format!("{method} {path} {body}");
        let answer = world.send(*door, request(method, path, body)).await;
        assert_eq!(answer.status, 401, "{call}: {}", answer.body);
        let mut with_token = request(method, path, body);
        with_token.headers_mut().insert("authorization", format!("Bearer {nobody}").parse().unwrap());
        let answer = world.send(*door, with_token).await;
        // Of a job that whoever asks may have started, AIStore tells everybody who has a token.
        let harmless = path.contains("what=status") && !path.contains("what=status_all");
        assert!(answer.status >= 400 || harmless, "{call}: {}", answer.status);
    }
    assert!(world.asked().iter().all(|asked| asked == "pull"), "nothing was proposed");
}
