//! Errors as AIStore's SDK reads them: a status, and a text whose `ais://` names what is missing or there already.

use ais_ha::View;
use ais_meta::{Refusal, Stamp};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::put_stamp;

/// The error body of a HEAD.
pub(super) const HDR_ERROR: HeaderName = HeaderName::from_static("hdr-error");

/// AIStore's shape.
#[derive(Serialize)]
struct ErrorBody<'a> {
    tcode: &'a str,
    message: &'a str,
    method: &'a str,
    url_path: &'a str,
    remote_addr: &'a str,
    caller: &'a str,
    node: &'a str,
    status: u16,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

/// What went wrong, for the client. Becomes a body only at the gate, which knows the request.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    tcode: &'static str,
    pub(super) message: String,
    /// Further fields of the body.
    more: Map<String, Value>,
    stamp: Option<Stamp>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, tcode: "", message: message.into(), more: Map::new(), stamp: None }
    }

    /// 400, AIStore's default.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message).tcode("ErrNotFound")
    }

    /// 501 with the reason.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message).tcode("ErrUnsupp")
    }

    /// 503: asking again makes sense.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: a defect of ours.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503 with the core's reason.
    pub(super) fn not_ready(view: &View) -> Self {
        let reason = if view.reason.is_empty() { "starting" } else { view.reason.as_str() };
        Self::unavailable(format!("not ready: {reason}")).with("reason", json!(reason))
    }

    /// A mutation that the primary looked at and refused.
    pub(super) fn refused(refusal: &Refusal, stamp: Stamp) -> Self {
        let (status, tcode) = match refusal {
            Refusal::BucketExists(_) => (StatusCode::CONFLICT, "ErrBucketAlreadyExists"),
            Refusal::NoSuchBucket(_) => (StatusCode::NOT_FOUND, "ErrBckNotFound"),
            Refusal::NoSuchNode(_) => (StatusCode::NOT_FOUND, "ErrNodeNotFound"),
            Refusal::NodeIdTaken(_) | Refusal::DiskLost { .. } | Refusal::Stale => (StatusCode::CONFLICT, ""),
            Refusal::Busy(_) => (StatusCode::CONFLICT, "ErrBusy"),
            Refusal::Invalid(_) | Refusal::Setting(_) => (StatusCode::BAD_REQUEST, ""),
            Refusal::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, ""),
            Refusal::Outdated => (StatusCode::SERVICE_UNAVAILABLE, ""),
        };
        Self { stamp: Some(stamp), ..Self::new(status, refusal.to_string()).tcode(tcode) }
    }

    pub(super) fn tcode(self, tcode: &'static str) -> Self {
        Self { tcode, ..self }
    }

    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        self.more.insert(field.to_owned(), value);
        self
    }

    pub(super) fn at(self, stamp: Stamp) -> Self {
        Self { stamp: Some(stamp), ..self }
    }

    /// The answer. `message` comes before anything that the client wrote: the SDK takes the first `ais://`.
    pub(super) fn render(&self, method: &Method, path: &str, remote: &str, node: &str) -> Response {
        let body = ErrorBody {
            tcode: self.tcode,
            message: &self.message,
            method: method.as_str(),
            url_path: path,
            remote_addr: remote,
            caller: "",
            node,
            status: self.status.as_u16(),
            more: &self.more,
        };
        let text = escaped(&serde_json::to_string(&body).unwrap_or_default());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if method == Method::HEAD {
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(HDR_ERROR, value);
            }
        } else {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            *response.body_mut() = Body::from(text + "\n");
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // Without it the SDK waits for 0, 6, 12, 24 and 48 seconds.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        put_stamp(&mut response, self.stamp);
        response
    }
}

/// JSON without characters that a header cannot hold.
fn escaped(text: &str) -> String {
    let mut units = [0; 2];
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
        out
    })
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}
