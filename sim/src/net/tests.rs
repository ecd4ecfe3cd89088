use quickcheck::quickcheck;

use super::*;
use crate::heap::EventHeap;

const MS: Duration = Duration::from_millis(1);
const A: u64 = 1;
const B: u64 = 2;

fn net(options: LinkOptions, seed: u64) -> SimNet<u64> {
    SimNet::new([(LinkClass::CONTROL, options)], Prng::new(seed))
}

fn hostile() -> LinkOptions {
    LinkOptions {
        delivery: Delivery::Datagram,
        latency: Latency::between(MS, MS * 3),
        loss_per_mille: 100,
        duplicate_per_mille: 100,
        reorder_per_mille: 200,
        ..LinkOptions::HEALTHY
    }
}

/// Sends numbers from A to B, one each millisecond, and returns those that arrive, in order, and how often B is told
/// of a broken connection.
fn exchange(
    net: &mut SimNet<u64>,
    count: u32,
    mut between: impl FnMut(u32, &mut SimNet<u64>),
) -> (Vec<u32>, u32) {
    let mut heap = EventHeap::new();
    let (mut arrived, mut resets) = (Vec::new(), 0);
    for number in 0..count {
        heap.schedule_at(Instant(u64::from(number) * 1_000_000), Err(number));
    }
    while let Some(event) = heap.pop() {
        match event {
            Err(number) => {
                between(number, net);
                let bytes = Bytes::copy_from_slice(&number.to_le_bytes());
                for (at, event) in net.send(heap.now(), A, B, LinkClass::CONTROL, bytes) {
                    heap.schedule_at(at, Ok(event));
                }
            }
            Ok(NetEvent::Frame(frame)) => {
                if let Some(frame) = net.arrive(frame) {
                    arrived.push(u32::from_le_bytes(frame.bytes.as_ref().try_into().unwrap()));
                }
            }
            Ok(NetEvent::Reset { node, .. }) => resets += u32::from(node == B),
        }
    }
    (arrived, resets)
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_and_never_invented() {
    let mut net = net(hostile(), 1);
    let (arrived, _) = exchange(&mut net, 1000, |_, _| {});
    let distinct: BTreeSet<_> = arrived.iter().copied().collect();
    assert!(distinct.len() < 950, "some are lost");
    assert!(distinct.len() < arrived.len(), "some come twice");
    assert!(!arrived.is_sorted(), "some are overtaken");
    assert!(distinct.iter().all(|&number| number < 1000));
    let statistics = net.statistics();
    assert_eq!(statistics.sent, 1000);
    assert_eq!(statistics.delivered, 1000 - statistics.lost + statistics.duplicated);
}

#[test]
fn a_healthy_stream_delivers_everything_once_and_in_order() {
    let jittery = LinkOptions { latency: Latency::between(MS, MS * 50), ..LinkOptions::HEALTHY };
    let (arrived, resets) = exchange(&mut net(jittery, 2), 500, |_, _| {});
    assert_eq!(arrived, (0..500).collect::<Vec<_>>());
    assert_eq!(resets, 0);
}

#[test]
fn a_stream_that_breaks_loses_frames_in_flight_and_tells_its_ends() {
    let breaking =
        LinkOptions { latency: Latency::between(MS, MS * 5), loss_per_mille: 20, ..LinkOptions::HEALTHY };
    let (arrived, resets) = exchange(&mut net(breaking, 3), 1000, |_, _| {});
    assert!(arrived.is_sorted() && arrived.windows(2).all(|pair| pair[0] < pair[1]), "in order, once");
    assert!(arrived.len() < 1000 && arrived.len() > 500);
    assert!(resets > 5);
}

#[test]
fn a_partition_swallows_what_is_under_way_and_what_is_sent_until_it_heals() {
    for delivery in [Delivery::Datagram, Delivery::Stream] {
        let options = LinkOptions { delivery, latency: Latency::fixed(MS * 10), ..LinkOptions::HEALTHY };
        let (arrived, _) = exchange(&mut net(options, 4), 100, |number, net| match number {
            30 => net.partition(&[A], &[B], Direction::Both),
            60 => net.heal(),
            _ => {}
        });
        let through: Vec<u32> = (0..20).chain(60..100).collect();
        let missing: Vec<_> = through.iter().filter(|number| !arrived.contains(number)).collect();
        assert!(missing.len() <= 1, "{delivery:?}: lost {missing:?}; a stream may need a frame to notice");
        assert!(arrived.iter().all(|number| *number < 21 || *number >= 60), "{delivery:?}: {arrived:?}");
    }
}

#[test]
fn a_stream_that_lost_a_frame_to_a_partition_delivers_none_of_the_later_ones() {
    let mut net = net(LinkOptions::HEALTHY, 8);
    let send = |net: &mut SimNet<u64>| {
        net.send(Instant::ZERO, A, B, LinkClass::CONTROL, Bytes::new())
            .map(|(_, event)| event)
            .collect::<Vec<_>>()
    };
    let (lost, later) = (send(&mut net), send(&mut net));
    net.partition(&[A], &[B], Direction::Both);
    let [NetEvent::Frame(frame)] = lost.as_slice() else { panic!("{lost:?}") };
    assert_eq!(net.arrive(frame.clone()), None);
    net.heal();
    let [NetEvent::Frame(frame)] = later.as_slice() else { panic!("{later:?}") };
    assert_eq!(net.arrive(frame.clone()), None);
    let told = send(&mut net);
    assert!(told.iter().all(|event| matches!(event, NetEvent::Reset { .. })) && told.len() == 2, "{told:?}");
    assert!(matches!(send(&mut net).as_slice(), [NetEvent::Frame(_)]), "the next connection");
}

#[test]
fn a_one_way_partition_blocks_one_way() {
    let mut net = net(LinkOptions::HEALTHY, 5);
    net.partition(&[A], &[B], Direction::OneWay);
    assert!(net.is_blocked(A, B) && !net.is_blocked(B, A) && net.is_partitioned());
    net.heal_between(B, A);
    assert!(!net.is_partitioned());
}

#[test]
fn a_process_that_ends_takes_its_connections_and_what_is_on_them_along() {
    let options = LinkOptions { latency: Latency::fixed(MS), ..LinkOptions::HEALTHY };
    let mut net = net(options, 6);
    let sent: Vec<_> = net.send(Instant::ZERO, A, B, LinkClass::CONTROL, Bytes::from_static(b"x")).collect();
    let told = net.disconnect(Instant::ZERO, A);
    assert_eq!(told, [(Instant(1_000_000), NetEvent::Reset { node: B, peer: A, class: LinkClass::CONTROL })]);
    let [(_, NetEvent::Frame(frame))] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(net.arrive(frame.clone()), None);
    let again: Vec<_> = net.send(Instant::ZERO, A, B, LinkClass::CONTROL, Bytes::from_static(b"y")).collect();
    let [(_, NetEvent::Frame(frame))] = again.as_slice() else { panic!("{again:?}") };
    assert!(net.arrive(frame.clone()).is_some(), "the next connection works");
}

#[test]
fn a_degraded_link_is_slow_until_it_is_restored() {
    let mut net = net(LinkOptions::HEALTHY, 7);
    let slow = LinkOptions { latency: Latency::fixed(MS * 500), ..LinkOptions::HEALTHY };
    let arrival = |net: &mut SimNet<u64>| {
        net.send(Instant::ZERO, A, B, LinkClass::BULK, Bytes::new()).next().map(|(at, _)| at)
    };
    let usual = arrival(&mut net).unwrap();
    net.degrade(A, B, slow);
    assert!(arrival(&mut net).unwrap() >= Instant(500_000_000));
    net.restore();
    assert!(usual < Instant(1_000_000));
}

quickcheck! {
    fn the_same_seed_makes_the_same_network(seed: u64) -> bool {
        exchange(&mut net(hostile(), seed), 50, |_, _| {}) == exchange(&mut net(hostile(), seed), 50, |_, _| {})
    }
}
