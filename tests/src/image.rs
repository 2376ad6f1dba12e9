//! The container image, made without a docker daemon.
//!
//! [`CONTENTS`] is the one list of what is in it. It is written as a docker archive for the test Kubernetes, and it
//! generates the `Dockerfile` at the repository's root for everybody else; a test holds the two together.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cmd::Cmd;

/// The image's name in the test Kubernetes.
pub const REFERENCE: &str = "localhost/aiscluster:dev";
/// Numeric, so that a kubelet can see that it is not root.
pub const USER: &str = "65532:65532";

/// One line of the image's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A release binary, at the root, with the loader and the libraries it needs where the loader looks for them.
    Program(&'static str),
    /// An empty folder with this mode.
    Folder(&'static str, u32),
}

/// Everything that is in the image.
pub const CONTENTS: &[Content] =
    &[Content::Program("ais-node"), Content::Program("ais-operator"), Content::Folder("/tmp", 0o1777)];

/// The toolchain file: the Dockerfile builds with the same compiler.
const TOOLCHAIN: &str = include_str!("../../rust-toolchain.toml");

/// Something in an image's one layer.
#[derive(Debug, Clone)]
pub struct Entry {
    source: Option<PathBuf>,
    path: String,
    mode: u32,
}

impl Entry {
    /// A file, whatever links lead to it.
    pub fn file(source: impl Into<PathBuf>, path: impl Into<String>, mode: u32) -> Self {
        Self { source: Some(source.into()), path: path.into(), mode }
    }

    /// An empty folder.
    pub fn folder(path: impl Into<String>, mode: u32) -> Self {
        Self { source: None, path: path.into(), mode }
    }
}

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Archive<'a> {
    /// Name and tag.
    pub reference: &'a str,
    /// What runs by default.
    pub entrypoint: &'a [&'a str],
    /// Numeric user and group.
    pub user: &'a str,
    /// Its files.
    pub entries: Vec<Entry>,
}

impl Archive<'_> {
    /// Writes it as a docker archive, byte for byte the same for the same files.
    pub fn write(&self, out: &Path) -> Result<()> {
        let layer = self.layer()?;
        let layer_hash = hex(&layer);
        let config = serde_json::to_vec(&json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": self.user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_hash}")]},
        }))?;
        let (config_name, layer_name) = (format!("{}.json", hex(&config)), format!("{layer_hash}.tar"));
        let manifest = serde_json::to_vec(&json!([
            {"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}
        ]))?;
        // Under another name until it is whole.
        let partial = out.with_extension("partial");
        let write = || -> Result<()> {
            let mut tar = tar::Builder::new(File::create(&partial)?);
            for (name, bytes) in
                [(&config_name, &config), (&layer_name, &layer), (&"manifest.json".to_owned(), &manifest)]
            {
                append(&mut tar, name, Some(bytes), 0o644)?;
            }
            tar.into_inner()?.sync_all()?;
            Ok(fs::rename(&partial, out)?)
        };
        write().with_context(|| format!("cannot write {}", out.display()))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for entry in &self.entries {
            let path = entry.path.trim_start_matches('/');
            for (at, _) in path.match_indices('/') {
                if folders.insert(path[..at].to_owned()) {
                    append(&mut tar, &path[..at], None, 0o755)?;
                }
            }
            match &entry.source {
                Some(source) => {
                    let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
                    append(&mut tar, path, Some(&bytes), entry.mode)?;
                }
                None => {
                    if folders.insert(path.to_owned()) {
                        append(&mut tar, path, None, entry.mode)?;
                    }
                }
            }
        }
        tar.into_inner().context("cannot finish a layer")
    }
}

/// Writes the project's image from the release binaries in `programs`.
pub fn write(programs: &Path, reference: &str, out: &Path) -> Result<()> {
    let archive = Archive { reference, entrypoint: &["/ais-node"], user: USER, entries: entries(programs)? };
    archive.write(out)
}

fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let programs: Vec<PathBuf> = programs().map(|name| dir.join(name)).collect();
    let mut entries = with_libraries(&programs)?;
    for content in CONTENTS {
        if let Content::Folder(path, mode) = content {
            entries.push(Entry::folder(*path, *mode));
        }
    }
    Ok(entries)
}

fn programs() -> impl Iterator<Item = &'static str> {
    CONTENTS.iter().filter_map(|content| if let Content::Program(name) = content { Some(*name) } else { None })
}

/// Programs at the image's root, with the loader and the libraries that `ldd` finds for them.
pub fn with_libraries(programs: &[PathBuf]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for program in programs {
        let name = program.file_name().context("a program without a name")?.to_string_lossy();
        entries.push(Entry::file(program, format!("/{name}"), 0o755));
    }
    for library in libraries(programs)? {
        entries.push(Entry::file(&library, library.clone(), 0o755));
    }
    Ok(entries)
}

fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let shown = Cmd::new("ldd").arg(program).run()?;
        for line in shown.lines() {
            found.extend(library(line)?);
        }
    }
    Ok(found)
}

/// The path in one line of `ldd`; the kernel's own page has none.
fn library(line: &str) -> Result<Option<String>> {
    if line.contains("=> not found") {
        bail!("a library is missing: {}", line.trim());
    }
    Ok(line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned))
}

/// The Dockerfile that makes the same image.
pub fn dockerfile() -> Result<String> {
    let names: Vec<_> = programs().collect();
    let names = names.join(" ");
    let mut steps = vec![
        format!("for name in {names}; do install -D -m 0755 \"target/release/$name\" \"/image/$name\"; done"),
        "ldd /image/ais-* | sed -nE 's:^[^/]*[[:space:]](/[^ ]+) \\(.*:\\1:p' | sort -u > /libraries".to_owned(),
        "while read -r file; do install -D -m 0755 \"$file\" \"/image$file\"; done < /libraries".to_owned(),
    ];
    for content in CONTENTS {
        if let Content::Folder(path, mode) = content {
            steps.push(format!("install -d -m {mode:o} /image{path}"));
        }
    }
    let packages: Vec<_> = programs().map(|name| format!("--package {name}")).collect();
    Ok(format!(
        "# Generated from tests/src/image.rs, which a test compares with this file: \
         `AIS_WRITE_GENERATED=1 cargo test --release -p ais-tests dockerfile` writes it anew.
FROM rust:{}-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked {}
# In the image: {names}, the libraries they need, and /tmp.
RUN set -eu; {}

FROM scratch
COPY --from=build /image/ /
USER {USER}
WORKDIR /
ENTRYPOINT [\"/ais-node\"]
",
        toolchain()?,
        packages.join(" "),
        steps.join("; \\\n    ")
    ))
}

fn toolchain() -> Result<&'static str> {
    let line =
        TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = \"")).and_then(|rest| rest.strip_suffix('"'));
    line.context("rust-toolchain.toml names no channel")
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image can be made on {other}"),
    }
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, bytes: Option<&[u8]>, mode: u32) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(if bytes.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let bytes = bytes.unwrap_or_default();
    header.set_size(u64::try_from(bytes.len())?);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot pack {path}"))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_dockerfile_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Dockerfile");
        let generated = dockerfile().expect("generated");
        if std::env::var_os("AIS_WRITE_GENERATED").is_some() {
            fs::write(&path, &generated).expect("written");
        }
        let committed = fs::read_to_string(&path).expect("there is a Dockerfile");
        assert_eq!(committed, generated, "write it anew as its first line says");
    }

    #[test]
    fn ldd_lines_give_paths_and_missing_libraries_fail() {
        let path = |line| library(line).expect("fine");
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffe)"), None);
        assert_eq!(path("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)"), Some("/lib/x/libc.so.6".into()));
        assert_eq!(path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2".into()));
        assert_eq!(path("\tstatically linked"), None);
        assert!(library("\tlibx.so => not found").is_err());
    }

    #[test]
    fn an_archive_names_its_layer_and_lists_parents_once() {
        let dir = std::env::temp_dir().join(format!("aiscluster-image-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let source = dir.join("program");
        fs::write(&source, "x").expect("written");
        let entries = vec![
            Entry::file(&source, "/lib/a/one", 0o755),
            Entry::file(&source, "/lib/a/two", 0o755),
            Entry::folder("/tmp", 0o1777),
        ];
        let archive = Archive { reference: "localhost/x:1", entrypoint: &["/lib/a/one"], user: USER, entries };
        let mut layer = tar::Archive::new(std::io::Cursor::new(archive.layer().expect("packed")));
        let names: Vec<_> = layer
            .entries()
            .expect("readable")
            .map(|entry| {
                let entry = entry.expect("readable");
                let mode = entry.header().mode().expect("a mode");
                (entry.path().expect("a path").display().to_string(), mode)
            })
            .collect();
        let expected = [("lib", 0o755), ("lib/a", 0o755), ("lib/a/one", 0o755), ("lib/a/two", 0o755), ("tmp", 0o1777)];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));

        let (one, two) = (dir.join("one.tar"), dir.join("two.tar"));
        archive.write(&one).expect("written");
        archive.write(&two).expect("written");
        assert_eq!(fs::read(one).expect("read"), fs::read(two).expect("read"));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
