//! The first process of a cluster's namespaces: it prepares them and keeps the components running.
//!
//! It is this same program, started again under `unshare`. As process 1 of a pid namespace it cannot be ended by
//! accident from within, and when it ends, the kernel ends everything else in there.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::mount_bind;
use rustix::process::{WaitOptions, wait};
use serde::{Deserialize, Serialize};

use super::components::Spec;
use super::network::{INSIDE, ip};
use super::packages::PATH;

/// The hidden subcommand that runs [`run`].
pub const SUBCOMMAND: &str = "testbed-init";
/// First line on its standard input: the link is there, start.
pub const GO: &str = "go";
/// Second line: live on when the starting process ends.
pub const STAY: &str = "stay";

/// How long a component stays down after it ended by itself.
const RESPAWN_PAUSE: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(25);

/// Values that the kubelet insists on for the whole machine: it finds them "already set" and leaves the machine alone.
const SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What the first process is told in a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The cluster's state folder.
    pub state: PathBuf,
    /// Folders to put over the machine's own: (ours, theirs).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// The node's address with its prefix length.
    pub address: String,
    /// The host's end of the link.
    pub gateway: String,
    /// What to keep running, in starting order.
    pub components: Vec<Spec>,
}

/// Runs for the cluster's whole life.
pub fn run(plan_file: &Path) -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is the test Kubernetes' first process; `cargo xtask kubernetes up` starts it");
    }
    let text = fs::read_to_string(plan_file).with_context(|| format!("cannot read {}", plan_file.display()))?;
    let plan: Plan = serde_json::from_str(&text).context("the plan is not readable")?;
    let orphaned = Arc::new(AtomicBool::new(false));
    wait_for_go(&orphaned)?;
    prepare(&plan)?;
    let mut supervisor = Supervisor { plan, running: HashMap::new(), not_before: HashMap::new() };
    while !orphaned.load(Ordering::Relaxed) {
        supervisor.reap()?;
        supervisor.start_missing()?;
        std::thread::sleep(TICK);
    }
    eprintln!("the process that started this cluster ended: ending too");
    Ok(())
}

/// Waits for the first line, then watches the input: its end before [`STAY`] means that the starter died.
fn wait_for_go(orphaned: &Arc<AtomicBool>) -> Result<()> {
    let mut lines = BufReader::new(std::io::stdin()).lines();
    match lines.next() {
        Some(Ok(line)) if line == GO => {}
        other => bail!("not told to start, but {other:?}"),
    }
    let orphaned = Arc::clone(orphaned);
    std::thread::spawn(move || {
        if !lines.next().is_some_and(|line| line.is_ok_and(|line| line == STAY)) {
            orphaned.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn prepare(plan: &Plan) -> Result<()> {
    for (ours, theirs) in &plan.binds {
        mount_bind(ours, theirs).with_context(|| format!("cannot mount over {}", theirs.display()))?;
    }
    for (name, value) in SYSCTLS {
        let real = Path::new("/proc/sys").join(name);
        let fake = plan.state.join("cfg").join(format!("sysctl-{}", name.replace('/', "-")));
        fs::write(&fake, format!("{value}\n")).with_context(|| format!("cannot write {}", fake.display()))?;
        if real.exists() {
            mount_bind(&fake, &real).with_context(|| format!("cannot mount over {}", real.display()))?;
        }
    }
    ip(&["link", "set", "lo", "up"])?;
    ip(&["addr", "add", &plan.address, "dev", INSIDE])?;
    ip(&["link", "set", INSIDE, "up"])?;
    ip(&["route", "add", "default", "via", &plan.gateway])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")
}

struct Supervisor {
    plan: Plan,
    /// Component by its pid in here.
    running: HashMap<i32, String>,
    not_before: HashMap<String, Instant>,
}

impl Supervisor {
    /// Collects every ended process, also the orphans that containers leave to process 1.
    fn reap(&mut self) -> Result<()> {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("cannot wait for processes"),
            };
            if let Some(name) = self.running.remove(&pid.as_raw_nonzero().get()) {
                eprintln!("{name} ended: {status:?}");
                self.not_before.insert(name.clone(), Instant::now() + RESPAWN_PAUSE);
                // The file may be gone with a state folder that is being removed.
                drop(fs::remove_file(self.run_file(&name, "pid")));
            }
        }
    }

    fn start_missing(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<Spec> = self
            .plan
            .components
            .iter()
            .filter(|spec| !self.running.values().any(|name| *name == spec.name))
            .filter(|spec| self.not_before.get(&spec.name).is_none_or(|time| *time <= now))
            .filter(|spec| !self.run_file(&spec.name, "hold").exists())
            .cloned()
            .collect();
        for spec in due {
            let pid = self.start(&spec)?;
            self.running.insert(pid, spec.name);
        }
        Ok(())
    }

    fn start(&self, spec: &Spec) -> Result<i32> {
        let Some((program, args)) = spec.command.split_first() else { bail!("{} has no command", spec.name) };
        let log = self.log(&spec.name)?;
        let child = Command::new(program)
            .args(args)
            .current_dir(&self.plan.state)
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/root")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        // Not waited for through `child`: `reap` collects all processes alike.
        let pid = child.id();
        let partial = self.run_file(&spec.name, "pid.new");
        fs::write(&partial, pid.to_string()).context("cannot write a pid file")?;
        fs::rename(&partial, self.run_file(&spec.name, "pid")).context("cannot write a pid file")?;
        i32::try_from(pid).context("a pid out of range")
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.plan.state.join("log").join(format!("{name}.log"));
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn run_file(&self, name: &str, kind: &str) -> PathBuf {
        self.plan.state.join("run").join(format!("{name}.{kind}"))
    }
}
