//! One call, in a process that is killed, stopped or forked in the middle of it: the *tracee*, as
//! `ptrace(2)` calls it. The process that makes it and steps it through its call is the *tracer*.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{PipeReader, Read, Write, pipe};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, alarm};

use crate::forked::Forked;
use crate::forker::Forker;
use crate::peer::{Line, Peer};
use crate::processors::stay_on;

// The watchdogs, in seconds. A tracer that waits longer hangs.
//
// Until the tracee has come to where it is killed (stopped, forked): it makes tens of thousands of
// steps. Each of them may wait for a processor, because the other tracers want one too.
const LONGEST_CALL: u32 = 600;
// From then on, for each thing that is expected, ten times the 2 s that are promised: a dead holder
// is found within 0.1 s, or within 2 s where its watcher died with it, and a lost wake-up costs one
// sleep, which ends after 1.5 s. The factor is room for two processors that 24 tracers share with
// whatever else the machine does. The longest time is printed with each scenario.
const LONGEST_RECOVERY: u32 = 20;

/// How far the call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many instructions; if the last of them sleeps, that is done to it asleep.
    After(u64),
    /// So many instructions, also if the last of them sleeps.
    Past(u64),
    /// Until it returns.
    Return,
}

/// A short cut to a step: the tracee runs until it meets this address for the `meetings`-th time,
/// which is just before that step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub address: u64,
    pub meetings: u32,
    pub step: u64,
}

/// What a tracer tells the process that runs all tracers, in memory that they share.
#[derive(Debug)]
#[repr(C)]
pub struct Report {
    /// Instructions that were made.
    pub steps: AtomicU64,
    /// The last of them slept, and did not end.
    pub asleep: AtomicBool,
    pub returned: AtomicBool,
    /// With [`Until::Return`]: it tried more than once before it slept.
    pub spun: AtomicBool,
    /// The call is over: written by the one that makes it.
    done: AtomicBool,
    /// What was expected after the death, the stop or the fork took so many microseconds at most.
    longest_recovery: AtomicU64,
    /// What the tracer waits for: the address and length of a `&'static str`, which is the same in
    /// every forked process.
    waits_for: [AtomicU64; 2],
    /// With [`Until::Return`]: the address of each step's instruction. It has the bit [`NOTABLE`]
    /// where the instruction changes memory atomically, enters the kernel, or comes before another
    /// try.
    pub trace: [AtomicU64; LONGEST_TRACE],
}

pub const LONGEST_TRACE: usize = 1 << 17;
/// No address of a process has this bit.
pub const NOTABLE: u64 = 1 << 63;

impl Report {
    pub fn reset(&self) {
        for number in [&self.steps, &self.longest_recovery, &self.waits_for[1]] {
            number.store(0, Ordering::Relaxed);
        }
        for flag in [&self.asleep, &self.returned, &self.spun, &self.done] {
            flag.store(false, Ordering::Relaxed);
        }
    }

    pub fn longest_recovery(&self) -> Duration {
        Duration::from_micros(self.longest_recovery.load(Ordering::Relaxed))
    }

    pub fn waits_for(&self) -> &'static str {
        let number = |at: usize| self.waits_for[at].load(Ordering::Relaxed);
        let (address, length) = (number(0), usize::try_from(number(1)).unwrap_or(0));
        if length == 0 {
            return "";
        }
        // SAFETY: a `&'static str` of this program, which a fork of it has left here.
        unsafe {
            let bytes = std::slice::from_raw_parts(address as *const u8, length);
            std::str::from_utf8_unchecked(bytes)
        }
    }
}

/// The process that plays a scenario: it makes the objects and the peers, forks the tracee, and
/// steps it through its call.
#[derive(Debug)]
pub struct Tracer {
    until: Until,
    anchor: Option<Anchor>,
    report: &'static Report,
    vdso: Range<u64>,
    /// That on which all run, and another.
    processors: [usize; 2],
    /// What lets a call go on that sleeps is done as soon as it spins.
    helps_the_spinning_thread: Cell<bool>,
    /// Since when it waits for what is promised.
    recovers_since: Cell<Option<Instant>>,
}

/// The tracee that was killed. It is a zombie as long as this is kept, or gone already.
#[derive(Debug)]
pub struct Dead {
    _tracee: Forked,
    pub pid: u32,
    /// The call was over.
    pub returned: bool,
    /// What lets a sleeping call go on was done.
    pub helped: bool,
}

impl Tracer {
    pub fn begin(
        until: Until,
        anchor: Option<Anchor>,
        report: &'static Report,
        processors: [usize; 2],
    ) -> Self {
        // A tracer that does not end in time is ended; its children die with it.
        alarm::set(LONGEST_CALL);
        Self {
            until,
            anchor,
            report,
            vdso: vdso(),
            processors,
            helps_the_spinning_thread: Cell::new(false),
            recovers_since: Cell::new(None),
        }
    }

    /// Makes the process that calls this run on the other processor.
    pub fn go_elsewhere(&self) {
        stay_on(&self.processors[1..]);
    }

    /// Lets the process that calls this learn what it can only learn with two processors.
    pub fn with_both_processors(&self, learn: impl FnOnce()) {
        stay_on(&self.processors);
        learn();
        stay_on(&self.processors[..1]);
    }

    /// From now on, what lets a call go on that sleeps is done as soon as it spins.
    pub fn help_the_spinning_thread(&self) {
        self.helps_the_spinning_thread.set(true);
    }

    /// Notes what comes next, so that a failure can name what it hangs in; what came before is
    /// over.
    pub fn expects(&self, what: &'static str) {
        if self.recovers_since.get().is_some() {
            self.has_recovered();
            self.recovers();
        }
        self.report.waits_for[0].store(what.as_ptr() as u64, Ordering::Relaxed);
        self.report.waits_for[1].store(what.len() as u64, Ordering::Relaxed);
    }

    /// From now on all that is expected is promised.
    fn recovers(&self) {
        alarm::set(LONGEST_RECOVERY);
        self.recovers_since.set(Some(Instant::now()));
    }

    /// What was expected last has come.
    pub fn has_recovered(&self) {
        if let Some(since) = self.recovers_since.take() {
            let time = u64::try_from(since.elapsed().as_micros()).expect("short");
            self.report.longest_recovery.fetch_max(time, Ordering::Relaxed);
        }
    }

    /// Forks a tracee that prepares itself and makes the call that `prepare` returns; kills it
    /// there. `help` lets the call go on when it sleeps.
    pub fn kill<C: FnOnce() -> T, T>(
        &self,
        prepare: impl FnOnce() -> C,
        help: impl FnOnce(),
    ) -> Dead {
        self.kill_known(prepare, |_| {}, help)
    }

    /// As `kill`; `ready` is called when the tracee stands before its call.
    pub fn kill_known<C: FnOnce() -> T, T>(
        &self,
        prepare: impl FnOnce() -> C,
        ready: impl FnOnce(Pid),
        help: impl FnOnce(),
    ) -> Dead {
        // It keeps what it holds until it dies.
        let mut tracee = self.stand_before(prepare, |result| std::mem::forget(result), ready);
        let mut help = Some(help);
        self.step(&mut tracee, &mut help);
        self.recovers();
        self.expects("the others to get on");
        tracee.signal(Signal::SIGKILL);
        // A zombie is as dead as one that is gone.
        if self.report.steps.load(Ordering::Relaxed).is_multiple_of(2) {
            tracee.kill();
        } else {
            tracee.wait_for_death();
        }
        let pid = tracee.pid().as_raw().cast_unsigned();
        let returned = self.report.returned.load(Ordering::Relaxed);
        Dead { _tracee: tracee, pid, returned, helped: help.is_none() }
    }

    /// Forks a tracee that prepares itself and makes the call that `prepare` returns; stops it
    /// there until the others have done what they do `meanwhile` (earlier, if its call sleeps
    /// earlier), and lets it go on. `ready` makes the others when the tracee stands before its
    /// call. Returns the call's result, and the others.
    pub fn stop<C: FnOnce() -> u32, R>(
        &self,
        prepare: impl FnOnce() -> C,
        ready: impl FnOnce() -> R,
        meanwhile: impl FnOnce(&mut R),
    ) -> (u32, R) {
        let (mut tracee, result, mut others) = self.stand_and_say(prepare, ready);
        let mut meanwhile = Some(|| meanwhile(&mut others));
        self.step(&mut tracee, &mut meanwhile);
        self.recovers();
        if let Some(meanwhile) = meanwhile {
            self.expects("the others to have done what they do meanwhile");
            meanwhile();
        }
        let asleep = self.report.asleep.load(Ordering::Relaxed);
        (self.let_go_on(&mut tracee, asleep, result), others)
    }

    /// Forks a tracee that prepares itself and makes the call that `prepare` returns; stops it
    /// there, makes another of its threads fork a child, and lets it go on when that child has done
    /// what it does, or sleeps. `help` lets the call go on when it sleeps, and is done in any case.
    /// Returns the call's result, and the child.
    pub fn fork<C: FnOnce() -> u32>(
        &self,
        prepare: impl FnOnce() -> C,
        help: impl FnOnce(),
        life: impl FnOnce(&Line) + Send,
    ) -> (u32, Peer) {
        let (thread, its_end) = Forker::new();
        let prepare = || {
            let call = prepare();
            its_end.stand_by(life);
            call
        };
        let (mut tracee, result, tid) = self.stand_and_say(prepare, || thread.is_ready());
        let mut help = Some(help);
        self.step(&mut tracee, &mut help);
        let report = self.report;
        let mut asleep = report.asleep.load(Ordering::Relaxed);
        self.expects("the other thread to fork");
        let child = thread.fork((tracee.pid(), tid), || {
            // It waits for what the tracee has: an allocator's lock, say.
            if !asleep && !report.returned.load(Ordering::Relaxed) {
                ptrace::step(tracee.pid(), None).expect("ptrace");
                asleep = !has_stopped(&mut tracee);
            }
        });
        self.recovers();
        self.expects("the child to do what it does");
        let child = child.settled();
        if let Some(help) = help {
            help();
        }
        let result = self.let_go_on(&mut tracee, asleep, result);
        (result, child.ends_with(tracee))
    }

    /// Forks a tracee that stands before the call that `prepare` returns, and will say its result.
    fn stand_and_say<C: FnOnce() -> u32, R>(
        &self,
        prepare: impl FnOnce() -> C,
        ready: impl FnOnce() -> R,
    ) -> (Forked, PipeReader, R) {
        let (result, said) = pipe().expect("pipe");
        let say =
            |result: u32| (&said).write_all(&result.to_ne_bytes()).expect("the tracer listens");
        let mut others = None;
        let tracee = self.stand_before(prepare, say, |_pid| others = Some(ready()));
        (tracee, result, others.expect("it is ready"))
    }

    /// Lets a tracee that was stopped, or sleeps, end its call. Returns the result that it says.
    fn let_go_on(&self, tracee: &mut Forked, asleep: bool, mut result: PipeReader) -> u32 {
        self.expects("the tracee to end its call");
        if asleep {
            expect_stop(tracee.wait(), tracee.pid());
        }
        match ptrace::detach(tracee.pid(), None) {
            Ok(()) => {}
            // It runs already: its call was over before it came to where it was to stop.
            Err(Errno::ESRCH) if self.report.returned.load(Ordering::Relaxed) => {}
            Err(error) => panic!("ptrace: {error}"),
        }
        let mut word = [0; 4];
        result.read_exact(&mut word).expect("it says its result");
        u32::from_ne_bytes(word)
    }

    /// Forks a tracee that prepares itself, makes the call that `prepare` returns, and then calls
    /// `after` with the result.
    fn stand_before<C: FnOnce() -> T, T>(
        &self,
        prepare: impl FnOnce() -> C,
        after: impl FnOnce(T),
        ready: impl FnOnce(Pid),
    ) -> Forked {
        self.expects("the tracee to be ready");
        let report = self.report;
        let mut tracee = Forked::run(|| {
            let call = prepare();
            // A try checks the holder once in 50 ms at most. After this one does, whatever others
            // did.
            #[expect(clippy::disallowed_methods, reason = "that time is what is waited for")]
            std::thread::sleep(Duration::from_millis(60));
            ptrace::traceme().expect("ptrace");
            raise(Signal::SIGSTOP).expect("raise");
            let result = call();
            report.done.store(true, Ordering::Release);
            after(result);
            loop {
                std::thread::park();
            }
        });
        let stopped = tracee.wait();
        assert_eq!(stopped, WaitStatus::Stopped(tracee.pid(), Signal::SIGSTOP));
        ptrace::setoptions(tracee.pid(), ptrace::Options::PTRACE_O_EXITKILL).expect("ptrace");
        ready(tracee.pid());
        tracee
    }

    /// Lets it make its call until it is where it is to be, or its call is over; reports that.
    fn step(&self, tracee: &mut Forked, help: &mut Option<impl FnOnce()>) {
        self.expects("the call to end");
        let report = self.report;
        // Only a tracee that is stepped can be seen to spin.
        let anchor = self.anchor.filter(|_| !self.helps_the_spinning_thread.get());
        let mut steps = anchor.map_or(0, |anchor| self.go_to(anchor, tracee, help));
        // The time that single steps cost: the tracee's clock is set back by it.
        let mut lost = Duration::ZERO;
        let (returned, asleep) = loop {
            let began = Instant::now();
            if report.done.load(Ordering::Acquire) {
                break (true, false);
            }
            if matches!(self.until, Until::After(most) | Until::Past(most) if steps == most) {
                break (false, false);
            }
            let (address, code) = next_instruction(tracee.pid());
            if self.until == Until::Return {
                self.trace(steps, address, code);
            }
            if code.starts_with(&PAUSE) && self.helps_the_spinning_thread.get() {
                if let Some(help) = help.take() {
                    help();
                }
            }
            let enters_kernel = code.starts_with(&SYSCALL);
            ptrace::step(tracee.pid(), None).expect("ptrace");
            steps += 1;
            if has_stopped(tracee) {
                self.leave_vdso(tracee, lost);
                // A system call may have slept, be it shortly.
                if !enters_kernel {
                    lost += began.elapsed();
                }
                continue;
            }
            if self.until == Until::After(steps) {
                break (false, true);
            }
            if let Some(help) = help.take() {
                help();
            }
            expect_stop(tracee.wait(), tracee.pid());
        };
        report.steps.store(steps, Ordering::Relaxed);
        report.asleep.store(asleep, Ordering::Relaxed);
        report.returned.store(returned, Ordering::Relaxed);
    }

    /// Lets it run out of the vDSO, the kernel's code in its own memory that reads the clock: that
    /// code begins anew whenever the clock has gone on, and so never ends where each step takes
    /// longer than that. All of it is one step with its call. The time that it reads is set back by
    /// `lost`.
    fn leave_vdso(&self, tracee: &mut Forked, lost: Duration) {
        let pid = tracee.pid();
        let registers = ptrace::getregs(pid).expect("ptrace");
        if !self.vdso.contains(&registers.rip) {
            return;
        }
        // It has just been called.
        let back = ptrace::read(pid, registers.rsp as ptrace::AddressType).expect("ptrace");
        let breakpoint = Breakpoint::new(pid, back.cast_unsigned());
        breakpoint.go();
        expect_stop(tracee.wait(), pid);
        breakpoint.take_out();

        let monotonic = [libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_COARSE];
        if monotonic.iter().any(|&clock| u64::try_from(clock) == Ok(registers.rdi)) {
            let parts = [registers.rsi, registers.rsi + 8].map(|it| it as ptrace::AddressType);
            let [seconds, nanoseconds] = parts.map(|at| {
                ptrace::read(pid, at)
                    .ok()
                    .and_then(|part| u64::try_from(part).ok())
                    .expect("a time")
            });
            let time = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
            let time = time.checked_sub(lost).expect("it lasts less long than the system has run");
            for (at, part) in parts.into_iter().zip([time.as_secs(), time.subsec_nanos().into()]) {
                ptrace::write(pid, at, part.cast_signed()).expect("ptrace");
            }
        }
    }

    /// Lets it run to an anchor, or to its end. Returns the step where it is.
    fn go_to(&self, anchor: Anchor, tracee: &mut Forked, help: &mut Option<impl FnOnce()>) -> u64 {
        let pid = tracee.pid();
        let breakpoint = Breakpoint::new(pid, anchor.address);
        for left in (0..anchor.meetings).rev() {
            breakpoint.go();
            while !has_stopped(tracee) {
                if self.report.done.load(Ordering::Acquire) {
                    breakpoint.take_out_of_the_running();
                    return anchor.step;
                }
                if let Some(help) = help.take() {
                    help();
                }
            }
            breakpoint.take_out();
            if left > 0 {
                ptrace::step(pid, None).expect("ptrace");
                expect_stop(tracee.wait(), pid);
            }
        }
        anchor.step
    }

    fn trace(&self, step: u64, address: u64, code: [u8; 8]) {
        self.report.spun.fetch_or(code.starts_with(&PAUSE), Ordering::Relaxed);
        let notable = if is_notable(code) { NOTABLE } else { 0 };
        let at = usize::try_from(step).unwrap_or(usize::MAX);
        let word = self.report.trace.get(at).expect("the call is longer than any trace");
        word.store(address | notable, Ordering::Relaxed);
    }
}

/// A place where a process that is traced is to stop.
struct Breakpoint {
    pid: Pid,
    address: u64,
    /// What stands there.
    code: i64,
}

impl Breakpoint {
    fn new(pid: Pid, address: u64) -> Self {
        let code = ptrace::read(pid, address as ptrace::AddressType).expect("ptrace");
        Self { pid, address, code }
    }

    fn write(&self, code: i64) {
        ptrace::write(self.pid, self.address as ptrace::AddressType, code).expect("ptrace");
    }

    /// Lets the process run.
    fn go(&self) {
        const STOP: i64 = 0xcc;
        self.write(self.code & !0xff | STOP);
        ptrace::cont(self.pid, None).expect("ptrace");
    }

    /// After it has stopped there: it is as if it had come there by itself.
    fn take_out(&self) {
        let mut registers = ptrace::getregs(self.pid).expect("ptrace");
        assert_eq!(registers.rip, self.address + 1, "it stopped elsewhere");
        registers.rip = self.address;
        ptrace::setregs(self.pid, registers).expect("ptrace");
        self.write(self.code);
    }

    /// After it has gone another way: so that a child of it does not come there.
    fn take_out_of_the_running(&self) {
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.pid));
        let written = memory.and_then(|it| it.write_all_at(&self.code.to_ne_bytes(), self.address));
        written.expect("the memory of a process that is traced");
    }
}

/// Where the vDSO is, here and in what this process forks.
fn vdso() -> Range<u64> {
    let maps = fs::read_to_string("/proc/self/maps").expect("proc");
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let range = line.and_then(|line| line.split(' ').next()?.split_once('-'));
    let number = |text| u64::from_str_radix(text, 16).expect("an address");
    range.map_or(0..0, |(from, to)| number(from)..number(to))
}

/// The address of the instruction that comes next, and what stands there.
fn next_instruction(pid: Pid) -> (u64, [u8; 8]) {
    let next = ptrace::getregs(pid).expect("ptrace").rip;
    (next, ptrace::read(pid, next as ptrace::AddressType).expect("ptrace").to_ne_bytes())
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// What stands between two tries.
const PAUSE: [u8; 2] = [0xf3, 0x90];

/// Whether an instruction locks the bus, enters the kernel, or comes before another try.
fn is_notable(code: [u8; 8]) -> bool {
    const LOCK: u8 = 0xf0;
    let is_prefix =
        |byte: &u8| matches!(byte, 0x40..=0x4f | 0x64..=0x67 | 0x2e | 0x3e | 0xf2 | 0xf3);
    if code.starts_with(&PAUSE) {
        return true;
    }
    let mut rest = code.iter().skip_while(|byte| is_prefix(byte));
    match (rest.next(), rest.next()) {
        (Some(&LOCK), _) => true,
        (Some(&first), Some(&second)) if [first, second] == SYSCALL => true,
        // `xchg` with memory locks without saying so.
        (Some(0x86 | 0x87), Some(operands)) => operands >> 6 != 0b11,
        _ => false,
    }
}

fn expect_stop(status: WaitStatus, pid: Pid) {
    assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGTRAP), "the call ended otherwise");
}

/// Waits until it has stopped (true), or sleeps, be it because its call is over.
fn has_stopped(tracee: &mut Forked) -> bool {
    loop {
        // Nearly all steps end at once.
        for _ in 0..64 {
            match tracee.poll() {
                WaitStatus::StillAlive => std::thread::yield_now(),
                status => {
                    expect_stop(status, tracee.pid());
                    return true;
                }
            }
        }
        if is_asleep(tracee.pid()) {
            return false;
        }
    }
}

/// Whether a process sleeps in `futex(2)`.
pub fn is_asleep(pid: Pid) -> bool {
    is_thread_asleep(pid, pid)
}

/// Whether a thread of a process does.
pub fn is_thread_asleep(pid: Pid, tid: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_futex.to_string())
}
