//! The one table of cases.

use std::fmt;

use futures::future::BoxFuture;

use super::factory::StoreFactory;
use super::sound::{assert_sound, everything};
use super::world::World;

/// One thing that every store does; its name is a sentence.
pub struct Case {
    /// The aggregate that it is about.
    pub group: &'static str,
    /// The sentence, with underscores.
    pub name: &'static str,
    body: fn(World) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Runs the case on a fresh store, then looks at all that is in it, also after a restart where there can be one.
    ///
    /// # Panics
    /// When the store does not pass.
    pub async fn run(&self, factory: &dyn StoreFactory) {
        let store = factory.fresh().await;
        (self.body)(World::new(store.clone())).await;
        assert_sound(store.as_ref()).await;
        if let Some(again) = factory.reopen(&store).await {
            assert!(
                everything(again.as_ref()).await == everything(store.as_ref()).await,
                "what was committed is not what is there after a restart"
            );
            assert_sound(again.as_ref()).await;
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.name.replace('_', " "))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Runs the case of a name on a runtime of its own.
///
/// # Panics
/// When the store does not pass, or there is no such case.
pub fn run_case(group: &str, name: &str, factory: &dyn StoreFactory) {
    let case = CASES
        .iter()
        .find(|case| (case.group, case.name) == (group, name))
        .expect("the macro names only cases of the table");
    crate::conformance::transport::run(case.run(factory));
}

/// Makes the case table and the macro that makes tests of the same cases, so that none can be forgotten.
macro_rules! case_table {
    ($d:tt $($seed:ident = $number:literal,)+; $($group:ident { $($name:ident,)+ })+) => {
        /// All cases.
        pub static CASES: &[Case] = &[$($(
            Case {
                group: stringify!($group),
                name: stringify!($name),
                body: |world| Box::pin(super::$group::$name(world)),
            },
        )+)+];

        /// Makes a named test of each case of the store suite, for the stores of one
        /// [`StoreFactory`]($crate::conformance::store::StoreFactory).
        #[macro_export]
        macro_rules! store_conformance_tests {
            ($d factory:expr) => {
                $(
                    mod $group {
                        #[allow(unused_imports, reason = "the expression may name what stands beside the macro")]
                        use super::*;
                        $(
                            #[test]
                            fn $name() {
                                $d crate::conformance::store::run_case(
                                    stringify!($group),
                                    stringify!($name),
                                    &$d factory,
                                );
                            }
                        )+
                    }
                )+

                mod random_operations_agree_with_the_memory_store {
                    #[allow(unused_imports, reason = "the expression may name what stands beside the macro")]
                    use super::*;
                    $(
                        #[test]
                        fn $seed() {
                            $d crate::conformance::store::model::run_model(&$d factory, $number);
                        }
                    )+
                }
            };
        }
    };
}

case_table! { $
    of_seed_01 = 1,
    of_seed_02 = 2,
    of_seed_03 = 3,
    of_seed_04 = 4,
    of_seed_05 = 5,
    of_seed_06 = 6,
    of_seed_07 = 7,
    of_seed_08 = 8,
    of_seed_09 = 9,
    of_seed_10 = 10,
    of_seed_11 = 11,
    of_seed_12 = 12,
    of_seed_13 = 13,
    of_seed_14 = 14,
    of_seed_15 = 15,
    of_seed_16 = 16,
    of_seed_17 = 17,
    of_seed_18 = 18,
    of_seed_19 = 19,
    of_seed_20 = 20,
    ;
    devices {
        a_name_is_taken_once_per_user_whatever_its_case_and_blanks,
        the_name_of_a_deleted_device_is_free_again,
        an_update_to_a_taken_name_is_refused,
        an_update_writes_the_settings_and_the_next_version,
        an_update_of_an_older_version_is_refused_and_changes_nothing,
        an_update_leaves_link_hold_and_restriction_alone,
        link_hold_and_restriction_leave_the_version_of_the_settings_alone,
        a_new_credential_ends_a_hold_for_the_old_one_and_no_other_hold,
        a_hold_is_kept_whole_and_ends_when_asked,
        a_hold_of_the_engine_leaves_that_of_a_person,
        a_hold_for_an_older_version_of_the_settings_is_refused,
        a_restriction_is_kept_and_ends_when_asked,
        a_limit_of_new_chats_is_kept_and_ends_when_asked,
        a_link_change_keeps_state_reason_instant_number_and_identity,
        a_link_change_of_an_owner_needs_the_epoch_of_the_device,
        what_follows_an_owners_right_is_done_only_while_it_owns_the_device,
        a_deleted_device_is_not_read_but_still_known_to_the_engine,
        a_callback_token_finds_its_device_and_no_other,
        a_device_without_a_callback_token_is_found_by_none,
        a_changed_callback_token_takes_effect_at_once,
        owned_tells_owner_and_epoch_and_leaves_out_what_does_not_exist,
        the_users_of_the_engine_are_those_with_devices,
        a_deleted_device_cannot_be_changed_any_more,
    }
    leads {
        the_same_identity_is_refused_when_asked_so,
        the_same_identity_without_a_device_is_a_duplicate_too,
        another_device_number_niche_or_user_makes_another_lead,
        merging_adds_the_triggers_that_the_existing_lead_lacks,
        every_insert_is_answered_in_order,
        an_update_writes_every_field_and_the_next_version,
        an_update_of_an_older_version_is_refused,
        an_update_to_an_identity_that_exists_is_refused,
        a_deleted_lead_is_gone_and_its_identity_is_free,
        a_deleted_lead_leaves_its_messages,
        a_niche_trigger_or_tag_matches_exactly,
        all_conditions_of_a_filter_must_hold,
        a_search_folds_case_and_takes_wildcards_as_they_are_written,
        leads_are_found_by_id_and_by_identity_within_their_user,
        niches_are_counted_per_lead_and_sorted,
        a_word_keeps_its_spelling_and_is_found_by_any,
        niches_are_listed_in_the_spelling_of_the_oldest_lead,
        an_edit_does_not_set_the_last_interaction_back,
    }
    campaigns {
        an_update_writes_what_is_given_and_the_next_version,
        an_update_of_an_older_version_is_refused,
        a_change_of_status_makes_an_edit_begun_before_it_late,
        a_campaign_moves_only_as_the_table_of_statuses_allows,
        an_edit_moves_a_status_only_as_the_table_allows,
        a_status_changes_only_from_those_that_are_named,
        naming_the_present_status_changes_its_reason_alone,
        a_change_of_status_records_reason_and_instants,
        only_a_campaign_that_never_started_can_be_deleted,
        a_deleted_campaign_takes_its_entries_along,
        campaigns_are_listed_newest_first_and_filtered,
        campaigns_are_found_by_id_for_the_engine_whoever_owns_them,
        scheduled_campaigns_are_due_oldest_first_when_their_time_has_come,
        the_next_start_is_that_of_the_earliest_scheduled_campaign,
        running_campaigns_are_expanded_until_their_cursor_is_at_the_end,
        a_cursor_moves_only_from_where_it_stands,
        a_page_of_an_audience_cannot_pass_a_pause,
        a_cursor_is_no_edit_of_a_person,
        a_campaign_without_open_messages_completes,
        a_campaign_that_nobody_matched_completes_and_says_so,
        a_completion_and_the_event_that_tells_of_it_are_one_commit,
        a_campaign_with_an_open_message_does_not_complete,
        a_campaign_is_not_called_completed_while_messages_of_it_are_open,
        a_campaign_with_a_message_in_the_pool_does_not_complete,
        a_campaign_that_is_paused_or_still_expanded_does_not_complete,
        as_many_campaigns_complete_as_are_asked_for,
        an_audience_is_what_matches_exactly_by_id_and_up_to_a_limit,
        leads_made_after_the_start_are_not_in_the_audience,
        entries_are_paged_by_position_and_never_replaced,
        a_page_of_an_audience_is_as_long_as_it_is_asked_to_be,
        entries_are_added_to_drafts_only,
        persons_of_a_campaign_are_those_with_a_message_that_is_no_duplicate,
        a_saved_text_is_changed_by_version_and_named_once_per_user,
    }
    round_trip {
        a_device_reads_back_as_it_was_inserted,
        a_lead_reads_back_as_it_was_inserted,
        a_campaign_reads_back_as_it_was_inserted,
        entries_read_back_as_they_were_inserted,
        a_message_reads_back_as_it_was_inserted,
        an_attempt_reads_back_as_it_was_begun,
        a_suppression_reads_back_as_it_was_inserted,
        a_saved_text_reads_back_as_it_was_inserted,
        a_request_to_a_device_reads_back_with_its_answer,
        a_user_reads_back_as_inserted,
        an_event_of_every_kind_reads_back,
        instants_keep_their_milliseconds_from_the_first_to_the_last,
        the_longest_lists_of_a_commit_are_taken_whole,
    }
    commit {
        an_empty_set_does_nothing,
        a_store_that_answers_is_ready,
        a_set_whose_last_change_fails_leaves_nothing_behind,
        changes_apply_in_the_order_given,
        a_set_sees_its_own_changes,
        every_class_of_write_commits,
        a_commit_tells_the_devices_that_got_something_to_do,
        what_is_committed_is_there_after_a_restart,
    }
    outbox_insert {
        a_known_key_is_a_reported_no_op,
        the_same_commit_twice_enqueues_once_whatever_became_of_the_messages,
        a_key_twice_in_one_batch_is_enqueued_once,
        a_message_begins_in_the_state_that_its_scope_asks_for,
        a_message_to_a_suppressed_person_begins_skipped,
        an_override_means_nothing_in_a_campaign,
        a_message_on_a_deleted_device_begins_skipped,
        a_message_that_a_planner_settled_keeps_its_state_and_reason,
        a_message_is_never_inserted_as_if_it_were_being_sent,
        a_person_cancels_what_is_open_and_not_being_sent,
        a_person_marks_what_nobody_can_tell_and_nothing_else,
        a_message_sent_again_by_hand_takes_the_place_of_the_earlier_one,
        one_campaign_has_one_message_per_person_and_round,
        an_open_message_that_would_wait_for_ever_is_refused,
        a_key_of_another_user_tells_nothing_of_theirs,
        only_a_failed_or_unknown_message_of_the_same_scope_is_sent_again_and_once,
    }
    outbox_due {
        a_message_is_due_when_its_time_has_come,
        a_due_message_tells_what_rendering_needs_of_its_lead_as_it_is_now,
        the_head_is_the_earliest_due_and_among_equals_the_smallest_id,
        each_priority_has_its_head_the_most_urgent_first,
        campaigns_of_a_lane_take_turns,
        a_campaign_that_is_not_due_is_passed_over_in_its_turn,
        a_lane_with_nothing_due_says_when_to_look_again,
        lanes_are_answered_one_by_one_in_the_order_asked,
        only_queued_messages_of_the_device_are_due,
        looking_changes_nothing,
        a_due_message_tells_the_last_greeting_to_its_person,
    }
    outbox_begin {
        a_begun_message_is_being_sent_and_its_attempt_is_written,
        a_begun_message_shows_in_what_its_node_is_sending,
        a_message_begins_once,
        a_message_begins_from_queued_alone,
        a_device_sends_one_message_at_a_time,
        items_are_answered_one_by_one_in_order,
        a_message_begins_on_its_own_device_and_for_its_own_user_alone,
        a_message_in_the_pool_does_not_begin,
        an_old_or_invented_epoch_begins_nothing,
        a_fenced_node_begins_nothing,
        a_node_that_left_begins_nothing,
        a_device_on_hold_begins_nothing,
        a_deleted_device_begins_nothing,
        a_message_of_a_paused_campaign_is_held_by_the_gate,
        a_message_of_an_ended_campaign_is_cancelled_by_the_gate,
        nothing_begins_to_a_suppressed_person,
        a_resumed_campaign_begins_again,
        every_attempt_of_a_message_is_kept_oldest_first,
        a_message_in_doubt_begins_again_under_its_attempt,
        a_message_in_doubt_does_not_begin_under_another_attempt,
        only_a_message_in_doubt_begins_again,
        a_message_in_doubt_of_an_ended_campaign_becomes_unknown_instead_of_beginning_again,
        a_message_in_doubt_about_a_suppressed_person_becomes_unknown_instead_of_beginning_again,
        a_message_in_doubt_of_a_paused_campaign_waits_in_doubt,
        a_message_in_doubt_begins_again_under_the_next_owner,
        the_gate_does_not_ask_when_a_message_is_due,
        two_nodes_begin_a_message_and_one_wins,
    }
    warmth {
        who_wrote_or_was_sent_to_is_no_stranger_to_that_device,
        what_was_not_sent_makes_nobody_known,
        strangers_of_a_lane_are_told_in_order_of_those_that_are_looked_at,
        what_waits_for_a_stranger_is_found_and_goes_at_once_when_they_write,
        time_put_off_for_strangers_does_not_count_for_the_expiry,
        attempts_to_strangers_are_told_as_it_stood_then,
    }
    outbox_settle {
        a_message_that_is_being_sent_moves_as_the_verdict_says,
        a_message_in_doubt_moves_as_the_verdict_says,
        an_outcome_repeated_is_already_there,
        a_settled_message_keeps_its_state_whatever_else_is_said,
        an_outcome_of_another_attempt_moves_nothing,
        an_outcome_about_another_users_message_moves_nothing,
        outcomes_are_answered_one_by_one_in_order,
        a_success_keeps_the_vendors_id_the_delivery_and_the_words,
        a_refused_message_waits_until_it_is_due_again,
        a_refused_message_goes_where_its_scope_and_person_ask,
        a_success_counts_whatever_became_of_scope_person_and_device,
        a_message_refused_too_often_by_its_own_fault_fails,
        what_may_have_been_sent_when_its_scope_ended_becomes_unknown,
        what_may_have_been_sent_when_its_scope_was_paused_waits_in_doubt,
        a_fenced_node_settles_nothing,
        late_evidence_settles_what_is_open_or_unknown,
        late_evidence_moves_nothing_else,
        late_evidence_does_not_touch_an_attempt_that_was_begun_since,
        an_old_epoch_has_no_say_about_what_its_successor_sends_again,
        a_declined_message_leaves_its_lane_with_its_reason,
        a_message_put_off_stays_queued_and_is_due_later,
        declining_leaves_alone_what_is_not_queued_on_the_device,
        only_the_owner_declines,
        every_cause_of_doubt_is_kept,
        every_reason_is_kept,
        a_success_told_again_adds_what_it_knows_more,
        the_owners_own_late_outcome_is_evidence_too,
        declining_to_any_other_state_is_refused_as_a_whole,
    }
    doubt {
        a_message_in_doubt_is_looked_at_when_its_time_has_come,
        a_node_looks_at_the_doubts_of_its_own_devices_alone,
        a_look_that_found_nothing_is_counted_and_the_doubt_keeps_its_beginning,
        what_is_in_doubt_on_a_device_that_becomes_another_account_is_asked_of_nobody,
        other_settings_of_a_device_leave_what_is_in_doubt_as_it_is,
        what_was_sent_from_another_number_is_not_sent_again,
        a_message_in_doubt_is_queued_again_only_because_its_gateway_never_had_it,
        a_doubt_of_an_ended_campaign_becomes_unknown,
        a_doubt_of_a_paused_campaign_stays_one,
        a_doubt_about_a_person_who_opted_out_becomes_unknown,
    }
    expiry {
        what_has_expired_is_skipped_wherever_it_waits,
        what_has_not_expired_says_when_it_will,
        an_expiry_moves_at_most_its_limit_the_longest_expired_first,
        an_expiry_leaves_alone_what_is_held_sent_or_in_doubt,
        what_expires_in_a_paused_or_ended_campaign_goes_where_its_campaign_asks,
        a_campaign_whose_messages_have_expired_completes,
    }
    sweep {
        without_a_change_there_is_nothing_to_sweep,
        a_pause_holds_queued_messages_and_a_resume_releases_them,
        time_on_hold_does_not_count_towards_expiry,
        ending_a_campaign_cancels_what_is_queued_and_held,
        what_is_being_sent_is_left_to_its_outcome,
        a_sweep_moves_at_most_its_limit_and_says_whether_there_is_more,
        a_pause_taken_back_halfway_releases_what_was_held,
        released_messages_to_suppressed_persons_are_skipped,
        messages_of_a_deleted_device_are_skipped,
        held_messages_of_a_deleted_device_are_skipped_too,
        pool_messages_of_a_deleted_device_go_back_to_the_pool,
        messages_of_a_campaign_that_fails_before_it_starts_are_cancelled,
        any_number_of_nodes_may_sweep_at_once,
        doubts_of_a_deleted_device_stay_with_its_owner_until_it_has_none,
        a_status_changed_by_an_edit_is_swept_too,
    }
    pool {
        the_pool_shows_due_messages_without_a_device_oldest_first,
        the_pool_tells_campaign_person_and_the_device_of_the_lead,
        a_node_sees_the_pool_of_users_whose_devices_it_owns,
        a_campaign_with_a_large_pool_hides_no_other,
        the_pool_of_a_campaign_that_does_not_run_is_not_shown,
        an_assigned_message_is_due_on_its_device,
        only_what_waits_without_a_device_is_assigned,
        a_message_is_never_assigned_to_another_users_or_a_deleted_device,
        queued_pool_messages_go_back_and_no_others,
        a_message_is_assigned_once_however_many_try,
        loads_tell_what_each_device_did_and_has_to_do,
        loads_count_no_backlog_to_its_end,
    }
    leads_pool {
        the_audience_of_the_pool_are_leads_without_a_device,
        a_limit_is_kept_with_its_campaign,
        a_device_takes_no_more_of_a_campaign_than_its_limit,
        what_was_or_may_have_been_sent_or_failed_counts_and_what_was_skipped_does_not,
        what_goes_back_to_the_pool_gives_its_place_back,
        a_limit_holds_however_many_assign_at_once,
        what_devices_have_taken_is_told_by_campaign,
        a_campaign_triggered_again_plans_and_shares_out_anew,
        a_message_sent_again_takes_the_place_of_the_one_it_replaces,
        only_a_completed_campaign_of_the_pool_is_triggered_again,
        what_no_device_may_take_is_left_over,
        only_what_waits_in_a_campaign_with_a_limit_is_left_over,
        what_is_left_over_of_a_paused_or_ended_campaign_goes_where_that_asks,
        what_was_left_over_is_taken_up_once,
        what_is_planned_for_persons_is_told_with_what_became_of_it,
        a_lead_of_the_pool_belongs_to_the_device_that_sent_to_it_and_not_before,
        evidence_and_a_persons_word_give_a_lead_to_its_device_too,
        a_lead_stays_where_it_is_when_it_cannot_belong_to_the_device,
        leads_of_other_campaigns_stay_as_they_are_when_they_are_sent_to,
        the_newest_campaign_message_of_leads_is_told,
        a_replaced_message_is_no_leads_newest,
    }
    leases {
        the_first_seed_stays,
        nodes_that_start_at_once_get_one_seed,
        a_node_joins_once_beats_and_is_listed,
        a_node_that_is_not_there_cannot_beat,
        a_node_claims_free_devices_up_to_its_limit_and_their_epochs_grow,
        a_deleted_device_is_not_claimed_and_stays_with_its_owner,
        claimers_at_once_share_devices_without_owning_one_twice,
        an_epoch_grows_with_every_change_of_owner,
        devices_that_nobody_owns_and_nobody_deleted_are_counted,
        a_device_is_given_back_at_its_epoch_and_by_its_owner_alone,
        a_device_that_sends_is_not_given_back,
        a_takeover_frees_devices_and_puts_what_was_being_sent_in_doubt,
        a_node_that_beats_is_not_taken_over,
        a_takeover_can_be_repeated,
        a_fenced_node_takes_over_nobody,
        a_fenced_node_has_no_say_as_owner,
        a_message_sent_again_when_its_node_died_keeps_its_count,
        leaving_gives_back_everything_and_doubts_what_was_being_sent,
        one_node_holds_the_planner_lease,
        two_nodes_that_ask_at_once_get_one_planner_lease,
        the_dead_are_fenced_with_proof_or_not_at_all,
        fenced_nodes_are_forgotten_after_a_while_and_no_others,
        wall_clocks_that_differ_decide_nothing,
        a_node_takes_over_neither_itself_nor_one_that_left,
        giving_a_device_back_makes_its_epoch_old,
        leaving_twice_is_leaving,
        devices_are_claimed_in_order_of_id,
        what_a_takeover_doubts_of_an_ended_campaign_is_told_to_the_next_owner_who_ends_it,
        what_a_takeover_doubts_on_a_deleted_device_does_not_wait_for_an_owner,
        what_leaving_doubts_on_a_deleted_device_does_not_wait_for_an_owner,
    }
    suppression {
        opting_out_stops_every_open_message_in_the_same_commit,
        opting_out_leaves_what_is_settled_in_the_air_or_meant_all_the_same,
        an_opt_out_holds_for_one_user,
        a_person_suppressed_twice_is_listed_once,
        the_suppressed_among_some_persons_are_found,
        a_person_may_be_written_to_again_from_then_on,
        an_erased_person_leaves_numbers_and_nothing_else,
        erasing_a_person_stops_every_open_message_even_one_that_was_meant,
        a_newer_suppression_replaces_what_was_recorded,
        lifting_a_suppression_that_is_not_there_does_nothing,
    }
    receipts {
        a_receipt_moves_delivery_forward_only,
        a_receipt_finds_its_message_by_our_id_or_the_vendors,
        a_receipt_that_finds_nothing_is_ignored,
        a_receipt_proves_that_a_message_in_doubt_was_sent,
        a_receipt_leaves_what_was_not_sent_alone,
        a_receipt_by_recipient_moves_the_newest_and_settles_nothing,
        a_reply_is_counted_once_for_the_newest_message_and_told_to_leads,
        a_reply_of_a_stranger_is_new_and_matches_nothing,
        replies_recorded_long_ago_are_forgotten_and_younger_ones_are_not,
        a_late_reply_does_not_set_an_interaction_back,
        a_reply_seen_before_takes_its_whole_set_with_it,
        a_receipt_that_overtakes_the_outcome_decides_it,
        a_takeover_leaves_no_doubt_about_what_a_receipt_has_proved,
        a_receipt_proves_that_a_requeued_message_was_sent,
    }
    numbers {
        numbers_add_up_over_every_state_and_delivery,
        a_span_of_time_counts_what_was_completed_in_it_and_what_was_open_at_its_end,
        numbers_are_kept_per_device_and_follow_a_message_out_of_the_pool,
        numbers_of_hand_written_messages_are_the_users_own,
        a_superseded_message_counts_nowhere,
        the_history_of_a_lane_holds_what_was_or_may_have_been_sent,
        recent_outcomes_count_failed_and_unknown_and_leave_out_skipped,
        recent_outcomes_that_are_recorded_together_are_counted_one_by_one,
        the_backlog_counts_what_is_open_over_all_users,
    }
    isolation {
        another_users_rows_are_not_found,
        another_users_rows_are_in_no_list,
        no_change_reaches_another_users_rows,
        no_row_points_into_another_users_data,
        forgetting_or_suppressing_a_person_stays_with_its_user,
        a_request_limited_to_some_devices_sees_no_more,
        a_request_limited_to_no_device_sees_none,
        what_belongs_to_no_device_is_not_seen_by_a_request_limited_to_some,
    }
    paging {
        pages_of_devices_leads_and_messages_hold_every_row_once,
        pages_of_campaigns_texts_suppressions_imports_and_users_hold_every_row_once,
        a_filtered_list_is_paged_like_any_other,
        messages_are_filtered_by_everything_that_a_filter_names,
        a_page_asked_for_too_large_or_too_small_is_clamped,
    }
    events {
        events_are_read_after_one_in_order_and_up_to_a_limit,
        who_reads_on_misses_no_event_that_is_committed_later_whatever_its_id,
        who_reads_on_while_many_commit_at_once_misses_nothing,
        the_newest_event_is_the_one_that_was_committed_last,
        events_are_committed_with_what_they_tell_of_or_not_at_all,
        old_events_are_removed_and_younger_ones_stay,
        a_node_sees_the_waiting_requests_to_its_devices_oldest_first,
        a_request_is_answered_once_and_by_the_owner_alone,
        expired_requests_are_removed,
        an_event_that_is_known_stays_as_it_is,
        a_request_wakes_the_owner_of_its_device,
    }
    access {
        a_login_is_taken_once,
        a_login_is_found_whatever_its_case,
        an_update_of_a_user_names_the_version_that_it_read,
        a_user_that_does_not_exist_is_not_found,
        a_login_lasts_until_it_expires,
        a_login_that_is_used_lasts_longer,
        logging_out_ends_one_login_and_a_new_password_all_of_that_user,
        expired_logins_are_removed_and_live_ones_stay,
        a_login_is_made_once_and_only_what_is_there_lasts_longer,
    }
    imports {
        a_record_is_replaced_and_refusals_are_appended,
        refused_rows_are_read_after_a_line_and_up_to_a_limit,
        imports_are_listed_newest_first,
        a_crash_fails_running_imports_and_no_others,
    }
    sessions {
        values_are_read_in_the_order_of_the_keys_asked_for,
        a_batch_is_written_as_a_whole_and_the_last_write_of_a_key_counts,
        a_scan_gives_what_begins_with_the_prefix_page_by_page,
        devices_share_no_value,
        a_node_that_does_not_own_the_device_at_that_epoch_writes_nothing,
        a_node_that_was_fenced_or_has_left_writes_nothing,
        a_wipe_takes_the_session_of_one_device,
        a_sweep_takes_what_ended_of_all_devices_up_to_its_limit,
        what_is_put_again_has_its_new_end,
        keys_and_values_of_any_bytes_come_back_as_they_were,
        what_passes_the_limits_is_refused_as_a_whole,
        writers_at_once_lose_nothing,
    }
    chats {
        a_message_makes_its_chat_and_comes_back_as_it_was,
        a_message_that_is_delivered_again_is_kept_once,
        a_reply_heard_before_adds_nothing_to_its_chat,
        what_the_engine_sent_is_shown_among_what_was_written,
        what_campaigns_and_sequences_sent_is_shown_too,
        what_the_vendor_tells_of_the_engines_own_messages_is_left_aside,
        chats_are_told_newest_first_page_by_page,
        messages_are_told_in_both_directions_page_by_page,
        a_chat_that_was_read_has_nothing_unread,
        a_chat_is_its_users_and_its_devices_alone,
        erasing_a_person_takes_the_chats_with_them,
        chats_of_a_deleted_device_are_not_seen_and_are_swept,
        a_sweep_takes_what_is_old_up_to_its_limit,
    }
    time {
        a_campaign_lives_in_the_year_2000_as_it_does_today,
        a_campaign_lives_in_the_year_2100_as_it_does_today,
        time_that_goes_back_breaks_nothing,
    }
    interleaving {
        two_edits_of_one_snapshot_give_one_conflict,
        a_page_planned_twice_is_committed_once,
        a_page_planned_before_a_pause_is_refused_after_it,
        a_pause_between_due_and_begin_is_seen_by_begin,
        an_opt_out_between_due_and_begin_is_seen_by_begin,
        a_campaign_starts_once_however_many_planners_try,
        a_message_enqueued_by_many_at_once_is_there_once,
        a_takeover_between_send_and_settle_leaves_evidence_and_no_second_attempt,
        a_takeover_and_a_beat_at_once_leave_one_winner,
        an_opt_out_and_a_begin_at_once_leave_no_queued_message,
        settling_by_many_at_once_records_once,
    }
    sequences_rows {
        a_sequence_reads_back_as_it_was_inserted_with_its_steps,
        a_sequence_without_steps_never_becomes_active,
        an_edit_keeps_status_cursor_and_instants_and_takes_the_next_version,
        an_edit_of_an_older_version_is_refused,
        new_steps_are_the_next_version_and_older_ones_stay,
        an_edit_of_what_leads_enter_by_looks_for_leads_anew,
        a_sequence_moves_only_as_the_table_of_statuses_allows,
        a_status_records_reason_instants_and_where_matching_stands,
        a_deleted_sequence_is_not_found_but_known_to_the_engine_with_its_numbers,
        sequences_are_listed_newest_first_filtered_and_in_pages,
        a_sequence_of_another_user_is_neither_read_nor_changed,
    }
    sequences_matching {
        a_lead_that_gained_a_token_or_another_target_status_is_to_be_matched,
        a_lead_that_changed_meanwhile_is_matched_again,
        entries_match_whole_tokens_within_their_user,
        a_sequence_is_found_by_its_niche_in_any_status,
        match_pages_hold_everybody_who_matches_once,
        a_match_cursor_moves_only_from_where_it_stands,
        one_trigger_is_replaced_and_the_others_stay,
    }
    sequences_enrolling {
        an_enrolment_comes_with_the_message_of_its_first_step,
        a_person_is_in_a_sequence_once_at_a_time,
        an_enrolment_committed_twice_is_there_once,
        a_person_enters_again_as_the_sequence_allows,
        a_chain_does_not_lead_back_where_it_came_through,
        a_suppressed_person_does_not_enter,
        the_same_number_and_trigger_at_another_user_are_another_matter,
        an_enrolment_points_at_nothing_that_is_not_its_users,
        who_enters_a_sequence_that_does_not_run_waits,
        a_first_step_that_is_skipped_from_the_start_marks_its_enrolment,
        a_chain_that_is_refused_says_so_where_it_came_from,
        a_completion_takes_one_trigger_of_three_and_chains_on_in_one_commit,
    }
    sequences_flow {
        whatever_a_settlement_settles_marks_its_enrolment,
        every_other_road_that_settles_marks_its_enrolment_too,
        a_step_that_expires_marks_its_enrolment,
        a_step_of_a_deleted_device_marks_its_enrolment,
        marks_are_told_oldest_first_and_also_of_what_does_not_run,
        evidence_that_comes_later_marks_nobody_again,
        a_move_sets_step_and_due_time_and_enqueues_the_next_message,
        a_move_that_does_not_fit_is_refused,
        a_settlement_moves_its_enrolment_on_where_its_plan_fits,
        a_settlement_stands_where_its_plan_does_not_fit_any_more,
        an_enrolment_moves_on_while_its_sequence_is_paused_and_waits,
        steps_that_an_edit_removed_are_recorded_as_cancelled,
        a_step_that_was_recorded_as_removed_does_not_come_again,
        nothing_begins_of_what_does_not_run_or_has_ended,
        a_pause_holds_steps_and_a_resume_releases_them,
        a_step_sent_again_holds_the_later_ones_until_it_is_settled,
        a_step_is_not_sent_again_after_a_later_one_began,
        a_mark_outlives_a_step_sent_again,
        a_flow_belongs_to_a_sequence_and_an_enrolment_of_its_user,
        sequences_of_a_lane_take_turns,
        the_vendors_id_of_a_step_finds_it,
    }
    sequences_ending {
        an_enrolment_ends_once_and_where_it_stands,
        an_end_cancels_what_waits_and_gives_up_what_is_in_doubt,
        what_may_have_been_sent_of_an_ended_enrolment_becomes_unknown,
        what_is_sent_again_of_an_ended_enrolment_is_cancelled,
        a_reply_ends_what_exits_on_a_reply_and_nothing_else,
        a_human_who_takes_over_ends_what_exits_on_a_reply_and_makes_nothing_replied,
        what_a_device_of_the_user_sent_takes_nothing_over,
        an_opt_out_ends_every_enrolment_of_the_person,
        an_erased_person_leaves_enrolments_without_a_number,
        a_deleted_lead_ends_its_enrolments,
        a_deleted_sequence_ends_its_enrolments_in_pages,
        a_lead_that_changes_its_device_gets_the_next_step_from_the_new_one,
        pool_messages_of_running_sequences_wait_for_a_device,
    }
    sequences_numbers {
        counts_follow_every_move_of_messages_and_enrolments,
        counts_of_a_span_hold_what_was_settled_in_it_and_what_is_open,
        counts_are_of_one_moment_while_people_enter,
        a_step_sent_again_counts_once,
        messages_are_filtered_by_enrolment_and_step,
        enrolments_are_listed_filtered_and_in_pages,
        a_request_limited_to_a_device_sees_its_enrolments_and_counts_alone,
        recent_outcomes_of_a_sequence_are_its_own,
    }
    archive {
        what_is_archived_reads_as_before,
        what_is_left_over_is_counted_in_the_archive,
        a_campaign_that_runs_or_is_open_or_young_is_not_archived,
        campaigns_are_archived_in_pages_the_longest_ended_first,
        an_archived_campaign_never_changes,
        an_archived_message_never_changes,
        devices_know_those_to_whom_archived_messages_were_sent,
        first_and_last_start_of_a_device_outlive_the_archive,
        an_erased_person_is_erased_in_the_archive,
    }
}
