//! Clients: they make and destroy buckets and read, through any gateway, and remember what they were told.

use std::collections::BTreeMap;

use ais_ha::invariant::Verdict;
use ais_ha::{Input, Reply};
use ais_meta::{BucketName, Change, Outcome, Refusal, RequestId};

use crate::plan::Plan;
use crate::seen::Seen;
use crate::world::{Event, World, ms};

/// A client gives up after this time.
const PATIENCE_MS: u64 = 20_000;
/// Gateways that a client with its own request id tries.
const TRIES_MAX: u32 = 4;

#[derive(Clone, Debug)]
enum Call {
    Create(BucketName),
    Destroy(BucketName),
    Read { created: Vec<BucketName>, gone: Vec<BucketName> },
}

struct Busy {
    call: Call,
    gateway: usize,
    request: Option<RequestId>,
    nonce: u64,
    tries: u32,
    /// Some try may have been proposed.
    maybe: bool,
}

struct Client {
    turn: u64,
    busy: Option<Busy>,
    /// Buckets that it was told it has.
    owned: Vec<BucketName>,
}

/// All clients.
pub(crate) struct Clients {
    all: Vec<Client>,
    names: u64,
    nonces: u64,
    waiting: BTreeMap<RequestId, usize>,
    reading: BTreeMap<u64, usize>,
    /// Answered as done, in order: what readers must find from then on.
    pub(crate) created: Vec<BucketName>,
    /// Answered as destroyed.
    gone: Vec<BucketName>,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        let all = (0..plan.clients).map(|_| Client { turn: 0, busy: None, owned: Vec::new() }).collect();
        let (waiting, reading) = (BTreeMap::new(), BTreeMap::new());
        Self { all, names: 0, nonces: 1 << 32, waiting, reading, created: Vec::new(), gone: Vec::new() }
    }
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
    fn name(&mut self) -> Option<BucketName> {
        self.names += 1;
        BucketName::new("", &format!("b{}", self.names)).ok()
    }
}

impl World {
    pub(crate) fn on_client(&mut self, client: usize, turn: u64) -> Verdict {
        if self.clients.all[client].turn != turn {
            return Ok(());
        }
        if self.clients.all[client].busy.is_some() {
            return self.give_up(client);
        }
        if self.calm {
            return Ok(());
        }
        let Some(gateway) = self.any_gateway() else {
            self.rest(client);
            return Ok(());
        };
        let dice = self.rng.between(0, 99);
        let owned = self.clients.all[client].owned.len();
        let call = match dice {
            0..15 => self.read_call(),
            15..35 if owned > 0 => {
                let at = self.rng.index(owned);
                Call::Destroy(self.clients.all[client].owned.swap_remove(at))
            }
            _ => match self.clients.name() {
                Some(name) => Call::Create(name),
                None => return Ok(()),
            },
        };
        self.begin(client, call, gateway);
        Ok(())
    }

    fn read_call(&self) -> Call {
        let recent = |all: &[BucketName]| all.iter().rev().take(20).cloned().collect();
        Call::Read { created: recent(&self.clients.created), gone: recent(&self.clients.gone) }
    }

    fn any_gateway(&mut self) -> Option<usize> {
        let up: Vec<usize> =
            (0..self.plan.gateways).filter(|g| self.hosts[*g].process.as_ref().is_some_and(|p| !p.stopping)).collect();
        self.rng.pick(&up)
    }

    fn rest(&mut self, client: usize) {
        let mean = self.plan.pause_us;
        let pause = self.rng.between(mean / 4, mean * 7 / 4);
        let turn = self.clients.all[client].turn;
        self.after(pause, Event::Client { client, turn });
    }

    fn next_turn(&mut self, client: usize) -> u64 {
        self.clients.all[client].turn += 1;
        self.clients.all[client].turn
    }

    fn begin(&mut self, client: usize, call: Call, gateway: usize) {
        let own =
            self.rng.chance(500).then(|| RequestId::Client(format!("c{client}-{}", self.clients.all[client].turn)));
        match &call {
            Call::Create(name) => self.record.asks_create(name),
            Call::Destroy(name) => self.record.asks_destroy(name),
            Call::Read { .. } => {}
        }
        self.counts.mutations += u64::from(!matches!(call, Call::Read { .. }));
        let busy = Busy { call, gateway, request: own, nonce: 0, tries: 0, maybe: false };
        self.clients.all[client].busy = Some(busy);
        let turn = self.next_turn(client);
        self.after(ms(PATIENCE_MS), Event::Client { client, turn });
        self.attempt(client, gateway);
    }

    fn attempt(&mut self, client: usize, gateway: usize) {
        let Some(mut busy) = self.clients.all[client].busy.take() else { return };
        (busy.gateway, busy.tries) = (gateway, busy.tries + 1);
        let change = match &busy.call {
            Call::Create(name) => {
                Change::CreateBucket { name: name.clone(), created_ns: self.wall_ns(), props: BTreeMap::new() }
            }
            Call::Destroy(name) => Change::DestroyBucket { name: name.clone() },
            Call::Read { .. } => {
                self.clients.nonces += 1;
                let nonce = self.clients.nonces;
                busy.nonce = nonce;
                self.clients.reading.insert(nonce, client);
                self.clients.all[client].busy = Some(busy);
                return self.input(gateway, Input::Pull { nonce });
            }
        };
        if busy.request.is_none() {
            busy.request = self.hosts[gateway].process.as_mut().and_then(|p| p.core.request_id());
        }
        let Some(request) = busy.request.clone() else {
            self.counts.saw(Seen::Unavailable);
            return self.rest(client);
        };
        busy.maybe = true;
        self.clients.waiting.insert(request.clone(), client);
        self.clients.all[client].busy = Some(busy);
        let basis = self.served(gateway).map(|state| state.basis(&change));
        self.input(gateway, Input::Propose { request, change, basis });
    }

    pub(crate) fn on_reply(&mut self, node: usize, request: &RequestId, reply: &Reply) -> Verdict {
        let Some(client) = self.clients.waiting.get(request).copied() else { return Ok(()) };
        if self.clients.all[client].busy.as_ref().is_none_or(|b| b.gateway != node) {
            return Ok(());
        }
        self.clients.waiting.remove(request);
        let Some(busy) = self.clients.all[client].busy.take() else { return Ok(()) };
        self.next_turn(client);
        self.rest(client);
        let (Call::Create(name) | Call::Destroy(name)) = &busy.call else { return Ok(()) };
        let create = matches!(busy.call, Call::Create(_));
        // With several tries, a refusal of the last says nothing of the others.
        let only = busy.tries == 1;
        match reply {
            Reply::Settled { outcome: Outcome::Done | Outcome::Began(_), stamp } => {
                self.counts.settled += 1;
                self.record.done(name, create, *stamp)?;
                if create {
                    self.clients.created.push(name.clone());
                    self.clients.all[client].owned.push(name.clone());
                } else {
                    self.clients.gone.push(name.clone());
                }
                Ok(())
            }
            Reply::Settled { outcome: Outcome::Refused(Refusal::Full(_)), .. } => Ok(()),
            Reply::Settled { outcome: Outcome::Refused(Refusal::Outdated), .. } => {
                // The client's gateway would judge again; this one does not, and no copy on its way may be made.
                self.counts.saw(Seen::Outdated);
                if only && create { self.record.never(name) } else { Ok(()) }
            }
            // An administrator gave up what made it.
            Reply::Settled { outcome: Outcome::Refused(_), stamp } if stamp.incarnation > 0 => Ok(()),
            Reply::Settled { outcome: Outcome::Refused(why), .. } => {
                self.counts.settled += 1;
                // Every name is asked for once: a refusal means that the request took effect and was forgotten.
                ais_ha::invariant::violated("I10", format!("{request} for {name} was refused: {why}"))
            }
            Reply::Unavailable => {
                self.counts.saw(Seen::Unavailable);
                if only && create { self.record.never(name) } else { Ok(()) }
            }
            Reply::Unknown => {
                self.counts.saw(Seen::Unknown);
                Ok(())
            }
        }
    }

    pub(crate) fn on_pulled(&mut self, node: usize, nonce: u64, fresh: bool) -> Verdict {
        let Some(client) = self.clients.reading.remove(&nonce) else { return Ok(()) };
        let Some(busy) = self.clients.all[client].busy.take_if(|b| b.nonce == nonce) else { return Ok(()) };
        self.next_turn(client);
        self.rest(client);
        let Call::Read { created, gone } = busy.call else { return Ok(()) };
        let Some(state) = self.served(node).cloned().filter(|_| fresh) else { return Ok(()) };
        self.counts.saw(Seen::FreshRead);
        self.record.read(&self.hosts[node].voter(), &state, &created, &gone)
    }

    /// The client waited long enough: its gateway is paused, or took its time to come back.
    fn give_up(&mut self, client: usize) -> Verdict {
        let Some(busy) = self.clients.all[client].busy.take() else { return Ok(()) };
        self.counts.abandoned += 1;
        if let Some(request) = &busy.request {
            self.clients.waiting.remove(request);
        }
        self.clients.reading.remove(&busy.nonce);
        self.next_turn(client);
        self.rest(client);
        Ok(())
    }

    /// A gateway's process is gone: clients with their own ids ask another one.
    pub(crate) fn clients_lose(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients.all[client].busy.as_ref().is_none_or(|b| b.gateway != node) {
                continue;
            }
            let next = self.any_gateway();
            let own = self.clients.all[client]
                .busy
                .as_ref()
                .is_some_and(|b| matches!(b.request, Some(RequestId::Client(_))) && b.tries < TRIES_MAX);
            match next.filter(|_| own) {
                Some(gateway) => self.attempt(client, gateway),
                None => {
                    self.counts.abandoned += 1;
                    if let Some(busy) = self.clients.all[client].busy.take() {
                        if let Some(request) = &busy.request {
                            self.clients.waiting.remove(request);
                        }
                        self.clients.reading.remove(&busy.nonce);
                    }
                    self.next_turn(client);
                    self.rest(client);
                }
            }
        }
    }

    /// One mutation of the simulator's own through this gateway; its name tells whether it took effect.
    pub(crate) fn probe(&mut self, gateway: usize) -> Option<BucketName> {
        let name = self.clients.name()?;
        let request = self.hosts[gateway].process.as_mut().and_then(|p| p.core.request_id())?;
        self.record.asks_create(&name);
        self.input(
            gateway,
            Input::Propose {
                request,
                change: Change::CreateBucket { name: name.clone(), created_ns: self.wall_ns(), props: BTreeMap::new() },
                basis: None,
            },
        );
        Some(name)
    }

    /// What a gateway's wall clock says: anything.
    fn wall_ns(&self) -> i64 {
        if self.plan.wall_steps {
            i64::try_from(self.order.wrapping_mul(0x9e37_79b9_7f4a) >> 1).unwrap_or(0)
        } else {
            0
        }
    }
}
