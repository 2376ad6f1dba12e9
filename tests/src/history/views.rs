//! What may never be seen of nodes, whatever clients are told.

use std::collections::BTreeMap;

use ais_ha::register::Term;
use ais_meta::Stamp;

use crate::client::View;

/// One primary an epoch; promises and published stamps never fall.
#[derive(Debug, Default)]
pub struct Views {
    /// All that was wrong.
    pub wrong: Vec<String>,
    /// By incarnation and epoch: node and disk, run.
    primaries: BTreeMap<(u32, u64), (String, u64)>,
    promised: BTreeMap<(String, String), Term>,
    published: BTreeMap<(String, String), Stamp>,
}

impl Views {
    /// Looks at a view; those of one node in the order in which they were taken.
    pub fn add(&mut self, view: &View) {
        if let Some(stamp) = view.stamp {
            let process = (format!("{}/{}", view.node_id, view.disk_id), view.run);
            if view.leads() {
                let known = self.primaries.entry((stamp.incarnation, stamp.epoch)).or_insert_with(|| process.clone());
                if *known != process {
                    self.wrong.push(format!("epoch {} had two primaries: {known:?} and {process:?}", stamp.epoch));
                }
            }
            let last = self.published.entry((view.node_id.clone(), view.boot_id.clone())).or_insert(stamp);
            if stamp < *last {
                self.wrong.push(format!("{} published {last}, then {stamp}", view.node_id));
            }
            *last = stamp;
        }
        let last = self.promised.entry((view.node_id.clone(), view.disk_id.clone())).or_default();
        // An epoch is one of its incarnation: after a recovery the numbers begin anew.
        let promised = Term::new(view.promised_incarnation, view.promised);
        if promised < *last {
            self.wrong.push(format!("{} had promised {last}, then {promised}", view.node_id));
        }
        *last = promised;
    }

    /// Epochs in which somebody was seen to lead.
    pub fn epochs(&self) -> usize {
        self.primaries.len()
    }
}
