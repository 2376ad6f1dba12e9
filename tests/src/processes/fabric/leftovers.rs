//! What a harness left that was killed: processes, namespaces, bridge, mounts. Its own, known by pid and start time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::PREFIX;
use crate::cmd::Cmd;
use crate::processes::{TEMPORARY, starve, volume};
use crate::testbed::network::ip;
use crate::testbed::process::{HostProcess, command_line};

/// Pid and start time in ticks: unlike a pid alone, never another process later.
pub(super) fn owner_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, its closing bracket is the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let start = rest.split_whitespace().nth(19)?;
    Some(format!("{pid}-{start}"))
}

fn lives(owner: &str) -> bool {
    let pid = owner.split('-').next().and_then(|pid| pid.parse().ok());
    pid.and_then(owner_of).is_some_and(|now| now == owner)
}

/// Removes what dead harnesses left.
pub fn remove() -> Result<()> {
    // First of all what may hang: nobody can end a process that waits for a frozen disk.
    for folder in abandoned_folders()? {
        volume::unmount_below(&folder)?;
    }
    starve::remove_empty();
    let shown = Cmd::new("ip").args(["-j", "link", "show", "type", "bridge"]).run()?;
    let links: Vec<Value> = if shown.trim().is_empty() { Vec::new() } else { serde_json::from_str(&shown)? };
    for link in &links {
        let (name, owner) = (link["ifname"].as_str().unwrap_or_default(), link["ifalias"].as_str());
        // Without an alias yet it is just being made.
        if is_ours(name) && owner.is_some_and(|owner| !lives(owner)) {
            remove_fabric(name)?;
        }
    }
    Ok(())
}

fn is_ours(bridge: &str) -> bool {
    bridge.strip_prefix(PREFIX).is_some_and(|rest| rest.parse::<u8>().is_ok())
}

/// Removes a bridge, its namespaces and what runs in them.
pub(super) fn remove_fabric(bridge: &str) -> Result<()> {
    let shown = Cmd::new("ip").args(["-j", "netns", "list"]).run()?;
    let namespaces: Vec<Value> = if shown.trim().is_empty() { Vec::new() } else { serde_json::from_str(&shown)? };
    let own = format!("{bridge}-");
    for namespace in namespaces.iter().filter_map(|n| n["name"].as_str()).filter(|name| name.starts_with(&own)) {
        // Two harnesses may come upon the same leftovers: what counts is that they are gone.
        let ended = end_nodes(namespace).and_then(|()| ip(&["netns", "del", namespace]));
        if Path::new("/run/netns").join(namespace).exists() {
            ended?;
        }
    }
    // A namespace takes its interfaces along only in its own time; the next fabric wants their names at once.
    let shown = Cmd::new("ip").args(["-j", "link", "show", "master", bridge]).output()?.stdout;
    let ports: Vec<Value> = serde_json::from_str(&shown).unwrap_or_default();
    for port in ports.iter().filter_map(|port| port["ifname"].as_str()) {
        // Gone already is as good.
        drop(ip(&["link", "del", port]));
    }
    let removed = ip(&["link", "del", bridge]);
    if Path::new("/sys/class/net").join(bridge).exists() { removed } else { Ok(()) }
}

/// Ends the nodes in a namespace of ours; nobody else has a reason to be there, and nobody else is touched.
fn end_nodes(namespace: &str) -> Result<()> {
    let shown = Cmd::new("ip").args(["netns", "pids", namespace]).run()?;
    for pid in shown.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
        let Ok(process) = HostProcess::open(pid) else { continue };
        let is_node = command_line(pid).is_some_and(|args| {
            args.iter().any(|arg| arg.ends_with("/node.yaml")) && args.iter().any(|arg| arg == "--config")
        });
        if is_node && process.kill().is_ok() {
            process.wait_end(Duration::from_secs(5))?;
        }
    }
    Ok(())
}

/// Folders of dead harnesses in the temporary folder.
fn abandoned_folders() -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(std::env::temp_dir()).context("cannot read the temporary folder")?;
    let abandoned = |name: &str| {
        let pid = name.strip_prefix(TEMPORARY)?.split('-').next()?.parse::<u32>().ok()?;
        (!Path::new("/proc").join(pid.to_string()).exists()).then_some(())
    };
    Ok(entries.flatten().filter(|e| abandoned(&e.file_name().to_string_lossy()).is_some()).map(|e| e.path()).collect())
}
