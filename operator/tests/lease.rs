//! An operator whose lease cannot be renewed any more ends before another one may act.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use common::merge;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Far more than the lease lasts.
const BOUND: Duration = Duration::from_secs(120);

/// How the server takes calls about the lease, once it is held and was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// As on a connection that died in silence.
    Hangs,
    /// As an API server whose store has no majority.
    Refuses,
    /// Reads are answered.
    HangsOnWrites,
}

/// An API server of which nothing but one lease answers.
struct Api {
    mood: Mood,
    lease: Mutex<Option<Value>>,
    /// Renewals of the lease since it is held.
    renewals: watch::Sender<Option<u32>>,
}

impl Api {
    async fn start(mood: Mood) -> (Arc<Self>, String) {
        let api = Arc::new(Self { mood, lease: Mutex::default(), renewals: watch::Sender::new(None) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&api));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (api, url)
    }

    fn take(&self, method: &Method, body: &[u8]) -> Option<Value> {
        let mut lease = self.lease.lock().unwrap();
        let sent = serde_json::from_slice(body).unwrap_or_default();
        if *method == Method::POST {
            *lease = Some(sent);
        } else if *method == Method::PATCH {
            let lease = lease.as_mut()?;
            merge(&mut lease["spec"], &sent["spec"]);
            if lease["spec"]["holderIdentity"] == "one" && !sent["spec"]["renewTime"].is_null() {
                self.renewals.send_modify(|count| *count = Some(count.map_or(0, |c| c + 1)));
            }
        }
        lease.clone()
    }
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let held = api.renewals.borrow().is_some_and(|count| count > 0);
    let writes = parts.method != Method::GET;
    match api.mood {
        _ if !parts.uri.path().contains("/leases") => std::future::pending().await,
        Mood::Hangs if held => std::future::pending().await,
        Mood::HangsOnWrites if held && writes => std::future::pending().await,
        Mood::Refuses if held => status(StatusCode::SERVICE_UNAVAILABLE),
        _ => api.take(&parts.method, &body).map_or_else(|| status(StatusCode::NOT_FOUND), |v| Json(v).into_response()),
    }
}

fn status(code: StatusCode) -> Response {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "ServiceUnavailable" };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "no", "reason": reason, "code": code.as_u16()});
    (code, Json(body)).into_response()
}

fn operator(url: &str, name: &str) -> Child {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "one",
        "clusters": [{"name": "one", "cluster": {"server": url}}],
        "users": [{"name": "one", "user": {}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
    });
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lease-{name}.yaml"));
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ais-operator"));
    let flags = ["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"];
    command.args(["run", "--node-image", "none", "--identity", "one"]).args(flags);
    command.env("KUBECONFIG", path).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// What it said until it ended.
async fn last_words(mood: Mood) -> String {
    let (_api, url) = Api::start(mood).await;
    let ended = timeout(BOUND, operator(&url, &format!("{mood:?}")).wait_with_output()).await;
    let output = ended.unwrap_or_else(|_| panic!("it goes on although the API server {mood:?}")).unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn an_operator_that_cannot_renew_its_lease_ends_and_one_that_can_does_not() {
    let (api, url) = Api::start(Mood::Well).await;
    let mut healthy = operator(&url, "Well");
    let moods = [Mood::Hangs, Mood::Refuses, Mood::HangsOnWrites];
    for (mood, said) in moods.into_iter().zip(futures::future::join_all(moods.map(last_words)).await) {
        assert!(said.contains("holding the lease"), "{mood:?}: {said}");
        assert!(said.contains("the lease was lost"), "{mood:?}: {said}");
    }
    // As many renewals as fill more than the life of the lease.
    let mut renewals = api.renewals.subscribe();
    timeout(BOUND, renewals.wait_for(|count| count.is_some_and(|c| c >= 4))).await.unwrap().unwrap();
    assert!(healthy.try_wait().unwrap().is_none(), "it ended although its lease was renewed");
}
