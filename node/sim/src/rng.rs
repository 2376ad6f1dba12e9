//! The only source of chance: one seed, one run.

use ais_ha::pacemaker::Jitter;

/// Draws from a seed.
#[derive(Clone, Debug)]
pub struct Rng(Jitter);

impl Rng {
    /// Same seed, same draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Jitter::new(seed))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low + 1)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.bits() % 1000 < per_mille
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.bits() % (len.max(1) as u64)).unwrap_or(0)
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())).cloned() }
    }

    /// Many short ones, few long ones: `low` at least, `high` at most, the median near the low end.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        let shift = self.bits() % 5;
        low + (if span == 0 { 0 } else { self.bits() % (span + 1) } >> shift)
    }
}
