//! Noise over TCP: the handshake, and packets as length-prefixed noise messages.
//!
//! Pattern NNpsk0: both sides prove that they hold the cluster's secret, keys are fresh per connection. The first
//! message alone could be a replay, so the dialling side confirms with an empty transport message, and nothing of its
//! greeting counts before that.
//!
//! On the wire: `u16 length, noise message` repeated. A packet is `u32 length, MessagePack`, cut into as many noise
//! messages as it takes.

use std::io;
use std::time::Duration;

use ais_ha::Packet;
use ais_meta::pack;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use snow::{Builder, HandshakeState, TransportState};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::wire::{Answer, Opening, PACKET_MAX};
use crate::tls::Tls;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"ais-peer";
const MESSAGE_MAX: usize = 65_535;
const TAG: usize = 16;
const CHUNK: usize = MESSAGE_MAX - TAG;
/// A process that accepts but does not answer (stopped, black-holed) holds a dialler no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Key of handshakes of a cluster. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk([u8; 32]);

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Psk(**********)")
    }
}

impl Psk {
    /// From the cluster's secret.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// For `--insecure`: known to everybody.
    #[must_use]
    pub fn insecure() -> Self {
        Self([0; 32])
    }
}

/// Why a connection did not come up, or ended.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// One side does not accept the other's certificate, or does not speak TLS.
    #[error("no TLS connection (compare certificates and authorities): {0}")]
    Tls(io::Error),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The other side holds another secret, or the bytes are damaged.
    #[error("not authenticated (compare the cluster secrets): {0}")]
    Noise(#[from] snow::Error),
    /// It is authenticated, but what it says does not decode.
    #[error("does not decode: {0}")]
    Decode(String),
    /// A packet over the bound.
    #[error("a packet of {0} bytes is too long")]
    TooLong(usize),
    /// We or they will not have it.
    #[error("refused: {0}")]
    Refused(String),
}

impl PeerError {
    /// Of a handshake of TLS: an end is an end; anything else may be a certificate that changed.
    pub(super) fn of_tls(error: io::Error, tls: &Tls) -> Self {
        if Self::Io(io::Error::from(error.kind())).is_end() {
            return Self::Io(error);
        }
        tls.doubt();
        Self::Tls(error)
    }

    /// Whether the other end closed or reset: what rule 1 calls the end of a connection. Time-outs and unreachable
    /// networks are not.
    #[must_use]
    pub fn is_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(self, Self::Io(e) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
    }
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<(), PeerError> {
    let length = stream.read_u16().await?;
    buffer.resize(usize::from(length), 0);
    stream.read_exact(buffer).await?;
    Ok(())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PeerError> {
    pack::read(bytes).map_err(|e| PeerError::Decode(e.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, PeerError> {
    pack::write(value).map_err(|e| PeerError::Decode(e.to_string()))
}

fn builder(psk: &Psk) -> Result<Builder<'_>, PeerError> {
    Ok(Builder::new(PATTERN.parse()?).prologue(PROLOGUE)?.psk(0, &psk.0)?)
}

async fn send_step<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    noise: &mut HandshakeState,
    value: &T,
) -> Result<(), PeerError> {
    let mut message = vec![0; MESSAGE_MAX];
    let length = noise.write_message(&encode(value)?, &mut message)?;
    stream.write_all(&framed(&message[..length])).await?;
    // TLS may hold back what it was given.
    stream.flush().await?;
    Ok(())
}

async fn receive_step<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    noise: &mut HandshakeState,
) -> Result<T, PeerError> {
    let mut message = Vec::new();
    read_message(stream, &mut message).await?;
    read_step(noise, &message)
}

fn read_step<T: DeserializeOwned>(noise: &mut HandshakeState, message: &[u8]) -> Result<T, PeerError> {
    let mut payload = vec![0; MESSAGE_MAX];
    let length = noise.read_message(message, &mut payload)?;
    decode(&payload[..length])
}

/// Reads the first message with whichever key it was made.
fn first_step(psks: &[Psk], message: &[u8]) -> Result<(HandshakeState, Opening, Psk), PeerError> {
    let mut last = PeerError::Decode("no key is accepted".to_owned());
    for psk in psks {
        let mut noise = builder(psk)?.build_responder()?;
        match read_step(&mut noise, message) {
            Ok(opening) => return Ok((noise, opening, psk.clone())),
            Err(PeerError::Noise(error)) => last = PeerError::Noise(error),
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The dialling side of the handshake. What the answer means is the caller's to judge.
///
/// # Errors
/// [`PeerError`].
pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    psk: &Psk,
    opening: &Opening,
) -> Result<(Seal, Answer), PeerError> {
    let steps = async {
        let mut noise = builder(psk)?.build_initiator()?;
        send_step(stream, &mut noise, opening).await?;
        let answer: Answer = receive_step(stream, &mut noise).await?;
        let mut seal = Seal { noise: noise.into_transport_mode()? };
        let confirm = seal.message(&[])?;
        stream.write_all(&confirm).await?;
        stream.flush().await?;
        Ok((seal, answer))
    };
    timeout(HANDSHAKE_TIMEOUT, steps).await.unwrap_or(Err(PeerError::Timeout(HANDSHAKE_TIMEOUT)))
}

/// The accepting side: any of the keys will do, and the one that did is given. `judge` sees the opening *before* it is known to be fresh, and may only look.
///
/// # Errors
/// [`PeerError::Refused`] when `judge` refused, and it was told.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    psks: &[Psk],
    judge: impl FnOnce(&Opening) -> Answer,
) -> Result<(Unseal, Opening, Psk), (PeerError, Option<Opening>)> {
    let mut seen = None;
    let steps = async {
        let mut message = Vec::new();
        read_message(stream, &mut message).await?;
        let (mut noise, opening, psk) = first_step(psks, &message)?;
        let answer = judge(&opening);
        send_step(stream, &mut noise, &answer).await?;
        let mut unseal =
            Unseal { noise: noise.into_transport_mode()?, message: Vec::new(), plain: vec![0; MESSAGE_MAX] };
        unseal.confirm(stream).await?;
        if let Some(why) = answer.refused {
            seen = Some(opening);
            return Err(PeerError::Refused(why));
        }
        Ok((unseal, opening, psk))
    };
    let result = timeout(HANDSHAKE_TIMEOUT, steps).await.unwrap_or(Err(PeerError::Timeout(HANDSHAKE_TIMEOUT)));
    result.map_err(|error| (error, seen))
}

/// The sending end of an open connection.
pub struct Seal {
    noise: TransportState,
}

impl Seal {
    /// One part of a packet as it goes over the wire: at most 65,519 bytes. For tests that cut packets otherwise than
    /// [`Seal::packet`] does.
    ///
    /// # Errors
    /// [`PeerError`] when the part is too long.
    pub fn part(&mut self, plain: &[u8]) -> Result<Vec<u8>, PeerError> {
        self.message(plain)
    }

    fn message(&mut self, plain: &[u8]) -> Result<Vec<u8>, PeerError> {
        let mut message = vec![0; plain.len() + TAG];
        let length = self.noise.write_message(plain, &mut message)?;
        Ok(framed(&message[..length]))
    }

    /// Appends a packet's bytes to `out`.
    ///
    /// # Errors
    /// [`PeerError`]; `out` may then hold a part and the connection must be closed.
    pub fn packet(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), PeerError> {
        let body = encode(packet)?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= PACKET_MAX)
            .ok_or(PeerError::TooLong(body.len()))?;
        let mut plain = Vec::with_capacity(4 + body.len());
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(&body);
        for chunk in plain.chunks(CHUNK) {
            out.extend_from_slice(&self.message(chunk)?);
        }
        Ok(())
    }
}

/// The receiving end of an open connection.
pub struct Unseal {
    noise: TransportState,
    message: Vec<u8>,
    plain: Vec<u8>,
}

impl Unseal {
    async fn chunk(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<&[u8], PeerError> {
        read_message(stream, &mut self.message).await?;
        let length = self.noise.read_message(&self.message, &mut self.plain)?;
        Ok(&self.plain[..length])
    }

    async fn confirm(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), PeerError> {
        if self.chunk(stream).await?.is_empty() { Ok(()) } else { Err(PeerError::Decode("no confirmation".to_owned())) }
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// [`PeerError`]; the connection must then be closed.
    pub async fn packet(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Packet, PeerError> {
        let first = self.chunk(stream).await?;
        let Some((head, rest)) = first.split_first_chunk::<4>() else {
            return Err(PeerError::Decode("a packet without a length".to_owned()));
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > PACKET_MAX {
            return Err(PeerError::TooLong(length));
        }
        // Grows with what arrives, not with what is announced.
        let mut body = rest.to_vec();
        while body.len() < length {
            let chunk = self.chunk(stream).await?;
            if chunk.is_empty() {
                return Err(PeerError::Decode("an empty part of a packet".to_owned()));
            }
            body.extend_from_slice(chunk);
        }
        if body.len() != length {
            return Err(PeerError::Decode("a packet longer than announced".to_owned()));
        }
        decode(&body)
    }
}
