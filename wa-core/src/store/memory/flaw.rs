//! Deliberate bugs, by which the conformance suite proves that it would catch them.

macro_rules! flaws {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A deliberate, realistic bug of a store. Each must make at least one case of the conformance suite fail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Flaw {
            $($(#[$doc])* $name,)+
        }

        #[cfg(feature = "conformance")]
        impl Flaw {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

flaws! {
    /// A commit that fails keeps the changes before the one that failed.
    CommitIsNotAtomic,
    /// A known idempotency key gets a second row.
    KeyIsNotUnique,
    /// A row that was sent again counts beside its replacement.
    SupersededRowCounts,
    /// Inserted messages wake nobody.
    InsertWakesNobody,
    /// A message is queued although its campaign is paused.
    InsertIgnoresPause,
    /// Messages may name devices and leads of other users.
    InsertCrossesUsers,
    /// Updates do not compare versions.
    VersionIsIgnored,
    /// A form that was read before a device was linked takes its identity away.
    UpdateForgetsIdentity,
    /// A hold of the engine takes the place of one that a person set.
    HoldReplacesThatOfAPerson,
    /// A device is put on hold for what was said of a credential that it has no more.
    HoldIgnoresVersion,
    /// An edit of a device forgets how many new chats its account may begin.
    UpdateForgetsNewChats,
    /// A campaign's status is set whatever it was.
    StatusIsForced,
    /// A page of an audience is committed from any cursor.
    CursorIsIgnored,
    /// A page of an audience is committed although its campaign is paused.
    CursorPassesPause,
    /// Events are not kept with the commit.
    EventsAreLost,
    /// Events are read in the order of their ids, so that one is missed which is committed later.
    EventsAreReadById,
    /// The newest event is the one of the highest id, not the one that was committed last.
    NewestEventIsTheOneOfTheHighestId,
    /// An opt-out moves no open messages.
    OptOutMovesNothing,
    /// An opt-out is a list at which nobody looks: neither open messages nor `begin` obey it.
    OptOutIsOnlyAList,
    /// Erasing a person leaves the texts of attempts.
    ErasureKeepsTexts,
    /// A receipt moves delivery backwards.
    ReceiptMovesBack,
    /// A receipt is no evidence for a message in doubt.
    ReceiptProvesNothing,
    /// Who wrote to a device is a stranger to it all the same.
    WhoWroteStaysAStranger,
    /// Those to whom a device has sent are strangers to it all the same.
    WhoWasSentToStaysAStranger,
    /// What waited because its person was a stranger still does when they have written.
    WhoWroteStillWaits,
    /// Waiting for the end of a restriction counts as time in which a message could have been sent.
    RestrictionEatsExpiry,
    /// A reply that is delivered twice counts twice.
    ReplyCountsTwice,
    /// What a device of the user sent counts as written by a human on the phone.
    OwnMessagesTakeOver,
    /// What a human writes on the phone makes messages replied.
    WhoTakesOverReplies,
    /// A command that was answered takes another answer.
    AnswerIsReplaced,
    /// A changed campaign or lead loses rows of the tallies when its messages stray.
    TalliesMissStrays,
    /// `due` tells messages whose time has not come.
    DueTellsTheFuture,
    /// `due` tells messages of another device when a lane has none.
    DueTellsOthers,
    /// `due` always serves the same campaign first.
    DueForgetsTurns,
    /// `begin` does not look at pauses.
    BeginIgnoresPause,
    /// `begin` does not look at ended scopes.
    BeginIgnoresEnd,
    /// `begin` does not compare epochs.
    BeginIgnoresEpoch,
    /// `begin` does not look at a device's hold.
    BeginIgnoresHold,
    /// `begin` lets a device send two messages at once.
    BeginSendsTwoAtOnce,
    /// `begin` drops the attempt before.
    BeginForgetsAttempts,
    /// Sending again with the same id is not counted.
    AgainIsNotCounted,
    /// An override counts in campaigns too.
    OverrideCountsEverywhere,
    /// A settlement under a lost epoch is obeyed.
    SettleObeysLostEpoch,
    /// An outcome moves messages out of terminal states.
    TerminalStatesChange,
    /// A late outcome moves nothing.
    EvidenceIsIgnored,
    /// A refused message of an ended campaign is queued again.
    RequeueIgnoresEnd,
    /// A message in doubt whose person opted out stays in doubt.
    DoubtOutlivesOptOut,
    /// A message in doubt is queued again for whatever reason.
    DoubtIsRequeued,
    /// Messages may be refused as often as they like.
    RefusalsAreEndless,
    /// The pool shows the oldest of all messages, whatever campaign they belong to.
    PoolForgetsTurns,
    /// Doubts of paused campaigns are told.
    DoubtsIgnorePause,
    /// Doubts are told before their next check.
    DoubtsComeEarly,
    /// A sweep that stops at its limit forgets the rest.
    SweepForgetsTheRest,
    /// Time on hold counts towards expiry.
    HoldEatsExpiry,
    /// A message of a paused campaign expires although it is not held yet.
    ExpiryIgnoresPause,
    /// Messages in a pool never expire.
    ExpiryForgetsPool,
    /// A campaign is completed although a message is in doubt.
    CompletionIgnoresDoubt,
    /// A campaign is completed although messages wait in its pool.
    CompletionIgnoresPool,
    /// A campaign is told to be completed although messages of it are open.
    CompletionIsForced,
    /// The event that tells of a completion is not kept with it.
    CompletionIsNotTold,
    /// An audience takes niches that contain the wanted one.
    AudienceMatchesParts,
    /// An audience takes leads that came after the start.
    AudienceTakesLatecomers,
    /// Rows of other users are seen.
    ForeignRowsShow,
    /// Rows of other devices are seen by a scope of some devices.
    DeviceScopeIsIgnored,
    /// A page leaves out the row after the last one seen.
    PageSkipsARow,
    /// A takeover leaves messages `sending`.
    FenceForgetsSending,
    /// A takeover accepts a node that has beaten.
    FenceIgnoresBeat,
    /// A fenced node may go on as owner.
    FencedNodeGoesOn,
    /// Epochs do not grow.
    EpochsStandStill,
    /// Nodes that live are forgotten like fenced ones.
    LiveNodesAreForgotten,
    /// A takeover leaves the planner lease.
    FenceKeepsPlanner,
    /// Devices without an owner count although they were deleted.
    UnownedCountsDeleted,
    /// Claims take devices that another node owns.
    ClaimTakesOwned,
    /// A device that is sending is given back.
    ReleaseGivesSending,
    /// Attempts whose fate is unknown do not count in a lane's history.
    HistoryForgetsUnknown,
    /// A person is enrolled although an enrolment of theirs is open.
    EnrolsTwice,
    /// Re-entry is allowed whatever the sequence says.
    ReEntryIsIgnored,
    /// A chain may lead back into a sequence that it came through.
    ChainsRunInCircles,
    /// An enrolment keeps naming the one that was refused to follow it.
    RefusedChainIsNotTold,
    /// Leads enter by tokens that begin like those of the entry points.
    EntriesMatchParts,
    /// A message that is declined leaves its enrolment where it is.
    DeclineForgetsTheMark,
    /// A message that is swept leaves its enrolment where it is.
    SweepForgetsTheMark,
    /// An enrolment moves on however its step ended.
    AdvanceIgnoresAfter,
    /// An enrolment moves on in steps that were edited since.
    AdvanceIgnoresEdits,
    /// A completion takes all triggers of its lead.
    TriggerRemovalRemovesAll,
    /// Messages of ended enrolments are sent.
    GateIgnoresEnrolment,
    /// A later step is sent while an earlier one is sent again.
    GateIgnoresEarlierSteps,
    /// A step is sent again after a later one.
    EarlierStepIsResent,
    /// The counts of a sequence leave out enrolments that ended.
    CountsForgetEnded,
    /// A reply ends no enrolment.
    ReplyEndsNothing,
    /// The enrolments of a deleted sequence stay open.
    DeletionEndsNothing,
    /// An edit of the entry points of an active sequence looks for nobody anew.
    EditKeepsTheCursor,
    /// A lead that changed while it was matched loses its mark.
    MatchedIgnoresVersions,
    /// A device takes more of a campaign than its limit.
    AssignIgnoresLimit,
    /// What a device took counts for ever, however often the campaign is triggered.
    TriggerKeepsTaken,
    /// A campaign is triggered again although it runs.
    TriggerInterrupts,
    /// Messages are left over although their campaign is paused.
    LeaveOverIgnoresPause,
    /// A message that is left over stays so for good.
    LeftOverIsForGood,
    /// Messages that were taken up again count as left over.
    LeftOverCountsReplaced,
    /// A lead of the pool belongs to a device as soon as that is to send to it.
    LeadLeavesWhenQueued,
    /// A lead of the pool stays there when it was sent to.
    LeadStaysWhenSent,
    /// The pool takes leads that have a device.
    PoolTakesOwnedLeads,
    /// The newest message of a lead is one that was replaced.
    NewestOfLeadIsSuperseded,
    /// A login that has expired is found.
    ExpiredLoginLives,
    /// What is in doubt on a device that becomes another account is asked of that.
    OtherAccountIsAsked,
    /// What is in doubt is sent again by another account.
    OtherAccountRepeats,
    /// Session values are written at any epoch of a device.
    SessionIgnoresEpoch,
    /// Session values are written by nodes that do not own the device.
    SessionObeysStrangers,
    /// A batch of session values that is refused keeps its first value.
    SessionBatchIsCut,
    /// Session values that were deleted are still there.
    SessionKeepsDeleted,
    /// Wiping the session of a device wipes those of all.
    WipeTakesAll,
    /// A sweep takes session values whose end has not come.
    SessionsEndEarly,
    /// A chat may name a device of another user.
    ChatCrossesUsers,
    /// A message that is delivered twice is in its chat twice.
    ChatMessageIsKeptTwice,
    /// What the engine sent and the vendor tells of is in its chat twice.
    ChatKeepsWhatWasSent,
    /// A chat that was read still has messages that were not.
    ChatStaysUnread,
    /// The chats of a deleted device are seen.
    ChatsOutliveDevice,
    /// Erasing a person leaves the chats with them.
    ChatsOutliveErasure,
    /// A sweep takes messages of chats whose end has not come.
    ChatsEndEarly,
    /// A sweep of chats takes more than it was asked to.
    ChatSweepIgnoresLimit,
    /// A sweep leaves chats that have no message left.
    EmptyChatsStay,
    /// Chats are told in the order of their ids.
    ChatsStandInOrderOfIds,
    /// Messages after a place are told newest first.
    ChatIsReadBackwards,
    /// A page of messages begins one beyond its place.
    ChatPageSkipsAMessage,
    /// What the engine sent is on every page of a chat.
    SentIsOnEveryPage,
    /// What campaigns and sequences sent is not shown in chats.
    ChatHidesWhatCampaignsSent,
    /// What other devices sent to a person is shown too.
    ChatShowsOtherDevices,
    /// A message that comes late puts its chat back.
    LateMessagePutsChatBack,
    /// A message without the person's name takes the name away.
    ChatForgetsName,
    /// Who answers on the own phone has not read what came before.
    AnswerLeavesUnread,
    /// What was read before the device was linked counts as not read.
    PastCountsAsUnread,
    /// Anybody marks a chat read.
    ReadCrossesUsers,
    /// Campaigns are archived as soon as they end.
    ArchiveIgnoresAge,
    /// Campaigns are archived although messages of them are open.
    ArchiveTakesOpen,
    /// Archiving that stops at its limit forgets the rest.
    ArchiveStopsAtItsLimit,
    /// Archived messages are lost to lists and numbers.
    ArchiveIsNotRead,
    /// Archived messages keep their newest attempt alone.
    ArchiveLosesAttempts,
    /// Those to whom archived messages were sent are strangers again.
    ArchiveForgetsAcquaintances,
    /// The warm-up of a device starts anew when its first message is archived.
    ArchiveRestartsWarmUp,
    /// A campaign of which messages are archived may go on.
    ArchivedCampaignGoesOn,
    /// Archived messages are marked, sent again and settled by late outcomes.
    ArchivedMessageChanges,
    /// The steps and the enrolments of a sequence are counted at two moments.
    CountsAreOfTwoMoments,
    /// Erasing a person leaves what is archived.
    ErasureSparesTheArchive,
}
