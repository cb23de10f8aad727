//! What the in-process bus does beyond the laws of presence: leases to the tick, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::time::Duration;

use tidings_bus_memory::{Config, MemoryBus};
use tidings_core::{Bus, BusError, Claim, LeaseId, Presence, Tally, UserId};

mod common;
use common::{Clock, HOUR, MINUTE, SECOND, TICK, now, room};

fn bus() -> (MemoryBus, Clock) {
    let clock = Clock::default();
    let mut config = Config::default();
    config.clock = clock.reader();
    (MemoryBus::new(config), clock)
}

fn lease(name: &str) -> LeaseId {
    LeaseId::new(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn claim(bus: &MemoryBus, under: &str, time: Duration, name: &str, connections: u32) -> Tally {
    let claim = Claim { topic: room("lobby"), user: user(name), connections };
    now(bus.begin(0, &lease(under), time)).unwrap();
    now(Presence::claim(bus, 0, &lease(under), &[claim])).unwrap().unwrap().remove(0)
}

#[test]
fn a_lease_ends_to_the_tick() {
    let (bus, clock) = bus();
    assert!(!now(bus.renew(0, &lease("n1"), MINUTE)).unwrap(), "it has not begun");
    claim(&bus, "n1", MINUTE, "ann", 1);
    clock.pass(MINUTE - TICK);
    assert_eq!(now(bus.expire(0)).unwrap(), []);
    assert!(now(bus.renew(0, &lease("n1"), MINUTE)).unwrap());
    clock.pass(MINUTE - TICK);
    assert_eq!(now(bus.expire(0)).unwrap(), []);
    clock.pass(TICK);
    assert!(!now(bus.renew(0, &lease("n1"), MINUTE)).unwrap(), "too late");
    let claims = [Claim { topic: room("lobby"), user: user("bob"), connections: 1 }];
    assert_eq!(now(Presence::claim(&bus, 0, &lease("n1"), &claims)).unwrap(), None, "too late");
    assert_eq!(now(bus.members(&room("lobby"))).unwrap(), [user("ann")], "until it is expired");
    assert_eq!(now(bus.expire(0)).unwrap(), [(room("lobby"), user("ann"))]);
    assert_eq!(now(bus.expire(0)).unwrap(), []);
    assert_eq!(now(bus.count(&room("lobby"))).unwrap(), 0);
}

#[test]
fn a_node_that_lapses_again_and_again_leaves_nothing() {
    let (bus, clock) = bus();
    let mut gone = 0;
    for n in 0..100 {
        let under = format!("n1, {n}");
        let tally = claim(&bus, &under, SECOND, "ann", 1);
        assert!(tally.after > tally.before);
        claim(&bus, &under, SECOND, &format!("user {n}"), 3);
        clock.pass(SECOND);
        if n % 10 == 9 {
            gone += now(bus.expire(0)).unwrap().len();
        }
    }
    assert_eq!(gone, 100 + 10);
    let text = format!("{bus:?}");
    assert!(!text.contains("ann") && !text.contains("n1"), "{text}");
}

#[test]
fn ended_claims_leave_nothing() {
    let (bus, clock) = bus();
    for connections in [2, 1, 0] {
        claim(&bus, "n1", HOUR, "ann", connections);
    }
    let text = format!("{bus:?}");
    assert!(!text.contains("ann") && !text.contains("lobby"), "{text}");
    clock.pass(HOUR);
    assert_eq!(now(bus.expire(0)).unwrap(), []);
}

#[test]
fn an_absent_bus_refuses_every_question() {
    let (bus, _) = bus();
    claim(&bus, "n1", HOUR, "ann", 1);
    bus.set_available(false);
    let away = |error| matches!(error, BusError::Unavailable(_));
    let history = bus.history().unwrap();
    assert!(now(history.cursor_key()).is_err_and(away));
    assert!(now(history.tops(0, &[])).is_err_and(away));
    assert!(now(history.after(&room("lobby"), 0, 1)).is_err_and(away));
    assert!(now(bus.expire(0)).is_err_and(away));
    assert!(now(bus.renew(0, &lease("n1"), HOUR)).is_err_and(away));
    assert!(now(bus.members(&room("lobby"))).is_err_and(away));
    assert!(now(bus.count(&room("lobby"))).is_err_and(away));
    assert!(now(bus.begin(0, &lease("n2"), HOUR)).is_err_and(away));
    let claims = [1, 2].map(|n| Claim { topic: room("lobby"), user: user("bob"), connections: n });
    assert!(now(Presence::claim(&bus, 0, &lease("n1"), &claims)).is_err_and(away));
    bus.set_available(true);
    assert_eq!(now(bus.members(&room("lobby"))).unwrap(), [user("ann")], "absence loses nothing");
}
