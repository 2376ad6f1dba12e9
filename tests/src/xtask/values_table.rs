//! The table of the chart's values, made from the comments in `values.yaml`.
//!
//! That file is written in one style (two spaces, one comment before each value), so lines are all that is read of it;
//! the chart's schema, which a test compares with the table, says whether something was overlooked.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Keys, joined by dots.
    pub(super) key: String,
    /// On one line.
    pub(super) default: String,
    /// Its comment.
    pub(super) text: String,
}

/// A key, its own value on its line, its comment, and the lines below it.
struct Entry<'a> {
    key: &'a str,
    value: &'a str,
    comment: String,
    block: Vec<&'a str>,
}

/// All values of the file.
pub(super) fn rows(values: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    collect("", &values.lines().collect::<Vec<_>>(), 0, &mut rows)?;
    Ok(rows)
}

/// The rows as Markdown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| value | default | meaning |\n|---|---|---|\n");
    for row in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `{}` | `{}` | {} |", row.key, row.default, row.text);
    }
    text
}

fn collect(parent: &str, lines: &[&str], indent: usize, rows: &mut Vec<Row>) -> Result<()> {
    for entry in entries(lines, indent)? {
        let key = if parent.is_empty() { entry.key.to_owned() } else { format!("{parent}.{}", entry.key) };
        let explained = entry.block.iter().any(|line| line.trim_start().starts_with('#'));
        if explained {
            collect(&key, &entry.block, indent + 2, rows)?;
            continue;
        }
        ensure!(!entry.comment.is_empty(), "values.yaml does not explain {key}");
        let default = if entry.block.is_empty() { entry.value.to_owned() } else { flow(&entry.block, indent + 2)? };
        rows.push(Row { key, default, text: entry.comment });
    }
    Ok(())
}

fn entries<'a>(lines: &[&'a str], indent: usize) -> Result<Vec<Entry<'a>>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in lines {
        let text = line.trim();
        let depth = line.len() - line.trim_start().len();
        match entries.last_mut() {
            _ if text.is_empty() => comment.clear(),
            Some(last) if depth > indent => last.block.push(line),
            _ if depth != indent => bail!("values.yaml: not indented by two: {line}"),
            _ if text.starts_with('#') => comment.push(text.trim_start_matches(['#', ' '])),
            _ => {
                let (key, value) = text.split_once(':').with_context(|| format!("values.yaml: no key in: {line}"))?;
                let comment = std::mem::take(&mut comment).join(" ");
                entries.push(Entry { key, value: value.trim(), comment, block: Vec::new() });
            }
        }
    }
    Ok(entries)
}

/// A block of maps on one line.
fn flow(lines: &[&str], indent: usize) -> Result<String> {
    let parts: Result<Vec<String>> = entries(lines, indent)?
        .into_iter()
        .map(|entry| {
            let value = if entry.block.is_empty() { entry.value.to_owned() } else { flow(&entry.block, indent + 2)? };
            Ok(format!("{}: {value}", entry.key))
        })
        .collect();
    Ok(format!("{{{}}}", parts?.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "\
# About the file.

# A section.
image:
  # Where.
  repository: here
  # Which,
  # exactly.
  tag: \"\"
# A block.
resources:
  requests:
    cpu: 10m
    memory: 32Mi
";

    #[test]
    fn sections_scalars_and_blocks() {
        let row = |key: &str, default: &str, text: &str| Row {
            key: key.to_owned(),
            default: default.to_owned(),
            text: text.to_owned(),
        };
        let expected = [
            row("image.repository", "here", "Where."),
            row("image.tag", "\"\"", "Which, exactly."),
            row("resources", "{requests: {cpu: 10m, memory: 32Mi}}", "A block."),
        ];
        assert_eq!(rows(VALUES).unwrap(), expected);
    }

    #[test]
    fn a_value_without_a_comment_is_named() {
        let error = rows("# One.\na: 1\n\nb: 2\n").unwrap_err().to_string();
        assert!(error.contains(" b"), "{error}");
    }
}
