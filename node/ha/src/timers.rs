//! Timers under the cluster's configuration (`ha.*_ms`).

use ais_meta::settings::timers::problems;
use ais_meta::state::{Config as ClusterConfig, Head};

use crate::io::Timers;
use crate::mutant::Mutant;

impl Timers {
    fn fields(&mut self) -> [(&'static str, &mut u64); 10] {
        [
            ("heartbeat_ms", &mut self.heartbeat_ms),
            ("suspect_ms", &mut self.suspect_ms),
            ("lease_ms", &mut self.lease_ms),
            ("stagger_ms", &mut self.stagger_ms),
            ("evict_smap_ms", &mut self.evict_smap_ms),
            ("evict_voter_ms", &mut self.evict_voter_ms),
            ("publish_wait_ms", &mut self.publish_wait_ms),
            ("park_ms", &mut self.park_ms),
            ("drain_ms", &mut self.drain_ms),
            ("probe_ms", &mut self.probe_ms),
        ]
    }

    fn overridden(mut self, config: &ClusterConfig) -> Self {
        for (name, ms) in self.fields() {
            let set = config.settings.get(&format!("ha.{name}"));
            *ms = set.and_then(|v| v.parse().ok()).unwrap_or(*ms);
        }
        self
    }

    fn fit_together(&mut self) -> bool {
        let fields = self.fields().map(|(name, ms)| (name, *ms));
        problems(|wanted| fields.iter().find(|(name, _)| *name == wanted).map(|(_, ms)| *ms)).is_empty()
    }

    /// These timers, with what the cluster's configuration sets in their place. Where the mixture breaks a rule between
    /// timers, the cluster's settings count alone: they were checked as a whole when they were committed.
    #[must_use]
    pub fn under(&self, config: &ClusterConfig) -> Self {
        let mut mixed = self.clone().overridden(config);
        if mixed.fit_together() { mixed } else { Self::default().overridden(config) }
    }

    /// How long a lease this node gives a primary: no shorter than that one counts it, by its State's head.
    pub(crate) fn lease_under(&self, primary: Option<&Head>) -> u64 {
        let theirs = primary.filter(|_| !Mutant::LeaseByOwnTimers.on()).map_or(0, |head| head.lease_ms);
        theirs.max(self.lease_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]
mod tests {
    use ais_meta::settings::CLUSTER;

    use super::{ClusterConfig, Timers};

    fn set(pairs: &[(&str, u64)]) -> ClusterConfig {
        let settings = pairs.iter().map(|(name, ms)| (format!("ha.{name}"), ms.to_string())).collect();
        ClusterConfig { settings, ..ClusterConfig::default() }
    }

    #[test]
    fn the_table_of_settings_has_the_same_timers_and_defaults() {
        let mut timers = Timers::default();
        assert!(timers.fit_together());
        let ours: Vec<_> = timers.fields().map(|(name, ms)| (format!("ha.{name}"), ms.to_string())).to_vec();
        let mut table: Vec<_> = CLUSTER.settings().filter(|s| s.name.starts_with("ha.")).collect();
        assert!(table.iter().all(|s| !s.live), "they are taken at a start");
        table.retain(|s| !ours.contains(&(s.name.to_owned(), s.default.to_owned())));
        assert!(table.is_empty() && ours.len() == 10, "{table:?}");
    }

    #[test]
    fn the_clusters_settings_go_before_the_nodes_own() {
        let own = Timers { suspect_ms: 1800, stagger_ms: 100, ..Timers::default() };
        assert_eq!(own.under(&set(&[])), own);
        let mixed = own.under(&set(&[("lease_ms", 4000)]));
        assert_eq!((mixed.suspect_ms, mixed.lease_ms, mixed.stagger_ms), (1800, 4000, 100));
    }

    #[test]
    fn a_mixture_that_breaks_a_rule_is_not_used() {
        let own = Timers { suspect_ms: 3000, lease_ms: 5000, ..Timers::default() };
        let cluster = own.under(&set(&[("lease_ms", 2500)]));
        assert_eq!((cluster.suspect_ms, cluster.lease_ms), (1500, 2500));
    }
}
