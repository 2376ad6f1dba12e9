//! `cargo xtask mutants`: puts every known defect back into the core and shows which rung of the ladder finds it, how
//! fast. A defect that no rung finds fails the command: a checker that never failed proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::root;

/// Rungs in the order of the table's columns.
const RUNGS: [&str; 3] = ["transcripts", "model", "simulator"];
/// Defects that there are; fewer lines than that mean that a rung did not run.
const DEFECTS: usize = 19;
/// Where the table is kept.
const TABLE: &str = "docs/mutants.md";

/// Arguments of `cargo xtask mutants`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Longest hunt of the simulator for one defect, seconds
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Write the table to docs/mutants.md
    #[arg(long)]
    pub write: bool,
}

/// What a rung says of a defect.
#[derive(Debug)]
struct Word {
    killed: bool,
    by: String,
    seconds: String,
}

type Words = BTreeMap<String, BTreeMap<String, Word>>;

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut words = Words::new();
    let model = "test --quiet --release -p ais-ha --features mutants --test mutants -- --nocapture";
    // A defect that the model misses fails its test; it is the table that judges, over all rungs.
    listen(model, &mut words)?;
    let hunt = format!("run --quiet --release -p ais-sim --features mutants --example hunt -- {}", arguments.seconds);
    listen(&hunt, &mut words)?;
    ensure!(words.len() == DEFECTS, "{} of {DEFECTS} defects were tried", words.len());
    let table = table(&words);
    print!("{table}");
    if arguments.write {
        let file = root().join(TABLE);
        std::fs::write(&file, page(&table)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let lives = |rungs: &BTreeMap<String, Word>| !rungs.values().any(|w| w.killed);
    let survivors: Vec<&str> = words.iter().filter(|(_, r)| lives(r)).map(|(name, _)| name.as_str()).collect();
    if !survivors.is_empty() {
        bail!("no rung finds: {}", survivors.join(", "));
    }
    Ok(())
}

/// Runs cargo and takes the lines that are for us.
fn listen(args: &str, words: &mut Words) -> Result<()> {
    let output = Command::new("cargo")
        .args(args.split_whitespace())
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let before: usize = words.values().map(BTreeMap::len).sum();
    for line in text.lines() {
        if let Some((mutant, rung, word)) = parse(line) {
            words.entry(mutant).or_default().insert(rung, word);
        }
    }
    let heard = words.values().map(BTreeMap::len).sum::<usize>() - before;
    ensure!(heard > 0, "cargo {args} said nothing about defects:\n{text}");
    Ok(())
}

/// `killed | NAME | RUNG | BY | SECONDS`, or `missed | ...`; the test runner's own words may come before it.
fn parse(line: &str) -> Option<(String, String, Word)> {
    let at = line.find("killed | ").or_else(|| line.find("missed | "))?;
    let parts: Vec<&str> = line[at..].split(" | ").collect();
    let [word, mutant, rung, by, seconds] = parts.as_slice() else { return None };
    let word = Word { killed: *word == "killed", by: (*by).to_owned(), seconds: (*seconds).to_owned() };
    Some(((*mutant).to_owned(), (*rung).to_owned(), word))
}

fn table(words: &Words) -> String {
    let mut text = String::from("| defect | rung | found by | seconds |\n|---|---|---|---|\n");
    for (mutant, rungs) in words {
        for rung in RUNGS {
            let Some(word) = rungs.get(rung) else { continue };
            let by = if word.killed { word.by.clone() } else { format!("not found ({})", word.by) };
            let _ = writeln!(text, "| {mutant} | {rung} | {by} | {} |", word.seconds);
        }
    }
    text
}

fn page(table: &str) -> String {
    format!(
        "# Known defects and what finds them\n\n\
         Written by `cargo xtask mutants --write`. Each defect is a switch in the core (`ais_ha::mutant`, feature\n\
         `mutants`); each rung of the ladder looks for all it can express. A defect that no rung finds fails the command.\n\
         The transcripts are stories of one scenario each and say what differs, not what is broken; the model and the\n\
         simulator name the invariant. Seconds are of a machine with 2 cores, busy or not.\n\n{table}"
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_for_us_are_read() {
        let (mutant, rung, word) = parse("test x ... killed | NoAdoption | model | I3: a | 0.4").expect("a line");
        assert_eq!((mutant.as_str(), rung.as_str(), word.killed), ("NoAdoption", "model", true));
        assert!(!parse("missed | NoAdoption | simulator | 12 seeds | 60.0").expect("a line").2.killed);
        assert!(parse("test result: ok. 1 passed").is_none());
    }
}
