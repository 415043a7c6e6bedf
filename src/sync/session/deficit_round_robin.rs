//! Deficit round robin over the lanes that share what control and commands leave of a link: each gets its weight, none starves.

use crate::sync::link::Lane;

/// Lanes that share, with the weight of each: its share of the link while all have bytes to send.
const WEIGHTS: [(Lane, usize); 3] = [(Lane::Merged, 4), (Lane::Latest, 2), (Lane::Bulk, 1)];

/// Current lane, and the bytes left of its turn. A turn that ends because the link is full continues when there is room again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct DeficitRoundRobin {
    at: usize,
    left: usize,
}

impl DeficitRoundRobin {
    /// Lets lanes in turn hand over at most the bytes left of their turns, until none can. `hand` returns how many bytes the
    /// link took and how many still wait.
    pub(super) fn share(&mut self, quantum: usize, mut hand: impl FnMut(Lane, usize) -> (usize, usize)) {
        // The turn to resume: the one in progress when no lane could hand over more.
        let mut full_at = *self;
        let mut stuck = 0;
        while stuck < WEIGHTS.len() {
            let (lane, weight) = WEIGHTS[self.at];
            if self.left == 0 {
                self.left = weight * quantum;
            }
            let (taken, waiting) = hand(lane, self.left);
            self.left -= taken;
            if taken > 0 {
                stuck = 0;
            }
            if waiting > 0 && self.left > 0 {
                // Either the link takes no more, or the receiver of this lane.
                if stuck == 0 {
                    full_at = *self;
                }
                stuck += 1;
            } else if waiting == 0 {
                if stuck == 0 {
                    full_at = DeficitRoundRobin { at: (self.at + 1) % WEIGHTS.len(), left: 0 };
                }
                stuck += 1;
            }
            self.at = (self.at + 1) % WEIGHTS.len();
            self.left = 0;
        }
        *self = full_at;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Gives each lane `waiting` bytes in every round, on a link that takes `room` bytes per round; returns the bytes sent by
    /// lane.
    fn shared(rounds: usize, room: usize, waiting: &[(Lane, usize)]) -> BTreeMap<Lane, usize> {
        let (mut turns, mut sent) = (DeficitRoundRobin::default(), BTreeMap::new());
        for _ in 0..rounds {
            let mut left: BTreeMap<Lane, usize> = waiting.iter().copied().collect();
            let mut room = room;
            turns.share(256, |lane, most| {
                let waits = left.entry(lane).or_default();
                let taken = most.min(*waits).min(room);
                room -= taken;
                *waits -= taken;
                *sent.entry(lane).or_default() += taken;
                (taken, *waits)
            });
        }
        sent
    }

    #[test]
    fn lanes_share_by_weight_however_little_the_link_takes_at_a_time() {
        for room in [100, 700, 1_200, 5_000] {
            let all = [(Lane::Merged, 100_000), (Lane::Latest, 100_000), (Lane::Bulk, 100_000)];
            let sent = shared(2_000, room, &all);
            let total: usize = sent.values().sum();
            assert_eq!(total, 2_000 * room);
            for (lane, weight) in WEIGHTS {
                let share = sent[&lane] as f64 / total as f64;
                let due = weight as f64 / 7.0;
                assert!(
                    (share - due).abs() < 0.02,
                    "{lane} has {share:.3} of the link, not {due:.3}, at {room} a time"
                );
            }
        }
    }

    #[test]
    fn who_is_alone_has_the_whole_link() {
        assert_eq!(shared(10, 5_000, &[(Lane::Bulk, 100_000)])[&Lane::Bulk], 50_000);
    }

    #[test]
    fn what_one_lane_leaves_the_others_take() {
        let sent = shared(1_000, 1_000, &[(Lane::Merged, 100), (Lane::Bulk, 100_000)]);
        assert_eq!((sent[&Lane::Merged], sent[&Lane::Bulk]), (100_000, 900_000));
    }
}
