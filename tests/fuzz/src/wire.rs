//! What members send one another.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ais_ha::{
    Accepted, AppendBody, ForwardReply, Genesis, HandOver, Hello, Message, Packet, PreVoteAnswer, Sender,
    TransferAnswer, Transferred,
};
use ais_meta::{BootId, Kind, Outcome, RequestId, Stamp, Voter};
use ais_node::disk::frame;
use ais_node::peers::noise::{self, Psk, Unseal};
use ais_node::peers::wire::{Answer, Channel, Greeting, Opening};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::state;

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    frame::encode("fuzz", value).expect("a value encodes")
}

/// What decodes is written and read as the same bytes: values may hold what does not equal itself.
fn stable<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) -> Option<T> {
    let value: T = frame::decode("first", data).ok()?;
    let bytes = pack(&value);
    let again: T = frame::decode("again", &bytes).expect("what was read is written and read");
    assert_eq!(pack(&again), bytes);
    Some(value)
}

pub(crate) fn packet(data: &[u8]) {
    if let Some(packet) = stable::<Packet>(data) {
        let _ = (packet.message.is_bulk(), packet.message.name());
        if let Message::Append { body: AppendBody::Full(full), .. } | Message::Body { full } = &packet.message {
            let _ = ais_meta::State::from_full(full);
        }
    }
}

fn sender(i: u16) -> Sender {
    Sender { id: state::member(i).voter_id(), run: 2, boot: BootId(9) }
}

fn voter() -> Voter {
    Voter::from(&state::member(1))
}

fn messages() -> Vec<Message> {
    let (base, (_, delta)) = (state::base(), state::next());
    let (stamp, digest, full) = (base.stamp(), base.digest(), Arc::new(base.full()));
    let request = RequestId::Gateway { origin: state::member(2).voter_id(), run: 1, seq: 7 };
    let token = HandOver { epoch: 3, from: voter().id, to: sender(2).id, nonce: 5 };
    let change = state::created("new");
    let hello = Hello {
        member: state::member(2),
        leading: false,
        stopping: false,
        genesis: Genesis::Formed(state::uuid()),
        accepted: Some(stamp),
        promised: Default::default(),
        primary: Some(voter()),
    };
    let accepted = Accepted { stamp, digest, electorate: base.electorate().clone() };
    let done = Transferred::Done { epoch: 4, smap_version: 100 };
    let append = |body| Message::Append { round: 1, commit: stamp, body };
    vec![
        Message::Hello(Box::new(hello)),
        Message::Heartbeat { round: 1, commit: stamp, held: stamp },
        Message::HeartbeatAck { round: 1, holds: true, accepted: stamp, published: Stamp::default() },
        Message::ElectionBegins,
        Message::ProbeReply { leading: true },
        Message::PreVoteReply { round: 1, answer: PreVoteAnswer::No { retry_ms: 20 } },
        Message::Prepare { token: Some(token.clone()) },
        Message::Promise { accepted: Some(accepted) },
        Message::Refuse { asked: 3, retry_ms: None },
        Message::Fetch { stamp },
        Message::Body { full: Arc::clone(&full) },
        append(AppendBody::Commit),
        append(AppendBody::Deltas(vec![Arc::new(delta)])),
        append(AppendBody::Full(full)),
        Message::Appended { round: 1, stamp, digest },
        Message::Resign { successor: Some(voter().id) },
        Message::Token(token),
        Message::Forward { request: request.clone(), low: 1, basis: Some(base.basis(&change)), change },
        Message::Forwarded { request: request.clone(), reply: ForwardReply::Settled { outcome: Outcome::Done, stamp } },
        Message::Forwarded { request, reply: ForwardReply::NotPrimary { primary: Some(voter()) } },
        Message::TransferAsk { nonce: 1, to: voter().id.node, expected_primary: None, expected_epoch: Some(3) },
        Message::TransferAnswer { nonce: 1, result: TransferAnswer::Ended(done) },
        Message::PullReply { nonce: 1, stamp: Some(stamp) },
        Message::Bound { offer: 1 },
    ]
}

fn packets() -> Vec<Packet> {
    let wrap = |message| Packet { uuid: Some(state::uuid()), incarnation: 0, epoch: 3, from: sender(2), message };
    messages().into_iter().map(wrap).collect()
}

pub(crate) fn packet_seeds() -> Vec<Vec<u8>> {
    packets().iter().map(pack).collect()
}

fn greeting() -> Greeting {
    let member = state::member(2);
    Greeting {
        wire_version: 1,
        wire_version_min: 1,
        node_id: member.id,
        disk: member.disk,
        run: 2,
        boot: BootId(9),
        kind: Kind::Gateway,
        uuid: Some(state::uuid()),
        formed: true,
        addresses: member.addresses,
    }
}

pub(crate) fn hello(data: &[u8]) {
    let own = greeting();
    let said = [stable::<Opening>(data).map(|o| o.greeting), stable::<Answer>(data).map(|a| a.greeting)];
    for other in said.into_iter().flatten() {
        let (here, there) = (own.common_version(&other), other.common_version(&own));
        assert_eq!(here, there, "both sides choose the same version");
        assert!(here.is_none_or(|v| v <= own.wire_version && v <= other.wire_version));
        let _ = (own.foreign_to(&other), other.sender());
    }
}

pub(crate) fn hello_seeds() -> Vec<Vec<u8>> {
    vec![
        pack(&Opening { channel: Channel::Control, greeting: greeting() }),
        pack(&Answer { greeting: greeting(), refused: Some("no".to_owned()) }),
    ]
}

/// Reads the input, swallows what is written.
struct Input<'a>(&'a [u8]);

impl AsyncRead for Input<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Input<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fn psk() -> Psk {
    Psk::from_secret(b"0123456789abcdef")
}

/// An authenticated connection whose sender cuts packets as the input says.
async fn connected() -> (noise::Seal, Unseal) {
    let (mut near, mut far) = tokio::io::duplex(1 << 17);
    let opening = Opening { channel: Channel::Bulk, greeting: greeting() };
    let psk = psk();
    let answer = |_: &Opening| Answer { greeting: greeting(), refused: None };
    let (dialled, accepted) = tokio::join!(
        noise::open(&mut near, &psk, &opening),
        noise::accept(&mut far, std::slice::from_ref(&psk), answer)
    );
    (dialled.expect("dials").0, accepted.map_err(|(error, _)| error).expect("accepts").0)
}

pub(crate) fn stream(data: &[u8]) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            // Somebody without the secret.
            let answer = |_: &Opening| Answer { greeting: greeting(), refused: None };
            assert!(noise::accept(&mut Input(data), &[psk()], answer).await.is_err(), "nobody guesses a secret");
            let opening = Opening { channel: Channel::Bulk, greeting: greeting() };
            assert!(noise::open(&mut Input(data), &psk(), &opening).await.is_err(), "nobody guesses a secret");

            // A member whose packets are cut and counted as the input has it: two bytes of length, so many bytes.
            let (mut seal, mut unseal) = connected().await;
            let (mut bytes, mut rest) = (Vec::new(), data);
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let (part, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
                bytes.extend_from_slice(&seal.part(part).expect("short"));
                rest = after;
            }
            let mut input = Input(&bytes);
            while unseal.packet(&mut input).await.is_ok() {}
        });
    });
}

pub(crate) fn stream_seeds() -> Vec<Vec<u8>> {
    packets()
        .iter()
        .map(|packet| {
            let body = pack(packet);
            let length = u32::try_from(body.len()).expect("short");
            let plain = [&length.to_be_bytes()[..], &body].concat();
            let parts = plain.chunks(100);
            parts.fold(Vec::new(), |mut input, part| {
                input.extend_from_slice(&u16::try_from(part.len()).expect("short").to_le_bytes());
                input.extend_from_slice(part);
                input
            })
        })
        .collect()
}
