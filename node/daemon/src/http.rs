//! AIStore's HTTP API for clients (public listener), and the calls of members and of the operator (control listener).
//!
//! | module | what it serves |
//! |---|---|
//! | `gate` | what every request passes: limits, spoof guard, signatures, error bodies, metrics |
//! | `health` | `/v1/health` in all its forms |
//! | `caller` | who calls and what they may: tokens, rights, buckets' masks |
//! | `daemon`, `observe` | `/v1/daemon`: what this node has, and its numbers |
//! | `cluster` | `/v1/cluster`: questions, actions, set-primary, recovery |
//! | `settings`, `members`, `tokens` | configuration, membership, `/v1/tokens` |
//! | `buckets` | `/v1/buckets` |
//! | `mutate` | a mutation from request to answer |
//! | `jobs` | ids of what AIStore does in jobs |
//! | `reverse` | `/v1/reverse/daemon`, and the client for calls to other members |
//! | `ha` | `/v1/ha/*`: view, stream, poke (control listener only) |
//! | `absent` | what is not built, each with the reason |
//! | [`decode`] | doors to the decoders, for the fuzz targets |
//! | [`wire`] | JSON shapes |
//! | `serve` | sockets |
//!
//! Every answer comes from the committed view or from the core; nothing here holds metadata.

mod absent;
mod buckets;
mod caller;
mod cluster;
mod daemon;
pub mod decode;
mod error;
mod gate;
mod ha;
mod health;
mod jobs;
mod members;
mod mutate;
mod observe;
mod params;
mod reverse;
mod serve;
mod settings;
mod tokens;
pub mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ais_ha::{RoleName, View};
use ais_meta::auth::{Replays, Secrets};
use ais_meta::{Address, Kind, NodeId, Stamp, State};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, delete, get, post, put};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::auth::{Authority, Given, Reloaded};
use crate::clock;
use crate::config::Config;
use crate::handle::Handle;
use crate::metrics::Metrics;

use error::ApiError;
pub use serve::{Listeners, Server};

/// The State that an answer was read from, or that settled a mutation: `incarnation.epoch.seq`.
pub const STAMP: HeaderName = HeaderName::from_static("ais-stamp");
/// A client's own id of its mutation, at most 64 characters: the same id takes effect once.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("ais-request-id");
/// Which node a reverse call is for.
pub const NODE_ID: HeaderName = HeaderName::from_static("ais-node-id");
/// Set by members only.
pub const CALLER_ID: HeaderName = HeaderName::from_static("ais-caller-id");

/// How long a call waits for a node that is still starting, as AIStore does.
const START_WAIT: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// Between two looks at the files of keys for tokens.
const KEYS_LOOK: Duration = Duration::from_secs(2);
/// Streams of the view at once.
const WATCHERS_MAX: usize = 64;

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Clients.
    Public,
    /// Members and the operator.
    Control,
}

impl Door {
    fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Control => "control",
        }
    }
}

/// What the handlers share.
pub(crate) struct App {
    handle: Handle,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    client: reqwest::Client,
    authority: Authority,
    replays: Mutex<Replays>,
    started: Instant,
    /// The same moment by [`clock::now_ms`].
    began_ms: u64,
    /// When this process was first ready: from then on it serves what it has, whatever happens to the cluster.
    served: OnceLock<Instant>,
    watchers: Arc<Semaphore>,
    /// True once the listeners close.
    closing: watch::Receiver<bool>,
    in_kubernetes: bool,
}

impl App {
    fn new(
        handle: Handle,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        closing: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            authority: Authority::new(Given::of(&config)),
            client: reverse::client(config.tls.as_ref())?,
            handle,
            config,
            metrics,
            replays: Mutex::default(),
            started: Instant::now(),
            began_ms: clock::now_ms(),
            served: OnceLock::new(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            closing,
            in_kubernetes: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        })
    }

    fn id(&self) -> &NodeId {
        &self.handle.identity().sender.id.node
    }

    fn kind(&self) -> Kind {
        self.handle.identity().kind
    }

    /// AIStore's way to name a node in texts.
    fn name(&self) -> String {
        let letter = if self.kind() == Kind::Gateway { 'p' } else { 't' };
        format!("{letter}[{}]", self.id())
    }

    /// The secrets of now; the first one signs.
    fn secrets(&self) -> Option<Secrets> {
        self.config.keyring.ring().secrets().cloned()
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.handle.view().borrow())
    }

    /// How a member is called.
    fn url(&self, address: &Address) -> String {
        wire::url(address, self.config.scheme())
    }

    /// Remembers the moment when the node is ready for the first time.
    async fn note_first_ready(&self) {
        if self.handle.view().wait_for(|view| view.ready).await.is_ok() {
            self.served.get_or_init(Instant::now);
        }
    }

    /// Takes over keys for tokens when their files change: a rotation needs no restart.
    async fn watch_keys(&self) {
        if !self.authority.has_files() {
            return;
        }
        let mut problem = None;
        let mut look = tokio::time::interval(KEYS_LOOK);
        loop {
            look.tick().await;
            // A small local file; the directory of a Secret is in memory.
            match self.authority.reload() {
                Ok(Reloaded::Same) => problem = None,
                Ok(Reloaded::Changed) => tracing::info!("another key for tokens was read from its file"),
                Err(why) if problem.as_ref() != Some(&why) => {
                    tracing::error!(
                        why,
                        "the file of the key for tokens cannot be used; the last key goes on counting"
                    );
                    problem = Some(why);
                }
                Err(_) => {}
            }
        }
    }

    /// Logs at the level that the cluster's configuration asks for, from now on and whenever it changes. A node that
    /// was given a level of its own keeps it.
    async fn follow_log_level(&self) {
        if self.config.is_given("log_level") {
            return;
        }
        let mut views = self.handle.view();
        loop {
            let level = views.borrow_and_update().published.as_ref().map(|s| s.config().value("log.level").to_owned());
            if let Some(level) = level {
                crate::logging::set_level(&level);
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// The committed State to answer from. Waits for a starting node as AIStore does, then 503 with the reason. A node
    /// that was ready once goes on serving what it published, also without a primary and while it stops.
    async fn state(&self) -> Result<Arc<State>, ApiError> {
        // Decommissioned and idle: what it published last is of a cluster that it left.
        let left = |view: &View| view.role == RoleName::Stopping && !view.stopping;
        let goes_on = |view: &View| self.served.get().is_some() && !left(view);
        let serves = |view: &View| view.published.is_some() && (view.ready || goes_on(view));
        self.wait(serves).await
    }

    /// As [`App::state`], but content with a node that is not in the cluster map (yet, or any more): the core holds
    /// mutations until somebody leads.
    async fn formed(&self) -> Result<Arc<State>, ApiError> {
        self.wait(|view| view.published.is_some()).await
    }

    /// Waits a moment for the State of this stamp.
    async fn catch_up(&self, stamp: Stamp) {
        // Whoever goes on without it learns that again.
        drop(self.wait(|view| view.published.as_ref().is_some_and(|state| state.stamp() >= stamp)).await);
    }

    async fn wait(&self, enough: impl Fn(&View) -> bool) -> Result<Arc<State>, ApiError> {
        let mut views = self.handle.view();
        let found = tokio::time::timeout(START_WAIT, views.wait_for(|view| enough(view))).await;
        let found = found.ok().and_then(Result::ok).and_then(|view| view.published.clone());
        found.ok_or_else(|| ApiError::not_ready(&self.view()))
    }

    fn gateway_only(&self, what: &str) -> Result<(), ApiError> {
        if self.kind() == Kind::Gateway {
            return Ok(());
        }
        let gateways =
            self.view().published.as_ref().map(|s| wire::gateway_urls(s, self.config.scheme())).unwrap_or_default();
        let hint = if gateways.is_empty() { String::new() } else { format!(", such as {}", gateways.join(" or ")) };
        Err(ApiError::bad(format!("{} is a target: send {what} to a gateway{hint}", self.name())))
    }
}

/// The routes that both listeners have.
fn api() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/health", get(health::get).fallback(absent::method))
        .route("/v1/daemon/{*rest}", any(absent::daemon))
        .route("/v1/cluster", get(cluster::get).put(cluster::put).fallback(absent::method))
        .route("/v1/cluster/proxy/{id}", put(cluster::set_primary).fallback(absent::method))
        .route("/v1/cluster/set-config", put(settings::put).fallback(absent::method))
        .route("/v1/cluster/join-by-admin", post(members::join_by_admin).fallback(absent::method))
        .route("/v1/cluster/daemon/{id}", delete(members::remove_self).fallback(absent::method))
        .route("/v1/cluster/{*rest}", any(absent::cluster))
        .route("/v1/tokens", post(tokens::validate).delete(tokens::revoke).fallback(absent::method))
        .route("/v1/reverse/daemon", any(reverse::forward))
        .route("/v1/reverse/{*rest}", any(absent::reverse))
        .route("/v1/buckets", get(buckets::list).fallback(buckets::nameless))
        .route(
            "/v1/buckets/{name}",
            get(buckets::get)
                .head(buckets::head)
                .post(buckets::post)
                .delete(buckets::delete)
                .put(buckets::put)
                .patch(buckets::patch)
                .fallback(absent::method),
        )
        .route("/v1/objects", any(absent::objects))
        .route("/v1/objects/{*rest}", any(absent::objects))
        .fallback(absent::other)
}

fn routes(app: Arc<App>, door: Door) -> Router {
    let api = match door {
        Door::Public => api()
            .route("/v1/daemon", get(daemon::get).fallback(absent::daemon))
            .route("/v1/cluster/recover", any(absent::control_only))
            .route("/v1/ha/{*rest}", any(absent::control_only))
            .route("/metrics", any(absent::control_only)),
        Door::Control => api()
            .route("/v1/daemon", get(daemon::get).put(members::daemon_put).fallback(absent::daemon))
            .route("/v1/daemon/join-by-admin", post(members::introduced).fallback(absent::method))
            .route("/v1/cluster/recover", post(cluster::recover).fallback(absent::method))
            .route("/v1/ha/view", get(ha::view).fallback(absent::method))
            .route("/v1/ha/watch", get(ha::watch).fallback(absent::method))
            .route("/v1/ha/poke", post(ha::poke).fallback(absent::method))
            .route("/v1/ha/stopping", post(ha::stopping).fallback(absent::method))
            .route("/metrics", get(ha::metrics).fallback(absent::method)),
    };
    let gate = Arc::new(gate::Gate { app: Arc::clone(&app), door });
    api.with_state(app).layer(axum::Extension(door)).layer(from_fn_with_state(gate, gate::pass))
}

/// A JSON answer as AIStore writes it: a line, with the stamp of the State that it was read from.
fn json<T: Serialize + ?Sized>(value: &T, stamp: Option<Stamp>) -> Result<Response, ApiError> {
    let mut body = serde_json::to_vec(value).map_err(|e| ApiError::broken(e.to_string()))?;
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    put_stamp(&mut response, stamp);
    Ok(response)
}

/// A plain text answer.
fn text(text: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 200 without a body.
fn done(stamp: Option<Stamp>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    put_stamp(&mut response, stamp);
    response
}

fn put_stamp(response: &mut Response, stamp: Option<Stamp>) {
    if let Some(value) = stamp.and_then(|stamp| HeaderValue::from_str(&stamp.to_string()).ok()) {
        response.headers_mut().insert(STAMP, value);
    }
}
