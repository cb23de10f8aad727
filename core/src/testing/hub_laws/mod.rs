//! What a [`Hub`](crate::Hub) promises on every bus, one function per law: the suite that a bus must pass as a part of
//! the whole, beside [`bus_laws!`](crate::bus_laws).
//!
//! Hubs, clients and connections in memory are the same on each bus; the bus and its faults are the fixture's. Tests on
//! a clock that they move are not among them, since no server follows such a clock: they are tests of core.

pub mod connections;
pub mod cuts;
pub mod drain;
pub mod history;
pub mod leases;
mod lossy;
pub mod nodes;
pub mod observer;
pub mod policies;
pub mod presence;
pub mod scene;
pub mod slow;

/// Makes one `#[test]` of each law of a hub, for a
/// [`BusFixture`](crate::testing::bus_laws::BusFixture) whose bus has history and presence.
///
/// ```
/// # mod fixture {
/// # use std::sync::Arc;
/// # use tidings_bus_memory::MemoryBus;
/// # use tidings_core::{Bus, testing::bus_laws::BusFixture};
/// # pub struct Fixture(MemoryBus);
/// # impl BusFixture for Fixture {
/// #     const HISTORY: bool = true;
/// #     const PRESENCE: bool = true;
/// #     async fn start() -> Self { Self(MemoryBus::default()) }
/// #     fn bus(&self) -> Arc<dyn Bus> { Arc::new(self.0.clone()) }
/// #     async fn break_links(&self) { self.0.cut_links(); }
/// #     async fn lose_store(&self) { self.0.flush(); }
/// #     async fn set_available(&self, available: bool) { self.0.set_available(available); }
/// # }
/// # }
/// # use fixture::Fixture;
/// // Some laws of the two have the same name.
/// mod hub {
///     use super::Fixture;
///     tidings_core::hub_laws!(Fixture);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! hub_laws {
    ($fixture:ty) => {
        const _: () = assert!(
            <$fixture as $crate::testing::bus_laws::BusFixture>::HISTORY
                && <$fixture as $crate::testing::bus_laws::BusFixture>::PRESENCE,
            "the laws of a hub need a bus that has history and presence"
        );
        $crate::hub_laws! { $fixture: connections:
            nothing_comes_before_connected
            a_room_is_heard_from_join_to_leave
            an_exclusion_survives_the_bus
            a_panic_in_a_handler_ends_one_connection
            a_client_that_stops_reading_is_bounded_and_harms_nobody
            order_is_kept_over_two_hubs
            a_user_has_so_many_connections_and_no_more
            a_dropped_connection_leaves_nothing
            a_cut_bus_that_keeps_nothing_is_told_as_a_gap_and_goes_on
            an_absent_bus_takes_no_joins_and_no_connections
        }
        $crate::hub_laws! { $fixture: cuts:
            a_gap_that_was_cut_off_is_told_to_who_comes_back
            a_live_gap_that_was_cut_off_is_told_to_who_comes_back
        }
        $crate::hub_laws! { $fixture: drain:
            who_leaves_a_draining_node_loses_nothing
        }
        $crate::hub_laws! { $fixture: history:
            who_comes_back_gets_what_it_missed_in_order_and_then_what_is_live
            each_cursor_on_the_way_is_good_to_go_on_from
            a_join_with_a_cursor_replays_the_room_and_nothing_twice
            a_message_that_the_link_lost_comes_before_the_next_of_its_topic
            the_first_messages_of_a_room_are_read_when_the_link_lost_them
            what_a_link_lost_before_it_died_is_read_and_no_gap_is_told
            a_lost_last_message_is_found_by_the_look_at_the_tops
            a_connection_that_hears_nothing_is_sent_a_newer_cursor
            a_cut_link_is_mended_and_clients_notice_nothing
            what_is_no_longer_kept_is_told_and_the_rest_follows
            a_flushed_store_is_told_as_a_gap
            a_cursor_that_is_none_is_told_and_live_goes_on
            a_cursor_of_a_store_that_was_lost_is_of_another_epoch
            exclusions_hold_on_replay
            a_replay_of_any_length_fits_a_small_outbox
            a_room_that_cannot_be_joined_now_does_not_let_the_cursor_pass_it
        }
        $crate::hub_laws! { $fixture: leases:
            a_node_started_again_under_its_name_shows_nobody_of_its_last_run
            connections_of_a_dead_node_refuse_nobody_for_good
        }
        $crate::hub_laws! { $fixture: nodes:
            a_message_is_submitted_at_any_node
            whom_no_node_has_is_not_found
            a_disconnect_reaches_all_nodes
            what_is_near_is_disconnected_without_the_bus
            a_disconnect_outlives_an_outage
            a_node_that_cannot_be_reached_is_an_error
            a_node_that_has_ended_is_not_waited_for
            a_node_that_does_not_answer_is_waited_for_in_bounded_time
            clients_neither_cause_nor_see_what_nodes_say
            a_node_has_a_name
        }
        $crate::hub_laws! { $fixture: observer:
            a_connection_is_told_from_its_first_to_its_last_event
            a_lost_link_and_its_gaps_are_told
            who_is_refused_or_too_slow_or_too_fast_is_told
            what_is_dropped_of_a_slow_client_is_told_as_a_gap
            a_write_that_takes_too_long_is_told
            an_observer_with_a_bug_harms_nobody
        }
        $crate::hub_laws! { $fixture: policies:
            by_default_it_is_disconnected_and_resumes_with_everything
            the_oldest_are_dropped_and_a_gap_stands_in_their_place
            only_the_latest_of_a_key_stays
        }
        $crate::hub_laws! { $fixture: presence:
            a_user_comes_with_the_first_connection_and_goes_with_the_last_over_all_nodes
            who_comes_back_at_once_was_not_away
            who_leaves_in_order_is_gone_at_once
            who_may_come_back_lingers
            rooms_without_presence_show_nobody
            a_user_has_so_many_connections_over_all_nodes
            a_store_that_lost_its_claims_gets_them_again
            rooms_in_the_request_are_shown_too_also_to_who_comes_back
            rooms_in_the_request_tell_who_comes_and_goes_and_their_messages_follow
            who_is_in_a_room_already_may_ask_later_who_else_is
        }
        $crate::hub_laws! { $fixture: slow:
            a_full_outbox_ends_at_once_although_a_write_waits
            a_frame_that_has_begun_is_finished_before_the_reason_is_told
            half_a_frame_that_nobody_takes_is_cut_and_seen_as_too_slow
            a_frame_whose_turn_does_not_come_ends_the_connection
            a_token_expires_although_a_write_waits
        }
    };
    ($fixture:ty: $laws:ident: $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                $crate::testing::bus_laws::run(
                    $crate::testing::hub_laws::$laws::$law::<$fixture>(),
                );
            }
        )*
    };
}
