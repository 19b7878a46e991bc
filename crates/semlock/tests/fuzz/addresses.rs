//! Addresses as text, as they come in pickled bytes, arguments and the environment: an existing one
//! that has been changed here and there, or any text.
//!
//! ```text
//!  byte 0  which object's address; from 128 on, none's: all that follows is the text
//!       1  changes: position, byte
//! ```

use semlock::{Address, Error};

use crate::driver::{Player, Target};
use crate::input::Input;
use crate::objects::{Object, channel, one_of_each, open};

pub const TARGET: Target =
    Target { name: "addresses", start: || Box::new(Addresses { objects: all() }) };

fn all() -> Vec<Object> {
    one_of_each().into_iter().chain([channel()]).collect()
}

struct Addresses {
    objects: Vec<Object>,
}

impl Player for Addresses {
    fn play(&mut self, bytes: &[u8]) -> bool {
        let mut input = Input::new(bytes);
        let which = usize::from(input.u8());
        let text = if which < 128 {
            let mut text =
                self.objects[which % self.objects.len()].address().to_string().into_bytes();
            while !input.is_empty() {
                let (at, byte) = (usize::from(input.u8()), input.u8());
                match text.get_mut(at) {
                    Some(there) => *there = byte,
                    None => text.push(byte),
                }
            }
            text
        } else {
            input.rest().to_vec()
        };
        let text = String::from_utf8_lossy(&text);
        let address: Address = match text.parse() {
            Ok(address) => address,
            Err(error) => {
                assert!(matches!(error, Error::BadAddress(_)), "{error:?}");
                return false;
            }
        };
        assert_eq!(address.to_string().parse(), Ok(address));
        for descriptor in [Some(self.objects[0].descriptor()), None] {
            let opened = open(address, descriptor);
            let known = self.objects.iter().find(|known| known.address() == address);
            // Each is found by its own address, and nothing by any other.
            assert_eq!(opened.is_some(), known.is_some());
            if let Some(opened) = opened {
                opened.use_it(|| {});
            } else {
                return false;
            }
        }
        true
    }
}
