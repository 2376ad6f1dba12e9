//! What every request passes on its way in and every answer on its way out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ais_meta::auth::{self, AuthError, Nonce, Secret};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::caller::{self, Caller, Wanted};
use super::error::ApiError;
use super::params::Params;
use super::reverse::Relayed;
use super::{App, CALLER_ID, Door};
use crate::clock;
use crate::metrics::HttpLabel;

/// Largest body of a call; objects do not pass here.
pub(super) const BODY_MAX: usize = 1 << 20;
/// Largest answer that is held for signing.
pub(super) const ANSWER_MAX: usize = 16 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 20_000 });

const AUTH: HeaderName = HeaderName::from_static("ais-auth");

/// Where a request came in, and from whom; set by the socket's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) SocketAddr);

/// The URI as it was on the wire, before anything was rewritten: signatures are over it.
#[derive(Clone, Debug)]
pub(super) struct Wire(pub(super) Uri);

/// An answer that never ends: not signed, not timed.
#[derive(Clone, Copy)]
pub(super) struct Stream;

pub(super) struct Gate {
    pub(super) app: Arc<App>,
    pub(super) door: Door,
}

pub(super) async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let remote = request.extensions().get::<Remote>().map(|Remote(at)| at.to_string()).unwrap_or_default();
    let (signer, mut response) = match gate.admit(request).await {
        Ok(Admitted { request, signer, client }) => {
            let response = next.run(request).await;
            let refused = client.filter(|_| method == Method::GET || method == Method::HEAD);
            let refused = refused.and_then(|client| client.still(&gate.app).err());
            (signer, refused.map_or(response, ApiError::into_response))
        }
        Err(error) => (None, error.into_response()),
    };
    if let Some(error) = error_of(&response) {
        if response.status().is_server_error() && response.status() != StatusCode::NOT_IMPLEMENTED {
            tracing::debug!(%method, path, remote, status = response.status().as_u16(), "{}", error.message);
        }
        response = error.render(&method, &path, &remote, &gate.app.name());
    }
    if gate.app.view().stopping || *gate.app.closing.borrow() {
        // The client's next request is better sent to a node that stays.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let streams = response.extensions().get::<Stream>().is_some();
    gate.count(&method, &path, &response, (!streams).then(|| started.elapsed()));
    match signer {
        Some(signer) if !streams => gate.signed(signer, response).await,
        _ => response,
    }
}

/// The error that an answer is: a handler's, or what the framework said of a request before a handler saw it.
fn error_of(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let framework = || {
        let ours = response.extensions().get::<Relayed>().is_none();
        let reason = status.canonical_reason().unwrap_or("error");
        (ours && status.as_u16() >= 400).then(|| ApiError::new(status, format!("{reason}: the request cannot be read")))
    };
    response.extensions().get::<ApiError>().cloned().or_else(framework)
}

/// Paths that carry objects: their bodies are not read here.
fn carries_data(path: &str) -> bool {
    path.starts_with("/v1/objects") || path.starts_with("/s3")
}

/// Calls of the control listener that need no signature: what a kubelet and a scraper ask.
fn is_open(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && (path == "/v1/health" || path == "/metrics")
}

/// A caller by the public listener, and what he was let in by.
struct Client {
    caller: Caller,
    wanted: Wanted,
    /// Those that bring a token.
    headers: HeaderMap,
}

impl Client {
    async fn admit(app: &App, wanted: Wanted, headers: HeaderMap) -> Result<Self, ApiError> {
        Ok(Self { caller: app.caller(wanted, &headers).await?, wanted, headers })
    }

    /// Under the State of now. A change is judged again before it is proposed; what has taken effect is not denied.
    fn still(&self, app: &App) -> Result<(), ApiError> {
        let view = app.view();
        let state = view.published.as_ref().filter(|_| self.wanted != Wanted::Nothing);
        state.map_or(Ok(()), |state| app.still(state, &self.caller, self.wanted, &self.headers))
    }
}

/// A request that may go on to its handler.
struct Admitted {
    request: Request,
    /// What the answer to a signed call is signed with.
    signer: Option<(Nonce, Secret)>,
    client: Option<Client>,
}

impl Gate {
    async fn admit(&self, mut request: Request) -> Result<Admitted, ApiError> {
        if self.door == Door::Control {
            request.extensions_mut().insert(Caller::Member);
            if carries_data(request.uri().path()) {
                return Ok(Admitted { request, signer: None, client: None });
            }
            let (parts, body) = request.into_parts();
            let body = read(body, BODY_MAX).await?;
            let signer = self.verify(&parts, &body)?;
            return Ok(Admitted { request: Request::from_parts(parts, Body::from(body)), signer, client: None });
        }
        if request.headers().contains_key(CALLER_ID) {
            let text = "calls between members are taken on the control listener only";
            return Err(ApiError::new(StatusCode::FORBIDDEN, text));
        }
        let uri = request.uri();
        let params = Params::of(uri).ok();
        let what = params.as_ref().and_then(|params| params.get("what"));
        let wanted = caller::wanted(self.app.kind(), request.method(), uri.path(), what);
        // Before the body: a stranger's is not read.
        let mut client = Client::admit(&self.app, wanted, crate::auth::bearing(request.headers())).await?;
        if !carries_data(request.uri().path()) {
            let (parts, body) = request.into_parts();
            let body = read(body, BODY_MAX).await?;
            request = Request::from_parts(parts, Body::from(body));
            // And after it, which may have taken a while.
            client = Client::admit(&self.app, wanted, client.headers).await?;
        }
        request.extensions_mut().insert(client.caller.clone());
        Ok(Admitted { request, signer: None, client: Some(client) })
    }

    /// Who signed a call of the control listener, if it has to be signed.
    fn verify(&self, parts: &Parts, body: &[u8]) -> Result<Option<(Nonce, Secret)>, ApiError> {
        let secrets = self.app.secrets().filter(|_| !is_open(&parts.method, parts.uri.path()));
        let Some(secrets) = secrets else { return Ok(None) };
        let uri = parts.extensions.get::<Wire>().map_or(&parts.uri, |Wire(uri)| uri);
        let request = auth::Request {
            method: parts.method.as_str(),
            path_and_query: uri.path_and_query().map_or("/", |p| p.as_str()),
            node: self.app.id().as_str(),
            body,
        };
        let to_anybody = auth::Request { node: auth::ANYBODY, ..request };
        let value = parts.headers.get(AUTH).and_then(|v| v.to_str().ok());
        // Read before the clock of the wall: whatever passes between the two makes the process look younger, not older.
        let up_ms = clock::now_ms() - self.app.began_ms;
        let now = clock::unix_ms();
        let verified = match secrets.verify(request, value, now) {
            Err(AuthError::Mismatch) if auth::reads(request.method) => secrets.verify(to_anybody, value, now),
            verified => verified,
        };
        if verified == Err(AuthError::Mismatch) {
            self.app.config.keyring.doubt();
        }
        let admitted = verified.and_then(|(nonce, secret)| {
            // By the clock of now, whatever it said when the process began.
            auth::fresh(request.method, value, now.saturating_sub(up_ms))?;
            let mut replays = self.app.replays.lock().unwrap_or_else(|e| e.into_inner());
            // Who signed with an older secret can check no reply that is signed with another.
            replays.admit(nonce, now).map(|()| (nonce, secret.clone()))
        });
        admitted.map(Some).map_err(unauthorized)
    }

    async fn signed(&self, (nonce, secret): (Nonce, Secret), response: Response) -> Response {
        let (mut parts, body) = response.into_parts();
        let Ok(body) = read(body, ANSWER_MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let value = auth::sign_reply(&secret, nonce, parts.status.as_u16(), &body);
        if let Ok(value) = HeaderValue::from_str(&value) {
            parts.headers.insert(AUTH, value);
        }
        Response::from_parts(parts, Body::from(body))
    }

    fn count(&self, method: &Method, path: &str, response: &Response, took: Option<Duration>) {
        const RESOURCES: [&str; 8] = ["tokens", "health", "daemon", "cluster", "buckets", "objects", "reverse", "ha"];
        const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];
        let named = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let of = |set: &[&'static str], name: &str| set.iter().find(|s| **s == name).copied().unwrap_or("other");
        let label = HttpLabel {
            listener: self.door.as_str(),
            resource: of(&RESOURCES, named),
            method: of(&METHODS, method.as_str()),
            code: response.status().as_u16(),
        };
        self.app.metrics.http(label, took);
    }
}

fn unauthorized(error: AuthError) -> ApiError {
    let status = match error {
        AuthError::Missing | AuthError::Malformed => StatusCode::UNAUTHORIZED,
        AuthError::Stale(_) | AuthError::Mismatch | AuthError::BeforeStart | AuthError::Replayed => {
            StatusCode::FORBIDDEN
        }
        AuthError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    ApiError::new(status, error.to_string())
}

/// The whole body, if it is small enough and comes in time.
async fn read(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"));
    if hyper::body::Body::size_hint(&body).lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(ApiError::bad(format!("the body cannot be read: {e}"))),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}
