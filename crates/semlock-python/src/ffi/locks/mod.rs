//! `Lock`, `RLock`, `Semaphore` and `BoundedSemaphore` on shared memory, and their base `SemLock`.
//!
//! # Safety
//! What every function in the tables relies on is told at the heads of `ffi` and `objects`: the types
//! of this folder hold a `Lock`, but for `_SemLockView`, whose instances begin with a `View`.

pub(crate) mod acquire;
pub(crate) mod classes;
pub(crate) mod make;
pub(crate) mod repr;
mod state;
mod view;

use semlock::raw;

use super::objects::Contents;
use super::sharing::shared;

/// What an instance holds. Its flag says whether it ignores dead owners: that it is for `recovered` alone to tell.
pub(crate) struct Lock {
    pub(crate) raw: raw::Lock,
}

impl Contents for Lock {}

shared!(Lock, raw);
