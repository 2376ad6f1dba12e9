//! Calls and streams against a daemon of the contract's form, in this process, with faults.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ais_meta::auth::{self, Secret};
use ais_operator::hub::{Hub, Watched};
use ais_operator::perform::{CallError, Caller, Node, TransferOutcome, views};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::any;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How the daemon behaves.
#[derive(Clone, Default)]
struct Script {
    /// Status and body of set-primary; none: never answers.
    transfer: Option<(u16, Value)>,
    /// Answers are signed with another secret.
    forged: bool,
    /// The stream is refused.
    no_stream: bool,
    /// Nothing is ever answered.
    stopped: bool,
    /// View.
    view: Value,
}

struct Daemon {
    script: watch::Sender<Script>,
    node: Node,
    calls: Arc<AtomicUsize>,
}

type Shared = (watch::Receiver<Script>, Arc<AtomicUsize>);

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn check(headers: &HeaderMap, method: &str, path: &str) -> auth::Nonce {
    let secret = Secret::from_file_content(SECRET.as_bytes()).unwrap();
    let header = headers.get(auth::HEADER).unwrap().to_str().unwrap();
    let request = auth::Request { method, path_and_query: path, node: "demo-gateway-0", body: &[] };
    auth::verify(&secret, request, Some(header), now_ms()).unwrap()
}

async fn answer(State((mut script, calls)): State<Shared>, request: Request) -> Response<Body> {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let nonce = check(request.headers(), request.method().as_str(), &path);
    assert_eq!(request.headers()["host"], "demo-gateway-0.example:51082");
    calls.fetch_add(1, Ordering::SeqCst);
    let now = script.borrow().clone();
    if now.stopped {
        std::future::pending::<()>().await;
    }
    if path == "/v1/ha/watch" {
        if now.no_stream {
            return Response::builder().status(404).body(Body::empty()).unwrap();
        }
        let stream = futures::stream::unfold((true, script), |(first, mut script)| async move {
            if !first {
                script.changed().await.ok()?;
            }
            let view = script.borrow_and_update().view.clone();
            // In two pieces and behind a comment: events do not arrive as they were written.
            let text = format!(": alive\n\nevent: view\ndata: {view}\n\n");
            let (a, b) = text.split_at(text.len() / 2);
            let pieces = [a.to_owned(), b.to_owned()].map(|p| Ok::<_, Infallible>(Bytes::from(p)));
            Some((futures::stream::iter(pieces), (false, script)))
        });
        return Response::builder().body(Body::from_stream(stream.flatten())).unwrap();
    }
    let (status, body) = match path.as_str() {
        "/v1/ha/view" => (200, now.view.clone()),
        "/v1/ha/poke" => (200, json!({})),
        _ => match now.transfer {
            Some(reply) => reply,
            None => {
                let _ = script.wait_for(|s| s.transfer.is_some()).await;
                std::future::pending().await
            }
        },
    };
    let body = body.to_string();
    let secret = if now.forged { "ffffffffffffffffffffffffffffffff" } else { SECRET };
    let secret = Secret::from_file_content(secret.as_bytes()).unwrap();
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header(auth::HEADER, auth::sign_reply(&secret, nonce, status, body.as_bytes()))
        .body(Body::from(body))
        .unwrap()
}

async fn daemon(script: Script) -> Daemon {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (script, receiver) = watch::channel(script);
    let calls = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(any(answer)).with_state((receiver, Arc::clone(&calls)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut node = Node::new("127.0.0.1", port, "demo-gateway-0.example");
    node.host = "demo-gateway-0.example:51082".into();
    Daemon { script, node, calls }
}

fn caller() -> Caller {
    Caller::new(Caller::http().unwrap(), SECRET).unwrap()
}

fn view(role: &str, seq: u64) -> Value {
    json!({
        "node_id": "demo-gateway-0", "disk_id": "9f", "boot_id": "b", "run": 3, "kind": "gateway", "version": "0.1.0",
        "cluster_uuid": null, "formed": true, "bound": false, "role": role, "reason": "",
        "stamp": {"incarnation": 0, "epoch": 3, "seq": seq}, "accepted": null, "promised": 3, "primary": null,
        "primary_since_ms": null, "electorate": [], "smap_version": 117, "bmd_version": 3, "config_version": 1,
        "ready": true, "stopping": false,
        "members": [{"node_id": "demo-gateway-0", "disk_id": "9f", "kind": "gateway", "voter": true, "connected": true,
            "acked": null, "published": null, "age_ms": 12, "non_electable": false, "maintenance": false}]
    })
}

async fn transfer(reply: Option<(u16, Value)>, timeout_ms: u64) -> TransferOutcome {
    let daemon = daemon(Script { transfer: reply, ..Script::default() }).await;
    let timeout = Duration::from_millis(timeout_ms);
    caller().transfer(&daemon.node, "demo-gateway-0", "demo-gateway-1", 3, timeout).await
}

#[tokio::test]
async fn each_answer_of_set_primary_has_its_meaning() {
    let ok = json!({"primary": "demo-gateway-1", "epoch": 4, "smap_version": "217"});
    assert_eq!(transfer(Some((200, ok)), 1000).await, TransferOutcome::Answered);
    for status in [404, 409, 412, 422, 501, 503] {
        let body = json!({"message": "because", "status": status});
        let outcome = transfer(Some((status, body)), 1000).await;
        assert_eq!(outcome, TransferOutcome::Refused(format!("because ({status})")));
    }
    for status in [500, 502, 504] {
        assert!(matches!(transfer(Some((status, json!({}))), 1000).await, TransferOutcome::Unknown(_)));
    }
}

#[tokio::test]
async fn a_stopped_successor_costs_the_timeout_and_no_more() {
    let began = Instant::now();
    assert!(matches!(transfer(None, 300).await, TransferOutcome::Unknown(_)));
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_forged_answer_counts_as_none() {
    let script =
        Script { forged: true, view: view("primary", 1), transfer: Some((409, json!({}))), ..Script::default() };
    let daemon = daemon(script).await;
    assert!(matches!(caller().view(&daemon.node).await, Err(CallError::Unauthentic(_))));
    let outcome = caller().transfer(&daemon.node, "a", "b", 1, Duration::from_secs(1)).await;
    assert!(matches!(outcome, TransferOutcome::Unknown(_)));
}

#[tokio::test]
async fn views_are_read_in_parallel_and_bounded() {
    let good = daemon(Script { view: view("follower", 1), ..Script::default() }).await;
    let stopped = daemon(Script { stopped: true, ..Script::default() }).await;
    let dead = Node { address: "127.0.0.1:1".into(), host: "x".into() };
    let nodes = [("a", &good.node), ("b", &stopped.node), ("c", &stopped.node), ("d", &dead)];
    let began = Instant::now();
    let answers = views(&caller(), nodes.map(|(p, n)| (p.to_owned(), n.clone())).to_vec()).await;
    assert!(began.elapsed() < Duration::from_millis(1900));
    assert_eq!(answers.iter().map(|(_, a)| a.is_ok()).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(answers[0].1.as_ref().unwrap().smap_version, 117);
    caller().poke(&good.node).await.unwrap();
}

#[tokio::test]
async fn what_is_no_view_is_an_error() {
    let daemon = daemon(Script { view: json!([1, 2]), ..Script::default() }).await;
    assert!(matches!(caller().view(&daemon.node).await, Err(CallError::Body(_))));
    assert!(Caller::new(Caller::http().unwrap(), "short").is_err());
}

#[tokio::test]
async fn the_stream_brings_each_change() {
    let daemon = daemon(Script { view: view("follower", 1), ..Script::default() }).await;
    let mut stream = caller().watch(&daemon.node).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().role, "follower");
    daemon.script.send_modify(|s| s.view = view("primary", 2));
    assert_eq!(stream.next().await.unwrap().unwrap().role, "primary");
    drop(daemon.script);
    assert!(matches!(stream.next().await, Ok(None) | Err(_)));
}

fn watched(node: &Node, uid: &str) -> Watched {
    Watched { pod: "demo-gateway-0".into(), uid: uid.into(), node: node.clone() }
}

async fn triggered(triggers: &mut (impl futures::Stream + Unpin)) {
    tokio::time::timeout(Duration::from_secs(5), triggers.next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_hub_asks_for_a_pass_at_news_and_not_at_progress() {
    let daemon = daemon(Script { view: view("follower", 1), ..Script::default() }).await;
    let (hub, mut triggers) = Hub::new();
    let key = ("ns".to_owned(), "demo".to_owned());
    hub.sync(&key, SECRET, &caller(), vec![watched(&daemon.node, "1")]);
    let reports = hub.reports(&key, Duration::from_secs(5)).await;
    assert_eq!(reports["demo-gateway-0"].view().unwrap().role, "follower");
    triggered(&mut triggers).await;
    daemon.script.send_modify(|s| s.view = view("follower", 2));
    daemon.script.send_modify(|s| s.view = view("follower", 3));
    assert!(tokio::time::timeout(Duration::from_millis(200), triggers.next()).await.is_err());
    let began = Instant::now();
    daemon.script.send_modify(|s| s.view = view("primary", 4));
    triggered(&mut triggers).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(hub.reports(&key, Duration::ZERO).await["demo-gateway-0"].view().unwrap().role, "primary");
    // The same set of pods starts nothing anew; another pod of that name does.
    let calls = daemon.calls.load(Ordering::SeqCst);
    hub.sync(&key, SECRET, &caller(), vec![watched(&daemon.node, "1")]);
    hub.reports(&key, Duration::from_secs(5)).await;
    assert_eq!(daemon.calls.load(Ordering::SeqCst), calls);
    hub.sync(&key, SECRET, &caller(), vec![watched(&daemon.node, "2")]);
    hub.reports(&key, Duration::from_secs(5)).await;
    assert_eq!(daemon.calls.load(Ordering::SeqCst), calls + 1);
    hub.forget(&key);
    assert!(hub.reports(&key, Duration::ZERO).await.is_empty());
}

#[tokio::test]
async fn without_a_stream_the_hub_polls() {
    let script = Script { view: view("follower", 1), no_stream: true, ..Script::default() };
    let daemon = daemon(script).await;
    let (hub, mut triggers) = Hub::new();
    let key = ("ns".to_owned(), "demo".to_owned());
    hub.sync(&key, SECRET, &caller(), vec![watched(&daemon.node, "1")]);
    triggered(&mut triggers).await;
    daemon.script.send_modify(|s| s.view = view("primary", 2));
    triggered(&mut triggers).await;
    assert_eq!(hub.reports(&key, Duration::ZERO).await["demo-gateway-0"].view().unwrap().role, "primary");
}

#[tokio::test]
async fn a_dead_node_is_lost_and_found_again() {
    let dead = Node { address: "127.0.0.1:1".into(), host: "x".into() };
    let (hub, mut triggers) = Hub::new();
    let key = ("ns".to_owned(), "demo".to_owned());
    hub.sync(&key, SECRET, &caller(), vec![watched(&dead, "1")]);
    triggered(&mut triggers).await;
    assert!(hub.reports(&key, Duration::ZERO).await["demo-gateway-0"].view().is_none());
}
