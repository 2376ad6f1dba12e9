//! Clusters whose ports all speak TLS: what clients verify, what is renewed while they write, and what is refused.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use ais_tests::cmd::Cmd;
use ais_tests::drill::{self, Drill};
use ais_tests::http::{self, Call, Failure};
use ais_tests::processes::pki::{Authority, Leaf, in_days, temporary_dir};
use ais_tests::product::{self, Ask, CONTAINER, NAME, OPERATOR_NAMESPACE, PORT_PUBLIC, PodDrills, Product, RELEASE};
use ais_tests::product::{condition, reason};
use ais_tests::sdk::Sdk;
use ais_tests::wait::Wait;
use ais_tests::{client, history};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bed::{self, Bed, LONG, SOON};
use crate::install::{FORCE, lives};
use crate::side::Side;

/// A kubelet hands new files to its pods at once when a pod's annotation changes, on a busy machine a little later.
const READ: Duration = Duration::from_secs(150);
/// No planned change keeps a client waiting for longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(10);
const SCRIPT: Duration = Duration::from_secs(60);
/// For clients that only show that they can write.
const WHILE: Duration = Duration::from_secs(3);
/// Before and after what is tried.
const WRITES: usize = 50;
/// Lives of certificates and authorities that are waited out.
const SHORT: [&str; 4] = ["--set", "tls.certificateSeconds=120", "--set", "tls.authoritySeconds=360"];
/// The user's Secret.
const MINE: &str = "mine";

fn self_managed_spec() -> Value {
    json!({"spec": {"tls": {"mode": "SelfManaged"}}})
}

fn health(address: &str) -> std::result::Result<http::Reply, Failure> {
    http::call(address, Call { method: "GET", target: "/v1/health", ..Call::default() }, CALL)
}

fn ip_of(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, rest)| rest)
}

/// Members, clients, operator and kubelets all by https; access gateways come and go, the primary is lost and moved, the
/// member secret replaced.
pub(crate) fn self_managed(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "tls", self_managed_spec())?;
    verified(&side.product)?;
    keys_are_kept(bed, &side.product)?;
    let resource = side.product.resource()?;
    let endpoint = resource["status"]["endpoint"].as_str().unwrap_or_default().to_owned();
    ensure!(endpoint == format!("https://{NAME}.tls.svc.cluster.local:{PORT_PUBLIC}"), "status.endpoint is {endpoint}");
    ensure!(reason(&resource, "CertificatesValid") == "Valid", "{:?}", condition(&resource, "CertificatesValid"));

    side.clients()?;
    let served = access(bed, &side.product)?;
    let unhurt = side.judge_within(1, PATIENCE)?;

    let pool = side.clients()?;
    let killed = drill::run(&mut PodDrills::new(&side.product, Some(&bed.testbed)), Drill::Kill9, Some(&pool))?;
    let moved = moves(bed, &side.product, &pool)?;
    member_secret(&side.product)?;
    let told = side.judge(WRITES)?;
    side.down()?;
    let moves = format!("next write after a kill {:.0?}, after a failback {moved:.0?}", killed.took);
    Ok(format!("access gateways: {served}; {unhurt}; {moves}; {told}"))
}

/// Their pods have no names: a certificate that names their Service is read by every node, and no pod restarts; when they
/// go, so does the name. Clients write all the time.
fn access(bed: &Bed, product: &Product) -> Result<String> {
    let before = lives(product)?;
    let (first, _) = shown(product, "the first certificate", |_, _| true)?;
    product.patch(&json!({"spec": {"accessGateways": {"replicas": 1}}}))?;
    let (named, _) = shown(product, "a certificate with their Service", |now, _| now != first)?;
    let joined =
        |it: &Value| it["status"]["accessGateways"]["joined"] == 1 && it["status"]["accessGateways"]["ready"] == 1;
    product.wait_resource("one access gateway in the map", LONG, joined).with_context(|| product.diagnosis())?;
    let told = by_the_service(bed, product)?;
    product.patch(&json!({"spec": {"accessGateways": null}}))?;
    shown(product, "a certificate without it", |now, _| now != named)?;
    for object in ["deployment", "service"] {
        product.kubectl.wait_gone(&format!("{object}/{NAME}-access"), LONG)?;
    }
    ensure!(lives(product)? == before, "pods restarted: {before:?}, then {:?}", lives(product)?);
    Ok(told)
}

/// AIStore's own SDK by the Service's name, with the authorities that are published; whoever does not verify that name,
/// or speaks plain, gets nowhere.
fn by_the_service(bed: &Bed, product: &Product) -> Result<String> {
    let service = product.kubectl.get(&format!("service/{NAME}-access"))?;
    let ip = service["spec"]["clusterIP"].as_str().context("no address of a Service")?;
    let host = format!("{NAME}-access.{}.svc.cluster.local", product.namespace);
    let told = health(&format!("https://{host}@{ip}:{PORT_PUBLIC}"))?;
    ensure!(told.is_success(), "{host}: {} {}", told.status, told.text());
    let plain = health(&format!("{ip}:{PORT_PUBLIC}"))?;
    ensure!(plain.status == 400 && plain.text().contains("https://"), "plain: {} {}", plain.status, plain.text());
    // An address is in no certificate, the one that the cluster map shows neither.
    let by_address = health(&format!("https://{ip}:{PORT_PUBLIC}"));
    ensure!(matches!(by_address, Err(Failure::NotSent(_))), "by its address: {by_address:?}");
    // Nodes know nothing else of it: they take the certificate that all share.
    let selector = format!("aiscluster.dev/cluster={NAME},app.kubernetes.io/component=access");
    let pods = product.kubectl.list("pods", Some(&selector))?;
    let pod = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("no access gateway")?;
    let headers = [("Ais-Node-Id", pod)];
    let call = Call { method: "GET", target: "/v1/reverse/daemon?what=smap", headers: &headers, ..Call::default() };
    let relayed = http::call(&product.addresses(&format!("{NAME}-gateway-0"))?.0, call, CALL)?;
    ensure!(relayed.is_success(), "{pod} by a gateway: {} {}", relayed.status, relayed.text());

    let (sdk, dir) = (Sdk::ensure()?, temporary_dir()?);
    let ca = dir.path().join("ca.crt");
    std::fs::write(&ca, product.trust()?)?;
    let resolved = sdk.with_resolver(&product::resolver(&bed.testbed)?).with_authorities(&ca);
    let args = ["access".to_owned(), format!("https://{host}:{PORT_PUBLIC}")];
    let told = resolved.run("metadata.py", &args, SCRIPT)?;
    let told: Value = serde_json::from_str(&told).context("the script's last word")?;
    ensure!(told["gateways"] == product.gateways + 1, "the SDK saw {told}");
    // The SDK itself would try again for a minute.
    let ask = "import requests, sys; requests.get(sys.argv[1])";
    let unknown =
        Cmd::new(sdk.python()).args(["-c", ask, &format!("https://{ip}:{PORT_PUBLIC}/v1/health")]).timeout(SCRIPT);
    let refused = unknown.run().err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(refused.contains("CERTIFICATE_VERIFY_FAILED"), "without the authority: {refused}");
    Ok(told.to_string())
}

/// Who does not know the authority gets nowhere, who does not speak TLS is told, and a name is looked at.
fn verified(product: &Product) -> Result<()> {
    let gateway = format!("{NAME}-gateway-0");
    let (public, control) = product.addresses(&gateway)?;
    match health(&public) {
        Err(Failure::NotSent(error)) if error.to_string().contains("UnknownIssuer") => {}
        other => bail!("a client without the authority was told {other:?}"),
    }
    for port in [&public, &control] {
        let told = health(ip_of(port))?;
        ensure!(told.status == 400 && told.text().contains("https://"), "plain: {} {}", told.status, told.text());
    }
    let ca = product.trust()?;
    ensure!(ca.contains("BEGIN CERTIFICATE"), "what is published is {ca}");
    let stranger = format!("https://{gateway}.{NAME}-gateway.other.svc.cluster.local@{}", ip_of(&public));
    ensure!(matches!(health(&stranger), Err(Failure::NotSent(_))), "another namespace's name was accepted");
    for service in [NAME.to_owned(), format!("{NAME}-primary")] {
        let object = product.kubectl.get(&format!("service/{service}"))?;
        let ip = object["spec"]["clusterIP"].as_str().context("no address of a Service")?;
        let name = format!("{service}.{}.svc.cluster.local", product.namespace);
        let told = health(&format!("https://{name}@{ip}:{PORT_PUBLIC}"))?;
        ensure!(told.is_success(), "{service}: {} {}", told.status, told.text());
    }
    Ok(())
}

/// Keys are in Secrets and in the pods' files, which nobody else in a pod may read; the authority's is in no pod.
fn keys_are_kept(bed: &Bed, product: &Product) -> Result<()> {
    const KEY: &str = "PRIVATE KEY";
    let maps = product.kubectl.list("configmaps", None)?;
    ensure!(!maps.iter().any(|map| map.to_string().contains(KEY)), "a ConfigMap holds a key");
    let operator = product.admin.in_namespace(OPERATOR_NAMESPACE);
    ensure!(!operator.run(&["logs", &format!("deployment/{RELEASE}")])?.contains(KEY), "the operator logs a key");
    for pod in product.pod_names()? {
        ensure!(!product.kubectl.logs(&pod, CONTAINER)?.contains(KEY), "{pod} logs a key");
        let process = bed.testbed.container_process(&product.namespace, &pod, CONTAINER)?;
        let dir = format!("/proc/{}/root/etc/ais/tls", process.pid());
        let mode = std::fs::metadata(Path::new(&dir).join("tls.key"))?.mode() & 0o777;
        ensure!(mode == 0o440, "{pod}: the key's mode is {mode:o}");
        ensure!(!Path::new(&dir).join("ca.key").exists(), "{pod} has the authority's key");
    }
    Ok(())
}

/// A failback by `kubectl patch`: the operator asks the primary, and reads the result back from a majority.
fn moves(bed: &Bed, product: &Product, pool: &std::sync::Arc<history::Pool>) -> Result<Duration> {
    let (old, _) = product.primary()?;
    let to = product.gateway_names().into_iter().find(|name| *name != old).context("no other gateway")?;
    let mut drills = PodDrills::new(product, Some(&bed.testbed));
    (drills.ask, drills.successor) = (Ask::Patch, Some(to.clone()));
    let run = drill::run(&mut drills, Drill::Planned, Some(pool))?;
    product.wait_resource("told of the failback", SOON, |resource| {
        bed::history(resource).first() == Some(&format!("Failback {old}>{to} Succeeded"))
    })?;
    Ok(run.took)
}

fn member_secret(product: &Product) -> Result<()> {
    let digest = |product: &Product| Ok::<_, anyhow::Error>(product.secret()?.digest());
    let before = digest(product)?;
    product.patch(&json!({"spec": {"auth": {"memberSecretRotation": "once"}}}))?;
    Wait::new("the member secret to be rotated", 2 * READ)
        .until(|| Ok((product.events("SecretRotated")?.len() == 1).then_some(())))
        .with_context(|| product.diagnosis())?;
    let now = digest(product)?;
    ensure!(now != before, "the secret is still {before}");
    // The Secret holds the new one alone; nodes forget the old one when they have read it.
    Wait::new("the old member secret to be forgotten", READ).every(Duration::from_millis(500)).until(|| {
        for pod in product.pod_names()? {
            let secrets = product.view(&pod)?.credentials.secrets;
            ensure!(secrets == [now.clone()], "{pod} accepts {secrets:?}");
        }
        Ok(Some(()))
    })
}

/// Digest of the certificate that all nodes show, and of the authorities that all trust, once it is as wanted. Clients
/// trust what is published meanwhile.
fn shown(product: &Product, what: &str, right: impl Fn(&str, &[String]) -> bool) -> Result<(String, Vec<String>)> {
    let found = Wait::new(what, READ).every(Duration::from_millis(500)).until(|| {
        product.trust()?;
        let mut all = BTreeSet::new();
        for pod in product.pod_names()? {
            let tls = product.view(&pod)?.credentials.tls.with_context(|| format!("{pod} has no TLS"))?;
            ensure!(tls.problem.is_none(), "{pod}: {:?}", tls.problem);
            all.insert((tls.certificate.unwrap_or_default(), tls.authorities));
        }
        ensure!(all.len() == 1, "nodes differ: {all:?}");
        Ok(all.pop_first().filter(|(certificate, authorities)| right(certificate, authorities)))
    });
    found.with_context(|| product.diagnosis())
}

/// The certificate is replaced when its time has come, the authority when its Secret is gone; no client notices, no pod
/// restarts, and members find each other anew.
pub(crate) fn certificates_rotate(bed: &mut Bed) -> Result<String> {
    let short: Vec<&str> = SHORT.into_iter().chain([FORCE]).collect();
    bed.product.install_chart(&product::chart(), &short)?;
    let done = rotated(bed);
    bed.product.install_chart(&product::chart(), &[FORCE])?;
    done
}

fn rotated(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "tls-rotates", self_managed_spec())?;
    side.product.trust()?;
    let before = lives(&side.product)?;
    side.clients()?;
    let product = &side.product;
    let (first, old) = shown(product, "the first certificate", |_, _| true)?;
    let (second, _) = shown(product, "another certificate", |certificate, _| certificate != first)?;
    // The authority: both are trusted, then a certificate of the new one is shown, then the old one goes. The events tell
    // of each step: nodes may go through them faster than they are looked at.
    product.kubectl.delete(&format!("secret/{NAME}-ca"), SOON)?;
    let (third, _) = shown(product, "the new authority alone", |_, now| now.len() == 1 && now != old)?;
    ensure!(third != second, "the certificate is of the authority before");
    let rotations = product.events("CertificateRotated")?;
    for step in ["a new certificate", "a new authority", "the old authority is no longer trusted"] {
        ensure!(rotations.iter().any(|told| told.contains(step)), "{step}: {rotations:?}");
    }
    ensure!(lives(product)? == before, "pods restarted: {before:?}, then {:?}", lives(product)?);
    let told = side.judge_within(WRITES, PATIENCE)?;
    // Nobody lives on connections of before.
    drill::run(&mut PodDrills::new(&side.product, Some(&bed.testbed)), Drill::Kill9, None)?;
    side.down()?;
    Ok(format!("{first}, {second}, {third}; {told}"))
}

/// Names that every certificate of a cluster needs.
fn names_of(namespace: &str) -> [String; 4] {
    let pods = ["gateway", "target"].map(|role| format!("*.{NAME}-{role}.{namespace}.svc.cluster.local"));
    let [gateways, targets] = pods;
    let service = |name: &str| format!("{name}.{namespace}.svc.cluster.local");
    [gateways, targets, service(NAME), service(&format!("{NAME}-primary"))]
}

fn leaf(authority: &Authority, names: &[String]) -> Result<Leaf> {
    authority.leaf(&names.iter().map(String::as_str).collect::<Vec<_>>(), in_days(90))
}

/// Writes the user's Secret as cert-manager does: all three at once.
fn write_secret(product: &Product, authority: &Authority, leaf: &Leaf) -> Result<()> {
    product.kubectl.apply_json(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": MINE}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf.cert, "tls.key": leaf.key, "ca.crt": authority.pem()},
    }))?;
    Ok(())
}

fn wait_certificates(product: &Product, why: &str) -> Result<Value> {
    let told = |it: &Value| reason(it, "CertificatesValid") == why;
    product.wait_resource(why, LONG, told).with_context(|| product.diagnosis())
}

/// A certificate that nobody would accept is refused before there is a pod; a renewal is taken up under load; one that
/// went wrong, and a Secret that is gone, change nothing but the condition.
pub(crate) fn users_secret(bed: &mut Bed) -> Result<String> {
    let (namespace, authority) = ("tls-mine", Authority::new("mine")?);
    let names = names_of(namespace);
    let spec = json!({"spec": {"tls": {"mode": "SecretRef", "secretRef": {"name": MINE}}}});
    let without_targets = [names[0].clone(), names[2].clone(), names[3].clone()];
    let mut side = Side::begin_with(bed, namespace, spec, |product| {
        write_secret(product, &authority, &leaf(&authority, &without_targets)?)
    })?;
    let refused = wait_certificates(&side.product, "NamesMissing")?;
    let told = condition(&refused, "CertificatesValid").context("no condition")?.message;
    ensure!(told.contains(&format!("{NAME}-target-0.{NAME}-target")), "the message is {told:?}");
    ensure!(reason(&refused, "Ready") == "NamesMissing", "Ready says {}", reason(&refused, "Ready"));
    ensure!(side.product.pod_names()?.is_empty(), "pods were made all the same");

    write_secret(&side.product, &authority, &leaf(&authority, &names)?)?;
    side.product.wait_ready(&bed.progress)?;
    let (first, _) = shown(&side.product, "the first certificate", |_, _| true)?;
    let before = lives(&side.product)?;
    let pool = side.clients()?;
    write_secret(&side.product, &authority, &leaf(&authority, &names)?)?;
    let (second, _) = shown(&side.product, "the renewed certificate", |certificate, _| certificate != first)?;

    went_wrong(&side.product, &authority)?;
    side.product.kubectl.delete(&format!("secret/{MINE}"), SOON)?;
    wait_certificates(&side.product, "SecretMissing")?;
    // The operator goes on verifying the nodes by what it published, and acts.
    moves(bed, &side.product, &pool)?;
    let (still, _) = shown(&side.product, "the certificate of before", |_, _| true)?;
    ensure!(still == second, "{still} is shown instead of {second}");
    write_secret(&side.product, &authority, &leaf(&authority, &names)?)?;
    wait_certificates(&side.product, "Valid")?;
    shown(&side.product, "another one", |certificate, _| certificate != second)?;
    ensure!(lives(&side.product)? == before, "pods restarted: {before:?}, then {:?}", lives(&side.product)?);
    let done = side.judge_within(WRITES, PATIENCE)?;
    side.down()?;
    Ok(format!("{told}; {done}"))
}

/// Another certificate that is for nobody: every node has seen it, and none has taken it.
fn went_wrong(product: &Product, authority: &Authority) -> Result<()> {
    write_secret(product, authority, &leaf(authority, &["elsewhere.example".to_owned()])?)?;
    wait_certificates(product, "NamesMissing")?;
    for pod in product.pod_names()? {
        Wait::new(format!("{pod} to refuse it"), READ).every(Duration::from_millis(500)).until(|| {
            let log = product.kubectl.logs(&pod, CONTAINER)?;
            Ok((log.contains("the certificates stay as they were") && log.contains("does not name")).then_some(()))
        })?;
    }
    let resource = product.resource()?;
    ensure!(condition(&resource, "Ready").is_some_and(|c| c.status == "True"), "Ready: {}", reason(&resource, "Ready"));
    Ok(())
}

/// Turned on while it is stopped; Running comes before the old pods have ended, and none of them is there afterwards.
/// Off again the same way, and what was published for clients goes.
pub(crate) fn turned_on(bed: &mut Bed) -> Result<String> {
    let mut side = Side::make(bed, "tls-later", json!({}))?;
    let (primary, epoch) = side.product.primary()?;
    let reply = client::create_bucket(&side.product.addresses(&primary)?.0, "kept", None)?;
    ensure!(reply.is_success(), "kept: {} {}", reply.status, reply.text());
    side.product.settle_all()?;
    let before = lives(&side.product)?;
    restart_with(bed, &mut side, "SelfManaged")?;
    side.product.trust()?;
    let (new, now) = side.product.primary()?;
    ensure!(now > epoch, "epoch {epoch}, then {now}");
    ensure!(lives(&side.product)?.iter().all(|life| !before.contains(life)), "a pod of before is still there");
    for (pod, names) in side.product.buckets()? {
        ensure!(names.contains("kept"), "{pod} has {names:?}");
    }
    side.clients()?;
    let moved = moves(bed, &side.product, &history::Pool::new(side.product.ready_gateways()?))?;
    let told = side.judge(1)?;

    restart_with(bed, &mut side, "Disabled")?;
    side.product.kubectl.wait_gone(&format!("configmap/{NAME}-ca"), SOON)?;
    let endpoint = side.product.resource()?["status"]["endpoint"].clone();
    ensure!(endpoint.as_str().is_some_and(|url| url.starts_with("http://")), "status.endpoint is {endpoint}");
    side.clients()?;
    std::thread::sleep(WHILE);
    let plain = side.judge(1)?;
    side.down()?;
    Ok(format!("{primary} led in epoch {epoch}, {new} in {now}; failback {moved:.0?}; {told}; off again: {plain}"))
}

/// Another mode counts from the next start of all pods on.
fn restart_with(bed: &Bed, side: &mut Side, mode: &str) -> Result<()> {
    side.product.patch(&json!({"spec": {"state": "Stopped"}}))?;
    side.product.patch(&json!({"spec": {"tls": {"mode": mode}}}))?;
    side.product.patch(&json!({"spec": {"state": "Running"}}))?;
    side.product.tls = mode != "Disabled";
    side.product.wait_ready(&bed.progress)?;
    Ok(())
}
