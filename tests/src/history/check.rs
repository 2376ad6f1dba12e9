//! The judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ais_meta::Stamp;

use super::{Action, Answer, History, Op, Views};

/// What a good history held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Mutations that were answered as done.
    pub done: usize,
    /// Mutations that were answered 503, or whose fate the client never learnt.
    pub failed_writes: usize,
    /// Calls that were sent a second time under the same id.
    pub repeated: usize,
    /// Reads.
    pub reads: usize,
    /// Reads that still saw a destroyed bucket: allowed at slow members, worth knowing.
    pub stale_reads: usize,
    /// Epochs in which something was written.
    pub epochs: usize,
    /// The longest time from a mutation's first call to its answer.
    pub slowest: Duration,
}

/// Judges a history; all that is wrong with it, or what it held.
pub fn check(history: &History) -> Result<Report, Vec<String>> {
    let mut judge = Judge { history, wrong: Vec::new(), report: Report::default() };
    let requests = judge.requests();
    judge.answers();
    judge.repetitions();
    judge.order(&requests);
    let ends = judge.buckets(&requests);
    judge.finals(&ends);
    judge.views();
    judge.count(&requests);
    if judge.wrong.is_empty() { Ok(judge.report) } else { Err(judge.wrong) }
}

/// One request, all its calls together.
#[derive(Debug)]
struct Request<'a> {
    action: Action,
    bucket: &'a str,
    invoked: Duration,
    /// Of its first certain answer.
    returned: Duration,
    /// `Unknown` only when no call had a certain answer.
    answer: Answer,
    stamp: Option<Stamp>,
    /// Place of the first call.
    first: usize,
}

/// Whether a bucket may be there, and may not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct May {
    there: bool,
    gone: bool,
    /// A call of unknown fate may still take effect: nothing is known any more.
    floating: bool,
}

impl May {
    const GONE: Self = Self { there: false, gone: true, floating: false };
    const THERE: Self = Self { there: true, gone: false, floating: false };
    const ANY: Self = Self { there: true, gone: true, floating: true };
}

struct Judge<'a> {
    history: &'a History,
    wrong: Vec<String>,
    report: Report,
}

fn is_certain(answer: Answer) -> bool {
    matches!(answer, Answer::Done | Answer::Exists | Answer::Missing)
}

impl<'a> Judge<'a> {
    fn wrong(&mut self, why: String) {
        self.wrong.push(why);
    }

    /// Mutations, the calls of one id folded into one.
    fn requests(&mut self) -> Vec<Request<'a>> {
        let mut all: Vec<Request<'a>> = Vec::new();
        let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
        for (first, op) in self.history.ops.iter().enumerate() {
            if !op.action.is_mutation() {
                continue;
            }
            if let Some(place) = op.request.as_deref().and_then(|id| by_id.get(id)) {
                self.report.repeated += 1;
                fold(&mut all[*place], op);
                continue;
            }
            if let Some(id) = op.request.as_deref() {
                by_id.insert(id, all.len());
            }
            let Op { action, invoked, returned, answer, stamp, .. } = *op;
            all.push(Request { action, bucket: &op.bucket, invoked, returned, answer, stamp, first });
        }
        all
    }

    /// Answers that no rule allows.
    fn answers(&mut self) {
        for op in &self.history.ops {
            if let Answer::Failed(status) = op.answer {
                self.wrong(format!("{:?} of {} at {} was answered {status}", op.action, op.bucket, op.gateway));
            }
            if op.action.is_mutation() && op.answer == Answer::Done && op.stamp.is_none() {
                self.wrong(format!("{:?} of {} at {} was answered without a stamp", op.action, op.bucket, op.gateway));
            }
        }
    }

    /// One id, one effect: all its certain answers are equal. A repetition may be answered from a later State, which
    /// still remembers the outcome, but never from an earlier one.
    fn repetitions(&mut self) {
        let mut seen: BTreeMap<&str, &Op> = BTreeMap::new();
        for op in &self.history.ops {
            let Some(id) = op.request.as_deref().filter(|_| is_certain(op.answer)) else { continue };
            let first = *seen.entry(id).or_insert(op);
            if first.answer != op.answer || op.stamp < first.stamp {
                self.wrong(format!(
                    "request {id} was answered {:?} at {:?} by {}, and {:?} at {:?} by {}",
                    first.answer, first.stamp, first.gateway, op.answer, op.stamp, op.gateway
                ));
            }
        }
    }

    /// What began after something was answered has a higher stamp.
    fn order(&mut self, requests: &[Request<'_>]) {
        let mut begun: Vec<&Request<'_>> = requests.iter().filter(|r| r.answer == Answer::Done).collect();
        let mut ended = begun.clone();
        begun.sort_by_key(|request| request.invoked);
        ended.sort_by_key(|request| request.returned);
        let mut ended = ended.into_iter().peekable();
        let mut before: Option<&Request<'_>> = None;
        for request in begun {
            while let Some(earlier) = ended.next_if(|earlier| earlier.returned < request.invoked) {
                if before.is_none_or(|known| known.stamp < earlier.stamp) {
                    before = Some(earlier);
                }
            }
            if let Some(earlier) = before
                && request.stamp <= earlier.stamp
            {
                self.wrong(format!(
                    "{:?} of {} has stamp {:?}, but {:?} of {} was answered before it began, at {:?}",
                    request.action, request.bucket, request.stamp, earlier.action, earlier.bucket, earlier.stamp
                ));
            }
        }
    }

    /// Each bucket's story, call by call; what may be at its end.
    fn buckets(&mut self, requests: &[Request<'a>]) -> BTreeMap<&'a str, May> {
        let by_first: BTreeMap<usize, &Request<'a>> = requests.iter().map(|r| (r.first, r)).collect();
        let mut all: BTreeMap<&'a str, May> = BTreeMap::new();
        for (place, op) in self.history.ops.iter().enumerate() {
            let known = all.get(op.bucket.as_str()).copied().unwrap_or(May::GONE);
            let next = match op.action {
                Action::Head | Action::List => self.read(op, known),
                // A repetition has no effect of its own.
                _ => by_first.get(&place).map_or(known, |request| self.mutated(request, known)),
            };
            all.insert(&op.bucket, next);
        }
        all
    }

    fn mutated(&mut self, request: &Request<'_>, known: May) -> May {
        let (needs_there, after) = match (request.action, request.answer) {
            (_, Answer::Refused) => return known,
            (_, Answer::Unknown | Answer::Failed(_)) => return May::ANY,
            (Action::Create, Answer::Done) => (false, May::THERE),
            (Action::Create, Answer::Exists) => (true, May::THERE),
            (Action::Delete, Answer::Done) => (true, May::GONE),
            (Action::Delete, Answer::Missing) => (false, May::GONE),
            (action, answer) => {
                self.wrong(format!("{action:?} of {} was answered {answer:?}", request.bucket));
                return May::ANY;
            }
        };
        if known.floating {
            return known;
        }
        if (needs_there && !known.there) || (!needs_there && !known.gone) {
            let was = if known.there { "there" } else { "not there" };
            self.wrong(format!(
                "{:?} of {} was answered {:?} at {:?}, but the bucket was {was}",
                request.action, request.bucket, request.answer, request.stamp
            ));
        }
        after
    }

    fn read(&mut self, op: &Op, known: May) -> May {
        if op.answer == Answer::Missing && !known.gone {
            // A list is of the gateway's own view; asking for one bucket asks the primary before it says no.
            if op.action == Action::Head || !self.history.slow.contains(&op.gateway) {
                self.wrong(format!(
                    "{} was answered as created, but {} does not find it ({:?})",
                    op.bucket, op.gateway, op.action
                ));
            }
        }
        if op.answer == Answer::Done && !known.there {
            self.report.stale_reads += 1;
        }
        known
    }

    fn finals(&mut self, ends: &BTreeMap<&'a str, May>) {
        let history = self.history;
        if history.finals.is_empty() {
            self.wrong("no node was asked at the end".to_owned());
        }
        let mut first: Option<(&str, BTreeSet<&str>)> = None;
        for (node, names) in &history.finals {
            for (bucket, may) in ends {
                let there = names.contains(*bucket);
                if there && !may.there {
                    self.wrong(format!("{bucket} is on {node} at the end, but must not be"));
                }
                if !there && !may.gone {
                    self.wrong(format!("{bucket} is missing on {node} at the end"));
                }
            }
            let own: BTreeSet<&str> =
                names.iter().map(String::as_str).filter(|name| name.starts_with(&history.prefix)).collect();
            for name in own.iter().filter(|name| !ends.contains_key(**name)) {
                self.wrong(format!("{name} is on {node} at the end; nobody made it"));
            }
            match &first {
                Some((other, same)) if *same != own => {
                    self.wrong(format!("{node} and {other} have different buckets at the end"));
                }
                Some(_) => {}
                None => first = Some((node, own)),
            }
        }
    }

    fn views(&mut self) {
        let mut views = Views::default();
        self.history.samples.iter().for_each(|sample| views.add(&sample.view));
        self.wrong.extend(views.wrong);
    }

    fn count(&mut self, requests: &[Request<'_>]) {
        let report = &mut self.report;
        report.reads = self.history.ops.iter().filter(|op| !op.action.is_mutation()).count();
        let done = || requests.iter().filter(|request| request.answer == Answer::Done);
        report.done = done().count();
        report.failed_writes = requests.iter().filter(|request| !is_certain(request.answer)).count();
        let epochs: BTreeSet<(u32, u64)> = done().filter_map(|r| r.stamp).map(|s| (s.incarnation, s.epoch)).collect();
        report.epochs = epochs.len();
        report.slowest = requests.iter().map(|r| r.returned.saturating_sub(r.invoked)).max().unwrap_or_default();
    }
}

fn fold(request: &mut Request<'_>, op: &Op) {
    request.invoked = request.invoked.min(op.invoked);
    if !is_certain(request.answer) {
        // 503 says that this call was not proposed; a lost call of the same id may have been.
        let lost = request.answer == Answer::Unknown && op.answer == Answer::Refused;
        if !lost {
            (request.answer, request.stamp) = (op.answer, op.stamp);
        }
        request.returned = op.returned;
    } else if is_certain(op.answer) {
        request.returned = request.returned.min(op.returned);
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
