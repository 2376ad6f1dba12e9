//! `ais-operator run | check | crd | status | failback | promote | refound`; linked as `kubectl-ais` it is a plugin.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use ais_operator::check;
use ais_operator::cli;
use ais_operator::controller::{self, Context};
use ais_operator::events::Teller;
use ais_operator::facts::Defaults;
use ais_operator::hub::Hub;
use ais_operator::lease::Lease;
use ais_operator::metrics::Metrics;
use ais_operator::perform::Caller;
use ais_operator::scope::Scope;
use ais_operator::server::{self, Ready};
use ais_operator::tenure::{self, Tenure, Terms};
use ais_operator::tls::Lifetimes;

/// How long passes that are under way may go on when the process ends: nobody acts meanwhile, and what they leave is
/// taken up as after a crash.
const LAST_PASSES: Duration = Duration::from_secs(3);
/// The same, of answers of its own HTTP servers.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Operator of AISCluster resources.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator.
    Run(Box<RunArgs>),
    /// Asks a running operator whether it is ready, and the API server whether it serves AISCluster.
    Check(CheckArgs),
    /// Prints the definition of the resource.
    Crd,
    /// What a person asks for.
    #[command(flatten)]
    Person(cli::Command),
}

#[derive(clap::Args)]
struct RunArgs {
    /// Namespaces to watch, separated by commas; none: all.
    #[arg(long, env = "AIS_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Image of nodes for clusters that name none.
    #[arg(long, env = "AIS_NODE_IMAGE")]
    node_image: String,
    /// DNS domain of Kubernetes.
    #[arg(long, env = "AIS_CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Seconds that certificates of clusters with spec.tls.mode SelfManaged hold. For tests: a rotation follows after
    /// two thirds of it.
    #[arg(long, env = "AIS_TLS_CERTIFICATE_SECONDS", default_value_t = Lifetimes::default().certificate_s,
        value_parser = clap::value_parser!(i64).range(30..=Lifetimes::MAX_S))]
    tls_certificate_seconds: i64,
    /// Seconds that their authorities hold: at least three times as long.
    #[arg(long, env = "AIS_TLS_AUTHORITY_SECONDS", default_value_t = Lifetimes::default().authority_s,
        value_parser = clap::value_parser!(i64).range(90..=Lifetimes::MAX_S))]
    tls_authority_seconds: i64,
    /// Address of /metrics.
    #[arg(long, env = "AIS_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "AIS_OPERATOR_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    health_listen: SocketAddr,
    /// Namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Namespace of the operator's pods, which network policies let in; empty: that of the lease.
    #[arg(long, env = "AIS_OPERATOR_NAMESPACE", default_value = "")]
    operator_namespace: String,
    /// Name of the lease.
    #[arg(long, env = "AIS_LEASE_NAME", default_value = "aiscluster-operator")]
    lease_name: String,
    /// Name of this instance, different from every other.
    #[arg(long, env = "POD_NAME")]
    identity: String,
    /// Form of the log.
    #[arg(long, env = "AIS_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// Levels, as `info` or `ais_operator=debug`.
    #[arg(long, env = "AIS_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Where the operator answers probes, such as `http://aiscluster-operator:8081`.
    #[arg(long)]
    url: String,
    /// How long to try, in seconds.
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

fn main() -> ExitCode {
    let result = match parse().command {
        Command::Crd => print_crd().map(|()| cli::DONE),
        Command::Run(args) => run(*args).map(|()| cli::DONE),
        Command::Check(args) => check(args).map(|()| cli::DONE),
        Command::Person(command) => ask(command),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ais-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As `kubectl ais` it shows only what a person asks for.
fn parse() -> Cli {
    let name = std::env::args_os().next().unwrap_or_default();
    let plugin = Path::new(&name).file_stem().is_some_and(|n| n == "kubectl-ais" || n == "kubectl_ais");
    let mut command = Cli::command();
    if plugin {
        command = command.bin_name("kubectl ais").mut_subcommands(|sub| {
            let hidden = ["run", "check", "crd"].contains(&sub.get_name());
            sub.hide(hidden)
        });
    }
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

#[tokio::main(flavor = "current_thread")]
async fn ask(command: cli::Command) -> anyhow::Result<u8> {
    cli::run(command).await
}

fn print_crd() -> anyhow::Result<()> {
    print!("{}", ais_crds::manifest()?);
    Ok(())
}

fn logging(args: &RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log_level).context("--log-level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

// One thread: the work is waiting, and memory is what counts.
#[tokio::main(flavor = "current_thread")]
async fn run(args: RunArgs) -> anyhow::Result<()> {
    logging(&args)?;
    let lifetimes = Lifetimes::new(args.tls_certificate_seconds, args.tls_authority_seconds);
    let lifetimes = lifetimes.map_err(anyhow::Error::msg)?;
    let config = Config::infer().await.context("no way to the API server")?;
    let lease_client = tenure::client(config.clone(), &Terms::default()).context("no way to the API server")?;
    let client = Client::try_from(config).context("no way to the API server")?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let stop = CancellationToken::new();
    let ready = Ready::default();
    let metrics_server = tokio::spawn(server::metrics(bind(args.listen).await?, registry, ready.clone(), stop.clone()));
    let health_server = tokio::spawn(server::health(bind(args.health_listen).await?, ready.clone(), stop.clone()));
    tokio::spawn(stop_on_signal(stop.clone()));

    let mut lease = Lease::compete(lease_client.clone(), &args.lease_namespace, &args.lease_name, &args.identity)
        .await
        .context("the lease")?;
    ready.set();
    tracing::info!(identity = args.identity, "waiting for the lease");
    tokio::select! {
        held = lease.acquired() => held?,
        () = stop.cancelled() => return Ok(()),
    }
    tracing::info!("holding the lease");
    metrics.leader(true);
    let tenure = Tenure::watch(lease_client, &args.lease_namespace, &args.lease_name, &args.identity, Terms::default());

    let (hub, triggers) = Hub::new();
    let own = Some(args.operator_namespace).filter(|n| !n.is_empty());
    let namespace = own.unwrap_or(args.lease_namespace);
    let ctx = Arc::new(Context::new(
        client.clone(),
        Defaults { image: args.node_image, domain: args.cluster_domain, namespace, lifetimes },
        Caller::http()?,
        hub,
        metrics.clone(),
        Teller::new(client, args.identity),
        tenure.clone(),
    ));
    let work = controller::run(ctx, Scope::new(args.watch_namespaces), triggers, stop.clone());
    let lost = tokio::select! {
        () = work => false,
        // Two must never act: no orderly end, the process goes.
        () = lease.lost() => true,
        () = tenure.ended() => true,
        // A pass that waits for somebody is over as in a crash; whoever comes next begins with what is there.
        () = stopped_for(&stop, LAST_PASSES) => false,
    };
    metrics.leader(false);
    anyhow::ensure!(!lost, "the lease was lost");
    lease.release().await;
    stop.cancel();
    let servers = async {
        for server in [metrics_server, health_server] {
            server.await.context("server")?.context("server")?;
        }
        anyhow::Ok(())
    };
    // Whoever still reads its answer then reads no more of it.
    tokio::time::timeout(LAST_ANSWERS, servers).await.unwrap_or(Ok(()))
}

async fn stopped_for(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

#[tokio::main(flavor = "current_thread")]
async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no way to the API server")?;
    let told = check::check(&client, &args.url, Duration::from_secs(args.timeout_s)).await?;
    println!("{told}");
    Ok(())
}

async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}
