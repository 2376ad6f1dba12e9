//! Since when something that takes several steps is under way. Pure: the memory is `status.operation`.

use ais_crds::OperationStatus;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::facts::Observed;

/// The memory to keep, and whether it is new.
pub(super) fn remember(observed: &Observed, kind: &str, pod: &str, waits_for: &str) -> (OperationStatus, bool) {
    let before = last(observed).filter(|o| o.kind == kind && o.pod == pod && o.since.is_some());
    let now = Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
    let since = before.and_then(|o| o.since.clone()).unwrap_or(Time(now));
    let operation = OperationStatus {
        kind: kind.to_owned(),
        pod: pod.to_owned(),
        since: Some(since),
        waits_for: waits_for.to_owned(),
    };
    (operation, before.is_none())
}

/// What was remembered last.
pub(super) fn last(observed: &Observed) -> Option<&OperationStatus> {
    observed.cluster.status.as_ref()?.operation.as_ref()
}

/// How long it has been under way.
pub(super) fn age(observed: &Observed, operation: &OperationStatus) -> SignedDuration {
    operation.since.as_ref().map_or(SignedDuration::ZERO, |t| observed.now.duration_since(t.0))
}
