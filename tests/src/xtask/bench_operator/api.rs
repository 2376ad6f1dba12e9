//! The API server by plain HTTP, through `kubectl proxy`: a process a call would cost more than what is measured.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{self, Call};
use crate::testbed::Kubectl;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const MERGE: &[(&str, &str)] = &[("Content-Type", "application/merge-patch+json")];

/// A `kubectl proxy` at work.
#[derive(Debug)]
pub(super) struct Api {
    child: Child,
    address: String,
}

impl Api {
    pub(super) fn start(kubectl: &Kubectl) -> Result<Self> {
        let mut command = kubectl.cmd(["proxy", "--address=127.0.0.1", "--port=0"]).to_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start kubectl proxy")?;
        let out = child.stdout.take().context("no output of kubectl proxy")?;
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            drop(BufReader::new(out).read_line(&mut line));
            drop(tell.send(line));
        });
        let mut api = Self { child, address: String::new() };
        let line = told.recv_timeout(START_TIMEOUT).context("kubectl proxy does not start")?;
        let address = line.trim().rsplit_once(' ').map(|(_, address)| address.to_owned());
        api.address = address.with_context(|| format!("kubectl proxy said '{line}'"))?;
        Ok(api)
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, &[], &Value::Null)
    }

    pub(super) fn post(&self, path: &str, object: &Value) -> Result<Value> {
        self.call("POST", path, &[], object)
    }

    /// A merge patch.
    pub(super) fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        self.call("PATCH", path, MERGE, patch)
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let call = Call { method, target: path, headers, body: &body };
        let reply = http::call(&self.address, call, CALL_TIMEOUT).with_context(|| format!("{method} {path}"))?;
        if !reply.is_success() {
            bail!("{method} {path}: {} {}", reply.status, reply.text());
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("{method} {path}: not JSON"))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
