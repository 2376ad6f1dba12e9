//! `/v1/ha/*` and `/metrics`: what operator and scraper ask on the control listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{RoleName, View};
use ais_meta::{Change, NodeId, Stamp};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::stream;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::error::ApiError;
use super::gate::Stream;
use super::mutate::{Call, mutate};
use super::serve::is_true;
use super::{App, done, json as reply, wire};
use crate::keyring::Ring;
use crate::metrics::CONTENT_TYPE;
use crate::tls::{self, Tls};

/// Between comment lines of a stream in which nothing happens.
const ALIVE: Duration = Duration::from_secs(5);

pub(super) async fn view(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let view = app.view();
    reply(&shown(&app, &view), view.published.as_ref().map(|s| s.stamp()))
}

/// The view, with what only holders of a secret are told.
fn shown(app: &App, view: &View) -> Value {
    let mut shown = wire::ha_view(&app.handle, view);
    shown["credentials"] = wire::ha_credentials(&app.config);
    shown
}

pub(super) async fn poke(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.handle.poke();
    reply(&serde_json::json!({}), None)
}

/// `POST /v1/ha/stopping` with `{"stopping":true}`: commits that the whole cluster is being stopped in order, or that it
/// is not after all. Unlike the action `shutdown` it ends nobody: whoever runs the processes does that.
pub(super) async fn stopping(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("the end of the cluster")?;
    let bad = || ApiError::bad(r#"the body is not {"stopping":true} or {"stopping":false}"#);
    let told: Value = serde_json::from_slice(&call.body).map_err(|_| bad())?;
    let stopping = told["stopping"].as_bool().ok_or_else(bad)?;
    tracing::info!(stopping, "told whether the whole cluster is being stopped");
    mutate(&app, &call, Change::Stopping { stopping }, |settled| done(Some(settled.stamp))).await
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    if let Some(tls) = &app.config.tls {
        app.metrics.tls(&tls.now());
    }
    let mut response = Response::new(Body::from(app.metrics.render(&app.view())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// What a stream tells changes of. Ages change all the time and are left out; of an acknowledgement it counts whether it
/// is of the newest State: without that, the last view of a cluster that rests would show its members behind for ever.
#[derive(PartialEq)]
struct Told {
    role: RoleName,
    reason: String,
    stamp: Option<Stamp>,
    primary: Option<NodeId>,
    epoch: u64,
    flags: [bool; 4],
    members: Vec<(NodeId, [bool; 3])>,
}

impl From<&View> for Told {
    fn from(view: &View) -> Self {
        let stamp = view.published.as_ref().map(|s| s.stamp());
        Self {
            role: view.role,
            reason: view.reason.clone(),
            stamp,
            primary: view.primary.as_ref().map(|p| p.id.node.clone()),
            epoch: view.epoch,
            flags: [view.ready, view.stopping, view.disk_ok, view.genesis.is_formed()],
            members: view
                .members
                .iter()
                .map(|(id, m)| (id.clone(), [m.voter, m.connected, m.acked >= stamp]))
                .collect(),
        }
    }
}

/// Changes of the secrets and of the certificates.
struct Credentials {
    secrets: watch::Receiver<Arc<Ring>>,
    tls: Option<watch::Receiver<tls::Now>>,
}

impl Credentials {
    fn of(app: &App) -> Self {
        Self { secrets: app.config.keyring.changes(), tls: app.config.tls.as_ref().map(Tls::changes) }
    }

    async fn changed(&mut self) {
        let tls = async {
            let changed = match &mut self.tls {
                Some(tls) => tls.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                // There is none, or nobody can change it any more.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Ok(()) = self.secrets.changed() => {}
            () = tls => {}
        }
    }
}

struct Watcher {
    app: Arc<App>,
    views: watch::Receiver<Arc<View>>,
    credentials: Credentials,
    closing: watch::Receiver<bool>,
    told: Option<Told>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next piece of the stream; `None` when the node ends.
    async fn next(&mut self) -> Option<String> {
        let alive = tokio::time::sleep(ALIVE);
        tokio::pin!(alive);
        loop {
            let view = Arc::clone(&self.views.borrow_and_update());
            let now = Told::from(&*view);
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now);
                return Some(format!("event: view\ndata: {}\n\n", shown(&self.app, &view)));
            }
            tokio::select! {
                changed = self.views.changed() => changed.ok()?,
                () = self.credentials.changed() => self.told = None,
                () = is_true(&mut self.closing) => return None,
                () = &mut alive => return Some(": alive\n\n".to_owned()),
            }
        }
    }
}

pub(super) async fn watch(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let place = Arc::clone(&app.watchers).try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable("too many streams"))?;
    let (views, closing) = (app.handle.view(), app.closing.clone());
    let credentials = Credentials::of(&app);
    let watcher = Watcher { app, views, credentials, closing, told: None, _place: place };
    let pieces = stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok::<_, Infallible>(piece), watcher))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Stream);
    Ok(response)
}
