//! What a member looks like from outside.

use std::collections::BTreeMap;

use ais_meta::{NodeId, Stamp};

use super::{Node, Role};
use crate::genesis::{Genesis, Start};
use crate::io::{Action, Peer, RoleName, View};
use crate::quorum;

impl Node {
    /// What the node looks like now. Promise, accepted State and founding are as the disk has them: a view reveals
    /// nothing that a crash could take back.
    #[must_use]
    pub fn view(&self) -> View {
        let primary = self.believed_primary();
        let ready = self.is_in() && self.stop.is_none() && self.disk_ok && self.genesis.is_formed();
        View {
            role: self.role_name(),
            reason: self.why_not_ready(ready, primary.is_some()),
            uuid: self.uuid().cloned(),
            genesis: self.durable.genesis.clone(),
            published: self.published.clone(),
            accepted: Some(self.durable.accepted).filter(|s| *s != Stamp::default()),
            promised: self.durable.promised,
            epoch: self.leader.as_ref().map_or(self.register.promised().epoch, |l| l.epoch),
            primary,
            ready,
            stopping: self.stop.is_some(),
            disk_ok: self.disk_ok,
            members: self.member_views(),
            peers: self.peers(),
        }
    }

    fn why_not_ready(&self, ready: bool, led: bool) -> String {
        if ready && led {
            return String::new();
        }
        if self.stop.is_some() {
            return "stopping".to_owned();
        }
        if !self.reason.is_empty() && (!ready || !self.disk_ok) {
            return self.reason.clone();
        }
        if led {
            "waiting to be in the cluster map".to_owned()
        } else {
            "no primary: waiting for a majority".to_owned()
        }
    }

    fn role_name(&self) -> RoleName {
        let seated = || self.newest().is_some_and(|s| quorum::seats(s.electorate(), &self.me.id));
        match &self.role {
            _ if self.stop.is_some() => RoleName::Stopping,
            Role::Leading(lead) if lead.established() => RoleName::Primary,
            Role::Leading(_) | Role::Candidate(_) => RoleName::Candidate,
            Role::Follower if seated() => RoleName::Follower,
            Role::Follower if self.is_in() => RoleName::Learner,
            Role::Follower => RoleName::Joining,
            Role::Outside => match (&self.genesis, self.start()) {
                (Genesis::Formed(_), _) => RoleName::Waiting,
                (_, Start::Join) => RoleName::Joining,
                (_, Start::Found(_) | Start::GoOn(_)) => RoleName::Founding,
                _ => RoleName::Waiting,
            },
        }
    }

    /// Whom to keep a connection with.
    fn peers(&self) -> BTreeMap<NodeId, Peer> {
        let mut peers = BTreeMap::new();
        let mut add = |id: &NodeId, addresses: &ais_meta::Addresses, kind| {
            if *id != self.me.id.node {
                peers.insert(id.clone(), Peer { addresses: addresses.clone(), kind });
            }
        };
        for hint in self.hints.values() {
            add(&hint.id.node, &hint.addresses, hint.kind);
        }
        for heard in self.hellos.values() {
            add(&heard.from.id.node, &heard.hello.member.addresses, heard.hello.member.kind);
        }
        for state in [&self.published, &self.accepted].into_iter().flatten() {
            for voter in state.electorate() {
                add(&voter.id.node, &voter.addresses, voter.kind);
            }
            for node in state.nodes().values() {
                add(&node.id, &node.addresses, node.kind);
            }
        }
        peers
    }

    /// Says when role, primary, epoch or reason changed.
    pub(super) fn notice(&mut self) {
        let primary = self.believed_primary().map(|v| v.id);
        let epoch = self.leader.as_ref().map_or(0, |l| l.epoch);
        let shown = Some((self.role_name(), primary, epoch, self.reason.clone()));
        if shown != self.shown {
            self.shown = shown;
            self.actions.push(Action::RoleChanged);
        }
    }
}
