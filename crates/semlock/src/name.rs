//! Names of semaphores, and whether they stay.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::Error;

/// A semaphore's name, as `sem_open(3)` takes it.
///
/// The operating system checks it when it is used: Linux takes any name of 1 to 251 bytes with no
/// slash but leading ones; elsewhere a leading slash is needed. On macOS a name has 30 bytes at most.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(CString);

impl Name {
    /// Takes over a name.
    ///
    /// # Errors
    /// [`Error::NulInName`], since a C string would end there.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Error, Name};
    ///
    /// Name::new("/an-example")?;
    /// assert_eq!(Name::new("a\0b"), Err(Error::NulInName));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new(name: &str) -> Result<Self, Error> {
        CString::new(name).map(Self).map_err(|_| Error::NulInName)
    }

    /// The name as C sees it, at an address that stays while this `Name` lives, wherever it moves.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a new semaphore can be found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It can, until [`unlink`](crate::unlink) is called, which somebody has to do.
    Keep,
    /// It cannot: only this process and its forks can use it. The name is looked at all the same,
    /// and refused where it is taken or impossible.
    Unlink,
}
