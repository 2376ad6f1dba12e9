//! `refound`: the way out of a founding that cannot be completed.
//!
//! The wish is an annotation with the number of the next founding. It survives a lost status, and once that founding
//! was made it asks for nothing more.

use std::io::{BufRead, Write};
use std::time::Duration;

use ais_crds::AISCluster;
use kube::Api;
use kube::core::ResourceExt;
use serde_json::json;

use super::{DONE, OTHERWISE, WAITING, get, moves, watch};
use crate::names::ANNOTATION_REFOUND;

/// How far a new founding is. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The operator is at it, and says this.
    Waits(String),
    /// Founded anew, under this uuid.
    Founded(String),
    /// The old founding was completed after all.
    Refused(String),
}

/// How far the founding with this number is. Pure.
#[must_use]
pub fn progress(cluster: &AISCluster, attempt: i64) -> Progress {
    let Some(status) = &cluster.status else { return Progress::Waits("waiting for the operator".to_owned()) };
    let uuid = status.cluster_id.clone().unwrap_or_default();
    if status.formed && status.founding_attempt >= attempt {
        return Progress::Founded(uuid);
    }
    let available = status.conditions.iter().find(|c| c.type_ == "Available");
    let text = available.map(|c| format!("{}: {}", c.reason, c.message)).unwrap_or_default();
    if status.formed {
        return Progress::Refused(format!("cluster {uuid} is founded; it is never founded again"));
    }
    match available {
        Some(c) if c.reason == "RefoundRefused" => Progress::Refused(c.message.clone()),
        _ => Progress::Waits(text),
    }
}

/// What would be given up is named before anybody confirms it.
fn confirmed(cluster: &AISCluster, given: Option<String>) -> anyhow::Result<bool> {
    let name = cluster.name_any();
    let typed = match given {
        Some(given) => given,
        None => {
            println!(
                "This deletes the pods and the state volumes of {name} and founds it under another uuid.\n\
                 Type the name of the cluster to go on:"
            );
            std::io::stdout().flush()?;
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().to_owned()
        }
    };
    Ok(typed == name)
}

pub(super) async fn refound(
    api: &Api<AISCluster>,
    name: &str,
    confirm: Option<String>,
    time: Duration,
) -> anyhow::Result<u8> {
    let cluster = get(api, name).await?;
    let attempt = cluster.status.as_ref().map_or(1, |s| s.founding_attempt.max(1)) + 1;
    if let Progress::Refused(why) = progress(&cluster, attempt) {
        anyhow::bail!("{why}");
    }
    anyhow::ensure!(
        cluster.spec.cluster_id.is_none(),
        "spec.clusterID fixes the uuid: delete {name} with its state volumes and create it with another one"
    );
    anyhow::ensure!(confirmed(&cluster, confirm)?, "not confirmed");
    let wish = json!({"metadata": {"annotations": {ANNOTATION_REFOUND: attempt.to_string()}}});
    moves::patch(api, name, |_| Ok(wish.clone())).await?;
    println!("asked for founding {attempt}");
    let mut told = String::new();
    let end = watch::until(api, name, time, |cluster| match progress(cluster, attempt) {
        Progress::Waits(now) => {
            if now != told {
                println!("{now}");
                told = now;
            }
            None
        }
        end => Some(end),
    })
    .await?;
    Ok(match end {
        Some(Progress::Founded(uuid)) => {
            println!("founded as cluster {uuid}");
            DONE
        }
        Some(Progress::Refused(why) | Progress::Waits(why)) => {
            println!("{why}");
            OTHERWISE
        }
        None => {
            println!("not done within {} s; the operator goes on", time.as_secs());
            WAITING
        }
    })
}
