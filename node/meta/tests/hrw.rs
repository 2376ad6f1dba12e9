//! The vectors of http-api.md section 7, computed by AIStore's own SDK.

use std::cmp::Reverse;

use ais_meta::hrw::{digest, mix, succession, weight};

const A: [&str; 3] = ["t1", "t2", "t3"];
const B: [&str; 5] = ["QrmZvKdN", "XvnGkRdM", "ZdpKcVnT", "HbjTwLpS", "NwLjRbGq"];

/// Targets for a name, best first.
fn order<'a>(targets: &[&'a str], uname: &str) -> Vec<&'a str> {
    let mut order = targets.to_vec();
    order.sort_by_key(|id| Reverse(weight(digest(id), digest(uname))));
    order
}

#[test]
fn mix_is_aistores() {
    assert_eq!(mix(0), 1_905_207_664_160_064_169);
    assert_eq!(mix(4_573_842), 5_026_071_747_115_404_967);
}

#[test]
fn digests_of_node_ids_are_aistores() {
    for (id, expected) in [
        ("p1", 442_917_838_593_855_800),
        ("p2", 5_034_621_090_705_517_784),
        ("p3", 3_596_435_703_883_028_501),
        ("p4", 9_663_722_633_243_973_962),
        ("t1", 14_214_570_646_889_990_061),
        ("t2", 17_780_131_176_456_335_389),
        ("t3", 7_900_451_649_967_436_292),
        ("QrmZvKdN", 1_634_666_603_828_426_912),
        ("XvnGkRdM", 8_958_246_934_005_155_955),
        ("ZdpKcVnT", 12_317_516_289_960_666_538),
        ("HbjTwLpS", 6_610_259_890_631_026_065),
        ("NwLjRbGq", 16_000_015_038_406_512_786),
        ("BkTqWmFd", 7_476_218_026_916_313_356),
        ("ZcQpLmXa", 12_876_227_475_126_765_449),
        ("HhJjKkLl", 163_547_940_935_996_122),
        ("", 12_295_767_445_558_623_539),
        ("a", 6_843_093_361_001_225_328),
    ] {
        assert_eq!(digest(id), expected, "{id}");
    }
}

#[test]
fn targets_are_weighed_as_aistore_weighs_them() {
    type Row<'a> = (&'a str, u64, &'a [(&'a str, u64)]);
    let rows: [Row<'_>; 5] = [
        (
            "ais/@#/nnn/obj1",
            14_400_442_524_657_465_676,
            &[("t3", 6_314_093_643_850_335_492), ("t2", 3_897_532_371_702_719_271), ("t1", 2_132_110_737_532_498_114)],
        ),
        (
            "ais/@#/nnn/a/b/c.tar",
            8_102_246_037_883_843_132,
            &[
                ("t2", 16_458_023_103_710_523_629),
                ("t1", 15_309_614_255_947_467_833),
                ("t3", 10_446_695_050_742_575_439),
            ],
        ),
        (
            "aws/@#/train/shard-000001.tar",
            1_466_179_514_262_682_853,
            &[
                ("HbjTwLpS", 13_543_792_826_169_247_662),
                ("QrmZvKdN", 9_557_916_103_642_177_602),
                ("ZdpKcVnT", 9_213_770_244_682_802_618),
                ("XvnGkRdM", 8_411_525_430_221_818_822),
                ("NwLjRbGq", 8_125_186_484_964_225_706),
            ],
        ),
        (
            "ais/@#team-a/data/x",
            7_978_507_207_671_047_391,
            &[
                ("ZdpKcVnT", 11_790_890_488_825_725_039),
                ("XvnGkRdM", 11_685_048_307_222_645_830),
                ("HbjTwLpS", 10_833_519_245_113_692_537),
                ("NwLjRbGq", 9_239_008_779_598_289_695),
                ("QrmZvKdN", 2_491_046_813_423_103_508),
            ],
        ),
        (
            "ais/@#/data/ünïcode obj",
            9_706_886_878_217_626_801,
            &[
                ("NwLjRbGq", 16_940_243_458_116_100_181),
                ("HbjTwLpS", 12_468_997_253_895_393_250),
                ("QrmZvKdN", 9_496_993_516_816_599_221),
                ("ZdpKcVnT", 7_279_567_119_262_334_158),
                ("XvnGkRdM", 2_754_699_639_383_894_606),
            ],
        ),
    ];
    for (uname, expected, weights) in rows {
        assert_eq!(digest(uname), expected, "{uname}");
        for (id, expected) in weights {
            assert_eq!(weight(digest(id), digest(uname)), *expected, "{uname} on {id}");
        }
        let set: &[&str] = if weights.len() == A.len() { &A } else { &B };
        let ids: Vec<_> = weights.iter().map(|(id, _)| *id).collect();
        assert_eq!(order(set, uname), ids, "{uname}");
    }
    assert_eq!(order(&["t1", "t3"], "ais/@#/nnn/a/b/c.tar")[0], "t1", "vector 3: t2 is decommissioned");
}

#[test]
fn six_objects_land_where_aistore_puts_them() {
    let rows = [
        (8_239_095_212_895_222_335, "t2"),
        (429_116_210_472_035_045, "t3"),
        (15_300_676_697_399_205_893, "t1"),
        (18_099_425_529_157_997_970, "t2"),
        (10_317_349_897_009_171_982, "t1"),
        (2_104_027_573_183_974_562, "t3"),
    ];
    for (i, (expected, target)) in rows.into_iter().enumerate() {
        let uname = format!("ais/@#/nnn/o{i}");
        assert_eq!((digest(&uname), order(&A, &uname)[0]), (expected, target), "{uname}");
    }
}

#[test]
fn owners_of_jobs_are_aistores() {
    let gateways = ["p1", "p2", "p3"];
    for (job, owner, lister) in [("g47", "p2", "t2"), ("Rz3lK8bX2", "p2", "t1")] {
        assert_eq!((order(&gateways, job)[0], order(&A, job)[0]), (owner, lister), "{job}");
    }
}

#[test]
fn candidates_follow_each_other_as_in_aistore() {
    let first = |ids: &[&'static str]| {
        let mut ids = ids.to_vec();
        succession(&mut ids, |id| id);
        ids[0]
    };
    let mut all = ["p1", "p2", "p3", "p4"];
    succession(&mut all, |id| id);
    assert_eq!(all, ["p4", "p2", "p3", "p1"]);
    assert_eq!(first(&["p2", "p3", "p4"]), "p4", "vector 1: p1 is skipped");
    assert_eq!(first(&["p1", "p2", "p3"]), "p2", "vector 2: p4 is skipped");
    assert_eq!(first(&["p2", "p3"]), "p2", "vectors 3 and 4: p4 may not lead");
    assert_eq!(first(&["BkTqWmFd", "HhJjKkLl"]), "BkTqWmFd", "vector 5");
    assert_eq!(first(&["ZcQpLmXa", "HhJjKkLl"]), "ZcQpLmXa");
    assert_eq!(first(&["ZcQpLmXa", "BkTqWmFd"]), "ZcQpLmXa");
}
