//! Connections that others dialled: read only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::{Input, Sender};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::noise::{self, HANDSHAKE_TIMEOUT, PeerError, Psk, Unseal};
use super::wire::{Answer, Channel, Greeting, Opening};
use super::{HEARD_OUT, Shared, dial, lock, plain_ip};
use crate::tls::Wire;

/// Handshakes under way: each ends within two seconds, with TLS within four.
const HANDSHAKES_MAX: usize = 256;

pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, remote)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let greeted = greet(&shared, stream, remote).await;
                    drop(slot);
                    if let Some(accepted) = greeted {
                        accepted.serve(shared).await;
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, or a connection that went away before it was taken.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

struct Accepted {
    stream: Wire,
    unseal: Unseal,
    psk: Psk,
    greeting: Greeting,
    channel: Channel,
    remote: SocketAddr,
}

/// Around it TLS, where the cluster has it.
async fn encrypted(shared: &Shared, stream: TcpStream) -> Result<Wire, PeerError> {
    let Some(tls) = &shared.tls else { return Ok(Wire::Plain(stream)) };
    match timeout(HANDSHAKE_TIMEOUT, tls.accept_member(stream)).await {
        Ok(done) => done.map_err(|error| PeerError::of_tls(error, tls)),
        Err(_) => Err(PeerError::Timeout(HANDSHAKE_TIMEOUT)),
    }
}

async fn greet(shared: &Arc<Shared>, stream: TcpStream, remote: SocketAddr) -> Option<Accepted> {
    if let Err(error) = dial::tune(&stream, Channel::Bulk, shared.silence) {
        tracing::debug!(%remote, %error, "a connection cannot be set up");
        return None;
    }
    let mut stream = match encrypted(shared, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            if !error.is_end() {
                not_accepted(shared, remote, "", &error);
            }
            return None;
        }
    };
    let judge = |opening: &Opening| Answer { greeting: shared.greeting(), refused: shared.refusal(&opening.greeting) };
    match noise::accept(&mut stream, shared.keyring.ring().psks(), judge).await {
        Ok((unseal, opening, psk)) => {
            shared.note(&opening.greeting.sender());
            Some(Accepted { stream, unseal, psk, greeting: opening.greeting, channel: opening.channel, remote })
        }
        Err((error, opening)) => {
            if matches!(error, PeerError::Noise(_)) {
                shared.keyring.doubt();
            }
            // One who dials itself through its own entry in the list is no news.
            let own = opening.as_ref().is_some_and(|o| o.greeting.boot == shared.greeting().boot);
            if !own && !error.is_end() {
                let peer = opening.as_ref().map(|o| o.greeting.sender().id.to_string()).unwrap_or_default();
                not_accepted(shared, remote, &peer, &error);
            }
            if let Some(opening) = opening {
                shared.meet_foreign(&opening.greeting).await;
            }
            None
        }
    }
}

fn not_accepted(shared: &Shared, remote: SocketAddr, peer: &str, error: &PeerError) {
    if shared.may_complain(plain_ip(remote)) {
        tracing::warn!(%remote, peer, %error, "a connection was not accepted");
    } else {
        tracing::debug!(%remote, peer, %error, "a connection was not accepted");
    }
}

impl Accepted {
    async fn serve(self, shared: Arc<Shared>) {
        shared.hooks.connection(true);
        match self.channel {
            Channel::Control => self.control(&shared).await,
            Channel::Bulk => {
                let runtime = shared.bulk_runtime.clone();
                let Ok(stream) = self.stream.park() else { return };
                let (unseal, psk, sender) = (self.unseal, self.psk, self.greeting.sender());
                runtime.spawn(async move {
                    if let Ok(mut stream) = stream.resume() {
                        let error = tokio::select! {
                            error = read(&mut stream, unseal, &sender, &shared.bulk_events) => error,
                            error = revoked(&shared, &psk) => error,
                            error = heard_out(&shared, &sender) => error,
                        };
                        tracing::debug!(peer = %sender.id, %error, "an accepted bulk connection ended");
                    }
                    shared.hooks.connection(false);
                });
            }
        }
    }

    async fn control(mut self, shared: &Arc<Shared>) {
        let sender = self.greeting.sender();
        let Some(link) = shared.ensure(&sender.id.node) else {
            tracing::warn!(peer = %sender.id, "too many peers");
            return;
        };
        let back = SocketAddr::new(plain_ip(self.remote), self.greeting.addresses.peer.port);
        *lock(&shared.accepted).entry(sender.clone()).or_insert(0) += 1;
        link.greeted(&self.greeting.addresses.peer, back);
        let error = tokio::select! {
            error = read(&mut self.stream, self.unseal, &sender, &shared.events) => error,
            error = revoked(shared, &self.psk) => error,
            error = heard_out(shared, &sender) => error,
        };
        let last = leave(shared, &sender);
        shared.hooks.connection(false);
        tracing::debug!(peer = %sender.id, %error, last, "an accepted control connection ended");
        // A process that replaced its connection has not ended.
        if error.is_end() && last {
            link.accepted_ended(sender, back);
        }
    }
}

/// Takes one accepted connection off; true when it was the process's last.
fn leave(shared: &Shared, sender: &Sender) -> bool {
    let mut accepted = lock(&shared.accepted);
    match accepted.get_mut(sender) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => {
            accepted.remove(sender);
            true
        }
    }
}

/// Waits until a process that is not the newest of its disk has had the time to say who it is.
async fn heard_out(shared: &Shared, sender: &Sender) -> PeerError {
    if !shared.is_stray(sender) {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(HEARD_OUT).await;
    PeerError::Refused("it is not the newest process of its disk".to_owned())
}

/// Waits until the key of a connection is accepted no more.
pub(super) async fn revoked(shared: &Shared, psk: &Psk) -> PeerError {
    let mut changes = shared.keyring.changes();
    if changes.wait_for(|ring| !ring.psks().contains(psk)).await.is_err() {
        // Nobody can change it any more.
        std::future::pending::<()>().await;
    }
    PeerError::Refused("its secret is not accepted any more".to_owned())
}

/// Reads packets until the connection ends.
async fn read(stream: &mut Wire, mut unseal: Unseal, sender: &Sender, events: &mpsc::Sender<Input>) -> PeerError {
    loop {
        match unseal.packet(stream).await {
            Ok(packet) if packet.from != *sender => {
                return PeerError::Refused(format!("sent a packet as {} run {}", packet.from.id, packet.from.run));
            }
            Ok(packet) => {
                if events.send(Input::Message(Box::new(packet))).await.is_err() {
                    return PeerError::Refused("this process ends".to_owned());
                }
            }
            Err(error) => return error,
        }
    }
}
