ALTER TABLE lead_tokens DROP COLUMN spelling;
ALTER TABLE leads DROP COLUMN niches_spelled;
