-- How words are spelled, to be shown; NULL when as they are folded. They are found by the folded form alone.
ALTER TABLE leads ADD COLUMN niches_spelled TEXT;
ALTER TABLE lead_tokens ADD COLUMN spelling TEXT;
