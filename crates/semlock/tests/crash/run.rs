//! Plays all scenarios, with many tracers at a time, and counts.

use std::collections::{HashMap, VecDeque};
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::forked::Forked;
use crate::outcomes::{Outcome, Teller};
use crate::processors;
use crate::scenarios::Scenario;
use crate::tracer::{Anchor, LONGEST_TRACE, NOTABLE, Report, Tracer, Until};

/// Which deaths, stops and forks are tried.
pub enum Choice {
    Sample,
    All,
    One(Until),
}

/// In a sample, so many where something notable happens, and so many between.
const NOTABLE_IN_SAMPLE: usize = 16;
const BETWEEN: u64 = 7;

/// The call takes a few instructions more or less each time. It has ended after so many steps in a
/// row that found it over, and at least as many as it took when it was not disturbed.
const ENDS: u32 = 8;

/// At most one point in so many may be missed.
const MANY_MISSED: u32 = 8;

struct Progress {
    scenario: Scenario,
    /// What its call does, when it is not disturbed.
    trace: Option<Trace>,
    /// To be tried next; after that, with `goes_on`, the numbers from `next` on.
    planned: VecDeque<Plan>,
    goes_on: bool,
    next: u64,
    /// How many in a row found it over.
    ends: u32,
    playing: usize,
    points: u32,
    /// Instructions of the trace that the call did not come to, not even step by step.
    missed: u32,
    failures: u32,
    longest_recovery: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    until: Until,
    /// How often it was tried over an anchor. The call may not come to the anchor: what it does
    /// depends on the time that it takes, and on a busy machine that differs.
    tries: u32,
    /// Whether the watchdog ended it once already. A virtual machine can stand still for as long as
    /// the watchdog waits; what hangs because of a death at this instruction hangs again.
    is_last: bool,
}

/// After so many tries over an anchor it is tried step by step.
const TRIES: u32 = 3;

impl From<Until> for Plan {
    fn from(until: Until) -> Self {
        Self { until, tries: 0, is_last: false }
    }
}

/// Where one tracer can run.
struct Room {
    /// The one that it runs on, and the next one; the same where there is no other.
    processors: [usize; 2],
    report: &'static Report,
}

struct Playing {
    scenario: usize,
    plan: Plan,
    tracer: Forked,
    room: Room,
}

/// Plays the scenarios, so many at a time, and tells what came of each. The process has one thread.
pub fn play(scenarios: Vec<Scenario>, choice: &Choice, jobs: usize, teller: &Teller) {
    let processors = processors::allowed();
    let mut all: Vec<_> = scenarios.into_iter().map(Progress::new).collect();
    let neighbours = processors.iter().zip(processors.iter().cycle().skip(1));
    let mut rooms: Vec<_> = (neighbours.cycle().zip(0..jobs))
        .map(|((&own, &next), _)| Room { processors: [own, next], report: new_report() })
        .collect();
    let mut playing: Vec<Playing> = Vec::new();
    loop {
        // A tracer that writes down each step has a processor for itself.
        let untraced = all.iter().any(|progress| progress.trace.is_none());
        while playing.len() < if untraced { jobs.min(processors.len()) } else { jobs } {
            let Some((scenario, plan)) = all
                .iter_mut()
                .enumerate()
                .filter(|(_, progress)| !untraced || progress.trace.is_none())
                .find_map(|(index, progress)| Some((index, progress.take_next()?)))
            else {
                break;
            };
            let room = rooms.pop().expect("as many as tracers");
            playing.push(Playing::start(scenario, &all[scenario], plan, room));
        }
        if playing.is_empty() {
            break;
        }
        let ended = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("waitid");
        let index = playing.iter().position(|one| Some(one.tracer.pid()) == ended.pid());
        let mut ended = playing.swap_remove(index.expect("a tracer"));
        let status = ended.tracer.wait();
        let progress = &mut all[ended.scenario];
        progress.learn(ended.plan, status, ended.room.report, choice);
        if progress.is_over() {
            let failures = progress.conclude(choice);
            let Progress { points, longest_recovery, .. } = *progress;
            let scenario = ended.scenario;
            teller.tell(Outcome { scenario, points, failures, longest_recovery });
        }
        rooms.push(ended.room);
    }
}

impl Playing {
    fn start(scenario: usize, progress: &Progress, next: Plan, room: Room) -> Self {
        let Room { processors, report } = room;
        report.reset();
        let (name, play) = (progress.scenario.name, progress.scenario.play);
        let until = next.until;
        let trace = progress.trace.as_ref().filter(|_| next.tries < TRIES);
        let anchor = trace.and_then(|trace| trace.anchor(until));
        let forked = Forked::run(move || {
            std::panic::set_hook(Box::new(move |panic| {
                eprintln!("{name} {}: {panic}", place(until));
            }));
            // What the processes of a scenario do depends on that.
            processors::stay_on(&processors[..1]);
            let tracer = Tracer::begin(until, anchor, report, processors);
            play(&tracer);
            tracer.has_recovered();
        });
        Self { scenario, plan: next, tracer: forked, room }
    }
}

impl Progress {
    fn new(scenario: Scenario) -> Self {
        let planned = VecDeque::from([Until::Return.into()]);
        Self {
            scenario,
            trace: None,
            planned,
            goes_on: false,
            next: 0,
            ends: 0,
            playing: 0,
            points: 0,
            missed: 0,
            failures: 0,
            longest_recovery: Duration::ZERO,
        }
    }

    fn take_next(&mut self) -> Option<Plan> {
        let next = self.planned.pop_front().or_else(|| {
            self.goes_on.then(|| {
                self.next += 1;
                Until::After(self.next - 1).into()
            })
        })?;
        self.playing += 1;
        Some(next)
    }

    fn learn(&mut self, plan: Plan, status: WaitStatus, report: &Report, choice: &Choice) {
        let until = plan.until;
        self.playing -= 1;
        let name = self.scenario.name;
        if let WaitStatus::Signaled(_, Signal::SIGALRM, _) = status
            && !plan.is_last
        {
            let (place, what) = (place(until), report.waits_for());
            eprintln!("{name} {place}: waited in vain for {what}; tries once more");
            self.planned.push_back(Plan { is_last: true, ..plan });
            return;
        }
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            self.failures += 1;
            match status {
                WaitStatus::Signaled(_, Signal::SIGALRM, _) => {
                    eprintln!("{name} {}: waited in vain for {}", place(until), report.waits_for());
                }
                status => eprintln!("{name} {}: FAILED ({status:?})", place(until)),
            }
        }
        self.longest_recovery = self.longest_recovery.max(report.longest_recovery());
        let returned = report.returned.load(Ordering::Relaxed);
        match until {
            Until::Return => {
                if self.scenario.spins && !report.spun.load(Ordering::Relaxed) {
                    self.failures += 1;
                    eprintln!("{name}: FAILED, for it never tried again before it slept");
                }
                let trace = Trace::new(report);
                match choice {
                    Choice::Sample => self.planned.extend(trace.sample().map(Plan::from)),
                    Choice::All => self.goes_on = true,
                    Choice::One(until) => self.planned.push_back((*until).into()),
                }
                self.trace = Some(trace);
            }
            Until::After(step) | Until::Past(step) if returned => {
                let length = self.trace.as_ref().map_or(0, Trace::length);
                if step < length && plan.tries < TRIES {
                    self.planned.push_back(Plan { tries: plan.tries + 1, ..plan });
                } else if step < length {
                    self.missed += 1;
                } else {
                    self.ends += 1;
                    self.goes_on &= self.ends < ENDS;
                }
            }
            Until::After(_) | Until::Past(_) => {
                self.points += 1;
                self.ends = 0;
            }
        }
        if let Until::After(steps) = until {
            if report.asleep.load(Ordering::Relaxed) {
                self.planned.push_back(Plan { until: Until::Past(steps), ..plan });
            }
        }
    }

    /// Whether nothing is left to be tried.
    fn is_over(&self) -> bool {
        self.playing == 0 && self.planned.is_empty() && !self.goes_on
    }

    /// Says what came of it. Returns how many failures there were.
    fn conclude(&mut self, choice: &Choice) -> u32 {
        let Self { points, missed, .. } = *self;
        let Scenario { name, end, .. } = self.scenario;
        let length = self.trace.as_ref().map_or(0, Trace::length);
        if matches!(choice, Choice::All) && missed > (points + missed) / MANY_MISSED {
            self.failures += 1;
            eprintln!("{name}: FAILED, for too much of the call was not met again");
        }
        let failures = self.failures;
        let longest = self.longest_recovery.as_secs_f64();
        println!(
            "{name}: {points} {end}, {failures} failures \
             (of {length} instructions; {missed} were not met again); \
             all got on within {longest:.3} s"
        );
        failures
    }
}

fn place(until: Until) -> String {
    match until {
        Until::After(steps) => format!("--at {steps}"),
        Until::Past(steps) => format!("--at {steps} --past"),
        Until::Return => "at its end".to_owned(),
    }
}

/// A call's instructions.
struct Trace {
    notable: Vec<u64>,
    /// The best way to each step.
    anchors: Vec<Option<Anchor>>,
}

/// A stop at a breakpoint costs as much as so many steps.
const STOP: u64 = 6;

impl Trace {
    fn new(report: &Report) -> Self {
        let steps = usize::try_from(report.steps.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let trace = &report.trace[..steps.min(LONGEST_TRACE)];
        let (mut notable, mut anchors) = (Vec::new(), Vec::new());
        let mut meetings = HashMap::new();
        let (mut best, mut cost) = (None, 0);
        for (word, step) in trace.iter().zip(0..) {
            let word = word.load(Ordering::Relaxed);
            if word & NOTABLE != 0 {
                notable.push(step);
            }
            let address = word & !NOTABLE;
            let met = meetings.entry(address).or_insert(0);
            *met += 1;
            if u64::from(*met) * STOP < cost {
                best = Some(Anchor { address, meetings: *met, step });
                cost = u64::from(*met) * STOP;
            }
            anchors.push(best);
            cost += 1;
        }
        Self { notable, anchors }
    }

    fn length(&self) -> u64 {
        self.anchors.len() as u64
    }

    fn anchor(&self, until: Until) -> Option<Anchor> {
        let (Until::After(step) | Until::Past(step)) = until else { return None };
        // One step is left at least: what sleeps is to be found asleep.
        let before = usize::try_from(step).ok()?.checked_sub(1)?;
        *self.anchors.get(before).or(self.anchors.last())?
    }

    /// Before and after what is notable, and evenly between.
    fn sample(&self) -> impl Iterator<Item = Until> + use<> {
        let every = self.notable.len().div_ceil(NOTABLE_IN_SAMPLE).max(1);
        let notable = self.notable.iter().step_by(every).flat_map(|&step| [step, step + 1]);
        let all = self.length();
        let mut points: Vec<_> =
            notable.chain((0..BETWEEN).map(|part| all * part / BETWEEN)).collect();
        points.sort_unstable();
        points.dedup();
        points.into_iter().map(Until::After)
    }
}

fn new_report() -> &'static Report {
    let (read_write, length) = (ProtFlags::READ | ProtFlags::WRITE, size_of::<Report>());
    // SAFETY: new memory, all zero (which a report may be), that is never unmapped.
    unsafe {
        let start = mmap_anonymous(ptr::null_mut(), length, read_write, MapFlags::SHARED);
        &*start.expect("mmap").cast()
    }
}
