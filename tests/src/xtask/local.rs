//! `cargo xtask up --local` and `down --local`: gateways and targets as processes on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::drill::{self, Drill, LocalDrills, Run};
use crate::processes::{Kind, LocalCluster, Node, Spec};
use crate::progress::Progress;
use crate::sdk::Sdk;
use crate::testbed::process::{HostProcess, all_pids, command_line};

/// A node that is told to end hands over and leaves first.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const SDK_TIMEOUT: Duration = Duration::from_secs(120);
/// A failover needs a majority of the electorate without the primary.
const VOTERS_FOR_FAILOVER: usize = 3;

/// What is written down about a cluster that was left running.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Everything it writes.
    pub dir: PathBuf,
    /// The secret of member and operator calls.
    pub secret_file: PathBuf,
    /// Its nodes.
    pub nodes: Vec<RecordedNode>,
}

/// A node that was left running.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedNode {
    /// Id.
    pub id: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// Process.
    pub pid: u32,
    /// URL of the AIStore API.
    pub url: String,
    /// `host:port` of member and operator calls.
    pub control: String,
    /// Its configuration file, which its command line names.
    pub config: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// Brings it up, shows the drills, leaves it running.
pub fn up(gateways: usize, targets: usize) -> Result<()> {
    let progress = Progress::new("up");
    if gateways == 0 {
        bail!("a cluster has at least one gateway");
    }
    let base = state_dir()?;
    let dir = base.join("local");
    let left = running(&dir)?;
    if !left.is_empty() {
        bail!("{} processes of an earlier `up --local` run; `cargo xtask down --local` ends them", left.len());
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).context("cannot remove what an earlier run left")?;
    }
    if std::env::var_os("AIS_NODE_BIN").is_none() {
        progress.line("building ais-node");
        super::build_node()?;
    }

    let mut spec = Spec::new(gateways, targets);
    (spec.dir, spec.own_session) = (Some(dir), true);
    if gateways == 1 && targets == 0 {
        spec = spec.set("standalone", true);
    }
    let begin = Instant::now();
    let mut cluster = LocalCluster::start(spec)?;
    write_record(&base, &cluster)?;
    progress.line(format!("{gateways} gateways and {targets} targets agree after {:.0?}", begin.elapsed()));

    let sdk = Sdk::ensure()?;
    with_sdk(&sdk, &cluster, &progress)?;
    drills(&mut cluster, &progress)?;
    cluster.wait_agreed()?;
    let record = write_record(&base, &cluster)?;
    explain(&mut cluster, &base, &record, &sdk)?;
    cluster.detach();
    Ok(())
}

fn with_sdk(sdk: &Sdk, cluster: &LocalCluster, progress: &Progress) -> Result<()> {
    progress.line("the unmodified aistore package from PyPI, through every gateway");
    let mut args = vec![format!("up-{}", std::process::id())];
    args.extend(cluster.nodes.iter().filter(|node| node.kind == Kind::Gateway).map(Node::url));
    let told = sdk.run("metadata.py", &args, SDK_TIMEOUT)?;
    progress.line(format!("buckets made, seen, removed: {}", told.trim()));
    Ok(())
}

fn drills(cluster: &mut LocalCluster, progress: &Progress) -> Result<()> {
    let (first, _) = cluster.wait_led(0)?;
    let voters = cluster.views()?.first().map_or(0, |view| view.electorate.len());
    let gateways = cluster.survivors("").len();
    if gateways < 2 {
        progress.line("one gateway: nobody to fail over to, the drills are left out");
        return Ok(());
    }
    if voters >= VOTERS_FOR_FAILOVER {
        one(cluster, Drill::Kill9, None, "kill -9 of the primary", progress)?;
        one(cluster, Drill::Sigterm, None, "SIGTERM to the primary", progress)?;
    } else {
        progress.line(format!("{voters} voters: no majority without the primary, kill -9 and SIGTERM are left out"));
    }
    if cluster.wait_led(0)?.0 == first {
        one(cluster, Drill::Planned, None, "planned hand-over", progress)?;
    }
    one(cluster, Drill::Planned, Some(first.clone()), &format!("planned failback to {first}"), progress)
}

fn one(cluster: &mut LocalCluster, drill: Drill, to: Option<String>, what: &str, progress: &Progress) -> Result<()> {
    let (old, _) = cluster.wait_led(0)?;
    let mut drills = LocalDrills::new(cluster);
    drills.successor = to;
    let Run { took, epoch } = drill::run(&mut drills, drill, None)?;
    let (new, _) = cluster.wait_led(0)?;
    let again = if drill.spares_the_primary() { "" } else { "; the ended node was started again" };
    progress.line(format!(
        "{what}: {:.1} ms to the next committed bucket create ({old} -> {new}, epoch {epoch}){again}",
        took.as_secs_f64() * 1000.0
    ));
    Ok(())
}

fn write_record(base: &Path, cluster: &LocalCluster) -> Result<Record> {
    let nodes = cluster.nodes.iter().map(|node| {
        Ok(RecordedNode {
            id: node.id.clone(),
            kind: node.kind.as_str().to_owned(),
            pid: node.pid().with_context(|| format!("{} does not run", node.id))?,
            url: node.url(),
            control: node.control.clone(),
            config: node.config(),
            log: node.log(),
        })
    });
    let record = Record {
        dir: cluster.dir().to_owned(),
        secret_file: cluster.dir().join("secret"),
        nodes: nodes.collect::<Result<_>>()?,
    };
    fs::write(base.join("local.json"), serde_json::to_string_pretty(&record)?).context("cannot write local.json")?;
    Ok(record)
}

fn explain(cluster: &mut LocalCluster, base: &Path, record: &Record, sdk: &Sdk) -> Result<()> {
    let (primary, epoch) = cluster.wait_led(0)?;
    println!("\n{:<6} {:<8} {:>8}  {:<24} log", "node", "kind", "pid", "URL");
    for node in &record.nodes {
        println!("{:<6} {:<8} {:>8}  {:<24} {}", node.id, node.kind, node.pid, node.url, node.log.display());
    }
    let gateway = record.nodes.first().context("no node")?;
    let other = record.nodes.iter().rfind(|node| node.kind == "gateway").unwrap_or(gateway);
    println!("\nThe primary is {primary} (epoch {epoch}). The cluster is left running. To look at it:");
    println!("  curl '{}/v1/daemon?what=smap'", gateway.url);
    let python = sdk.python().display();
    println!("  {python} -c \"from aistore import Client; print(Client('{}').cluster().get_info())\"", gateway.url);
    println!("  kill -9 {}                                    # then look again", gateway.pid);
    println!("  curl -X PUT '{}/v1/cluster/proxy/{}'   # hand the primary's role over", gateway.url, other.id);
    println!("URLs and pids are also in {}", base.join("local.json").display());
    println!(
        "\nLeft out here: Kubernetes, the operator, the AISCluster resource and failback by it. `cargo xtask up` shows them."
    );
    println!("`cargo xtask down --local` ends it.");
    Ok(())
}

/// Ends what `up --local` left running, and removes its files.
pub fn down() -> Result<()> {
    let progress = Progress::new("down");
    let base = state_dir()?;
    let (dir, file) = (base.join("local"), base.join("local.json"));
    let processes = running(&dir)?;
    for process in &processes {
        process.terminate()?;
    }
    for process in &processes {
        if process.wait_end(END_TIMEOUT).is_err() {
            progress.line(format!("process {} did not end in order, killed", process.pid()));
            process.kill()?;
            process.wait_end(END_TIMEOUT)?;
        }
    }
    for path in [&file, &dir] {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    progress.line(format!("{} processes ended, nothing is left of them", processes.len()));
    Ok(())
}

/// The processes whose command line is that of a node of the cluster in `dir`: a pid alone may mean another by now.
fn running(dir: &Path) -> Result<Vec<HostProcess>> {
    let mut found = Vec::new();
    for pid in all_pids()? {
        if !is_node(pid, dir) {
            continue;
        }
        let Ok(process) = HostProcess::open(pid) else { continue };
        // Looked at again now that it is held: it cannot have become another.
        if is_node(pid, dir) {
            found.push(process);
        }
    }
    Ok(found)
}

fn is_node(pid: u32, dir: &Path) -> bool {
    let Some(args) = command_line(pid) else { return false };
    let [binary, run, config, path] = &args[..] else { return false };
    let is_config = Path::new(path).starts_with(dir) && path.ends_with("/node.yaml");
    binary.ends_with("/ais-node") && run == "run" && config == "--config" && is_config
}

/// `$XDG_STATE_HOME/aiscluster`, or `~/.local/state/aiscluster`.
fn state_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    let dir = base.context("neither XDG_STATE_HOME nor HOME is set")?.join("aiscluster");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
