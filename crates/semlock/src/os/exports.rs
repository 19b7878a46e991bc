//! What the folder of each system exports, with signatures. A folder that lacks a function, or has
//! it with another signature, does not compile.

use std::ffi::{c_int, c_uint};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use libc::{sem_t, timespec};
use rustix::io::Errno;
use rustix::process::Pid;

use super::futex::{Reach, Slept, Woke};
use super::mapping::Way;
use super::process::{Identity, ProcessState};
use super::system;
use crate::atomic::{AtomicU32, AtomicU64};

// ---- clock: the monotonic clock, as a number that processes can compare ----

/// In nanoseconds.
const _: fn() -> u64 = system::clock::now;
/// The same clock. The answer may be some milliseconds old where that is cheaper.
const _: fn() -> u64 = system::clock::about_now;

// ---- cpu ----

/// The processor that the calling thread runs on, counted from 0; `None` where that is unknown.
const _: fn() -> Option<u32> = system::cpu::current;
/// On how many processors this process may run.
const _: fn() -> usize = system::cpu::count;

// ---- futex: see `posix/futex.rs` ----

/// Sleeps while `word` is `expected`, for `time` at most.
const _: fn(word: &AtomicU32, expected: u32, time: Option<Duration>, reach: Reach) -> Slept =
    system::futex::wait;
/// Wakes one thread that sleeps on `word`.
const _: fn(word: &AtomicU32, reach: Reach) -> Woke = system::futex::wake_one;
/// Wakes all threads that sleep on `word`.
const _: fn(word: &AtomicU32, reach: Reach) = system::futex::wake_all;

// ---- lineage: whether one of a process and its forked children is left ----

/// Begins a lineage of this process and all that it forks, under these numbers; `None` where that
/// is impossible.
const _: fn(file: BorrowedFd<'_>, numbers: &[u64]) -> Option<system::lineage::Lineage> =
    system::lineage::Lineage::begin;
/// In a child: keeps the child in the lineage for its whole life.
const _: fn(system::lineage::Lineage) = system::lineage::Lineage::leave_to_child;
/// Whether a process of this lineage may be left: true where that is unknown.
const _: fn(file: BorrowedFd<'_>, number: u64) -> bool = system::lineage::may_be_left;
/// The number, in this range, of a lineage of which a process is left; an error where that is
/// unknown.
const _: fn(file: BorrowedFd<'_>, from: u64, to: u64) -> Result<Option<u64>, Errno> =
    system::lineage::find_left;

// ---- memory ----

/// The ways to get memory without a name, each with what an error calls it. The first one that
/// works is taken.
const _: &[(&str, Way)] = system::memory::WAYS;
/// Gives a new shared memory object this length, and allocates it.
const _: fn(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> =
    system::memory::allocate_object;
/// Gives a new file this length, and allocates it.
const _: fn(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> = system::memory::allocate_file;
/// When a file was made, in nanoseconds since 1970; 0 where that is unknown.
const _: fn(file: BorrowedFd<'_>) -> u64 = system::memory::born;
/// Makes the kernel wipe private memory in a forked child; an error where it cannot.
const _: fn(start: NonNull<AtomicU64>, bytes: usize) -> Result<(), Errno> =
    system::memory::wipe_on_fork;
/// A new descriptor of what is mapped there; an error where the system gives none.
const _: fn(start: NonNull<AtomicU64>, bytes: usize) -> Result<OwnedFd, Errno> =
    system::memory::reopen;

// ---- process ----

/// The identity of the calling process. It asks the system at each call.
const _: fn() -> Identity = system::process::read_identity;
/// What the system says about the process that has this pid.
const _: fn(pid: Pid) -> ProcessState = system::process::query;
/// Whether another process is certainly dead: see `posix/process.rs`.
const _: fn(pid: Pid, start: u64, identifies: bool, no_descriptor: &mut bool) -> bool =
    system::process::is_dead;

// ---- sem: POSIX semaphores, see `posix/sem_open.rs` ----

/// The greatest value that a semaphore can have.
const _: i32 = system::sem::VALUE_MAX;
/// Whether there are unnamed semaphores: else `init` fails with `ENOSYS`.
const _: bool = system::sem::HAS_UNNAMED;
/// Whether the system tells a semaphore's value: else `value` fails with `ENOSYS`.
const _: bool = system::sem::HAS_VALUE;
/// Whether the system can wait for a semaphore until a moment.
const _: bool = system::sem::HAS_TIMED_WAIT;
/// Whether each `sem_open` of a semaphore returns another handle.
const _: bool = system::sem::EACH_OPEN_HAS_ITS_HANDLE;
/// Makes an unnamed semaphore in memory that processes share.
const _: unsafe fn(sem: *mut sem_t, value: c_uint) -> Result<(), Errno> = system::sem::init;
/// The value of a semaphore; some systems count waiters below zero.
const _: unsafe fn(sem: *mut sem_t) -> Result<c_int, Errno> = system::sem::value;
/// Closes what `sem_open` returned when this process executes another program.
const _: unsafe fn(sem: *mut sem_t) = system::sem::close_on_exec;
/// The function that waits until a moment of the wall clock, if there is one.
const _: fn() -> Option<system::sem::TimedWait> = system::sem::TimedWait::find;
/// Calls it: 0, or -1 and `errno`.
const _: unsafe fn(system::sem::TimedWait, sem: *mut sem_t, until: &timespec) -> c_int =
    system::sem::TimedWait::wait;
/// The function that waits until a moment of the monotonic clock, if there is one.
const _: fn() -> Option<system::sem::ClockWait> = system::sem::ClockWait::find;
/// Calls it: 0, or -1 and `errno`.
const _: unsafe fn(system::sem::ClockWait, sem: *mut sem_t, until: &timespec) -> c_int =
    system::sem::ClockWait::wait;

// ---- thread ----

/// Whether the calling thread is the one that the process began with, or the one that forked it:
/// true where that is unknown.
const _: fn() -> bool = system::is_first_thread;
