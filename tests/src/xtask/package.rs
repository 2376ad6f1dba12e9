//! `cargo xtask package`: the chart as an archive, and plain manifests for those without Helm.
//!
//! The same sources give the same bytes: names are sorted, times and owners are left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use clap::Args;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use super::{root, values_table};
use crate::cmd::Cmd;
use crate::product::{OPERATOR_NAMESPACE, RELEASE, chart, definition};
use crate::progress::Progress;
use crate::testbed::{Binaries, packages};

const BEGIN: &str = "<!-- values: made by `cargo xtask package --readme` -->\n";
const END: &str = "<!-- end of values -->";
/// Of the sources, not of the package.
const LEFT_OUT: &[&str] = &["ci", ".helmignore"];

/// Arguments of `cargo xtask package`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only write the chart's table of values anew, into its README
    #[arg(long)]
    readme: bool,
    /// Where to
    #[arg(long, default_value = "target/package")]
    out: PathBuf,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.readme {
        let path = chart().join("README.md");
        fs::write(&path, readme()?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
        return Ok(());
    }
    ensure!(fs::read_to_string(chart().join("README.md"))? == readme()?, "stale: run `cargo xtask package --readme`");
    let out = root().join(&arguments.out);
    let helm = helm(&Progress::new("package"))?;
    for file in write(&helm, &out)? {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{hash}  {}", file.display());
    }
    Ok(())
}

/// The user's own `helm`, or the one that is built for the test Kubernetes.
pub(crate) fn helm(progress: &Progress) -> Result<PathBuf> {
    match packages::find("helm") {
        Some(found) => Ok(found),
        None => Binaries::helm_alone(progress),
    }
}

/// Writes everything; the files.
pub fn write(helm: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let archive = out.join(format!("{RELEASE}-{}.tgz", version()?));
    fs::write(&archive, packed()?).with_context(|| format!("cannot write {}", archive.display()))?;
    let crd = out.join("aiscluster-crd.yaml");
    fs::copy(definition(), &crd).with_context(|| format!("cannot write {}", crd.display()))?;
    let manifests = out.join(format!("{RELEASE}.yaml"));
    fs::write(&manifests, plain(helm, &archive)?).with_context(|| format!("cannot write {}", manifests.display()))?;
    Ok(vec![archive, crd, manifests])
}

/// What `kubectl apply --server-side -f` takes: namespace, definition, operator with the default values.
fn plain(helm: &Path, archive: &Path) -> Result<String> {
    let rendered = template(helm, archive, &["--skip-tests"])?;
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {OPERATOR_NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    Ok(format!("{namespace}{rendered}"))
}

/// `helm template`, without any trace in the user's home.
pub(crate) fn template(helm: &Path, chart: &Path, more: &[&str]) -> Result<String> {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let home = std::env::temp_dir().join(format!("aiscluster-helm-{}-{run}", std::process::id()));
    let mut cmd = Cmd::new(helm).args(["template", RELEASE]).arg(chart).args(["--namespace", OPERATOR_NAMESPACE]);
    for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        cmd = cmd.env(name, home.join(dir));
    }
    let rendered = cmd.args(more).run();
    drop(fs::remove_dir_all(&home));
    rendered
}

/// The chart's own version.
fn version() -> Result<String> {
    let text = fs::read_to_string(chart().join("Chart.yaml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("version:"));
    Ok(line.context("Chart.yaml has no version")?.trim().to_owned())
}

/// The chart as Helm packs it, below one folder of its name.
fn packed() -> Result<Vec<u8>> {
    let mut files = Vec::new();
    walk(&chart(), "", &mut files)?;
    files.sort();
    // Without a time of its own.
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gzip);
    for name in &files {
        let bytes = fs::read(chart().join(name)).with_context(|| format!("cannot read {name}"))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, format!("{RELEASE}/{name}"), bytes.as_slice())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

fn walk(folder: &Path, below: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if below.is_empty() && LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let full = if below.is_empty() { name } else { format!("{below}/{name}") };
        if path.is_dir() {
            walk(&path, &full, files)?;
        } else {
            files.push(full);
        }
    }
    Ok(())
}

/// The README with the table of the values as they are now.
fn readme() -> Result<String> {
    let text = fs::read_to_string(chart().join("README.md")).context("the chart has no README.md")?;
    let (before, rest) = text.split_once(BEGIN).context("README.md has no place for the values")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of the values")?;
    let values = fs::read_to_string(chart().join("values.yaml")).context("the chart has no values.yaml")?;
    let table = values_table::table(&values_table::rows(&values)?);
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_readme_lists_the_values_as_they_are() {
        let committed = fs::read_to_string(chart().join("README.md")).unwrap();
        assert!(committed == readme().unwrap(), "stale: run `cargo xtask package --readme`");
    }

    fn paths(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        let Some(properties) = schema["properties"].as_object() else {
            found.insert(path.to_owned());
            return;
        };
        for (name, schema) in properties {
            paths(schema, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
        }
    }

    #[test]
    fn values_and_schema_know_the_same() {
        let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
        let mut known = BTreeSet::new();
        paths(&serde_json::from_str(&schema).unwrap(), "", &mut known);
        // Helm's own.
        known.remove("global");
        let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
        let listed: BTreeSet<String> = values_table::rows(&values).unwrap().into_iter().map(|row| row.key).collect();
        let within = |path: &str, other: &str| path == other || path.starts_with(&format!("{other}."));
        for path in &known {
            assert!(listed.iter().any(|row| within(path, row)), "values.yaml has no {path}");
        }
        for row in &listed {
            assert!(known.iter().any(|path| within(path, row)), "values.schema.json has no {row}");
        }
    }

    #[test]
    fn the_same_sources_make_the_same_archive() {
        let archive = packed().unwrap();
        assert_eq!(archive, packed().unwrap());
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let names: BTreeSet<String> =
            tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        let needed = ["Chart.yaml", "values.schema.json", "files/aiscluster.yaml", "templates/tests/check.yaml"];
        for file in needed.map(|name| format!("{RELEASE}/{name}")) {
            assert!(names.contains(&file), "{file} is not in {names:?}");
        }
        assert!(names.iter().all(|name| !name.contains("/ci/")), "{names:?}");
    }
}
