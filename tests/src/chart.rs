//! What the chart makes of its values: a table of values and of what must then stand where.
//!
//! The API server judges most objects in the Kubernetes tests. Those of Prometheus Operator it does not know, and it
//! accepts a selector that selects nothing: both are looked at here.

mod network;
mod policy;

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use crate::product;
use crate::progress::Progress;
use crate::xtask::package;

static HELM: LazyLock<PathBuf> = LazyLock::new(|| package::helm(&Progress::new("chart")).expect("helm"));

/// All objects of a rendering.
struct Rendered(Vec<Value>);

impl Rendered {
    /// With these values (`--set-json`), in the namespace of the operator.
    fn with(values: &[&str]) -> Self {
        let more: Vec<&str> = values.iter().flat_map(|value| ["--set-json", value]).collect();
        let text = package::template(&HELM, &product::chart(), &more).expect("rendered");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        Self(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// By kind, or by `Kind/name` where there are several; `Null` if there is none.
    fn get(&self, what: &str) -> &Value {
        let (kind, name) = what.split_once('/').map_or((what, None), |(kind, name)| (kind, Some(name)));
        let found = |o: &&Value| o["kind"] == kind && name.is_none_or(|name| o["metadata"]["name"] == name);
        self.0.iter().find(found).unwrap_or(&Value::Null)
    }

    /// The operator's pod.
    fn pod(&self) -> &Value {
        &self.get("Deployment")["spec"]["template"]
    }
}

/// A place in an object: `a.b.0.c`, with `[name]` for the element of a list that has this name.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|step| !step.is_empty()).fold(object, |value, step| {
        let named = step.strip_prefix('[').and_then(|step| step.strip_suffix(']'));
        match (named, step.parse::<usize>()) {
            (Some(name), _) => {
                let list = value.as_array().into_iter().flatten();
                list.into_iter().find(|item| item["name"] == name).unwrap_or(&Value::Null)
            }
            (None, Ok(index)) => &value[index],
            (None, Err(_)) => &value[step],
        }
    })
}

/// Whether these labels are selected: by `matchLabels` or a Service's plain selector.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("a selector");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use serde_json::json;

    use super::*;

    const CONTAINER: &str = "spec.template.spec.containers.[operator]";

    /// Values, then object, place and what is there; `Null` for nothing.
    type Case<'a> = (&'a [&'a str], Vec<(&'a str, &'a str, Value)>);

    fn check(cases: Vec<Case<'_>>) {
        for (values, wanted) in cases {
            let rendered = Rendered::with(values);
            for (object, place, wanted) in wanted {
                // `=path` is below the operator's container.
                let path = place.strip_prefix('=').map_or(place.to_owned(), |path| format!("{CONTAINER}.{path}"));
                let found = at(rendered.get(object), &path);
                assert_eq!(*found, wanted, "{values:?}: {object} {place}");
            }
        }
    }

    #[test]
    fn without_values_it_is_safe_and_asks_for_nothing_that_is_not_there() {
        let image = json!("localhost/aiscluster:0.1.0");
        check(vec![(
            &[],
            vec![
                ("Deployment", "spec.replicas", json!(2)),
                ("Deployment", "=image", image.clone()),
                ("Deployment", "=env.[AIS_NODE_IMAGE].value", image),
                ("Deployment", "=env.[AIS_WATCH_NAMESPACES].value", json!("")),
                ("Deployment", "=env.[AIS_TLS_AUTHORITY_SECONDS].value", json!("315360000")),
                ("Deployment", "=securityContext.readOnlyRootFilesystem", json!(true)),
                ("Deployment", "=resources.limits", json!({"memory": "64Mi"})),
                ("PodDisruptionBudget", "spec.maxUnavailable", json!(1)),
                ("NetworkPolicy", "spec.policyTypes", json!(["Ingress", "Egress"])),
                ("CustomResourceDefinition", "metadata.annotations", json!({"helm.sh/resource-policy": "keep"})),
                ("ClusterRoleBinding", "subjects.0.name", json!("aiscluster-operator")),
                ("PodMonitor", "", Value::Null),
                ("ServiceMonitor", "", Value::Null),
                ("PrometheusRule", "", Value::Null),
                ("ConfigMap", "", Value::Null),
            ],
        )]);
    }

    #[test]
    fn images_by_tag_and_digest() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let by_digest = format!("image.digest=\"{digest}\"");
        let named = json!(format!("r.example/a@{digest}"));
        check(vec![
            (&["image.tag=\"9\""], vec![("Deployment", "=image", json!("localhost/aiscluster:9"))]),
            (
                &["image.repository=\"r.example/a\"", "image.tag=\"9\"", &by_digest],
                vec![
                    ("Deployment", "=image", named.clone()),
                    ("Deployment", "=env.[AIS_NODE_IMAGE].value", named.clone()),
                    ("Pod", "spec.containers.0.image", named),
                ],
            ),
            (
                &["nodeImage=\"n.example/b:1\""],
                vec![
                    ("Deployment", "=image", json!("localhost/aiscluster:0.1.0")),
                    ("Deployment", "=env.[AIS_NODE_IMAGE].value", json!("n.example/b:1")),
                ],
            ),
        ]);
    }

    #[test]
    fn what_can_be_off_is_off() {
        let none = Value::Null;
        check(vec![
            // A budget over one instance would only hold up drains.
            (
                &["replicas=1"],
                vec![("PodDisruptionBudget", "", none.clone()), ("Deployment", "spec.replicas", json!(1))],
            ),
            (&["podDisruptionBudget.enabled=false"], vec![("PodDisruptionBudget", "", none.clone())]),
            (&["networkPolicy.enabled=false"], vec![("NetworkPolicy", "", none.clone())]),
            (&["crds.install=false"], vec![("CustomResourceDefinition", "", none.clone())]),
            (&["crds.keep=false"], vec![("CustomResourceDefinition", "metadata.annotations", none.clone())]),
            (
                &["rbac.aggregate=false"],
                vec![
                    ("ClusterRole/aiscluster-operator-view", "", none.clone()),
                    ("ClusterRole/aiscluster-operator-edit", "", none.clone()),
                    ("ClusterRole/aiscluster-operator", "kind", json!("ClusterRole")),
                ],
            ),
            (
                &["rbac={\"scope\":\"namespaces\"}", "watchNamespaces=[\"team-a\",\"team-b\"]"],
                vec![
                    ("ClusterRoleBinding", "", none.clone()),
                    ("ClusterRole/aiscluster-operator", "", none),
                    ("Role/aiscluster-operator", "metadata.namespace", json!("team-a")),
                    ("Deployment", "=env.[AIS_WATCH_NAMESPACES].value", json!("team-a,team-b")),
                ],
            ),
        ]);
    }

    #[test]
    fn values_reach_the_pods() {
        let toleration = json!([{"key": "a", "operator": "Exists"}]);
        check(vec![
            (
                &[
                    "podLabels={\"team\":\"b\"}",
                    "podAnnotations={\"note\":\"c\"}",
                    "nodeSelector={\"disk\":\"d\"}",
                    "tolerations=[{\"key\":\"a\",\"operator\":\"Exists\"}]",
                    "priorityClassName=\"high\"",
                    "imagePullSecrets=[{\"name\":\"s\"}]",
                    "extraEnv=[{\"name\":\"E\",\"value\":\"1\"}]",
                    "serviceAccount={\"name\":\"other\",\"annotations\":{\"role\":\"r\"}}",
                    "log={\"format\":\"human\",\"level\":\"debug\"}",
                    "clusterDomain=\"k.example\"",
                ],
                vec![
                    ("Deployment", "spec.template.metadata.labels.team", json!("b")),
                    ("Deployment", "spec.selector.matchLabels.team", Value::Null),
                    ("Deployment", "spec.template.metadata.annotations.note", json!("c")),
                    ("Deployment", "spec.template.spec.nodeSelector", json!({"disk": "d"})),
                    ("Deployment", "spec.template.spec.tolerations", toleration),
                    ("Deployment", "spec.template.spec.priorityClassName", json!("high")),
                    ("Deployment", "spec.template.spec.imagePullSecrets", json!([{"name": "s"}])),
                    ("Deployment", "spec.template.spec.serviceAccountName", json!("other")),
                    ("Deployment", "=env.[E].value", json!("1")),
                    ("Deployment", "=env.[AIS_LOG_FORMAT].value", json!("human")),
                    ("Deployment", "=env.[AIS_LOG_LEVEL].value", json!("debug")),
                    ("Deployment", "=env.[AIS_CLUSTER_DOMAIN].value", json!("k.example")),
                    ("ServiceAccount", "metadata.annotations", json!({"role": "r"})),
                    ("ServiceAccount", "metadata.name", json!("other")),
                    ("ClusterRoleBinding", "subjects.0.name", json!("other")),
                    ("RoleBinding", "subjects.0.name", json!("other")),
                ],
            ),
            (
                &["affinity={\"nodeAffinity\":{}}"],
                vec![("Deployment", "spec.template.spec.affinity", json!({"nodeAffinity": {}}))],
            ),
        ]);
    }

    /// The named ports of a list.
    fn ports(list: &Value) -> BTreeSet<&str> {
        list.as_array().into_iter().flatten().filter_map(|port| port["name"].as_str()).collect()
    }

    #[test]
    fn the_service_finds_the_pods_and_their_ports() {
        let rendered = Rendered::with(&[]);
        let (service, pod) = (rendered.get("Service"), rendered.pod());
        assert!(selects(&service["spec"]["selector"], &pod["metadata"]["labels"]));
        assert!(!selects(&service["spec"]["selector"], &rendered.get("Pod")["metadata"]["labels"]), "the check's pod");
        let there = ports(&pod["spec"]["containers"][0]["ports"]);
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(there.contains(port["targetPort"].as_str().unwrap()), "{port} is not in {there:?}");
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            let port = &pod["spec"]["containers"][0][probe]["httpGet"]["port"];
            assert!(there.contains(port.as_str().unwrap()), "{probe}: {port}");
        }
        let budget = rendered.get("PodDisruptionBudget");
        assert!(selects(&budget["spec"]["selector"]["matchLabels"], &pod["metadata"]["labels"]));
    }

    /// Nobody else judges these: the test Kubernetes does not know their kinds.
    #[test]
    fn monitors_select_what_they_are_for() {
        let values =
            |kind: &str| format!("{kind}={{\"enabled\":true,\"interval\":\"7s\",\"labels\":{{\"release\":\"p\"}}}}");
        let rendered = Rendered::with(&[&values("podMonitor"), &values("serviceMonitor")]);
        let (pod, service) = (rendered.pod(), rendered.get("Service"));
        let of = |kind: &str, endpoints: &str, labels: &Value, there: &BTreeSet<&str>| {
            let monitor = rendered.get(kind);
            assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1", "{kind}");
            assert_eq!(monitor["metadata"]["labels"]["release"], "p", "{kind}: Prometheus would not find it");
            assert_eq!(
                monitor["metadata"]["namespace"], service["metadata"]["namespace"],
                "{kind} looks beside itself"
            );
            assert!(selects(&monitor["spec"]["selector"]["matchLabels"], labels), "{kind} selects nothing");
            let [endpoint] = monitor["spec"][endpoints].as_array().unwrap().as_slice() else { panic!("{monitor}") };
            assert!(there.contains(endpoint["port"].as_str().unwrap()), "{kind}: no port {}", endpoint["port"]);
            assert_eq!(endpoint["port"], "metrics", "{kind}");
            assert_eq!(endpoint["interval"], "7s", "{kind}");
            // Else the cluster's namespace would become the operator's.
            assert_eq!(endpoint["honorLabels"], true, "{kind}");
        };
        let there = ports(&pod["spec"]["containers"][0]["ports"]);
        of("PodMonitor", "podMetricsEndpoints", &pod["metadata"]["labels"], &there);
        of("ServiceMonitor", "endpoints", &service["metadata"]["labels"], &ports(&service["spec"]["ports"]));
    }

    #[test]
    fn rules_and_dashboard_are_the_files() {
        let enabled = |kind: &str| format!("{kind}={{\"enabled\":true,\"labels\":{{\"release\":\"p\"}}}}");
        let rendered = Rendered::with(&[&enabled("prometheusRule"), &enabled("grafanaDashboard")]);
        let file = |name: &str| fs::read_to_string(product::chart().join("files").join(name)).unwrap();
        let rule = rendered.get("PrometheusRule");
        assert_eq!(rule["metadata"]["labels"]["release"], "p");
        let rules: Value = serde_saphyr::from_str(&file("rules.yaml")).unwrap();
        // Templates of Prometheus look like those of Helm: none may be lost.
        assert_eq!(rule["spec"], rules);
        let dashboard = rendered.get("ConfigMap");
        assert_eq!(dashboard["metadata"]["labels"]["release"], "p");
        assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1", "the sidecar would not find it");
        let told: Value = serde_json::from_str(dashboard["data"]["aiscluster.json"].as_str().unwrap()).unwrap();
        assert_eq!(told, serde_json::from_str::<Value>(&file("dashboard.json")).unwrap());
    }

    #[test]
    fn places_are_found_by_name_and_number() {
        let object = json!({"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]});
        assert_eq!((at(&object, "a.[y].v"), at(&object, "a.0.v")), (&json!(2), &json!(1)));
        assert_eq!((at(&object, "a.[z].v"), at(&object, "b.c")), (&Value::Null, &Value::Null));
    }
}
