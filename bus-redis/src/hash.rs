//! Which partition a topic belongs to, and how the partitions of a cluster are named so that they spread evenly.

/// One of several names for a text: the one that scores highest with it. A name more or less moves only the texts
/// that it wins or loses, and the order of the names does not matter.
///
/// A score is `mix(fnv1a(text) ^ fnv1a(name))`: FNV-1a of 64 bits, mixed as SplitMix64 does.
pub(crate) fn choose(text: &str, names: impl Iterator<Item = u64>) -> usize {
    let hash = fnv1a(text);
    let scores = names.enumerate().map(|(n, name)| (mix(hash ^ name), n));
    scores.max().map_or(0, |(_, n)| n)
}

/// FNV-1a of 64 bits.
pub(crate) fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The slot of a hash tag in a cluster (CRC16/XMODEM, as Redis' cluster specification says).
pub(crate) fn slot(tag: &str) -> u16 {
    let step = |crc: u16, byte: u8| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    };
    tag.bytes().fold(0, step) % SLOTS
}

/// The hash tag of a partition out of `count`: the first number whose slot is near the middle of the partition's
/// share of all slots. So any even division of the slots among primaries divides the partitions evenly.
pub(crate) fn tag(partition: u16, count: u16) -> String {
    let (partition, count) = (u32::from(partition), u32::from(count));
    let share = u32::from(SLOTS) / count;
    let middle = partition * u32::from(SLOTS) / count + share / 2;
    let near = |tag: &String| u32::from(slot(tag)).abs_diff(middle) <= share / 8;
    let tag = (0..u32::MAX).map(|n| n.to_string()).find(near);
    tag.expect("every slot is that of some number")
}

const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12_182);
    }

    #[test]
    fn tags_are_distinct_and_spread_over_all_slots() {
        for count in [1, 2, 3, 16, 256] {
            let tags: HashSet<_> = (0..count).map(|p| tag(p, count)).collect();
            assert_eq!(tags.len(), usize::from(count));
        }
        for primaries in [1, 2, 3, 4, 5, 8] {
            let mut counts = vec![0; primaries];
            for partition in 0..16 {
                let slot = usize::from(slot(&tag(partition, 16)));
                counts[slot * primaries / usize::from(SLOTS)] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(most.zip(least).is_some_and(|(m, l)| m - l <= 1), "{primaries}: {counts:?}");
        }
    }

    #[test]
    fn the_tags_of_sixteen_partitions_stay_as_documented() {
        let tags: Vec<_> = (0..16).map(|p| tag(p, 16)).collect();
        assert_eq!(tags.join(" "), DOCUMENTED);
    }

    #[test]
    fn topics_spread_and_a_new_name_takes_only_its_share() {
        let names: Vec<_> = (0..5).map(|n| fnv1a(&format!("redis-{n}:6379"))).collect();
        let (mut counts, mut moved) = ([0; 4], 0);
        for n in 0..4000 {
            let text = format!("r::room {n}");
            let before = choose(&text, names[..4].iter().copied());
            let after = choose(&text, names.iter().copied());
            counts[before] += 1;
            assert!(after == before || after == 4);
            moved += usize::from(after == 4);
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        assert!((650..950).contains(&moved), "{moved}");
    }

    const DOCUMENTED: &str = "18 3 65 140 19 2 64 141 106 1 67 49 107 0 66 48";
}
