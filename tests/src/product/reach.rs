//! How a pod's port is reached from here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{PORT_CONTROL, PORT_PUBLIC};
use crate::testbed::Kubectl;

const FORWARD_TIMEOUT: Duration = Duration::from_secs(20);

/// Ports of a cluster's nodes, as its spec names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of clients.
    pub public: u16,
    /// Of the operator's calls.
    pub control: u16,
}

impl Ports {
    /// Of a resource; those that it does not name are the defaults.
    pub fn of(resource: &Value) -> Self {
        let port = |name: &str, default| {
            let named = resource.pointer(&format!("/spec/networking/ports/{name}")).and_then(Value::as_u64);
            named.and_then(|port| u16::try_from(port).ok()).unwrap_or(default)
        };
        Self { public: port("public", PORT_PUBLIC), control: port("control", PORT_CONTROL) }
    }
}

/// Directly, or through `kubectl port-forward`.
#[derive(Debug)]
pub struct Reach(Way);

#[derive(Debug)]
enum Way {
    Direct,
    /// Forwarders by the uid of the pod: another pod of that name needs another one.
    Forward(Kubectl, Mutex<BTreeMap<String, Forwarder>>),
}

impl Reach {
    /// Pods' addresses lead to pods from here.
    pub fn direct() -> Self {
        Self(Way::Direct)
    }

    /// They do not.
    pub fn forwarded(kubectl: Kubectl) -> Self {
        Self(Way::Forward(kubectl, Mutex::default()))
    }

    /// `host:port` of a pod's public and control port.
    pub fn addresses(&self, pod: &Value, ports: Ports) -> Result<(String, String)> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").context("a pod without a name")?;
        match &self.0 {
            Way::Direct => {
                let ip = text("/status/podIP").with_context(|| format!("{name} has no address yet"))?;
                Ok((format!("{ip}:{}", ports.public), format!("{ip}:{}", ports.control)))
            }
            Way::Forward(kubectl, all) => {
                let uid = text("/metadata/uid").context("a pod without a uid")?;
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|_, forwarder| forwarder.works());
                let found = match all.entry(uid.to_owned()) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(Forwarder::start(kubectl, name, ports)?)
                    }
                };
                Ok((format!("127.0.0.1:{}", found.public), format!("127.0.0.1:{}", found.control)))
            }
        }
    }
}

/// A `kubectl port-forward` at work.
#[derive(Debug)]
struct Forwarder {
    child: Child,
    public: u16,
    control: u16,
}

impl Forwarder {
    fn start(kubectl: &Kubectl, pod: &str, ports: Ports) -> Result<Self> {
        let both = [format!(":{}", ports.public), format!(":{}", ports.control)];
        let mut command: Command =
            kubectl.cmd(["port-forward", "--address=127.0.0.1", &format!("pod/{pod}")]).args(both).to_command();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start kubectl port-forward")?;
        let out = child.stdout.take().context("no output of kubectl port-forward")?;
        let (tell, told) = channel();
        // It goes on reading: the forwarder tells of every connection and must not block.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Once both ports are known, nobody listens any more.
                let _ = forwarding(&line).map(|ports| tell.send(ports));
            }
        });
        let mut forwarder = Self { child, public: 0, control: 0 };
        while forwarder.public == 0 || forwarder.control == 0 {
            let (local, remote) =
                told.recv_timeout(FORWARD_TIMEOUT).with_context(|| format!("no port-forward to {pod}"))?;
            if remote == ports.public {
                forwarder.public = local;
            } else {
                forwarder.control = local;
            }
        }
        Ok(forwarder)
    }

    fn works(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The ports in `Forwarding from 127.0.0.1:40001 -> 51080`.
fn forwarding(line: &str) -> Option<(u16, u16)> {
    let (from, to) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    Some((from.rsplit_once(':')?.1.parse().ok()?, to.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_forwarder() {
        assert_eq!(forwarding("Forwarding from 127.0.0.1:40001 -> 51080"), Some((40001, 51080)));
        assert_eq!(forwarding("Handling connection for 40001"), None);
    }
}
