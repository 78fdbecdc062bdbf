DROP TABLE import_refusals;
DROP TABLE imports;
DROP TABLE login_sessions;
DROP TABLE users;
