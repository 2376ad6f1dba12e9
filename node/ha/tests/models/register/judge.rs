//! What may never be: I1, I2 to I4, I6 and I8, over all that is on the network.

use std::sync::Arc;

use ais_ha::quorum;
use ais_ha::register::Term;

use super::{Issued, Msg, World};
use ais_meta::VoterId;

impl World {
    pub(super) fn break_if(&mut self, holds: bool, what: &'static str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what);
        }
    }

    pub(super) fn issued(&self) -> impl Iterator<Item = &Arc<Issued>> {
        self.net.iter().filter_map(|m| match &**m {
            Msg::Append(issued) => Some(issued),
            _ => None,
        })
    }

    /// Rule 6, seen from above: who acknowledged it is on the network for ever.
    pub(super) fn decided(&self, issued: &Issued) -> bool {
        let acked = |v: &VoterId| {
            self.net.iter().any(|m| {
                matches!(&**m, Msg::Appended { from, stamp, digest }
                    if from == v && *stamp == issued.slot.stamp && *digest == issued.slot.digest)
            })
        };
        quorum::decides(&issued.slot.voters, acked)
    }

    pub(super) fn published(&self, issued: &Issued) -> bool {
        self.net.iter().any(|m| {
            matches!(&**m, Msg::Commit { stamp, digest } if *stamp == issued.slot.stamp && *digest == issued.slot.digest)
        })
    }

    /// Whether `old` is `new` or came before it on its chain.
    pub(super) fn precedes(&self, old: &Issued, new: &Issued) -> bool {
        let mut at = Some((new.slot.stamp, new.slot.digest));
        while let Some((stamp, digest)) = at {
            if (stamp, digest) == (old.slot.stamp, old.slot.digest) {
                return true;
            }
            at = self.issued().find(|i| i.slot.stamp == stamp && i.slot.digest == digest).and_then(|i| i.parent);
        }
        false
    }

    /// What somebody may rely on: published, or held by a majority.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Arc<Issued>> {
        self.issued().filter(|i| self.published(i) || self.decided(i))
    }

    /// I3 and I8, after an acknowledgement or a publication.
    pub(super) fn judge_chain(&mut self, chain_only: bool, honest: bool) {
        let issued: Vec<Arc<Issued>> = self.issued().cloned().collect();
        for i in &issued {
            let fine = !self.published(i) || self.decided(i);
            self.break_if(fine || chain_only, "I8: published before it was committed");
        }
        let counts: Vec<_> = self.counting().cloned().collect();
        for (at, one) in counts.iter().enumerate() {
            let newest = counts.iter().map(|i| i.slot.stamp.incarnation).max() == Some(one.slot.stamp.incarnation);
            // What the line before sent last may still reach a voter: lost only if it was published, and the new line
            // does not go on from it.
            let goes_on = |new: &Arc<Issued>| new.slot.stamp.incarnation == 0 || self.precedes(one, new);
            let late = honest
                && !newest
                && self.published(one)
                && !self.before.contains(&one.slot.stamp)
                && !issued.iter().all(goes_on);
            self.break_if(!late, "I3: the line before went on after an honest recovery");
            let same = |two: &&Arc<Issued>| two.slot.stamp.incarnation == one.slot.stamp.incarnation;
            for two in counts[..at].iter().filter(same) {
                let fine = self.precedes(one, two) || self.precedes(two, one);
                self.break_if(fine, "I3: two committed States are not on one chain");
            }
        }
    }

    /// I1, I4, I6, when a State is written.
    pub(super) fn judge_issue(&mut self, new: &Issued, chain_only: bool) {
        let issued: Vec<Arc<Issued>> = self.issued().cloned().collect();
        for old in issued {
            let same_epoch = Term::from(old.slot.stamp) == Term::from(new.slot.stamp);
            let same_writer = (&old.primary, old.run) == (&new.primary, new.run);
            if old.slot.stamp == new.slot.stamp && old.slot.digest != new.slot.digest {
                self.break_if(false, "I4: two contents under one stamp");
            }
            self.break_if(!same_epoch || same_writer || chain_only, "I1: two processes write in one epoch");
            if new.parent == Some((old.slot.stamp, old.slot.digest)) && !chain_only {
                if old.slot.stamp.incarnation < new.slot.stamp.incarnation {
                    self.break_if(new.slot.voters.len() == 1, "I6: a recovered line is not its writer's alone");
                    continue;
                }
                let kept = same_epoch || old.slot.voters == new.slot.voters;
                self.break_if(kept, "I6: the first State of an epoch changes the electorate");
                let apart = quorum::one_apart(&old.slot.voters, &new.slot.voters);
                self.break_if(apart, "I6: two voters change at once");
            }
        }
    }
}
