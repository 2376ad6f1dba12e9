//! The routes in process, over a core that is a few lines long.

mod admission;
mod buckets;
mod calls;
mod golden;
mod maps;
mod sockets;
mod sweep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use ais_ha::register::Term;
use ais_ha::{Genesis, Sender, Transferred};
use ais_meta::{
    Address, Addresses, Basis, BootId, Change, ClusterUuid, DiskId, Node, Outcome, Refusal, RequestId, Voter, VoterId,
};
use axum::http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;

use super::serve::enter;
use super::*;
use crate::config::{Flags, Surroundings};
use crate::handle::{Command, Ends, Identity, Proposed};
use crate::keyring::Keyring;
use crate::tls::Tls;

pub(super) fn node(id: &str, kind: Kind, flags: u64, port: u16) -> Node {
    let at = |port| Address { host: "127.0.0.1".into(), port };
    Node {
        id: id.parse().unwrap(),
        disk: DiskId(7),
        run: 1,
        kind,
        addresses: Addresses { public: at(port), control: at(port + 1), peer: at(port + 2) },
        flags,
        domain: String::new(),
        extra: BTreeMap::new(),
    }
}

fn voter_id(id: &str) -> VoterId {
    VoterId::new(id.parse().unwrap(), DiskId(7))
}

/// g1 leads g2, g3, g4 (which is non-electable) and t1.
pub(super) fn genesis() -> State {
    let gateways = [("g1", 0, 1000), ("g2", 0, 2000), ("g3", 0, 3000)];
    let nodes = gateways.map(|(id, flags, port)| node(id, Kind::Gateway, flags, port)).to_vec();
    let uuid: ClusterUuid = "kJ8sPq2Lx".parse().unwrap();
    let genesis = ais_meta::state::Genesis {
        uuid,
        nodes,
        founder: voter_id("g1"),
        run: 1,
        lease_ms: 2000,
        created_s: 1_767_225_600,
    };
    let state = State::genesis(genesis).unwrap();
    let mut draft = state.draft(state.stamp().next());
    for node in [node("g4", Kind::Gateway, 1, 4000), node("t1", Kind::Target, 0, 5000)] {
        draft.change(&Change::Join { node: Box::new(node) });
    }
    draft.finish().unwrap().0
}

/// Says how the core answers, and what it was asked.
#[derive(Default)]
pub(super) struct Script {
    /// Instead of doing it.
    pub(super) proposed: Option<Proposed>,
    pub(super) transferred: Option<Transferred>,
    /// Answer to a pull.
    pub(super) fresh: bool,
    /// Published while proposals are on their way, one each.
    pub(super) meanwhile: VecDeque<State>,
    /// Published by a pull.
    pub(super) news: Option<Arc<State>>,
    pub(super) asked: Vec<String>,
}

/// A node without engine.
pub(super) struct World {
    pub(super) app: Arc<App>,
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) view: watch::Sender<Arc<View>>,
    _closing: watch::Sender<bool>,
    pub(super) core: tokio::task::JoinHandle<()>,
    public: Router,
    control: Router,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) fn view_of(state: Option<State>, role: RoleName) -> View {
    let leader = state.as_ref().map(|s| Voter::from(&**s.nodes().get(&s.primary().node).unwrap()));
    View {
        role,
        reason: if state.is_some() { String::new() } else { "waiting for g2".to_owned() },
        uuid: state.as_ref().map(|s| s.uuid().clone()),
        genesis: state.as_ref().map_or(Genesis::Unformed, |s| Genesis::Formed(s.uuid().clone())),
        accepted: state.as_ref().map(State::stamp),
        promised: Term::new(0, 1),
        primary: leader,
        epoch: 1,
        ready: state.is_some(),
        stopping: false,
        disk_ok: true,
        members: BTreeMap::new(),
        peers: BTreeMap::new(),
        published: state.map(Arc::new),
    }
}

pub(super) fn config(id: &str, kind: Kind, secret: Option<&str>) -> Config {
    let mut flags = Flags::default();
    for (key, value) in [("node_id", id), ("state_dir", "/s"), ("listen_host", "127.0.0.1"), ("insecure", "true")] {
        flags.values.insert(key, value.to_owned());
    }
    flags.values.insert("kind", kind.to_string());
    let mut config = crate::config::load(&flags, &Surroundings { env: &|_| None, hostname: None }).unwrap();
    let secret = secret.and_then(|text| ais_meta::auth::Secret::from_file_content(text.as_bytes()));
    config.keyring = Keyring::new(secret.map(Into::into), None);
    config
}

fn obey(script: &Mutex<Script>, view: &watch::Sender<Arc<View>>, command: Command) {
    let mut script = script.lock().unwrap();
    match command {
        Command::Propose { client_id, change, basis, done } => {
            script.asked.push(format!("{client_id:?} {change:?}"));
            if let Some(state) = script.meanwhile.pop_front() {
                view.send_modify(|view| Arc::make_mut(view).published = Some(Arc::new(state)));
            }
            let answer = script.proposed.clone().unwrap_or_else(|| settle(view, client_id, &change, basis));
            drop(done.send(answer));
        }
        Command::Transfer { to, expected_primary, expected_epoch, done } => {
            script.asked.push(format!("{to} {expected_primary:?} {expected_epoch:?}"));
            drop(done.send(script.transferred.clone().unwrap_or(Transferred::NoPrimary)));
        }
        Command::Pull { done } => {
            script.asked.push("pull".to_owned());
            if let Some(state) = script.news.take() {
                view.send_modify(|view| Arc::make_mut(view).published = Some(state));
            }
            let _ = done.send(script.fresh);
        }
        Command::Recover { stamp, done } => {
            script.asked.push(format!("recover {stamp}"));
            drop(done.send(Err(ais_ha::RecoverRefused::NotFormed)));
        }
        Command::Poke => script.asked.push("poke".to_owned()),
        Command::Introduce { node, peer } => script.asked.push(format!("introduce {node} {peer}")),
    }
}

fn settle(
    view: &watch::Sender<Arc<View>>,
    client_id: Option<String>,
    change: &Change,
    basis: Option<Basis>,
) -> Proposed {
    let state = view.borrow().published.clone().unwrap();
    if basis.is_some_and(|basis| basis != state.basis(change)) {
        return Proposed::Settled { outcome: Outcome::Refused(Refusal::Outdated), stamp: state.stamp() };
    }
    let mut draft = state.draft(state.stamp().next());
    let outcome = draft.change(change);
    if let Some(id) = client_id {
        draft.settle(&RequestId::Client(id), 0, outcome.clone());
    }
    let state = draft.finish().unwrap().0;
    let stamp = state.stamp();
    view.send_modify(|view| Arc::make_mut(view).published = Some(Arc::new(state)));
    Proposed::Settled { outcome, stamp }
}

impl World {
    pub(super) fn new(id: &str, kind: Kind, state: Option<State>, secret: Option<&str>) -> Self {
        Self::with_keys(id, kind, state, secret, Given::default())
    }

    /// With a key for tokens.
    pub(super) fn with_keys(id: &str, kind: Kind, state: Option<State>, secret: Option<&str>, keys: Given) -> Self {
        Self::on(config(id, kind, secret), state, keys)
    }

    /// With certificates.
    pub(super) fn with_tls(id: &str, kind: Kind, state: Option<State>, tls: Tls) -> Self {
        let mut config = config(id, kind, None);
        config.tls = Some(tls);
        Self::on(config, state, Given::default())
    }

    fn on(config: Config, state: Option<State>, keys: Given) -> Self {
        let (id, kind) = (config.node_id.to_string(), config.kind);
        let id = id.as_str();
        let role = if id == "g1" { RoleName::Primary } else { RoleName::Follower };
        let me = node(id, kind, 0, 1000);
        let identity = Identity {
            sender: Sender { id: voter_id(id), run: 1, boot: BootId(9) },
            kind,
            addresses: me.addresses,
            version: "0.1.0",
            started_unix_ms: 0,
            voters_max: 5,
        };
        let (handle, ends) = Handle::new(identity, view_of(state, role));
        let Ends { mut commands, view, .. } = ends;
        let script = Arc::new(Mutex::new(Script { fresh: true, ..Script::default() }));
        let (view, core_script) = (view, Arc::clone(&script));
        let (outer, mut changes) = watch::channel(Arc::clone(&view.borrow()));
        let inner = outer.clone();
        // The core owns the watch: when it ends, the handle sees it.
        let core = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(command) = commands.recv() => {
                        obey(&core_script, &inner, command);
                        view.send_replace(Arc::clone(&inner.borrow()));
                    }
                    Ok(()) = changes.changed() => drop(view.send_replace(Arc::clone(&changes.borrow_and_update()))),
                    else => return,
                }
            }
        });
        let (closing, closed) = watch::channel(false);
        let config = Arc::new(config);
        let mut app = App::new(handle, config, Arc::new(Metrics::new()), closed).unwrap();
        app.authority = Authority::new(keys);
        let app = Arc::new(app);
        let (public, control) = (routes(Arc::clone(&app), Door::Public), routes(Arc::clone(&app), Door::Control));
        Self { app, script, view: outer, _closing: closing, core, public, control }
    }

    pub(super) fn gateway() -> Self {
        Self::new("g2", Kind::Gateway, Some(genesis()), None)
    }

    /// Changes the view and waits until the handle shows it.
    pub(super) async fn change(&self, edit: impl FnOnce(&mut View)) {
        let mut seen = self.app.handle.view();
        seen.mark_unchanged();
        self.view.send_modify(|view| edit(Arc::make_mut(view)));
        seen.changed().await.unwrap();
    }

    pub(super) async fn send(&self, door: Door, request: Request<Body>) -> Answer {
        let router = if door == Door::Public { &self.public } else { &self.control };
        let response = enter(router.clone(), "10.1.1.7:40122".parse().unwrap(), request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(Door::Public, request(method, path, body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }
}

pub(super) fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()
}

pub(super) const CREATE: &str = r#"{"action":"create-bck","name":"","value":null}"#;
pub(super) const DESTROY: &str = r#"{"action":"destroy-bck","name":"","value":null}"#;
pub(super) const LIST: &str = r#"{"action":"list","name":"","value":null}"#;
pub(super) const DONE: Outcome = Outcome::Done;
