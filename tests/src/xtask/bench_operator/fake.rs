//! Nodes of many clusters in one thread: signed views and streams of them, told apart by `Host`.
//!
//! They serve what the operator asks of nodes at rest, and refuse the rest: nobody leads anything here.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ais_meta::auth::{self, Secret};
use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// As often as a real node.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const HEAD_MAX_BYTES: usize = 16 << 10;
const BODY_MAX_BYTES: usize = 64 << 10;
/// Streams of 200 clusters of four nodes, and calls beside them.
const BACKLOG: u32 = 1024;

/// A node.
#[derive(Debug)]
pub(super) struct Member {
    /// What it says of itself, as JSON.
    pub(super) view: String,
    /// Of its cluster.
    pub(super) secret: Secret,
}

type Members = Arc<Mutex<BTreeMap<String, Arc<Member>>>>;

/// All of them, at any address that leads here.
#[derive(Debug)]
pub(super) struct Fakes {
    members: Members,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fakes {
    /// Listens on this interface of the machine only.
    pub(super) fn start(interface: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            let socket = TcpSocket::new_v4()?;
            socket.bind_device(Some(interface.as_bytes())).with_context(|| format!("cannot bind to {interface}"))?;
            socket.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
            socket.listen(BACKLOG)?
        };
        let port = listener.local_addr()?.port();
        let members = Members::default();
        let (stop, mut stopped) = oneshot::channel();
        let shared = members.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        accepted = listener.accept() => {
                            let Ok((stream, _)) = accepted else { continue };
                            let members = shared.clone();
                            // One that breaks off is the operator's to dial again.
                            tokio::spawn(async move { drop(serve(stream, members).await) });
                        }
                    }
                }
            });
        });
        Ok(Self { members, port, stop: Some(stop), thread: Some(thread) })
    }

    /// Where they listen.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// From now on there is a node of this name.
    pub(super) fn add(&self, host: String, member: Member) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(host, Arc::new(member));
    }
}

impl Drop for Fakes {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

struct Call {
    method: String,
    path: String,
    host: String,
    signature: Option<String>,
    body: Vec<u8>,
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// One call after the other, until the caller goes.
async fn serve(mut stream: TcpStream, members: Members) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    while let Some(call) = read(&mut stream, &mut bytes).await? {
        let member = members.lock().unwrap_or_else(PoisonError::into_inner).get(&call.host).cloned();
        let Some(member) = member else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
            continue;
        };
        let nonce = verify(&member, &call).map_err(|error| broken(&error.to_string()))?;
        if (call.method.as_str(), call.path.as_str()) == ("GET", "/v1/ha/watch") {
            return watch(stream, &member).await;
        }
        let (status, body) = match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/v1/ha/view") => (200, member.view.as_str()),
            ("POST", "/v1/ha/poke") => (200, "{}"),
            _ => (501, r#"{"message":"a simulated node does nothing"}"#),
        };
        let signature = auth::sign_reply(&member.secret, nonce, status, body.as_bytes());
        let length = body.len();
        let reply =
            format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n{}: {signature}\r\n\r\n{body}", auth::HEADER);
        stream.write_all(reply.as_bytes()).await?;
    }
    Ok(())
}

fn verify(member: &Member, call: &Call) -> Result<auth::Nonce, auth::AuthError> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let view: serde_json::Value = serde_json::from_str(&member.view).unwrap_or_default();
    let node = view["node_id"].as_str().unwrap_or_default();
    let signature = call.signature.as_deref();
    let request = auth::Request { method: &call.method, path_and_query: &call.path, node, body: &call.body };
    match auth::verify(&member.secret, request, signature, now_ms) {
        Err(auth::AuthError::Mismatch) if auth::reads(&call.method) => {
            let to_anybody = auth::Request { node: auth::ANYBODY, ..request };
            auth::verify(&member.secret, to_anybody, signature, now_ms)
        }
        verified => verified,
    }
}

/// The view, and then a sign of life now and then: nothing ever changes.
async fn watch(mut stream: TcpStream, member: &Member) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}event: view\ndata: {}\n\n", member.view).as_bytes()).await?;
    loop {
        tokio::time::sleep(ALIVE_EVERY).await;
        stream.write_all(b": alive\n\n").await?;
    }
}

/// The next call; `None` when the caller ended the connection.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<Call>> {
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(broken("the head is too long"));
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    };
    let (mut call, length) = parse(&bytes[..head_len]).ok_or_else(|| broken("not a call"))?;
    if length > BODY_MAX_BYTES {
        return Err(broken("the body is too long"));
    }
    while bytes.len() < head_len + length {
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
    call.body = bytes[head_len..head_len + length].to_vec();
    bytes.drain(..head_len + length);
    Ok(Some(call))
}

fn parse(head: &[u8]) -> Option<(Call, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut call = Call { method, path, host: String::new(), signature: None, body: Vec::new() };
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("host") {
            value.rsplit_once(':').map_or(value, |(host, _)| host).clone_into(&mut call.host);
        } else if name.eq_ignore_ascii_case(auth::HEADER) {
            call.signature = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    Some((call, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client;

    #[test]
    fn a_simulated_node_is_asked_as_a_real_one() {
        let fakes = Fakes::start("lo").unwrap();
        let secret = Secret::from_file_content(&[b'x'; 32]).unwrap();
        let view = r#"{"node_id":"a","role":"primary"}"#.to_owned();
        fakes.add("127.0.0.1".to_owned(), Member { view, secret: secret.clone() });
        let address = format!("127.0.0.1:{}", fakes.port());
        assert_eq!(client::view(&address, &secret).unwrap().node_id, "a");
        let other = Secret::from_file_content(&[b'y'; 32]).unwrap();
        assert!(client::view(&address, &other).is_err());
        let reply = client::signed(&address, &secret, "PUT", "/v1/cluster", Duration::from_secs(5)).unwrap();
        assert_eq!(reply.status, 501);
    }
}
