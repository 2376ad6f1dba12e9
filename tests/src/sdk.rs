//! AIStore's own Python SDK, unmodified, in a virtual environment of the harness.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cmd::{Cmd, tail, wait_child};
use crate::testbed::binaries::cache_dir;

/// Downloading and unpacking the package on a slow line.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// A Python with the SDK.
#[derive(Debug, Clone)]
pub struct Sdk {
    python: PathBuf,
    scripts: PathBuf,
    resolver: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl Sdk {
    /// Makes the environment unless it is there. It is keyed by the requirements, so another version is another one.
    pub fn ensure() -> Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk");
        let requirements = scripts.join("requirements.txt");
        let text = fs::read(&requirements).context("cannot read the SDK's requirements")?;
        let hash = Sha256::digest(&text).iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
        let venv = cache_dir()?.join(format!("sdk-{hash}"));
        let sdk = Self { python: venv.join("bin/python"), scripts, resolver: None, authorities: None };
        let complete = venv.join("complete");
        if complete.exists() && sdk.python.exists() {
            return Ok(sdk);
        }
        if venv.exists() {
            fs::remove_dir_all(&venv).context("cannot remove a half-made environment")?;
        }
        fs::create_dir_all(&venv)?;
        Cmd::new("python3")
            .args(["-m", "venv"])
            .arg(&venv)
            .timeout(INSTALL_TIMEOUT)
            .run()
            .context("no Python environment: `apt-get install python3-venv` brings what it needs")?;
        Cmd::new(&sdk.python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements)
            .timeout(INSTALL_TIMEOUT)
            .run()
            .context("cannot install the SDK")?;
        fs::write(&complete, "")?;
        Ok(sdk)
    }

    /// The same with names resolved as this file says: nodes in pods name each other by names of the cluster's DNS.
    #[must_use]
    pub fn with_resolver(&self, file: &Path) -> Self {
        Self { resolver: Some(file.to_owned()), ..self.clone() }
    }

    /// The same for https endpoints, whose certificates are verified with the authorities in this file.
    #[must_use]
    pub fn with_authorities(&self, file: &Path) -> Self {
        Self { authorities: Some(file.to_owned()), ..self.clone() }
    }

    /// The interpreter with its arguments, in a mount namespace of its own when it has names of its own.
    fn cmd(&self, script: &str, args: &[String]) -> Cmd {
        let cmd = match &self.resolver {
            Some(file) => Cmd::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c"])
                .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
                .arg(file)
                .arg(&self.python),
            None => Cmd::new(&self.python),
        };
        let cmd = cmd.arg(self.scripts.join(script)).args(args).env("PYTHONDONTWRITEBYTECODE", "1");
        match &self.authorities {
            // The other two would win over what the SDK was told.
            Some(file) => cmd.env("AIS_CLIENT_CA", file).env("REQUESTS_CA_BUNDLE", "").env("CURL_CA_BUNDLE", ""),
            None => cmd,
        }
    }

    /// The interpreter of the environment.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Runs a script of `tests/sdk/` to its end; its standard output.
    pub fn run(&self, script: &str, args: &[String], timeout: Duration) -> Result<String> {
        self.cmd(script, args).timeout(timeout).run()
    }

    /// Starts a script of `tests/sdk/` that works until its standard input ends.
    pub fn start(&self, script: &str, args: &[String], log: &Path) -> Result<Script> {
        let (out, err) = (log.with_extension("out"), log.with_extension("err"));
        let child = self
            .cmd(script, args)
            .to_command()
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&err)?)
            .spawn()
            .with_context(|| format!("cannot start {script}"))?;
        Ok(Script { child, out, err })
    }
}

/// A script at work.
#[derive(Debug)]
pub struct Script {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Script {
    /// What it printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Ends its input and waits for it; its standard output. Any exit code but 0 is an error.
    pub fn finish(mut self, timeout: Duration) -> Result<String> {
        drop(self.child.stdin.take());
        let status = wait_child(&mut self.child, timeout)?.context("the script does not end")?;
        let printed = self.printed();
        if !status.success() {
            let said = fs::read_to_string(&self.err).unwrap_or_default();
            bail!("the script ended with {status}: {} {}", tail(printed.trim()), tail(said.trim()));
        }
        Ok(printed)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
