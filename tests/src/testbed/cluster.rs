//! Bringing a cluster up and down.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::components::{self, Component};
use super::helm::Helm;
use super::init::{GO, Plan, STAY, SUBCOMMAND};
use super::kubectl::{Kubectl, condition};
use super::layout::{Layout, NODE, PRIVATE};
use super::lease::{Lease, Record, plan_file};
use super::process::HostProcess;
use super::{Binaries, audit, cgroup, config, packages, pause, pki};
use crate::cmd::{Cmd, wait_child};
use crate::progress::Progress;
use crate::wait::Wait;

/// Each step of the start has this long; a whole start takes a few seconds.
const STEP: Duration = Duration::from_secs(60);

/// When set, dropping a cluster keeps its state folder, with the logs; a panic does that in any case.
const KEEP: &str = "AIS_TESTBED_KEEP";

/// A running test Kubernetes. Dropping it takes it down, unless it was left running with [`Cluster::detach`].
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    binaries: Binaries,
    progress: Progress,
    lease: Option<Lease>,
    init: HostProcess,
    /// Only the process that started the cluster has these.
    starter: Option<Starter>,
}

#[derive(Debug)]
struct Starter {
    child: Child,
    /// Closing it ends the cluster: so it does not outlive a killed test run.
    line: ChildStdin,
}

impl Cluster {
    /// Brings cluster `number` up from whatever is in the state folder (nothing, or an earlier life's data), after
    /// building and installing what is missing and removing what an earlier crash left under the same number.
    pub fn up(number: u8, state: &Path, progress: &Progress) -> Result<Self> {
        let layout = Layout::new(number, state)?;
        if !rustix::process::geteuid().is_root() {
            bail!("the test Kubernetes makes namespaces, interfaces and mounts: only root can");
        }
        packages::ensure(progress)?;
        let binaries = Binaries::ensure(progress)?;
        let lease = Lease::take(&layout)?;
        sweep(&layout)?;
        layout.network.check_free()?;
        layout.network.block()?;
        match start(&layout, &binaries, progress) {
            Ok((init, starter)) => {
                let mut cluster = Self {
                    layout,
                    binaries,
                    progress: progress.clone(),
                    lease: Some(lease),
                    init,
                    starter: Some(starter),
                };
                if let Err(error) = cluster.finish_start() {
                    let logs = cluster.layout.text("log");
                    cluster.abandon();
                    return Err(error.context(format!("the test Kubernetes did not start; its logs: {logs}")));
                }
                Ok(cluster)
            }
            Err(error) => {
                drop(clear(&layout));
                Err(error)
            }
        }
    }

    /// The same from nothing: an earlier life's data is removed first.
    pub fn up_fresh(number: u8, state: &Path, progress: &Progress) -> Result<Self> {
        Self::remove(number, state)?;
        Self::up(number, state, progress)
    }

    /// Takes over cluster `number` when it runs; `None` when it does not.
    pub fn attach(number: u8, state: &Path, progress: &Progress) -> Result<Option<Self>> {
        let layout = Layout::new(number, state)?;
        let Some(record) = Record::read(&layout).filter(|record| record.state == layout.state) else {
            return Ok(None);
        };
        let Some(init) = record.process() else {
            return Ok(None);
        };
        let binaries = Binaries::ensure(progress)?;
        let lease = Some(Lease::take(&layout)?);
        Ok(Some(Self { layout, binaries, progress: progress.clone(), lease, init, starter: None }))
    }

    /// Leaves it running after this process.
    pub fn detach(mut self) -> Result<()> {
        if let Some(mut starter) = self.starter.take() {
            writeln!(starter.line, "{STAY}").context("the cluster's first process is gone")?;
        }
        // Without its lease, dropping does nothing.
        self.lease = None;
        Ok(())
    }

    /// Ends it and removes everything it made. Nothing may dial its addresses afterwards: until now they led nowhere,
    /// from here on they would leave the machine.
    pub fn down(mut self) -> Result<()> {
        self.stop()?;
        remove_all(&self.layout, self.lease.take())
    }

    /// Ends it without warning and keeps its data for a later [`Cluster::up`].
    pub fn halt(mut self) -> Result<()> {
        self.stop()?;
        self.lease = None;
        Ok(())
    }

    /// Ends it without warning and starts it again with its data: a reboot of the node.
    pub fn reboot(&mut self) -> Result<()> {
        self.stop()?;
        let (init, starter) = start(&self.layout, &self.binaries, &self.progress)?;
        (self.init, self.starter) = (init, Some(starter));
        self.finish_start()
    }

    /// Ends and removes whatever is left of cluster `number`, running or not.
    pub fn remove(number: u8, state: &Path) -> Result<()> {
        let layout = Layout::new(number, state)?;
        let lease = Lease::take(&layout)?;
        sweep(&layout)?;
        remove_all(&layout, Some(lease))
    }

    /// What of cluster `number` is still on the machine; nothing after [`Cluster::down`].
    pub fn leftovers(number: u8, state: &Path) -> Result<Vec<String>> {
        let layout = Layout::new(number, state)?;
        let mut found = Vec::new();
        if layout.network.has_link() {
            found.push(format!("interface {}", layout.network.link()));
        }
        if layout.network.is_blocked()? {
            found.push(format!("route to {}", layout.network.range()));
        }
        if cgroup::exists(&layout.cgroup())? {
            found.push(format!("cgroup {}", layout.cgroup()));
        }
        for path in [layout.state.clone(), layout.runtime(), layout.lock()] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let text = layout.state.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?;
        found.extend(mounts.lines().filter(|line| line.contains(&text)).map(|line| format!("mount {line}")));
        for pid in super::process::all_pids()? {
            let args = super::process::command_line(pid).unwrap_or_default();
            if args.iter().any(|arg| arg.contains(&text)) {
                found.push(format!("process {pid} {}", args.join(" ")));
            }
        }
        Ok(found)
    }

    /// The paths and addresses.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Process 1 of the cluster's namespaces.
    pub fn init(&self) -> &HostProcess {
        &self.init
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The built programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// `kubectl` as administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.binaries.kubectl(), self.kubeconfig())
    }

    /// `helm` as administrator.
    pub fn helm(&self) -> Helm {
        Helm::new(self.binaries.helm(), &self.kubectl(), self.layout.path("helm"))
    }

    /// One of [`components::ALL`], to be disturbed.
    pub fn component<'a>(&'a self, name: &'a str) -> Result<Component<'a>> {
        Component::new(&self.layout, self.init.pid(), name)
    }

    /// What service accounts asked of the API server so far, Kubernetes' own left out.
    pub fn audited(&self) -> Result<Vec<audit::Request>> {
        audit::read(&self.layout.path(components::AUDIT_LOG))
    }

    /// Gives the node the images of a docker archive.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        import(&self.layout, archive)
    }

    fn stop(&mut self) -> Result<()> {
        end(&self.init)?;
        if let Some(mut starter) = self.starter.take() {
            drop(starter.line);
            wait_child(&mut starter.child, Duration::from_secs(10))?.context("`unshare` did not end with its child")?;
        }
        clear(&self.layout)
    }

    /// From the first process running to a node that takes pods.
    fn finish_start(&self) -> Result<()> {
        let (layout, progress, kubectl) = (&self.layout, &self.progress, self.kubectl());
        layout.network.make_routes()?;
        let alive = || self.check_alive();
        std::thread::scope(|scope| {
            let images = scope.spawn(|| self.import_first_images());
            let api = SocketAddr::from((layout.network.node_ip(), 6443));
            Wait::new("the API server", STEP).unless(alive).until(|| {
                // A connection is tried first because it costs nothing.
                drop(TcpStream::connect_timeout(&api, Duration::from_millis(200))?);
                Ok((kubectl.raw("/readyz")? == "ok").then_some(()))
            })?;
            progress.line("API server ready");
            for name in components::NEED_API {
                self.component(name)?.release()?;
            }
            kubectl.apply(config::BOOTSTRAP)?;
            match images.join() {
                Ok(imported) => imported,
                Err(_) => bail!("importing the first image panicked"),
            }
        })?;
        // A rebooted node still says "Ready" of its former life: only what the kubelet reports from now on counts.
        let node = format!("node/{NODE}");
        let former = kubectl.try_get(&node)?.as_ref().and_then(heartbeat);
        self.component(components::KUBELET)?.release()?;
        Wait::new("the node to be Ready", STEP).unless(alive).until(|| {
            let Some(node) = kubectl.try_get(&node)? else {
                return Ok(None);
            };
            Ok((condition(&node, "Ready") == Some("True") && heartbeat(&node) != former).then_some(()))
        })?;
        progress.line("node Ready");
        Wait::new("the default service account", STEP)
            .unless(alive)
            .until(|| kubectl.in_namespace("default").try_get("serviceaccount/default"))?;
        progress.line(format!("test Kubernetes {} is up", layout.number));
        Ok(())
    }

    fn import_first_images(&self) -> Result<()> {
        let archive = pause::archive()?;
        let socket = self.layout.containerd_socket();
        Wait::new("containerd", STEP).every(Duration::from_millis(50)).unless(|| self.check_alive()).until(|| {
            drop(UnixStream::connect(&socket)?);
            Ok(Some(()))
        })?;
        import(&self.layout, &archive)
    }

    fn check_alive(&self) -> Result<()> {
        if self.init.has_ended() {
            let log = fs::read_to_string(self.layout.path("log/init.log")).unwrap_or_default();
            bail!("the cluster's first process ended: {}", crate::cmd::tail(log.trim()));
        }
        Ok(())
    }
}

impl Cluster {
    /// Ends it, but keeps its state folder: somebody will want to read the logs.
    fn abandon(&mut self) {
        if let Err(error) = self.stop() {
            self.progress.line(format!("taking the test Kubernetes down failed: {error:#}"));
        }
        self.lease = None;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let keep = std::thread::panicking() || std::env::var_os(KEEP).is_some();
        if self.lease.is_some() && keep {
            self.progress.line(format!("kept for reading: {}", self.layout.text("log")));
            self.abandon();
        }
        if self.lease.is_some()
            && let Err(error) = self.stop().and_then(|()| remove_all(&self.layout, self.lease.take()))
        {
            self.progress.line(format!("taking the test Kubernetes down failed: {error:#}"));
        }
    }
}

/// Starts the first process with its namespaces and its link to the host; the components that need more are held.
fn start(layout: &Layout, binaries: &Binaries, progress: &Progress) -> Result<(HostProcess, Starter)> {
    layout.make_folders()?;
    pki::ensure(&layout.path("pki"), layout.network, NODE)?;
    config::write(layout)?;
    cgroup::make(&layout.cgroup())?;
    let plan = Plan {
        state: layout.state.clone(),
        binds: PRIVATE.iter().map(|dir| (layout.private(dir), PathBuf::from(dir))).collect(),
        address: format!("{}/30", layout.network.node_ip()),
        gateway: layout.network.host_ip().to_string(),
        components: components::specs(layout, binaries)?,
    };
    let plan_path = plan_file(&layout.state);
    fs::write(&plan_path, serde_json::to_vec_pretty(&plan)?).context("cannot write the plan")?;
    for name in components::NEED_API.iter().chain([&components::KUBELET]) {
        fs::write(layout.hold_file(name), "").with_context(|| format!("cannot hold {name}"))?;
    }

    let log =
        File::options().create(true).append(true).open(layout.path("log/init.log")).context("cannot write init.log")?;
    let mut child = Command::new("setsid")
        .args(["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--propagation", "private"])
        .arg(own_program()?)
        .arg(SUBCOMMAND)
        .arg(&plan_path)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().context("cannot share init.log")?)
        .stderr(log)
        .spawn()
        .context("cannot start `setsid unshare`")?;
    match link(layout, &mut child) {
        Ok((init, line)) => {
            progress.line("namespaces and link ready, certificates and configuration written");
            Ok((init, Starter { child, line }))
        }
        Err(error) => {
            // Its child ends by itself when its input does.
            drop(child.stdin.take());
            drop(wait_child(&mut child, Duration::from_secs(5)));
            Err(error)
        }
    }
}

/// Finds the first process, records it, joins it to the host and tells it to go on.
fn link(layout: &Layout, child: &mut Child) -> Result<(HostProcess, ChildStdin)> {
    let unshare = child.id();
    let program = SUBCOMMAND.to_owned();
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let init: u32 =
        Wait::new("the first process", Duration::from_secs(10)).every(Duration::from_millis(5)).until(|| {
            let Some(pid) = fs::read_to_string(&children)?.split_whitespace().next().and_then(|pid| pid.parse().ok())
            else {
                return Ok(None);
            };
            // Until it has become our program, its pid is not what the record will be checked against.
            Ok(super::process::command_line(pid)
                .is_some_and(|args| args.contains(&program) && !args.contains(&"--fork".into()))
                .then_some(pid))
        })?;
    Record { init, state: layout.state.clone() }.write(layout)?;
    let process = HostProcess::open(init)?;
    layout.network.make_link(init)?;
    let mut line = child.stdin.take().context("no pipe to the first process")?;
    writeln!(line, "{GO}").context("the first process is gone")?;
    Ok((process, line))
}

/// The program that has the hidden subcommand: this one, or `xtask` beside a test program.
fn own_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    if own.file_stem().is_some_and(|name| name == "xtask") {
        return Ok(own);
    }
    own.ancestors().skip(1).take(2).map(|dir| dir.join("xtask")).find(|path| path.is_file()).with_context(|| {
        format!("there is no `xtask` near {}: build it with `cargo build --release -p ais-tests`", own.display())
    })
}

/// Ends what an earlier life left under this number.
fn sweep(layout: &Layout) -> Result<()> {
    if let Some(record) = Record::read(layout)
        && let Some(process) = record.process()
    {
        end(&process)?;
    }
    clear(layout)
}

/// Ends the first process; the kernel takes all others of its namespaces along before this returns.
fn end(init: &HostProcess) -> Result<()> {
    if !init.has_ended() {
        // It may end just now by itself.
        drop(init.kill());
    }
    init.wait_end(Duration::from_secs(20))
}

/// Removes what is left outside the state folder when all processes are gone, and what must not survive a reboot.
fn clear(layout: &Layout) -> Result<()> {
    layout.network.remove_link()?;
    unmount_below(&layout.state)?;
    cgroup::remove(&layout.cgroup())?;
    for dir in [layout.path("run"), layout.runtime()] {
        remove_dir(&dir)?;
    }
    Ok(())
}

fn remove_all(layout: &Layout, lease: Option<Lease>) -> Result<()> {
    if layout.is_state() {
        remove_dir(&layout.state)?;
    }
    layout.network.unblock();
    if let Some(lease) = lease {
        lease.remove();
    }
    Ok(())
}

/// There should be no mount of ours outside the namespaces; removing through one would reach somebody else's files.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?;
    for line in mounts.lines().rev() {
        if let Some(at) = line.split_whitespace().nth(1).filter(|at| Path::new(at).starts_with(dir)) {
            Cmd::new("umount").arg("--lazy").arg(at).run()?;
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn import(layout: &Layout, archive: &Path) -> Result<()> {
    Cmd::new(packages::find("ctr").context("ctr is not installed")?)
        .arg("--address")
        .arg(layout.containerd_socket())
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive)
        .timeout(Duration::from_secs(120))
        .run()
        .map(drop)
        .with_context(|| format!("cannot import {}", archive.display()))
}

/// When the kubelet last reported.
fn heartbeat(node: &serde_json::Value) -> Option<String> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    ready["lastHeartbeatTime"].as_str().map(str::to_owned)
}
