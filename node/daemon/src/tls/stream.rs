//! A connection, plain or by TLS, and the handshakes that make one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Tls;

/// A client's whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at one listener.
const HANDSHAKES_MAX: usize = 128;
/// First byte of every TLS connection: a record of a handshake.
const HANDSHAKE: u8 = 22;
/// What is read of a plain request before it is answered, so that the answer is not lost to a reset.
const PLAIN_MAX: usize = 16 << 10;
const PLAIN: &str = "this port speaks TLS: use https://\n";

/// A connection.
pub enum Wire {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection between two runtimes.
pub enum Parked {
    /// Belongs to none.
    Plain(std::net::TcpStream),
    /// A TLS session cannot be taken off its socket: the first runtime goes on waiting for readiness, which is all it
    /// does; the work is done where the connection is polled.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Takes it off its runtime, as far as that can be done.
    ///
    /// # Errors
    /// The system's.
    pub fn park(self) -> io::Result<Parked> {
        Ok(match self {
            Self::Plain(stream) => Parked::Plain(stream.into_std()?),
            Self::Tls(stream) => Parked::Tls(stream),
        })
    }
}

impl Parked {
    /// Takes it up on this runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn resume(self) -> io::Result<Wire> {
        Ok(match self {
            Self::Plain(stream) => Wire::Plain(TcpStream::from_std(stream)?),
            Self::Tls(stream) => Wire::Tls(stream),
        })
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the handshake was not done in time")
}

/// The accepting side of an HTTP listener: bounded in time and number.
#[derive(Clone)]
pub struct HttpDoor {
    config: Arc<ServerConfig>,
    places: Arc<Semaphore>,
}

impl HttpDoor {
    /// Shakes hands. Who speaks plain HTTP is told so.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn accept(&self, mut stream: TcpStream, remote: SocketAddr) -> io::Result<Wire> {
        let shake = async {
            let _place = self.places.acquire().await.map_err(io::Error::other)?;
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
                tracing::debug!(%remote, "spoke no TLS");
                tell_plain(&mut stream).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "spoke no TLS"));
            }
            let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
            Ok(Wire::Tls(Box::new(TlsStream::Server(stream))))
        };
        timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn tell_plain(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = vec![0; PLAIN_MAX];
    let _ = stream.read(&mut request).await?;
    let length = PLAIN.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(PLAIN.as_bytes()).await?;
    stream.shutdown().await
}

impl Tls {
    /// The accepting side of an HTTP listener.
    ///
    /// # Errors
    /// As [`Tls::http_server`].
    pub fn http_door(&self) -> Result<HttpDoor, rustls::Error> {
        let config = Arc::new(self.http_server()?);
        Ok(HttpDoor { config, places: Arc::new(Semaphore::new(HANDSHAKES_MAX)) })
    }

    /// Shakes hands with a member that dialled; it has to show a certificate. Bounded by the caller.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn accept_member(&self, stream: TcpStream) -> io::Result<Wire> {
        let config = self.member_server().map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        Ok(Wire::Tls(Box::new(TlsStream::Server(stream))))
    }

    /// Shakes hands with a member that is known by any of `hosts`; by addresses only, if it has no name. Bounded by the
    /// caller.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn dial_member(&self, stream: TcpStream, hosts: &[Arc<str>]) -> io::Result<Wire> {
        let names: Vec<_> = hosts.iter().filter_map(|host| ServerName::try_from(host.to_string()).ok()).collect();
        let Some(first) = names.first().cloned() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the peer has no name to verify"));
        };
        let config = self.client(Some(names)).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(first, stream).await?;
        Ok(Wire::Tls(Box::new(TlsStream::Client(stream))))
    }
}
