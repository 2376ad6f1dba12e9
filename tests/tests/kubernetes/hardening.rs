//! What the CIS benchmark asks of pods (5.1.6, 5.2, 5.7), of the objects and of the processes.

use std::collections::BTreeMap;
use std::fs;

use ais_tests::product::{CONTAINER, NAMESPACE, OPERATOR_NAMESPACE};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::Bed;

/// The image's user.
const USER: &str = "65532";

pub(crate) fn nothing_is_privileged(bed: &mut Bed) -> Result<String> {
    let mut checked = 0;
    for (namespace, container, token) in [(NAMESPACE, CONTAINER, false), (OPERATOR_NAMESPACE, "operator", true)] {
        let object = bed.product.admin.get(&format!("namespace/{namespace}"))?;
        let enforced = &object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        ensure!(*enforced == "restricted", "{namespace} enforces {enforced}");
        for pod in bed.product.admin.in_namespace(namespace).list("pods", None)? {
            let name = pod["metadata"]["name"].as_str().context("a pod without a name")?.to_owned();
            spec_is_hard(&pod["spec"], token).with_context(|| name.clone())?;
            if pod["status"]["phase"] == "Running" {
                process_is_hard(bed, namespace, &name, container, token).with_context(|| name.clone())?;
                checked += 1;
            }
        }
    }
    ensure!(checked >= 8, "only {checked} pods run");
    for account in bed.product.admin.in_namespace(OPERATOR_NAMESPACE).list("serviceaccounts", None)? {
        let name = &account["metadata"]["name"];
        let mounts = &account["automountServiceAccountToken"];
        ensure!(*name == "default" || *mounts == false, "{name} hands its token to every pod");
    }
    Ok(format!("{checked} pods and their processes"))
}

fn spec_is_hard(spec: &Value, token: bool) -> Result<()> {
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        ensure!(spec[key].is_null() || spec[key] == false, "{key}");
    }
    ensure!(spec["automountServiceAccountToken"] == token, "a token: {}", spec["automountServiceAccountToken"]);
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    ensure!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "a path of the host");
    let tokens = volumes.iter().filter(|volume| volume["projected"].to_string().contains("serviceAccountToken"));
    ensure!(token || tokens.count() == 0, "a projected token");
    ensure!(spec["securityContext"]["runAsNonRoot"] == true, "may be root");
    ensure!(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp");
    for container in spec["containers"].as_array().context("no containers")? {
        let security = &container["securityContext"];
        ensure!(security["allowPrivilegeEscalation"] == false, "privilege escalation");
        ensure!(security["readOnlyRootFilesystem"] == true, "a root to write to");
        ensure!(security["capabilities"]["drop"][0] == "ALL", "capabilities");
        ensure!(security["capabilities"]["add"].is_null() && security["privileged"].is_null(), "privileges");
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        ensure!(ports.iter().all(|port| port["hostPort"].is_null()), "a port of the host");
    }
    Ok(())
}

/// What the kernel says.
fn process_is_hard(bed: &Bed, namespace: &str, pod: &str, container: &str, token: bool) -> Result<()> {
    let pid = bed.testbed.container_process(namespace, pod, container)?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the status of a process")?;
    let fields: BTreeMap<&str, &str> =
        status.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect();
    let field = |key: &str| fields.get(key).copied().unwrap_or_default();
    ensure!(field("Uid").split_whitespace().all(|uid| uid == USER), "uid {}", field("Uid"));
    ensure!(field("NoNewPrivs") == "1", "NoNewPrivs {}", field("NoNewPrivs"));
    ensure!(field("Seccomp") == "2", "Seccomp {}", field("Seccomp"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(field(set).trim_matches('0').is_empty(), "{set} {}", field(set));
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).context("the mounts of a process")?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).context("no root")?;
    let options = root.split(' ').nth(3).unwrap_or_default();
    ensure!(options.split(',').any(|option| option == "ro"), "the root is mounted {options}");
    ensure!(token || !mounts.contains("serviceaccount"), "a token is mounted");
    Ok(())
}
