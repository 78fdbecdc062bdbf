//! What ties messages of sequences to their enrolments: the gate, the mark of a step that is settled, and the steps that wait for
//! one that is sent again.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use wa_core::domain::enrolment::FlowRef;
use wa_core::domain::message::{MessageState, Reason};
use wa_core::id::{EnrolmentId, SequenceId, StepId, UserId};
use wa_core::plan::ScopeGate;
use wa_core::time::Timestamp;

use crate::error::Done;
use crate::insert::{gather, query, run_over};
use crate::live::{Batch, Live, live, live_by};
use crate::row::{keys, read_all};
use crate::sweep::move_one;
use crate::tallies::Tallies;

/// The gate of a message of an enrolment `fe` and its sequence `fq` at a step, named by its term, see [`gate_from`]. An open
/// message that sends an earlier step again holds up those after it; steps come in the order of their first messages, the
/// present one last. By `messages_flow`.
macro_rules! gate {
    ($step:literal) => {
        concat!(
            "CASE WHEN fe.state <> 1 OR fq.deleted_at IS NOT NULL THEN 3
            WHEN fq.status <> 2 OR EXISTS (
                SELECT 1 FROM messages r
                WHERE r.enrolment_id = fe.id AND r.scope_kind = 2 AND r.state < 5 AND r.round > 0
                    AND r.step_id <> fe.step_id AND r.step_id <> ",
            $step,
            " AND (fe.step_id = ",
            $step,
            " OR (SELECT f.id FROM messages f
                        WHERE f.enrolment_id = fe.id AND f.step_id = r.step_id AND f.round = 0)
                    < (SELECT f.id FROM messages f
                        WHERE f.enrolment_id = fe.id AND f.step_id = ",
            $step,
            " AND f.round = 0))) THEN 2 ELSE 1 END"
        )
    };
}
pub(crate) use gate;

/// `InsertMessages`: enrolments and the gates of steps of theirs, with the place in the list. By the keys.
pub(crate) const GATES: &str = concat!(
    "SELECT j.key, fe.user_id, fe.sequence_id, ",
    gate!("j.step_id"),
    " FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS j (enrolment_id, step_id, key)
    JOIN enrolments fe ON fe.id = j.enrolment_id JOIN sequences fq ON fq.id = fe.sequence_id"
);
/// `InsertMessages` with `supersedes`: whether a step after one has begun an attempt, by the keys and `messages_flow`.
pub(crate) const LATER_BEGUN: &str = "
    SELECT EXISTS (
        SELECT 1 FROM enrolments e JOIN messages x ON x.enrolment_id = e.id
        WHERE e.id = $1 AND e.step_id <> $2 AND x.step_id <> $2 AND x.attempt_id IS NOT NULL
            AND (x.step_id = e.step_id OR (
                SELECT f.id FROM messages f
                WHERE f.enrolment_id = e.id AND f.step_id = x.step_id AND f.round = 0
            ) > (
                SELECT f.id FROM messages f
                WHERE f.enrolment_id = e.id AND f.step_id = $2 AND f.round = 0
            ))
    )";
/// Marks the enrolments of settled steps. By the primary key.
pub(crate) const MARK: &str = "
    UPDATE enrolments SET marked_at = v.at FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS v (id, step_id, at)
    WHERE enrolments.id = v.id AND enrolments.step_id = v.step_id AND enrolments.state = 1";
/// The messages of enrolments that wait, by `messages_flow`; OFFSET makes Postgres look for each enrolment.
pub(crate) const HELD: &str = live!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.enrolment_id = j.value AND x.state = 2 AND x.scope_kind = 2 OFFSET 0
    ) AS m ORDER BY m.id"
);
/// The messages of enrolments that end with them, by `messages_flow`.
pub(crate) const STOPPED: &str = live!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN messages m ON m.enrolment_id = j.value
    WHERE m.state IN (1, 2, 4) ORDER BY m.id"
);

/// Reads what [`gate!`] tells; a flow without an enrolment has ended.
pub(crate) const fn gate_from(number: Option<i64>) -> ScopeGate {
    match number {
        Some(1) => ScopeGate::Open,
        Some(2) => ScopeGate::Paused,
        _ => ScopeGate::Ended,
    }
}

/// What decides where a new message of a flow goes.
pub(crate) struct FlowFacts {
    pub(crate) user_id: UserId,
    pub(crate) sequence_id: SequenceId,
    pub(crate) gate: ScopeGate,
}

/// The gates of steps of enrolments.
pub(crate) async fn gates<'a>(
    connection: &mut PgConnection,
    of: impl IntoIterator<Item = &'a FlowRef>,
) -> Done<HashMap<(EnrolmentId, StepId), FlowFacts>> {
    let flows: Vec<(EnrolmentId, StepId)> = of.into_iter().map(|flow| (flow.enrolment_id, flow.step_id)).collect();
    if flows.is_empty() {
        return Ok(HashMap::new());
    }
    let list = gather(&flows, |row, (enrolment, step)| row.bind(enrolment).bind(step));
    let rows = list.into_statement(GATES).fetch_all(connection).await?;
    let found = read_all(&rows, |c| {
        let at: usize = c.place()?;
        let facts = FlowFacts {
            user_id: c.key("user_id")?,
            sequence_id: c.key("sequence_id")?,
            gate: gate_from(c.opt_int()?),
        };
        Ok((flows[at], facts))
    })?;
    Ok(found.into_iter().collect())
}

/// Whether a later step of the same enrolment has begun an attempt.
pub(crate) async fn later_has_begun(connection: &mut PgConnection, flow: &FlowRef) -> Done<bool> {
    let begun = query(LATER_BEGUN)
        .bind(&flow.enrolment_id)
        .bind(&flow.step_id)
        .number(connection)
        .await?;
    Ok(begun == Some(1))
}

/// What follows in the same transaction from messages of flows that settled.
#[derive(Default)]
pub(crate) struct Settlements {
    /// Steps settled in their first round: their enrolments are marked.
    marks: Vec<(EnrolmentId, StepId, Timestamp)>,
    /// Enrolments of which a message that was open is settled, and when: what waited for it goes on.
    freed: Vec<EnrolmentId>,
    at: Option<Timestamp>,
}

impl Settlements {
    /// Looks at a message that changed.
    pub(crate) fn see(&mut self, was: MessageState, live: &Live) {
        if let (Some(flow), Some(at), true) = (&live.flow, live.settled_at, was.is_open()) {
            if live.round == 0 {
                self.marks.push((flow.enrolment_id, flow.step_id, at));
            }
            self.freed.push(flow.enrolment_id);
            self.at = Some(at);
        }
    }

    /// Marks a step whose message was settled from the start.
    pub(crate) fn mark(&mut self, enrolment: EnrolmentId, step: StepId, at: Timestamp) {
        self.marks.push((enrolment, step, at));
    }

    pub(crate) async fn write(self, connection: &mut PgConnection, tallies: &mut Tallies) -> Done<()> {
        run_over(connection, MARK, &self.marks, |row, (enrolment, step, at)| {
            row.bind(enrolment).bind(step).bind(at.as_millis())
        })
        .await?;
        let Some(now) = self.at else { return Ok(()) };
        let waiting = live_by(connection, HELD, keys(&self.freed)).await?;
        let mut batch = Batch::default();
        for live in waiting {
            if live.requeued().state == MessageState::Queued {
                move_one(&mut batch, live, now)?;
            }
        }
        if batch.len() == 0 {
            return Ok(());
        }
        // What goes on is open, so that nothing more follows from it.
        Box::pin(batch.write(connection, tallies)).await
    }
}

/// Moves the open messages of enrolments that ended and are not being sent.
pub(crate) async fn stop(
    connection: &mut PgConnection,
    tallies: &mut Tallies,
    enrolments: &[EnrolmentId],
    now: Timestamp,
) -> Done<()> {
    let open = live_by(connection, STOPPED, keys(enrolments)).await?;
    let mut batch = Batch::default();
    for live in open {
        let (state, reason) = match live.state {
            MessageState::InDoubt => (MessageState::Unknown, Reason::EndedInDoubt),
            _ => (MessageState::Cancelled, Reason::ScopeEnded),
        };
        batch.change(live, |live| live.place(state, Some(reason), now))?;
    }
    batch.write(connection, tallies).await
}
