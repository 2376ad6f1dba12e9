//! `docs/scenarios.md` names tests: it must name all cases, and only tests that exist.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::xtask::root;

    /// The cases of the study; numbers that are not here were never given out.
    const CASES: [u32; 45] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 19, 20, 23, 26, 27, 28, 29, 30, 32, 33, 36, 37, 38, 40, 42,
        43, 44, 45, 46, 47, 48, 50, 51, 53, 54, 55, 56, 58, 59, 60,
    ];
    /// The reference's multi-node tests, and those of its unit tests that are about what a cluster agrees on.
    const REFERENCE: [&str; 59] = [
        "PrimaryCrash",
        "NodeCrashRestoreDifferentIP",
        "ProxyCrash",
        "PrimaryAndTargetCrash",
        "PrimaryAndProxyCrash",
        "CrashAndFastRestore",
        "TargetRejoin",
        "JoinWhileVoteInProgress",
        "ConcurrentPutGetDel",
        "ProxyStress",
        "NetworkFailure",
        "PrimaryAndNextCrash",
        "DiscoveryAndOriginalPrimaryCrash",
        "AddNodeDuplicateIP",
        "AddNodeDuplicateDaemonID",
        "ICMemberLeaveAndRejoin",
        "ICKillAndRestorePrimary",
        "ICSyncOwnTbl",
        "ICSinglePrimaryRevamp",
        "ICStressMonitorXactMultiICFail",
        "TestProxyFailbackAndReRegisterInParallel",
        "TestForwardCP",
        "TestGetAndReRegisterInParallel",
        "TestGetAndRestoreInParallel",
        "TestRegisterAndUnregisterTargetAndPutInParallel",
        "TestRegisterTargetsAndCreateBucketsInParallel",
        "TestGetAndPutAfterReregisterWithMissedBucketUpdate",
        "TestGetAfterReregisterWithMissedBucketUpdate",
        "TestICRebalance",
        "TestICDecommission",
        "TestRenewRebalance",
        "TestRebalanceAfterUnregisterAndReregister",
        "TestStressRebalance",
        "MaintenanceOnOff",
        "ListObjects during maintenance",
        "MaintenanceMD",
        "DecommissionRebalance",
        "MaintenanceRebalance",
        "MaintenanceRebalanceChunked",
        "GetWhileRebalance",
        "NodeShutdown",
        "RepeatNoPostReb",
        "MixedBatch",
        "LifecycleBatchShutdown",
        "LifecycleBatchDecommission",
        "MembershipBusy",
        "TestForceJoinRequiresPrimary",
        "TestSelfJoinSecret",
        "health of the primary and of unregistered nodes",
        "TestConfigOverrideAndRestart",
        "TestDiscoverServers",
        "TestMetasyncTransport",
        "TestMetasyncData",
        "TestMetasyncMembership",
        "TestMetasyncReceive",
        "TestMetasyncProxyRejectsMissingIntraHeaders",
        "TestHB",
        "join HMAC known-answer tests",
        "scripts/force-join.sh",
    ];

    fn text_below(dir: &Path, into: &mut String) {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir).expect("a folder").flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                text_below(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs") {
                into.push_str(&fs::read_to_string(&path).expect("a source file"));
            }
        }
    }

    fn sources(paths: &[&str]) -> String {
        let mut text = String::new();
        for path in paths.iter().map(|path| root().join(path)) {
            if path.is_dir() {
                text_below(&path, &mut text);
            } else {
                text.push_str(&fs::read_to_string(&path).expect("a source file"));
            }
        }
        text
    }

    /// The rows of the document: first cell, last cell.
    fn rows() -> Vec<(String, String)> {
        let text = fs::read_to_string(root().join("docs/scenarios.md")).expect("the table");
        let cells = |line: &str| -> Option<(String, String)> {
            let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
            let cells: Vec<&str> = inner.split(" | ").collect();
            Some((cells.first()?.to_string(), cells.last()?.to_string()))
        };
        let head = |first: &str| first == "id" || first == "name";
        text.lines().filter_map(cells).filter(|(first, _)| !head(first)).collect()
    }

    #[test]
    fn every_case_is_in_the_table_with_a_test_or_a_reason() {
        let rows = rows();
        let wanted: Vec<String> =
            CASES.iter().map(|n| format!("H{n:02}")).chain(REFERENCE.map(str::to_owned)).collect();
        for id in &wanted {
            let found: Vec<_> = rows.iter().filter(|(first, _)| first == id).collect();
            assert_eq!(found.len(), 1, "{id} is in {} rows", found.len());
            assert!(found[0].1.len() > 8, "{id} has neither a test nor a reason");
        }
        // A row for several would hide that one of them is missing.
        let more: Vec<_> = rows.iter().filter(|(first, _)| !wanted.contains(first)).collect();
        assert!(more.is_empty(), "rows of no case: {more:?}");
    }

    #[test]
    fn every_test_that_the_table_names_exists() {
        let drills = |binary: &str| -> String {
            match binary {
                "processes" => sources(&["tests/tests/processes.rs"]),
                "control" => sources(&["tests/tests/control.rs"]),
                "processes_faults" => sources(&["tests/tests/processes_faults"]),
                "kubernetes" => sources(&["tests/tests/kubernetes"]),
                "sdk" => sources(&["tests/tests/sdk.rs"]),
                other => panic!("no binary {other}"),
            }
        };
        let all = sources(&["tests/src", "node"]);
        let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
        for (id, cell) in rows() {
            for name in cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
                let (place, test) = name.split_once("::").expect("a place and a name");
                let exists = match place {
                    "transcript" => root().join(format!("node/ha/tests/transcripts/{test}.txt")).is_file(),
                    "fn" => all.contains(&format!("fn {test}(")),
                    binary => drills(binary).contains(&format!("(\"{test}\",")),
                };
                if !exists {
                    missing.push(format!("{id}: {name}"));
                }
                seen.insert(name.to_owned());
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
        assert!(seen.len() > 40, "{} names found: is the table read at all?", seen.len());
    }
}
