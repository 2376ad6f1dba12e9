//! One `ais-node` process.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use ais_meta::auth::Secret;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{self, View};
use crate::cmd::wait_child;
use crate::history::Watched;

/// The file in a node's folder that says how far its wall clock is ahead.
pub(super) const CLOCK: &str = "clock";

/// Gateway or target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AIStore's `proxy`.
    Gateway,
    /// Target.
    Target,
}

impl Kind {
    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Target => "target",
        }
    }
}

/// A node: its addresses, its files and, while it runs, its process.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// `host:port` of the AIStore API; with TLS its URL.
    pub public: String,
    /// `host:port` of member and operator calls; with TLS its URL.
    pub control: String,
    /// `host:port` of member-to-member frames.
    pub peer: String,
    /// Its folder: configuration, state, log.
    pub dir: PathBuf,
    /// How far its wall clock is ahead of the machine's, in milliseconds: signed calls carry the time.
    pub skew_ms: Arc<AtomicI64>,
    place: Place,
    tls: bool,
    secret: Secret,
    child: Option<Child>,
    stopped: bool,
}

/// Where a node listens.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Address.
    pub(super) host: IpAddr,
    /// Public, control, peer.
    pub(super) ports: [u16; 3],
    /// The file of its network namespace; none on loopback.
    pub(super) namespace: Option<PathBuf>,
}

fn addresses(place: &Place, tls: bool) -> [String; 3] {
    let [public, control, peer] = place.ports.map(|port| format!("{}:{port}", place.host));
    if tls { [format!("https://{public}"), format!("https://{control}"), peer] } else { [public, control, peer] }
}

impl Node {
    pub(super) fn new(id: String, kind: Kind, place: Place, dir: PathBuf, secret: Secret, tls: bool) -> Self {
        let [public, control, peer] = addresses(&place, tls);
        let skew_ms = Arc::default();
        Self { id, kind, public, control, peer, dir, skew_ms, place, tls, secret, child: None, stopped: false }
    }

    /// It listens elsewhere from its next start on.
    pub(super) fn move_to(&mut self, place: Place) {
        let [public, control, peer] = addresses(&place, self.tls);
        (self.public, self.control, self.peer, self.place) = (public, control, peer, place);
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.yaml")
    }

    /// Its log, of all its processes.
    pub fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// Where its disk is mounted, if it has one of its own.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// What it keeps.
    pub fn state_dir(&self) -> PathBuf {
        if self.disk().exists() { self.disk().join("state") } else { self.dir.join("state") }
    }

    /// Its public URL.
    pub fn url(&self) -> String {
        if self.tls { self.public.clone() } else { format!("http://{}", self.public) }
    }

    /// The pid, while there is a process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has a process that can answer.
    pub fn answers(&self) -> bool {
        self.child.is_some() && !self.stopped
    }

    /// Starts the process. In a session of its own it survives the harness and its terminal.
    pub fn start(&mut self, binary: &Path, env: &[(String, String)], own_session: bool) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.id);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log()).context("cannot open a node's log")?;
        let mut words = Vec::new();
        if own_session {
            words.push("setsid".into());
        }
        if let Some(file) = &self.place.namespace {
            // Both give way to what they start: the pid is the node's.
            words.extend(["nsenter".into(), format!("--net={}", file.display()).into()]);
        }
        words.push(binary.as_os_str().to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(&self.dir);
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        self.child = Some(child);
        self.stopped = false;
        Ok(())
    }

    /// An error when the process ended by itself; it shows the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("{} ended by itself ({status}); its log ends with: {}", self.id, self.log_tail());
        }
        Ok(())
    }

    /// `kill -9`; the moment just before it. The process is gone when this returns.
    pub fn kill9(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.signal(Signal::KILL)?;
        self.reap(Duration::from_secs(5))?;
        Ok(at)
    }

    /// `kill -9` without waiting; the moment just before it.
    pub fn kill9_now(&self) -> Result<Instant> {
        let at = Instant::now();
        self.signal(Signal::KILL)?;
        Ok(at)
    }

    /// SIGTERM without waiting; the moment just before it.
    pub fn sigterm(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.signal(Signal::TERM)?;
        Ok(at)
    }

    /// SIGTERM to one of several that end together.
    pub(super) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits for the end of a process that was told to end.
    pub fn reap(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else { bail!("{} does not run", self.id) };
        let Some(status) = wait_child(child, timeout)? else { bail!("{} still runs after {timeout:.0?}", self.id) };
        self.child = None;
        self.stopped = false;
        Ok(status)
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn sigstop(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.signal(Signal::STOP)?;
        self.stopped = true;
        Ok(at)
    }

    /// SIGCONT.
    pub fn sigcont(&mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.stopped = false;
        Ok(())
    }

    /// Forgets everything, as a replaced disk does. Only without a process.
    pub fn wipe(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} still runs", self.id);
        }
        fs::remove_dir_all(self.state_dir()).context("cannot wipe a node")
    }

    /// How it sees the cluster.
    pub fn view(&self) -> Result<View> {
        client::view_skewed(&self.control, &self.secret, self.skew_ms.load(Ordering::Relaxed))
    }

    /// Sets its wall clock so many seconds ahead of the machine's, at once and while it runs. Only with
    /// [`super::Spec::with_clocks`].
    pub fn step_clock(&self, seconds: i64) -> Result<()> {
        let (file, new) = (self.dir.join(CLOCK), self.dir.join("clock.new"));
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(&new, &file).context("cannot set a clock")?;
        self.skew_ms.store(1000 * seconds, Ordering::Relaxed);
        Ok(())
    }

    /// For the watcher of a drill.
    pub fn watched(&self) -> Watched {
        Watched { control: self.control.clone(), skew_ms: self.skew_ms.clone() }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Lets the process live on without the harness.
    pub(super) fn detach(&mut self) {
        self.child = None;
    }

    pub(super) fn write_config(&self, text: &str) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::write(self.config(), text)?;
        if !self.dir.join(CLOCK).exists() {
            self.step_clock(0)?;
        }
        File::options().create(true).append(true).open(self.log())?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.id))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a pid")?;
        // Our own child that was not waited for: the pid cannot mean another process.
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.id))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // It may have ended by itself; there is nobody to tell either way.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
