//! `bench operator`: what the operator's users see and when, and what it costs; on a test Kubernetes of its own.
//!
//! Times are those at which a watch brought the status that says so, as `kubectl get aisc -w` would. One cluster is
//! founded, killed, moved and rolled; then there are ten at rest; then 200 whose nodes are simulated ([`many`]).

mod api;
mod fake;
mod many;
mod moves;
mod place;
mod rest;
pub(super) mod rows;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use self::place::Place;
use self::rows::Row;
use super::{bench, bench_table};
use crate::progress::Progress;

/// Arguments of `cargo xtask bench operator`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Little of everything, in a few minutes: to see that it works, not for the docs
    #[arg(long)]
    pub quick: bool,
    /// Only what the clusters at rest cost, in a few minutes; not for the docs
    #[arg(long, conflicts_with = "write")]
    pub rest: bool,
    /// Write one JSON object a line to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the table into this page of the docs, in place of the one of before
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Size {
    failovers: u32,
    failbacks: u32,
    rolls: u32,
    /// Clusters that are founded one after the other, each watched.
    foundings: usize,
    /// Clusters at rest in the end.
    clusters: usize,
    rest_s: u64,
    simulated: usize,
    simulated_rest_s: u64,
}

const WHOLE: Size = Size {
    failovers: 20,
    failbacks: 20,
    rolls: 2,
    foundings: 3,
    clusters: 10,
    rest_s: 60,
    simulated: 200,
    simulated_rest_s: 30,
};
const QUICK: Size = Size {
    failovers: 3,
    failbacks: 3,
    rolls: 1,
    foundings: 1,
    clusters: 2,
    rest_s: 10,
    simulated: 20,
    simulated_rest_s: 10,
};

/// Runs it.
pub(super) fn run(arguments: &Arguments, progress: &Progress) -> Result<()> {
    let size = if arguments.quick { QUICK } else { WHOLE };
    let mut lines = vec![bench_table::machine()?];
    lines[0]["figure"] = json!("operator-machine");
    let place = Place::up(progress)?;
    let mut rows = Vec::new();
    let part = if arguments.rest { at_rest } else { measure };
    let measured = part(&place, size, &mut rows, progress).with_context(|| place.diagnosis());
    for row in &rows {
        lines.push(serde_json::to_value(row)?);
    }
    // What was measured before something failed is told all the same, but does not go into the docs.
    bench::report(&lines, arguments.json.as_deref())?;
    print!("\n{}", rows::table(&lines[1..]));
    measured?;
    place.down()?;
    match &arguments.write {
        Some(page) => bench_table::write_operator(&lines, page),
        None => Ok(()),
    }
}

fn measure(place: &Place, size: Size, rows: &mut Vec<Row>, progress: &Progress) -> Result<()> {
    let mut founded_s = Vec::new();
    let mut products = Vec::new();
    let found = |number: usize| {
        let founded = place.found(&format!("found-{number}"), progress)?;
        progress.line(format!("founding {number}: Ready after {:.1?}", founded.took));
        anyhow::Ok(founded)
    };
    let first = found(1)?;
    founded_s.push(first.took.as_secs_f64());
    let product = first.product;

    rows.extend(rest::figures(place, 1, size.rest_s, progress)?);
    rows.extend(moves::failovers(place, &product, size.failovers, progress)?);
    rows.extend(moves::failbacks(place, &product, size.failbacks, progress)?);
    rows.extend(moves::rolls(&product, size.rolls, progress)?);
    products.push(product);

    for number in 2..=size.foundings {
        let founded = found(number)?;
        founded_s.push(founded.took.as_secs_f64());
        products.push(founded.product);
    }
    let what = "founding of 3+3, from kubectl apply to Ready";
    rows.push(Row::of(what, "s", founded_s).aim("< 15 s"));
    let more: Vec<String> = (products.len() + 1..=size.clusters).map(|n| format!("more-{n}")).collect();
    products.extend(place.found_together(&more, progress)?);
    rows.extend(rest::figures(place, products.len(), size.rest_s, progress)?);

    progress.line("these clusters go");
    place.delete(products)?;
    rows.extend(many::figures(place, size.simulated, size.simulated_rest_s, progress)?);
    Ok(())
}

/// One founded, then all the others: of what the operator holds, nothing is left from moves.
fn at_rest(place: &Place, size: Size, rows: &mut Vec<Row>, progress: &Progress) -> Result<()> {
    let mut products = place.found_together(&["found-1".to_owned()], progress)?;
    rows.extend(rest::figures(place, 1, size.rest_s, progress)?);
    let more: Vec<String> = (2..=size.clusters).map(|n| format!("more-{n}")).collect();
    products.extend(place.found_together(&more, progress)?);
    rows.extend(rest::figures(place, products.len(), size.rest_s, progress)?);
    Ok(())
}

/// Text at a JSON pointer, empty when there is none.
fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
