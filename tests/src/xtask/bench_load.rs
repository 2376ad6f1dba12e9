//! Closed-loop clients: each sends its next mutation when the last one was answered.
//!
//! One thread drives all connections, the same way for both systems, so that the load costs them the same. Clients are
//! spread over the members, the leader first; one client alone talks to the leader.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use super::bench::rank;

/// No answer takes longer, unless something is wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer to a mutation is short.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// As much as a bucket's entry has.
const VALUE_BYTES: usize = 150;

/// Which system is asked, in its own language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Buckets made and destroyed in turn, HTTP/1.1.
    Buckets,
    /// Puts, gRPC.
    Etcd,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Of each answered mutation, in milliseconds.
    pub took_ms: Vec<f64>,
    /// How long the load lasted.
    pub seconds: f64,
}

impl Seen {
    /// Adds another round.
    pub fn add(&mut self, other: Self) {
        self.took_ms.extend(other.took_ms);
        self.seconds += other.seconds;
    }

    /// Mutations a second.
    pub fn per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.took_ms.len() as f64 / self.seconds } else { 0.0 }
    }

    /// Percentiles of the latency, in milliseconds with one decimal.
    pub fn percentiles_ms(&self, percents: [usize; 2]) -> [f64; 2] {
        let mut sorted = self.took_ms.clone();
        sorted.sort_by(f64::total_cmp);
        percents.map(|percent| rank(&sorted, percent))
    }
}

/// Loads the members for so long. `label` keeps the names of rounds apart.
pub fn run(wire: Wire, members: &[SocketAddr], clients: usize, time: Duration, label: &str) -> Result<Seen> {
    if members.is_empty() {
        bail!("nobody to load");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for i in 0..clients {
            let (member, name) = (members[i % members.len()], format!("{label}-{i}"));
            tasks.spawn_local(async move {
                match wire {
                    Wire::Buckets => buckets(member, &name, begin + time).await,
                    Wire::Etcd => puts(member, &name, begin + time).await,
                }
            });
        }
        let mut seen = Seen::default();
        while let Some(done) = tasks.join_next().await {
            seen.took_ms.extend(done.context("a client panicked")??);
        }
        seen.seconds = begin.elapsed().as_secs_f64();
        Ok(seen)
    })
}

/// Makes so many buckets and leaves them there.
pub fn fill(members: &[SocketAddr], buckets: usize, clients: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        for first in 0..clients {
            let member = members[first % members.len()];
            tasks.spawn_local(async move {
                let mut connection = Http::to(member).await?;
                for i in (first..buckets).step_by(clients) {
                    connection.mutate("POST", &format!("filled-{i}"), "create-bck").await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a client panicked")??;
        }
        Ok(())
    })
}

async fn buckets(member: SocketAddr, name: &str, until: Instant) -> Result<Vec<f64>> {
    let mut connection = Http::to(member).await?;
    let mut took_ms = Vec::new();
    let mut made = false;
    // The last one is destroyed, whatever the time is: a round leaves no bucket behind.
    while Instant::now() < until || made {
        let (method, action) = if made { ("DELETE", "destroy-bck") } else { ("POST", "create-bck") };
        let begin = Instant::now();
        connection.mutate(method, name, action).await?;
        took_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        made = !made;
    }
    Ok(took_ms)
}

/// A kept connection, one call at a time.
struct Http {
    stream: TcpStream,
    member: SocketAddr,
    read: BytesMut,
}

impl Http {
    async fn to(member: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(member).await.with_context(|| format!("cannot connect to {member}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, member, read: BytesMut::new() })
    }

    async fn mutate(&mut self, method: &str, bucket: &str, action: &str) -> Result<()> {
        let body = format!(r#"{{"action":"{action}","name":"","value":null}}"#);
        let call = format!(
            "{method} /v1/buckets/{bucket} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.member,
            body.len()
        );
        let exchange = async {
            self.stream.write_all(call.as_bytes()).await?;
            self.answer().await
        };
        let status = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.context("no answer in time")??;
        if (200..300).contains(&status) { Ok(()) } else { bail!("{method} {bucket}: status {status}") }
    }

    /// Reads one answer to its end; its status.
    async fn answer(&mut self) -> Result<u16> {
        let head = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.read.split_to(at + 4);
            }
            self.more().await?;
        };
        let head = std::str::from_utf8(&head).context("a head that is no text")?.to_ascii_lowercase();
        let status = head.get(9..12).and_then(|text| text.parse().ok()).context("not an HTTP/1.1 answer")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.unwrap_or("0").trim().parse().context("a bad length")?;
        while self.read.len() < length {
            self.more().await?;
        }
        drop(self.read.split_to(length));
        Ok(status)
    }

    async fn more(&mut self) -> Result<()> {
        if self.read.len() > HEAD_MAX_BYTES {
            bail!("the answer is too long");
        }
        if self.stream.read_buf(&mut self.read).await? == 0 {
            bail!("the connection ended");
        }
        Ok(())
    }
}

async fn puts(member: SocketAddr, name: &str, until: Instant) -> Result<Vec<f64>> {
    let stream = TcpStream::connect(member).await.with_context(|| format!("cannot connect to {member}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = h2::client::handshake(stream).await.context("no HTTP/2")?;
    let driver = tokio::task::spawn_local(connection);
    let mut took_ms = Vec::new();
    let message = put(name.as_bytes(), &[b'v'; VALUE_BYTES]);
    while Instant::now() < until {
        let begin = Instant::now();
        let call = unary(&mut sender, member, "/etcdserverpb.KV/Put", message.clone());
        tokio::time::timeout(ANSWER_TIMEOUT, call).await.context("no answer in time")??;
        took_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    drop(sender);
    driver.abort();
    Ok(took_ms)
}

/// One gRPC call: a message with its five-byte prefix, and the status in the trailers.
async fn unary(sender: &mut SendRequest<Bytes>, member: SocketAddr, path: &str, message: Bytes) -> Result<()> {
    let request = http::Request::post(format!("http://{member}{path}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, mut body) = sender.send_request(request, false)?;
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put(message);
    body.send_data(framed.freeze(), true)?;
    let answer = answer.await?;
    let refused = answer.headers().get("grpc-status").is_some_and(|status| status != "0");
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await?;
    let fine = trailers.is_some_and(|all| all.get("grpc-status").is_some_and(|status| status == "0"));
    if fine && !refused { Ok(()) } else { bail!("{path} was refused") }
}

/// `etcdserverpb.PutRequest` with key (field 1) and value (field 2).
fn put(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    for (field, bytes) in [(0x0a, key), (0x12, value)] {
        message.put_u8(field);
        let mut length = bytes.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(bytes);
    }
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_a_protobuf_message() {
        let message = put(b"k", &[b'v'; 200]);
        assert_eq!(&message[..3], b"\x0a\x01k");
        assert_eq!(&message[3..6], b"\x12\xc8\x01");
        assert_eq!(message.len(), 6 + 200);
    }

    #[test]
    fn rates_and_percentiles_are_of_all_rounds() {
        let mut seen = Seen { took_ms: vec![1.0, 3.0], seconds: 1.0 };
        seen.add(Seen { took_ms: vec![2.0, 10.0], seconds: 1.0 });
        assert!((seen.per_s() - 2.0).abs() < 1e-9);
        assert_eq!(seen.percentiles_ms([50, 99]), [2.0, 10.0]);
    }
}
