//! Ends that are no deaths.
//!
//! One process may acquire a plain lock and end, and another is to release it. So a process that ends well leaves what it
//! holds held, and marks it so that nobody recovers it. What "well" means, the binding knows: see [`leave_held`] and
//! [`leave_held_at_exit`]. A process that calls neither, as Rust programs do, has died with what it holds, however it ends.
//!
//! Some of its threads may still be running. What these hold is not left: the end cuts them short as a death does.
//!
//! Each lock is marked by one compare-exchange. A process that is killed between two of them leaves some of its locks
//! held, and the others are recovered. Each is right by itself: as far as the process's own code goes it had ended well, and
//! then it was killed. Nobody else could see an order between the two.

use std::ffi::{c_int, c_void};

use super::registry;
use crate::mutation::rule;
use crate::os::atfork::Registered;
use crate::os::exit::on_exit;
use crate::os::fork_mutex::ForkMutex;
use crate::os::thread::number_of;

/// Leaves the plain robust mutexes that this process holds to others, who may release them: nobody recovers them. But those
/// that one of its `running` threads holds stay robust. Threads are named as `pthread_self(3)` does.
///
/// To be called at the end of a process that ends well.
pub fn leave_held(running: &[usize]) {
    if rule("end/what-is-held-at-a-good-end-is-left") {
        let running: Vec<_> = running.iter().map(|&thread| number_of(thread)).collect();
        registry::leave_held(&running);
    }
}

/// The same, when and if this process calls `exit(3)` with status 0, or returns that from its main function. What matters is
/// the last call.
///
/// Where the C library does not tell the status (any but glibc) this does nothing: every such end is a death.
pub fn leave_held_at_exit(running: Vec<usize>) {
    static REGISTERED: Registered = Registered::new();
    *RUNNING.lock() = running;
    // Without memory for it, such an end is a death.
    let _ = REGISTERED.once(|| on_exit(at_exit));
}

static RUNNING: ForkMutex<Vec<usize>> = ForkMutex::new();

extern "C" fn at_exit(status: c_int, _: *mut c_void) {
    if status == 0 || !rule("end/a-status-says-whether-it-is-good") {
        leave_held(&RUNNING.lock());
    }
}
