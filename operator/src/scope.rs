//! Which namespaces are watched.
//!
//! All of them by one watch a kind, or some by one watch a kind in each: a namespace that is not watched is never
//! asked about, so no right in it is needed.

use std::collections::BTreeMap;

use ais_crds::AISCluster;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};

/// Clusters that are waiting for a pass, of one namespace. When full nothing is lost: they are polled too.
const QUEUE: usize = 1024;

/// A watched part of the API, and the clusters in it that are to be looked at now.
pub type Part = (Option<String>, BoxStream<'static, ObjectRef<AISCluster>>);

/// Namespaces to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Vec<String>);

impl Scope {
    /// These; all when there is none. Blanks and repetitions are left out.
    #[must_use]
    pub fn new(namespaces: Vec<String>) -> Self {
        let mut names: Vec<String> = namespaces.iter().map(|name| name.trim().to_owned()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        Self(names)
    }

    /// All namespaces, and what belongs to none.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// One part for everything, or one a namespace with its own share of `triggers`.
    pub fn parts(self, triggers: impl Stream<Item = ObjectRef<AISCluster>> + Send + 'static) -> Vec<Part> {
        if self.0.is_empty() {
            return vec![(None, triggers.boxed())];
        }
        let mut doors = BTreeMap::new();
        let mut parts = Vec::new();
        for name in self.0 {
            let (door, queue) = mpsc::channel(QUEUE);
            doors.insert(name.clone(), door);
            parts.push((Some(name), queue.boxed()));
        }
        // Ends with the triggers, which end with the process.
        tokio::spawn(triggers.for_each(move |cluster| {
            if let Some(door) = cluster.namespace.as_ref().and_then(|name| doors.get_mut(name)) {
                let _ = door.try_send(cluster);
            }
            futures::future::ready(())
        }));
        parts
    }
}

/// Objects of one namespace, or of all.
#[must_use]
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn cluster(namespace: &str) -> ObjectRef<AISCluster> {
        ObjectRef::new("demo").within(namespace)
    }

    #[tokio::test]
    async fn a_trigger_reaches_the_part_of_its_namespace_only() {
        let scope = Scope::new(["b", "a ", "", "b"].map(str::to_owned).to_vec());
        let parts = scope.parts(stream::iter(["a", "b", "c", "b"].map(cluster)));
        let mut got = Vec::new();
        for (namespace, queue) in parts {
            got.push((namespace, queue.collect::<Vec<_>>().await));
        }
        let expected =
            vec![(Some("a".to_owned()), vec![cluster("a")]), (Some("b".to_owned()), vec![cluster("b"), cluster("b")])];
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn without_a_name_everything_is_one_part() {
        let mut parts = Scope::new(vec![String::new()]).parts(stream::iter(["a", "b"].map(cluster)));
        let (namespace, queue) = parts.remove(0);
        assert_eq!((namespace, queue.count().await, parts.len()), (None, 2, 0));
    }
}
