//! Time: who is alive, whose lease runs, when to try again (protocol.md rules 1, 3, 8). Nothing here decides safety.

use std::collections::BTreeMap;

use ais_meta::{BootId, NodeId, VoterId};

use crate::io::{Millis, Redial, Sender};
use crate::mutant::Mutant;

/// Jitter from a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Same seed, same jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between half of `ms` and `ms`.
    pub fn about(&mut self, ms: u64) -> u64 {
        ms / 2 + self.next_u64() % (ms / 2 + 1)
    }
}

/// Doubles from `first_ms` to `last_ms`, jittered.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    last_ms: u64,
    next_ms: u64,
}

impl Backoff {
    /// Starts at `first_ms`.
    #[must_use]
    pub fn new(first_ms: u64, last_ms: u64) -> Self {
        Self { first_ms, last_ms, next_ms: first_ms }
    }

    /// How long to wait now.
    pub fn wait_ms(&mut self, jitter: &mut Jitter) -> u64 {
        let wait_ms = jitter.about(self.next_ms);
        self.next_ms = (self.next_ms * 2).min(self.last_ms);
        wait_ms
    }

    /// It worked: start over.
    pub fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }
}

/// What is known of the newest process of a voter.
#[derive(Clone, Debug)]
struct Life {
    run: u64,
    boot: BootId,
    connected: bool,
    /// It is in the middle of stopping: no successor, no new voter. It may still lead meanwhile.
    stopping: bool,
    /// It said its last word: the end of its connection is evidence.
    ending: bool,
    ended: Option<Millis>,
    dead: bool,
    /// The node was met with another disk since.
    superseded: bool,
    /// When it said something last.
    heard: Millis,
}

/// Which processes live: the judge of dead evidence (rule 1). Evidence is about (VoterId, boot id); a time-out is none.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    lives: BTreeMap<VoterId, Life>,
}

/// How long an ended connection counts as "evidence pending": a redial starts within 100 ms and is refused at once.
const PENDING_MS: u64 = 300;

impl Liveness {
    /// Hears of a process. False: it is not the newest of its disk (an older run, or a second process of the same
    /// run), and nothing that it says counts.
    pub fn seen(&mut self, sender: &Sender) -> bool {
        match self.lives.get_mut(&sender.id) {
            Some(life) if sender.run < life.run || (sender.run == life.run && sender.boot != life.boot) => false,
            Some(life) if sender.run == life.run => true,
            _ => {
                let life = Life {
                    run: sender.run,
                    boot: sender.boot,
                    connected: false,
                    stopping: false,
                    ending: false,
                    ended: None,
                    dead: false,
                    superseded: false,
                    heard: 0,
                };
                self.lives.insert(sender.id.clone(), life);
                true
            }
        }
    }

    /// It said something now. As [`Liveness::seen`].
    pub fn heard(&mut self, sender: &Sender, now: Millis) -> bool {
        self.of(sender).map(|life| life.heard = now).is_some()
    }

    /// Whether it said something since: a connection into a black hole stays open for long.
    #[must_use]
    pub fn heard_since(&self, id: &VoterId, then: Millis) -> bool {
        self.lives.get(id).is_some_and(|l| l.connected && l.heard >= then)
    }

    fn of(&mut self, sender: &Sender) -> Option<&mut Life> {
        self.seen(sender).then(|| self.lives.get_mut(&sender.id)).flatten()
    }

    /// A connection was opened: the only thing that cancels evidence.
    pub fn connected(&mut self, sender: &Sender) -> bool {
        let Some(life) = self.of(sender) else {
            return false;
        };
        (life.connected, life.ended, life.dead, life.superseded) = (true, None, false, false);
        for (id, other) in self.lives.iter_mut().filter(|(id, _)| id.node == sender.id.node) {
            if *id != sender.id {
                (other.connected, other.superseded) = (false, true);
            }
        }
        true
    }

    /// It said that it began to stop. No evidence: it may lead until somebody takes over.
    pub fn stopping(&mut self, sender: &Sender) {
        if let Some(life) = self.of(sender) {
            life.stopping = true;
        }
    }

    /// It said that it ends now.
    pub fn ending(&mut self, sender: &Sender) {
        if let Some(life) = self.of(sender) {
            (life.stopping, life.ending) = (true, true);
        }
    }

    /// A connection ended. True if that alone is evidence (it had said that it ends).
    pub fn ended(&mut self, sender: &Sender, now: Millis) -> bool {
        let Some(life) = self.of(sender) else {
            return false;
        };
        (life.connected, life.ended) = (false, Some(now));
        life.dead |= life.ending;
        life.dead
    }

    /// A redial answered. True if that is evidence.
    pub fn redialled(&mut self, sender: &Sender, result: Redial) -> bool {
        let Some(life) = self.of(sender) else {
            return false;
        };
        if life.ended.is_none() {
            return false;
        }
        match result {
            Redial::Refused | Redial::OtherBoot => life.dead = true,
            Redial::Unknown if Mutant::TimeoutIsEvidence.on() => life.dead = true,
            Redial::SameBoot | Redial::Unknown => life.ended = None,
        }
        life.dead
    }

    /// Dead evidence about the process that had this run: it itself is dead, or the disk runs a newer one (its lock
    /// lets in one at a time).
    #[must_use]
    pub fn is_dead(&self, id: &VoterId, run: u64) -> bool {
        self.lives.get(id).is_some_and(|l| l.run > run || (l.run == run && l.dead))
    }

    /// Whether the newest known process of the disk is dead.
    #[must_use]
    pub fn is_gone(&self, id: &VoterId) -> bool {
        self.lives.get(id).is_some_and(|l| l.dead)
    }

    /// Whether evidence about this process may come any moment.
    #[must_use]
    pub fn is_pending(&self, id: &VoterId, now: Millis) -> bool {
        self.lives.get(id).is_some_and(|l| !l.dead && l.ended.is_some_and(|at| now < at + PENDING_MS))
    }

    /// Whether we can send to the newest process of the disk.
    #[must_use]
    pub fn is_connected(&self, id: &VoterId) -> bool {
        self.lives.get(id).is_some_and(|l| l.connected)
    }

    /// Whether the node was met with another disk since: what is sent to the node does not reach this voter.
    #[must_use]
    pub fn is_superseded(&self, id: &VoterId) -> bool {
        // A process that started since never met the old disk, only the node with the other one.
        let other = || self.lives.keys().any(|known| known.node == id.node);
        self.lives.get(id).map_or_else(other, |l| l.superseded)
    }

    /// Whether it said that it will end.
    #[must_use]
    pub fn is_stopping(&self, id: &VoterId) -> bool {
        self.lives.get(id).is_some_and(|l| l.stopping)
    }

    /// Run of the newest known process.
    #[must_use]
    pub fn run(&self, id: &VoterId) -> Option<u64> {
        self.lives.get(id).map(|l| l.run)
    }

    /// The process of this node that we can send to.
    #[must_use]
    pub fn process(&self, node: &NodeId) -> Option<Sender> {
        let mine = self.lives.iter().filter(|(id, l)| id.node == *node && l.connected);
        mine.max_by_key(|(_, l)| l.run).map(|(id, l)| Sender { id: id.clone(), run: l.run, boot: l.boot })
    }

    /// Everybody that we can send to.
    pub fn everybody(&self) -> impl Iterator<Item = &NodeId> {
        self.lives.iter().filter(|(_, l)| l.connected).map(|(id, _)| &id.node)
    }
}

/// A return within this time of the one before counts as flapping.
const FLAP_MS: u64 = 600_000;
/// How long a node must have been back after its second return; doubles with each further one.
const DAMP_MS: u64 = 30_000;

/// Who came back to the cluster how often: a flapping node must be stable before it votes (section 4).
#[derive(Clone, Debug, Default)]
pub struct Returns {
    returns: BTreeMap<NodeId, (u32, Millis)>,
}

impl Returns {
    /// A node that was known before is back.
    pub fn returned(&mut self, node: &NodeId, now: Millis) {
        self.returns.retain(|_, (_, at)| now <= *at + FLAP_MS);
        let (returns, at) = self.returns.entry(node.clone()).or_insert((0, now));
        (*returns, *at) = (returns.saturating_add(1), now);
    }

    /// Whether it has been here long enough: at once after its first return, after 30 s after the second within ten
    /// minutes, then double, ten minutes at most.
    #[must_use]
    pub fn is_stable(&self, node: &NodeId, now: Millis) -> bool {
        match self.returns.get(node) {
            None | Some((0..=1, _)) => true,
            Some((returns, at)) => now >= at + (DAMP_MS << (returns - 2).min(5)).min(FLAP_MS),
        }
    }
}

/// The lease that a voter gave (rule 8): until it is over, it promises nobody else.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// To which voter.
    pub holder: Option<VoterId>,
    /// Which of its processes, if known.
    pub run: Option<u64>,
    /// Of which epoch.
    pub epoch: u64,
    /// Until when.
    pub until: Millis,
    /// The holder gave it up (rule 9).
    pub resigned: bool,
}

impl Lease {
    /// A heartbeat came from the holder of the promised epoch.
    pub fn extend(&mut self, holder: &Sender, epoch: u64, until: Millis) {
        if self.epoch == epoch && self.resigned {
            return;
        }
        if epoch >= self.epoch {
            *self = Self { holder: Some(holder.id.clone()), run: Some(holder.run), epoch, until, resigned: false };
        }
    }

    /// Milliseconds left.
    #[must_use]
    pub fn left_ms(&self, now: Millis) -> u64 {
        if self.resigned { 0 } else { self.until.saturating_sub(now) }
    }
}

/// The primary's own side of the lease: counted from when it *sent* what a majority answered.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: u64,
    sent: std::collections::VecDeque<(u64, Millis)>,
    answered: BTreeMap<VoterId, Millis>,
}

/// Rounds whose send time is remembered; an answer to an older one is worth nothing.
const ROUNDS_MAX: usize = 256;

impl Rounds {
    /// Starts a round now.
    pub fn start(&mut self, now: Millis) -> u64 {
        if let Some((round, at)) = self.sent.back()
            && *at == now
        {
            return *round;
        }
        self.last += 1;
        self.sent.push_back((self.last, now));
        if self.sent.len() > ROUNDS_MAX {
            self.sent.pop_front();
        }
        self.last
    }

    /// A voter answered a round, holding the lease.
    pub fn answer(&mut self, voter: &VoterId, round: u64, now: Millis) {
        let Some((_, at)) = self.sent.iter().find(|(r, _)| *r == round) else {
            return;
        };
        let at = if Mutant::LeaseFromReply.on() { &now } else { at };
        let newest = self.answered.entry(voter.clone()).or_insert(*at);
        *newest = (*newest).max(*at);
    }

    /// When the newest round that this voter answered was sent.
    #[must_use]
    pub fn answered(&self, voter: &VoterId) -> Option<Millis> {
        self.answered.get(voter).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]
mod tests {
    use super::{NodeId, Returns};

    #[test]
    fn a_flapping_node_waits_longer_each_time() {
        let (node, other): (NodeId, NodeId) = ("t1".parse().unwrap(), "t2".parse().unwrap());
        let mut returns = Returns::default();
        assert!(returns.is_stable(&node, 0), "a first join");
        let mut now = 1000;
        for wait_ms in [0, 30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000] {
            returns.returned(&node, now);
            assert!(returns.is_stable(&node, now + wait_ms), "{wait_ms}");
            assert!(wait_ms == 0 || !returns.is_stable(&node, now + wait_ms - 1), "{wait_ms}");
            assert!(returns.is_stable(&other, now));
            now += 1000;
        }
        now += 600_001;
        returns.returned(&node, now);
        assert!(returns.is_stable(&node, now), "ten quiet minutes are forgiven");
    }
}
