//! Clients' own request ids of which this gateway said "fate unknown" (protocol.md rule 13): a change under such an id
//! may have been made, or may still be. Until a primary says what became of it, no later call under the id is told
//! that nothing was proposed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::handle::Proposed;

/// Ids that are remembered. Whoever got a 504 sends again within minutes; beyond that many the gateway does not know
/// which ids it forgot, and says "unknown" of every one that it could not ask a primary about.
const IDS_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Ids {
    /// Oldest first.
    order: VecDeque<String>,
    open: BTreeSet<String>,
    forgot: bool,
}

/// Those ids; the runner and the handles share them.
#[derive(Debug, Default)]
pub(crate) struct Unproven(Mutex<Ids>);

impl Unproven {
    /// What a call under a client's own id is told, from how it ended.
    pub(crate) fn told(&self, id: &str, end: Proposed) -> Proposed {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match end {
            Proposed::Unknown { .. } => ids.add(id),
            Proposed::Settled { .. } => ids.remove(id),
            Proposed::Unavailable | Proposed::Busy if ids.forgot || ids.open.contains(id) => {
                return Proposed::Unknown { id: id.to_owned() };
            }
            Proposed::Unavailable | Proposed::Busy => {}
        }
        end
    }
}

impl Ids {
    fn add(&mut self, id: &str) {
        if self.open.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
            self.forgot = true;
        }
    }

    fn remove(&mut self, id: &str) {
        if self.open.remove(id) {
            self.order.retain(|known| known != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ais_meta::{Outcome, Stamp};

    fn unknown(id: &str) -> Proposed {
        Proposed::Unknown { id: id.to_owned() }
    }

    #[test]
    fn what_may_have_been_made_is_never_told_to_be_undone_until_a_primary_says_so() {
        let ids = Unproven::default();
        assert_eq!(ids.told("a", Proposed::Unavailable), Proposed::Unavailable, "nobody ever saw it");
        assert_eq!(ids.told("a", unknown("a")), unknown("a"));
        for end in [Proposed::Unavailable, Proposed::Busy, unknown("a")] {
            assert_eq!(ids.told("a", end), unknown("a"));
        }
        assert_eq!(ids.told("b", Proposed::Busy), Proposed::Busy, "another one");
        let settled = Proposed::Settled { outcome: Outcome::Done, stamp: Stamp::new(0, 1, 2) };
        assert_eq!(ids.told("a", settled.clone()), settled);
        assert_eq!(ids.told("a", Proposed::Unavailable), Proposed::Unavailable, "it is known");
    }

    #[test]
    fn beyond_the_bound_every_id_may_be_one_that_was_forgotten() {
        let ids = Unproven::default();
        for n in 0..IDS_MAX {
            ids.told(&n.to_string(), unknown("n"));
        }
        assert_eq!(ids.told("fresh", Proposed::Unavailable), Proposed::Unavailable);
        ids.told("one more", unknown("one more"));
        for id in ["0", "1", "one more", "fresh"] {
            assert_eq!(ids.told(id, Proposed::Unavailable), unknown(id));
        }
        let known = ids.0.lock().unwrap();
        assert_eq!((known.order.len(), known.open.len()), (IDS_MAX, IDS_MAX));
    }
}
