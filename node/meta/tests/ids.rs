//! Identities as texts, and the order of stamps.

use ais_meta::{BucketName, ClusterUuid, DiskId, NodeId, RequestId, Stamp, VoterId};
use proptest::prelude::*;

#[test]
fn what_is_an_id_and_what_is_not() {
    for good in ["g1", "demo-gateway-0", "A.b_c-9", &"x".repeat(63)] {
        assert_eq!(good.parse::<NodeId>().unwrap().as_str(), good);
    }
    for bad in ["", "a b", "a/b", "ü", "a\n", &"x".repeat(64)] {
        assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
    }
    for good in ["kJ8sPq2Lx", "9_letters", &"x".repeat(64)] {
        assert!(good.parse::<ClusterUuid>().is_ok(), "{good}");
    }
    for bad in ["8letters", "with.dots", &"x".repeat(65), ""] {
        assert!(bad.parse::<ClusterUuid>().is_err(), "{bad:?}");
    }
    for bad in ["", "1", "00000000000000001", "000000000000000g", "+00000000000000f", "0x0000000000000f"] {
        assert!(bad.parse::<DiskId>().is_err(), "{bad:?}");
    }
    for bad in ["g1", "g1/", "/0000000000000001", "g1/1", "g1/0000000000000001/x", "a b/0000000000000001"] {
        assert!(bad.parse::<VoterId>().is_err(), "{bad:?}");
    }
}

#[test]
fn bucket_names_follow_aistores_rules() {
    for good in ["nnn", "a.b-c_d", "0", &"x".repeat(64)] {
        assert!(good.parse::<BucketName>().is_ok(), "{good}");
    }
    for bad in ["", ".a", "a..b", "a/b", "a b", "ü", &"x".repeat(65)] {
        assert!(bad.parse::<BucketName>().is_err(), "{bad:?}");
    }
    assert!(BucketName::new("n.s", "b").is_err());
    assert_eq!(BucketName::new("ns", "b").unwrap().to_string(), "ais://#ns/b");
    assert_eq!("b".parse::<BucketName>().unwrap().to_string(), "ais://b");
}

#[test]
fn stamps_are_ordered_by_incarnation_then_epoch_then_sequence() {
    let ascending =
        [(0, 1, 1), (0, 1, 2), (0, 2, 1), (0, 9, 9), (1, 0, 0), (1, 1, 1)].map(|(i, e, s)| Stamp::new(i, e, s));
    assert!(ascending.is_sorted_by(|a, b| a < b));
    assert_eq!(Stamp::new(1, 2, 3).next(), Stamp::new(1, 2, 4));
    assert_eq!(Stamp::new(1, 2, 3).to_string(), "1.2.3");
}

#[test]
fn request_ids_name_themselves() {
    let origin: VoterId = "g1/00000000000000ff".parse().unwrap();
    let id = RequestId::Gateway { origin, run: 3, seq: 9 };
    assert_eq!(id.to_string(), "g1/00000000000000ff#3.9");
    assert_eq!(RequestId::Client("job-7".to_owned()).to_string(), "job-7");
}

proptest! {
    #[test]
    fn ids_read_back_as_they_were_written(node in "[A-Za-z0-9._-]{1,63}", disk: u64) {
        let id = VoterId::new(node.parse().unwrap(), DiskId(disk));
        prop_assert_eq!(id.to_string().parse::<VoterId>().unwrap(), id.clone());
        let bytes = rmp_serde::to_vec_named(&id).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<VoterId>(&bytes).unwrap(), id);
    }

    #[test]
    fn no_text_makes_an_id_panic(text in "\\PC{0,80}") {
        drop((text.parse::<NodeId>(), text.parse::<DiskId>(), text.parse::<VoterId>()));
        drop((text.parse::<ClusterUuid>(), text.parse::<BucketName>()));
    }
}
