//! What was measured, as rows of one table: on the terminal, in the file of figures, and in the page of the docs.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::super::bench::rank;

/// From so many values on the 99th percentile is not just the longest.
const P99_FROM: usize = 100;

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// `operator`.
    figure: &'static str,
    /// What was measured.
    what: String,
    /// Of what `p50` and the others are: `ms`, `s`, `MiB`, ...
    unit: &'static str,
    /// How many values.
    n: usize,
    /// Half of the values are no larger; of one value it is that one.
    p50: f64,
    /// 99 of 100 values are no larger; only from 100 values up.
    p99: Option<f64>,
    /// The largest.
    max: f64,
    /// What it should be.
    aim: &'static str,
    /// What it is compared with, from the same run.
    reference: String,
}

impl Row {
    /// A row of these values.
    pub(super) fn of(what: impl Into<String>, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            figure: "operator",
            what: what.into(),
            unit,
            n: values.len(),
            p50: rank(&values, 50),
            p99: (values.len() >= P99_FROM).then(|| rank(&values, 99)),
            max: rank(&values, 100),
            aim: "-",
            reference: "-".to_owned(),
        }
    }

    /// What it should be.
    pub(super) fn aim(self, aim: &'static str) -> Self {
        Self { aim, ..self }
    }

    /// What it is compared with.
    pub(super) fn beside(self, reference: impl Into<String>) -> Self {
        Self { reference: reference.into(), ..self }
    }

    /// The same values in words, as a reference of another row.
    pub(super) fn in_words(&self) -> String {
        format!("{}: p50 {} {}, longest {}", self.what, self.p50, self.unit, self.max)
    }
}

/// The cells of a line of the file.
fn cells(line: &Value) -> [String; 7] {
    let number = |key: &str| line[key].as_f64().map_or("-".to_owned(), |value| format!("{value}"));
    let text = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
    let typical = format!("{} {}", number("p50"), text("unit"));
    let one = line["n"] == 1;
    let max = if one { "-".to_owned() } else { number("max") };
    [text("what"), line["n"].to_string(), typical, number("p99"), max, text("aim"), text("reference")]
}

const HEAD: [&str; 7] = ["operator", "n", "value or p50", "p99", "largest", "aim", "reference, same run"];

/// For the terminal.
pub(super) fn table(lines: &[Value]) -> String {
    let all: Vec<[String; 7]> = std::iter::once(HEAD.map(str::to_owned)).chain(lines.iter().map(cells)).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// For the page.
pub(in crate::xtask) fn markdown(lines: &[&Value]) -> Result<String> {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len()));
    for line in lines {
        writeln!(text, "| {} |", cells(line).join(" | "))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_and_many_share_a_table() {
        let many = Row::of("seen", "ms", (1..=100).rev().map(f64::from).collect()).aim("< 2 s").beside("x");
        let one = Row::of("memory", "MiB", vec![12.5]);
        let lines: Vec<Value> = [many, one].iter().map(|row| serde_json::to_value(row).unwrap()).collect();
        let page = markdown(&lines.iter().collect::<Vec<_>>()).unwrap();
        for row in ["| seen | 100 | 50.0 ms | 99.0 | 100.0 | < 2 s | x |", "| memory | 1 | 12.5 MiB | - | - | - | - |"]
        {
            assert!(page.contains(&row.replace(".0", "")), "{row} in {page}");
        }
        assert_eq!(table(&lines).lines().count(), 3);
    }
}
