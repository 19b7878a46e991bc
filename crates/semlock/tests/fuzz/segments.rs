//! Segments: a copy of a real one in which some words are others, before it is opened and while its
//! objects are used, as if a peer had run wild.
//!
//! ```text
//!  byte 0  what the copy is: its length, and what is opened
//!       1  words that differ before: their number; from 128 on: of the segment of a channel
//!          words, 11 bytes each: region (its high bit: change these bits only), index, value
//!          and all that follow, one between two steps each
//! ```

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use semlock::Address;
use semlock::raw::layout::{self, SLOT_WORDS, Size, TAG, barrier, header};

use crate::driver::{Player, Target};
use crate::input::Input;
use crate::objects::{Object, channel, one_of_each, open};

pub const TARGET: Target = Target { name: "segments", start: || Box::new(Segments::new()) };

/// Bytes of a word.
const WORD: u64 = size_of::<u64>() as u64;

struct Segments {
    /// One with an object of each kind, and that of a channel, which is alone there.
    originals: [Original; 2],
    number: u64,
}

struct Original {
    objects: Vec<Object>,
    bytes: Vec<u8>,
    size: Size,
}

struct Patch {
    word: usize,
    value: u64,
    flips: bool,
}

impl Segments {
    fn new() -> Self {
        Self { originals: [one_of_each(), vec![channel()]].map(Original::with), number: 0 }
    }
}

impl Original {
    fn with(objects: Vec<Object>) -> Self {
        let file = File::from(objects[0].descriptor().try_clone_to_owned().unwrap());
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let word = |word| {
            let (_, after) = bytes.split_at(word * size_of::<u64>());
            u64::from_ne_bytes(*after.first_chunk().unwrap())
        };
        let size = Size::in_header(word).unwrap();
        Self { objects, bytes, size }
    }

    fn patch(&self, input: &mut Input<'_>) -> Patch {
        let (region, index, value) = (input.u8(), usize::from(input.u16()), input.u64());
        let word = match region & 0x7f {
            0..0x20 => index % header::END,
            0x20..0x60 => self.size.slot_at(0) + index % ((self.slots() + 1) * SLOT_WORDS),
            0x60..0x78 => self.size.nodes_at() + index % 64,
            _ => index % self.size.words().unwrap(),
        };
        Patch { word, value, flips: region & 0x80 != 0 }
    }

    /// Slots that are used.
    fn slots(&self) -> usize {
        self.objects.iter().map(Object::slots).sum()
    }

    /// Whether this word is the permit of a barrier's own lock, or of a channel's bell's. Some
    /// calls wait for these without a deadline. So if the word names a living process, they never
    /// return.
    fn is_waited_for(&self, word: usize) -> bool {
        self.objects.iter().any(|it| {
            let slot = self.slot_of(it.address());
            match it {
                Object::Barrier(_) => word == slot + barrier::PERMIT,
                Object::Channel(_) => {
                    let bell_lock = layout::channel::BELL_LOCK as usize * SLOT_WORDS;
                    word == slot + bell_lock + layout::lock::PERMIT
                }
                _ => false,
            }
        })
    }

    fn slot_of(&self, address: Address) -> usize {
        self.size.slot_at(address.slot as usize)
    }

    fn apply(&self, patch: &Patch, file: &File) {
        let Patch { word, value, flips } = *patch;
        let (at, mut before) = (word as u64 * WORD, [0; 8]);
        if self.is_waited_for(word) || file.read_exact_at(&mut before, at).is_err() {
            return;
        }
        let value = if flips { u64::from_ne_bytes(before) ^ value } else { value };
        file.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}

impl Player for Segments {
    fn play(&mut self, bytes: &[u8]) -> bool {
        let mut input = Input::new(bytes);
        let (what, patches) = (input.u8(), input.u8());
        let original = &self.originals[usize::from(patches >> 7)];
        let file = File::from(memfd_create("copy", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&original.bytes, 0).unwrap();
        // Another id than that of the real one, by which nothing would be opened.
        self.number += 1;
        let mut id = [0xff; 16];
        id[..8].copy_from_slice(&self.number.to_ne_bytes());
        file.write_all_at(&id, header::ID as u64 * WORD).unwrap();
        for _ in 0..patches % 16 {
            original.apply(&original.patch(&mut input), &file);
        }
        let length = original.bytes.len() as u64;
        match what {
            0..0xe0 => {}
            0xe0..0xe8 => file.set_len(0).unwrap(),
            0xe8..0xf0 => file.set_len(u64::from(what - 0xe8) * 700).unwrap(),
            0xf0..0xf8 => file.set_len(length - u64::from(what - 0xef)).unwrap(),
            0xf8.. => file.set_len(length + u64::from(what - 0xf7) * 8).unwrap(),
        }
        // Something that is no memory at all.
        let (pipe, _writer) = std::io::pipe().unwrap();
        let descriptor = if what == 0xe0 { pipe.as_fd() } else { file.as_fd() };

        let mut used = false;
        for object in &original.objects {
            let mut address = object.address();
            address.segment = id;
            if what & 1 == 1 {
                // What stands there by now.
                let mut tag = [0; 8];
                let word = original.slot_of(address) + TAG;
                let _ = file.read_at(&mut tag, word as u64 * WORD).unwrap();
                address.tag = u64::from_ne_bytes(tag);
            }
            let Some(copy) = open(address, Some(descriptor)) else { continue };
            used = true;
            assert_ne!(copy.descriptor().as_raw_fd(), file.as_raw_fd());
            copy.use_it(|| {
                if !input.is_empty() {
                    original.apply(&original.patch(&mut input), &file);
                }
            });
        }
        used
    }
}
