//! Who shall vote: the next step of the electorate (protocol.md section 4), as a function of what the primary knows.
//!
//! Nothing is remembered between steps. Every committed electorate is judged anew, by whoever is primary then, so a
//! change that a primary left half done is finished, or taken back, by the next one. At most one voter per step, and
//! never the primary's own seat.

use std::cmp::Reverse;

use ais_meta::{Voter, VoterId, hrw};

use crate::quorum;

/// One voter more or less.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This member gets a seat.
    Add(Voter),
    /// This seat goes.
    Remove(VoterId),
}

/// What is to become of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It stays.
    Good,
    /// A gateway that became non-electable (an access gateway never votes): keeps its seat until there is another.
    Unfit,
    /// It lives and leaves for good: somebody takes its place first.
    Leaving,
    /// Silent for `evict_voter`, or its disk is gone.
    Gone,
}

/// A voter as the primary knows it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its entry.
    pub voter: Voter,
    /// Its failure domain, empty when not known.
    pub domain: String,
    /// What is to become of it.
    pub standing: Standing,
    /// Connected, heard of just now, and has the State that was committed one heartbeat ago.
    pub current: bool,
}

/// A member without a seat that may have one: an electable gateway or a target in service.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// The entry that it would get.
    pub voter: Voter,
    /// Its failure domain, empty when not known.
    pub domain: String,
    /// At hand now: current as [`Seat::current`] has it, not stopping, not flapping.
    pub fit: bool,
}

/// What the primary knows.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The primary, which may be no voter.
    pub me: VoterId,
    /// Largest electorate.
    pub voters_max: usize,
    /// The electorate.
    pub seats: Vec<Seat>,
    /// Who could have a seat.
    pub newcomers: Vec<Newcomer>,
}

/// The next step, if one is due and safe.
#[must_use]
pub fn next_step(inputs: &Inputs) -> Option<Step> {
    inputs.wanted().filter(|step| inputs.is_safe(step))
}

impl Inputs {
    /// Whether a step may be due that depends on members without a seat; the rest of the time nobody needs to list
    /// them.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let good = self.seats.iter().filter(|s| self.standing(s) == Standing::Good).count();
        good < self.size_max() || self.electable_seats() < 2
    }

    /// The primary's own seat waits for the hand-over, whatever is to become of it; the next primary judges it.
    fn standing(&self, seat: &Seat) -> Standing {
        if seat.voter.id == self.me { Standing::Good } else { seat.standing }
    }

    fn size_max(&self) -> usize {
        odd(self.voters_max).max(1)
    }

    fn count(&self, standing: Standing) -> usize {
        self.seats.iter().filter(|s| self.standing(s) == standing).count()
    }

    fn electable_seats(&self) -> usize {
        self.seats.iter().filter(|s| self.standing(s) == Standing::Good && s.voter.electable).count()
    }

    /// How many seats there should be: odd, and at least 3 where members allow; two gateways alone stay two.
    fn target(&self) -> usize {
        let lasting = self.count(Standing::Good) + self.count(Standing::Unfit);
        match (lasting + self.newcomers.len()).min(self.size_max()) {
            2 if self.seats.len() >= 2 => 2,
            most => odd(most).max(1),
        }
    }

    fn wanted(&self) -> Option<Step> {
        if self.seats.len() > self.size_max() {
            return self.spare();
        }
        if self.count(Standing::Gone) > 0
            && let Some(step) = self.instead_of_the_gone()
        {
            return Some(step);
        }
        if self.count(Standing::Leaving) + self.count(Standing::Unfit) > 0 {
            return self.instead_of_the_leaving();
        }
        if self.count(Standing::Gone) > 0 { None } else { self.grow_or_shrink() }
    }

    /// A dead voter: remove, then add, if a replacement is at hand. Without one 3 -> 2 and 5 -> 4 gain nothing; of
    /// two dead in five both go, because three of three may lose one more and three of five may not. And a living one
    /// that leaves could never go while its acknowledgement stands for the dead one's.
    fn instead_of_the_gone(&self) -> Option<Step> {
        let gone: Vec<&Seat> = self.seats.iter().filter(|s| self.standing(s) == Standing::Gone).collect();
        let back = |s: &&&Seat| self.newcomers.iter().any(|n| n.fit && n.voter.id.node == s.voter.id.node);
        // The same node with another disk is its own replacement.
        let swapped = gone.iter().find(back).copied();
        let size = self.seats.len();
        if size % 2 == 1 {
            let alone = self.newcomers.is_empty() && self.count(Standing::Leaving) > 0;
            let any =
                gone.first().copied().filter(|_| self.best().is_some() || (gone.len() >= 2 && size >= 5) || alone);
            return swapped.or(any).map(remove);
        }
        match self.best().filter(|_| size < self.size_max()) {
            Some(newcomer) => Some(Step::Add(newcomer.voter.clone())),
            None if size > 2 => swapped.or(gone.first().copied()).map(remove),
            None => None,
        }
    }

    /// A living voter that leaves: add, then remove; nobody to come: remove while it can still acknowledge that.
    fn instead_of_the_leaving(&self) -> Option<Step> {
        let out = self.seats.iter().filter(|s| self.is_removable(s) && self.standing(s) != Standing::Gone);
        let out = out.max_by_key(|s| self.standing(s)).filter(|s| self.standing(s) != Standing::Good);
        let last = self.newcomers.is_empty() && out.is_some_and(|s| self.standing(s) == Standing::Leaving);
        // Replacing is one thing and growing another, which waits until both newcomers are here.
        let replaced = self.target().min(odd(self.seats.len()).max(2));
        if self.count(Standing::Good) >= replaced || last {
            return out.map(remove);
        }
        self.best().map(|n| Step::Add(n.voter.clone()))
    }

    fn grow_or_shrink(&self) -> Option<Step> {
        let (size, target, best) = (self.seats.len(), self.target(), self.best());
        let add = || best.map(|n| Step::Add(n.voter.clone()));
        if size.is_multiple_of(2) {
            return match size.cmp(&target) {
                std::cmp::Ordering::Less => add(),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => self.spare(),
            };
        }
        // From odd to odd: start only when both are here. Witnesses make room for a second gateway (its place is taken
        // from the then even electorate), so that the loss of one gateway leaves a voter that can lead.
        let both = target >= size + 2 && self.at_hand().count() >= 2;
        let lacks_gateway = size >= 3 && self.electable_seats() < 2 && best.is_some_and(|n| n.voter.electable);
        if both || lacks_gateway { add() } else { None }
    }

    /// The seat to give up when there are too many: the worst standing; among the good ones the last witness, then the
    /// last gateway. A living voter is not given up while another is silent.
    fn spare(&self) -> Option<Step> {
        let rank = |s: &&Seat| {
            let crowd = if s.voter.electable { 0 } else { self.crowd(&s.domain) };
            let digest = hrw::digest(s.voter.id.node.as_str());
            (self.standing(s), !s.voter.electable, s.voter.kind, crowd, Reverse(digest), s.voter.id.clone())
        };
        let worst = self.seats.iter().filter(|s| self.is_removable(s)).max_by_key(rank)?;
        let all_here = self.seats.iter().all(|s| s.current);
        (self.standing(worst) != Standing::Good || all_here).then(|| remove(worst))
    }

    fn is_removable(&self, seat: &Seat) -> bool {
        seat.voter.id != self.me
    }

    /// Seats that a failure of this domain takes along. A domain that nobody named is one of its own.
    fn crowd(&self, domain: &str) -> usize {
        let same = |s: &&Seat| !domain.is_empty() && s.domain == domain && self.standing(s) != Standing::Gone;
        self.seats.iter().filter(same).count()
    }

    /// Who can be seated now. A node with a seat on an old disk has to lose that first.
    fn at_hand(&self) -> impl Iterator<Item = &Newcomer> {
        let seated = |n: &Newcomer| self.seats.iter().any(|s| s.voter.id.node == n.voter.id.node);
        self.newcomers.iter().filter(move |n| n.fit && !seated(n))
    }

    /// Electable gateways by HRW, then witnesses: where the fewest voters are, then by HRW.
    fn best(&self) -> Option<&Newcomer> {
        let rank = |n: &&Newcomer| {
            let crowd = if n.voter.electable { 0 } else { self.crowd(&n.domain) };
            let digest = hrw::digest(n.voter.id.node.as_str());
            (!n.voter.electable, n.voter.kind, crowd, Reverse(digest), n.voter.id.clone())
        };
        self.at_hand().min_by_key(rank)
    }

    /// No step that leaves a majority unreachable: a majority of the electorate that it leads to is here and has what
    /// is committed, so the State that takes the step can commit in it.
    fn is_safe(&self, step: &Step) -> bool {
        let here = self.seats.iter().filter(|s| s.current || s.voter.id == self.me);
        let (here, size) = match step {
            Step::Add(_) => (here.count() + 1, self.seats.len() + 1),
            Step::Remove(id) => (here.filter(|s| s.voter.id != *id).count(), self.seats.len().saturating_sub(1)),
        };
        size > 0 && here >= quorum::majority(size)
    }
}

fn remove(seat: &Seat) -> Step {
    Step::Remove(seat.voter.id.clone())
}

/// The largest odd number that is not larger.
fn odd(n: usize) -> usize {
    if n.is_multiple_of(2) { n.saturating_sub(1) } else { n }
}
