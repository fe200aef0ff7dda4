//! Topics: one task for each source that has readers. It reads the source when it may have
//! changed, at most four times a second, and publishes the snapshot to all readers.
//!
//! All topics together use at most a quarter of a processor: one of them reads at a time, and waits
//! three times as long as it took. With many sources, each is read less often.
//!
//! Not here: what a source reads (`source`), and what a reader sends (`reader`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use exosphere_orchestrator::{Error, Host};
use parking_lot::Mutex;
use tokio::sync::{Mutex as FairMutex, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::source::{Follower, ReadError, Snapshot, Source};

/// The shortest time between two snapshots of a source.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(250);

/// The pause of all topics after one has read, as a multiple of the time that it took.
const PAUSE_FACTOR: u32 = 3;

/// The longest such pause. A read that takes long waits for others.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The wait after a read that failed, as while the database is away.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The latest snapshot of a source, for its readers.
pub(super) type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// The topics of a host.
#[derive(Clone, Default)]
pub(crate) struct Topics {
    topics: Arc<Mutex<HashMap<Source, watch::Sender<Arc<Snapshot>>>>>,
    /// Admits one topic at a time to its read, in the order in which they come.
    pace: Arc<FairMutex<()>>,
}

impl Topics {
    /// Subscribes to a source. The first reader of a source waits for its first read.
    ///
    /// # Errors
    ///
    /// If the source does not exist, or the database is away.
    pub(super) async fn subscribe(
        &self,
        host: &Host,
        source: Source,
    ) -> Result<Snapshots, ReadError> {
        if let Some(topic) = self.topics.lock().get(&source) {
            return Ok(topic.subscribe());
        }
        let mut follower = source.clone().follow(host).await?;
        let first = follower.read(None).await?;
        let mut topics = self.topics.lock();
        // Another first reader may have been faster.
        if let Some(topic) = topics.get(&source) {
            return Ok(topic.subscribe());
        }
        let (sender, snapshots) = watch::channel(Arc::new(first));
        topics.insert(source.clone(), sender.clone());
        tokio::spawn(self.clone().publish(source, follower, sender));
        Ok(snapshots)
    }

    /// Publishes the snapshots of a source, for as long as it exists and has readers.
    async fn publish(
        self,
        source: Source,
        mut follower: Follower,
        sender: watch::Sender<Arc<Snapshot>>,
    ) {
        let mut read_at = Instant::now();
        loop {
            let next = async {
                sleep_until(read_at + SNAPSHOT_INTERVAL).await;
                follower.changed().await;
            };
            tokio::select! {
                () = next => {}
                () = sender.closed() => {
                    if self.remove_unread(&source) {
                        return;
                    }
                }
            }
            let before = sender.borrow().clone();
            let turn = self.pace.lock().await;
            read_at = Instant::now();
            let read = follower.read(Some(&before)).await;
            sleep((read_at.elapsed() * PAUSE_FACTOR).min(MAX_PAUSE)).await;
            drop(turn);
            match read {
                Ok(snapshot) if snapshot.id == before.id => {}
                Ok(snapshot) => drop(sender.send(Arc::new(snapshot))),
                Err(error @ ReadError::Host(Error::NotFound { .. })) => {
                    tracing::debug!(%error, "a live view ends");
                    // Its readers see that the sender is gone.
                    self.topics.lock().remove(&source);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read a live view yet");
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Removes a topic if it still has no readers: one may come between the two.
    fn remove_unread(&self, source: &Source) -> bool {
        let mut topics = self.topics.lock();
        let is_unread = topics.get(source).is_none_or(|topic| topic.receiver_count() == 0);
        if is_unread {
            topics.remove(source);
        }
        is_unread
    }
}
