//! Random operations, after each of which every index and tally is what its rows say.

use rand::RngExt;

use super::CampaignStatus::{Cancelled, Completed, Paused, Triggered};
use super::*;

/// Drives a store through random operations, failing commits among them.
fn drive(seed: u64, steps: usize) {
    let world = World::new();
    let mut random = Seed::from_number(seed).rng(b"memory", "drive");
    let mut attempts: Vec<(MessageId, AttemptId)> = Vec::new();
    let mut ids: Vec<MessageId> = Vec::new();
    for step in 0..steps {
        let number = random.random_range(0..12);
        let pick = random.random_range(0..ids.len().max(1));
        let known = ids.get(pick).copied();
        let seconds = i64::try_from(step).unwrap();
        let statuses = [Paused, Triggered, Triggered, Triggered, Completed, Cancelled];
        let change = match random.random_range(0..14) {
            0..3 => {
                let mut message = world.message(number);
                message.from_pool = random.random_bool(0.3);
                message.device_id = message.device_id.filter(|_| !message.from_pool);
                message.supersedes = known.filter(|_| random.random_bool(0.1));
                message.round = random.random_range(0..3);
                message.key = IdempotencyKey::campaign(world.campaign, message.person, message.round);
                ids.push(message.id);
                Change::InsertMessages(vec![message])
            }
            3 => Change::SetCampaignStatus {
                user_id: world.user,
                campaign_id: world.campaign,
                from: &CampaignStatus::ALL,
                to: statuses[random.random_range(0..statuses.len() - usize::from(step < steps / 2))],
                reason: None,
            },
            4 if random.random_bool(0.2) => Change::ErasePerson {
                user_id: world.user,
                person: world.person(number),
                phone: World::phone(number),
            },
            5 if random.random_bool(0.3) => {
                world.suppress(number);
                Change::Unsuppress {
                    user_id: world.user,
                    person: world.person(number),
                }
            }
            6..9 if let Some(id) = known => {
                let item = world.item(id, 1, seconds);
                if random.random_bool(0.3) {
                    let assignment = Assignment {
                        user_id: world.user,
                        message_id: id,
                        device_id: world.device,
                    };
                    now(world.store.assign(&[assignment], at(seconds))).unwrap();
                }
                attempts.push((id, item.attempt_id));
                world.begin_item(item);
                continue;
            }
            9..12 if !attempts.is_empty() => {
                let (id, attempt) = attempts[attempts.len() - 1 - random.random_range(0..attempts.len().min(3))];
                let verdicts = [SENT, requeue(seconds), in_doubt(seconds), lost(), SENT];
                world.settle(id, attempt, 1, verdicts[random.random_range(0..verdicts.len())].clone());
                continue;
            }
            12 => {
                now(world.store.sweep(random.random_range(0..4), at(seconds))).unwrap();
                now(world.store.unassign(world.user, world.device)).unwrap();
                continue;
            }
            _ => Change::Receipt {
                user_id: world.user,
                device_id: world.device,
                message: MessageRef::NewestTo(World::phone(number)),
                delivery: [Delivery::Delivered, Delivery::Read][random.random_range(0..2)],
                at: at(seconds),
            },
        };
        let mut set = ChangeSet::one(change);
        let fails = random.random_bool(0.3);
        if fails {
            set = set.and(Change::CancelMessage {
                user_id: world.user,
                message_id: MessageId::MIN,
            });
        }
        let before = world.store.lock().messages.rebuilt();
        let result = now(world.store.commit(set, WriteClass::Bulk, at(seconds)));
        if result.is_err() {
            assert!(
                world.store.lock().messages == before,
                "seed {seed}: a failed commit left something"
            );
        }
        assert!(!(fails && result.is_ok()));
        world.numbers();
    }
}

#[test]
fn no_sequence_of_operations_misleads_an_index_or_a_tally() {
    for seed in 0..20 {
        drive(seed, 300);
    }
}
