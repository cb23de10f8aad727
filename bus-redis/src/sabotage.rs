//! A way to break the bus on purpose, so that tests can prove that they would notice. A normal build does not have it:
//! it needs the feature `sabotage` and, besides, its name in the environment.

use std::time::Duration;

use tidings_core::{Publication, Receipt};
use tokio::time::sleep;

use crate::message::encode;
use crate::partition::{Partition, Question};
use crate::publisher::{Answer, Job};
use crate::script::PUBLISH;
use crate::send::call;
use crate::spawn::jitter;

/// Whether the offset is assigned in one step and the message published in another.
pub(crate) fn in_two_steps() -> bool {
    cfg!(feature = "sabotage")
        && std::env::var("TIDINGS_SABOTAGE").is_ok_and(|name| name == "offset-outside")
}

/// Keeps the messages and gives them their offsets, and only some time later tells anybody.
pub(crate) async fn send(
    partition: &Partition,
    jobs: &[Job],
    publications: &[&Publication],
) -> Vec<Answer> {
    let nowhere = partition.key("nowhere", "");
    let answers = call(partition, jobs, publications, |_| nowhere.clone()).await;
    sleep(jitter(PAUSE)).await;
    for (publication, answer) in publications.iter().zip(&answers) {
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
    answers
}

/// What listeners of a kept message are told.
fn message(publication: &Publication, receipt: &Receipt) -> Vec<u8> {
    let place = receipt.position.map(|p| format!("{} {} {}\n", p.offset, p.clock, p.epoch));
    let mut bytes = place.unwrap_or_default().into_bytes();
    encode(publication, &mut bytes);
    bytes
}

const PAUSE: Duration = Duration::from_millis(40);
