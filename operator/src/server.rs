//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether this instance competes for the lease. One that waits for it is ready: it is what takes over.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves probes on a port of their own, so that who may scrape is another question than who may probe.
///
/// # Errors
/// If the listener fails.
pub async fn health(listener: TcpListener, ready: Ready, stop: CancellationToken) -> std::io::Result<()> {
    serve(listener, probes(ready)).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Serves metrics. Probes are answered here too: Deployments of charts before 0.2 ask on this port.
///
/// # Errors
/// If the listener fails.
pub async fn metrics(
    listener: TcpListener,
    registry: Registry,
    ready: Ready,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let metrics = Router::new().route("/metrics", get(exposition)).with_state(Arc::new(registry));
    serve(listener, metrics.merge(probes(ready))).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn probes(ready: Ready) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(readyz)).with_state(ready)
}

async fn readyz(State(ready): State<Ready>) -> (StatusCode, &'static str) {
    if ready.0.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the lease could not be read yet")
    }
}

async fn exposition(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}
