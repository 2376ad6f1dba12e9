//! The newest steps from State to State, kept by every member: a new primary brings the others up to date with what
//! changed, not with the whole State.

use std::collections::VecDeque;
use std::sync::Arc;

use ais_meta::{Delta, Stamp};

/// Steps that are kept.
const STEPS_MAX: usize = 512;
/// Bytes of entries that are kept; above it, sending a whole State costs little more.
const BYTES_MAX: usize = 4 << 20;

/// An unbroken chain of steps.
#[derive(Default)]
pub(super) struct Recent {
    steps: VecDeque<Arc<Delta>>,
    bytes: usize,
}

fn size(delta: &Delta) -> usize {
    delta.changes.iter().map(|(key, bytes)| key.len() + bytes.as_ref().map_or(0, |b| b.len())).sum()
}

impl Recent {
    /// Adds a step. One that does not follow on the last begins a new chain.
    pub(super) fn push(&mut self, delta: Arc<Delta>) {
        let follows = |last: &Arc<Delta>| last.stamp == delta.base && last.digest == delta.base_digest;
        if !self.steps.back().is_none_or(follows) {
            self.clear();
        }
        self.bytes += size(&delta);
        self.steps.push_back(delta);
        while (self.steps.len() > STEPS_MAX || self.bytes > BYTES_MAX)
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= size(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn starts_at(&self, base: Stamp) -> bool {
        self.steps.iter().any(|d| d.base == base)
    }

    /// Steps from `base` to `target`, if all are kept.
    pub(super) fn path(&self, base: Stamp, target: Stamp) -> Option<Vec<Arc<Delta>>> {
        let first = self.steps.iter().position(|d| d.base == base)?;
        let steps: Vec<_> = self.steps.iter().skip(first).take_while(|d| d.stamp <= target).cloned().collect();
        (steps.last().map(|d| d.stamp) == Some(target)).then_some(steps)
    }
}
