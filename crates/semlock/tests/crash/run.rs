//! Plays all scenes, many stages at a time, and counts.

use std::collections::{HashMap, VecDeque};
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::forked::Forked;
use crate::scenes::Scene;
use crate::stage::{Anchor, LONGEST_TRACE, NOTABLE, Report, Stage, Until};

/// Which deaths are tried.
pub enum Choice {
    Sample,
    All,
    One(Until),
}

/// In a sample, so many deaths where something notable happens, and so many between.
const NOTABLE_IN_SAMPLE: usize = 24;
const BETWEEN: u64 = 12;

/// The call takes a few instructions more or less each time: so many in a row that found it over are its end.
const ENDS: u32 = 8;

struct Progress {
    scene: Scene,
    /// What its call does, when nobody is killed.
    trace: Option<Trace>,
    /// To be tried next; after that, with `goes_on`, the numbers from `next` on.
    planned: VecDeque<Until>,
    goes_on: bool,
    next: u64,
    /// That found it over, since one did not.
    ends: u32,
    on_stage: usize,
    points: u32,
    failures: u32,
}

struct Playing {
    scene: usize,
    until: Until,
    stage: Forked,
    report: &'static Report,
}

pub fn run(scenes: Vec<Scene>, choice: &Choice, jobs: usize) -> ExitCode {
    let mut all: Vec<_> = scenes.into_iter().map(Progress::new).collect();
    let mut reports: Vec<&'static Report> = (0..jobs).map(|_| new_report()).collect();
    let mut playing: Vec<Playing> = Vec::new();
    loop {
        while playing.len() < jobs {
            let Some((scene, until)) = all
                .iter_mut()
                .enumerate()
                .find_map(|(index, progress)| Some((index, progress.take_next()?)))
            else {
                break;
            };
            let report = reports.pop().expect("as many as stages");
            playing.push(Playing::start(scene, &all[scene], until, report));
        }
        if playing.is_empty() {
            break;
        }
        let ended = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("waitid");
        let index = playing.iter().position(|one| Some(one.stage.pid()) == ended.pid());
        let mut ended = playing.swap_remove(index.expect("a stage"));
        let status = ended.stage.wait();
        all[ended.scene].learn(ended.until, status, ended.report, choice);
        reports.push(ended.report);
    }
    let points: u32 = all.iter().map(|progress| progress.points).sum();
    let failures: u32 = all.iter().map(|progress| progress.failures).sum();
    println!("kill points: {points} in {} scenes, {failures} failures", all.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Playing {
    fn start(scene: usize, played: &Progress, until: Until, report: &'static Report) -> Self {
        report.reset();
        let (name, play) = (played.scene.name, played.scene.play);
        let anchor = played.trace.as_ref().and_then(|trace| trace.anchor(until));
        let stage = Forked::run(move || {
            std::panic::set_hook(Box::new(move |panic| {
                eprintln!("{name} {}: {panic}", place(until));
            }));
            play(&Stage::begin(until, anchor, report));
        });
        Self { scene, until, stage, report }
    }
}

impl Progress {
    fn new(scene: Scene) -> Self {
        let planned = VecDeque::from([Until::Return]);
        Self {
            scene,
            trace: None,
            planned,
            goes_on: false,
            next: 0,
            ends: 0,
            on_stage: 0,
            points: 0,
            failures: 0,
        }
    }

    fn take_next(&mut self) -> Option<Until> {
        let next = self.planned.pop_front().or_else(|| {
            self.goes_on.then(|| {
                self.next += 1;
                Until::After(self.next - 1)
            })
        })?;
        self.on_stage += 1;
        Some(next)
    }

    fn learn(&mut self, until: Until, status: WaitStatus, report: &Report, choice: &Choice) {
        self.on_stage -= 1;
        let name = self.scene.name;
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            self.failures += 1;
            match status {
                WaitStatus::Signaled(_, Signal::SIGALRM, _) => {
                    eprintln!("{name} {}: waited in vain for {}", place(until), report.waits_for());
                }
                status => eprintln!("{name} {}: FAILED ({status:?})", place(until)),
            }
        }
        let returned = report.returned.load(Ordering::Relaxed);
        match until {
            Until::Return => {
                let trace = Trace::new(report);
                match choice {
                    Choice::Sample => self.planned.extend(trace.sample()),
                    Choice::All => self.goes_on = true,
                    Choice::One(until) => self.planned.push_back(*until),
                }
                self.trace = Some(trace);
            }
            Until::After(_) if returned => {
                self.ends += 1;
                self.goes_on &= self.ends < ENDS;
            }
            Until::Past(_) if returned => {}
            Until::After(_) | Until::Past(_) => {
                self.points += 1;
                self.ends = 0;
            }
        }
        if let Until::After(steps) = until {
            if report.asleep.load(Ordering::Relaxed) {
                self.planned.push_back(Until::Past(steps));
            }
        }
        if self.on_stage == 0 && self.planned.is_empty() && !self.goes_on {
            println!("{name}: {} kill points, {} failures", self.points, self.failures);
        }
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

    fn anchor(&self, until: Until) -> Option<Anchor> {
        let (Until::After(step) | Until::Past(step)) = until else { return None };
        // One step is left at least: what sleeps is to be found asleep.
        let before = usize::try_from(step).ok()?.checked_sub(1)?;
        *self.anchors.get(before).or(self.anchors.last())?
    }

    /// Before and after what is notable, and evenly between.
    fn sample(&self) -> Vec<Until> {
        let every = self.notable.len().div_ceil(NOTABLE_IN_SAMPLE).max(1);
        let notable = self.notable.iter().step_by(every).flat_map(|&step| [step, step + 1]);
        let all = self.anchors.len() as u64;
        let mut points: Vec<_> =
            notable.chain((0..BETWEEN).map(|part| all * part / BETWEEN)).collect();
        points.sort_unstable();
        points.dedup();
        points.into_iter().map(Until::After).collect()
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
