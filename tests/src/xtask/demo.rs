//! What `up` shows: the primary is lost twice and moved back once, each time with the time to the next write.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::drill::{self, Drill, Run};
use crate::product::{Ask, End, NAME, PodDrills, Product};
use crate::progress::Progress;
use crate::testbed::Cluster;

/// The operator's word comes within a second or two.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);

/// Shows all that can be shown there.
pub(super) fn run(product: &Product, testbed: Option<&Cluster>, progress: &Progress) -> Result<()> {
    if product.voters() < 3 || product.gateways < 2 {
        progress.line("no majority without the primary, or nobody to take over: the drills are left out");
        return Ok(());
    }
    let (first, _) = product.primary()?;
    if testbed.is_some() {
        one(product, testbed, Show::Kill, progress)?;
    } else {
        progress.line("left out: kill -9 of the primary's process, which cannot be reached in this Kubernetes");
    }
    one(product, testbed, Show::ForceDelete, progress)?;
    let (now, _) = product.primary()?;
    let other = || product.gateway_names().into_iter().find(|name| *name != now);
    // Back to where it was; if it is there again already, to another one.
    let to = if first == now { other().context("no other gateway")? } else { first };
    one(product, testbed, Show::Failback(to.clone()), progress)?;
    let resource = product.wait_resource("moved back", STATUS_TIMEOUT, |resource| {
        let last = &resource["status"]["primary"]["lastTransition"];
        last["to"] == json!(to) && last["reason"] == "Failback" && last["result"] == "Succeeded"
    })?;
    progress.line(format!("status.primary.lastTransition: {}", resource["status"]["primary"]["lastTransition"]));
    for message in product.events("SwitchoverCompleted")? {
        progress.line(format!("event SwitchoverCompleted: {message}"));
    }
    product.wait_ready(progress).map(drop)
}

enum Show {
    Kill,
    ForceDelete,
    Failback(String),
}

fn one(product: &Product, testbed: Option<&Cluster>, show: Show, progress: &Progress) -> Result<()> {
    let (old, _) = product.primary()?;
    let mut drills = PodDrills::new(product, testbed);
    let (what, drill) = match show {
        Show::Kill => ("kill -9 of the primary's process in its pod".to_owned(), Drill::Kill9),
        Show::ForceDelete => {
            drills.end = End::ForceDeleted;
            (format!("kubectl delete pod {old} --force --grace-period=0"), Drill::Sigterm)
        }
        Show::Failback(to) => {
            let patch = drills.patch(&to)?;
            (drills.ask, drills.successor) = (Ask::Patch, Some(to));
            (format!("kubectl patch aisc {NAME} --type merge -p '{patch}'"), Drill::Planned)
        }
    };
    let Run { took, epoch } = drill::run(&mut drills, drill, None).with_context(|| product.diagnosis())?;
    let (new, _) = product.primary()?;
    progress.line(format!(
        "{what}: {:.0} ms to the next committed bucket create ({old} -> {new}, epoch {epoch})",
        took.as_secs_f64() * 1000.0
    ));
    Ok(())
}
