//! How long this primary may act (protocol.md rule 8).

use ais_meta::VoterId;

use super::{Node, Role};
use crate::io::Millis;
use crate::quorum;

impl Node {
    /// Until when this primary may act: its own clock, from the send time of the last round that a majority answered.
    pub(super) fn lease_until(&self) -> Option<Millis> {
        let Role::Leading(lead) = &self.role else {
            return None;
        };
        let own = self.durable.promised == self.term(lead.epoch);
        let value = |v: &VoterId| {
            if self.is_me(v) { own.then_some(self.now) } else { lead.rounds.answered(v) }
        };
        let electorates = [Some(&lead.tip), lead.committed.as_ref()];
        let reached = electorates.into_iter().flatten().map(|s| quorum::reached(s.electorate(), value));
        let from = reached.min().flatten()?;
        let lease_ms = self.config.timers.lease_ms;
        Some(from + lease_ms - lease_ms / 10)
    }

    /// The epoch of this primary while its lease runs: for test beds that judge I9.
    #[doc(hidden)]
    #[must_use]
    pub fn lease_valid(&self, now: Millis) -> Option<u64> {
        match &self.role {
            Role::Leading(lead) if lead.established() => {
                self.lease_until().filter(|until| now < *until).map(|_| lead.epoch)
            }
            _ => None,
        }
    }

    pub(super) fn own_lease_left_ms(&self) -> u64 {
        self.lease_until().unwrap_or(self.now).saturating_sub(self.now)
    }

    pub(super) fn lease_lapsed(&self) -> bool {
        self.lease_until().is_none_or(|until| self.now >= until)
    }
}
