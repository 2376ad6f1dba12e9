//! One scenario per file under `transcripts/`, played over the production core. `UPDATE_EXPECT=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; the bans are for the core")]

mod harness;

use std::path::Path;

use expect_test::expect_file;

#[test]
fn transcripts_read_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 30, "transcripts are missing");
    let only = std::env::var("AIS_TRANSCRIPT").ok();
    let mut failed = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let told = std::panic::catch_unwind(|| expect_file![&file].assert_eq(&harness::tell(&text)));
        if told.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these differ: {failed:?}");
}
