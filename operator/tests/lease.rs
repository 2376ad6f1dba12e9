//! An operator whose lease cannot be renewed any more ends before another one may act.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ais_operator::lease::Lease;
use ais_operator::tenure::{Terms, client};
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
    /// Reads are answered, and so is the end of the lease.
    RefusesRenewals,
    /// Something was written between the reading and the writing of who gives the lease up, the first time.
    Conflicts,
    /// Another instance took the lease between the reading and the writing of who gives it up.
    Taken,
    /// The second call about a lease that nobody holds fails.
    Stumbles,
}

/// An API server of which nothing but one lease answers.
struct Api {
    mood: Mood,
    lease: Mutex<Option<Value>>,
    /// Renewals of the lease since it is held.
    renewals: watch::Sender<Option<u32>>,
    /// Calls that the mood is about.
    refused: watch::Sender<u32>,
}

impl Api {
    async fn start(mood: Mood) -> (Arc<Self>, String) {
        let api = Arc::new(Self {
            mood,
            lease: Mutex::default(),
            renewals: watch::Sender::new(None),
            refused: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&api));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (api, url)
    }

    /// Who holds the lease.
    fn holder(&self) -> Option<String> {
        Some(self.lease.lock().unwrap().as_ref()?["spec"]["holderIdentity"].as_str()?.to_owned())
    }

    fn conflicts(&self, body: &[u8]) -> bool {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let first = *self.refused.borrow() == 0 && self.holder().is_some() && sent["spec"]["holderIdentity"].is_null();
        let conflicts = first && sent["spec"]["renewTime"].is_null() && sent["spec"]["leaseTransitions"].is_null();
        self.refused.send_modify(|count| *count += u32::from(conflicts));
        conflicts
    }

    /// Whoever says which version it has read is refused.
    fn taken(&self, body: &[u8]) -> bool {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let frees =
            ["holderIdentity", "renewTime", "leaseTransitions"].iter().all(|field| sent["spec"][field].is_null());
        if !frees || self.holder().is_none() || *self.refused.borrow() > 0 {
            return false;
        }
        self.refused.send_modify(|count| *count += 1);
        merge(self.lease.lock().unwrap().as_mut().unwrap(), &json!({"spec": {"holderIdentity": "two"}}));
        !sent["metadata"]["resourceVersion"].is_null()
    }

    fn stumbles(&self) -> bool {
        let free = self.lease.lock().unwrap().is_some() && self.holder().is_none();
        self.refused.send_modify(|count| *count += u32::from(free));
        free && *self.refused.borrow() == 2
    }

    fn renews(&self, body: &[u8]) -> bool {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let renews = self.renewals.borrow().is_some() && !sent["spec"]["renewTime"].is_null();
        self.refused.send_modify(|count| *count += u32::from(renews));
        renews
    }

    fn take(&self, method: &Method, body: &[u8]) -> Option<Value> {
        let mut lease = self.lease.lock().unwrap();
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if *method == Method::POST {
            sent["metadata"]["resourceVersion"] = json!("1");
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
        Mood::Conflicts if writes && api.conflicts(&body) => status(StatusCode::CONFLICT),
        Mood::Taken if writes && api.taken(&body) => status(StatusCode::CONFLICT),
        Mood::Stumbles if api.stumbles() => status(StatusCode::SERVICE_UNAVAILABLE),
        Mood::RefusesRenewals if api.renews(&body) => status(StatusCode::SERVICE_UNAVAILABLE),
        Mood::Refuses if held => status(StatusCode::SERVICE_UNAVAILABLE),
        _ => api.take(&parts.method, &body).map_or_else(|| status(StatusCode::NOT_FOUND), |v| Json(v).into_response()),
    }
}

fn status(code: StatusCode) -> Response {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "ServiceUnavailable",
    };
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

/// Enough for a pause of the renewals that is longer than an exit may take.
const REFUSED: u32 = 5;

/// Found by a review: the release waited in the growing pauses of failed renewals, and was given up.
#[tokio::test]
async fn a_lease_whose_renewals_failed_is_free_at_the_end_all_the_same() {
    let (api, url) = Api::start(Mood::RefusesRenewals).await;
    let config = kube::Config::new(url.parse().unwrap());
    let client = client(config, &Terms::default()).unwrap();
    let mut lease = Lease::compete(client, "default", "aiscluster-operator", "one").await.unwrap();
    timeout(BOUND, lease.acquired()).await.unwrap().unwrap();
    assert_eq!(api.holder().as_deref(), Some("one"));
    let mut refused = api.refused.subscribe();
    timeout(BOUND, refused.wait_for(|count| *count >= REFUSED)).await.unwrap().unwrap();
    lease.release().await;
    assert_eq!(api.holder(), None);
}

/// Another instance took it over meanwhile: it is not taken away from that one.
#[tokio::test]
async fn a_lease_that_another_holds_stays_its() {
    let (api, url) = Api::start(Mood::Well).await;
    let client = client(kube::Config::new(url.parse().unwrap()), &Terms::default()).unwrap();
    let mut lease = Lease::compete(client, "default", "aiscluster-operator", "one").await.unwrap();
    timeout(BOUND, lease.acquired()).await.unwrap().unwrap();
    merge(api.lease.lock().unwrap().as_mut().unwrap(), &json!({"spec": {"holderIdentity": "two"}}));
    lease.release().await;
    assert_eq!(api.holder().as_deref(), Some("two"));
}

#[tokio::test]
async fn a_lease_that_another_takes_meanwhile_stays_its() {
    let (api, url) = Api::start(Mood::Taken).await;
    let client = client(kube::Config::new(url.parse().unwrap()), &Terms::default()).unwrap();
    let mut lease = Lease::compete(client, "default", "aiscluster-operator", "one").await.unwrap();
    timeout(BOUND, lease.acquired()).await.unwrap().unwrap();
    lease.release().await;
    assert_eq!((*api.refused.borrow(), api.holder().as_deref()), (1, Some("two")));
}

/// Found by reading, when a case on Kubernetes had failed: a renewal under way made the release a conflict.
#[tokio::test]
async fn a_lease_that_was_renewed_while_it_was_given_up_is_free_at_the_end_all_the_same() {
    let (api, url) = Api::start(Mood::Conflicts).await;
    let client = client(kube::Config::new(url.parse().unwrap()), &Terms::default()).unwrap();
    let mut lease = Lease::compete(client, "default", "aiscluster-operator", "one").await.unwrap();
    timeout(BOUND, lease.acquired()).await.unwrap().unwrap();
    lease.release().await;
    assert_eq!((*api.refused.borrow(), api.holder()), (1, None));
}

/// A lease of which another instance gives up an hour, in its way, is taken at once.
async fn taken_when_given_up(mood: Mood, freed: Value) {
    let (api, url) = Api::start(mood).await;
    let now = jiff::Timestamp::now();
    let held = json!({"holderIdentity": "two", "acquireTime": format!("{now:.6}"), "renewTime": format!("{now:.6}"),
        "leaseDurationSeconds": 3600, "leaseTransitions": 1});
    *api.lease.lock().unwrap() = Some(json!({"metadata": {"name": "aiscluster-operator"}, "spec": held}));
    let client = client(kube::Config::new(url.parse().unwrap()), &Terms::default()).unwrap();
    let mut lease = Lease::compete(client, "default", "aiscluster-operator", "one").await.unwrap();
    assert!(timeout(Duration::from_secs(1), lease.acquired()).await.is_err(), "another holds it");
    merge(api.lease.lock().unwrap().as_mut().unwrap(), &json!({"spec": freed}));
    timeout(BOUND, lease.acquired()).await.unwrap().unwrap();
    assert_eq!(api.holder().as_deref(), Some("one"));
}

fn freed() -> Value {
    json!({"holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null})
}

/// Found likewise: whoever waited slept until the end of a lease that had been given up long before.
#[tokio::test]
async fn a_lease_that_was_given_up_is_taken_before_it_would_have_ended() {
    taken_when_given_up(Mood::Well, freed()).await;
}

/// Kubernetes' own programs give up a lease by naming nobody, for a second.
#[tokio::test]
async fn a_lease_that_names_nobody_is_taken_before_it_would_have_ended() {
    taken_when_given_up(Mood::Well, json!({"holderIdentity": "", "leaseDurationSeconds": 1})).await;
}

#[tokio::test]
async fn a_lease_is_taken_although_the_first_call_for_it_failed() {
    taken_when_given_up(Mood::Stumbles, freed()).await;
}
