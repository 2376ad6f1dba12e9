//! How long to wait before a pass is repeated.

use std::time::Duration;

use crate::apply::ApplyError;
use crate::controller::Error;

/// Somebody else changed the resource between our read and our write: no failure, only another look, soon.
#[must_use]
pub fn after_conflict(error: &Error) -> Option<Duration> {
    // Only these are written over a version that was read; another 409 would not go away by itself.
    let versioned = |what: &str| ["status", "finalizer"].contains(&what);
    let is_conflict = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 409);
    let conflict =
        matches!(error, Error::Apply(ApplyError::Api { what, source }) if versioned(what) && is_conflict(source));
    conflict.then(|| Duration::from_millis(100 + u64::from(random())))
}

/// After so many failures in a row: a second at first, about a minute at most.
#[must_use]
pub fn after_failures(failures: u32) -> Duration {
    pause(failures, random())
}

/// Half of it is random: what failed for many clusters at once must not be repeated for all at once.
fn pause(failures: u32, random: u8) -> Duration {
    let whole = Duration::from_secs(1 << failures.saturating_sub(1).min(6));
    whole / 2 + whole * u32::from(random) / 512
}

fn random() -> u8 {
    let mut byte = [0u8; 1];
    // Without randomness the pauses are equal: no harm.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        for failures in 1..40 {
            let (least, most) = (pause(failures, 0), pause(failures, 255));
            assert!(least < most && most <= Duration::from_secs(64), "{failures}: {least:?} to {most:?}");
            assert!(least >= Duration::from_millis(500) && pause(failures + 1, 0) >= least);
        }
    }
}
