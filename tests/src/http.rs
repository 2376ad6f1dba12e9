//! A blocking HTTP/1.1 client of one call a connection.
//!
//! The drills must tell a call that never left from one whose answer was lost, and must not be helped by a pool that
//! quietly sends again. So the harness has its own few lines instead of a client library.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Begins addresses that are called by TLS.
const HTTPS: &str = "https://";

/// Largest head of a reply.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Largest body of a reply.
const BODY_MAX_BYTES: usize = 64 << 20;
/// A connect to a process on this machine or in its cluster takes less, or never succeeds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What to ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call<'a> {
    /// `GET`, `PUT`, ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// More headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Empty when there is none.
    pub body: &'a [u8],
}

/// What was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection was made: the call had no effect.
    NotSent(io::Error),
    /// It may have been carried out.
    Lost(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(error) => write!(f, "no connection: {error}"),
            Self::Lost(error) => write!(f, "no answer: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Makes one call to `address` (`host:port`, `https://host:port`, or `https://NAME@host:port` for what proves to be NAME)
/// and waits at most `timeout` for the whole answer.
pub fn call(address: &str, call: Call<'_>, timeout: Duration) -> Result<Reply, Failure> {
    let end = Instant::now() + timeout;
    let (address, tls) = address.strip_prefix(HTTPS).map_or((address, false), |rest| (rest, true));
    let (name, address) = address.split_once('@').map_or((None, address), |(name, rest)| (Some(name), rest));
    let target = resolve(address).map_err(Failure::NotSent)?;
    let tcp = TcpStream::connect_timeout(&target, timeout.min(CONNECT_TIMEOUT)).map_err(Failure::NotSent)?;
    let mut stream = Stream { tcp, tls: None };
    if tls {
        // Nothing of the call leaves before the other side has proven who it is.
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        stream.encrypt(name.unwrap_or(host), end).map_err(Failure::NotSent)?;
    }
    exchange(&mut stream, address, call, end).map_err(Failure::Lost)
}

/// The authorities that calls trust: of every cluster that this process made.
static TRUSTED: RwLock<Vec<CertificateDer<'static>>> = RwLock::new(Vec::new());

/// Trusts the authorities in a file from now on.
pub fn trust(ca: &Path) -> anyhow::Result<()> {
    trust_pem(&std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?)
}

/// Trusts the authorities in a text from now on.
pub fn trust_pem(text: &[u8]) -> anyhow::Result<()> {
    let mut trusted = TRUSTED.write().unwrap_or_else(PoisonError::into_inner);
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate?;
        if !trusted.contains(&certificate) {
            trusted.push(certificate);
        }
    }
    Ok(())
}

fn trusting() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let trusted = TRUSTED.read().unwrap_or_else(PoisonError::into_inner);
    roots.add_parsable_certificates(trusted.iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A connection, plain or encrypted.
struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    fn encrypt(&mut self, name: &str, end: Instant) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(trusting()?, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            self.tcp.set_read_timeout(Some(left(end)?))?;
            match tls.complete_io(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).read(buf),
            None => self.tcp.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).write(buf),
            None => self.tcp.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).flush(),
            None => self.tcp.flush(),
        }
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut found = address.to_socket_addrs()?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")))
}

fn exchange(stream: &mut Stream, address: &str, call: Call<'_>, end: Instant) -> io::Result<Reply> {
    stream.tcp.set_nodelay(true)?;
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n", call.method, call.target);
    for (name, value) in call.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !call.body.is_empty() || call.method == "POST" || call.method == "PUT" {
        text.push_str(&format!("Content-Length: {}\r\n", call.body.len()));
        if !call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            text.push_str("Content-Type: application/json\r\n");
        }
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(call.body);
    stream.tcp.set_write_timeout(Some(left(end)?))?;
    stream.write_all(&bytes)?;
    stream.flush()?;
    read_reply(stream, call.method == "HEAD", end)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "time is over")) } else { Ok(left) }
}

/// Reads more; `false` at the end of the stream.
fn more(stream: &mut Stream, into: &mut Vec<u8>, end: Instant) -> io::Result<bool> {
    let mut chunk = [0u8; 16 << 10];
    loop {
        stream.tcp.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut chunk) {
            Ok(got) => {
                into.extend_from_slice(&chunk[..got]);
                return Ok(got > 0);
            }
            // A read with a time limit is not taken up again by the system after a signal, SIGCHLD for instance.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn read_reply(stream: &mut Stream, bodiless: bool, end: Instant) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(bad("the head of the reply is too long"));
        }
        if !more(stream, &mut bytes, end)? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before an answer"));
        }
    };
    let mut reply = parse_head(&bytes[..head_len])?;
    let mut body = bytes.split_off(head_len);
    if bodiless || reply.status == 204 || reply.status == 304 {
        return Ok(reply);
    }
    let length = reply.header("content-length").and_then(|v| v.parse::<usize>().ok());
    let chunked = reply.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    loop {
        if length.is_some_and(|length| body.len() >= length) || (chunked && body.ends_with(b"0\r\n\r\n")) {
            break;
        }
        if body.len() > BODY_MAX_BYTES {
            return Err(bad("the body of the reply is too long"));
        }
        if !more(stream, &mut body, end)? {
            break;
        }
    }
    reply.body = match length {
        Some(length) if body.len() < length => {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within an answer"));
        }
        Some(length) => body[..length].to_vec(),
        None if chunked => dechunk(&body).ok_or_else(|| bad("bad chunks"))?,
        None => body,
    };
    Ok(reply)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse_head(head: &[u8]) -> io::Result<Reply> {
    let text = std::str::from_utf8(head).map_err(|_| bad("the head of the reply is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| bad("not an HTTP/1.1 reply"))?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok(Reply { status, headers: headers.collect(), body: Vec::new() })
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let at = find(bytes, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..at]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let rest = &bytes[at + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        bytes = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answer(bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while find(&asked, b"\r\n\r\n").is_none() {
                let mut chunk = [0u8; 1024];
                let got = stream.read(&mut chunk).unwrap();
                asked.extend_from_slice(&chunk[..got]);
            }
            stream.write_all(bytes).unwrap();
        });
        address
    }

    fn get(address: &str) -> Result<Reply, Failure> {
        call(address, Call { method: "GET", target: "/", ..Call::default() }, Duration::from_secs(5))
    }

    #[test]
    fn lengths_chunks_and_ends_of_connection_are_understood() {
        let reply = get(&answer(b"HTTP/1.1 200 OK\r\nAis-Stamp: 0.1.2\r\nContent-Length: 2\r\n\r\nhixx")).unwrap();
        assert_eq!((reply.status, reply.body.as_slice(), reply.header("ais-stamp")), (200, &b"hi"[..], Some("0.1.2")));
        let reply =
            get(&answer(b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"));
        assert_eq!(reply.unwrap().body, b"abc");
        assert_eq!(get(&answer(b"HTTP/1.1 200 OK\r\n\r\nto the end")).unwrap().body, b"to the end");
    }

    #[test]
    fn not_sent_and_lost_are_told_apart() {
        assert!(matches!(get(&answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")), Err(Failure::Lost(_))));
        assert!(matches!(get(&answer(b"")), Err(Failure::Lost(_))));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(matches!(get(&free), Err(Failure::NotSent(_))));
    }
}
