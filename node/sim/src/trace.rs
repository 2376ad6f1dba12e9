//! What happened, as a hash always and as lines on demand. Same seed, same lines.

use ais_ha::{Action, Input};
use ais_meta::{NodeId, State};

use crate::world::Micros;

/// The transcript.
pub struct Trace {
    show: bool,
    hash: u64,
    lines: u64,
}

impl Trace {
    pub(crate) fn new(show: bool) -> Self {
        Self { show, hash: 0xcbf2_9ce4_8422_2325, lines: 0 }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, parts: &[u64]) {
        self.lines += 1;
        for part in parts {
            self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    pub(crate) fn note(&mut self, now: Micros, text: impl FnOnce() -> String) {
        self.mix(&[now, 0]);
        if self.show {
            println!("{:>10.3} -- {}", ms(now), text());
        }
    }

    pub(crate) fn input(&mut self, now: Micros, id: &NodeId, node: usize, input: &Input) {
        let (code, epoch) = match input {
            Input::Tick => (1, 0),
            Input::Message(p) => (p.message.name().len() as u64 + 100, p.epoch),
            Input::Connected { .. } => (2, 0),
            Input::ConnectionEnded { .. } => (3, 0),
            Input::Redialled { .. } => (4, 0),
            Input::Persisted { token, .. } => (5, *token),
            Input::PersistFailed { .. } => (6, 0),
            Input::Propose { .. } => (7, 0),
            Input::Transfer { .. } => (8, 0),
            Input::Pull { .. } => (9, 0),
            Input::Discovery(_) => (10, 0),
            Input::Stop => (11, 0),
            Input::Recover { nonce, .. } => (12, *nonce),
        };
        self.mix(&[now, node as u64, code, epoch]);
        if !self.show {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Message(p) => {
                println!("{:>10.3} {id} <- {} e{} {}", ms(now), p.from.id.node, p.epoch, short(&p.message))
            }
            Input::Connected { peer } => println!("{:>10.3} {id} connected to {} run {}", ms(now), peer.id, peer.run),
            other => println!("{:>10.3} {id} input {other:?}", ms(now)),
        }
    }

    pub(crate) fn action(&mut self, now: Micros, id: &NodeId, node: usize, action: &Action) {
        let (code, value) = match action {
            Action::Persist(p) => (1, p.token),
            Action::Send { packet, .. } => (packet.message.name().len() as u64 + 100, packet.epoch),
            Action::Reply { .. } => (2, 0),
            Action::Transferred { nonce, .. } => (3, *nonce),
            Action::Pulled { nonce, .. } => (4, *nonce),
            Action::Publish(s) => (5, s.stamp().seq),
            Action::RoleChanged => (6, 0),
            Action::Halt(_) => (7, 0),
            Action::Recovered { nonce, .. } => (8, *nonce),
            Action::Abandoned { by, .. } => (9, by.seq),
        };
        self.mix(&[node as u64, code, value]);
        if !self.show {
            return;
        }
        match action {
            Action::Send { to, packet } => {
                println!("{:>10.3} {id} -> {to} e{} {}", ms(now), packet.epoch, short(&packet.message));
            }
            Action::Persist(p) => {
                let state = p.accepted.as_ref().map(|w| decided_by(&w.state)).unwrap_or_default();
                println!("{:>10.3} {id} persist #{} {:?} {state} {:?}", ms(now), p.token, p.vote, p.genesis);
            }
            Action::Publish(s) => println!("{:>10.3} {id} publishes {s:?}", ms(now)),
            other => println!("{:>10.3} {id} does {other:?}", ms(now)),
        }
    }
}

/// A State, and who decides on it.
fn decided_by(state: &State) -> String {
    let voters: Vec<String> = state.electorate().iter().map(|v| v.id.to_string()).collect();
    format!("{} of {}", state.stamp(), voters.join(" "))
}

#[expect(clippy::cast_precision_loss, reason = "shown only")]
fn ms(now: Micros) -> f64 {
    now as f64 / 1000.0
}

fn short(message: &ais_ha::Message) -> String {
    let mut text = format!("{message:?}");
    if text.len() > 160 {
        let cut = (0..=160).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}
