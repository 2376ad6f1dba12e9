//! NetworkPolicies, judged as Kubernetes defines them (`networking.k8s.io/v1`): what is selected by no policy of a
//! direction is open, else a rule of any of them has to let it through; a connection needs both ends' consent.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// A pod as policies see it.
pub(super) struct Pod {
    pub namespace: String,
    pub labels: Value,
    /// As a container lists them: `name`, `containerPort`.
    pub ports: Value,
}

/// One end of a connection.
#[derive(Clone, Copy)]
pub(super) enum End<'a> {
    Pod(&'a Pod),
    /// Outside, or a pod of a node's network: policies know its address only.
    Address(Ipv4Addr),
}

/// All policies of a Kubernetes, as objects.
pub(super) struct Policies(pub Vec<Value>);

impl Policies {
    /// Whether TCP gets through.
    pub(super) fn admit(&self, from: End<'_>, to: End<'_>, port: u16) -> bool {
        self.admit_by(from, to, port, "TCP")
    }

    pub(super) fn admit_by(&self, from: End<'_>, to: End<'_>, port: u16, protocol: &str) -> bool {
        let wire = Wire { to, port, protocol };
        self.lets("Egress", from, to, &wire) && self.lets("Ingress", to, from, &wire)
    }

    /// What the policies about `of` say of a connection with `other`.
    fn lets(&self, direction: &str, of: End<'_>, other: End<'_>, wire: &Wire<'_>) -> bool {
        let End::Pod(pod) = of else { return true };
        let about = |policy: &&Value| {
            policy["metadata"]["namespace"] == pod.namespace
                && matches(&policy["spec"]["podSelector"], &pod.labels)
                && speaks_of(policy, direction)
        };
        let mut about = self.0.iter().filter(about).peekable();
        let (rules, peers) = if direction == "Egress" { ("egress", "to") } else { ("ingress", "from") };
        about.peek().is_none()
            || about.any(|policy| {
                let rules = policy["spec"][rules].as_array().into_iter().flatten();
                rules.into_iter().any(|rule| is_peer(policy, &rule[peers], other) && wire.is_in(&rule["ports"]))
            })
    }
}

fn speaks_of(policy: &Value, direction: &str) -> bool {
    match policy["spec"]["policyTypes"].as_array() {
        Some(types) => types.iter().any(|kind| kind == direction),
        None => direction == "Ingress" || !policy["spec"]["egress"].is_null(),
    }
}

/// An absent or empty list is everybody.
fn is_peer(policy: &Value, peers: &Value, other: End<'_>) -> bool {
    let Some(peers) = peers.as_array().filter(|list| !list.is_empty()) else { return true };
    peers.iter().any(|peer| match (other, &peer["ipBlock"]) {
        (End::Address(address), block @ Value::Object(_)) => {
            let except = block["except"].as_array().into_iter().flatten();
            is_in(address, &block["cidr"]) && !except.into_iter().any(|cidr| is_in(address, cidr))
        }
        (End::Pod(pod), Value::Null) => {
            let namespace = match &peer["namespaceSelector"] {
                Value::Null => policy["metadata"]["namespace"] == pod.namespace,
                selector => matches(selector, &json!({"kubernetes.io/metadata.name": pod.namespace})),
            };
            namespace && (peer["podSelector"].is_null() || matches(&peer["podSelector"], &pod.labels))
        }
        // Addresses of pods are nobody's business to write down, and selectors know no address.
        _ => false,
    })
}

fn is_in(address: Ipv4Addr, cidr: &Value) -> bool {
    let (net, bits) = cidr.as_str().and_then(|text| text.split_once('/')).expect("a CIDR");
    let (net, bits): (Ipv4Addr, u32) = (net.parse().expect("an address"), bits.parse().expect("bits"));
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    address.to_bits() & mask == net.to_bits() & mask
}

/// A label selector; an empty one selects everything.
fn matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    equal.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.into_iter().all(|expression| {
            let value = &labels[expression["key"].as_str().expect("a key")];
            let listed = expression["values"].as_array().is_some_and(|values| values.contains(value));
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => !value.is_null(),
                Some("DoesNotExist") => value.is_null(),
                other => panic!("operator {other:?}"),
            }
        })
}

/// Where a connection goes.
struct Wire<'a> {
    to: End<'a>,
    port: u16,
    protocol: &'a str,
}

impl Wire<'_> {
    /// An absent or empty list is every port.
    fn is_in(&self, ports: &Value) -> bool {
        let Some(ports) = ports.as_array().filter(|list| !list.is_empty()) else { return true };
        ports.iter().any(|listed| {
            let protocol = listed["protocol"].as_str().unwrap_or("TCP");
            protocol == self.protocol
                && match &listed["port"] {
                    Value::Null => true,
                    Value::String(name) => self.number(name) == Some(u64::from(self.port)),
                    number => {
                        let first = number.as_u64().expect("a port");
                        let last = listed["endPort"].as_u64().unwrap_or(first);
                        (first..=last).contains(&u64::from(self.port))
                    }
                }
        })
    }

    /// Names of ports are those of the pod that is connected to.
    fn number(&self, name: &str) -> Option<u64> {
        let End::Pod(pod) = self.to else { return None };
        pod.ports.as_array()?.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, app: &str) -> Pod {
        Pod {
            namespace: namespace.into(),
            labels: json!({"app": app}),
            ports: json!([{"name": "web", "containerPort": 80}]),
        }
    }

    fn policy(spec: &Value) -> Policies {
        Policies(vec![json!({"metadata": {"namespace": "ns"}, "spec": spec})])
    }

    #[test]
    fn without_a_policy_everything_is_open() {
        let (a, b) = (pod("ns", "a"), pod("ns", "b"));
        assert!(Policies(Vec::new()).admit(End::Pod(&a), End::Pod(&b), 80));
        let other = policy(&json!({"podSelector": {"matchLabels": {"app": "c"}}}));
        assert!(other.admit(End::Pod(&a), End::Pod(&b), 80));
        let closed = policy(&json!({"podSelector": {}}));
        assert!(!closed.admit(End::Pod(&a), End::Pod(&b), 80), "selected and no rule");
        assert!(closed.admit(End::Pod(&b), End::Address(Ipv4Addr::LOCALHOST), 80), "says nothing of outgoing ones");
    }

    #[test]
    fn peers_are_of_the_own_namespace_unless_it_says_otherwise() {
        let (a, b, far) = (pod("ns", "a"), pod("ns", "b"), pod("far", "a"));
        let near = policy(
            &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}),
        );
        let admits = |policies: &Policies, from: &Pod| policies.admit(End::Pod(from), End::Pod(&b), 80);
        assert!(admits(&near, &a) && !admits(&near, &far) && !admits(&near, &b));
        let any = policy(&json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}));
        assert!(admits(&any, &a) && admits(&any, &far));
        assert!(!any.admit(End::Address(Ipv4Addr::new(9, 9, 9, 9)), End::Pod(&b), 80), "no pod at all");
        let named = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["far"]});
        let named =
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [named]}}]}]});
        assert!(admits(&policy(&named), &far) && !admits(&policy(&named), &a));
    }

    #[test]
    fn ports_by_number_name_range_and_protocol() {
        let (a, b) = (pod("ns", "a"), pod("ns", "b"));
        let of = |ports: Value| policy(&json!({"podSelector": {}, "ingress": [{"ports": ports}]}));
        let admits = |ports: Value, port: u16| of(ports).admit(End::Pod(&a), End::Pod(&b), port);
        assert!(admits(json!([{"port": 80}]), 80) && !admits(json!([{"port": 80}]), 81));
        assert!(admits(json!([{"port": "web"}]), 80) && !admits(json!([{"port": "web"}]), 81));
        assert!(admits(json!([{"port": 80, "endPort": 82}]), 82) && !admits(json!([{"port": 80, "endPort": 82}]), 83));
        assert!(!admits(json!([{"port": 80, "protocol": "UDP"}]), 80));
        assert!(of(json!([{"port": 53, "protocol": "UDP"}])).admit_by(End::Pod(&a), End::Pod(&b), 53, "UDP"));
    }

    #[test]
    fn blocks_of_addresses_have_holes() {
        let a = pod("ns", "a");
        let block = json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]});
        let out =
            policy(&json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": block}]}]}));
        let reaches = |address: [u8; 4]| out.admit(End::Pod(&a), End::Address(address.into()), 443);
        assert!(reaches([10, 2, 0, 1]) && !reaches([10, 1, 0, 1]) && !reaches([11, 0, 0, 1]));
    }
}
