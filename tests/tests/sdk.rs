//! The unmodified `aistore` package from PyPI against processes.

use std::process::ExitCode;
use std::time::Duration;

use ais_tests::cmd::Cmd;
use ais_tests::drill::{self, Drill, LocalDrills};
use ais_tests::processes::pki::{self, Authority, TlsFiles, in_days};
use ais_tests::processes::{LocalCluster, Spec};
use ais_tests::sdk::{Script, Sdk};
use ais_tests::suite;
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// All nodes end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// So many buckets are made before and after each failover.
const BUCKETS: usize = 10;

fn main() -> ExitCode {
    suite::main(&[
        ("sdk_through_every_gateway", through_every_gateway),
        ("sdk_during_failovers", during_failovers),
        ("sdk_with_tokens", with_tokens),
        ("sdk_over_https", over_https),
    ])
}

fn args(prefix: &str, gateways: &[(String, String)]) -> Vec<String> {
    let urls = gateways.iter().map(|(_, address)| format!("http://{address}"));
    std::iter::once(prefix.to_owned()).chain(urls).collect()
}

fn through_every_gateway() -> Result<String> {
    let sdk = Sdk::ensure()?;
    let cluster = LocalCluster::start(Spec::new(3, 3))?;
    let told = sdk.run("metadata.py", &args("sdk", &cluster.survivors("")), SCRIPT_TIMEOUT)?;
    let told: Value = serde_json::from_str(&told).context("the script's last word")?;
    ensure!(told["gateways"] == 3 && told["targets"] == 3, "the SDK saw {told}");
    cluster.finish();
    Ok(told.to_string())
}

/// The SDK verifies the cluster's certificates, while the primary is killed too; without the authority it refuses.
fn over_https() -> Result<String> {
    let plain = Sdk::ensure()?;
    let tls = pki::temporary_dir()?;
    let authority = Authority::new("sdk")?;
    let files = TlsFiles::within(tls.path());
    files.write(&authority.leaf(&["127.0.0.1"], in_days(1))?, &[&authority])?;
    let mut cluster = LocalCluster::start(Spec::new(3, 1).with_tls(tls.path()))?;
    let sdk = plain.with_authorities(&files.ca);
    let urls = |cluster: &LocalCluster, not: &str| -> Vec<String> {
        cluster.survivors(not).into_iter().map(|(_, url)| url).collect()
    };
    let args = |prefix: &str, urls: Vec<String>| [vec![prefix.to_owned()], urls].concat();
    let told = sdk.run("metadata.py", &args("sdk", urls(&cluster, "")), SCRIPT_TIMEOUT)?;
    // The SDK itself would try again for a minute.
    let ask = "import requests, sys; requests.get(sys.argv[1])";
    let unknown = Cmd::new(plain.python()).args(["-c", ask, &urls(&cluster, "")[0]]).timeout(SCRIPT_TIMEOUT).run();
    ensure!(unknown.is_err_and(|e| format!("{e:#}").contains("CERTIFICATE_VERIFY_FAILED")), "not verified");
    let (primary, epoch) = cluster.wait_led(0)?;
    let script = sdk.start("writer.py", &args("tls", urls(&cluster, &primary)), &cluster.dir().join("writer"))?;
    write_more(&script)?;
    cluster.node_mut(&primary)?.kill9()?;
    cluster.wait_led(epoch)?;
    write_more(&script)?;
    script.finish(SCRIPT_TIMEOUT).context("while the primary was killed")?;
    cluster.finish();
    Ok(told.trim().to_owned())
}

/// Waits until the script has made some more buckets.
fn write_more(script: &Script) -> Result<()> {
    let made = || script.printed().lines().count();
    let enough = made() + BUCKETS;
    Wait::new("the writer", SCRIPT_TIMEOUT).until(|| Ok((made() >= enough).then_some(())))
}

/// No exception reaches the user's code while the primary is killed, ended and handed over.
fn during_failovers() -> Result<String> {
    let sdk = Sdk::ensure()?;
    let mut cluster = LocalCluster::start(Spec::new(3, 3))?;
    let mut said = Vec::new();
    for drill in [Drill::Kill9, Drill::Sigterm, Drill::Planned] {
        let (primary, _) = cluster.wait_led(0)?;
        let not = if drill.spares_the_primary() { "" } else { primary.as_str() };
        let log = cluster.dir().join(format!("writer-{}", drill.name()));
        let script = sdk.start("writer.py", &args(drill.name(), &cluster.survivors(not)), &log)?;
        write_more(&script)?;
        let run = drill::run(&mut LocalDrills::new(&mut cluster), drill, None)?.took;
        write_more(&script)?;
        let told = script.finish(SCRIPT_TIMEOUT).with_context(|| format!("during {}", drill.name()))?;
        let told: Value = serde_json::from_str(told.lines().last().unwrap_or_default())?;
        ensure!(told["buckets"].as_u64() > Some(0), "the writer did nothing: {told}");
        said.push(format!("{} {:.0?} {told}", drill.name(), run));
    }
    let told = sdk.run("metadata.py", &args("after", &cluster.survivors("")), SCRIPT_TIMEOUT)?;
    said.push(format!("after: {}", told.trim()));
    cluster.finish();
    Ok(said.join("; "))
}

/// Allowed, forbidden, revoked at once on every gateway, and still revoked under the next primary (H55) and after a
/// restart of everything.
fn with_tokens() -> Result<String> {
    const SECRET: &str = "aBitLongSecretKey";
    let sdk = Sdk::ensure()?;
    let mut cluster = LocalCluster::start(Spec::new(3, 3).set("authn_secret_key", SECRET))?;
    let gateways = |cluster: &LocalCluster| -> Vec<String> {
        cluster.survivors("").into_iter().map(|(_, address)| format!("http://{address}")).collect()
    };
    let mode = |mode: &str, more: Vec<String>| [vec![mode.to_owned(), SECRET.to_owned()], more].concat();
    let told = sdk.run("tokens.py", &mode("live", gateways(&cluster)), SCRIPT_TIMEOUT)?;
    let told: Value = serde_json::from_str(&told).context("the script's last word")?;
    let revoked = told["revoked"].as_str().context("the revoked token")?.to_owned();
    let (primary, epoch) = cluster.wait_led(0)?;
    cluster.node_mut(&primary)?.kill9()?;
    cluster.wait_led(epoch)?;
    let more = [vec![revoked.clone()], gateways(&cluster)].concat();
    sdk.run("tokens.py", &mode("after", more), SCRIPT_TIMEOUT).context("under the next primary")?;
    cluster.start_node(&primary)?;
    cluster.wait_agreed()?;
    cluster.stop_all(STOP_TIMEOUT)?;
    for id in cluster.ids() {
        cluster.start_node(&id)?;
    }
    cluster.wait_agreed()?;
    let more = [vec![revoked], gateways(&cluster)].concat();
    let after = sdk.run("tokens.py", &mode("after", more), SCRIPT_TIMEOUT)?;
    cluster.finish();
    Ok(format!("after the restart: {}", after.trim()))
}
