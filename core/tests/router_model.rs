//! Any number of routers answers as one map of sets does.

#![cfg(feature = "testing")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tidings_core::testing::router_model::{check, op};

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/proptest-regressions/router_model.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn routers_agree_with_a_map_of_sets(shards in 1..=4_usize, script in vec(op(), 0..120)) {
        check(shards, script);
    }
}
