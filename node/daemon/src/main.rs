//! `ais-node`: the node daemon.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ais_ha::Halt;
use ais_node::config::{self, Config, Flags, Surroundings};
use ais_node::handle::Handle;
use ais_node::http::{Listeners, Server};
use ais_node::metrics::Metrics;
use ais_node::{boot, inspect, keeper, logging, recover, status};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a broken invariant: not to be confused with a panic or a wrong configuration.
const BROKEN: u8 = 70;
/// Exit code of records that were set aside (EX_TEMPFAIL): whoever restarts failed processes is to restart it.
const AGAIN: u8 = 75;
/// How long an orderly stop may take beyond the drain.
const STOP_EXTRA: Duration = Duration::from_secs(4);
/// How long open HTTP requests may take once the core has stopped.
const HTTP_GRACE: Duration = Duration::from_millis(500);

#[derive(Parser)]
#[command(name = "ais-node", version, about = "A gateway or target of an AIStore cluster")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node.
    Run(Flags),
    /// Validate the configuration and print what it comes to.
    CheckConfig(Flags),
    /// Print the records of a stopped node. Never writes.
    Inspect(inspect::Options),
    /// Show how a cluster is. Exits with 0 when it is healthy, 1 when it is not, 2 when nobody could be asked.
    Status(status::Options),
    /// Tell a node to go on without a majority of voters that is lost for good.
    Recover(recover::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(flags) => run(&flags),
        Command::CheckConfig(flags) => {
            let (text, code) = config::check(&flags, &Surroundings::of_process(hostname()));
            if code == 0 {
                print!("{text}")
            } else {
                eprint!("{text}")
            }
            return ExitCode::from(code);
        }
        Command::Status(options) => ask(status::run(options)),
        Command::Recover(options) => ask(recover::run(&options)).and_then(|told| {
            print!("{}", told?);
            Ok(ExitCode::SUCCESS)
        }),
        Command::Inspect(options) => inspect::inspect(&options).map(|text| {
            print!("{text}");
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("ais-node: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs a command that asks other processes.
fn ask<T>(what: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(what))
}

fn hostname() -> Option<&'static str> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Once per process.
    (!name.is_empty()).then(|| &*name.leak())
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = match config::load(flags, &Surroundings::of_process(hostname())) {
        Ok(config) => Arc::new(config),
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::from(2));
        }
    };
    logging::init(config.log_format, &config.log_level).context("cannot start logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(serve(config))?;
    // A name server or a disk that hangs must not hold up the end of the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(code)
}

async fn serve(config: Arc<Config>) -> anyhow::Result<ExitCode> {
    let metrics = Arc::new(Metrics::new());
    config.keyring.follow(&tokio::runtime::Handle::current());
    if let Some(tls) = &config.tls {
        tls.follow(&tokio::runtime::Handle::current());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = boot::wait_while_removed(&config) => {}
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    }
    let listeners = Listeners::bind(&config).await.context("cannot listen for HTTP")?;
    let (handle, thread) = boot::start(&config, metrics.clone()).await?;
    let mountpaths = config.mountpaths.clone();
    let server = Server::start(listeners, handle.clone(), Arc::clone(&config), metrics)?;
    let halt = tokio::select! {
        halt = handle.halted() => halt,
        _ = terminate.recv() => stop(&handle, &config).await,
        _ = interrupt.recv() => stop(&handle, &config).await,
    };
    if let Halt::Broken(why) = &halt {
        // Nothing that this process says can be trusted any more: no grace for anybody.
        tracing::error!(%why, "an invariant is broken; ending");
        eprintln!("ais-node: broken invariant: {why}");
        return Ok(ExitCode::from(BROKEN));
    }
    if let Halt::Decommissioned { no_shutdown: true, .. } = &halt {
        tracing::warn!("decommissioned; this process stays until it is told to end, and serves nothing");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    server.stop(HTTP_GRACE).await;
    if let Halt::Decommissioned { rm_user_data: true, .. } = &halt {
        // This version keeps nothing else on data disks. The configuration is not ours to remove: it was given.
        keeper::forget(&mountpaths);
    }
    if thread.is_finished() && thread.join().is_err() {
        tracing::error!("the core's thread panicked");
    }
    if let Halt::SetAside(why) = &halt {
        tracing::error!(%why, "the records were set aside; the next start has a new disk id and joins");
        eprintln!("ais-node: this disk forgot what it acknowledged ({why}); start the node again: it joins anew");
        return Ok(ExitCode::from(AGAIN));
    }
    // Also after shutdown-node and decommission: done as asked. Whoever restarts ended processes in any case (a
    // StatefulSet) finds the node in maintenance, or joining as a new one.
    match &halt {
        Halt::Shutdown => tracing::warn!("shut down by the cluster; the place in it is kept"),
        Halt::Decommissioned { ended: Some(end), .. } => {
            let (cluster, stamp) = (&end.uuid, end.stamp);
            tracing::warn!(%cluster, %stamp, "the whole cluster was decommissioned; this node forgot it");
        }
        Halt::Decommissioned { .. } => tracing::warn!("decommissioned; the next start joins as a new node"),
        _ => tracing::info!("stopped"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops in order, within a bound: whoever sent the signal sends a harder one otherwise.
async fn stop(handle: &Handle, config: &Config) -> Halt {
    tracing::info!("stopping");
    handle.stop();
    let bound = Duration::from_millis(config.timers.drain_ms) + STOP_EXTRA;
    match tokio::time::timeout(bound, handle.halted()).await {
        Ok(halt) => halt,
        Err(_) => {
            tracing::warn!("not stopped in {} ms; ending anyway", bound.as_millis());
            Halt::Stopped
        }
    }
}
