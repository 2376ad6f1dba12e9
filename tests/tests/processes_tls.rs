//! Clusters of processes whose ports all speak TLS: failover, rotation under load, and what is refused.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use ais_tests::client;
use ais_tests::cmd::Cmd;
use ais_tests::http::{self, Call, Failure};
use ais_tests::processes::pki::{Authority, Leaf, TemporaryDir, TlsFiles, in_days, temporary_dir};
use ais_tests::processes::{AGREE_TIMEOUT, Kind, LocalCluster, Spec, node_binary};
use ais_tests::scene::{Scene, none_failed};
use ais_tests::suite;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const BEAT: Duration = Duration::from_millis(500);
/// Nodes look at their files every five seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the certificate of the expiry drill holds: longer than a start takes.
const SHORT: Duration = Duration::from_secs(12);

fn main() -> ExitCode {
    suite::main(&[
        ("tls_failovers", failovers),
        ("tls_rotation_under_load", rotation_under_load),
        ("tls_wrong_authority_is_refused", wrong_authority_is_refused),
        ("tls_expired_certificate_is_refused_and_replaced", expired_certificate),
        ("tls_plain_clients_are_told", plain_clients_are_told),
        ("tls_commands_verify", commands_verify),
    ])
}

/// An authority, and files that it signed for loopback.
struct Pki {
    dir: TemporaryDir,
    authority: Authority,
    files: TlsFiles,
}

impl Pki {
    fn new() -> Result<Self> {
        let dir = temporary_dir()?;
        let (authority, files) = (Authority::new("first")?, TlsFiles::within(dir.path()));
        let pki = Self { dir, authority, files };
        pki.files.write(&pki.leaf()?, &[&pki.authority])?;
        Ok(pki)
    }

    fn leaf(&self) -> Result<Leaf> {
        loopback(&self.authority)
    }

    fn spec(&self, gateways: usize, targets: usize) -> Spec {
        Spec::new(gateways, targets).with_tls(self.dir.path())
    }
}

fn loopback(authority: &Authority) -> Result<Leaf> {
    authority.leaf(&["127.0.0.1"], in_days(1))
}

fn failovers() -> Result<String> {
    let pki = Pki::new()?;
    let mut scene = Scene::begin(pki.spec(3, 3))?;
    for _ in 0..3 {
        let (victim, epoch) = scene.primary()?;
        scene.pool.close(&victim)?;
        scene.cluster.node_mut(&victim)?.kill9()?;
        scene.led_after(epoch)?;
        scene.write_for(BEAT);
        scene.bring_back(&victim)?;
        scene.write_for(BEAT);
    }
    // A planned hand-over crosses the control listeners too.
    let (primary, epoch) = scene.primary()?;
    let gateways = scene.cluster.survivors("");
    let (next, _) = gateways.iter().find(|(id, _)| *id != primary).context("no other gateway")?;
    let asked = gateways.iter().find(|(id, _)| id != next && *id != primary).context("no third gateway")?;
    let reply = client::set_primary(&asked.1, next, "")?;
    ensure!(reply.is_success(), "hand-over: {} {}", reply.status, reply.text());
    scene.led_after(epoch)?;
    let smap = client::get_json(&gateways[0].1, "/v1/daemon?what=smap")?;
    let url = smap["proxy_si"]["public_net"]["direct_url"].as_str().unwrap_or_default();
    ensure!(url.starts_with("https://"), "the Smap names {url}");
    none_failed(&scene.end()?)
}

/// Waits until every node says that it has read what the files hold.
fn wait_read(scene: &mut Scene, what: &str, authorities: usize, not: Option<&str>) -> Result<String> {
    let mut certificate = String::new();
    scene.cluster.wait_for(what, READ_TIMEOUT, |views| {
        for view in views {
            let tls = view.credentials.tls.clone().unwrap_or_default();
            let own = tls.certificate.clone().unwrap_or_default();
            if tls.problem.is_some() || tls.authorities.len() != authorities || not == Some(own.as_str()) {
                return Err(format!("{} has {tls:?}", view.node_id));
            }
            certificate = own;
        }
        Ok(())
    })?;
    Ok(certificate)
}

/// Certificate, then authority are replaced while clients write; no call fails, and afterwards members still find each
/// other anew.
fn rotation_under_load() -> Result<String> {
    let pki = Pki::new()?;
    let mut scene = Scene::begin(pki.spec(3, 3))?;
    let first = wait_read(&mut scene, "the first certificate", 1, None)?;
    let (_, epoch) = scene.primary()?;
    pki.files.write(&pki.leaf()?, &[&pki.authority])?;
    let second = wait_read(&mut scene, "the second certificate", 1, Some(&first))?;
    // The authority: both are trusted before anybody shows a certificate of the new one.
    let (old, new) = (pki.leaf()?, Authority::new("second")?);
    pki.files.write(&old, &[&pki.authority, &new])?;
    let old = wait_read(&mut scene, "both authorities", 2, Some(&second))?;
    http::trust(&pki.files.ca)?;
    pki.files.write(&loopback(&new)?, &[&pki.authority, &new])?;
    let third = wait_read(&mut scene, "a certificate of the new authority", 2, Some(&old))?;
    pki.files.write(&loopback(&new)?, &[&new])?;
    wait_read(&mut scene, "the new authority alone", 1, Some(&third))?;
    scene.write_for(BEAT);
    ensure!(scene.primary()?.1 == epoch, "a rotation moved the primary");
    let (victim, epoch) = scene.primary()?;
    scene.pool.close(&victim)?;
    scene.cluster.node_mut(&victim)?.kill9()?;
    scene.led_after(epoch)?;
    scene.bring_back(&victim)?;
    scene.write_for(BEAT);
    none_failed(&scene.end()?)
}

/// Waits for a line of a node's log.
fn wait_logged(cluster: &LocalCluster, id: &str, text: &str) -> Result<()> {
    let log = cluster.node(id)?.log();
    Wait::new(format!("'{text}' in the log of {id}"), READ_TIMEOUT)
        .until(|| Ok(fs::read_to_string(&log)?.contains(text).then_some(())))
}

/// A node with the right secret and a certificate of another authority does not get in; with the right one it does,
/// without a restart.
fn wrong_authority_is_refused() -> Result<String> {
    let pki = Pki::new()?;
    let mut cluster = LocalCluster::start(pki.spec(3, 0))?;
    let other = Authority::new("other")?;
    let theirs = TlsFiles::within(&pki.dir.path().join("stranger"));
    // It trusts the cluster; the cluster does not trust it.
    theirs.write(&loopback(&other)?, &[&other, &pki.authority])?;
    cluster.add("t9", Kind::Target, &theirs.settings())?;
    cluster.write_discovery(&[])?;
    cluster.start_node("t9")?;
    wait_logged(&cluster, "t9", "not connected")?;
    wait_logged(&cluster, "g1", "a connection was not accepted")?;
    match client::get_json(&cluster.node("t9")?.public, "/v1/daemon?what=snode") {
        Err(error) if error.downcast_ref::<Failure>().is_some_and(|f| matches!(f, Failure::NotSent(_))) => {}
        other => bail!("a client took a certificate of an unknown authority: {other:?}"),
    }
    for id in ["g1", "g2", "g3"] {
        let view = cluster.node(id)?.view()?;
        ensure!(view.members.iter().all(|m| m.node_id != "t9" || !m.connected), "{id} lets t9 in");
    }
    theirs.write(&pki.leaf()?, &[&pki.authority])?;
    cluster.wait_for("t9 as a member", AGREE_TIMEOUT + READ_TIMEOUT, |views| {
        let joined = views.iter().any(|v| v.node_id == "t9" && v.ready);
        if joined { Ok(()) } else { Err("t9 is not ready".to_owned()) }
    })?;
    cluster.finish();
    Ok("refused, then let in".to_owned())
}

/// Clients refuse it, the node says so and stays up, members that are connected go on, and a new one is taken up.
fn expired_certificate() -> Result<String> {
    let pki = Pki::new()?;
    let until = SystemTime::now() + SHORT;
    pki.files.write(&pki.authority.leaf(&["127.0.0.1"], until)?, &[&pki.authority])?;
    let mut cluster = LocalCluster::start(pki.spec(3, 0))?;
    let (primary, epoch) = cluster.wait_led(0)?;
    let address = cluster.node(&primary)?.public.clone();
    Wait::new("the expiry", READ_TIMEOUT).until(|| match client::create_bucket(&address, "late", None) {
        Err(Failure::NotSent(error)) if error.to_string().to_lowercase().contains("expired") => Ok(Some(())),
        _ => Ok(None),
    })?;
    for id in ["g1", "g2", "g3"] {
        wait_logged(&cluster, id, "the certificate expired at")?;
    }
    pki.files.write(&pki.leaf()?, &[&pki.authority])?;
    Wait::new("a call with the new certificate", READ_TIMEOUT).until(|| {
        Ok(client::create_bucket(&address, "again", None).is_ok_and(|reply| reply.is_success()).then_some(()))
    })?;
    ensure!(cluster.wait_led(0)? == (primary, epoch), "an expired certificate cost the primary");
    cluster.wait_agreed()?;
    cluster.finish();
    Ok(format!("epoch {epoch} throughout"))
}

fn plain_clients_are_told() -> Result<String> {
    let pki = Pki::new()?;
    let cluster = LocalCluster::start(pki.spec(3, 0))?;
    let node = cluster.node("g1")?;
    for url in [&node.public, &node.control] {
        let plain = url.trim_start_matches("https://");
        let reply = http::call(plain, Call { method: "GET", target: "/v1/health", ..Call::default() }, READ_TIMEOUT)?;
        ensure!(reply.status == 400 && reply.text().contains("https://"), "{} {}", reply.status, reply.text());
    }
    cluster.finish();
    Ok("400 on both ports".to_owned())
}

fn commands_verify() -> Result<String> {
    let pki = Pki::new()?;
    let cluster = LocalCluster::start(pki.spec(3, 0))?;
    let url = cluster.node("g1")?.url();
    let status = |more: &[&str]| Cmd::new(node_binary()?).arg("status").arg(&url).args(more).run();
    let ca = pki.files.ca.display().to_string();
    let shown = status(&["--ca-file", &ca])?;
    ensure!(shown.contains("g1"), "{shown}");
    let stranger = TlsFiles::within(&pki.dir.path().join("stranger"));
    let other = Authority::new("other")?;
    stranger.write(&loopback(&other)?, &[&other])?;
    ensure!(status(&[]).is_err(), "asked without an authority");
    let wrong = stranger.ca.display().to_string();
    ensure!(status(&["--ca-file", &wrong]).is_err(), "took a certificate of another authority");
    // What clients are shown holds nothing of the secret.
    let told: Value = client::get_json(&cluster.node("g1")?.public, "/v1/cluster?what=ha")?;
    ensure!(told["credentials"].is_null() && told["node_id"].is_string(), "{told}");
    cluster.finish();
    Ok("verified".to_owned())
}
