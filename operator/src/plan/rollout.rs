//! A new image or pod template reaches the pods, one after the other. Pure.
//!
//! # Flow
//! Pods of an old revision are deleted, and their set makes them anew. Broken ones go first, since nobody needs them;
//! then members without a vote, then voters, and the primary last, after one hand-over to an updated gateway. After
//! each pod the next one waits until that one is a caught-up member again (`disruption.rs`).
//! # Guarantees
//! It stops at the first pod that does not come up, with the primary untouched, and goes on when the template is
//! mended. What is next follows from what is observed: status only remembers how long it waits, the moves it made, and
//! where the primary came from.
//! # Caveats
//! A cluster with one gateway is without primary while that pod restarts.

mod order;
mod report;

use ais_crds::{RolloutStatus, UpdateStrategy};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use std::time::Duration;

use super::disruption::{Ground, Obstacle, obstacle, unready, unrest, whole};
use super::primary::{self, Errand};
use super::{Removal, Replicas};
use crate::events::Note;
use crate::facts::{Observed, PodFact};
use crate::names::Role;
use crate::validate::Valid;
use crate::view::{Agreement, Leader};

/// Reason of its moves of the primary.
pub const REASON: &str = "Rollout";
/// How often it looks, besides every event.
const POLL: Duration = Duration::from_secs(1);
/// A pod of which Kubernetes says that it cannot come up is believed after this time.
const TROUBLE_S: i64 = 20;
/// Any other pod gets this long, beside its time to stop: images are pulled meanwhile.
const SLOW_S: i64 = 300;
/// So long may pass without an electorate that is complete, or a primary: a move of that and its pauses are shorter.
const CALM_S: i64 = 600;

/// What it is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The validated cluster.
    pub valid: &'a Valid,
    /// Everything read.
    pub observed: &'a Observed,
    /// What the nodes agree on.
    pub agreement: &'a Agreement,
    /// Pods there should be.
    pub replicas: &'a Replicas,
    /// Roles whose StatefulSet does not have the template of this pass's spec yet.
    pub outdated: &'a BTreeSet<Role>,
}

/// Where a roll-out stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Every pod is of the current template.
    #[default]
    UpToDate,
    /// A template is still to be written: no pod has it.
    Due,
    /// Its controller has not seen what was written last, so that nobody can say which pods are old.
    Unseen,
    /// There are old pods, and `spec.paused` is set.
    Paused,
    /// Under way.
    Rolling,
    /// Waits for a person before the primary.
    Supervised,
    /// A pod does not come up.
    Stuck,
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// Where it stands.
    pub state: State,
    /// Pods of an old revision.
    pub old: Vec<String>,
    /// Role of the pod that is being replaced.
    pub role: Option<Role>,
    /// For people: what is done, or waited for.
    pub message: String,
    /// Pods to delete.
    pub removals: Vec<Removal>,
    /// They are of no use as they are, and others may wait for what comes in their place.
    pub mends: bool,
    /// The hand-over it needs.
    pub errand: Option<Errand>,
    /// What status remembers from now on.
    pub memory: Option<RolloutStatus>,
    /// Events.
    pub notes: Vec<Note>,
    /// Look again no later.
    pub requeue: Option<Duration>,
}

/// The next step.
#[derive(Debug)]
enum Next {
    /// Delete these.
    Take(Vec<Removal>),
    /// Delete this one, which is broken.
    Mend(Removal),
    /// Move the primary.
    Move(Errand),
    /// A person decides.
    Ask(String),
    /// Not now.
    Wait(Obstacle),
    /// Nothing is left.
    Done,
}

impl<'a> Scene<'a> {
    pub(super) fn ground(&self) -> Ground<'a> {
        Ground { observed: self.observed, agreement: self.agreement, replicas: self.replicas }
    }

    fn leader(&self) -> Option<&'a Leader> {
        self.agreement.leader.as_ref()
    }

    /// The revision a role shall have; `None` while the newest template is not written, or not seen by its controller.
    fn revision(&self, role: Role) -> Option<&'a str> {
        let set = self.observed.sets.get(&role).filter(|_| !self.outdated.contains(&role));
        set.map(|s| s.revision.as_str()).filter(|r| !r.is_empty())
    }

    /// Roles with pods that may have to be replaced, of those for which this is said.
    fn has_pods(&self, of: impl Fn(Role) -> bool) -> bool {
        self.observed.pods.iter().any(|p| self.is_wanted(p) && p.role.is_some_and(&of))
    }

    fn is_wanted(&self, pod: &PodFact) -> bool {
        pod.role.is_some_and(|role| pod.ordinal < self.replicas.of(role))
    }

    fn is_current(&self, pod: &PodFact) -> bool {
        pod.role.and_then(|role| self.revision(role)).is_some_and(|revision| pod.revision == revision)
    }

    fn old(&self) -> Vec<&'a PodFact> {
        self.observed.pods.iter().filter(|p| self.is_wanted(p) && !self.is_current(p)).collect()
    }
}

/// Decides; [`Rollout::conclude`] follows when the primary's part is decided.
#[must_use]
pub fn decide(s: &Scene<'_>) -> Rollout {
    let memory = s.observed.cluster.status.as_ref().and_then(|st| st.rollout.clone());
    let under_way = memory.as_ref().is_some_and(|m| m.finished_at.is_none());
    let mut rollout = Rollout { memory, ..Rollout::default() };
    if Role::ALL.iter().any(|role| s.revision(*role).is_none()) {
        await_templates(s, &mut rollout, under_way);
        return rollout;
    }
    let old = s.old();
    rollout.old = old.iter().map(|p| p.name.clone()).collect();
    rollout.old.sort_unstable();
    if old.is_empty() && !under_way {
        report::rest(&mut rollout);
        return rollout;
    }
    if s.observed.cluster.spec.paused {
        rollout.state = if old.is_empty() { State::UpToDate } else { State::Paused };
        rollout.message = format!("spec.paused is set; old template: {}", rollout.old.join(", "));
        if !under_way {
            report::rest(&mut rollout);
        }
        return rollout;
    }
    report::begin(s, &mut rollout, under_way);
    let next = next(s, &old, rollout.memory.as_ref());
    rollout.requeue = Some(POLL);
    carry_out(s, &mut rollout, next);
    rollout
}

/// Until the newest templates are seen, what the sets say is about others: nothing is replaced, and nothing is called
/// complete of a spec that it was not judged by.
fn await_templates(s: &Scene<'_>, rollout: &mut Rollout, under_way: bool) {
    let paused = s.observed.cluster.spec.paused;
    let due = s.has_pods(|role| s.outdated.contains(&role));
    rollout.message = match (due, paused) {
        (true, true) => "spec.paused is set; a new template is not written".to_owned(),
        (true, false) => "a new template is to be written".to_owned(),
        (false, _) => "the StatefulSet controller has not seen the newest template yet".to_owned(),
    };
    rollout.requeue = (under_way && !paused).then_some(POLL);
    rollout.state = match (due, under_way) {
        (true, _) if paused => State::Paused,
        // Whoever waited for a pod, or for a person, did so with another template.
        (true, true) => State::Rolling,
        (true, false) => State::Due,
        (false, true) => report::remembered(rollout.memory.as_ref()),
        (false, false) if s.has_pods(|role| s.revision(role).is_none()) => State::Unseen,
        (false, false) => State::UpToDate,
    };
    match under_way {
        true if due && !paused => report::conclude_state(s, rollout),
        true => {}
        false => report::rest(rollout),
    }
}

fn next(s: &Scene<'_>, old: &[&PodFact], memory: Option<&RolloutStatus>) -> Next {
    if let Some(broken) = order::broken(s, old) {
        return Next::Mend(removal(broken, "broken, and of an old template"));
    }
    let Some(first) = order::first(s, old) else { return finish(s, memory) };
    let ground = s.ground();
    if s.leader().is_some_and(|l| l.node_id == first.name) {
        return before_the_primary(s, first);
    }
    let mut taken = Vec::new();
    for (pod, beside) in order::together(s, old, first) {
        match obstacle(&ground, &pod.name, &beside) {
            None => taken.push(removal(pod, "of an old template")),
            Some(obstacle) if taken.is_empty() => return Next::Wait(obstacle),
            Some(_) => break,
        }
    }
    Next::Take(taken)
}

/// Everything else is updated and whole; the primary's pod is the last.
fn before_the_primary(s: &Scene<'_>, pod: &PodFact) -> Next {
    let ground = s.ground();
    if let Some(obstacle) = unrest(&ground, &pod.name, &[]) {
        return Next::Wait(obstacle);
    }
    let alone = s.replicas.of(Role::Gateway) == 1;
    let moving = s.observed.cluster.status.as_ref().is_some_and(|st| st.primary.attempt.is_some());
    if s.observed.cluster.spec.update.gateways.strategy == UpdateStrategy::Supervised && !moving {
        let how = if alone {
            "delete its pod"
        } else {
            "move the primary (spec.primary.preferred or .request), delete its pod"
        };
        return Next::Ask(format!(
            "everything but the primary {} is updated; to go on {how}, or set spec.update.gateways.strategy to Unsupervised",
            pod.name
        ));
    }
    if alone {
        return Next::Take(vec![removal(pod, "of an old template, and the only gateway")]);
    }
    Next::Move(Errand { reason: REASON, away_from: pod.name.clone(), prefer: order::heirs(s, pod) })
}

/// All pods are new: once they are whole again, the primary may have to go back.
fn finish(s: &Scene<'_>, memory: Option<&RolloutStatus>) -> Next {
    let ground = s.ground();
    if let Some(obstacle) = unrest(&ground, "", &[]) {
        return Next::Wait(obstacle);
    }
    if let (Some(home), Some(leader)) = (memory.and_then(|m| m.return_to.clone()), s.leader())
        && order::is_better(s, &home, &leader.node_id)
        && !report::waited_too_long_for(s, memory, &home)
    {
        return Next::Move(Errand { reason: REASON, away_from: leader.node_id.clone(), prefer: vec![home] });
    }
    obstacle(&ground, "", &[]).map_or(Next::Done, Next::Wait)
}

fn removal(pod: &PodFact, reason: &'static str) -> Removal {
    Removal { name: pod.name.clone(), uid: pod.uid.clone(), reason }
}

fn replace(s: &Scene<'_>, rollout: &mut Rollout, removals: Vec<Removal>) {
    let names: Vec<&str> = removals.iter().map(|r| r.name.as_str()).collect();
    rollout.message = format!("replacing {}", names.join(", "));
    let first = removals.first().map(|r| r.name.clone());
    rollout.removals = removals;
    report::wait_for(s, rollout, first);
}

fn carry_out(s: &Scene<'_>, rollout: &mut Rollout, next: Next) {
    rollout.state = State::Rolling;
    match next {
        Next::Mend(removal) => {
            rollout.mends = true;
            replace(s, rollout, vec![removal]);
        }
        Next::Take(removals) => replace(s, rollout, removals),
        Next::Move(errand) => {
            let to = errand.prefer.join(" or ");
            rollout.message = format!("the primary is to move from {} to {to}", errand.away_from);
            let returns = rollout.memory.as_ref().is_some_and(|m| errand.prefer.first() == m.return_to.as_ref());
            if !returns {
                report::remember_home(s, rollout, &errand.away_from);
            }
            let awaited = if returns { errand.prefer.first() } else { None };
            report::wait_for(s, rollout, awaited.cloned());
            rollout.role = Some(Role::Gateway);
            rollout.errand = Some(errand);
        }
        Next::Ask(message) => {
            rollout.state = State::Supervised;
            rollout.message = message;
            report::wait_for(s, rollout, None);
        }
        Next::Wait(obstacle) => {
            let obstacle = culprit(s, rollout, obstacle);
            rollout.message = format!("waits: {}", obstacle.closed.message);
            match &obstacle.pod {
                Some(pod) => report::wait_for(s, rollout, Some(pod.clone())),
                None => report::wait_for_calm(s, rollout),
            }
            if report::is_overdue(s, rollout, obstacle.pod.as_deref()) {
                rollout.state = State::Stuck;
                rollout.message = obstacle.closed.message;
            } else if report::rests(s, rollout) {
                rollout.state = State::Supervised;
            }
        }
        Next::Done => {
            rollout.state = State::UpToDate;
            rollout.requeue = None;
            report::wait_for(s, rollout, None);
        }
    }
    if matches!(rollout.state, State::Supervised | State::Stuck) {
        // That may last for days; what ends it is an event.
        rollout.requeue = None;
    }
    report::conclude_state(s, rollout);
}

/// Who is waited for: as long as it is not back, whoever was waited for before, so that its time runs on; and where
/// nobody leads, a pod that Kubernetes cannot bring up rather than everybody.
fn culprit(s: &Scene<'_>, rollout: &Rollout, found: Obstacle) -> Obstacle {
    let awaited = rollout.memory.as_ref().and_then(|m| m.waits_for.clone());
    let ground = s.ground();
    if let (Some(name), Some(leader)) = (&awaited, s.leader()) {
        let is_wanted = ground.wanted().any(|wanted| wanted == *name);
        return whole(&ground, leader, name).err().filter(|_| is_wanted).unwrap_or(found);
    }
    if found.pod.is_some() {
        return found;
    }
    let troubled = |p: &&PodFact| s.is_wanted(p) && p.trouble.is_some();
    match s.observed.pods.iter().find(troubled) {
        Some(pod) => Obstacle::of(&pod.name, "NodesNotReady", &unready(pod)),
        None => found,
    }
}

impl Rollout {
    /// Takes in what was decided about the primary: while that moves, no pod goes. (A move whose end nobody can tell,
    /// since nobody leads, may wait for the very pods that are to be mended.) None goes either before the nodes were
    /// asked in the very pass.
    pub fn conclude(&mut self, fresh: bool, primary: &mut primary::Decision) {
        let moves = primary.memory.attempt.is_some() && !(self.mends && primary.unproven);
        if primary.transfer.is_some() || moves {
            self.removals.clear();
        }
        if !self.removals.is_empty() && !fresh {
            self.removals.clear();
            self.requeue = Some(Duration::ZERO);
            primary.wants_fresh = true;
        }
        if self.errand.is_some()
            && let Some(closed) = &primary.errand_waits
        {
            self.message = format!("{}; waits: {}", self.message, closed.message);
        }
        let made = primary.finished.iter().filter(|t| t.reason == REASON && t.result == "Succeeded").count();
        if let Some(memory) = &mut self.memory {
            memory.moves += i64::try_from(made).unwrap_or(0);
        }
    }
}

/// Whole seconds, as status keeps them.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn since(s: &Scene<'_>, at: &Time) -> SignedDuration {
    s.observed.now.duration_since(at.0)
}
