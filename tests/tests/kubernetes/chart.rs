//! The chart, the operator's installation, and what the API server refuses.

use std::fs;

use ais_tests::product::{self, NAMESPACE, OPERATOR_NAMESPACE, Product, RELEASE};
use ais_tests::testbed::Kubectl;
use ais_tests::testbed::kubectl::is_ready;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG};
use crate::install;

/// Namespaces in the values that are tried.
const TEAMS: [&str; 2] = ["team-a", "team-b"];
const CRD: &str = "crd/aisclusters.aiscluster.dev";
/// Namespace of the refusals; the operator does not run while they are tried.
const REFUSALS: &str = "refusals";

pub(crate) fn is_clean(bed: &mut Bed) -> Result<String> {
    let chart = product::chart().display().to_string();
    let told = bed.product.helm.run(&["lint", "--strict", &chart])?;
    bed.product.admin.apply_json(&namespace(OPERATOR_NAMESPACE))?;
    for name in TEAMS {
        bed.product.admin.apply_json(&namespace(name))?;
    }
    let mut objects = accepted(bed, &[])?;
    for values in install::variants()? {
        let values = values.display().to_string();
        bed.product.helm.run(&["lint", "--strict", &chart, "--values", &values])?;
        objects += accepted(bed, &["--values", &values]).with_context(|| values.clone())?;
    }
    for name in TEAMS {
        bed.product.admin.run(&["delete", "namespace", name, "--wait=false"])?;
    }
    refused(bed)?;
    Ok(format!("{}; {objects} objects", told.lines().last().unwrap_or_default()))
}

/// What it renders with these values is accepted as it stands, unknown fields refused; nothing is stored. How many.
fn accepted(bed: &Bed, values: &[&str]) -> Result<usize> {
    let chart = product::chart().display().to_string();
    let template = bed.product.helm.cmd(["template", RELEASE, &chart, "--namespace", OPERATOR_NAMESPACE]);
    let rendered = template.args(values).run()?;
    every_right_has_a_reason(&rendered)?;
    // Kinds of Prometheus Operator, which is not here.
    let known = rendered.split("\n---").filter(|object| !object.contains("apiVersion: monitoring.coreos.com/"));
    let known = known.collect::<Vec<_>>().join("\n---");
    let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let told = bed.product.admin.cmd(create).stdin(known).run().context("helm template")?;
    Ok(told.lines().count())
}

fn every_right_has_a_reason(rendered: &str) -> Result<()> {
    let lines: Vec<&str> = rendered.lines().map(str::trim).collect();
    for pair in lines.windows(2).filter(|pair| pair[1].starts_with("- apiGroups:")) {
        ensure!(pair[0].starts_with('#'), "a rule without its reason: {}", pair[1]);
    }
    ensure!(lines.iter().any(|line| line.starts_with("- apiGroups:")), "no rules");
    Ok(())
}

/// What the values' schema does not let pass.
fn refused(bed: &Bed) -> Result<()> {
    let chart = product::chart().display().to_string();
    for (value, about) in [
        ("replicas=many", "replicas"),
        ("relpicas=2", "relpicas"),
        ("rbac.scope=galaxy", "scope"),
        ("image.digest=sha256:12", "digest"),
        ("watchNamespaces={a}", "watchNamespaces"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("tls.certificateSeconds=1", "certificateSeconds"),
        ("tls.authoritySeconds=7776001", "three times"),
    ] {
        let wrong = bed.product.helm.cmd(["template", RELEASE, &chart, "--set", value]).output()?;
        ensure!(!wrong.ok() && wrong.stderr.contains(about), "the values' schema accepts {value}: {}", wrong.stderr);
    }
    Ok(())
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    })
}

pub(crate) fn operator_is_installed(bed: &mut Bed) -> Result<String> {
    let told = bed.product.install_operator()?;
    ensure!(told.contains("STATUS: deployed"), "helm says {told}");
    let pods = bed.product.admin.in_namespace(OPERATOR_NAMESPACE).list("pods", None)?;
    ensure!(!pods.is_empty() && pods.iter().all(is_ready), "the operator's pods are not Ready");
    definition_is_the_committed_one(&bed.product)?;
    Ok(format!("{} pods in a restricted namespace; the definition is the committed one", pods.len()))
}

fn definition_is_the_committed_one(product: &Product) -> Result<()> {
    let file = product::definition().display().to_string();
    let committed =
        product.admin.run(&["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", &file])?;
    let committed: Value = serde_json::from_str(&committed).context("the committed definition")?;
    let live = product.admin.get(CRD)?;
    for part in ["group", "scope", "versions"] {
        ensure!(live["spec"][part] == committed["spec"][part], "the definition in the cluster has another {part}");
    }
    Ok(())
}

/// The table of the crate that makes the definition, here against a real API server.
pub(crate) fn rules_refuse(bed: &mut Bed) -> Result<String> {
    let path = ais_tests::xtask::root().join("crds/tests/refusals.json");
    let table: Value = serde_json::from_str(&fs::read_to_string(path)?).context("refusals.json")?;
    let operator = bed.product.admin.in_namespace(OPERATOR_NAMESPACE);
    let deployment = format!("deployment/{RELEASE}");
    let replicas = operator.get(&deployment)?["spec"]["replicas"].to_string();
    operator.run(&["scale", &deployment, "--replicas=0"])?;
    // Its status counts pods that end as gone; those still act.
    Wait::new("the operator to end", LONG).until(|| Ok(operator.list("pods", None)?.is_empty().then_some(())))?;
    bed.product.admin.apply_json(&namespace(REFUSALS))?;
    let kubectl = bed.product.admin.in_namespace(REFUSALS);
    let list = |what: &str| table[what].as_array().cloned().with_context(|| format!("no {what} in the table"));
    let (accepted, refused) = (list("accepted")?, list("refused")?);
    for case in &accepted {
        let said = attempt(&kubectl, &table["base"], case)?;
        ensure!(said.is_none(), "{} was refused: {}", case["name"], said.unwrap_or_default());
    }
    for case in &refused {
        let message = case["message"].as_str().context("a case without a message")?;
        let said = attempt(&kubectl, &table["base"], case)?;
        let said = said.with_context(|| format!("{} was accepted", case["name"]))?;
        ensure!(said.contains(message), "{}: no '{message}' in {said}", case["name"]);
    }
    bed.product.admin.delete(&format!("namespace/{REFUSALS}"), LONG)?;
    operator.run(&["scale", &deployment, &format!("--replicas={replicas}")])?;
    operator.run(&["rollout", "status", &deployment, "--timeout=60s"])?;
    ensure!(bed.product.admin.in_namespace(NAMESPACE).list("aisc", None)?.is_empty(), "an AISCluster too early");
    Ok(format!("{} refused with their messages, {} accepted", refused.len(), accepted.len()))
}

/// What the API server says against it; `None` when it accepts.
fn attempt(kubectl: &Kubectl, base: &Value, case: &Value) -> Result<Option<String>> {
    let before = patched(base, &case["before"]);
    let output = if case["operation"] == "update" {
        kubectl.cmd(["create", "-f", "-"]).stdin(before.to_string()).run().context("the object before")?;
        let name = before["metadata"]["name"].as_str().context("no name")?;
        let patch = case["patch"].to_string();
        let patch = ["patch", "aisc", name, "--type=merge", "--dry-run=server", "--patch", &patch];
        let output = kubectl.cmd(patch).output()?;
        kubectl.delete(&format!("aisc/{name}"), LONG)?;
        output
    } else {
        let object = patched(&before, &case["patch"]);
        kubectl.cmd(["create", "--dry-run=server", "-f", "-"]).stdin(object.to_string()).output()?
    };
    Ok((!output.ok()).then_some(output.stderr))
}

fn patched(base: &Value, patch: &Value) -> Value {
    let mut object = base.clone();
    if !patch.is_null() {
        merge(&mut object, patch);
    }
    object
}

/// JSON merge patch.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(map), Value::Object(changes)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert_with(|| json!({})), change);
        }
    }
}
