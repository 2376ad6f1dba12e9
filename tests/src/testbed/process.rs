//! Processes inside a cluster's pid namespace, as the host sees them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process of the host, held by a descriptor: its pid cannot come to mean another one.
#[derive(Debug)]
pub struct HostProcess {
    pid: u32,
    fd: OwnedFd,
}

impl HostProcess {
    /// Takes hold of process `pid`.
    pub fn open(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a pid")?;
        let fd = pidfd_open(raw, PidfdFlags::empty()).with_context(|| format!("cannot take hold of process {pid}"))?;
        Ok(Self { pid, fd })
    }

    /// Its pid on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has ended.
    pub fn wait_end(&self, timeout: Duration) -> Result<()> {
        let timeout_left = Timespec::try_from(timeout).context("too long a time")?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout_left)).context("cannot wait for a process")? == 0 {
            bail!("process {} still runs after {timeout:.0?}", self.pid);
        }
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.wait_end(Duration::ZERO).is_ok()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.fd, signal).with_context(|| format!("cannot signal process {}", self.pid))
    }
}

/// The pid on the host of the process that is `inside` in the pid namespace whose first process is `init`.
pub fn host_pid(init: u32, inside: u32) -> Result<Option<u32>> {
    let Some(namespace) = pid_namespace(init) else {
        return Ok(None);
    };
    for pid in all_pids()? {
        if pid_namespace(pid).is_some_and(|other| other == namespace) && innermost_pid(pid) == Some(inside) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// All pids of the host.
pub fn all_pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The identity of a process' pid namespace; `None` when it is gone.
pub fn pid_namespace(pid: u32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// A process' pid in its innermost namespace.
pub fn innermost_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// A process' arguments; `None` when it is gone or is a kernel thread.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    let args: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|arg| !arg.is_empty())
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect();
    (!args.is_empty()).then_some(args)
}
