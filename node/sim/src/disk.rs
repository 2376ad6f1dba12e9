//! A disk: what is synced stays, what is not may be lost, wholly or from some record on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ais_ha::register::Term;
use ais_ha::{Genesis, HardState, Persist, Token, Vote};
use ais_meta::{Delta, DiskId, Full, Stamp, State};

/// States that may turn out to be the newest committed one.
const RECENT_MAX: usize = 64;

/// The accepted State as bytes: a snapshot and changes appended to it, as the daemon keeps it.
#[derive(Default)]
struct Log {
    full: Option<Full>,
    deltas: Vec<Arc<Delta>>,
}

/// One node's state directory.
pub(crate) struct Disk {
    /// Its name; another after a wipe.
    pub(crate) id: DiskId,
    /// Starts on it so far.
    pub(crate) run: u64,
    vote: Vote,
    pub(crate) genesis: Genesis,
    accepted: Option<Arc<State>>,
    committed: Option<Arc<State>>,
    recent: BTreeMap<Stamp, Arc<State>>,
    /// Replay from bytes at each start instead of from memory.
    log: Option<Log>,
    /// Handed over, not synced.
    pub(crate) queue: VecDeque<Persist>,
    /// A sync is under way: how many of the queue it covers, when it began, what it will say.
    pub(crate) syncing: Option<Sync>,
    /// Nothing ends before then, microseconds.
    pub(crate) hangs_until: u64,
    /// Nothing ends ever again, until somebody mends it and starts another process.
    pub(crate) dead: bool,
    /// No room.
    pub(crate) full: bool,
    /// Range of one sync, microseconds.
    pub(crate) sync_us: (u64, u64),
}

/// A sync under way.
pub(crate) struct Sync {
    /// Records that it covers.
    pub(crate) covers: usize,
    /// When it began, microseconds.
    pub(crate) since: u64,
    /// Names it.
    pub(crate) number: u64,
}

impl Disk {
    /// Formats one.
    #[must_use]
    pub(crate) fn format(id: DiskId, sync_us: (u64, u64), bytes: bool) -> Self {
        Self {
            id,
            run: 0,
            vote: Vote::default(),
            genesis: Genesis::default(),
            accepted: None,
            committed: None,
            recent: BTreeMap::new(),
            log: bytes.then(Log::default),
            queue: VecDeque::new(),
            syncing: None,
            hangs_until: 0,
            dead: false,
            full: false,
            sync_us,
        }
    }

    /// Whether it replays from bytes.
    #[must_use]
    pub(crate) fn keeps_bytes(&self) -> bool {
        self.log.is_some()
    }

    /// Effective promise.
    #[must_use]
    pub(crate) fn promised(&self) -> Term {
        let accepted = self.accepted.as_ref().map(|s| s.stamp()).unwrap_or_default();
        Term::new(self.vote.incarnation, self.vote.promised).max(accepted.into())
    }

    /// The accepted State.
    #[must_use]
    pub(crate) fn accepted(&self) -> Option<&Arc<State>> {
        self.accepted.as_ref()
    }

    /// Newest committed stamp that it can serve.
    #[must_use]
    pub(crate) fn committed(&self) -> Stamp {
        self.committed.as_ref().map(|s| s.stamp()).unwrap_or_default()
    }

    /// What the daemon would load at a start.
    ///
    /// # Errors
    /// The bytes do not lead to the State that was written.
    pub(crate) fn load(&self) -> Result<HardState, String> {
        let mut hard = HardState {
            vote: self.vote.clone(),
            genesis: self.genesis.clone(),
            accepted: self.accepted.clone(),
            committed: self.committed.clone(),
            remembered: None,
        };
        if let Some(log) = &self.log
            && let Some(full) = &log.full
        {
            let mut state = State::from_full(full).map_err(|e| e.to_string())?;
            for delta in &log.deltas {
                state = state.apply(delta).map_err(|e| e.to_string())?;
            }
            if Some(&state) != hard.accepted.as_deref() {
                return Err(format!("replayed {state:?}, written was {:?}", hard.accepted));
            }
            hard.accepted = Some(Arc::new(state));
        }
        // As the daemon: the State goes to the disk before the word "formed", and proves it.
        if let Some(state) = hard.accepted.as_ref().filter(|_| !hard.genesis.is_formed()) {
            hard.genesis = Genesis::Formed(state.uuid().clone());
        }
        Ok(hard)
    }

    /// As a snapshot of the volume taken now would come back.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Self {
        let log = self.log.as_ref().map(|l| Log { full: l.full.clone(), deltas: l.deltas.clone() });
        Self {
            run: self.run,
            vote: self.vote.clone(),
            genesis: self.genesis.clone(),
            accepted: self.accepted.clone(),
            committed: self.committed.clone(),
            recent: self.recent.clone(),
            log,
            ..Self::format(self.id, self.sync_us, false)
        }
    }

    /// Promise and founding of one record reach the disk.
    pub(crate) fn write_vote(&mut self, persist: &Persist) {
        self.vote = persist.vote.clone();
        if let Some(genesis) = &persist.genesis {
            self.genesis = genesis.clone();
        }
    }

    /// The accepted State of one record reaches the disk. Gives the State that it follows on, if it says so.
    ///
    /// # Errors
    /// The change does not start at what the disk holds: a replay would fail.
    pub(crate) fn write_state(&mut self, persist: &Persist) -> Result<(), String> {
        if let Some(write) = &persist.accepted {
            let have = self.accepted.as_ref().map(|s| (s.stamp(), s.digest()));
            let first = write.deltas.first().map(|d| (d.base, d.base_digest));
            let chained = write.deltas.windows(2).all(|w| w[0].stamp == w[1].base);
            let leads =
                write.deltas.last().is_none_or(|d| (d.stamp, d.digest) == (write.state.stamp(), write.state.digest()));
            if (first.is_some() && first != have) || !chained || !leads {
                return Err(format!("changes from {first:?} to {} written onto {have:?}", write.state.stamp()));
            }
            if let Some(log) = &mut self.log {
                if write.deltas.is_empty() {
                    *log = Log { full: Some(write.state.full()), deltas: Vec::new() };
                } else {
                    log.deltas.extend(write.deltas.iter().cloned());
                }
            }
            self.accepted = Some(write.state.clone());
            self.recent.insert(write.state.stamp(), write.state.clone());
        }
        if let Some(state) = self.recent.get(&persist.committed) {
            self.committed = Some(state.clone());
        }
        let committed = self.committed();
        self.recent.retain(|stamp, _| *stamp >= committed);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
        Ok(())
    }

    /// The highest token among the first `covers`.
    #[must_use]
    pub(crate) fn last_token(&self, covers: usize) -> Option<Token> {
        covers.checked_sub(1).and_then(|last| self.queue.get(last)).map(|p| p.token)
    }
}
