//! Threads.

/// A number that no other running thread of this process has; never 0.
///
/// It is the thread pointer, which the ABI keeps in a register: on x86-64 `fs:0` holds its own
/// address (System V ABI, thread-local storage), on `AArch64` it is `tpidr_el0`.
///
/// Why not `pthread_self`, or the address of a thread-local: a library that is loaded at run time
/// calls a function for either, which takes a nanosecond or two. That is up to a tenth of an
/// uncontended acquire and release.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[inline]
pub(crate) fn current() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the word that the ABI defines, and touches nothing else.
    unsafe {
        std::arch::asm!(
            "mov {}, fs:0",
            out(reg) pointer,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads the register that the ABI defines, and touches nothing else.
    unsafe {
        std::arch::asm!(
            "mrs {}, tpidr_el0",
            out(reg) pointer,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pointer
}

/// A number that no other running thread of this process has; never 0: `pthread_self(3)`.
#[cfg(all(
    unix,
    not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64"),
        not(miri)
    ))
))]
#[inline]
#[allow(clippy::cast_possible_truncation)] // it is a pointer, or as wide as one
pub(crate) fn current() -> usize {
    // SAFETY: it cannot fail.
    (unsafe { libc::pthread_self() }) as usize
}

/// A number that no other running thread of this process has; never 0: `GetCurrentThreadId`.
#[cfg(windows)]
#[inline]
pub(crate) fn current() -> usize {
    // SAFETY: it cannot fail.
    (unsafe { windows_sys::Win32::System::Threading::GetCurrentThreadId() }) as usize
}

/// The number of the thread of this process for which `pthread_self(3)` returns `thread`.
#[cfg(unix)]
#[allow(clippy::cast_possible_truncation)] // it is a pointer, or as wide as one
pub(crate) fn number_of(thread: usize) -> usize {
    // SAFETY: it cannot fail.
    let name = (unsafe { libc::pthread_self() }) as usize;
    // On some systems the thread pointer lies behind that address, always at the same distance.
    thread.wrapping_add(current().wrapping_sub(name))
}

#[cfg(unix)]
pub(crate) use super::system::is_first_thread as is_first;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    #[cfg(unix)]
    use std::os::unix::thread::JoinHandleExt;
    use std::sync::Barrier;
    #[cfg(unix)]
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_has_one_number_and_no_other_running_thread_has_it() {
        let threads = 8;
        let all_run = Barrier::new(threads);
        let numbers: BTreeSet<_> = thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let number = current();
                        all_run.wait();
                        assert_eq!(current(), number);
                        number
                    })
                })
                .collect();
            spawned.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(numbers.len(), threads);
        assert!(!numbers.contains(&0));
    }
    #[cfg(unix)]
    #[test]
    #[allow(clippy::cast_possible_truncation)] // as above
    fn the_number_of_another_thread_is_found_by_its_pthread_t() {
        let ((says, number), (end, until)) = (channel(), channel::<()>());
        let other = thread::spawn(move || {
            says.send(current()).unwrap();
            let _ = until.recv();
        });
        assert_eq!(number_of(other.as_pthread_t() as usize), number.recv().unwrap());
        drop(end);
        other.join().unwrap();
    }
}
