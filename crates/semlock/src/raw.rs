//! Objects without guards, and their addresses: for language bindings. The types with guards use
//! them too.
//!
//! A caller that acquires a permit here has to release it: no permit is released on drop.

pub use crate::Address;
pub use crate::backend::shared::barrier::{Barrier, Entered, Member, Passed};
pub use crate::backend::shared::channel::{Buffer, Channel, Receiving, Sending, Tried};
pub use crate::backend::shared::condvar::{Condvar, Waiting};
pub use crate::backend::shared::counting::Claiming;
pub use crate::backend::shared::end::{leave_held, leave_held_at_exit};
pub use crate::backend::shared::event::Event;
/// For tests, which read the memory of objects.
#[doc(hidden)]
pub use crate::backend::shared::layout;
pub use crate::backend::shared::layout::MOST_PERMITS;
pub use crate::backend::shared::lock::{Lock, LockKind, Options};
pub use crate::backend::shared::object::{Object, Shared};
pub use crate::backend::shared::waiter::Waiter;
pub use crate::os::mapping::{FileId, new_memory};
