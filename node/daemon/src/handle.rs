//! What the rest of the process holds of the core: commands in, a watch of the view out (architecture invariant 3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ais_ha::{Halt, Millis, RecoverRefused, Reply, Sender, Transferred, View};
use ais_meta::{Address, Addresses, Basis, Change, Kind, NodeId, Outcome, RequestId, Stamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::unproven::Unproven;

/// Commands that may wait for the core; beyond it, callers are told that the node is busy.
pub const COMMANDS_MAX: usize = 4096;

/// How a mutation ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// A committed State settled it.
    Settled {
        /// What it did.
        outcome: Outcome,
        /// That State.
        stamp: Stamp,
    },
    /// Never proposed and never will be: 503 + Retry-After.
    Unavailable,
    /// Proposed, fate unknown: 504 naming the id.
    Unknown {
        /// The id under which it may have taken effect.
        id: String,
    },
    /// This node has too many mutations under way and did not take it: 503 + Retry-After.
    Busy,
}

/// Who this process is. Constant while it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Node, disk, run, boot.
    pub sender: Sender,
    /// Gateway or target.
    pub kind: Kind,
    /// Where it listens, as told to others.
    pub addresses: Addresses,
    /// Version of the program.
    pub version: &'static str,
    /// Wall clock at start, unix milliseconds; shown only.
    pub started_unix_ms: u64,
    /// Largest electorate that this process makes when it leads; shown only.
    pub voters_max: usize,
}

/// What a [`Handle`] asks of the runner.
#[derive(Debug)]
pub(crate) enum Command {
    Propose {
        client_id: Option<String>,
        change: Change,
        basis: Option<Basis>,
        done: oneshot::Sender<Proposed>,
    },
    Transfer {
        to: NodeId,
        expected_primary: Option<NodeId>,
        expected_epoch: Option<u64>,
        done: oneshot::Sender<Transferred>,
    },
    Pull {
        done: oneshot::Sender<bool>,
    },
    Recover {
        stamp: Stamp,
        done: oneshot::Sender<Result<Stamp, RecoverRefused>>,
    },
    Poke,
    Introduce {
        node: NodeId,
        peer: Address,
    },
}

/// The way to the core for everybody but the runner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    stop: Arc<watch::Sender<bool>>,
    halt: watch::Receiver<Option<Halt>>,
    identity: Arc<Identity>,
    primary_since_ms: Arc<AtomicU64>,
    unproven: Arc<Unproven>,
}

/// The runner's ends of a [`Handle`].
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) halt: watch::Sender<Option<Halt>>,
    pub(crate) primary_since_ms: Arc<AtomicU64>,
    pub(crate) unproven: Arc<Unproven>,
}

impl Handle {
    pub(crate) fn new(identity: Identity, first: View) -> (Self, Ends) {
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let (view, view_out) = watch::channel(Arc::new(first));
        let (stop_in, stop) = watch::channel(false);
        let (halt, halt_out) = watch::channel(None);
        let primary_since_ms = Arc::new(AtomicU64::new(0));
        let unproven = Arc::new(Unproven::default());
        let handle = Self {
            commands: commands_in,
            view: view_out,
            stop: Arc::new(stop_in),
            halt: halt_out,
            identity: Arc::new(identity),
            primary_since_ms: Arc::clone(&primary_since_ms),
            unproven: Arc::clone(&unproven),
        };
        (handle, Ends { commands, view, stop, halt, primary_since_ms, unproven })
    }

    /// The node as it looks from outside the core; changes are awaited on the receiver.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Who this process is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The clock of [`ais_ha::MemberView::heard`], milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> Millis {
        clock::now_ms()
    }

    /// Since when the primary of the view leads as far as this process saw, unix milliseconds; `None` without one.
    #[must_use]
    pub fn primary_since_ms(&self) -> Option<u64> {
        Some(self.primary_since_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Proposes a mutation and waits for its end (protocol.md rule 13: parked over a failover). `basis`: what the
    /// rights of who asks for it were judged by, unless they never change; it is refused as
    /// [`ais_meta::Refusal::Outdated`] where that has changed.
    pub async fn propose(&self, client_id: Option<String>, change: Change, basis: Option<Basis>) -> Proposed {
        let (done, end) = oneshot::channel();
        let id = client_id.clone();
        let end = match self.commands.try_send(Command::Propose { client_id, change, basis, done }) {
            Err(_) => Proposed::Busy,
            // Only a runner that ended at once drops the channel; it tells those it knows of before.
            Ok(()) => end.await.unwrap_or_else(|_| Proposed::Unknown { id: id.clone().unwrap_or_default() }),
        };
        match id {
            Some(id) => self.unproven.told(&id, end),
            None => end,
        }
    }

    /// Hands the primary's role to a gateway.
    pub async fn transfer(
        &self,
        to: NodeId,
        expected_primary: Option<NodeId>,
        expected_epoch: Option<u64>,
    ) -> Transferred {
        let (done, end) = oneshot::channel();
        let command = Command::Transfer { to, expected_primary, expected_epoch, done };
        if self.commands.try_send(command).is_err() {
            return Transferred::Busy("this node has too many calls under way".to_owned());
        }
        end.await.unwrap_or(Transferred::Unknown)
    }

    /// Waits until what is published here is as new as this call; false when that could not be learnt in time.
    pub async fn pull(&self) -> bool {
        let (done, end) = oneshot::channel();
        if self.commands.try_send(Command::Pull { done }).is_err() {
            return false;
        }
        end.await.unwrap_or(false)
    }

    /// Goes on without the majority that is lost, from the stamp that an administrator confirmed; the first stamp of
    /// the new incarnation.
    ///
    /// # Errors
    /// Why not; nothing changed then, unless the node ended meanwhile.
    pub async fn recover(&self, stamp: Stamp) -> Result<Stamp, RecoverRefused> {
        let (done, end) = oneshot::channel();
        let busy = |why: &str| Err(RecoverRefused::Busy(why.to_owned()));
        if self.commands.try_send(Command::Recover { stamp, done }).is_err() {
            return busy("this node has too many calls under way, or ends");
        }
        end.await.unwrap_or_else(|_| busy("this node ended; look at its stamp before you ask again"))
    }

    /// Ends back-offs and reads the discovery file again now. A node too busy to take it is not waiting for a poke.
    pub fn poke(&self) {
        drop(self.commands.try_send(Command::Poke));
    }

    /// Says where a member of a cluster can be reached, as if the discovery file had listed it.
    pub fn introduce(&self, node: NodeId, peer: Address) {
        // A node too busy to take it is told again by whoever waits for it.
        drop(self.commands.try_send(Command::Introduce { node, peer }));
    }

    /// Asks for an orderly stop; [`Handle::halted`] tells its end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the core takes no more commands: the process is on its way out.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits until the core has ended.
    pub async fn halted(&self) -> Halt {
        let mut halt = self.halt.clone();
        match halt.wait_for(Option::is_some).await {
            Ok(halt) => halt.clone().unwrap_or(Halt::Stopped),
            Err(_) => Halt::Broken("the core's thread ended without a word".to_owned()),
        }
    }
}

/// What the caller of a mutation is told, from what the core said.
pub(crate) fn proposed(request: &RequestId, reply: Reply) -> Proposed {
    match reply {
        Reply::Settled { outcome, stamp } => Proposed::Settled { outcome, stamp },
        Reply::Unavailable => Proposed::Unavailable,
        Reply::Unknown => Proposed::Unknown { id: request.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ais_meta::BucketName;

    fn handle() -> (Handle, Ends) {
        let at = Address { host: "127.0.0.1".into(), port: 1 };
        let id = ais_meta::VoterId::new("g1".parse().unwrap(), ais_meta::DiskId(1));
        let identity = Identity {
            sender: Sender { id, run: 1, boot: ais_meta::BootId(1) },
            kind: Kind::Gateway,
            addresses: Addresses { public: at.clone(), control: at.clone(), peer: at },
            version: "",
            started_unix_ms: 0,
            voters_max: 5,
        };
        let view = View {
            role: ais_ha::RoleName::Follower,
            reason: String::new(),
            uuid: None,
            genesis: ais_ha::Genesis::Unformed,
            accepted: None,
            promised: ais_ha::register::Term::new(0, 1),
            primary: None,
            epoch: 1,
            ready: false,
            stopping: false,
            disk_ok: true,
            members: Default::default(),
            peers: Default::default(),
            published: None,
        };
        Handle::new(identity, view)
    }

    #[tokio::test]
    async fn an_id_whose_fate_is_unknown_stays_so_when_the_core_takes_no_more() {
        let (handle, mut ends) = handle();
        let change = || Change::DestroyBucket { name: "b".parse::<BucketName>().unwrap() };
        let propose = |id: &str| handle.propose(Some(id.to_owned()), change(), None);
        let unknown = || Proposed::Unknown { id: "x".to_owned() };
        let core = async {
            let Some(Command::Propose { done, .. }) = ends.commands.recv().await else { panic!("another command") };
            done.send(unknown()).unwrap();
        };
        assert_eq!(tokio::join!(propose("x"), core).0, unknown());
        drop(ends);
        assert_eq!(propose("x").await, unknown());
        assert_eq!(propose("y").await, Proposed::Busy);
    }
}
