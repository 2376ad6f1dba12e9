//! `helm` as a value, without any trace in the user's home.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::kubectl::Kubectl;
use crate::cmd::Cmd;

/// Runs one particular `helm` against one particular cluster.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    home: PathBuf,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    File(PathBuf),
    Context(String),
}

impl Helm {
    /// Against the cluster that this `kubectl` talks to; `home` takes Helm's own files.
    pub fn new(program: impl Into<PathBuf>, kubectl: &Kubectl, home: impl Into<PathBuf>) -> Self {
        let target = match (kubectl.kubeconfig(), kubectl.context()) {
            (Some(file), _) => Target::File(file.to_owned()),
            (None, context) => Target::Context(context.unwrap_or_default().to_owned()),
        };
        Self { program: program.into(), home: home.into(), target }
    }

    /// A prepared command to add to.
    pub fn cmd<I, S>(&self, args: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut cmd = Cmd::new(&self.program).args(args).timeout(Duration::from_secs(180));
        for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            cmd = cmd.env(name, self.home.join(dir));
        }
        match &self.target {
            Target::File(file) => cmd.env("KUBECONFIG", file),
            Target::Context(context) => cmd.args(["--kube-context", context]),
        }
    }

    /// Runs it and returns what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.cmd(args).run()
    }
}
