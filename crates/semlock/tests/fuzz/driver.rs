//! Makes inputs, and plays them in children, where they can do no harm.

use std::cell::RefCell;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::wait::WaitStatus;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::forked::Forked;
use crate::harness::Notes;

pub struct Target {
    pub name: &'static str,
    /// What a child makes before it plays.
    pub start: fn() -> Box<dyn Player>,
}

pub trait Player {
    /// Plays an input; panics where something is not as it has to be. Whether it got past the
    /// checks and was used.
    fn play(&mut self, bytes: &[u8]) -> bool;
}

/// Nothing takes this long: it hangs. (A watchdog, not a bound.)
const PATIENCE: Duration = Duration::from_secs(60);
/// Inputs that one child plays, so that what one leaves behind is there for the next.
const BATCH: u32 = 200;
/// So long that a change of one byte can be anywhere in it, and so short that many are played.
const LONGEST: usize = 300;

/// What a child says while it plays, in memory that outlives it:
///
/// ```text
///  byte 0  inputs played   8  of these, used   16  length of the present one   24  its bytes
/// ```
struct Journal(File);

impl Journal {
    fn new() -> Self {
        let file = memfd_create("journal", MemfdFlags::CLOEXEC).expect("memfd_create");
        Self(file.into())
    }

    fn begin(&self, bytes: &[u8]) {
        self.0.write_all_at(&(bytes.len() as u64).to_le_bytes(), 16).expect("the journal");
        self.0.write_all_at(bytes, 24).expect("the journal");
    }

    fn end(&self, is_used: bool) {
        let numbers = [self.played() + 1, self.used() + u64::from(is_used)];
        let bytes = numbers.map(u64::to_le_bytes);
        self.0.write_all_at(bytes.as_flattened(), 0).expect("the journal");
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        // Nothing yet is nothing.
        let _ = self.0.read_at(&mut bytes, at).expect("the journal");
        u64::from_le_bytes(bytes)
    }

    fn played(&self) -> u64 {
        self.number(0)
    }

    fn used(&self) -> u64 {
        self.number(8)
    }

    fn input(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.number(16)).expect("a length")];
        self.0.read_exact_at(&mut bytes, 24).expect("the journal");
        bytes
    }
}

fn number_in_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} has to be a number: {text}")))
}

impl Target {
    /// The test that plays inputs for this target.
    pub fn test(self, notes: &Notes) -> Trial {
        let notes = notes.clone();
        Trial::test(self.name, move || {
            notes.add(self.fuzz()?);
            Ok(())
        })
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(self.name)
    }

    /// Plays inputs for some time, and says how many.
    fn fuzz(&self) -> Result<String, String> {
        let entries = fs::read_dir(self.folder()).expect("the corpus is there");
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {} is empty", self.name);
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let seconds = number_in_environment("SEMLOCK_FUZZ_SECONDS");
        // An ordinary run says of the code, and not of chance, whether it is good.
        let seed = number_in_environment("SEMLOCK_FUZZ_SEED")
            .unwrap_or_else(|| seconds.map_or(0, |_| RandomState::new().hash_one(0)));
        let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
        let strategy = inputs(corpus.clone());

        let (mut played, mut used) = (0, 0);
        for batch in 0.. {
            let first = if batch == 0 { &corpus[..] } else { &[] };
            let (more, of_use) = self.run(first, &strategy, seed, batch)?;
            played += more;
            used += of_use;
            if Instant::now() >= end {
                break;
            }
        }
        // Otherwise it checks half of what it is for.
        assert!(0 < used && used < played, "{} makes inputs of one sort only", self.name);
        let name = self.name;
        Ok(format!("{name}: {played} inputs, {used} of them used, 0 findings (seed {seed})"))
    }

    /// Plays some inputs, and then as many more as make a batch, in a child. How many there were,
    /// and were used.
    fn run(
        &self,
        first: &[Vec<u8>],
        strategy: &impl Strategy<Value = Vec<u8>>,
        seed: u64,
        batch: u64,
    ) -> Result<(u64, u64), String> {
        let journal = Journal::new();
        let mut child = Forked::run(|| {
            let mut player = (self.start)();
            let play = |bytes: &[u8]| {
                journal.begin(bytes);
                journal.end(player.play(bytes));
            };
            let play = RefCell::new(play);
            // What is made once is made now.
            for bytes in first {
                (play.borrow_mut())(bytes);
            }
            let before = Footprint::now();
            let result = runner(seed, batch).run(strategy, |bytes| {
                (play.borrow_mut())(&bytes);
                Ok(())
            });
            if let Err(TestError::Fail(reason, smallest)) = &result {
                eprintln!("{reason}");
                journal.begin(smallest);
            }
            assert!(result.is_ok());
            assert_eq!(Footprint::now(), before, "something stays open or mapped");
        });
        let what = loop {
            let before = journal.played();
            child.wait_for_death_until(PATIENCE);
            match child.poll() {
                WaitStatus::Exited(_, 0) => return Ok((journal.played(), journal.used())),
                WaitStatus::StillAlive if journal.played() > before => {}
                WaitStatus::StillAlive => break "it hangs".to_owned(),
                status => break format!("{status:?}"),
            }
        };
        let bytes = journal.input();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", self.name));
        fs::write(&file, &bytes).expect("writing what was found");
        Err(format!(
            "{what}, with seed {seed} in batch {batch}, at the latest with this, which is for {}:\n\
             {}: {bytes:?}",
            self.folder().display(),
            file.display(),
        ))
    }
}

/// Those of the corpus, changed here and there; and new ones.
fn inputs(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let number = prop_oneof![
        select(vec![0, 1, 2, 0x7f, 0x80, 0xff, 1 << 31, (1 << 31) - 1, u64::MAX, 1 << 63]),
        any::<u64>(),
    ];
    let edit = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<Index>(), bytes(12)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 0..12_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), number).prop_map(|(at, number)| Edit::Number(at, number)),
        (select(corpus.clone()), any::<Index>()).prop_map(|(other, at)| Edit::Splice(at, other)),
    ];
    let changed =
        (select(corpus), proptest::collection::vec(edit, 0..6)).prop_map(|(bytes, edits)| {
            let mut bytes = bytes;
            for edit in edits {
                edit.apply(&mut bytes);
            }
            bytes.truncate(LONGEST);
            bytes
        });
    prop_oneof![4 => changed, 1 => bytes(LONGEST)]
}

#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Eight bytes at once.
    Number(Index, u64),
    /// From there on what another has.
    Splice(Index, Vec<u8>),
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        let place = |at: Index| at.index(bytes.len() + 1);
        match self {
            Self::Set(at, byte) => match place(at) {
                at if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            },
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more);
            }
            Self::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Number(at, number) => {
                let at = place(at);
                let end = (at + 8).min(bytes.len());
                bytes.splice(at..end, number.to_le_bytes());
            }
            Self::Splice(at, other) => {
                let at = place(at);
                bytes.truncate(at);
                bytes.extend(other.into_iter().skip(at));
            }
        }
    }
}

fn runner(seed: u64, batch: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&batch.to_le_bytes());
    let config = Config { cases: BATCH, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// What a process has open and mapped, as far as it can leak here.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    descriptors: usize,
    /// Mappings of files and of memory that is shared.
    shared: usize,
}

impl Footprint {
    fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
        let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|it| it.ends_with('s'));
        Self {
            descriptors: fs::read_dir("/proc/self/fd").expect("/proc").count(),
            shared: maps.lines().filter(is_shared).count(),
        }
    }
}
