//! Ends of a process that are not deaths.
//!
//! One process may acquire a plain lock and end, and leave the release to another process. So a
//! process that ends well leaves its locks held, and sets their permits to `UNCHECKED`, so that no
//! process recovers them. The binding decides which end is a good one: see [`leave_held`] and
//! [`leave_held_at_exit`]. The end of a process that calls neither, such as a Rust program, is
//! always a death.
//!
//! Some of its threads may still be running. The locks that these hold are not left to others: the
//! end interrupts these threads as a death does.
//!
//! One compare-exchange does this for each lock. If the process is killed between two of them, the
//! `UNCHECKED` locks stay held, and the others are recovered. Both are right: the process's own
//! code had ended well, and then the process was killed. No other process could see an order
//! between the two.

use std::ffi::{c_int, c_void};

use super::registry;
use crate::mutation::rule;
use crate::os::atfork::Registered;
use crate::os::exit::on_exit;
use crate::os::fork_mutex::ForkMutex;
use crate::os::thread::number_of;

/// Leaves the plain robust mutexes that this process holds to other processes. These may release
/// them, and no process recovers them. The mutexes that one of its `running` threads holds stay
/// robust. `running` has the numbers that `pthread_self(3)` returns.
///
/// Call this at the end of a process that ends well.
pub fn leave_held(running: &[usize]) {
    if rule("end/what-is-held-at-a-good-end-is-left") {
        let running: Vec<_> = running.iter().map(|&thread| number_of(thread)).collect();
        registry::leave_held(&running);
    }
}

/// The same, if this process calls `exit(3)` with status 0, or returns 0 from its main function: it
/// is done then. A later call replaces the threads of an earlier one.
///
/// Only glibc passes the status on. With any other C library this does nothing: every such end is a
/// death.
pub fn leave_held_at_exit(running: Vec<usize>) {
    static REGISTERED: Registered = Registered::new();
    *RUNNING.lock() = running;
    // If there is no memory for the handler, such an end is a death.
    let _ = REGISTERED.once(|| on_exit(at_exit));
}

static RUNNING: ForkMutex<Vec<usize>> = ForkMutex::new();

extern "C" fn at_exit(status: c_int, _: *mut c_void) {
    if status == 0 || !rule("end/a-status-says-whether-it-is-good") {
        leave_held(&RUNNING.lock());
    }
}
