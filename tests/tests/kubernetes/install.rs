//! The chart's life while a cluster lives and clients write: upgrade, rollback, another scope of rights, uninstall.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ais_tests::history::{self, Answer, History, Load, Options, Pool};
use ais_tests::product::{self, NAME, NAMESPACE, OPERATOR_NAMESPACE, Product, RELEASE, Views, condition};
use ais_tests::testbed::Kubectl;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG, SOON};

/// The chart before this one; its Deployment probes on the port of metrics, its definition knows fewer fields.
const PREVIOUS: &str = "tests/fixtures/aiscluster-operator-0.1.0.tgz";
/// Cases before patch the definition, as somebody in need would; a chart that upgrades it takes it back.
pub(crate) const FORCE: &str = "--force-conflicts";
const PREFIX: &str = "chart";
/// Watched beside the cluster's namespace, and not watched.
const WATCHED: &str = "watched-too";
const UNWATCHED: &str = "not-watched";
/// The operator's service account.
const ACCOUNT: &str = "system:serviceaccount:aiscluster-system:aiscluster-operator";

pub(crate) fn helm_test_passes(bed: &mut Bed) -> Result<String> {
    let told = bed.product.helm.run(&["test", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--timeout", "120s"])?;
    let phase = told.lines().find(|line| line.starts_with("Phase:")).unwrap_or_default();
    ensure!(phase.contains("Succeeded"), "helm test says {told}");
    Ok(phase.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// One after the other, each until the operator says that it has seen the newest spec; no pod restarts, no write fails.
pub(crate) fn chart_changes_under_clients(bed: &mut Bed) -> Result<String> {
    let done = changes(bed);
    if done.is_err() {
        // The cases after this one need the chart as it is now.
        bed.product.install_chart(&product::chart(), &[FORCE])?;
    }
    done
}

fn changes(bed: &Bed) -> Result<String> {
    let product = &bed.product;
    let pods = lives(product)?;
    let pool = Pool::new(product.ready_gateways()?);
    let load = Load::start(&pool, &Options::new(PREFIX));
    let views = Views::start(product, load.started())?;

    let previous = ais_tests::xtask::root().join(PREVIOUS);
    product.install_chart(&previous, &[FORCE]).context("the chart before")?;
    let before = revision(product)?;
    product.install_chart(&product::chart(), &[FORCE]).context("upgrade from the chart before")?;
    seen(product, "upgraded")?;
    rollback(product, before).context("rollback to the chart before")?;
    product.install_chart(&product::chart(), &[FORCE]).context("upgrade once more")?;
    seen(product, "upgraded-again")?;
    namespaces(product)?;
    product.helm.run(&["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait"])?;
    ensure!(product.resource()?["metadata"]["deletionTimestamp"].is_null(), "uninstalling deletes the cluster");
    let packed = packed(bed)?;
    product.install_chart(&packed, &[FORCE]).context("install of the packed chart")?;
    seen(product, "installed-again")?;

    let ops = load.stop()?;
    product.settle_all()?;
    let samples = views.stop()?;
    let wrong = ops.iter().find(|op| matches!(op.answer, Answer::Failed(_)));
    ensure!(wrong.is_none(), "a client was told {wrong:?}");
    let finals = product.buckets()?;
    let history = History { ops, samples, finals, prefix: PREFIX.to_owned(), slow: BTreeSet::new() };
    let report = history::check(&history)
        .map_err(|wrong| anyhow::anyhow!("{} rules are broken: {:?}", wrong.len(), wrong.first()))?;
    let now = lives(product)?;
    ensure!(now == pods, "pods were {pods:?} and are {now:?}");
    Ok(format!("upgrade, rollback, namespaces, uninstall, install; {} writes, none failed", report.done))
}

/// Uid and restarts of each pod.
pub(crate) fn lives(product: &Product) -> Result<Vec<(Value, Value)>> {
    let life =
        |pod: &Value| (pod["metadata"]["uid"].clone(), pod["status"]["containerStatuses"][0]["restartCount"].clone());
    Ok(product.pods()?.iter().map(life).collect())
}

/// The operator acts: an edit is followed, of the definition's newest fields too.
fn seen(product: &Product, note: &str) -> Result<()> {
    product.patch(&json!({"spec": {"paused": true}}))?;
    product.wait_resource(note, LONG, |it| is(it, "Paused", "True"))?;
    product.patch(&json!({"spec": {"paused": false}}))?;
    product.wait_resource(note, LONG, |it| {
        is(it, "Paused", "False")
            && is(it, "Ready", "True")
            && it["status"]["observedGeneration"] == it["metadata"]["generation"]
    })?;
    Ok(())
}

fn is(resource: &Value, kind: &str, status: &str) -> bool {
    condition(resource, kind).is_some_and(|c| c.status == status)
}

fn revision(product: &Product) -> Result<u64> {
    let told = product.helm.run(&["history", RELEASE, "--namespace", OPERATOR_NAMESPACE, "-o", "json"])?;
    let all: Value = serde_json::from_str(&told).context("helm history")?;
    all.as_array().and_then(|all| all.last()?["revision"].as_u64()).context("a release without a revision")
}

fn rollback(product: &Product, to: u64) -> Result<()> {
    let args = ["rollback", RELEASE, &to.to_string(), "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s"];
    product.helm.cmd(args).arg(FORCE).run().with_context(|| product.diagnosis())?;
    let map = product.admin.in_namespace(OPERATOR_NAMESPACE).get(&format!("deployment/{RELEASE}"))?;
    let port = &map["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"];
    ensure!(*port == "http", "not the Deployment of before: {port}");
    Ok(())
}

/// The archive that `cargo xtask package` makes.
fn packed(bed: &Bed) -> Result<PathBuf> {
    let out = bed.testbed.layout().path("package");
    let files = ais_tests::xtask::package::write(&bed.testbed.binaries().helm(), &out)?;
    // The plain manifests are accepted as they are, beside the release: nothing is stored.
    let manifests = files.iter().find(|file| file.ends_with(format!("{RELEASE}.yaml"))).context("no manifests")?;
    let cmd = bed.product.admin.cmd(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f"]);
    cmd.arg(manifests).run().context("the plain manifests")?;
    files.into_iter().find(|file| file.extension().is_some_and(|end| end == "tgz")).context("no archive")
}

/// A Role in each of two namespaces, and no right in a third.
fn namespaces(product: &Product) -> Result<()> {
    for name in [WATCHED, UNWATCHED] {
        product.admin.apply_json(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
        // Paused: only told of, so no volume is needed.
        product.admin.in_namespace(name).apply_json(&json!({
            "apiVersion": "aiscluster.dev/v1alpha1", "kind": "AISCluster", "metadata": {"name": NAME},
            "spec": {"paused": true, "gateways": {"replicas": 1}, "targets": {"replicas": 1, "storage": {"size": "1Gi"}}},
        }))?;
    }
    let values = format!("watchNamespaces={{{NAMESPACE},{WATCHED}}}");
    for name in [WATCHED, UNWATCHED] {
        product
            .admin
            .in_namespace(name)
            .wait_for(&format!("aisc/{NAME}"), "told of", SOON, |it| is(it, "Paused", "True"))?;
    }
    product.install_chart(&product::chart(), &[FORCE, "--set", "rbac.scope=namespaces", "--set", &values])?;
    let left = product.admin.try_get(&format!("clusterrole/{RELEASE}"))?;
    ensure!(left.is_none(), "the ClusterRole of the other scope is still there");
    seen(product, "in a namespace of two")?;
    let edit = json!({"spec": {"gateways": {"replicas": 2}}});
    let generation = |name: &str| -> Result<Value> {
        product.admin.in_namespace(name).patch(&format!("aisc/{NAME}"), &edit)?;
        Ok(product.admin.in_namespace(name).get(&format!("aisc/{NAME}"))?["metadata"]["generation"].clone())
    };
    let (unwatched, watched) = (generation(UNWATCHED)?, generation(WATCHED)?);
    let resource = format!("aisc/{NAME}");
    let of = |name: &str| product.admin.in_namespace(name);
    of(WATCHED).wait_for(&resource, "seen", SOON, |it| it["status"]["observedGeneration"] == watched)?;
    let other = of(UNWATCHED).get(&resource)?;
    ensure!(other["status"]["observedGeneration"] != unwatched, "a namespace that is not watched was looked at");
    for (namespace, verb, what, right) in [
        (WATCHED, "get", "secrets", true),
        (WATCHED, "list", "secrets", false),
        (NAMESPACE, "watch", "secrets", false),
        (UNWATCHED, "get", "secrets", false),
        (UNWATCHED, "get", "aisclusters", false),
        ("kube-system", "get", "secrets", false),
    ] {
        ensure!(can(&of(namespace), &[verb, what])? == right, "{verb} {what} in {namespace}: not {right}");
    }
    ensure!(!can(&product.admin, &["list", "secrets", "--all-namespaces"])?, "it may list all secrets");
    product.install_chart(&product::chart(), &[FORCE])?;
    for name in [WATCHED, UNWATCHED] {
        of(name).delete(&resource, LONG)?;
        product.admin.run(&["delete", "namespace", name, "--wait=false"])?;
    }
    Ok(())
}

/// What the operator may do, by the API server's word.
pub(crate) fn can(kubectl: &Kubectl, what: &[&str]) -> Result<bool> {
    let output = kubectl.cmd(["auth", "can-i", "--as", ACCOUNT]).args(what).output()?;
    match output.stdout.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => anyhow::bail!("kubectl auth can-i says {} {}", output.stdout, output.stderr),
    }
}

/// Rendered with each of these the chart is accepted by the API server.
pub(crate) fn variants() -> Result<Vec<PathBuf>> {
    let folder = product::chart().join("ci");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| Path::file_name(path).is_some_and(|name| name.to_string_lossy().ends_with("-values.yaml")));
    found.sort();
    ensure!(found.len() >= 4, "only {found:?}");
    Ok(found)
}
