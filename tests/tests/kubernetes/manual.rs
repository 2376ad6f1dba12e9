//! What `docs/operations.md` says to do with pods, done.

use std::fs;

use ais_tests::product::{CONTAINER, NAME, Product};
use ais_tests::wait::Wait;
use ais_tests::xtask::root;
use anyhow::{Context, Result, ensure};

use crate::bed::{LONG, SOON};

/// The image that the manual's manifest names.
const IMAGE: &str = "REGISTRY/aiscluster:0.1.0";

/// Commands in a running pod, whose image has nothing but the programs.
pub(crate) fn commands_in_pods(product: &Product) -> Result<()> {
    let ask = |pod: &str, command: &[&str]| product.kubectl.exec(pod, CONTAINER, command);
    let gateway = format!("{NAME}-gateway-0");
    Wait::new("status in a pod", SOON).until(|| {
        let told = ask(&gateway, &["/ais-node", "status", "http://localhost:51080"])?;
        Ok(told.contains(&gateway).then_some(()))
    })?;
    for pod in [&gateway, &format!("{NAME}-target-0")] {
        let told = ask(pod, &["/ais-node", "recover", "http://localhost:51082"])?;
        ensure!(told.starts_with("accepted  0.") && told.contains(pod), "{pod} tells: {told}");
    }
    Ok(())
}

/// The records of a stopped node, by the manual's own manifest.
pub(crate) fn records_of_a_stopped_node(product: &Product) -> Result<String> {
    let manual = fs::read_to_string(root().join("docs/operations.md"))?;
    let manifest = manual.split("kubectl apply -f - <<'END'\n").nth(1).and_then(|rest| rest.split("    END\n").next());
    let manifest = manifest.context("the manual has no manifest")?;
    ensure!(manifest.contains(IMAGE) && manifest.contains(&format!("state-{NAME}-gateway-0")), "{manifest}");
    let lines = manifest.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    let manifest = lines.collect::<Vec<_>>().join("\n").replace(IMAGE, &product.image);
    product.kubectl.apply(&manifest)?;
    product.kubectl.wait_for("pod/inspect", "done", LONG, |pod| pod["status"]["phase"] == "Succeeded")?;
    let told = product.kubectl.logs("inspect", "inspect")?;
    product.kubectl.delete("pod/inspect", LONG)?;
    let accepted = told.lines().find(|line| line.starts_with("accepted  0."));
    Ok(accepted.with_context(|| format!("inspect prints: {told}"))?.to_owned())
}
