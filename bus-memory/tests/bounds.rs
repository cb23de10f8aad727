//! What the in-process bus does beyond the laws: the bound of a queue, its death and its absence.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tidings_bus_memory::MemoryBus;
use tidings_core::{
    Bus, BusError, BusLink, Delivery, Message, Publication, RoomId, TenantId, Topic,
};

mod common;
use common::now;

/// A publication that takes exactly `bytes` of a queue.
fn of_size(bytes: usize) -> Publication {
    let kind = "k";
    let text = bytes - size_of::<Delivery>() - kind.len() - "\"\"".len();
    let message = Message::of(kind, &"x".repeat(text)).unwrap();
    Publication::new(Topic::room(TenantId::default(), RoomId::new("room").unwrap()), message)
}

fn link(bus: &MemoryBus) -> BusLink {
    let mut link = now(bus.connect(0)).unwrap();
    now(link.interest.subscribe(&[of_size(1000).topic])).unwrap();
    link
}

fn handed(bus: &MemoryBus, publication: Publication) -> u32 {
    let answer = now(bus.publish(vec![publication])).pop().unwrap();
    answer.unwrap().links.unwrap()
}

fn read(link: &mut BusLink) -> Poll<Option<Result<Delivery, BusError>>> {
    link.deliveries.as_mut().poll_next(&mut Context::from_waker(Waker::noop()))
}

fn reads_one(link: &mut BusLink) -> bool {
    matches!(read(link), Poll::Ready(Some(Ok(_))))
}

#[test]
fn a_queue_takes_its_bound_to_the_byte() {
    let bus = MemoryBus::with_queue_bytes(3000);
    let mut link = link(&bus);
    for _ in 0..3 {
        assert_eq!(handed(&bus, of_size(1000)), 1);
    }
    for _ in 0..3 {
        assert!(reads_one(&mut link));
    }
    assert!(read(&mut link).is_pending());
    assert_eq!(handed(&bus, of_size(3000)), 1, "what was read makes room");
    assert!(reads_one(&mut link));
}

#[test]
fn one_byte_over_the_bound_ends_the_link_and_no_other() {
    let bus = MemoryBus::with_queue_bytes(3000);
    let (mut slow, mut quick) = (link(&bus), link(&bus));
    assert_eq!(handed(&bus, of_size(1000)), 2);
    assert!(reads_one(&mut quick));
    assert_eq!(handed(&bus, of_size(2001)), 1);
    assert_eq!(handed(&bus, of_size(500)), 1, "a cut link is no listener any more");
    assert!(reads_one(&mut quick) && reads_one(&mut quick));
    assert!(reads_one(&mut slow), "what fitted is still delivered");
    assert!(matches!(read(&mut slow), Poll::Ready(Some(Err(BusError::Lagged(_))))));
    assert!(matches!(read(&mut slow), Poll::Ready(None)));
    assert!(matches!(read(&mut slow), Poll::Ready(None)));
    assert!(now(slow.interest.subscribe(&[of_size(1000).topic])).is_err());
    assert!(read(&mut quick).is_pending());
}

#[test]
fn a_dropped_stream_is_no_listener() {
    let bus = MemoryBus::default();
    let (kept, dropped) = (link(&bus), link(&bus));
    assert_eq!(handed(&bus, of_size(1000)), 2);
    drop(dropped.deliveries);
    assert_eq!(handed(&bus, of_size(1000)), 1);
    drop(kept);
    assert_eq!(handed(&bus, of_size(1000)), 0);
    assert!(!format!("{bus:?}").contains("room"), "nothing is kept of topics without listeners");
}

#[test]
fn an_absent_bus_refuses_and_ends_its_links() {
    let bus = MemoryBus::default();
    let mut before = link(&bus);
    bus.set_available(false);
    assert!(matches!(read(&mut before), Poll::Ready(None)));
    assert!(matches!(now(bus.connect(0)), Err(BusError::Unavailable(_))));
    let answers = now(bus.publish(vec![of_size(1000), of_size(1000)]));
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| matches!(answer, Err(BusError::Unavailable(_)))));
    bus.set_available(true);
    let mut after = link(&bus);
    assert_eq!(handed(&bus, of_size(1000)), 1);
    assert!(reads_one(&mut after));
    assert!(matches!(read(&mut before), Poll::Ready(None)));
}

#[test]
fn a_waiting_reader_wakes_for_a_delivery_and_for_the_end() {
    let bus = MemoryBus::default();
    let mut link = link(&bus);
    let publisher = bus.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (pending, waiting) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            waiting.recv().unwrap();
            assert_eq!(handed(&publisher, of_size(1000)), 1);
            waiting.recv().unwrap();
            publisher.cut_links();
        });
        for expected in [true, false] {
            let item = poll_fn(|cx| {
                let item = link.deliveries.as_mut().poll_next(cx);
                if item.is_pending() {
                    let _ = pending.send(());
                }
                item
            });
            assert_eq!(item.await.is_some(), expected);
        }
        thread.join().unwrap();
    });
}

#[test]
fn there_is_one_partition() {
    let bus = MemoryBus::default();
    assert_eq!((bus.partitions(), bus.partition(&of_size(1000).topic)), (1, 0));
    assert!(matches!(now(bus.connect(1)), Err(BusError::Refused(_))));
    assert!(bus.history().is_some() && bus.presence().is_some());
}
