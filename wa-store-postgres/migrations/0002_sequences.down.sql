DROP TABLE step_tallies;
DROP TABLE enrolment_counts;
DROP TABLE enrolments;
DROP TABLE sequence_entries;
DROP TABLE sequence_steps;
DROP TABLE sequences;
