//! What administrators do: configuration, tokens, members, and going on after a lost majority. Part of a plan, like
//! faults.

use std::collections::{BTreeMap, BTreeSet};

use ais_ha::invariant::{Verdict, violated};
use ais_ha::{Input, RecoverRefused, Reply};
use ais_meta::node::flags;
use ais_meta::state::Txn;
use ais_meta::{Change, DiskId, MemberAction, MemberOptions, Outcome, Refusal, RequestId, Stamp, VoterId};
use serde::{Deserialize, Serialize};

use crate::nemesis::Later;
use crate::rng::Rng;
use crate::seen::Seen;
use crate::world::{Event, Micros, World, ms};

/// Between two tries.
const AGAIN: Micros = ms(1000);
/// The key whose last answered value must stay.
const KEY: &str = "auth.required_claims.aud";

/// A change that an administrator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A key of the configuration gets this value.
    Config(u64),
    /// This token is revoked.
    Revoke(u64),
    /// Something to a member that does not lead.
    Member(MemberAction, usize),
}

/// What was asked and answered.
#[derive(Default)]
pub(crate) struct Admin {
    waiting: BTreeMap<RequestId, Ask>,
    /// Values that may still take effect.
    open: BTreeSet<u64>,
    /// When a value was asked for.
    asked: BTreeMap<u64, Micros>,
    /// When a value was answered as in effect. The stamp of an answer bounds it from below only: a retry is answered
    /// with the stamp of then (seed 9846).
    settled: BTreeMap<u64, Micros>,
    /// Tokens answered as revoked.
    revoked: BTreeSet<u64>,
    nonce: u64,
    /// The call that confirmed another stamp than the one that was meant.
    slip: Option<u64>,
    recovering: bool,
    lost_at: Micros,
    /// When a member was last asked for to be taken back into service.
    served: Option<Micros>,
}

impl Admin {
    /// Whether a register that these values were written to may hold this one: it may still take effect, or none that
    /// took effect was asked for after its answer.
    fn may_hold(&self, value: &str) -> bool {
        let newest = self.settled.keys().filter_map(|n| self.asked.get(n)).max();
        let last = |(n, at): (&u64, &Micros)| value == format!("v{n}") && newest.is_none_or(|asked| at >= asked);
        newest.is_none() || self.open.iter().any(|n| value == format!("v{n}")) || self.settled.iter().any(last)
    }
}

fn token(n: u64) -> String {
    format!("{n:064x}")
}

impl World {
    /// False: no gateway takes it now.
    pub(crate) fn ask(&mut self, via: usize, ask: Ask) -> bool {
        let via = via % self.plan.gateways;
        let change = match ask {
            Ask::Config(n) => Change::SetConfig { set: [(KEY.to_owned(), format!("v{n}"))].into(), reset: false },
            Ask::Revoke(n) => Change::RevokeTokens { tokens: [(token(n), 4_000_000_000)].into(), now_s: 1_700_000_000 },
            Ask::Member(action, at) => {
                let node = self.who(crate::fault::Who::Other(at));
                let voter = self.hosts[node].voter();
                let forgets = matches!(action, MemberAction::RemoveUnsafe | MemberAction::Decommission);
                if forgets && (self.hosts.len() < 4 || !self.record.would_remember(&[voter], 0)) {
                    return false;
                }
                let nodes = vec![self.hosts[node].id.clone()];
                Change::Membership { action, nodes, options: MemberOptions::default() }
            }
        };
        let Some(request) = self.hosts[via].process.as_mut().and_then(|p| p.core.request_id()) else { return false };
        if let Ask::Config(n) = ask {
            self.admin.open.insert(n);
            self.admin.asked.insert(n, self.now);
        }
        self.admin.waiting.insert(request.clone(), ask);
        self.input(via, Input::Propose { request, change, basis: None });
        true
    }

    pub(crate) fn on_admin_reply(&mut self, request: &RequestId, reply: &Reply) -> Verdict {
        let Some(ask) = self.admin.waiting.remove(request) else { return Ok(()) };
        match (ask, reply) {
            (Ask::Config(n), Reply::Settled { outcome: Outcome::Done, .. }) => {
                self.admin.open.remove(&n);
                self.admin.settled.insert(n, self.now);
                self.counts.saw(Seen::Configured);
            }
            (Ask::Config(n), Reply::Unavailable) => {
                self.admin.open.remove(&n);
            }
            (Ask::Revoke(n), Reply::Settled { outcome: Outcome::Done, .. }) => {
                self.admin.revoked.insert(n);
                self.counts.saw(Seen::Revoked);
            }
            (Ask::Member(..), Reply::Settled { outcome: Outcome::Done | Outcome::Began(_), .. }) => {
                self.counts.saw(Seen::TxnBegun);
            }
            (Ask::Member(..), Reply::Settled { outcome: Outcome::Refused(Refusal::Busy(_)), .. }) => {
                self.counts.saw(Seen::TxnBusy);
            }
            (Ask::Config(_) | Ask::Revoke(_), Reply::Settled { outcome: Outcome::Refused(why), .. }) => {
                return violated("I10", format!("{ask:?} was refused: {why}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes every member back into service; true once all are, and nothing is half done.
    pub(crate) fn all_in_service(&mut self) -> bool {
        let Some(primary) = self.primary() else { return false };
        let Some(state) = self.served(primary).cloned() else { return false };
        if let Some(txn) = state.transaction() {
            // A voter that leaves for good waits for another in its place: `wind_up` sees to the end of it.
            return txn.action == MemberAction::Decommission;
        }
        let out = state.nodes().values().find(|n| n.flags & (flags::MAINTENANCE | flags::DECOMMISSION) != 0);
        let Some(node) = out.map(|n| n.id.clone()) else { return true };
        // The gateway that was asked may have ended.
        if self.admin.served.is_none_or(|at| self.now >= at + AGAIN)
            && let Some(request) = self.hosts[primary].process.as_mut().and_then(|p| p.core.request_id())
        {
            let (action, options) = (MemberAction::StopMaintenance, MemberOptions::default());
            self.admin.served = Some(self.now);
            self.admin.waiting.insert(request.clone(), Ask::Member(action, 0));
            self.input(
                primary,
                Input::Propose {
                    request,
                    change: Change::Membership { action, nodes: vec![node], options },
                    basis: None,
                },
            );
        }
        false
    }

    /// How many living voters may be about to lose their seats.
    pub(crate) fn leaving(&self) -> usize {
        let asked = |ask: &&Ask| matches!(ask, Ask::Member(..));
        self.admin.waiting.values().filter(asked).count().max(usize::from(self.pending_txn().is_some()))
    }

    /// What the primary has not finished yet; nothing while nobody leads.
    pub(crate) fn pending_txn(&self) -> Option<Txn> {
        self.served(self.primary()?)?.transaction().cloned()
    }

    /// I10 of what administrators were told, at every node after healing.
    pub(crate) fn check_admin(&self) -> Verdict {
        // What a recovery gave up was answered before.
        if self.record.newest().incarnation > 0 {
            return Ok(());
        }
        for node in 0..self.hosts.len() {
            let Some(state) = self.served(node) else { continue };
            let missing = self.admin.revoked.iter().find(|n| !state.tokens().revoked.contains_key(&token(**n)));
            if let Some(n) = missing {
                return violated(
                    "I10",
                    format!("token {n} was answered as revoked, {} accepts it", self.hosts[node].id),
                );
            }
            let value = state.config().value(KEY).to_owned();
            if !self.admin.may_hold(&value) {
                let (id, settled) = (&self.hosts[node].id, &self.admin.settled);
                return violated("I10", format!("{id} has {value}, which these overwrote: {settled:?}"));
            }
        }
        Ok(())
    }

    // ---- lost majority

    /// A majority of the newest electorate loses its disks. What survives at best must be held by a gateway that may
    /// lead: an administrator has nothing else to go on from.
    pub(crate) fn lose_majority(&mut self, order: u64, admin_us: Micros) -> bool {
        let Some((_, newest)) = self.known.last_key_value().map(|(s, state)| (*s, state.clone())) else { return false };
        if self.record.commits() < 3 || self.admin.recovering {
            return false;
        }
        let seats: Vec<VoterId> = newest.electorate().iter().map(|v| v.id.clone()).collect();
        let mut victims: Vec<usize> =
            (0..self.hosts.len()).filter(|n| seats.contains(&self.hosts[*n].voter())).collect();
        let mut rng = Rng::new(order);
        while victims.len() > seats.len() / 2 + 1 {
            victims.swap_remove(rng.index(victims.len()));
        }
        if victims.len() * 2 <= seats.len() {
            return false;
        }
        let held = |n: &usize| self.hosts[*n].disk.accepted().map(|s| s.stamp());
        let left = || (0..self.hosts.len()).filter(|n| !victims.contains(n));
        let leads = |n: &usize| newest.nodes().get(&self.hosts[*n].id).is_some_and(|m| m.electable());
        let best = left().filter_map(|n| held(&n)).max();
        if best.is_none() || !left().any(|n| leads(&n) && held(&n) == best) {
            return false;
        }
        (self.admin.recovering, self.admin.lost_at) = (true, self.now);
        for node in victims {
            let voter = self.hosts[node].voter();
            self.end_process(node);
            self.record.wiped(&voter);
            let fresh = DiskId(self.rng.bits());
            self.hosts[node].disk = crate::disk::Disk::format(fresh, self.plan.sync_us, self.plan.bytes);
            self.after(ms(800), Event::Start { node });
        }
        self.after(admin_us, Event::Later(Later::Recover));
        true
    }

    /// The administrator looks at what everybody holds, and confirms the best stamp where it is held.
    pub(crate) fn recover(&mut self) {
        if self.primary().is_some() {
            // The last one leads until its lease is over (seed 23691).
            if self.now < self.admin.lost_at + ms(10_000) {
                self.after(AGAIN, Event::Later(Later::Recover));
            }
            return;
        }
        let held = |n: usize| self.hosts[n].process.as_ref().and_then(|p| p.core.view().accepted);
        let able = |n: &usize| {
            let host = &self.hosts[*n];
            host.disk.accepted().is_some_and(|s| {
                s.nodes().get(&host.id).is_some_and(|m| m.electable())
                    || s.electorate().iter().any(|v| v.electable && v.id == host.voter())
            })
        };
        let best = (0..self.plan.gateways).filter(able).filter_map(|n| Some((held(n)?, n))).max();
        if let Some((stamp, node)) = best {
            self.admin.nonce += 1;
            let nonce = self.admin.nonce;
            // The first time with a slip of the pen.
            let slip = *self.admin.slip.get_or_insert(nonce) == nonce;
            let stamp = if slip { stamp.next() } else { stamp };
            self.input(node, Input::Recover { nonce, stamp });
        }
        self.after(AGAIN, Event::Later(Later::Recover));
    }

    pub(crate) fn on_recovered(&mut self, nonce: u64, result: &Result<Stamp, RecoverRefused>) -> Verdict {
        match result {
            Ok(stamp) if self.admin.slip == Some(nonce) => {
                return violated("I3", format!("recovered as {stamp} from a State that nobody confirmed"));
            }
            Ok(stamp) => {
                self.trace.note(self.now, || format!("recovered as {stamp}"));
                self.counts.saw(Seen::Recovered);
            }
            Err(why) => {
                self.trace.note(self.now, || format!("not recovered: {why}"));
                self.counts.saw(Seen::RecoverRefused);
            }
        }
        Ok(())
    }
}
