//! What waits to be sent to one peer on one connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ais_ha::{AppendBody, Message, Packet};
use tokio::sync::Notify;

use super::wire::Channel;
use crate::hooks::Hooks;

const CONTROL_MAX: usize = 1024;
const BULK_MAX: usize = 256;

#[derive(Default)]
struct Inner {
    queue: VecDeque<Box<Packet>>,
    /// There is a connection; without one packets are lost at once.
    open: bool,
    /// The writer holds packets that are not in the socket yet.
    writing: bool,
}

/// Bounded: the oldest packet is dropped for a new one, a newer heartbeat takes the place of an older one.
pub struct Outbox {
    inner: Mutex<Inner>,
    wake: Notify,
    channel: Channel,
    hooks: Arc<dyn Hooks>,
}

impl Outbox {
    /// An outbox without connection.
    #[must_use]
    pub fn new(channel: Channel, hooks: Arc<dyn Hooks>) -> Self {
        Self { inner: Mutex::default(), wake: Notify::new(), channel, hooks }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts or ends taking packets; either way what waited is lost.
    pub fn set_open(&self, open: bool) {
        let mut inner = self.lock();
        inner.queue.clear();
        (inner.open, inner.writing) = (open, false);
    }

    /// Queues a packet.
    pub fn push(&self, packet: Box<Packet>) {
        let max = if self.channel == Channel::Bulk { BULK_MAX } else { CONTROL_MAX };
        let mut inner = self.lock();
        if !inner.open {
            return;
        }
        if matches!(packet.message, Message::Heartbeat { .. }) {
            inner.queue.retain(|p| !matches!(p.message, Message::Heartbeat { .. }));
        }
        if matches!(packet.message, Message::Append { body: AppendBody::Full(_), .. }) {
            // It stands for every step before it; whole States that wait for a slow peer would fill the memory.
            inner.queue.retain(|p| !matches!(p.message, Message::Append { .. }));
        }
        if inner.queue.len() >= max {
            inner.queue.pop_front();
            self.hooks.packet_dropped(self.channel == Channel::Bulk);
        }
        inner.queue.push_back(packet);
        drop(inner);
        self.wake.notify_one();
    }

    /// The next packet without waiting; tells the outbox that what was taken before is sent when there is none.
    pub fn try_next(&self) -> Option<Box<Packet>> {
        let mut inner = self.lock();
        let next = inner.queue.pop_front();
        inner.writing |= next.is_some();
        next
    }

    /// Everything taken so far is in the socket.
    pub fn sent(&self) {
        self.lock().writing = false;
    }

    /// Counts a packet that was taken and cannot be sent.
    pub fn dropped(&self) {
        self.hooks.packet_dropped(self.channel == Channel::Bulk);
    }

    /// Waits for a packet.
    pub async fn next(&self) -> Box<Packet> {
        loop {
            if let Some(packet) = self.try_next() {
                return packet;
            }
            self.wake.notified().await;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.queue.is_empty() && !inner.writing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::NoHooks;
    use ais_ha::Sender;
    use ais_meta::{BootId, Digest, DiskId, Full, Stamp, VoterId};

    fn packet(epoch: u64, message: Message) -> Box<Packet> {
        let from = Sender { id: VoterId::new("g1".parse().unwrap(), DiskId(1)), run: 1, boot: BootId(1) };
        Box::new(Packet { uuid: None, incarnation: 0, epoch, from, message })
    }

    /// Found by the soak: a primary grew to 515 MiB while members were slow to take the whole State.
    #[test]
    fn a_whole_state_replaces_the_appends_before_it() {
        let append = |body| Message::Append { round: 1, commit: Stamp::default(), body };
        let full = |seq| Full { stamp: Stamp::new(0, 1, seq), digest: Digest::default(), entries: Vec::new() };
        let outbox = Outbox::new(Channel::Bulk, Arc::new(NoHooks));
        outbox.set_open(true);
        outbox.push(packet(1, append(AppendBody::Full(Arc::new(full(1))))));
        outbox.push(packet(2, append(AppendBody::Deltas(Vec::new()))));
        outbox.push(packet(3, Message::Probe));
        outbox.push(packet(4, append(AppendBody::Full(Arc::new(full(2))))));
        outbox.push(packet(5, append(AppendBody::Deltas(Vec::new()))));
        let epochs: Vec<u64> = std::iter::from_fn(|| outbox.try_next()).map(|p| p.epoch).collect();
        assert_eq!(epochs, [3, 4, 5]);
    }

    #[test]
    fn a_newer_heartbeat_replaces_an_older_one_and_the_oldest_is_dropped_when_full() {
        let outbox = Outbox::new(Channel::Control, Arc::new(NoHooks));
        outbox.push(packet(1, Message::Probe));
        assert!(outbox.is_idle(), "without a connection packets are lost");
        outbox.set_open(true);
        outbox.push(packet(1, Message::Heartbeat { round: 1, commit: Stamp::default(), held: Stamp::default() }));
        outbox.push(packet(2, Message::Probe));
        outbox.push(packet(3, Message::Heartbeat { round: 2, commit: Stamp::default(), held: Stamp::default() }));
        let epochs: Vec<u64> = std::iter::from_fn(|| outbox.try_next()).map(|p| p.epoch).collect();
        assert_eq!(epochs, [2, 3]);
        assert!(!outbox.is_idle());
        outbox.sent();
        assert!(outbox.is_idle());
        for epoch in 0..CONTROL_MAX as u64 + 5 {
            outbox.push(packet(epoch, Message::Probe));
        }
        assert_eq!(outbox.try_next().map(|p| p.epoch), Some(5));
    }
}
