//! `Lock`, `RLock`, `Semaphore` and `BoundedSemaphore` on shared memory, and their base `SemLock`.
//!
//! # Safety
//! The heads of `ffi` and `objects` say what every function in the tables relies on. The types of
//! this folder hold a `Lock`, except for `_SemLockView`, whose instances begin with a `View`.

pub(crate) mod acquire;
pub(crate) mod classes;
pub(crate) mod make;
pub(crate) mod repr;
mod state;
mod view;

use semlock::raw::{self, Shared};

use super::objects::Contents;

/// What an instance holds. The instance's flag says whether it ignores dead owners: then it does
/// not warn, and only `recovered` tells of them.
pub(crate) struct Lock {
    pub(crate) raw: raw::Lock,
}

impl Contents for Lock {}

impl Shared for Lock {
    fn object(&self) -> &raw::Object {
        self.raw.object()
    }
}
