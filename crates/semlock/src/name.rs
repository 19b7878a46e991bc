//! Names of semaphores, and whether other processes can find a semaphore by its name.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::Error;

/// A semaphore's name, as `sem_open(3)` takes it.
///
/// The operating system checks the name when it is used. Linux takes any name of 1 to 251 bytes
/// that has slashes only at its beginning. Other systems need one slash at the beginning. On macOS
/// a name has at most 30 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(CString);

impl Name {
    /// Makes a name of this text.
    ///
    /// # Errors
    /// [`Error::NulInName`] if the text has a NUL character, because a C string would end there.
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

    /// The name as a C string. The string stays at its address while this `Name` lives, even if the
    /// `Name` is moved.
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
    /// It can, until a process calls [`unlink`](crate::unlink). If none does, the semaphore stays
    /// in the system.
    Keep,
    /// It cannot: only this process and its forked children can use it. A name that is taken or
    /// impossible is refused all the same.
    Unlink,
}
