//! Channels: what arrives, and in what order; among threads, and after those who gave up in the
//! middle.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use semlock::raw::layout::{Size, channel};
use semlock::raw::{self, Tried};
use semlock::{Address, Channel, Deadline, Error, Event, Shared, Wait};

/// A watchdog, so that a lost wake-up is a failure and not a hang.
fn watchdog() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(5))
}

fn receive(channel: &Channel) -> Vec<u8> {
    channel.receive_until(watchdog()).unwrap().expect("a message")
}

/// A buffer for which there is no memory.
struct Full;

impl raw::Buffer for Full {
    fn begin(&mut self, _: usize) -> Result<(), Error> {
        Err(Error::Os { call: "malloc", errno: 12 })
    }
    fn bytes(&mut self) -> &mut [u8] {
        unreachable!("there is none")
    }
}

/// A message that tells its number and its length in every byte.
fn message(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number.wrapping_mul(31) ^ at ^ at >> 8 ^ bytes).to_ne_bytes()[0]).collect()
}

/// Lengths around those where something changes.
fn lengths(capacity: usize) -> Vec<usize> {
    let part = capacity / 4 - 16;
    let around = [0, 8, part, 2 * part, capacity / 2, capacity - 8, capacity, 4 * part];
    let mut all: BTreeSet<_> =
        around.iter().flat_map(|&at| (0..20).map(move |by| (at + by).saturating_sub(10))).collect();
    all.extend([10 * capacity, 10 * capacity + 3]);
    all.into_iter().collect()
}

#[test]
fn messages_of_all_lengths_arrive_whole_and_in_order() {
    for capacity in [512, 4096, Channel::CAPACITY] {
        let channel = Channel::with_capacity(capacity).unwrap();
        let lengths = lengths(channel.capacity());
        thread::scope(|scope| {
            scope.spawn(|| {
                for (number, &bytes) in lengths.iter().enumerate() {
                    channel.send(&message(number, bytes)).unwrap();
                }
            });
            for (number, &bytes) in lengths.iter().enumerate() {
                assert!(receive(&channel) == message(number, bytes), "{bytes} of {capacity}");
            }
        });
        assert!(channel.is_empty());
        assert_eq!(channel.len(), 0);
    }
}

#[test]
fn a_message_in_pieces_arrives_as_one() {
    let channel = raw::Channel::new(512).unwrap();
    let whole = message(7, 300);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2_000 {
        let bytes = random.usize(..300);
        let mut cuts: Vec<_> = (0..random.usize(..6)).map(|_| random.usize(..=bytes)).collect();
        cuts.extend([0, bytes]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
        assert_eq!(channel.try_send(&pieces).unwrap(), Tried::Done);
        let mut received = Vec::new();
        assert_eq!(channel.try_receive(&mut received).unwrap(), Tried::Done);
        assert_eq!(received, whole[..bytes]);
    }
}

#[test]
fn each_message_goes_to_one_of_several_receivers() {
    const EACH: usize = 3_000;
    let channel = Channel::with_capacity(1024).unwrap();
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for sender in 0..3 {
            let channel = &channel;
            scope.spawn(move || {
                for number in 0..EACH {
                    let number = sender * EACH + number;
                    // Some are larger than the ring.
                    let bytes = if number % 100 == 7 { 3_000 } else { 8 + number % 50 };
                    let mut bytes = message(number, bytes);
                    bytes[..8].copy_from_slice(&number.to_ne_bytes());
                    channel.send(&bytes).unwrap();
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                let numbers: Vec<_> = (0..EACH)
                    .map(|_| {
                        let got = receive(&channel);
                        let number = usize::from_ne_bytes(got[..8].try_into().unwrap());
                        assert_eq!(got[8..], message(number, got.len())[8..]);
                        number
                    })
                    .collect();
                // Those of each sender in its order.
                for sender in 0..3 {
                    let its: Vec<_> = numbers.iter().filter(|&n| n / EACH == sender).collect();
                    assert!(its.is_sorted());
                }
                all.lock().unwrap().extend(numbers);
            });
        }
    });
    let all = all.into_inner().unwrap();
    assert_eq!(all.len(), 3 * EACH);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 3 * EACH);
}

#[test]
fn trying_and_deadlines_end_where_there_is_no_room_and_no_message() {
    let channel = Channel::with_capacity(4096).unwrap();
    assert_eq!(channel.try_receive(), Ok(None));
    assert_eq!(channel.receive_until(soon()), Ok(None));
    assert_eq!(channel.try_send(&[1; 4088]), Ok(true));
    assert_eq!(channel.try_send(&[]), Ok(false));
    assert_eq!(channel.send_until(&[], soon()), Ok(false));
    assert_eq!(channel.len(), 1);
    assert_eq!(channel.try_receive(), Ok(Some(vec![1; 4088])));
    assert_eq!(channel.len(), 0);
    // What is larger than the ring needs a receiver, and comes whole or not at all.
    assert_eq!(channel.try_send(&[2; 5000]), Ok(false));
    assert_eq!(channel.send_until(&[2; 5000], soon()), Ok(false));
    assert_eq!(channel.len(), 0);
    channel.send(b"next").unwrap();
    assert_eq!(channel.receive_until(watchdog()), Ok(Some(b"next".to_vec())));
}

#[test]
fn a_receiver_that_gave_up_in_the_middle_costs_that_message_alone() {
    let channel = raw::Channel::new(4096).unwrap();
    let (begun, gave_up) = (Event::new().unwrap(), Event::new().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            let large = [&[1; 4000][..], &[2; 9000]];
            // Not the last part: the receiver finds no more.
            let mut sending = channel.sending(&large, watchdog());
            assert_eq!(sending.wait(), Ok(Wait::Acquired));
            let mut sending = channel.sending(&[b"next"], watchdog());
            assert_eq!(sending.wait(), Ok(Wait::Acquired));
        });
        scope.spawn(|| {
            struct Impatient<'a>(Vec<u8>, &'a Event);
            impl raw::Buffer for Impatient<'_> {
                fn begin(&mut self, bytes: usize) -> Result<(), Error> {
                    self.1.set();
                    self.0.begin(bytes)
                }
                fn bytes(&mut self) -> &mut [u8] {
                    // The second part has no room: an error in the middle.
                    &mut self.0[..1500]
                }
            }
            let mut buffer = Impatient(Vec::new(), &begun);
            let mut receiving = channel.receiving(&mut buffer, watchdog());
            assert_eq!(receiving.wait(), Err(Error::ChannelOverwritten));
            drop(receiving);
            gave_up.set();
        });
        gave_up.wait();
        assert!(begun.is_set());
        let mut message = Vec::new();
        let mut receiving = channel.receiving(&mut message, watchdog());
        assert_eq!(receiving.wait(), Ok(Wait::Acquired));
        drop(receiving);
        assert_eq!(message, b"next");
    });
    assert!(channel.is_empty());
}

#[test]
fn a_thread_in_the_middle_of_a_message_does_not_wait_for_itself() {
    let channel = raw::Channel::new(512).unwrap();
    let large = [&[0; 5000][..]];
    let mut sending = channel.sending(&large, soon());
    assert_eq!(sending.wait(), Ok(Wait::TimedOut));
    assert_eq!(channel.try_send(&[b"handler's"]), Err(Error::InMidMessage));
    assert_eq!(channel.sending(&[b"handler's"], watchdog()).wait(), Err(Error::InMidMessage));
    drop(sending);
    assert_eq!(channel.sending(&[b"x"], watchdog()).wait(), Ok(Wait::Acquired));
}

/// As a signal's handler would that runs in the middle of a message: what it waits for comes only
/// when the handler has ended.
#[test]
fn a_thread_in_the_middle_of_a_message_waits_for_nothing_that_only_itself_can_do() {
    let channel = raw::Channel::new(512).unwrap();
    let large = [&[0; 5000][..]];
    let mut sending = channel.sending(&large, soon());
    assert_eq!(sending.wait(), Ok(Wait::TimedOut));
    let mut message = Vec::new();
    assert_eq!(channel.receiving(&mut message, watchdog()).wait(), Err(Error::InMidMessage));
    drop(sending);

    let mut full = Full;
    let mut receiving = channel.receiving(&mut full, watchdog());
    assert!(receiving.wait().is_err());
    assert_eq!(channel.sending(&[&[1; 100]], watchdog()).wait(), Err(Error::InMidMessage));
    drop(receiving);
    assert_eq!(channel.receiving(&mut message, soon()).wait(), Ok(Wait::TimedOut));
    assert!(channel.is_empty());
}

fn is_readable(channel: &Channel) -> bool {
    let [reader, _] = channel.bell().unwrap();
    let now = Timespec::try_from(Duration::ZERO).unwrap();
    poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&now)).unwrap() == 1
}

#[test]
fn the_bell_is_readable_while_there_is_a_message() {
    for first in [false, true] {
        let channel = Channel::with_capacity(512).unwrap();
        if first {
            channel.send(b"before anybody asked").unwrap();
        }
        assert_eq!(is_readable(&channel), first);
        for number in 0..3 {
            channel.send(b"one").unwrap();
            channel.send(b"two").unwrap();
            assert!(is_readable(&channel));
            for _ in 0..2 + u8::from(first && number == 0) {
                assert!(is_readable(&channel));
                receive(&channel);
            }
            assert!(!is_readable(&channel));
            assert_eq!(channel.try_receive(), Ok(None));
        }
    }
}

#[test]
fn a_poller_sees_every_message_of_several_senders() {
    const EACH: usize = 500;
    let channel = Channel::with_capacity(512).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..EACH).for_each(|_| channel.send(&[7; 20]).unwrap()));
        }
        let [reader, _] = channel.bell().unwrap();
        let minute = Timespec::try_from(Duration::from_secs(60)).unwrap();
        for _ in 0..3 * EACH {
            let mut ready = [PollFd::new(&reader, PollFlags::IN)];
            assert_eq!(poll(&mut ready, Some(&minute)).unwrap(), 1, "a message that nobody sees");
            while channel.try_receive().unwrap().is_none() {
                assert_eq!(poll(&mut ready, Some(&minute)).unwrap(), 1, "nobody sees it");
            }
        }
    });
    assert!(!is_readable(&channel));
}

fn bell_of(channel: &Channel) -> [OwnedFd; 2] {
    channel.bell().unwrap().map(|end| end.try_clone_to_owned().unwrap())
}

#[test]
fn a_channel_is_opened_by_its_address_and_nothing_else_is() {
    let channel = Channel::with_capacity(512).unwrap();
    let same = Channel::open(channel.address(), None, bell_of(&channel)).unwrap();
    same.send(b"hello").unwrap();
    assert_eq!(receive(&channel), b"hello");

    let event = Event::new().unwrap();
    let wrong = Channel::open(event.address(), None, bell_of(&channel));
    assert!(matches!(wrong, Err(Error::BadAddress(_))));
    let other = Channel::with_capacity(512).unwrap();
    let [reader, _] = bell_of(&channel);
    let [_, writer] = bell_of(&other);
    let wrong = Channel::open(channel.address(), None, [reader, writer]);
    assert!(matches!(wrong, Err(Error::BadSegment(_))));
    for tag in [0, u64::MAX, channel.address().tag ^ 1 << 32] {
        let address = Address { tag, ..channel.address() };
        let wrong = Channel::open(address, None, bell_of(&channel));
        assert!(matches!(wrong, Err(Error::BadAddress(_))));
    }
    assert!(matches!(Channel::with_capacity(4 << 20 | 1), Err(Error::OutOfRange(_))));
    assert!(matches!(Channel::with_capacity(usize::MAX), Err(Error::OutOfRange(_))));
    assert_eq!(Channel::with_capacity(4 << 20).unwrap().capacity(), 4 << 20);
}

/// Whatever another process writes there: an error, or a message; no panic, no hang, and no access
/// outside.
#[test]
fn a_ring_whose_words_say_nonsense_is_an_error() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut errors = 0;
    for _ in 0..3_000 {
        let channel = Channel::with_capacity(512).unwrap();
        for _ in 0..random.usize(..4) {
            channel.send(&message(1, random.usize(..100))).unwrap();
        }
        let memory =
            std::fs::File::from(channel.descriptor().unwrap().try_clone_to_owned().unwrap());
        let word = |at: usize| {
            let mut bytes = [0; 8];
            memory.read_exact_at(&mut bytes, 8 * at as u64).unwrap();
            usize::from_ne_bytes(bytes)
        };
        let size = Size::in_header(|at| word(at) as u64).unwrap();
        let first = size.slot_at(0);
        let ring = size.slot_at(channel::SLOTS);
        let head = size.slot_at(channel::TAKEN) + channel::HEAD;
        for _ in 0..random.usize(1..4) {
            let at = match random.u8(..4) {
                0 => first + channel::TAIL,
                1 => head,
                _ => ring + random.usize(..64),
            };
            let kind = random.u64(..8) << 60;
            let nonsense = match random.u8(..3) {
                0 => random.u64(..),
                1 => kind | random.u64(..600),
                _ => 1 << random.u8(..64),
            };
            memory.write_all_at(&nonsense.to_ne_bytes(), 8 * at as u64).unwrap();
        }
        for _ in 0..5 {
            let sent = channel.try_send(b"x");
            let received = channel.receive_until(Deadline::after(Duration::from_micros(1)));
            let _ = (channel.len(), channel.is_empty());
            let expected = [Error::ChannelOverwritten];
            for error in [sent.err(), received.err()].into_iter().flatten() {
                let no_memory = matches!(error, Error::Os { errno: 12, .. });
                assert!(expected.contains(&error) || no_memory, "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 1_000);
}

#[test]
fn a_message_for_which_there_is_no_memory_stays() {
    let channel = raw::Channel::new(512).unwrap();
    assert_eq!(channel.try_send(&[b"hello"]), Ok(Tried::Done));
    assert!(channel.try_receive(&mut Full).is_err());
    assert!(channel.receiving(&mut Full, soon()).wait().is_err());
    let mut message = Vec::new();
    assert_eq!(channel.try_receive(&mut message), Ok(Tried::Done));
    assert_eq!(message, b"hello");
}

#[test]
fn a_bell_whose_descriptors_other_code_has_closed_is_opened_again_or_is_an_error() {
    let channel = Channel::with_capacity(512).unwrap();
    let close = |descriptor: i32| {
        // Another file under the bell's number.
        let other = std::fs::File::open("/dev/null").unwrap();
        let mut number = unsafe_number(descriptor);
        rustix::io::dup2(other.as_fd(), &mut number).unwrap();
        std::mem::forget(number);
    };
    let [reader, writer] = channel.bell().unwrap().map(|end| end.as_raw_fd());
    close(writer);
    channel.send(b"hello").unwrap();
    assert_eq!(receive(&channel), b"hello");
    close(reader);
    assert_eq!(channel.send(b"hello"), Err(Error::DescriptorLost));
    assert!(channel.is_empty());
    assert!(matches!(channel.bell(), Err(Error::DescriptorLost)));
}

#[test]
fn a_message_that_cannot_be_sent_leaves_its_place_as_it_was() {
    let channel = raw::Channel::new_counting(512, Some(1), false).unwrap();
    channel.want_bell().unwrap();
    let other = std::fs::File::open("/dev/null").unwrap();
    for end in channel.bell().unwrap().map(|end| end.as_raw_fd()) {
        let mut number = unsafe_number(end);
        rustix::io::dup2(other.as_fd(), &mut number).unwrap();
        std::mem::forget(number);
    }
    assert_eq!(channel.try_put(&[b"hello"]), Err(Error::DescriptorLost));
    for _ in 0..3 {
        assert_eq!(channel.claiming(soon()).wait(), Ok(Wait::Acquired));
        assert_eq!(channel.try_send_claimed(&[b"hello"]), Err(Error::DescriptorLost));
        assert_eq!(channel.claiming(soon()).wait(), Ok(Wait::TimedOut));
        assert!(channel.give_back());
        assert_eq!((channel.put_and_not_taken(), channel.give_back()), (0, false));
    }
}

#[allow(unsafe_code)]
fn unsafe_number(descriptor: i32) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the caller forgets it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
