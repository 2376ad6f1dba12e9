//! Sockets: two listeners, bounded connections, a graceful end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::gate::{Remote, Wire};
use super::{App, Door, routes};
use crate::config::Config;
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::tls::{HttpDoor, Tls, Wire as Stream};

/// Connections of clients at once; further ones wait in the kernel's queue.
const PUBLIC_MAX: usize = 1024;
/// Connections of members, operator and probes at once.
const CONTROL_MAX: usize = 256;
/// A request's line and headers.
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptors left): there is nothing to wait for but time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For members and the operator.
    pub control: TcpListener,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    /// Which address cannot be bound, and why.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let bind = async |port: u16| {
            let host = config.listen_host.as_str();
            let explained = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {host}:{port}: {e}"));
            TcpListener::bind((host, port)).await.map_err(explained)
        };
        Ok(Self { public: bind(config.public_port).await?, control: bind(config.control_port).await? })
    }
}

/// Both listeners at work.
pub struct Server {
    closing: watch::Sender<bool>,
    connections: TaskTracker,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    /// When the client for calls to members cannot be made.
    pub fn start(
        listeners: Listeners,
        handle: Handle,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let (closing, closed) = watch::channel(false);
        let config_tls = config.tls.clone();
        let app = Arc::new(App::new(handle, config, metrics, closed.clone())?);
        let connections = TaskTracker::new();
        let mut tasks = JoinSet::new();
        let doors = [(Door::Public, listeners.public, PUBLIC_MAX), (Door::Control, listeners.control, CONTROL_MAX)];
        for (door, listener, max) in doors {
            let acceptor = Acceptor {
                listener,
                router: routes(Arc::clone(&app), door),
                tls: config_tls.as_ref().map(Tls::http_door).transpose()?,
                places: Arc::new(Semaphore::new(max)),
                open: app.metrics.http_connections(door.as_str()),
                connections: connections.clone(),
                closed: closed.clone(),
            };
            tasks.spawn(acceptor.run());
        }
        let (keys, level) = (Arc::clone(&app), Arc::clone(&app));
        tasks.spawn(async move { app.note_first_ready().await });
        tasks.spawn(async move { keys.watch_keys().await });
        tasks.spawn(async move { level.follow_log_level().await });
        Ok(Self { closing, connections, tasks })
    }

    /// Closes the listeners, lets requests under way finish for at most `grace`, then ends.
    pub async fn stop(self, grace: Duration) {
        let Self { closing, connections, mut tasks } = self;
        closing.send_replace(true);
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            tracing::warn!("HTTP requests were still under way after {} ms", grace.as_millis());
        }
        tasks.shutdown().await;
    }
}

struct Acceptor {
    listener: TcpListener,
    router: Router,
    tls: Option<HttpDoor>,
    places: Arc<Semaphore>,
    open: prometheus_client::metrics::gauge::Gauge,
    connections: TaskTracker,
    closed: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(self) {
        let mut closed = self.closed.clone();
        loop {
            let (stream, remote, place) = tokio::select! {
                biased;
                () = is_true(&mut closed) => return,
                accepted = self.accept() => accepted,
            };
            self.serve(stream, remote, place);
        }
    }

    async fn accept(&self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, remote)) => return (stream, remote, place),
                Err(e) => {
                    tracing::warn!("accepting a connection failed: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) {
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%remote, "no TCP_NODELAY: {e}");
        }
        let (router, open, mut closed) = (self.router.clone(), self.open.clone(), self.closed.clone());
        let service =
            service_fn(move |request: Request<Incoming>| enter(router.clone(), remote, request.map(Body::new)));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
        let tls = self.tls.clone();
        self.connections.spawn(async move {
            open.inc();
            let stream = match tls {
                None => Ok(Stream::Plain(stream)),
                Some(door) => door.accept(stream, remote).await,
            };
            match stream {
                Ok(stream) => {
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection);
                    let result = tokio::select! {
                        result = connection.as_mut() => result,
                        () = is_true(&mut closed) => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    if let Err(e) = result {
                        tracing::debug!(%remote, "connection ended: {e}");
                    }
                }
                Err(e) => tracing::debug!(%remote, "no TLS connection: {e}"),
            }
            open.dec();
            drop(place);
        });
    }
}

/// Waits for the flag, or for the end of whoever could set it.
pub(super) async fn is_true(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|set| *set).await);
}

/// Hands a request to the routes. AIStore takes paths with a slash at the end as without; names of objects keep theirs.
pub(super) async fn enter(
    router: Router,
    remote: SocketAddr,
    mut request: Request<Body>,
) -> Result<Response, std::convert::Infallible> {
    let wire = request.uri().clone();
    let path = wire.path();
    if path.len() > 1 && path.ends_with('/') && !path.starts_with("/v1/objects/") {
        let query = wire.query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{}{query}", path.trim_end_matches('/')).parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request.extensions_mut().insert(Remote(remote));
    request.extensions_mut().insert(Wire(wire));
    router.oneshot(request).await
}
