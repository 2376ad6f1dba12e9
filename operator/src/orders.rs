//! Calls to primaries that are under way or were answered: one at a time for each cluster, none repeated in haste.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::hub::ClusterKey;
use crate::perform::TransferOutcome;
use crate::plan::order::Order;

/// The same call is not made again before: what it did may not be visible yet.
const PAUSE: Duration = Duration::from_secs(2);

struct Asked {
    order: Order,
    at: Instant,
    outcome: Option<TransferOutcome>,
}

/// The last call of each cluster.
#[derive(Default)]
pub struct Orders(Mutex<BTreeMap<ClusterKey, Asked>>);

impl Orders {
    /// True if the call may be made now; it counts as under way from here on.
    pub fn begin(&self, key: &ClusterKey, order: &Order) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = all.get(key) {
            let soon = asked.order == *order && asked.at.elapsed() < PAUSE;
            if asked.outcome.is_none() || soon {
                return false;
            }
        }
        all.insert(key.clone(), Asked { order: order.clone(), at: Instant::now(), outcome: None });
        true
    }

    /// It ended. A call always does: it is bounded in time.
    pub fn end(&self, key: &ClusterKey, outcome: TransferOutcome) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = all.get_mut(key) {
            (asked.at, asked.outcome) = (Instant::now(), Some(outcome));
        }
    }

    /// The last call, if it was answered.
    #[must_use]
    pub fn answer(&self, key: &ClusterKey) -> Option<(Order, TransferOutcome)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = all.get(key)?;
        Some((asked.order.clone(), asked.outcome.clone()?))
    }

    /// Forgets a cluster.
    pub fn forget(&self, key: &ClusterKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_and_none_in_haste() {
        let (orders, key) = (Orders::default(), ("ns".to_owned(), "demo".to_owned()));
        let (one, other) = (Order::Decommission("demo-gateway-4".into()), Order::Stopping(true));
        assert!(orders.begin(&key, &one));
        assert!(!orders.begin(&key, &one) && !orders.begin(&key, &other), "one is under way");
        assert_eq!(orders.answer(&key), None);
        orders.end(&key, TransferOutcome::Answered);
        assert_eq!(orders.answer(&key), Some((one.clone(), TransferOutcome::Answered)));
        assert!(!orders.begin(&key, &one), "just answered");
        assert!(orders.begin(&key, &other), "another one");
        orders.forget(&key);
        assert!(orders.begin(&key, &one));
    }
}
