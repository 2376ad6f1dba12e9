//! `cargo xtask up`: the newcomer's first command.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::demo;
use crate::product::{self, NAME, NAMESPACE, OPERATOR_NAMESPACE, Product, RELEASE};
use crate::progress::Progress;
use crate::sdk::Sdk;
use crate::testbed::{Binaries, Cluster, Helm, Kubectl, packages};

/// The test Kubernetes of `up`: its addresses are 10.103.0.0/16.
const NUMBER: u8 = 103;
const SDK_TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `cargo xtask up`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Processes on this machine instead of a Kubernetes
    #[arg(long)]
    pub local: bool,
    /// How many gateways
    #[arg(long, default_value_t = 3)]
    pub gateways: u32,
    /// How many targets
    #[arg(long, default_value_t = 3)]
    pub targets: u32,
    /// A context of your own kubeconfig: use that cluster (it is touched only when named here)
    #[arg(long, requires = "image", conflicts_with = "local")]
    pub context: Option<String>,
    /// The image to run there
    #[arg(long, requires = "context")]
    pub image: Option<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (gateways, targets) = (arguments.gateways as usize, arguments.targets as usize);
    if arguments.local {
        return super::local::up(gateways, targets);
    }
    if gateways == 0 || targets == 0 {
        bail!("an AISCluster has at least one gateway and one target");
    }
    let progress = Progress::new("up");
    match (&arguments.context, &arguments.image) {
        (Some(context), Some(image)) => elsewhere(context, image, gateways, targets, &progress),
        _ => own(gateways, targets, &progress),
    }
}

/// Where the test Kubernetes of `up` keeps its state.
pub(super) fn state() -> PathBuf {
    super::state_dir().join("up")
}

/// The test Kubernetes of `up`, if it runs.
pub(super) fn attach(progress: &Progress) -> Result<Option<Cluster>> {
    Cluster::attach(NUMBER, &state(), progress)
}

/// Removes what is left of it, running or not.
pub(super) fn remove() -> Result<()> {
    Cluster::remove(NUMBER, &state())
}

fn own(gateways: usize, targets: usize, progress: &Progress) -> Result<()> {
    if let Some(testbed) = attach(progress)? {
        let product = Product::in_testbed(&testbed, gateways, targets);
        let resource = product.kubectl.try_get(&format!("aisc/{NAME}")).ok().flatten();
        if resource.is_some_and(|resource| is_ready(&resource)) {
            progress.line("it is up already and stays as it is; `cargo xtask down` first for a new one");
            explain(&product, Some(&testbed))?;
            return testbed.detach();
        }
        progress.line("it runs, but is not Ready: an earlier `up` did not end; its steps are repeated");
        return finish(testbed, &product, progress);
    }
    let programs = product::binaries(progress)?;
    progress.line("a Kubernetes of its own: one node, from pinned sources");
    let testbed = Cluster::up(NUMBER, &state(), progress)?;
    let product = Product::in_testbed(&testbed, gateways, targets);
    progress.line(format!("the image {}", product.image));
    product::import(&testbed, &programs)?;
    finish(testbed, &product, progress)
}

/// All from the operator on; each step may have been done before.
fn finish(testbed: Cluster, product: &Product, progress: &Progress) -> Result<()> {
    let offered = testbed.kubectl().list("persistentvolumes", None)?.len();
    testbed.create_volumes(product.volumes().saturating_sub(offered), product::VOLUME_GIB)?;
    install(product, Some(&testbed), progress)?;
    demo::run(product, Some(&testbed), progress)?;
    explain(product, Some(&testbed))?;
    testbed.detach()
}

/// In a Kubernetes of the user's, named by the user.
fn elsewhere(context: &str, image: &str, gateways: usize, targets: usize, progress: &Progress) -> Result<()> {
    let (kubectl, helm) = tools(context, progress)?;
    progress.line(format!("context {context}: {}", kubectl.run(&["version"])?.replace('\n', ", ")));
    let product = Product::elsewhere(kubectl, helm, image, gateways, targets);
    install(&product, None, progress)?;
    demo::run(&product, None, progress)?;
    explain(&product, None)
}

/// The user's own `kubectl` and `helm`; those that are missing are built as for the test Kubernetes.
pub(super) fn tools(context: &str, progress: &Progress) -> Result<(Kubectl, Helm)> {
    let on_path = |name: &str| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
    };
    let (kubectl, helm) = match (on_path("kubectl"), on_path("helm")) {
        (Some(kubectl), Some(helm)) => (kubectl, helm),
        (kubectl, helm) => {
            packages::ensure(progress)?;
            let built = Binaries::ensure(progress)?;
            (kubectl.unwrap_or_else(|| built.kubectl()), helm.unwrap_or_else(|| built.helm()))
        }
    };
    let kubectl = Kubectl::for_context(kubectl, context);
    let helm = Helm::new(helm, &kubectl, super::state_dir().join("helm"));
    Ok((kubectl, helm))
}

/// Operator, resource, Ready, and a bucket.
fn install(product: &Product, testbed: Option<&Cluster>, progress: &Progress) -> Result<()> {
    progress.line(format!(
        "helm upgrade --install {RELEASE} charts/aiscluster-operator --namespace {OPERATOR_NAMESPACE} (image {})",
        product.image
    ));
    product.install_operator()?;
    product.make_namespace()?;
    progress.line(format!("kubectl apply --namespace {NAMESPACE}:\n\n{}", product.manifest()));
    product.kubectl.apply(&product.manifest())?;
    product.wait_ready(progress)?;
    let sdk = Sdk::ensure()?;
    let endpoints: Vec<String> =
        product.ready_gateways()?.into_iter().map(|(_, address)| format!("http://{address}")).collect();
    let first = endpoints.first().context("no gateway is ready")?.clone();
    if let Some(testbed) = testbed {
        progress.line("the unmodified aistore package from PyPI, through every gateway");
        let args: Vec<String> = std::iter::once(format!("up-{}", std::process::id())).chain(endpoints).collect();
        let resolving = sdk.with_resolver(&product::resolver(testbed)?);
        let told = resolving.run("metadata.py", &args, SDK_TIMEOUT)?;
        progress.line(format!("buckets made, seen, removed: {}", told.trim()));
    } else {
        progress.line("left out: the SDK's calls that need the names of that cluster's DNS");
    }
    let told = sdk.run("bucket.py", &["hello".to_owned(), first], SDK_TIMEOUT)?;
    progress.line(format!("a bucket made by the SDK, which stays: {}", told.trim()));
    Ok(())
}

fn is_ready(resource: &Value) -> bool {
    product::condition(resource, "Ready").is_some_and(|ready| ready.status == "True")
}

fn explain(product: &Product, testbed: Option<&Cluster>) -> Result<()> {
    println!("\n{}", product.kubectl.run(&["get", "aisc", "-o", "wide"])?.trim());
    println!("{}", product.kubectl.run(&["get", "pods", "-o", "wide", "-L", "aiscluster.dev/role"])?.trim());
    println!("\nThe cluster is left running. To look at it:");
    let kubectl = match testbed {
        Some(testbed) => {
            println!("  export KUBECONFIG={}", testbed.kubeconfig().display());
            product.kubectl.program().display().to_string()
        }
        None => format!("kubectl --context {}", product.kubectl.context().unwrap_or_default()),
    };
    println!("  {kubectl} -n {NAMESPACE} get aisc -w");
    println!("  {kubectl} -n {NAMESPACE} describe aisc {NAME}");
    println!("  {kubectl} -n {NAMESPACE} logs {NAME}-gateway-0");
    println!("  {kubectl} -n {OPERATOR_NAMESPACE} logs deployment/{RELEASE}");
    let current = product.resource()?["status"]["primary"]["current"].clone();
    let other = product.gateway_names().into_iter().find(|name| current != name.as_str()).unwrap_or_default();
    println!("Move the primary to another gateway:");
    println!(
        "  {kubectl} -n {NAMESPACE} patch aisc {NAME} --type merge -p '{{\"spec\":{{\"primary\":{{\"preferred\":[\"{other}\"]}}}}}}'"
    );
    let endpoint = if testbed.is_some() {
        let service = product.kubectl.get(&format!("service/{NAME}"))?;
        let ip = service["spec"]["clusterIP"].as_str().context("the Service has no address")?.to_owned();
        format!("http://{ip}:{}", product::PORT_PUBLIC)
    } else {
        println!("The SDK, from here, beside this:");
        println!("  {kubectl} -n {NAMESPACE} port-forward service/{NAME} {0}:{0}", product::PORT_PUBLIC);
        format!("http://127.0.0.1:{}", product::PORT_PUBLIC)
    };
    println!("The SDK at {endpoint}:");
    let python = Sdk::ensure()?.python().display().to_string();
    println!("  {python} -c \"from aistore import Client; print(Client('{endpoint}').cluster().get_info())\"");
    match testbed {
        Some(_) => println!("`cargo xtask down` removes every trace."),
        None => println!("`cargo xtask down --context {}` removes it.", product.kubectl.context().unwrap_or_default()),
    }
    Ok(())
}
