//! Follows one resource.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use ais_crds::AISCluster;
use futures::StreamExt;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::{Instant, MissedTickBehavior};

use super::{DONE, page};

/// Ages go on without any news.
const REDRAW: Duration = Duration::from_secs(5);
/// Clears the screen, and goes to its first place.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Shows the page at each change, until the resource is gone or the reader is.
pub(super) async fn pages(api: &Api<AISCluster>, name: &str) -> anyhow::Result<u8> {
    let terminal = std::io::stdout().is_terminal();
    let mut changes = std::pin::pin!(watcher::watch_object(api.clone(), name).default_backoff());
    let mut redraw = tokio::time::interval_at(Instant::now() + REDRAW, REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<AISCluster> = None;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(cluster))) => last = Some(cluster),
                Some(Ok(None)) if last.is_none() => anyhow::bail!("AISCluster {name} does not exist"),
                Some(Ok(None)) | None => {
                    println!("{name} is gone");
                    return Ok(DONE);
                }
                // The watcher begins anew by itself.
                Some(Err(error)) => {
                    eprintln!("ais-operator: {error}");
                    continue;
                }
            },
            _ = redraw.tick(), if terminal => {}
        }
        let Some(cluster) = &last else { continue };
        let text = page(cluster, jiff::Timestamp::now());
        let mut out = std::io::stdout().lock();
        // Whoever read it has gone: that is an end, not an error.
        if write!(out, "{}{text}{}", if terminal { CLEAR } else { "" }, if terminal { "" } else { "\n" }).is_err() {
            return Ok(DONE);
        }
        let _ = out.flush();
    }
}

/// Calls `look` at each version of the resource until it gives something; `None` when the time is over.
pub(super) async fn until<T>(
    api: &Api<AISCluster>,
    name: &str,
    time: Duration,
    mut look: impl FnMut(&AISCluster) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    let mut changes = std::pin::pin!(watcher::watch_object(api.clone(), name).default_backoff());
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(cluster))) => {
                    if let Some(found) = look(&cluster) {
                        return Ok(Some(found));
                    }
                }
                Some(Ok(None)) | None => anyhow::bail!("AISCluster {name} is gone"),
                Some(Err(error)) => eprintln!("ais-operator: {error}"),
            },
            () = &mut end => return Ok(None),
        }
    }
}
