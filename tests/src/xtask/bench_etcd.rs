//! Three members of Debian's etcd on loopback, with their shipped settings: what the metadata figures stand beside.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::bench_load::{self, Wire};
use crate::cmd::Cmd;
use crate::processes::Ports;
use crate::progress::Progress;
use crate::testbed::packages;
use crate::wait::Wait;

const MEMBERS: usize = 3;
const UP_TIMEOUT: Duration = Duration::from_secs(30);

/// The running members. They end with it, and their data with them.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Child>,
    clients: Vec<SocketAddr>,
    dir: PathBuf,
    _ports: Ports,
}

impl Etcd {
    /// Starts three members in `dir` and waits until they take writes.
    pub fn start(dir: &Path, progress: &Progress) -> Result<Self> {
        let program = program(progress)?;
        let mut ports = Ports::reserve()?;
        let mut addresses = Vec::new();
        for _ in 0..MEMBERS {
            addresses.push((at(ports.take()?), at(ports.take()?)));
        }
        let peers: Vec<String> =
            addresses.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://{peer}")).collect();
        let clients = addresses.iter().map(|(client, _)| *client).collect();
        let mut etcd = Self { members: Vec::new(), clients, dir: dir.to_owned(), _ports: ports };
        for (i, (client, peer)) in addresses.iter().enumerate() {
            let home = dir.join(format!("m{i}"));
            fs::create_dir_all(&home)?;
            let log = File::create(dir.join(format!("m{i}.log")))?;
            let mut command = Command::new(&program);
            command.args(["--name", &format!("m{i}"), "--initial-cluster", &peers.join(",")]);
            command.args(["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error"]);
            for (option, address) in [
                ("--listen-client-urls", client),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer),
                ("--initial-advertise-peer-urls", peer),
            ] {
                command.arg(option).arg(format!("http://{address}"));
            }
            command.arg("--data-dir").arg(&home).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            etcd.members.push(command.spawn().context("cannot start etcd")?);
        }
        Wait::new("etcd takes writes", UP_TIMEOUT)
            .every(Duration::from_millis(100))
            .until(|| bench_load::run(Wire::Etcd, &etcd.clients, MEMBERS, Duration::from_millis(1), "up").map(Some))?;
        Ok(etcd)
    }

    /// Where clients connect, the leader first.
    pub fn clients(&self) -> Result<Vec<SocketAddr>> {
        let mut clients = self.clients.clone();
        for i in 0..clients.len() {
            if leads(clients[i])? {
                clients.swap(0, i);
                return Ok(clients);
            }
        }
        anyhow::bail!("no member of etcd leads")
    }

    /// What runs, for the tables.
    pub fn version(progress: &Progress) -> Result<String> {
        let told = Cmd::new(program(progress)?).arg("--version").run()?;
        Ok(told.lines().next().unwrap_or_default().replace("etcd Version: ", "etcd "))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended by itself; there is nobody to tell either way.
            drop(member.kill());
            drop(member.wait());
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn program(progress: &Progress) -> Result<PathBuf> {
    if packages::find("etcd").is_none() {
        packages::ensure(progress)?;
    }
    packages::find("etcd").context("no etcd")
}

/// Asks the metrics, which need no client library.
fn leads(member: SocketAddr) -> Result<bool> {
    let call = crate::http::Call { method: "GET", target: "/metrics", ..Default::default() };
    let reply = crate::http::call(&member.to_string(), call, Duration::from_secs(5))?;
    Ok(reply.text().lines().any(|line| line == "etcd_server_is_leader 1"))
}
