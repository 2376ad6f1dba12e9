//! Known defects, put back on purpose: a checker that never failed proves nothing.
//!
//! Without the feature `mutants` every switch is off at compile time. With it, one can be turned on for the process.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// A promise is sent without having been made durable.
    VotesNotPersisted = 1,
    /// Accepting a State leaves the promise where it was.
    AcceptKeepsPromise,
    /// A candidate wins with a majority of those who answered.
    MajorityOfResponders,
    /// A State counts as committed once its writer has it.
    CommitOnLocalPersist,
    /// A State that changes the electorate is counted in the one before.
    CommitInOldElectorate,
    /// A voter refuses by stamp only, not by promise.
    FenceByVersion,
    /// A candidate goes on from its own State.
    NoAdoption,
    /// A wiped disk votes under the id it had (the driver's: it keeps the disk id).
    WipedKeepsId,
    /// A State is proposed while the one before is in flight.
    SecondInFlight,
    /// Two voters are added by one State.
    TwoVotersAtOnce,
    /// The first write of an epoch takes the dead primary out of the electorate.
    FirstWriteDropsPrimary,
    /// A candidate counts promises in its own electorate instead of the adopted State's.
    OwnElectorate,
    /// The primary counts its lease from the time of the answer.
    LeaseFromReply,
    /// A primary that resigned goes on leading its epoch.
    ResumesAfterResign,
    /// A restarted candidate asks for the epoch that it had.
    EpochReused,
    /// Any bound node declares the cluster formed.
    AnyBoundFounds,
    /// A redial that timed out counts as dead evidence.
    TimeoutIsEvidence,
    /// A lease lasts as long as each node's own timers say, whatever the primary's States do.
    LeaseByOwnTimers,
    /// A recovery is told before it is on the disk.
    RecoveryTold,
    /// A heartbeat is answered with a State that is not on the disk yet.
    HeartbeatTellsUnwritten,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::VotesNotPersisted,
        Self::AcceptKeepsPromise,
        Self::MajorityOfResponders,
        Self::CommitOnLocalPersist,
        Self::CommitInOldElectorate,
        Self::FenceByVersion,
        Self::NoAdoption,
        Self::WipedKeepsId,
        Self::SecondInFlight,
        Self::TwoVotersAtOnce,
        Self::FirstWriteDropsPrimary,
        Self::OwnElectorate,
        Self::LeaseFromReply,
        Self::ResumesAfterResign,
        Self::EpochReused,
        Self::AnyBoundFounds,
        Self::TimeoutIsEvidence,
        Self::LeaseByOwnTimers,
        Self::RecoveryTold,
        Self::HeartbeatTellsUnwritten,
    ];

    /// Whether the switch is on.
    #[inline]
    #[must_use]
    pub fn on(self) -> bool {
        #[cfg(feature = "mutants")]
        return switch::get() == self as u8;
        #[cfg(not(feature = "mutants"))]
        false
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    static ON: AtomicU8 = AtomicU8::new(0);

    pub(super) fn get() -> u8 {
        ON.load(Ordering::Relaxed)
    }

    /// Turns one defect on for the whole process, or all off.
    pub fn set(mutant: Option<super::Mutant>) {
        ON.store(mutant.map_or(0, |m| m as u8), Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub use switch::set;
