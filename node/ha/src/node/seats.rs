//! Who votes, as the primary decides it (protocol.md section 4): what it knows, put before [`crate::electorate`].

use std::sync::Arc;

use ais_meta::node::flags;
use ais_meta::state::Draft;
use ais_meta::{Kind, Node as Member, State, Voter, VoterId};

use super::Node;
use super::lead::Lead;
use crate::electorate::{Inputs, Newcomer, Seat, Standing, Step, next_step};
use crate::mutant::Mutant;
use crate::quorum;
use crate::register::Term;

impl Node {
    /// Adds or removes one voter, if that is due (rule 7).
    pub(super) fn edit_electorate(&self, draft: &mut Draft, lead: &Lead) {
        if quorum::names(lead.tip().electorate()) != quorum::names(draft.state().electorate()) {
            return;
        }
        let changes = if Mutant::TwoVotersAtOnce.on() { 2 } else { 1 };
        for _ in 0..changes {
            match self.next_step(draft.state(), lead) {
                Some(Step::Add(voter)) => draft.add_voter(voter),
                Some(Step::Remove(id)) => draft.remove_voter(&id),
                None => return,
            }
        }
    }

    fn next_step(&self, state: &State, lead: &Lead) -> Option<Step> {
        let seats = state.electorate().iter().map(|v| self.seat(v, state, lead)).collect();
        let mut inputs =
            Inputs { me: self.me.id.clone(), voters_max: self.config.voters, seats, newcomers: Vec::new() };
        if inputs.has_room() {
            inputs.newcomers = state.nodes().values().filter_map(|n| self.newcomer(n, state, lead)).collect();
        }
        next_step(&inputs)
    }

    fn seat(&self, voter: &Voter, state: &State, lead: &Lead) -> Seat {
        let node = state.nodes().get(&voter.id.node);
        Seat {
            voter: voter.clone(),
            domain: node.map(|n| n.domain.clone()).unwrap_or_default(),
            standing: self.standing(voter, state, lead),
            current: self.is_current(&voter.id, lead),
        }
    }

    fn standing(&self, voter: &Voter, state: &State, lead: &Lead) -> Standing {
        let (node, past) = (state.nodes().get(&voter.id.node), state.past().get(&voter.id.node));
        let flags = node.map(|n| n.flags).or(past.map(|p| p.flags)).unwrap_or_default();
        let heard = lead.seats.get(&voter.id).copied().unwrap_or_else(|| lead.since());
        let wiped = node.is_some_and(|n| n.disk != voter.id.disk);
        let lost = state.rmd().lost.contains(&voter.id.disk);
        match () {
            () if wiped || lost || self.now >= heard + self.config.timers.evict_voter_ms => Standing::Gone,
            () if flags & flags::DECOMMISSION != 0 => Standing::Leaving,
            // It is about to be stopped for long, and a witness's place is anybody's. (An administrator who retires one
            // target after the other would else end with a majority of seats that nobody sits on.)
            () if voter.kind == Kind::Target && flags & flags::MAINTENANCE != 0 => Standing::Leaving,
            () if voter.kind == Kind::Gateway && flags & flags::NON_ELECTABLE != 0 => Standing::Unfit,
            () => Standing::Good,
        }
    }

    /// Somebody without a seat who may have one: an electable gateway or a target in service.
    fn newcomer(&self, node: &Member, state: &State, lead: &Lead) -> Option<Newcomer> {
        let id = node.voter_id();
        let out_of_service = flags::NON_ELECTABLE | flags::MAINTENANCE | flags::DECOMMISSION;
        let serves = node.electable() || (node.kind == Kind::Target && node.flags & out_of_service == 0);
        if !serves || self.live.is_stopping(&id) || quorum::seats(state.electorate(), &id) {
            return None;
        }
        // In the cluster map first, and only then a voter: whether it flaps is known once that is published.
        let same = |n: &Arc<Member>| (n.disk, n.run) == (node.disk, node.run);
        let is_in = self.published.as_ref().is_some_and(|s| s.nodes().get(&node.id).is_some_and(same));
        let fit = is_in && self.is_current(&id, lead) && self.returns.is_stable(&node.id, self.now);
        Some(Newcomer { voter: Voter::from(node), domain: node.domain.clone(), fit })
    }

    /// Connected, heard of within two heartbeats, and has what was committed one heartbeat ago in this epoch.
    fn is_current(&self, id: &VoterId, lead: &Lead) -> bool {
        if self.is_me(id) {
            return true;
        }
        let Some(progress) = lead.members.get(&id.node).filter(|p| p.id == *id) else {
            return false;
        };
        let (term, fresh_ms) = (Term::from(lead.tip().stamp()), 2 * self.config.timers.heartbeat_ms);
        let follows = progress.acked.is_some_and(|acked| Term::from(acked) == term && acked >= lead.mark);
        self.live.is_connected(id) && follows && progress.heard.is_some_and(|at| self.now < at + fresh_ms)
    }

    /// A State is published: who was known before and is in the Smap with another process has come back.
    pub(super) fn count_returns(&mut self, state: &State) {
        let Some(old) = self.published.clone().filter(|old| old.smap().version != state.smap().version) else {
            return;
        };
        let back = |n: &Member| match old.nodes().get(&n.id) {
            Some(before) => (before.disk, before.run) != (n.disk, n.run),
            None => old.past().contains_key(&n.id),
        };
        for node in state.nodes().values().filter(|n| back(n)) {
            self.returns.returned(&node.id, self.now);
        }
    }
}
