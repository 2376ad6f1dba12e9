use ais_meta::auth::{self, Secret};

use super::*;
use crate::clock;

const SECRET: &str = "0123456789abcdef";

fn signed(method: &str, path: &str, body: &str, nonce: u8) -> Request<Body> {
    signed_for("g2", clock::unix_ms(), method, path, body, nonce)
}

fn signed_for(node: &str, at_ms: u64, method: &str, path: &str, body: &str, nonce: u8) -> Request<Body> {
    let secret = Secret::from_file_content(SECRET.as_bytes()).unwrap();
    let covered = auth::Request { method, path_and_query: path, node, body: body.as_bytes() };
    let mut request = request(method, path, body);
    let value = auth::sign(&secret, covered, at_ms, [nonce; 16]);
    request.headers_mut().insert(auth::HEADER, value.parse().unwrap());
    request
}

#[tokio::test]
async fn the_control_listener_wants_a_signature_but_for_health_and_metrics() {
    let world = World::new("g2", Kind::Gateway, Some(genesis()), Some(SECRET));
    let status = async |request| world.send(Door::Control, request).await.status;
    for path in ["/v1/ha/view", "/v1/daemon?what=smap", "/v1/buckets", "/v1/nonsense"] {
        assert_eq!(status(request("GET", path, "")).await, 401, "{path}");
    }
    for path in ["/v1/health", "/v1/health?readiness=true", "/metrics"] {
        assert_eq!(status(request("GET", path, "")).await, 200, "{path}");
    }
    assert_eq!(status(signed("GET", "/v1/ha/view", "", 1)).await, 200);
    assert_eq!(status(signed("GET", "/v1/ha/view", "", 1)).await, 403, "the same nonce again");
    assert_eq!(status(signed("POST", "/v1/ha/poke/", "", 2)).await, 200, "signed over the path as sent");
    // Commands arrive in order: the poke has arrived when a pull is answered.
    assert!(world.app.handle.pull().await);
    assert_eq!(world.asked(), ["poke", "pull"]);
    let mut other = signed("PUT", "/v1/cluster/proxy/g3", "", 3);
    *other.uri_mut() = "/v1/cluster/proxy/g1".parse().unwrap();
    assert_eq!(status(other).await, 403);
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_signed_change_counts_at_the_node_that_it_is_for_and_in_no_later_process() {
    const END: &str = r#"{"action":"shutdown"}"#;
    let sent = clock::unix_ms();
    let seen = |nonce| signed_for("g2", sent, "PUT", "/v1/daemon", END, nonce);
    let g2 = World::new("g2", Kind::Gateway, Some(genesis()), Some(SECRET));
    let t1 = World::new("t1", Kind::Target, Some(genesis()), Some(SECRET));
    assert_eq!(t1.send(Door::Control, seen(1)).await.status, 403, "it is for another node");
    assert_eq!(g2.send(Door::Control, seen(1)).await.status, 200);
    let for_all = signed_for(auth::ANYBODY, sent, "PUT", "/v1/daemon", END, 2);
    assert_eq!(t1.send(Door::Control, for_all).await.status, 403, "no change is for anybody");
    let question = |nonce| signed_for(auth::ANYBODY, sent, "GET", "/v1/ha/view", "", nonce);
    assert_eq!(t1.send(Door::Control, question(3)).await.status, 200);

    // The process starts again and remembers no nonce.
    // Both clocks are read in whole milliseconds, so a process's beginning is known to one of them.
    const READINGS_MS: u64 = 2;
    while clock::unix_ms() <= sent + auth::START_SLACK_MS + READINGS_MS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let g2 = World::new("g2", Kind::Gateway, Some(genesis()), Some(SECRET));
    let again = g2.send(Door::Control, seen(1)).await;
    assert_eq!(again.status, 403);
    assert!(again.body.contains("before this process began"), "{}", again.body);
    assert_eq!(g2.send(Door::Control, question(4)).await.status, 200, "a question does nothing");
    assert_eq!(g2.send(Door::Control, signed("POST", "/v1/ha/poke", "", 5)).await.status, 200);
}

#[tokio::test]
async fn answers_to_signed_calls_are_signed_errors_too() {
    let world = World::new("g2", Kind::Gateway, Some(genesis()), Some(SECRET));
    let secret = Secret::from_file_content(SECRET.as_bytes()).unwrap();
    for (nonce, path, status) in [(1, "/v1/ha/view", 200), (2, "/v1/daemon?what=nonsense", 400)] {
        let answer = world.send(Door::Control, signed("GET", path, "", nonce)).await;
        assert_eq!(answer.status, status);
        let header = Some(answer.header("ais-auth"));
        auth::verify_reply(&secret, [nonce; 16], status, answer.body.as_bytes(), header).unwrap();
    }
}

#[tokio::test]
async fn the_public_listener_refuses_who_pretends_to_be_a_member() {
    let world = World::gateway();
    let mut request = request("GET", "/v1/daemon?what=smap", "");
    request.headers_mut().insert(CALLER_ID, "g1".parse().unwrap());
    assert_eq!(world.send(Door::Public, request).await.status, 403);
    for path in ["/v1/ha/view", "/v1/ha/watch", "/metrics"] {
        assert_eq!(world.get(path).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn set_primary_maps_every_end_of_a_hand_over() {
    let world = World::gateway();
    let put = async |result: Transferred, path: &str| {
        world.script.lock().unwrap().transferred = Some(result);
        world.call("PUT", path, "").await
    };
    let path = "/v1/cluster/proxy/g3?expected-primary=g1&expected-epoch=3";
    let done = put(Transferred::Done { epoch: 4, smap_version: 217 }, path).await;
    assert_eq!(done.status, 200);
    assert_eq!(done.json(), serde_json::json!({"primary": "g3", "epoch": 4, "smap_version": "217"}));
    assert_eq!(world.asked(), ["g3 Some(g1) Some(3)"]);

    let precondition = Transferred::Precondition { primary: "g2".parse().unwrap(), epoch: 9 };
    let failed = put(precondition, path).await;
    assert_eq!((failed.status, &failed.json()["primary"], &failed.json()["epoch"]), (412, &"g2".into(), &9.into()));
    let ends = [
        (Transferred::UnknownNode, 404, ""),
        (Transferred::Busy("a hand-over runs".to_owned()), 409, ""),
        (Transferred::NotEligible("g4 is non-electable".to_owned()), 422, ""),
        (Transferred::NoPrimary, 503, "1"),
        (Transferred::Unknown, 504, ""),
    ];
    for (end, status, retry) in ends {
        let answer = put(end.clone(), "/v1/cluster/proxy/g3").await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, retry), "{end:?}");
    }
    world.asked();
    for (path, status) in [
        ("/v1/cluster/proxy/g3?frc=true&can=http%3A%2F%2Fx", 501),
        ("/v1/cluster/proxy/g3?expected-epoch=three", 400),
        ("/v1/cluster/proxy/g3?expected-primary=a%20b", 400),
        ("/v1/cluster/proxy/a%20b", 404),
    ] {
        assert_eq!(world.call("PUT", path, "").await.status, status, "{path}");
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_large_body_is_refused_before_and_while_it_is_read() {
    let world = World::gateway();
    let large = "x".repeat(gate::BODY_MAX + 1);
    assert_eq!(world.call("POST", "/v1/buckets/nnn", &large).await.status, 413);
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 65536]));
    let endless = Request::post("/v1/buckets/nnn").body(Body::from_stream(chunks)).unwrap();
    assert_eq!(world.send(Door::Public, endless).await.status, 413);
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let slow = Request::post("/v1/buckets/nnn").body(never).unwrap();
    assert_eq!(world.send(Door::Public, slow).await.status, 408);
}

#[tokio::test]
async fn a_target_takes_no_calls_that_are_for_gateways() {
    let world = World::new("t1", Kind::Target, Some(genesis()), None);
    for (method, path) in [
        ("GET", "/v1/buckets"),
        ("POST", "/v1/buckets/nnn"),
        ("PUT", "/v1/cluster/proxy/g1"),
        ("GET", "/v1/cluster?what=smap"),
        ("GET", "/v1/reverse/daemon?what=snode"),
    ] {
        let answer = world.call(method, path, CREATE).await;
        assert_eq!(answer.status, 400, "{method} {path}");
        assert!(
            answer.body.contains("t[t1] is a target") && answer.body.contains("http://127.0.0.1:2000"),
            "{}",
            answer.body
        );
    }
    for path in ["/v1/health", "/v1/daemon?what=smap", "/v1/daemon?what=bmd", "/v1/daemon?what=snode"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn recovery_is_for_signed_calls_that_confirm_a_stamp() {
    let world = World::new("g2", Kind::Gateway, Some(genesis()), Some(SECRET));
    let path = "/v1/cluster/recover";
    let send = async |body: &str, nonce| world.send(Door::Control, signed("POST", path, body, nonce)).await;
    assert_eq!(world.send(Door::Control, request("POST", path, r#"{"stamp":"0.4.17"}"#)).await.status, 401);
    for (nonce, body) in
        ["", "{}", r#"{"stamp":"0.4"}"#, r#"{"stamp":"0.4.17.1"}"#, r#"{"stamp":7}"#].iter().enumerate()
    {
        assert_eq!(send(body, u8::try_from(nonce).unwrap()).await.status, 400, "{body}");
    }
    assert_eq!(world.asked(), [""; 0]);
    let refused = send(r#"{"stamp":"0.4.17"}"#, 100).await;
    assert_eq!((refused.status, world.asked()), (409, vec!["recover 0.4.17".to_owned()]));
    assert!(refused.body.contains("not a member of a formed cluster"), "{}", refused.body);
}

#[tokio::test]
async fn the_end_of_the_cluster_is_announced_and_ends_nobody() {
    let world = World::gateway();
    let call = |body| world.send(Door::Control, request("POST", "/v1/ha/stopping", body));
    let said = async || {
        let view = world.send(Door::Control, request("GET", "/v1/ha/view", "")).await.json();
        view["cluster_stopping"].clone()
    };
    for stopping in [true, false] {
        assert_eq!(call(if stopping { r#"{"stopping":true}"# } else { r#"{"stopping":false}"# }).await.status, 200);
        assert_eq!(world.asked(), [format!("None Stopping {{ stopping: {stopping} }}")]);
        assert_eq!(said().await, stopping);
    }
    for bad in ["", "{}", r#"{"stopping":"yes"}"#] {
        assert_eq!(call(bad).await.status, 400, "{bad}");
    }
    assert_eq!(world.call("POST", "/v1/ha/stopping", r#"{"stopping":true}"#).await.status, 403, "clients cannot");
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_decommissioned_gateway_serves_nothing_of_the_cluster_that_it_left() {
    let world = World::gateway();
    assert!(world.app.served.set(std::time::Instant::now()).is_ok());
    world.change(|view| view.ready = false).await;
    assert_eq!(world.get("/v1/daemon?what=smap").await.status, 200, "no primary is no reason");
    world.change(|view| (view.role, view.primary) = (RoleName::Stopping, None)).await;
    assert_eq!(world.get("/v1/daemon?what=smap").await.status, 503);
    world.change(|view| view.stopping = true).await;
    assert_eq!(world.get("/v1/daemon?what=smap").await.status, 200, "it only stops");
}
