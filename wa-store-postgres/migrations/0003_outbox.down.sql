DROP TABLE replies;
DROP TABLE tallies;
DROP TABLE attempts;
DROP TABLE messages;
