//! Gives devices to pool messages.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use crate::domain::campaign::Routing;
use crate::domain::message::MessageScope;
use crate::id::DeviceId;
use crate::seed::Seed;
use crate::store::{Assignment, DeviceLoad, LeftOver, PoolMessage, Taken};

/// What routing decides with.
#[derive(Debug)]
pub struct RoutingContext<'a> {
    /// The user's devices that may send now, with their load.
    pub devices: Vec<DeviceLoad>,
    /// How each campaign and sequence routes.
    pub routing: &'a BTreeMap<MessageScope, Routing>,
    /// Of campaigns with a limit: how many messages each device may take.
    pub limits: BTreeMap<MessageScope, u32>,
    /// Of those: what each device has taken, and how many of these messages are open on it.
    pub taken: BTreeMap<(MessageScope, DeviceId), Taken>,
    /// How many pool messages a device holds ready.
    pub depth: u32,
    /// Until how many sent in the last hour the lead's own device is preferred in balanced routing.
    pub prefer_own_below: u32,
    /// Those of the devices that may not write to people who do not know them: they get only what they have begun.
    pub closed_to_strangers: BTreeSet<DeviceId>,
    /// The seed of the database.
    pub seed: &'a Seed,
}

/// Gives devices to pool messages of one user, oldest first, until every online device holds `depth` ready.
///
/// Balanced: the lead's own device while it has sent fewer than `prefer_own_below` this hour, else the lowest score of
/// 0.7 x sent this hour + 0.3 x in flight. No device gets more of a campaign than its limit says. A message without a free device stays in the pool. The flows of an enrolment keep
/// its device in every kind of routing, as long as that may send.
#[must_use]
pub fn route(messages: &[PoolMessage], mut context: RoutingContext<'_>) -> Vec<Assignment> {
    context.devices.sort_by_key(|load| load.device_id);
    let mut given = Vec::new();
    for message in messages {
        let routing = context
            .routing
            .get(&message.scope)
            .copied()
            .unwrap_or(Routing::Balanced);
        let Some(index) = choose(message, routing, &context) else {
            continue;
        };
        let device_id = context.devices[index].device_id;
        if let (Some(_), MessageScope::Campaign(campaign_id)) = (context.limits.get(&message.scope), message.scope) {
            let none = Taken {
                campaign_id,
                device_id,
                taken: 0,
                open: 0,
            };
            let taken = context.taken.entry((message.scope, device_id)).or_insert(none);
            taken.taken += 1;
            taken.open += 1;
        }
        let load = &mut context.devices[index];
        load.topped_up += 1;
        load.in_flight += 1;
        given.push(Assignment {
            user_id: message.user_id,
            message_id: message.message_id,
            device_id: load.device_id,
        });
    }
    given
}

/// The pool messages that are left over: there are devices that may send now, each of them has taken as many messages of the
/// campaign as its limit says, and none of these is open any more. As long as one is, it may still turn out not to be sent at all
/// and give its place back; and where no device may send, messages wait for one.
#[must_use]
pub fn left_over(messages: &[PoolMessage], context: &RoutingContext<'_>) -> Vec<LeftOver> {
    let used_up = |scope: &MessageScope| {
        let Some(limit) = context.limits.get(scope) else {
            return false;
        };
        let done = |load: &DeviceLoad| {
            let taken = context.taken.get(&(*scope, load.device_id));
            taken.is_some_and(|one| one.taken >= *limit && one.open == 0)
        };
        !context.devices.is_empty() && context.devices.iter().all(done)
    };
    let scopes: BTreeSet<MessageScope> = messages.iter().map(|message| message.scope).filter(used_up).collect();
    let over = messages.iter().filter(|message| scopes.contains(&message.scope));
    over.map(|message| LeftOver {
        user_id: message.user_id,
        message_id: message.message_id,
    })
    .collect()
}

/// Lets the campaigns and sequences of a pool take turns: the first message of each, then the second of each, beginning at another campaign
/// with every `turn`.
#[must_use]
pub fn take_turns(messages: Vec<PoolMessage>, turn: usize) -> Vec<PoolMessage> {
    let mut of_scope: BTreeMap<MessageScope, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, PoolMessage)> = Vec::with_capacity(messages.len());
    for message in messages {
        let rank = of_scope.entry(message.scope).or_default();
        ranked.push((*rank, message));
        *rank += 1;
    }
    let count = of_scope.len().max(1);
    let place: BTreeMap<MessageScope, usize> = of_scope
        .into_keys()
        .enumerate()
        .map(|(index, id)| (id, (index + turn) % count))
        .collect();
    ranked.sort_by_key(|(rank, message)| (*rank, place[&message.scope]));
    ranked.into_iter().map(|(_, message)| message).collect()
}

fn choose(message: &PoolMessage, routing: Routing, context: &RoutingContext<'_>) -> Option<usize> {
    let has_room = |index: &usize| match context.limits.get(&message.scope) {
        Some(limit) => {
            let taken = context.taken.get(&(message.scope, context.devices[*index].device_id));
            taken.is_none_or(|one| one.taken < *limit)
        }
        None => true,
    };
    let has_place = |index: &usize| context.devices[*index].topped_up < context.depth && has_room(index);
    let free =
        |index: &usize| has_place(index) && !context.closed_to_strangers.contains(&context.devices[*index].device_id);
    // Whoever wrote to a lead before goes on writing to it while it can send.
    if let Some(sticky) = message.sticky.and_then(|id| position(&context.devices, id)) {
        return Some(sticky).filter(has_place);
    }
    let all = 0..context.devices.len();
    match routing {
        Routing::RoundRobin => all.filter(free).min_by_key(|index| {
            let load = &context.devices[*index];
            (load.sent_this_hour + load.in_flight, load.device_id)
        }),
        Routing::Random => {
            let open: Vec<usize> = all.filter(free).collect();
            let mut rng = context.seed.rng(message.message_id.as_bytes(), "routing");
            (!open.is_empty()).then(|| open[rng.random_range(0..open.len())])
        }
        Routing::Balanced | Routing::OwnDevice => {
            let own = message.lead_device.and_then(|own| position(&context.devices, own));
            let own = own.filter(&has_room);
            let own = own.filter(|own| !context.closed_to_strangers.contains(&context.devices[*own].device_id));
            if let Some(own) = own.filter(|own| context.devices[*own].sent_this_hour < context.prefer_own_below) {
                // Sticky: it waits for its own device rather than going elsewhere while that has room this hour.
                return Some(own).filter(free);
            }
            all.filter(free).min_by_key(|index| {
                let load = &context.devices[*index];
                (7 * load.sent_this_hour + 3 * load.in_flight, load.device_id)
            })
        }
    }
}

fn position(devices: &[DeviceLoad], id: DeviceId) -> Option<usize> {
    devices.binary_search_by_key(&id, |load| load.device_id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::phone::PersonKey;
    use crate::id::CampaignId;
    use crate::id::{IdSource, MessageId, UserId};
    use crate::time::Timestamp;

    struct Setup {
        devices: Vec<DeviceId>,
        messages: Vec<PoolMessage>,
        routing: BTreeMap<MessageScope, Routing>,
        seed: Seed,
    }

    fn setup(routing: Routing, own: Option<usize>) -> Setup {
        let ids = IdSource::seeded([3; 32]);
        let now = Timestamp::from_millis(1);
        let devices: Vec<_> = (0..3).map(|_| DeviceId::new(&ids, now)).collect();
        let scope = MessageScope::Campaign(CampaignId::new(&ids, now));
        let messages = (0..12)
            .map(|_| PoolMessage {
                message_id: MessageId::new(&ids, now),
                user_id: UserId::MIN,
                scope,
                lead_device: own.map(|index| devices[index]),
                sticky: None,
                person: PersonKey::from_slice(&[0; 16]).unwrap(),
            })
            .collect();
        Setup {
            devices,
            messages,
            routing: BTreeMap::from([(scope, routing)]),
            seed: Seed::from_number(1),
        }
    }

    fn context(setup: &Setup, sent: [u32; 3]) -> RoutingContext<'_> {
        let devices = setup
            .devices
            .iter()
            .zip(sent)
            .map(|(id, sent_this_hour)| DeviceLoad {
                device_id: *id,
                sent_this_hour,
                in_flight: 0,
                topped_up: 0,
            })
            .collect();
        RoutingContext {
            devices,
            routing: &setup.routing,
            limits: BTreeMap::new(),
            taken: BTreeMap::new(),
            depth: 3,
            prefer_own_below: 50,
            closed_to_strangers: BTreeSet::new(),
            seed: &setup.seed,
        }
    }

    fn limited(setup: &Setup, limit: u32, taken: [(u32, u32); 3]) -> RoutingContext<'_> {
        let scope = setup.messages[0].scope;
        let MessageScope::Campaign(campaign_id) = scope else {
            unreachable!("the messages are of a campaign")
        };
        let taken = setup.devices.iter().zip(taken).map(|(device_id, (taken, open))| {
            let one = Taken {
                campaign_id,
                device_id: *device_id,
                taken,
                open,
            };
            ((scope, *device_id), one)
        });
        RoutingContext {
            limits: BTreeMap::from([(scope, limit)]),
            taken: taken.collect(),
            ..context(setup, [0; 3])
        }
    }

    fn counts(setup: &Setup, sent: [u32; 3]) -> [usize; 3] {
        counted(setup, context(setup, sent))
    }

    fn counted(setup: &Setup, context: RoutingContext<'_>) -> [usize; 3] {
        let given = route(&setup.messages, context);
        [0, 1, 2].map(|index| given.iter().filter(|one| one.device_id == setup.devices[index]).count())
    }

    #[test]
    fn no_device_gets_more_of_a_campaign_than_its_limit() {
        for routing in [Routing::Balanced, Routing::RoundRobin, Routing::Random] {
            let one = setup(routing, None);
            assert_eq!(counted(&one, limited(&one, 2, [(0, 0); 3])), [2, 2, 2], "{routing:?}");
            assert_eq!(
                counted(&one, limited(&one, 2, [(2, 0), (1, 0), (3, 1)])),
                [0, 1, 0],
                "{routing:?}"
            );
        }
        let own = setup(Routing::Balanced, Some(1));
        assert_eq!(
            counted(&own, limited(&own, 2, [(1, 0), (2, 0), (0, 0)])),
            [1, 0, 2],
            "whose own device has taken its share goes to others"
        );
    }

    #[test]
    fn messages_are_left_over_when_every_device_has_used_its_limit_up() {
        let one = setup(Routing::Balanced, None);
        let over = |limit, taken| left_over(&one.messages, &limited(&one, limit, taken)).len();
        assert_eq!(over(2, [(2, 0), (2, 0), (3, 0)]), 12);
        assert_eq!(over(2, [(2, 0), (1, 0), (2, 0)]), 0, "one has room");
        assert_eq!(
            over(2, [(2, 0), (2, 1), (2, 0)]),
            0,
            "one may still give its place back"
        );
        let mut nobody = limited(&one, 2, [(2, 0); 3]);
        nobody.devices.clear();
        assert!(left_over(&one.messages, &nobody).is_empty(), "they wait for a device");
        let mut endless = limited(&one, 2, [(2, 0); 3]);
        endless.limits.clear();
        assert!(left_over(&one.messages, &endless).is_empty());
    }

    #[test]
    fn no_device_gets_more_than_it_can_hold_ready() {
        for routing in [Routing::Balanced, Routing::RoundRobin, Routing::Random] {
            assert_eq!(counts(&setup(routing, None), [0, 0, 0]), [3, 3, 3], "{routing:?}");
        }
    }

    #[test]
    fn the_own_device_is_preferred_until_it_has_sent_its_share_of_the_hour() {
        assert_eq!(counts(&setup(Routing::Balanced, Some(1)), [0, 49, 0]), [0, 3, 0]);
        assert_eq!(counts(&setup(Routing::Balanced, Some(1)), [0, 50, 0]), [3, 3, 3]);
    }

    #[test]
    fn a_campaign_that_came_first_does_not_take_every_free_device() {
        let mut one = setup(Routing::Balanced, None);
        let second = MessageScope::Campaign(CampaignId::from_uuid(uuid::Uuid::max()));
        for message in &mut one.messages[8..] {
            message.scope = second;
        }
        let served = |turn| take_turns(one.messages.clone(), turn)[0].scope;
        assert_ne!(served(1), served(2), "the only free place goes to each in turn");
        let turns = take_turns(one.messages.clone(), 1);
        assert_ne!(turns[0].scope, turns[1].scope);
        let mut of_first = turns.iter().filter(|message| message.scope != second);
        assert!(
            of_first.clone().map(|message| message.message_id).is_sorted(),
            "oldest first within one"
        );
        assert_eq!(
            (turns.len(), of_first.next().map(|one| one.message_id)),
            (12, Some(one.messages[0].message_id))
        );
    }

    #[test]
    fn the_least_loaded_device_comes_first() {
        let mut one = setup(Routing::Balanced, None);
        one.messages.truncate(2);
        assert_eq!(counts(&one, [10, 0, 10]), [0, 2, 0]);
    }
}
