//! Membership: maintenance, decommission, removal, joining by hand, the end of the whole cluster (http-api.md 2.7, 2.8).

use std::sync::Arc;
use std::time::Duration;

use ais_meta::auth::ANYBODY;
use ais_meta::change::{MemberAction, MemberOptions};
use ais_meta::{Address, Change, NodeId};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures::future::join_all;
use serde_json::{Value, json};

use super::error::ApiError;
use super::mutate::{Call, mutate, settle};
use super::params::{Action, object};
use super::{App, CALLER_ID, Door, absent, done, json as reply, put_stamp, reverse, text};

/// How long a node that was told where the cluster is may take to get into the map.
const JOIN_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 15_000 });
/// Flags that an administrator gives a node that joins.
const NODE_FLAGS: &str = "ais-node-flags";
/// Longest list of nodes in one call; there are not more of them.
const NODES_MAX: usize = 4096;

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("node \"{id}\" is not in the cluster map")).tcode("ErrNodeNotFound")
}

/// What a membership action is about.
pub(super) struct Batch {
    pub(super) nodes: Vec<NodeId>,
    pub(super) options: MemberOptions,
}

/// `{"sid":"","sids":["t1"],"skip_rebalance":false,...}`
pub(super) fn batch(value: &Value) -> Result<Batch, ApiError> {
    let bad = |why: String| ApiError::bad(format!("the value is not a list of nodes: {why}"));
    let fields = object(value.to_string().as_bytes()).map_err(bad)?;
    let flag = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(_) => Err(bad(format!("'{name}' is neither true nor false"))),
    };
    let one = match fields.get("sid") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.as_str()).filter(|id| !id.is_empty()),
        Some(_) => return Err(bad("'sid' is not a text".to_owned())),
    };
    let many: Vec<&str> = match fields.get("sids") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(ids)) if ids.len() <= NODES_MAX && ids.iter().all(Value::is_string) => {
            ids.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => return Err(bad("'sids' is not a list of texts".to_owned())),
    };
    if one.is_some() && !many.is_empty() {
        return Err(bad("'sid' and 'sids' exclude each other".to_owned()));
    }
    let nodes = one.into_iter().chain(many).map(|id| id.parse().map_err(|_| unknown(id)));
    Ok(Batch {
        nodes: nodes.collect::<Result<_, _>>()?,
        options: MemberOptions {
            skip_rebalance: flag("skip_rebalance")?,
            rm_user_data: flag("rm_user_data")?,
            keep_initial_config: flag("keep_initial_config")?,
            no_shutdown: flag("no_shutdown")?,
        },
    })
}

/// `start-maintenance`, `stop-maintenance`, `shutdown-node`, `decommission-node`, `rm-unsafe`. Answers the rebalance's
/// id, if it began one.
pub(super) async fn change(app: &App, call: &Call, action: MemberAction, value: &Value) -> Result<Response, ApiError> {
    absent::force(&call.params)?;
    let Batch { nodes, options } = batch(value)?;
    let change = Change::Membership { action, nodes, options };
    mutate(app, call, change, |settled| {
        let mut response = settled.began.map_or_else(|| done(None), text);
        put_stamp(&mut response, Some(settled.stamp));
        response
    })
    .await
}

/// `shutdown`: the whole cluster in order. First everybody learns that nobody is to take over, then everybody ends.
pub(super) async fn shutdown(app: &Arc<App>, call: &Call) -> Result<Response, ApiError> {
    let before = Arc::clone(app);
    let answer = settle(app, call, Change::Stopping { stopping: true }).await?;
    tracing::info!("the whole cluster is shut down");
    tokio::spawn(async move { end_all(&before).await });
    Ok(answer)
}

/// `decommission`: the whole cluster for good. Committed first; whoever sees that forgets the cluster and ends, each
/// by itself, the primary last.
pub(super) async fn decommission(app: &App, call: &Call, value: &Value) -> Result<Response, ApiError> {
    absent::force(&call.params)?;
    let Batch { nodes, options } = batch(value)?;
    if !nodes.is_empty() {
        return Err(ApiError::bad("'decommission' is for the whole cluster; nodes leave by 'decommission-node'"));
    }
    let answer = settle(app, call, Change::Decommission { options }).await?;
    tracing::warn!(?options, "the whole cluster is decommissioned");
    Ok(answer)
}

async fn end_all(app: &App) {
    let view = app.view();
    let Some(state) = &view.published else { return };
    let body = Bytes::from_static(br#"{"action":"shutdown"}"#);
    let others = state.nodes().values().filter(|node| node.id != *app.id());
    let calls = others.map(|node| {
        let url = format!("{}/v1/daemon", app.url(&node.addresses.control));
        let (id, body) = (node.id.clone(), body.clone());
        async move {
            if let Err(why) = reverse::call(app, id.as_str(), Method::PUT, &url, body).await {
                tracing::warn!(%id, why, "was not told to end");
            }
        }
    });
    join_all(calls).await;
    app.handle.stop();
}

/// `PUT /v1/daemon` at the control listener: this node, told by a member or the operator.
pub(super) async fn daemon_put(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    match Action::read(&call.body)?.action.as_str() {
        "shutdown" => {
            tracing::info!("told to end by {}", caller_id(&call).unwrap_or("a signed call"));
            app.handle.stop();
            Ok(done(None))
        }
        "" => Err(ApiError::bad("the body names no action")),
        other => Err(absent::daemon_action(other)),
    }
}

fn caller_id(call: &Call) -> Option<&str> {
    call.headers.get(CALLER_ID).and_then(|id| id.to_str().ok())
}

/// `POST /v1/cluster/join-by-admin` with the Snode of the node, of which the kind and the control address count.
pub(super) async fn join_by_admin(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    app.gateway_only("join-by-admin")?;
    let never_leads = never_leads(&call)?;
    let (net, kind) = to_join(&call.body)?;
    app.state().await?;
    let url = format!("{}/v1/daemon", app.url(&net));
    let unreached = |why: String| {
        ApiError::new(StatusCode::BAD_GATEWAY, format!("no node with this cluster's secret answers at {net}: {why}"))
    };
    let who = format!("{url}?what=snode");
    let told = reverse::call(&app, ANYBODY, Method::GET, &who, Bytes::new()).await.map_err(unreached)?;
    let snode: Value = reverse::json_of(told).await.map_err(unreached)?;
    let id = snode["daemon_id"].as_str().unwrap_or_default().to_owned();
    if !kind.is_empty() && snode["daemon_type"] != *kind {
        return Err(ApiError::bad(format!("{id} at {net} is not a {kind}")));
    }
    let node: NodeId = id.parse().map_err(|_| unreached("it does not say who it is".to_owned()))?;
    if never_leads {
        // Before it joins: afterwards it might be primary already.
        let change = Change::Admit { node: node.clone(), non_electable: true };
        settle(&app, &call, change).await?;
    }
    let me = app.handle.identity();
    let body = json!({"node_id": me.sender.id.node, "peer": me.addresses.peer});
    let (join, body) = (format!("{url}/join-by-admin"), Bytes::from(body.to_string()));
    let told = reverse::call(&app, node.as_str(), Method::POST, &join, body).await;
    if let Some(refused) = told.map_err(unreached)?.status().as_u16().checked_sub(300) {
        return Err(unreached(format!("it refuses to join (status {})", refused + 300)));
    }
    let mut views = app.handle.view();
    let joined = views.wait_for(|view| view.published.as_ref().is_some_and(|state| state.nodes().contains_key(&node)));
    if !matches!(tokio::time::timeout(JOIN_TIMEOUT, joined).await, Ok(Ok(_))) {
        let text = format!("{node} was told to join and is not in the cluster map yet; ask it for its reason");
        return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, text));
    }
    let stamp = app.view().published.as_ref().map(|state| state.stamp());
    // Placement follows by itself once there is a data plane; joining starts no job.
    reply(&json!({"daemon_id": node, "rebalance_id": ""}), stamp)
}

/// Where the node listens that is to join, and of which kind it should be, if that is said.
pub(super) fn to_join(body: &[u8]) -> Result<(Address, String), ApiError> {
    let bad = |why: String| ApiError::bad(format!("the body is not a node to join: {why}"));
    let fields = object(body).map_err(bad)?;
    let net = fields.get("intra_control_net").and_then(address);
    let net = net.ok_or_else(|| bad("intra_control_net names no node_ip_addr and daemon_port".to_owned()))?;
    Ok((net, fields.get("daemon_type").and_then(Value::as_str).unwrap_or_default().to_owned()))
}

/// AIStore's `Ais-Node-Flags`: 1 is a gateway that never leads. No other flag can be given to a node that joins.
fn never_leads(call: &Call) -> Result<bool, ApiError> {
    match call.headers.get(NODE_FLAGS).map(|value| value.to_str().unwrap_or_default()) {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(ApiError::bad("Ais-Node-Flags of a node that joins is 0, or 1: non-electable")),
    }
}

/// AIStore's NetInfo, or what is enough of it.
fn address(net: &Value) -> Option<Address> {
    let port = match &net["daemon_port"] {
        Value::String(text) => text.parse().ok()?,
        number => u16::try_from(number.as_u64()?).ok()?,
    };
    let host = net["node_ip_addr"].as_str().filter(|host| !host.is_empty())?;
    let plain = host.len() <= 253 && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c));
    (plain && port > 0).then(|| Address { host: host.into(), port })
}

/// `POST /v1/daemon/join-by-admin` at the control listener: a member of a cluster says where it is.
pub(super) async fn introduced(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let (node, peer) = introduction(&call.body)?;
    tracing::info!(%node, %peer, "told where the cluster is");
    app.handle.introduce(node, peer);
    Ok(done(None))
}

/// A member, and where it talks to members.
pub(super) fn introduction(body: &[u8]) -> Result<(NodeId, Address), ApiError> {
    let bad = || ApiError::bad("the body does not say which member to join");
    let told: Value = serde_json::from_slice(body).map_err(|_| bad())?;
    let node: NodeId = told["node_id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(bad)?;
    let peer: Address = serde_json::from_value(told["peer"].clone()).map_err(|_| bad())?;
    Ok((node, peer))
}

/// `DELETE /v1/cluster/daemon/ID`: a node takes itself out of the map.
pub(super) async fn remove_self(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    axum::Extension(door): axum::Extension<Door>,
    call: Call,
) -> Result<Response, ApiError> {
    app.gateway_only("removal of a node")?;
    if door == Door::Public {
        let text = "a node takes itself out of the map on the control listener; administrators use PUT /v1/cluster \
                    with decommission-node or rm-unsafe";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    }
    if caller_id(&call) != Some(id.as_str()) {
        return Err(ApiError::bad(format!("only {id} itself may take {id} out of the map (header Ais-Caller-Id)")));
    }
    let node: NodeId = id.parse().map_err(|_| unknown(&id))?;
    let state = app.formed().await?;
    if state.primary().node == node {
        return Err(ApiError::bad(format!("{id} is the primary: make another gateway primary first")));
    }
    settle(&app, &call, Change::Leave { node }).await
}
