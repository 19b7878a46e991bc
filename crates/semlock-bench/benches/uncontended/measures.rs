//! The measures, by the names that `benches/rust.py` reads them by.

use criterion::{Criterion, criterion_group};
use semlock::raw::{Lock, LockKind, Options};
use semlock::{Mutex, Wait};

use crate::rivals;

fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uncontended");

    let options = Options { kind: LockKind::Mutex, value: 1, maxvalue: 1, robust: true };
    let lock = Lock::new(options).expect("there is shared memory");
    group.bench_function("raw_lock", |bencher| {
        bencher.iter(|| {
            assert!(matches!(lock.try_acquire(), Wait::Acquired));
            lock.release().expect("it is held");
        });
    });

    let mutex = Mutex::new().expect("there is shared memory");
    group.bench_function("mutex_guard", |bencher| {
        bencher.iter(|| drop(mutex.lock().into_guard()));
    });

    let semaphore = rivals::Semaphore::new();
    group.bench_function("sem_t", |bencher| {
        bencher.iter(|| {
            semaphore.wait();
            semaphore.post();
        });
    });

    let mutex = rivals::RobustMutex::new();
    group.bench_function("robust_pthread_mutex", |bencher| {
        bencher.iter(|| {
            mutex.lock();
            mutex.unlock();
        });
    });

    for (name, whose) in
        [("ofd_lock", rivals::Whose::OpenFile), ("record_lock", rivals::Whose::Process)]
    {
        let file = rivals::FileLock::new(whose);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                file.lock();
                file.unlock();
            });
        });
    }

    group.finish();
}

criterion_group!(benches, uncontended);
