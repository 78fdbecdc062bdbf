-- Whether the node had the lock of its name when it joined: whoever has that lock later knows that the node is dead.
ALTER TABLE nodes ADD COLUMN named boolean NOT NULL DEFAULT false;
