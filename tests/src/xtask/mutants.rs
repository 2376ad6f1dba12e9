//! `cargo xtask mutants`: puts every known defect back into the core and shows which rung of the ladder finds it, how
//! fast. A defect that neither model nor simulator finds fails the command: a checker that never failed proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::root;

/// Rungs in the order of the table's columns.
const RUNGS: [&str; 3] = ["transcripts", "model", "simulator"];
/// Those that must find a defect (protocol.md section 12): a transcript that reads differently does not say what is
/// broken, and says nothing of whether the checks of the invariants still work.
const JUDGES: [&str; 2] = ["model", "simulator"];
/// Not one of protocol.md's seventeen: a recovery that is told before it is on the disk does harm only if it never gets
/// there, which no seed has come to yet. Until one does, the story of just that (transcript 115) is what finds it.
const BY_STORY: [&str; 1] = ["RecoveryTold"];
/// Defects that there are; fewer lines than that mean that a rung did not run.
const DEFECTS: usize = 20;
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
    let hunt = format!("run --quiet --release -p ais-sim --features mutants --example hunt -- {}", arguments.seconds);
    let mut broken = Vec::new();
    for run in [model, &hunt] {
        // Told at the end: the table shows more than an exit status.
        if !listen(run, &mut words)? {
            broken.push(run);
        }
    }
    ensure!(words.len() == DEFECTS, "{} of {DEFECTS} defects were tried", words.len());
    let table = table(&words);
    print!("{table}");
    if arguments.write {
        let file = root().join(TABLE);
        std::fs::write(&file, page(&table)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let survivors = survivors(&words);
    if !survivors.is_empty() {
        bail!("neither model nor simulator finds: {}", survivors.join(", "));
    }
    if !broken.is_empty() {
        bail!("failed: cargo {}", broken.join("; cargo "));
    }
    Ok(())
}

/// The defects that no judge found, whatever else did.
fn survivors(words: &Words) -> Vec<&str> {
    let killed = |name: &str, rungs: &BTreeMap<String, Word>| {
        let judges: &[&str] = if BY_STORY.contains(&name) { &RUNGS } else { &JUDGES };
        judges.iter().any(|rung| rungs.get(*rung).is_some_and(|word| word.killed))
    };
    words.iter().filter(|(name, rungs)| !killed(name, rungs)).map(|(name, _)| name.as_str()).collect()
}

/// Runs cargo and takes the lines that are for us; whether it succeeded.
fn listen(args: &str, words: &mut Words) -> Result<bool> {
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
    Ok(output.status.success())
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
         `mutants`); each rung of the ladder looks for all it can express. The transcripts are stories of one scenario each\n\
         and say what differs, not what is broken; the model and the simulator name the invariant, and a defect that neither\n\
         of these two finds fails the command (but {}, whose harm needs the story of one\n\
         transcript). Seconds are of a machine with 2 cores, busy or not.\n\n{table}",
        BY_STORY.map(|name| format!("`{name}`")).join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{Words, parse, survivors, table};

    fn heard(lines: &[&str]) -> Words {
        let mut words = Words::new();
        for line in lines {
            let (mutant, rung, word) = parse(line).expect("a line");
            words.entry(mutant).or_default().insert(rung, word);
        }
        words
    }

    #[test]
    fn a_changed_transcript_kills_nothing() {
        let words = heard(&[
            "killed | LeaseFromReply | transcripts | 14-one-way-partition | 0.1",
            "missed | LeaseFromReply | simulator | 900 seeds | 120.0",
            "missed | OwnElectorate | transcripts | - | 0.9",
            "killed | OwnElectorate | model | I3: a | 0.4",
            "missed | OwnElectorate | simulator | 900 seeds | 120.0",
            "killed | TimeoutIsEvidence | simulator | I9 in seed 0, 2 seeds | 0.4",
            "killed | NoAdoption | transcripts | 22-adoption-from-witness | 0.1",
            "killed | RecoveryTold | transcripts | 115-recovery-that-was-not-written | 0.2",
            "missed | RecoveryTold | simulator | 518 seeds | 40.2",
        ]);
        assert_eq!(survivors(&words), ["LeaseFromReply", "NoAdoption"]);
        assert!(table(&words).contains("| LeaseFromReply | transcripts | 14-one-way-partition | 0.1 |"));
    }

    #[test]
    fn lines_for_us_are_read() {
        let (mutant, rung, word) = parse("test x ... killed | NoAdoption | model | I3: a | 0.4").expect("a line");
        assert_eq!((mutant.as_str(), rung.as_str(), word.killed), ("NoAdoption", "model", true));
        assert!(!parse("missed | NoAdoption | simulator | 12 seeds | 60.0").expect("a line").2.killed);
        assert!(parse("test result: ok. 1 passed").is_none());
    }
}
