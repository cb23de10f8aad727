//! Ways to break the bus on purpose, so that tests can prove that they would notice. A normal build has none:
//! they need the feature `sabotage` and, besides, `RedisConfig::without`, or `TIDINGS_SABOTAGE` in the environment.

use std::time::Duration;

use redis::{PushInfo, PushKind};
use tidings_core::{Publication, Receipt};
use tokio::time::sleep;

use crate::fault::{Failure, Fault};
use crate::message::encode;
use crate::partition::{Partition, Question};
use crate::publisher::{Answer, Job};
use crate::script::PUBLISH;
use crate::send::{call, publications};
use crate::spawn::jitter;

/// A protection of the bus that a test can take away, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "sabotage"),
    expect(dead_code, unreachable_pub, reason = "a normal build takes none away")
)]
pub enum Protection {
    /// A link ends when its connection does.
    Ending,
    /// A link ends when Redis ends a subscription by itself.
    Unsubscribed,
    /// A link ends when another server is commanded than the one it listens to.
    Left,
    /// A server must say that it is a primary.
    Role,
    /// A connection is given up that does not answer in time, or answers as none of a primary would.
    Suspicion,
    /// Connections for commands are opened again for ever.
    Persistence,
    /// A bus is connected when its servers have answered.
    FirstAnswer,
    /// Sentinels are asked, now and then, whether there is another primary.
    Replaced,
    /// Another Sentinel's answer is taken when the first is of no use.
    OtherAnswers,
    /// Sentinels that answer late are not waited for.
    Late,
    /// A cluster is asked again for its slots.
    Refresh,
    /// What a moving slot refuses is sent again.
    MovedRetry,
    /// What a full Redis takes is sent to it.
    FullRedis,
    /// What Redis answers is told apart.
    ToldApart,
}

/// Whether a link is not to know of this push.
pub(crate) fn hides(without: Option<Protection>, push: &PushInfo) -> bool {
    match push.kind {
        PushKind::Disconnection => without == Some(Protection::Ending),
        PushKind::Unsubscribe | PushKind::SUnsubscribe => without == Some(Protection::Unsubscribed),
        _ => false,
    }
}

/// The failure as callers are told it.
pub(crate) fn blurred(without: Option<Protection>, failure: Failure) -> Failure {
    match without {
        Some(Protection::ToldApart) => Failure::new(Fault::Other, failure.text()),
        _ => failure,
    }
}

/// Whether the offset is assigned in one step and the message published in another.
pub(crate) fn in_two_steps() -> bool {
    cfg!(feature = "sabotage")
        && std::env::var("TIDINGS_SABOTAGE").is_ok_and(|name| name == "offset-outside")
}

/// Keeps the messages and gives them their offsets, and only some time later tells anybody.
pub(crate) async fn send(partition: &Partition, jobs: &[Job]) -> Result<Vec<Answer>, Failure> {
    let nowhere = partition.key("nowhere", "");
    let answers = call(partition, jobs, |_| nowhere.clone()).await?;
    sleep(jitter(PAUSE)).await;
    for (publication, answer) in publications(jobs).zip(&answers) {
        if let Ok(receipt) = answer {
            let told = partition.run(&PUBLISH, |session| {
                let mut arguments = vec![partition.publish_command().into()];
                arguments.extend(partition.standing(session));
                arguments.extend([b"0".to_vec(), b"0".to_vec()]);
                arguments.push(partition.channel(&publication.topic).into());
                arguments.extend([message(publication, receipt), Vec::new(), Vec::new()]);
                Question { keys: vec![partition.state_key(), partition.samples_key()], arguments }
            });
            let _ = told.await;
        }
    }
    Ok(answers)
}

/// What listeners of a kept message are told.
fn message(publication: &Publication, receipt: &Receipt) -> Vec<u8> {
    let place = receipt.position.map(|p| format!("{} {} {}\n", p.offset, p.clock, p.epoch));
    let mut bytes = place.unwrap_or_default().into_bytes();
    encode(publication, &mut bytes);
    bytes
}

const PAUSE: Duration = Duration::from_millis(40);
