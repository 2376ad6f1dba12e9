//! What service accounts asked of the API server, from its audit log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Which requests are logged: those of service accounts other than Kubernetes' own, without bodies.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ['system:serviceaccounts:kube-system']}
- {level: Metadata, userGroups: ['system:serviceaccounts']}
- {level: None}
";

/// One request for an object or a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The pod whose token it was, when known.
    pub pod: String,
    /// Such as `patch`.
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// With its subresource, such as `pods/eviction`.
    pub resource: String,
    /// Empty for requests over all namespaces.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
    /// HTTP status.
    pub code: u64,
}

/// All requests in the log for resources; those for other paths are left out.
pub(super) fn read(log: &Path) -> Result<Vec<Request>> {
    let file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines() {
        // The last line may be written just now.
        let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
        requests.extend(request(&event));
    }
    Ok(requests)
}

fn request(event: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = event.get("objectRef")?;
    let mut resource = text(object.get("resource")?);
    if let Some(sub) = object["subresource"].as_str() {
        resource = format!("{resource}/{sub}");
    }
    Some(Request {
        user: text(&event["user"]["username"]),
        pod: text(&event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]),
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_the_log() {
        let event = json!({
            "verb": "patch", "responseStatus": {"code": 403},
            "user": {"username": "system:serviceaccount:a:b", "extra": {"authentication.kubernetes.io/pod-name": ["p"]}},
            "objectRef": {"resource": "pods", "subresource": "status", "namespace": "n", "name": "x"},
        });
        let request = request(&event).unwrap();
        let seen = (request.user.as_str(), request.pod.as_str(), request.resource.as_str(), request.code);
        assert_eq!(seen, ("system:serviceaccount:a:b", "p", "pods/status", 403));
        assert_eq!(super::request(&json!({"verb": "get", "requestURI": "/readyz"})), None);
    }
}
