//! The addresses of objects.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Where an object lives. A process that has the object's segment, or a descriptor of it, opens the
/// object by this address: see [`Shared`](crate::Shared).
///
/// As text, an address is `<segment>:<slot>:<tag>` in hexadecimal digits. It can be passed as an
/// argument or in the environment. Parsing another text fails with [`Error::BadAddress`].
///
/// # Examples
/// ```
/// use semlock::{Address, Mutex, Shared};
///
/// let mutex = Mutex::new()?;
/// let text = mutex.address().to_string();
/// let address: Address = text.parse()?;
/// assert_eq!(address, mutex.address());
/// assert!("not an address".parse::<Address>().is_err());
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The segment's random id.
    pub segment: [u8; 16],
    /// The number of its slot.
    pub slot: u32,
    /// What lives in the slot. An open fails if the slot has another tag.
    pub tag: u64,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = u128::from_be_bytes(self.segment);
        write!(formatter, "{segment:032x}:{:x}:{:x}", self.slot, self.tag)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.split(':');
            let segment = u128::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes();
            let slot = u32::from_str_radix(parts.next()?, 16).ok()?;
            let tag = u64::from_str_radix(parts.next()?, 16).ok()?;
            parts.next().is_none().then_some(Self { segment, slot, tag })
        };
        parse().ok_or(Error::BadAddress("this text is no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_as_it_was_written() {
        let address = Address { segment: *b"0123456789abcdef", slot: 4095, tag: 1 << 63 | 1 };
        assert_eq!(address.to_string().parse(), Ok(address));
        for bad in ["", "1:2", "1:2:3:4", "x:1:2", "1:100000000:2", "1:2:-3"] {
            assert!(matches!(bad.parse::<Address>(), Err(Error::BadAddress(_))), "{bad}");
        }
    }
}
