//! Running other programs with a deadline: no command of the harness may hang a test run.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How much of a program's standard error goes into an error message.
const ERROR_TAIL_BYTES: usize = 4000;
/// How much output of one program is kept; the rest is read and thrown away.
const OUTPUT_LIMIT_BYTES: u64 = 64 << 20;

/// One program to run, with its input and its time limit.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
}

/// What a finished program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Cmd {
    /// A program by path or by name on PATH, with a limit of 60 seconds.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            stdin: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Gives the program this on its standard input.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(input.into());
        self
    }

    /// Replaces the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program and its arguments on one line, for messages.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    /// Runs it and returns its standard output; anything but exit code 0 is an error that shows standard error.
    pub fn run(self) -> Result<String> {
        let line = self.line();
        let output = self.output()?;
        if !output.ok() {
            let shown = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
            bail!("`{line}` ended with {}: {}", describe(output.code), tail(shown.trim()));
        }
        Ok(output.stdout)
    }

    /// Runs it to its end, whatever its exit code. Past its time it is killed, which is an error.
    pub fn output(self) -> Result<Output> {
        let line = self.line();
        let mut child = self.spawn().with_context(|| format!("cannot start `{line}`"))?;
        if let Some(mut pipe) = child.stdin.take() {
            let input = self.stdin.unwrap_or_default();
            // A program that does not read its input must not block the harness; a broken pipe is its own business.
            std::thread::spawn(move || drop(pipe.write_all(&input)));
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let Some(status) = wait_child(&mut child, self.timeout)? else {
            // It may have ended in between; then there is nothing to kill.
            drop(child.kill());
            child.wait().with_context(|| format!("cannot end `{line}`"))?;
            let said = text(&stderr);
            bail!("`{line}` still ran after {:.0?}, killed: {}", self.timeout, tail(said.trim()));
        };
        Ok(Output { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) })
    }

    /// The same for a caller that handles the process itself, without input and time limit.
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = self.to_command();
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

/// Waits for a child until the time is over; `None` when it still runs then.
pub fn wait_child(child: &mut Child, timeout: Duration) -> Result<Option<std::process::ExitStatus>> {
    // Its end makes the descriptor readable; a child that was waited for already has none.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("not a pid")?;
    if let Ok(ended) = pidfd_open(pid, PidfdFlags::empty()) {
        let end = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).context("too long a wait")?;
            match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a child process"),
                Ok(_) => break,
            }
        }
    }
    child.try_wait().context("cannot wait for a child process")
}

/// The end of a text, cut at a character boundary.
pub fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(ERROR_TAIL_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

fn describe(code: Option<i32>) -> String {
    code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the output like its end does: what came before it is still worth showing.
            let _ = pipe.by_ref().take(OUTPUT_LIMIT_BYTES).read_to_end(&mut kept);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        drop(sender.send(kept));
    });
    receiver
}

/// Takes what was collected; a background process that inherited the pipe may keep it open, so not for ever.
fn text(output: &Receiver<Vec<u8>>) -> String {
    let bytes = output.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_input_and_failure_are_reported() {
        let out = Cmd::new("cat").stdin("hello").run().expect("cat runs");
        assert_eq!(out, "hello");
        let failed = Cmd::new("sh").args(["-c", "echo bad >&2; exit 3"]).run().expect_err("it fails");
        assert!(failed.to_string().contains("exit code 3: bad"), "{failed}");
    }

    #[test]
    fn a_program_past_its_time_is_killed() {
        let started = Instant::now();
        let error = Cmd::new("sleep").arg("30").timeout(Duration::from_millis(50)).run().expect_err("killed");
        assert!(error.to_string().contains("killed"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
