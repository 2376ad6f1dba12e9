//! Opening a connection to one socket address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{Redial, Sender};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::noise::{self, HANDSHAKE_TIMEOUT, PeerError, Psk, Seal};
use super::wire::{Channel, Greeting, Opening};
use crate::tls::Wire;

/// On a local network an answer takes a fraction of it; a black hole must not hold up a candidate.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Unanswered data or probes end a connection after `suspect`, a bulk one not sooner than this; no evidence of
/// anything. After a cut of seconds TCP would wait as long again before it sends once more, and a new connection does
/// not. (With 4 s for bulk ones, a primary of a minority was elected again after a split, and its first State did not
/// get through for more than a second.)
const BULK_SILENCE: Duration = Duration::from_millis(1500);
/// A dying process may still accept: so often a redial that ended before its hello is repeated (protocol.md rule 1).
const REDIALS_MAX: usize = 3;

/// An open connection that we dialled: we send on it and listen for its end.
pub struct Dialled {
    /// The socket.
    pub stream: Wire,
    /// Encrypts.
    pub seal: Seal,
    /// Who is at the other end.
    pub peer: Greeting,
    /// Where.
    pub at: SocketAddr,
    /// The key that the other end took.
    pub psk: Psk,
}

/// Options of every connection. `silence`: how long what is sent may stay without an answer of the other kernel.
///
/// # Errors
/// The system's.
pub fn tune(stream: &TcpStream, channel: Channel, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(2)).with_interval(Duration::from_secs(1)).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(if channel == Channel::Control { silence } else { BULK_SILENCE.max(silence) }))
}

/// What an attempt came to.
pub enum Attempt {
    /// A connection.
    Open(Box<Dialled>),
    /// Somebody answered, authenticated, and the connection is not kept.
    Met(Box<Greeting>, PeerError),
    /// Nobody answered.
    Failed(PeerError),
}

/// Where to dial, and as whom.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where.
    pub at: SocketAddr,
    /// Names and addresses by which the peer is known: its certificate must be for one of them.
    pub hosts: Arc<[Arc<str>]>,
}

/// Connects and shakes hands, with the other keys if the first one is not taken: a member that does not hold a key
/// closes the connection before it says anything.
pub async fn attempt(shared: &Shared, place: &Place, channel: Channel) -> Attempt {
    let ring = shared.keyring.ring();
    let mut last = Attempt::Failed(PeerError::Timeout(CONNECT_TIMEOUT));
    for psk in ring.psks() {
        last = attempt_with(shared, place, channel, psk).await;
        match &last {
            Attempt::Failed(error) if error.is_end() => {}
            _ => break,
        }
    }
    last
}

/// As [`attempt`], with one key.
pub async fn attempt_with(shared: &Shared, place: &Place, channel: Channel, psk: &Psk) -> Attempt {
    let at = place.at;
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Attempt::Failed(error.into()),
        Err(_) => return Attempt::Failed(PeerError::Timeout(CONNECT_TIMEOUT)),
    };
    if let Err(error) = tune(&stream, channel, shared.silence) {
        return Attempt::Failed(error.into());
    }
    let mut stream = match encrypted(shared, stream, place).await {
        Ok(stream) => stream,
        Err(error) => return Attempt::Failed(error),
    };
    let ours = shared.greeting();
    let opening = Opening { channel, greeting: ours.clone() };
    match noise::open(&mut stream, psk, &opening).await {
        // With TLS 1.3 the refusal of our certificate is read only now.
        Err(PeerError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => Attempt::Failed(
            shared.tls.as_ref().map_or(PeerError::Timeout(HANDSHAKE_TIMEOUT), |tls| PeerError::of_tls(error, tls)),
        ),
        Err(error) => Attempt::Failed(error),
        Ok((seal, answer)) => {
            let refused = answer.refused.or_else(|| shared.refusal(&answer.greeting));
            match refused {
                Some(why) => Attempt::Met(Box::new(answer.greeting), PeerError::Refused(why)),
                None => Attempt::Open(Box::new(Dialled { stream, seal, peer: answer.greeting, at, psk: psk.clone() })),
            }
        }
    }
}

/// Around it TLS, where the cluster has it.
async fn encrypted(shared: &Shared, stream: TcpStream, place: &Place) -> Result<Wire, PeerError> {
    let Some(tls) = &shared.tls else { return Ok(Wire::Plain(stream)) };
    match timeout(HANDSHAKE_TIMEOUT, tls.dial_member(stream, &place.hosts)).await {
        Ok(done) => done.map_err(|error| PeerError::of_tls(error, tls)),
        Err(_) => Err(PeerError::Timeout(HANDSHAKE_TIMEOUT)),
    }
}

/// Dials the address again at which `lost` was, at once: is it dead?
pub async fn redial(shared: &Shared, lost: &Sender, place: &Place) -> (Redial, Option<Box<Dialled>>) {
    let mut answer = (Redial::Unknown, None);
    for _ in 0..REDIALS_MAX {
        answer = match attempt(shared, place, Channel::Control).await {
            Attempt::Open(dialled) => (compare(lost, &dialled.peer), Some(dialled)),
            Attempt::Met(greeting, _) => (compare(lost, &greeting), None),
            Attempt::Failed(PeerError::Io(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                (Redial::Refused, None)
            }
            Attempt::Failed(error) if error.is_end() => continue,
            Attempt::Failed(_) => (Redial::Unknown, None),
        };
        break;
    }
    answer
}

fn compare(lost: &Sender, found: &Greeting) -> Redial {
    let found = found.sender();
    if found.id != lost.id {
        Redial::Unknown
    } else if found.boot == lost.boot {
        Redial::SameBoot
    } else {
        Redial::OtherBoot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bulk connection that was black-holed for longer than a primary is waited for is opened anew, not waited for:
    /// with 4 s of patience it stayed in TCP's back-off after a split while the control connection beside it was new.
    #[tokio::test]
    async fn no_connection_is_waited_for_longer_than_a_primary() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let suspect = Duration::from_millis(ais_ha::Timers::default().suspect_ms);
        for channel in [Channel::Control, Channel::Bulk] {
            tune(&stream, channel, suspect).unwrap();
            assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(suspect));
        }
    }
}
