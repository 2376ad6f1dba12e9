//! `kubectl` as a value: which binary, which cluster, which namespace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cmd::Cmd;
use crate::wait::Wait;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(20);

/// Runs one particular `kubectl` against one particular cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    cache: Option<PathBuf>,
    context: Option<String>,
    namespace: Option<String>,
}

impl Kubectl {
    /// Against the cluster of a kubeconfig file.
    pub fn new(program: impl Into<PathBuf>, kubeconfig: impl Into<PathBuf>) -> Self {
        let kubeconfig = kubeconfig.into();
        let cache = kubeconfig.parent().map(|dir| dir.join("kubectl-cache"));
        Self { program: program.into(), kubeconfig: Some(kubeconfig), cache, context: None, namespace: None }
    }

    /// Against a named context of the user's own configuration; never the current one by accident.
    pub fn for_context(program: impl Into<PathBuf>, context: &str) -> Self {
        Self {
            program: program.into(),
            kubeconfig: None,
            cache: None,
            context: Some(context.to_owned()),
            namespace: None,
        }
    }

    /// The same in this namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The kubeconfig file, unless the user's own is meant.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// The named context, when the user's own configuration is meant.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A prepared command to add to.
    pub fn cmd<I, S>(&self, args: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut cmd = Cmd::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            cmd = cmd.env("KUBECONFIG", kubeconfig);
        }
        if let Some(cache) = &self.cache {
            cmd = cmd.arg("--cache-dir").arg(cache);
        }
        if let Some(context) = &self.context {
            cmd = cmd.args(["--context", context]);
        }
        if let Some(namespace) = &self.namespace {
            cmd = cmd.args(["--namespace", namespace]);
        }
        cmd.args(args).timeout(Duration::from_secs(60))
    }

    /// Runs it and returns what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.cmd(args).run()
    }

    /// An object as JSON, such as `get("pod/a")`.
    pub fn get(&self, resource: &str) -> Result<Value> {
        self.try_get(resource)?.with_context(|| format!("there is no {resource}"))
    }

    /// An object as JSON; `None` when it is not there.
    pub fn try_get(&self, resource: &str) -> Result<Option<Value>> {
        let text = self.run(&["get", resource, "--ignore-not-found", "-o", "json", &request_timeout()])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).with_context(|| format!("{resource} is not readable"))
    }

    /// All objects of a kind, or those of a label selector.
    pub fn list(&self, kind: &str, selector: Option<&str>) -> Result<Vec<Value>> {
        let timeout = request_timeout();
        let mut args = vec!["get", kind, "-o", "json", &timeout];
        if let Some(selector) = selector {
            args.extend(["--selector", selector]);
        }
        let mut list: Value =
            serde_json::from_str(&self.run(&args)?).with_context(|| format!("{kind} are not readable"))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("{kind}: the answer is not a list"),
        }
    }

    /// What the API server answers to a GET of this path.
    pub fn raw(&self, path: &str) -> Result<String> {
        self.run(&["get", "--raw", path, &request_timeout()])
    }

    /// `kubectl apply` of YAML or JSON.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.cmd(["apply", "-f", "-"]).stdin(manifest).run()
    }

    /// `kubectl apply` of a JSON value.
    pub fn apply_json(&self, object: &Value) -> Result<String> {
        self.apply(&object.to_string())
    }

    /// Deletes an object, if it is there, and waits until it is gone.
    pub fn delete(&self, resource: &str, timeout: Duration) -> Result<()> {
        let limit = format!("--timeout={}s", timeout.as_secs().max(1));
        let cmd = self.cmd(["delete", resource, "--ignore-not-found", "--wait=true", &limit]);
        cmd.timeout(timeout + Duration::from_secs(10)).run().map(drop)
    }

    /// Deletes a pod without grace, as when its node is lost.
    pub fn force_delete_pod(&self, pod: &str) -> Result<()> {
        self.run(&["delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]).map(drop)
    }

    /// A merge patch.
    pub fn patch(&self, resource: &str, patch: &Value) -> Result<String> {
        self.run(&["patch", resource, "--type=merge", "--patch", &patch.to_string()])
    }

    /// Runs a program in a container and returns what it printed.
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        self.cmd(["exec", pod, "--container", container, "--"]).args(command).run()
    }

    /// A container's log.
    pub fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.run(&["logs", pod, "--container", container])
    }

    /// Waits until the object is there and looks right.
    pub fn wait_for(
        &self,
        resource: &str,
        what: &str,
        timeout: Duration,
        mut right: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let waited =
            Wait::new(format!("{resource} to be {what}"), timeout).every(Duration::from_millis(200)).until(|| {
                let object = self.try_get(resource)?;
                if object.as_ref().is_some_and(&mut right) {
                    return Ok(object);
                }
                last = object;
                Ok(None)
            });
        waited.with_context(|| match &last {
            Some(object) => format!("its status: {}", object["status"]),
            None => "it is not there".to_owned(),
        })
    }

    /// Waits until an object is gone.
    pub fn wait_gone(&self, resource: &str, timeout: Duration) -> Result<()> {
        Wait::new(format!("{resource} to go"), timeout)
            .every(Duration::from_millis(200))
            .until(|| Ok(self.try_get(resource)?.is_none().then_some(())))
    }

    /// Waits until `count` pods of a selector are Ready and none of them is being deleted.
    pub fn wait_pods_ready(&self, selector: &str, count: usize, timeout: Duration) -> Result<Vec<Value>> {
        let mut seen = String::new();
        let waited = Wait::new(format!("{count} Ready pods of {selector}"), timeout)
            .every(Duration::from_millis(200))
            .until(|| {
                let pods = self.list("pods", Some(selector))?;
                seen = pods.iter().map(summary).collect::<Vec<_>>().join("; ");
                Ok((pods.len() == count && pods.iter().all(is_ready)).then_some(pods))
            });
        waited.with_context(|| format!("seen: {seen}"))
    }
}

/// Whether a pod is Ready and stays.
pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready") == Some("True")
}

/// The status text of an object's condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn summary(pod: &Value) -> String {
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .map(|all| all.iter().map(|container| container["state"].to_string()).collect::<Vec<_>>().join(","));
    format!(
        "{} {} {}",
        pod["metadata"]["name"].as_str().unwrap_or("?"),
        pod["status"]["phase"].as_str().unwrap_or("?"),
        containers.unwrap_or_default()
    )
}

fn request_timeout() -> String {
    format!("--request-timeout={}s", REQUEST.as_secs())
}
