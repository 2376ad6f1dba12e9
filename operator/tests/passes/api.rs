//! An API server in a few lines: objects by plural and name, apply and patches as merges, lists by label, a watch of
//! what is of no namespace. It refuses what a test wants refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Body as Answer;
use axum::http::{Method, Request, Response, StatusCode};
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use ais_operator::apply::resource;

use crate::common::{World, merge};

/// Plural and name of an object.
type Key = (String, String);

/// What a write is answered instead: plural and name, HTTP status and message.
type Refusal = (Key, u16, String);

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    refusals: Vec<Refusal>,
    /// Plurals that cannot be listed, and with what HTTP status.
    hidden: BTreeMap<String, u16>,
    /// Plural and stream of every watch.
    watches: Vec<(String, UnboundedSender<String>)>,
    /// Method, plural and name of every write, in order.
    written: Vec<String>,
    /// Plural and label selector of every list.
    listed: Vec<(String, String)>,
    events: Vec<Value>,
    version: u64,
}

/// The server.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Store>>);

fn key(plural: &str, name: &str) -> Key {
    (plural.to_owned(), name.to_owned())
}

impl Api {
    /// With everything a world has, as Kubernetes would have it.
    pub(crate) fn of(world: &World) -> Self {
        let api = Self::default();
        let observed = &world.observed;
        api.put("aisclusters", "demo", serde_json::to_value(&observed.cluster).unwrap());
        for ((kind, name), object) in &observed.live {
            let mut object = object.clone();
            if let Some(set) = observed.sets.values().find(|s| s.uid == format!("uid-{name}")) {
                object["metadata"]["uid"] = json!(set.uid);
                object["status"] =
                    json!({"replicas": set.replicas, "observedGeneration": 1, "updateRevision": set.revision});
            }
            api.put(&resource(*kind).plural, name, object);
        }
        let names = observed.names();
        for pod in &observed.pods {
            let mut labels = names.role_labels(pod.role.unwrap());
            labels.insert("controller-revision-hash".into(), pod.revision.clone());
            if pod.labelled_primary {
                labels.insert("aiscluster.dev/role".into(), "primary".into());
            }
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod.name, "namespace": "ns", "uid": pod.uid, "labels": labels},
                "spec": {"containers": [], "nodeName": pod.node},
                "status": {
                    "podIP": pod.ip,
                    "conditions": [{"type": "Ready", "status": if pod.ready { "True" } else { "False" }}],
                    "containerStatuses": [{
                        "name": "ais-node", "image": "x", "imageID": "x", "ready": pod.ready, "restartCount": 0,
                        "state": {"running": {}},
                    }],
                },
            });
            api.put("pods", &pod.name, object);
        }
        for claim in &observed.claims {
            let mut labels = names.role_labels(claim.role);
            labels.insert("aiscluster.dev/cluster-id".into(), claim.cluster_id.clone().unwrap());
            labels.insert("aiscluster.dev/formed".into(), "true".into());
            let object = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim.name, "namespace": "ns", "uid": claim.uid, "labels": labels},
                "spec": {"resources": {"requests": {"storage": claim.requested}}},
                "status": {"capacity": {"storage": claim.capacity}},
            });
            api.put("persistentvolumeclaims", &claim.name, object);
        }
        api
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        Client::new(service, "ns")
    }

    pub(crate) fn put(&self, plural: &str, name: &str, mut object: Value) {
        let mut store = self.0.lock().unwrap();
        store.version += 1;
        object["metadata"]["resourceVersion"] = json!(store.version.to_string());
        store.announce("MODIFIED", plural, &object);
        store.objects.insert(key(plural, name), object);
    }

    /// Takes an object away, whatever holds it.
    pub(crate) fn remove(&self, plural: &str, name: &str) {
        let mut store = self.0.lock().unwrap();
        if let Some(object) = store.objects.remove(&key(plural, name)) {
            store.announce("DELETED", plural, &object);
        }
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Value {
        self.0.lock().unwrap().objects.get(&key(plural, name)).cloned().unwrap_or_default()
    }

    /// Changes an object as a user would.
    pub(crate) fn edit(&self, plural: &str, name: &str, patch: &Value) {
        let mut object = self.get(plural, name);
        merge(&mut object, patch);
        self.put(plural, name, object);
    }

    /// Writes of this object are refused from now on.
    pub(crate) fn refuse(&self, plural: &str, name: &str, status: u16, message: &str) {
        self.0.lock().unwrap().refusals.push((key(plural, name), status, message.to_owned()));
    }

    /// Nobody may list objects of this kind from now on.
    pub(crate) fn hide(&self, plural: &str, status: u16) {
        self.0.lock().unwrap().hidden.insert(plural.to_owned(), status);
    }

    /// Nothing is refused any more.
    pub(crate) fn allow(&self) {
        let mut store = self.0.lock().unwrap();
        (store.refusals, store.hidden) = Default::default();
    }

    /// Writes since the last question.
    pub(crate) fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().written)
    }

    pub(crate) fn selectors(&self, plural: &str) -> Vec<String> {
        let store = self.0.lock().unwrap();
        store.listed.iter().filter(|(of, _)| of == plural).map(|(_, selector)| selector.clone()).collect()
    }

    /// Reasons of events, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let store = self.0.lock().unwrap();
        store.events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse("http://api").unwrap().join(&parts.uri.to_string()).unwrap();
        let selector = url.query_pairs().find(|(name, _)| name == "labelSelector").map(|(_, text)| text.into_owned());
        let body = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let segments: Vec<&str> = url.path_segments().unwrap().collect();
        let mut store = self.0.lock().unwrap();
        let Some(at) = segments.iter().position(|s| *s == "namespaces") else {
            let told = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, text)| text.into_owned());
            return match (segments.last().copied(), told("watch")) {
                (Some(plural @ "nodes"), None) => store.list(plural, ""),
                (Some(plural @ "nodes"), Some(_)) => store.watch(plural, &told("resourceVersion").unwrap()),
                _ => failure(404, "no such thing"),
            };
        };
        match (segments[at + 2], segments.get(at + 3).copied()) {
            ("events", _) => {
                store.events.push(body.clone());
                success(&body)
            }
            (plural, None) => store.list(plural, &selector.unwrap_or_default()),
            (plural, Some(name)) => {
                store.object(&parts.method, key(plural, name), segments.get(at + 4).copied(), &body)
            }
        }
    }
}

impl Store {
    fn list(&mut self, plural: &str, selector: &str) -> Response<Answer> {
        self.listed.push((plural.to_owned(), selector.to_owned()));
        if let Some(status) = self.hidden.get(plural) {
            return failure(*status, "not now");
        }
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((of, _), object)| of == plural && matches(&object["metadata"]["labels"], selector))
            .map(|(_, object)| object)
            .collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        success(&json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}))
    }

    /// Everything that changed since, and whatever changes from now on.
    fn watch(&mut self, plural: &str, since: &str) -> Response<Answer> {
        let since: u64 = since.parse().unwrap();
        let (sender, lines) = unbounded();
        self.watches.push((plural.to_owned(), sender));
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        let missed = self.objects.iter().filter(|((of, _), object)| of == plural && version(object) > since);
        missed.for_each(|(_, object)| self.announce("MODIFIED", plural, object));
        Response::new(Answer::from_stream(lines.map(Ok::<_, std::convert::Infallible>)))
    }

    fn announce(&self, what: &str, plural: &str, object: &Value) {
        for (_, watch) in self.watches.iter().filter(|(of, _)| of == plural) {
            let _ = watch.unbounded_send(format!("{}\n", json!({"type": what, "object": object})));
        }
    }

    fn object(&mut self, method: &Method, key: Key, part: Option<&str>, body: &Value) -> Response<Answer> {
        if *method == Method::GET {
            return self.objects.get(&key).map_or_else(|| failure(404, "not found"), success);
        }
        if let Some((_, status, message)) = self.refusals.iter().find(|(of, ..)| *of == key) {
            return failure(*status, message);
        }
        let part = part.map(|part| format!("/{part}")).unwrap_or_default();
        self.written.push(format!("{method} {}/{}{part}", key.0, key.1));
        if *method == Method::DELETE {
            return self.objects.remove(&key).map_or_else(|| failure(404, "not found"), |old| success(&old));
        }
        self.version += 1;
        let version = self.version;
        let fresh = || json!({"metadata": {"uid": format!("uid-{}", key.1)}});
        let object = self.objects.entry(key.clone()).or_insert_with(fresh);
        if part == "/status" {
            object["status"] = body["status"].clone();
        } else {
            merge(object, body);
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        success(object)
    }
}

/// Equality and `in`, which is all that anybody here asks for.
pub(crate) fn matches(labels: &Value, selector: &str) -> bool {
    let (mut rest, mut all) = (selector, true);
    while !rest.is_empty() {
        let end = match (rest.find('('), rest.find(',')) {
            (Some(open), Some(comma)) if open < comma => rest.find(')').unwrap() + 1,
            (_, comma) => comma.unwrap_or(rest.len()),
        };
        let (term, more) = rest.split_at(end);
        rest = more.trim_start_matches(',');
        all &= match term.split_once(" in ") {
            Some((name, values)) => {
                values.trim_matches(['(', ')']).split(',').any(|value| labels[name.trim()] == value.trim())
            }
            None => {
                let (name, value) = term.split_once('=').unwrap();
                labels[name] == value
            }
        };
    }
    all
}

fn success(object: &Value) -> Response<Answer> {
    Response::new(Answer::from(object.to_string()))
}

fn failure(code: u16, message: &str) -> Response<Answer> {
    let reason = if code == 404 { "NotFound" } else { "Invalid" };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    let mut response = success(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
