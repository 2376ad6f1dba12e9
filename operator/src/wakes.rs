//! What starts the next pass over a cluster, besides the news of its nodes and objects.
//!
//! The operator's own writes of status are no news: they come back by the watch, but whoever asks for something changes
//! the spec or the metadata. So what such a write is only the first half of has to ask for the next pass itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ais_crds::{AISCluster, AISClusterStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;

/// When a pass follows one that left something to remember. The server has it by then.
const NEXT_STEP: Duration = Duration::from_millis(100);
/// When a pass follows one that wrote objects: volume claims are not watched.
const WRITTEN: Duration = Duration::from_secs(1);

/// A cluster, of which nothing but its metadata is known.
pub type Meta = PartialObjectMeta<AISCluster>;

/// Digest of what somebody may ask by: the spec (its generation), the end of the object, and what is marked on it.
#[must_use]
pub fn asks(cluster: &Meta) -> Option<u64> {
    let ObjectMeta { generation, deletion_timestamp, finalizers, labels, annotations, .. } = &cluster.metadata;
    let mut hasher = DefaultHasher::new();
    (generation, deletion_timestamp.is_some(), finalizers, labels, annotations).hash(&mut hasher);
    Some(hasher.finish())
}

/// True if the next pass decides by something that this one wrote to status: what is remembered, and no more than that.
/// The rest of status is for people.
#[must_use]
pub fn goes_on(before: Option<&AISClusterStatus>, after: &AISClusterStatus) -> bool {
    let Some(before) = before else { return true };
    let AISClusterStatus { primary, rollout, operation, config, formed, .. } = before;
    *primary != after.primary
        || *rollout != after.rollout
        || *operation != after.operation
        || config.keys != after.config.keys
        || *formed != after.formed
}

/// When to look again after a pass that would by itself do so after `calm`.
#[must_use]
pub fn again(calm: Duration, goes_on: bool, wrote: bool) -> Duration {
    match (goes_on, wrote) {
        (true, _) => calm.min(NEXT_STEP),
        (false, true) => calm.min(WRITTEN),
        (false, false) => calm,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::names::{ANNOTATION_REFOUND, FINALIZER};

    #[test]
    fn only_what_somebody_asks_for_wakes_a_pass() {
        let meta = |edit: fn(&mut ObjectMeta)| {
            let mut metadata = ObjectMeta {
                name: Some("demo".into()),
                generation: Some(3),
                resource_version: Some("17".into()),
                finalizers: Some(vec![FINALIZER.into()]),
                ..ObjectMeta::default()
            };
            edit(&mut metadata);
            asks(&Meta { types: None, metadata, _phantom: std::marker::PhantomData })
        };
        let before = meta(|_| {});
        assert_eq!(meta(|m| m.resource_version = Some("18".into())), before, "a write of status");
        let edits: [fn(&mut ObjectMeta); 5] = [
            |m| m.generation = Some(4),
            |m| m.finalizers = None,
            |m| m.labels = Some([("team".to_owned(), "a".to_owned())].into()),
            |m| m.annotations = Some([(ANNOTATION_REFOUND.to_owned(), "1".to_owned())].into()),
            |m| m.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH)),
        ];
        for edit in edits {
            assert_ne!(meta(edit), before);
        }
    }

    #[test]
    fn what_is_remembered_asks_for_the_next_pass_and_what_is_shown_does_not() {
        let before = AISClusterStatus::default();
        assert!(goes_on(None, &before));
        assert!(!goes_on(Some(&before), &before));
        let shown: [fn(&mut AISClusterStatus); 3] =
            [|s| s.phase = Some("Degraded".into()), |s| s.gateways.ready = 2, |s| s.smap.version = Some(7)];
        let remembered: [fn(&mut AISClusterStatus); 5] = [
            |s| s.primary.attempts = 1,
            |s| s.rollout = Some(ais_crds::RolloutStatus::default()),
            |s| s.operation = Some(ais_crds::OperationStatus::default()),
            |s| s.config.keys = vec!["log.level".into()],
            |s| s.formed = true,
        ];
        let judge = |edit: fn(&mut AISClusterStatus)| {
            let mut after = before.clone();
            edit(&mut after);
            goes_on(Some(&before), &after)
        };
        assert_eq!(shown.map(judge), [false; 3]);
        assert_eq!(remembered.map(judge), [true; 5]);
    }
}
